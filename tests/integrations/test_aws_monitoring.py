"""The dashboard and the alarms: of listed metrics alone, taken by AWS's own validators, and put again as they are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from moto import mock_aws

from runrails.cli.shell import run
from runrails.errors import ConfigError
from runrails.metrics import NAMESPACE, sent_to_cloudwatch
from runrails_aws.monitoring import Watched, alarms_of, dashboard_of, detector_of
from runrails_aws.monitoring.putting import put_alarms, put_dashboard, topic_of
from runrails_aws.monitoring.watched import check_watched

REGION = "eu-west-1"
TOPIC = f"arn:aws:sns:{REGION}:123456789012:alarms"
LEAST = Watched(REGION)
ALL = Watched(
    REGION, "gateway", table="ledger", cluster="agents", ecs_service="gateway", balancer="app/front/0123456789abcdef",
    function="gateway", baseline_usd="4.00",
)  # fmt: skip
SENT = {each.cloudwatch for each in sent_to_cloudwatch()}
DIMENSIONS = {each.dimension.title() for each in sent_to_cloudwatch() if each.dimension}
AWS_METRICS = {
    "AWS/ECS": {"CPUUtilization", "MemoryUtilization"},
    "AWS/ApplicationELB": {"HTTPCode_Target_5XX_Count", "HTTPCode_ELB_5XX_Count", "HTTPCode_Target_4XX_Count"},
    "AWS/Lambda": {"Duration", "Errors", "Throttles"},
    "AWS/DynamoDB": {
        "ConsumedReadCapacityUnits", "ConsumedWriteCapacityUnits", "ReadThrottleEvents", "WriteThrottleEvents",
    },
}  # fmt: skip


def measured(requests: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Every metric that alarms look at, by namespace and name."""
    for request in requests:
        for each in request["Metrics"]:
            if "MetricStat" in each:
                metric = each["MetricStat"]["Metric"]
                yield metric["Namespace"], metric["MetricName"]


