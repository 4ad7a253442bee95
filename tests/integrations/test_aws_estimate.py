"""What our design costs on AWS: sums that can be checked by hand, and prices that say where they are from."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from runrails.cli.shell import run
from runrails.metrics import sent_to_cloudwatch
from runrails_aws.estimate import Plan, estimate
from runrails_aws.estimate.model import ARTICLE
from runrails_aws.estimate.prices import PRICES

ARTICLE_USD = sum(usd for _, usd in ARTICLE)


def lines(plan: Plan, **prices: str) -> dict[str, tuple[Decimal, Decimal]]:
    """Fixed and by traffic, in cents, by service."""
    made = estimate(plan, {name.replace("_", "-"): Decimal(usd) for name, usd in prices.items()})
    return {line.service: (round(line.fixed_usd, 2), round(line.variable_usd, 2)) for line in made.lines}


def test_what_can_be_worked_out_by_hand() -> None:
    """At 1,500 requests a day, 45,625 a month."""
    found = lines(Plan())
    assert Decimal("14.42") == found["ECS Fargate"][0]  # 2 x 730 x (0.25 x 0.03238 + 0.5 x 0.00356)
    assert Decimal("32.85") == found["NAT gateway"][0]
    assert Decimal("10.95") == found["Public IPv4"][0]
    assert Decimal("6.00") == found["WAF"][0]
    # 45,625 x 23 write units and 3 read units, and 47 MB kept with recovery
    assert Decimal("0.69") == found["DynamoDB"][1]
    assert 0 == sum(traffic for _, traffic in lines(Plan(requests_per_day=0)).values())


def test_the_article_is_what_it_says() -> None:
    """Its own sum."""
    assert Decimal("54.40") == ARTICLE_USD


def test_beside_the_article() -> None:
    """A function costs less than it; tasks do but for the network around them, which its table does not have."""
    assert estimate(Plan(variant="lambda")).fixed_usd < ARTICLE_USD / 2
    whole = estimate(Plan())
    network = sum(line.fixed_usd for line in whole.lines if line.service in {"NAT gateway", "Public IPv4", "WAF"})
    assert whole.fixed_usd > ARTICLE_USD > whole.fixed_usd - network


def test_leases_cost_a_tenth() -> None:
    """Of what exact holds cost in four budgets; the guard is a small share of a call either way."""
    exact, leased = estimate(Plan()), estimate(Plan(ledger="leased"))
    assert exact.guard_usd_per_call > 9 * leased.guard_usd_per_call
    assert Decimal("0.1375") == exact.guard_percent
    assert estimate(Plan(scopes=1)).guard_usd_per_call < exact.guard_usd_per_call


def test_every_metric_is_paid_for() -> None:
    """As many as are sent at least; each price names its unit and AWS's page."""
    (told,) = [line.what for line in estimate(Plan()).lines if "CloudWatch" == line.service]
    assert len(sent_to_cloudwatch()) <= int(told.split()[0])
    assert all(
        each.usd > 0 and each.unit and each.page.startswith("https://aws.amazon.com/") for each in PRICES.values()
    )


def test_lines_of_metrics_are_paid_for() -> None:
    """Each task writes some every minute; a function with each request, and none while nobody asks."""
    dear = {"log_gb": "1000", "log_kept_gb": "0"}
    tasks = [lines(Plan(tasks=each), **dear)["CloudWatch"][0] for each in (1, 2, 3)]
    assert tasks[1] - tasks[0] == tasks[2] - tasks[1] == Decimal("52.56")  # 730 x 60 x 1,200 bytes at $1,000 a GB
    function = [lines(Plan("lambda", each), **dear)["CloudWatch"] for each in (0, 1_000)]
    assert function[0][0] == function[1][0]
    assert Decimal("49.28") == function[1][1]  # 30,417 x (1,200 + 420) bytes


def test_prices_can_be_others() -> None:
    """By name; also what the guard asks then."""
    assert (0, 0) == lines(Plan(), nat="0", nat_gb="0")["NAT gateway"]
    dear = estimate(Plan(), {"dynamodb-writes": Decimal("1.25")})
    assert 2 * estimate(Plan()).guard_usd_per_call == dear.guard_usd_per_call


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    """A table for people, JSON for programs; what is malformed is refused."""
    assert 0 == run(["aws", "estimate"])
    told = capsys.readouterr().out
    assert "NAT gateway" in told
    assert "$54.40" in told
    assert 0 == run(["aws", "estimate", "--variant", "lambda", "--price", "kms-key=2", "--json"])
    made = json.loads(capsys.readouterr().out)
    assert {"KMS": "2.00"} == {each["service"]: each["fixed_usd"] for each in made["lines"] if "KMS" == each["service"]}
    assert set(PRICES) == set(made["prices"])
    for wrong in (
        ["--price", "moon=1"], ["--price", "nat=-1"], ["--price", "nat"], ["--price", "nat=NaN"], ["--budgets", "2"],
        ["--call-usd", "0"], ["--requests-per-day", "-1"], ["--variant", "lambda", "--ledger", "leased"],
    ):  # fmt: skip
        assert 2 == run(["aws", "estimate", *wrong])
