"""The templates: as cautious as they say, of one piece with the code, and each carelessness is noticed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from rr_template_policy import faults_of, read_template
from runrails.cli.shell import run
from runrails.metrics import NAMESPACE, sent_to_cloudwatch
from runrails_aws.deploy import VARIANTS, template
from runrails_aws.dynamodb.schema import definition, differences, policy
from runrails_aws.monitoring.alarms import alarms_of
from runrails_aws.monitoring.watched import Watched

READ = {variant: read_template(template(variant)) for variant in VARIANTS}
BODY_BYTES_MAX = 51_200
"""CloudFormation takes no larger one without a bucket: https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html"""


def resource(made: dict[str, Any], name: str) -> dict[str, Any]:
    """A resource's properties."""
    return made["Resources"][name]["Properties"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_template_keeps_to_its_rules(variant: str) -> None:
    """And is small enough to be given as it is."""
    assert [] == faults_of(READ[variant])  # type: ignore[index]
    assert len(template(variant).encode()) < BODY_BYTES_MAX  # type: ignore[arg-type]
    assert "@" not in re.sub(r".+\[:@\]\.\+", "", template(variant))  # type: ignore[arg-type]


def change(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """A change of one property; None takes it away."""

    def changed(made: dict[str, Any]) -> None:
        at: Any = made["Resources"]
        *way, last = [int(each) if each.isdigit() else each for each in path.split("/")]
        for each in way:
            at = at[each]
        if value is None:
            del at[last]
        else:
            at[last] = value

    return changed


def add_statement(**statement: Any) -> Callable[[dict[str, Any]], None]:
    """One more thing that tasks may do."""

    def changed(made: dict[str, Any]) -> None:
        policies = made["Resources"]["TaskRole"]["Properties"]["Policies"]
        policies[0]["PolicyDocument"]["Statement"].append({"Effect": "Allow", "Resource": "arn:x", **statement})

    return changed


def add_resource(name: str, kind: str, **properties: Any) -> Callable[[dict[str, Any]], None]:
    """Something more."""
    return lambda made: made["Resources"].update({name: {"Type": kind, "Properties": properties}})


GATEWAY = "Gateway/Properties/NetworkConfiguration/AwsvpcConfiguration"
CARELESS: dict[str, Callable[[dict[str, Any]], None]] = {
    "a task with a public address": change(f"{GATEWAY}/AssignPublicIp", "ENABLED"),
    "a task whose address is left to chance": change(f"{GATEWAY}/AssignPublicIp", None),
    "a task in a public subnet": change(f"{GATEWAY}/Subnets/0", {"Ref": "PublicSubnetA"}),
    "a subnet that gives addresses": change("PrivateSubnetA/Properties/MapPublicIpOnLaunch", True),
    "another address": add_resource("Another", "AWS::EC2::EIP", Domain="vpc"),
    "a way in": add_resource(
        "WayIn", "AWS::EC2::Route", RouteTableId={"Ref": "PrivateRoutes"}, GatewayId={"Ref": "Internet"}
    ),
    "egress on every port": change("TaskGroup/Properties/SecurityGroupEgress/0/IpProtocol", "-1"),
    "egress on more ports": change("TaskGroup/Properties/SecurityGroupEgress/0/FromPort", 80),
    "egress that nobody names": change("TaskGroup/Properties/SecurityGroupEgress", None),
    "egress of its own": add_resource(
        "More", "AWS::EC2::SecurityGroupEgress", IpProtocol="tcp", FromPort=22, ToPort=22, CidrIp="0.0.0.0/0"
    ),
    "a task that callers reach": add_resource(
        "Direct", "AWS::EC2::SecurityGroupIngress", IpProtocol="tcp", FromPort=4700, ToPort=4700, CidrIp="0.0.0.0/0"
    ),
    "a balancer on every port": change("BalancerGroup/Properties/SecurityGroupIngress/0/ToPort", 65_535),
    "every action of a service": add_statement(Action="dynamodb:*"),
    "every action there is": add_statement(Action=["s3:GetObject", "*"]),
    "any table": add_statement(Action="dynamodb:Scan", Resource="*"),
    "all but some actions": add_statement(Action="x:Y", NotAction="iam:*"),
    "a policy of AWS's": change("TaskRole/Properties/ManagedPolicyArns", ["arn:aws:iam::aws:policy/PowerUserAccess"]),
    "a key for everybody": change("Key/Properties/KeyPolicy/Statement/0/Principal", {"AWS": "*"}),
    "a key with every action for a service": change("Key/Properties/KeyPolicy/Statement/1/Action", "kms:*"),
    "an unencrypted table": change("Table/Properties/SSESpecification/SSEEnabled", False),
    "a table that says nothing of encryption": change("Table/Properties/SSESpecification", None),
    "a table without recovery": change("Table/Properties/PointInTimeRecoverySpecification", None),
    "a table that can be deleted": change("Table/Properties/DeletionProtectionEnabled", False),
    "a table that goes with the stack": change("Table/DeletionPolicy", "Delete"),
    "a table that keeps everything": change("Table/Properties/TimeToLiveSpecification", None),
    "a key that goes with the stack": change("Key/DeletionPolicy", None),
    "a key that is never rotated": change("Key/Properties/EnableKeyRotation", None),
    "a log without retention": change("Log/Properties/RetentionInDays", None),
    "a log in the clear": change("Log/Properties/KmsKeyId", None),
    "a topic that alarms cannot reach": change("Topic/Properties/KmsMasterKeyId", "alias/aws/sns"),
    "HTTP": change("Listener/Properties/Protocol", "HTTP"),
    "old TLS": change("Listener/Properties/SslPolicy", "ELBSecurityPolicy-2016-08"),
    "malformed headers": change("Balancer/Properties/LoadBalancerAttributes/0/Value", "false"),
    "no firewall": change("FirewallOfBalancer", None),
    "no rate": change("Firewall/Properties/Rules/0", {"Name": "none", "Statement": {}}),
    "a key in the environment": change("Task/Properties/ContainerDefinitions/0/Environment/0/Name", "OPENAI_API_KEY"),
    "a private subnet with a way out of its own": change(
        "PrivateRoutesA/Properties/RouteTableId", {"Ref": "PublicRoutes"}
    ),
    "any resource, in a list": add_statement(Action="dynamodb:Scan", Resource=["*"]),
    "every table": add_statement(
        Action="dynamodb:Scan", Resource={"Fn::Sub": "arn:aws:dynamodb:${AWS::Region}:${AWS::AccountId}:table/*"}
    ),
    "a table of any account": add_statement(
        Action="dynamodb:Scan", Resource={"Fn::Sub": "arn:${AWS::Partition}:dynamodb:*:*:table/ledger"}
    ),
    "a role for everybody": change(
        "TaskRole/Properties/AssumeRolePolicyDocument/Statement/0/Principal", {"AWS": ["*"]}
    ),
    "a key for everybody, in a list": change("Key/Properties/KeyPolicy/Statement/1/Principal", {"AWS": ["*"]}),
    "a key of another account": change(
        "Key/Properties/KeyPolicy/Statement/0/Principal", {"AWS": "arn:aws:iam::123456789012:root"}
    ),
    "a key for whoever has a service ask": change("Key/Properties/KeyPolicy/Statement/2/Condition", None),
    "all but some, without what": change(
        "TaskRole/Properties/Policies/0/PolicyDocument/Statement/0",
        {"Effect": "Allow", "NotAction": "iam:*", "Resource": "arn:x"},
    ),
    "a table that goes when it is replaced": change("Table/UpdateReplacePolicy", None),
    "TLS of 1999": change("Listener/Properties/SslPolicy", "ELBSecurityPolicy-TLS13-1-0-2021-06"),
    "a rate that is only counted": change("Firewall/Properties/Rules/0/Action", {"Count": {}}),
    "a log of AWS's": change(
        "Task/Properties/ContainerDefinitions/0/LogConfiguration/Options/awslogs-group", {"Fn::Sub": "/ecs/x"}
    ),
    "a log that is waited for": change("Task/Properties/ContainerDefinitions/0/LogConfiguration/Options/mode", None),
    "a container that may write": change("Task/Properties/ContainerDefinitions/0/ReadonlyRootFilesystem", False),
    "a pepper in the environment": change(
        "Task/Properties/ContainerDefinitions/0/Environment/1/Value", "p1:env:PEPPER"
    ),
    "a privileged container": change("Task/Properties/ContainerDefinitions/0/Privileged", True),
}  # fmt: skip


@pytest.mark.parametrize("careless", CARELESS)
def test_carelessness_is_noticed(careless: str) -> None:
    """Each, tried, is one fault or more."""
    made = deepcopy(READ["fargate"])
    CARELESS[careless](made)
    assert faults_of(made)


@pytest.mark.parametrize(
    "careless",
    [change("Function/Properties/ReservedConcurrentExecutions", None),
     change("Function/Properties/Environment/Variables/OPENAI_API_KEY", "sk"),
     change("Function/Properties/Environment/Variables/RUNRAILS_KEY_PEPPERS", "p1:env:PEPPER"),
     change("Function/Properties/LoggingConfig", None),
     change("FunctionByAddress/Properties/InvokedViaFunctionUrl", None)],
    ids=["as many as there may be", "a key in the environment", "a pepper in the environment", "a log of its own",
         "whoever may call it says what with"],
)  # fmt: skip
def test_carelessness_with_a_function_is_noticed(careless: Callable[[dict[str, Any]], None]) -> None:
    """The same for the smaller template."""
    made = deepcopy(READ["lambda"])
    careless(made)
    assert faults_of(made)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_table_is_a_ledger(variant: str) -> None:
    """As `runrails aws table check` would say of it."""
    made = resource(READ[variant], "Table")  # type: ignore[index]
    described = {**made, "TableStatus": "ACTIVE"}
    ttl = {"TimeToLiveStatus": "ENABLED", "AttributeName": made["TimeToLiveSpecification"]["AttributeName"]}
    assert [] == differences(described, ttl)
    asked = definition("ledger")
    assert {name: made[name] for name in ("KeySchema", "GlobalSecondaryIndexes", "BillingMode")} == {
        name: asked[name] for name in ("KeySchema", "GlobalSecondaryIndexes", "BillingMode")
    }


@pytest.mark.parametrize(("variant", "role"), [("fargate", "TaskRole"), ("lambda", "FunctionRole")])
def test_a_process_may_do_what_a_ledger_needs(variant: str, role: str) -> None:
    """The statements that `runrails aws policy` prints, for this table alone."""
    (ledger,) = [
        each["PolicyDocument"]
        for each in resource(READ[variant], role)["Policies"]  # type: ignore[index]
        if "ledger" == each["PolicyName"]
    ]
    text = json.dumps(ledger).replace("runrails-${Service}", "ledger").replace("${AWS::Partition}", "aws")
    text = text.replace("${AWS::Region}", "*").replace("${AWS::AccountId}", "*")
    assert policy("ledger") == json.loads(re.sub(r'\{"Fn::Sub": ("[^"]*")\}', r"\1", text))
    assert {"Fn::Sub": "runrails-${Service}"} == resource(READ[variant], "Table")["TableName"]  # type: ignore[index]


@pytest.mark.parametrize("variant", VARIANTS)
def test_alarms_are_those_of_the_code(variant: str) -> None:
    """As many as `runrails aws alarms put` makes; all of them tell the topic; their metrics are listed."""
    made = READ[variant]["Resources"]  # type: ignore[index]
    alarms = {name: each for name, each in made.items() if "AWS::CloudWatch::Alarm" == each["Type"]}
    watched = Watched("us-east-1", "gateway", "ledger", baseline_usd="1.00")
    more = {"function": "f"} if variant == "lambda" else {"cluster": "c", "ecs_service": "s"}
    assert len(alarms_of(watched._replace(**more), None)) == len(alarms)
    sent = {each.cloudwatch for each in sent_to_cloudwatch()}
    for name, alarm in alarms.items():
        assert [{"Ref": "Topic"}] == alarm["Properties"]["AlarmActions"], name
        for each in alarm["Properties"]["Metrics"]:
            metric = each.get("MetricStat", {}).get("Metric")
            assert metric is None or metric["Namespace"] != NAMESPACE or metric["MetricName"] in sent
    assert ["CostOverBaselineAlarm"] == [name for name, each in alarms.items() if each.get("Condition")]


@pytest.mark.parametrize("variant", VARIANTS)
def test_names_that_texts_ask_for_are_there(variant: str) -> None:
    """`${Name}` is a parameter, a resource, or AWS's own."""
    made = READ[variant]  # type: ignore[index]
    known = {*made["Parameters"], *made["Resources"]}
    asked = set(re.findall(r"\$\{([A-Za-z]+)(?:\.[A-Za-z]+)?\}", json.dumps(made)))
    assert asked <= known
    assert set(made["Parameters"]) <= asked | set(re.findall(r'"Ref": "(\w+)"', json.dumps(made)))
    body = json.loads(resource(made, "Dashboard")["DashboardBody"]["Fn::Sub"])
    assert len(body["widgets"]) > 10


@pytest.mark.parametrize("variant", VARIANTS)
def test_parameters_are_documented(variant: str) -> None:
    """All but those that say yes or no, and sizes, by their names."""
    obvious = {
        "UseOpenAI",
        "UseAnthropic",
        "VpcCidr",
        "TaskCpu",
        "TaskMemory",
        "TasksMax",
        "MemoryMB",
        "LogRetentionDays",
    }
    for name, parameter in READ[variant]["Parameters"].items():  # type: ignore[index]
        assert name in obvious or parameter["Description"].endswith((".", "…"))


@pytest.mark.parametrize("variant", VARIANTS)
def test_settings_are_the_gateways(variant: str) -> None:
    """Each is read somewhere in the code, so that none is misspelt."""
    from importlib import resources

    text = json.dumps(READ[variant])  # type: ignore[index]
    code = "".join(
        path.read_text()
        for package in ("runrails", "runrails_gateway")
        for path in resources.files(package).rglob("*.py")  # type: ignore[attr-defined]
    )
    for name in set(re.findall(r"RUNRAILS_[A-Z_]+", text)):
        assert name in code


@pytest.mark.parametrize("variant", VARIANTS)
def test_parameters_that_cannot_work_are_refused(variant: str) -> None:
    """By CloudFormation, before anything is made: a baseline of nothing, a name that a load balancer cannot have."""
    parameters = READ[variant]["Parameters"]  # type: ignore[index]
    baseline, service = (parameters[name]["AllowedPattern"] for name in ("HourlyBaseline", "Service"))
    for text in ("", "4", "4.00", "0.50", "10", "1000000", "0.000000000001", "100.05"):
        assert re.fullmatch(baseline, text), text
    for text in ("0", "0.00", "00", ".5", "-1", "4.", "1e3", "4) + (1"):
        assert not re.fullmatch(baseline, text), text
    for text in ("g", "gateway", "my-gateway-2", "a" * 20):
        assert re.fullmatch(service, text), text
    for text in ("", "gateway-", "2nd", "a" * 21, "Gateway"):
        assert not re.fullmatch(service, text), text


def test_the_container_is_that_of_the_image() -> None:
    """Its arguments are for the entry point, what it may write to is the volume, its port is listened on."""
    image = (Path(__file__).parents[2] / "Dockerfile").read_text()
    (container,) = resource(READ["fargate"], "Task")["ContainerDefinitions"]
    assert 'ENTRYPOINT ["runrails", "serve"]' in image
    assert f"CMD {json.dumps(container['Command'])}" in image
    assert f'VOLUME ["{container["MountPoints"][0]["ContainerPath"]}"]' in image
    assert {4700} == {each["ContainerPort"] for each in container["PortMappings"]}
    assert "EXPOSE 4700" in image


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    """As it stands, or in JSON."""
    assert 0 == run(["aws", "template"])
    assert template("fargate") == capsys.readouterr().out
    assert 0 == run(["aws", "template", "lambda", "--json"])
    assert {"variant": "lambda", "template": template("lambda")} == json.loads(capsys.readouterr().out)
    assert 2 == run(["aws", "template", "kubernetes"])