def shown(body: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Every metric that a dashboard shows."""
    for widget in body["widgets"]:
        for metric in widget["properties"]["metrics"]:
            if isinstance(metric[0], str):
                yield metric[0], metric[1]
            else:
                for found in re.findall(r'MetricName="(\w+)"', metric[0]["expression"]):
                    yield NAMESPACE, found


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A stand-in for AWS, with credentials that are none."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        yield


class Quiet:
    """CloudWatch of the stand-in, but for the detector, which it does not know: botocore's own validator sees that."""

    def __init__(self) -> None:
        self.client: Any = boto3.client("cloudwatch", region_name=REGION)
        self.detectors: list[dict[str, Any]] = []

    def put_dashboard(self, **request: Any) -> Any:
        return self.client.put_dashboard(**request)

    def put_metric_alarm(self, **request: Any) -> Any:
        return self.client.put_metric_alarm(**request)

    def put_anomaly_detector(self, **request: Any) -> Any:
        client = boto3.client("cloudwatch", region_name=REGION)
        with Stubber(client) as stubber:
            stubber.add_response("put_anomaly_detector", {}, request)
            self.detectors.append(request)
            return client.put_anomaly_detector(**request)


@pytest.mark.parametrize("watched", [LEAST, ALL], ids=["least", "all"])
def test_metrics_are_those_of_the_list(watched: Watched) -> None:
    """Ours by `runrails.metrics`, AWS's by its documentation; whatever else would show nothing, for ever."""
    for namespace, name in [*measured(alarms_of(watched, TOPIC)), *shown(dashboard_of(watched))]:
        assert name in (SENT if namespace == NAMESPACE else AWS_METRICS[namespace])


def test_all_that_is_sent_is_shown() -> None:
    """No metric is paid for that nobody sees."""
    assert SENT == {name for namespace, name in shown(dashboard_of(LEAST)) if namespace == NAMESPACE}


def test_dimensions_are_those_that_are_sent() -> None:
    """A search by another one finds nothing."""
    for widget in dashboard_of(ALL)["widgets"]:  # type: ignore[attr-defined]
        for metric in widget["properties"]["metrics"]:
            if isinstance(metric[0], dict) and "SEARCH" in metric[0]["expression"]:
                assert re.search(rf"{{{NAMESPACE},Service,(\w+)}}", metric[0]["expression"])[1] in DIMENSIONS  # type: ignore[index]


def test_what_is_not_there_is_not_watched() -> None:
    """Without a table, a cluster or a function nothing is about one."""
    namespaces = {each for each, _ in [*measured(alarms_of(LEAST, None)), *shown(dashboard_of(LEAST))]}
    assert {NAMESPACE} == namespaces
    every = {each for each, _ in [*measured(alarms_of(ALL, None)), *shown(dashboard_of(ALL))]}
    assert {NAMESPACE, *AWS_METRICS} == every


def test_silence_of_a_function_is_no_fault() -> None:
    """It runs when somebody asks; tasks run always."""

    def names(watched: Watched) -> set[str]:
        return {str(each["AlarmName"]).removeprefix("runrails-gateway-") for each in alarms_of(watched, None)}

    assert {"silent"} == names(LEAST) - names(LEAST._replace(function="gateway"))
    assert "silent" in names(LEAST._replace(cluster="agents", ecs_service="gateway"))


def test_percentiles_are_compared_with_what_none_can_be() -> None:
    """They are estimated from bounds of buckets: a threshold on a bound would be passed by a hair, or not."""
    for request in alarms_of(ALL, None):
        for each in request["Metrics"]:  # type: ignore[attr-defined]
            told = each.get("MetricStat", {"Stat": "", "Metric": {}})
            if told["Stat"].startswith("p"):
                (listed,) = [one for one in sent_to_cloudwatch() if one.cloudwatch == told["Metric"]["MetricName"]]
                assert all(abs(request["Threshold"] / bound - 1) > 0.2 for bound in listed.buckets)  # type: ignore[operator]


def test_widgets_do_not_overlap() -> None:
    """Each on its own place, none beyond the 24 columns."""
    places = set()
    for widget in dashboard_of(ALL)["widgets"]:  # type: ignore[attr-defined]
        assert widget["x"] + widget["width"] <= 24
        places.add((widget["x"], widget["y"]))
    assert len(places) == len(dashboard_of(ALL)["widgets"])  # type: ignore[arg-type]


def test_expressions_name_what_is_there() -> None:
    """Every name in a formula is the id of a metric beside it; just one thing is compared with the threshold."""
    functions = {"IF", "FILL", "ANOMALY_DETECTION_BAND"}
    for request in alarms_of(ALL, TOPIC):
        metrics: Any = request["Metrics"]
        ids = {each["Id"] for each in metrics}
        assert len(ids) == len(metrics)
        for each in metrics:
            assert set(re.findall(r"[A-Za-z_]+", each.get("Expression", ""))) - functions <= ids
        told = [each["Id"] for each in metrics if each.get("ReturnData", True)]
        assert (["cost", "band"] if "ThresholdMetricId" in request else told[:1]) == told


def test_aws_takes_them_and_again_is_nothing_new(aws: None) -> None:
    """Names, thresholds, whom they tell; the same after a second time."""
    cloudwatch = Quiet()
    for _ in range(2):
        names = put_alarms(cloudwatch, ALL, TOPIC)  # type: ignore[arg-type]
        assert "runrails-gateway" == put_dashboard(cloudwatch, ALL)  # type: ignore[arg-type]
    found = cloudwatch.client.describe_alarms()["MetricAlarms"]
    assert sorted(names) == sorted(each["AlarmName"] for each in found)
    assert 11 == len(names) == len(set(names))
    by_name = {each["AlarmName"].removeprefix("runrails-gateway-"): each for each in found}
    assert (150, 2) == (by_name["cost-over-baseline"]["Threshold"], by_name["cost-over-baseline"]["EvaluationPeriods"])
    assert 80 == by_name["memory"]["Threshold"]
    assert "breaching" == by_name["silent"]["TreatMissingData"]
    assert {(TOPIC,)} == {tuple(each["AlarmActions"]) for each in found}
    body = json.loads(cloudwatch.client.get_dashboard(DashboardName="runrails-gateway")["DashboardBody"])
    assert dashboard_of(ALL) == body
    assert [detector_of(ALL)] * 2 == cloudwatch.detectors


@pytest.mark.parametrize("watched", [LEAST, ALL], ids=["least", "all"])
def test_requests_are_valid(watched: Watched, aws: None) -> None:
    """By botocore's own description of the service."""
    client = boto3.client("cloudwatch", region_name=REGION)
    with Stubber(client) as stubber:
        for request in alarms_of(watched, TOPIC):
            stubber.add_response("put_metric_alarm", {}, request)
            client.put_metric_alarm(**request)
            assert len(str(request["AlarmDescription"])) <= 1_024
        stubber.assert_no_pending_responses()


@pytest.mark.parametrize(
    "changes",
    [
        {"region": "Europe"}, {"service": "a b"}, {"service": 'x" OR "'}, {"table": "no/table"}, {"cluster": "agents"},
        {"ecs_service": "gateway"}, {"balancer": "front"}, {"function": ""}, {"baseline_usd": "0"},
        {"baseline_usd": "-1"}, {"baseline_usd": "NaN"}, {"baseline_usd": "1e3"}, {"baseline_usd": "4) + (1"},
        {"baseline_usd": "10000000"},
    ],
    ids=str,
)  # fmt: skip
def test_malformed_names_are_refused(changes: dict[str, str]) -> None:
    """Before anything is sent; they would become part of expressions."""
    with pytest.raises(ConfigError):
        check_watched(LEAST._replace(**changes))  # type: ignore[arg-type]


def test_a_topic_is_made_by_its_name(aws: None) -> None:
    """Once; an ARN is taken as it is, and nobody is asked."""

    def client() -> Any:
        return boto3.client("sns", region_name=REGION)

    assert TOPIC == topic_of(TOPIC, lambda: pytest.fail("asked"))
    arn = topic_of("runrails-alarms", client)
    assert arn == topic_of("runrails-alarms", client)
    assert [arn] == [each["TopicArn"] for each in client().list_topics()["Topics"]]
    for malformed in ("", "two words", "arn:aws:sqs:eu-west-1:123456789012:queue"):
        with pytest.raises(ConfigError, match="topic"):
            topic_of(malformed, client)


def test_what_aws_refuses_is_told_without_its_words(aws: None) -> None:
    """The code, and what to look at."""
    client = boto3.client("cloudwatch", region_name=REGION)
    with Stubber(client) as stubber:
        stubber.add_client_error("put_dashboard", "AccessDenied", "User arn:aws:iam::123456789012:user/x may not")
        with pytest.raises(ConfigError, match="AccessDenied") as caught:
            put_dashboard(client, LEAST)  # type: ignore[arg-type]
    assert "123456789012" not in f"{caught.value} {caught.value.as_dict()}"


def test_a_dry_run_prints_what_would_be_sent(capsys: pytest.CaptureFixture[str]) -> None:
    """As JSON, without credentials or a network."""
    assert 0 == run(["aws", "dashboard", "put", "--region", REGION, "--table", "ledger", "--dry-run"])
    told = json.loads(capsys.readouterr().out)
    assert dashboard_of(LEAST._replace(table="ledger")) == told["body"]
    assert 0 == run(["aws", "alarms", "put", "--region", REGION, "--baseline", "4.00", "--dry-run"])
    told = json.loads(capsys.readouterr().out)
    assert alarms_of(LEAST._replace(baseline_usd="4.00"), None) == told["alarms"]
    assert detector_of(LEAST) == told["anomaly_detector"]
    assert 2 == run(["aws", "alarms", "put", "--region", "nowhere", "--dry-run"])


def test_commands_put_them(aws: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """By AWS's client; where it is refused, the exit code says so."""
    assert 0 == run(["aws", "dashboard", "put", "--region", REGION, "--json"])
    assert {"name": "runrails-gateway"} == json.loads(capsys.readouterr().out)
    cloudwatch = Quiet()
    monkeypatch.setattr("runrails_aws.monitoring.cli.client_of", lambda service, **_: _client(service, cloudwatch))
    assert 0 == run(["aws", "alarms", "put", "--region", REGION, "--topic", "alarms", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert TOPIC == told["topic"]
    assert 7 == len(told["alarms"])
    assert 0 == run(["aws", "alarms", "put", "--region", REGION])
    assert "Nobody is told" in capsys.readouterr().out


def _client(service: str, cloudwatch: Quiet) -> Any:
    return cloudwatch if service == "cloudwatch" else boto3.client(service, region_name=REGION)
