"""The runbook and the page about AWS name what there is: metrics, alarms, commands, tests, and sums of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from runrails.cli.shell import run
from runrails.metrics import METRICS, sent_to_cloudwatch
from runrails_aws.estimate import Plan, estimate
from runrails_aws.monitoring import Watched, alarms_of

ROOT = Path(__file__).parents[2]
RUNBOOK = (ROOT / "docs/runbook.md").read_text()
AWS = (ROOT / "docs/aws.md").read_text()
INCIDENTS = {
    re.sub(r"^\d+\. ", "", part.split("\n", 1)[0]): part for part in re.split(r"^## ", RUNBOOK, flags=re.MULTILINE)[1:]
}
PARTS = ("Symptom", "Metrics", "Command", "Prevention", "Reproduced by")
EVERYTHING = Watched(
    "eu-west-1", table="ledger", cluster="c", ecs_service="s", function="f", baseline_usd="1.00"
)  # fmt: skip
ALARMS = {str(each["AlarmName"]).removeprefix("runrails-gateway-") for each in alarms_of(EVERYTHING, None)}


def test_thirteen_incidents() -> None:
    """Three of the article and ten more, numbered in order."""
    numbers = [int(number) for number in re.findall(r"^## (\d+)\. ", RUNBOOK, flags=re.MULTILINE)]
    assert list(range(1, 14)) == numbers


@pytest.mark.parametrize("incident", INCIDENTS)
def test_an_incident_is_whole(incident: str) -> None:
    """Its parts, in order, each saying something; its metrics and alarms are listed; its test is there."""
    text = INCIDENTS[incident]
    found = re.findall(r"^\*\*([A-Z][a-z ]+)\.\*\* \S", text, flags=re.MULTILINE)
    assert list(PARTS) == found
    by_part = dict(re.findall(r"^\*\*([A-Z][a-z ]+)\.\*\* (.+)", text, flags=re.MULTILINE))
    known = {each.cloudwatch for each in sent_to_cloudwatch()} | ALARMS
    named = set(re.findall(r"`([A-Z][A-Za-z]+|[a-z]+(?:-[a-z]+)+)`", by_part["Metrics"]))
    assert named <= known
    for path, test in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", by_part["Reproduced by"]):
        assert f"def {test}" in (ROOT / path).read_text()


@pytest.mark.parametrize(
    "command", sorted({*re.findall(r"`(runrails [a-z][a-z -]*[a-z])", RUNBOOK + AWS)}), ids=lambda text: text[9:]
)  # fmt: skip
def test_commands_are_there(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each has help, also if only its beginning is named."""
    words = [word for word in command.split()[1:] if not word.startswith("-")]
    while words and run([*words, "--help"]):
        words.pop()  # an argument
    assert words
    assert "Usage" in capsys.readouterr().out


def test_every_alarm_is_in_the_docs() -> None:
    """In the table, and in an incident; and how many there are."""
    for more in ({"cluster": "c", "ecs_service": "s"}, {"function": "f"}):
        watched = Watched("eu-west-1", table="ledger", baseline_usd="1.00")._replace(**more)
        assert f"{len(alarms_of(watched, None))} alarms" in AWS
    rows = re.findall(r"^\| `([a-z-]+)` \|", AWS.partition("<!-- alarms -->")[2], flags=re.MULTILINE)
    assert ALARMS == set(rows)
    missing = {each for each in ALARMS if f"`{each}`" not in RUNBOOK}
    assert {"cost-over-baseline", "function-errors"} >= missing


def test_every_metric_is_in_the_docs() -> None:
    """As the list has it."""
    expected = []
    for each in METRICS:
        there = "" if each.cloudwatch is None else f"`{each.cloudwatch}`"
        by = f" by `{each.dimension.title()}`" if each.dimension else ""
        expected.append(f"| `{each.name}` | {there}{by} | {each.help} |")
    rows = AWS.partition("<!-- metrics -->\n")[2].partition("\n\n")[0].splitlines()
    assert expected == rows


def test_sums_are_the_estimates() -> None:
    """Fixed and by traffic, of both templates."""
    for variant in ("fargate", "lambda"):
        made = estimate(Plan(variant=variant))  # type: ignore[arg-type]
        for amount in (made.fixed_usd, made.variable_usd):
            assert f"${amount:.2f}" in AWS
    whole = estimate(Plan())
    network = sum(line.fixed_usd for line in whole.lines if line.service in {"NAT gateway", "Public IPv4", "WAF"})
    assert f"${network:.2f}" in AWS
    assert f"${whole.fixed_usd - network:.2f}" in AWS
    assert f"${whole.guard_usd_per_call:.8f}" in AWS
