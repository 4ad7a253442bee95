"""What a CloudFormation template of ours must keep to: read from its text, and told as faults in words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import yaml

__all__ = ["faults_of", "read_template"]

_SHORT = {"Ref": "Ref", "Condition": "Condition"}
_OPEN_INGRESS = {("BalancerGroup", 443)}
_PUBLIC_ADDRESSES = {"NatAddress"}
_ANY_RESOURCE = {"ecr:GetAuthorizationToken"}
"""Actions that know no resource."""
_ALL_OF_A_KIND = {"arn:${AWS::Partition}:ecr:${AWS::Region}:${AWS::AccountId}:repository/*"}
"""Which repository an image is in, its own name says."""
_TLS = re.compile(r"ELBSecurityPolicy-TLS13-1-[23]-")
"""No older one than 1.2; the policies that end in 1-0 and 1-1 take those, too."""
_ELSEWHERE = {"RUNRAILS_KEY_PEPPERS": ":ssm://", "RUNRAILS_MASTER_KEYS": "kms:"}
_ROOT = "arn:${AWS::Partition}:iam::${AWS::AccountId}:root"
_ROOT_OF_KEY = "AccountByItsPolicies"
"""Without this statement of its own nobody could ever administer a key; it lets those in that IAM lets in."""


class _Loader(yaml.SafeLoader):
    """Knows CloudFormation's short forms."""


def _construct(loader: Any, suffix: str, node: Any) -> Any:
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
        if suffix == "GetAtt":
            value = value.split(".", 1)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)
    return {_SHORT.get(suffix, f"Fn::{suffix}"): value}


_Loader.add_multi_constructor("!", _construct)


def read_template(text: str) -> dict[str, Any]:
    """A template as JSON would have it."""
    return yaml.load(text, Loader=_Loader)  # noqa: S506 -- a safe loader with constructors of ours


def faults_of(template: dict[str, Any]) -> list[str]:
    """Everything that is not as it must be."""
    resources = {name: (each["Type"], each.get("Properties", {}), each) for name, each in template["Resources"].items()}
    return [fault for rule in RULES for fault in rule(resources)]


Resources = dict[str, tuple[str, dict[str, Any], dict[str, Any]]]


def _of(resources: Resources, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, (found, properties, _) in resources.items():
        if found == kind:
            yield name, properties


def _private_subnets(resources: Resources) -> set[str]:
    """By where their routes lead, whatever their names say."""
    public = {
        route["RouteTableId"]["Ref"]
        for _, route in _of(resources, "AWS::EC2::Route")
        if "GatewayId" in route or "EgressOnlyInternetGatewayId" in route
    }
    tables = [each for _, each in _of(resources, "AWS::EC2::SubnetRouteTableAssociation")]
    routed = {each["SubnetId"]["Ref"] for each in tables}
    return routed - {each["SubnetId"]["Ref"] for each in tables if each["RouteTableId"]["Ref"] in public}


def _no_public_addresses(resources: Resources) -> Iterator[str]:
    private = _private_subnets(resources)
    for name, service in _of(resources, "AWS::ECS::Service"):
        network = service["NetworkConfiguration"]["AwsvpcConfiguration"]
        if network.get("AssignPublicIp") != "DISABLED":
            yield f"{name}: a task has a public address"
        if any(each.get("Ref", "") not in private for each in network["Subnets"]):
            yield f"{name}: a task is in a public subnet"
    for name, subnet in _of(resources, "AWS::EC2::Subnet"):
        if subnet.get("MapPublicIpOnLaunch") is not False:
            yield f"{name}: what is in it gets a public address"
    for name, _ in _of(resources, "AWS::EC2::EIP"):
        if name not in _PUBLIC_ADDRESSES:
            yield f"{name}: another public address"
    for name, route in _of(resources, "AWS::EC2::Route"):
        if "GatewayId" in route and "Public" not in route["RouteTableId"]["Ref"]:
            yield f"{name}: a way from the internet to what is private"


def _egress(resources: Resources) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, group in _of(resources, "AWS::EC2::SecurityGroup"):
        if "SecurityGroupEgress" not in group:
            yield name, {"IpProtocol": -1, "CidrIp": "0.0.0.0/0"}
        for each in group.get("SecurityGroupEgress", ()):
            yield name, each
    for name, each in _of(resources, "AWS::EC2::SecurityGroupEgress"):
        yield name, each


def _narrow_egress(resources: Resources) -> Iterator[str]:
    for name, rule in _egress(resources):
        anywhere = "DestinationSecurityGroupId" not in rule and rule.get("CidrIp") != "127.0.0.1/32"
        ports = rule.get("IpProtocol"), rule.get("FromPort"), rule.get("ToPort")
        if anywhere and ports != ("tcp", 443, 443):
            yield f"{name}: may send to anywhere on other ports than 443"


def _narrow_ingress(resources: Resources) -> Iterator[str]:
    rules = [
        (name, each)
        for name, group in _of(resources, "AWS::EC2::SecurityGroup")
        for each in group.get("SecurityGroupIngress", ())
    ]
    for name, rule in [*rules, *_of(resources, "AWS::EC2::SecurityGroupIngress")]:
        from_group = "SourceSecurityGroupId" in rule
        if not from_group and (name, rule.get("FromPort")) not in _OPEN_INGRESS:
            yield f"{name}: can be reached from outside"
        if rule.get("FromPort") != rule.get("ToPort") or rule.get("IpProtocol") != "tcp":
            yield f"{name}: can be reached on more than one port"


def _statements(resources: Resources) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Each statement of each policy, and whether it is a key's own, where the resource is the key."""
    for name, (_, properties, _) in resources.items():
        for policy in properties.get("Policies", ()):
            yield from ((name, each, False) for each in _list(policy["PolicyDocument"]["Statement"]))
        for field in ("PolicyDocument", "KeyPolicy", "AssumeRolePolicyDocument"):
            for each in _list(properties.get(field, {}).get("Statement", [])):
                yield name, each, field == "KeyPolicy"
        if properties.get("ManagedPolicyArns"):
            yield name, {"Effect": "Allow", "Action": "*", "Resource": "*"}, False


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _texts(value: Any) -> list[str]:
    """All that is said somewhere in it."""
    if isinstance(value, dict):
        return [text for each in value.values() for text in _texts(each)]
    if isinstance(value, list):
        return [text for each in value for text in _texts(each)]
    return [value] if isinstance(value, str) else []


def _is_any(resource: Any) -> bool:
    """Whether it leaves open which kind's, or all of a kind: `*`, `arn:aws:dynamodb:*:*:table/*`."""
    text = resource.get("Fn::Sub", "") if isinstance(resource, dict) else resource
    if not isinstance(text, str) or text in _ALL_OF_A_KIND:
        return False
    *whose, which = re.split(r"(?<!:):(?!:)", text, maxsplit=5)
    return any("*" in part for part in whose) or bool(re.fullmatch(r"(?:[a-z-]+[/:])?\*", which))


def _least_privilege(resources: Resources) -> Iterator[str]:
    for name, statement, of_key in _statements(resources):
        actions = _list(statement.get("Action", []))
        of_root = of_key and statement.get("Sid") == _ROOT_OF_KEY
        if any("*" in each for each in actions) and not of_root:
            yield f"{name}: a wildcard among the actions"
        if any(map(_is_any, _list(statement.get("Resource", [])))) and not of_key and not set(actions) <= _ANY_RESOURCE:
            yield f"{name}: any resource"
        if "*" in _texts(statement.get("Principal", {})):
            yield f"{name}: for everybody"
        if of_root and statement.get("Principal") != {"AWS": {"Fn::Sub": _ROOT}}:
            yield f"{name}: administered by another account than ours"
        if of_key and not of_root and not statement.get("Condition"):
            yield f"{name}: a service may use it on anybody's behalf"
        if any(each.startswith("Not") for each in statement):
            yield f"{name}: says what is not allowed instead of what is"


def _called_by_address(resources: Resources) -> Iterator[str]:
    for name, allowed in _of(resources, "AWS::Lambda::Permission"):
        by_address = allowed.get("FunctionUrlAuthType") or allowed.get("InvokedViaFunctionUrl") is True
        if allowed.get("Principal") == "*" and not by_address:
            yield f"{name}: everybody may call the function, and say what it is called with"


def _kept_and_sealed(resources: Resources) -> Iterator[str]:
    for name, table in _of(resources, "AWS::DynamoDB::Table"):
        if table.get("SSESpecification", {}).get("SSEEnabled") is not True:
            yield f"{name}: is not encrypted with a key of KMS"
        if table.get("PointInTimeRecoverySpecification", {}).get("PointInTimeRecoveryEnabled") is not True:
            yield f"{name}: cannot be recovered"
        if table.get("DeletionProtectionEnabled") is not True:
            yield f"{name}: can be deleted"
        if table.get("BillingMode") != "PAY_PER_REQUEST":
            yield f"{name}: is not billed by request"
        if table.get("TimeToLiveSpecification") != {"AttributeName": "ttl", "Enabled": True}:
            yield f"{name}: what is out of date stays"
    for name, (kind, _, resource) in resources.items():
        ends = {resource.get("DeletionPolicy"), resource.get("UpdateReplacePolicy")}
        if kind in {"AWS::DynamoDB::Table", "AWS::KMS::Key"} and ends != {"Retain"}:
            yield f"{name}: goes with the stack, or when it is replaced"
        if kind == "AWS::DynamoDB::GlobalTable":
            yield f"{name}: two regions can spend the same money"
    for name, key in _of(resources, "AWS::KMS::Key"):
        if key.get("EnableKeyRotation") is not True:
            yield f"{name}: is never rotated"
    for name, log in _of(resources, "AWS::Logs::LogGroup"):
        if "RetentionInDays" not in log:
            yield f"{name}: is kept for ever"
        if "KmsKeyId" not in log:
            yield f"{name}: is not encrypted with our key"
    for name, topic in _of(resources, "AWS::SNS::Topic"):
        if "KmsMasterKeyId" not in topic or topic["KmsMasterKeyId"] == "alias/aws/sns":
            yield f"{name}: is not encrypted, or so that no alarm reaches it"


def _https(resources: Resources) -> Iterator[str]:
    for name, listener in _of(resources, "AWS::ElasticLoadBalancingV2::Listener"):
        if listener.get("Protocol") != "HTTPS" or not _TLS.match(listener.get("SslPolicy", "")):
            yield f"{name}: keys may cross the network unencrypted"
    balancers = dict(_of(resources, "AWS::ElasticLoadBalancingV2::LoadBalancer"))
    for name, balancer in balancers.items():
        set_to = {each["Key"]: each["Value"] for each in balancer["LoadBalancerAttributes"]}
        if set_to.get("routing.http.drop_invalid_header_fields.enabled") != "true":
            yield f"{name}: passes malformed headers on"
    guarded = {each["ResourceArn"].get("Ref") for _, each in _of(resources, "AWS::WAFv2::WebACLAssociation")}
    yield from (f"{name}: has no firewall" for name in balancers if name not in guarded)
    for name, acl in _of(resources, "AWS::WAFv2::WebACL"):
        if not any(
            "RateBasedStatement" in each.get("Statement", {}) and "Block" in each["Action"] for each in acl["Rules"]
        ):
            yield f"{name}: limits no rate"


def _no_secrets(resources: Resources) -> Iterator[str]:
    for name, task in _of(resources, "AWS::ECS::TaskDefinition"):
        for container in task["ContainerDefinitions"]:
            for each in container.get("Environment", ()):
                if each["Name"].endswith(("_KEY", "_TOKEN", "_SECRET", "_PASSWORD")):
                    yield f"{name}: a secret in the environment"
                if _is_inline(each["Name"], each["Value"]):
                    yield f"{name}: {each['Name']} itself in the environment"
            if container.get("Privileged") or container.get("User") == "root":
                yield f"{name}: has more rights than it needs"
            if container.get("ReadonlyRootFilesystem") is not True:
                yield f"{name}: may write to its own code"
    for name, function in _of(resources, "AWS::Lambda::Function"):
        for each, value in function["Environment"]["Variables"].items():
            if each.endswith(("_KEY", "_TOKEN", "_SECRET", "_PASSWORD")):
                yield f"{name}: a secret in the environment"
            if _is_inline(each, value):
                yield f"{name}: {each} itself in the environment"
        if "ReservedConcurrentExecutions" not in function:
            yield f"{name}: may run as often at once as the account lets it"


def _is_inline(name: str, value: Any) -> bool:
    """Whether a setting that says where secrets are has them in it."""
    where = _ELSEWHERE.get(name)
    return where is not None and not any(where in text for text in _texts(value))


def _logs_are_ours(resources: Resources) -> Iterator[str]:
    """What writes elsewhere makes a log of its own there: in the clear, and for ever."""
    logs = {name for name, _ in _of(resources, "AWS::Logs::LogGroup")}
    for name, task in _of(resources, "AWS::ECS::TaskDefinition"):
        for container in task["ContainerDefinitions"]:
            options = container.get("LogConfiguration", {}).get("Options", {})
            if options.get("awslogs-group", {}).get("Ref") not in logs:
                yield f"{name}: writes no log of ours"
            if options.get("mode") != "non-blocking":
                yield f"{name}: waits for its log"
    for name, function in _of(resources, "AWS::Lambda::Function"):
        if function.get("LoggingConfig", {}).get("LogGroup", {}).get("Ref") not in logs:
            yield f"{name}: writes no log of ours"


RULES: tuple[Callable[[Resources], Iterator[str]], ...] = (
    _no_public_addresses, _narrow_egress, _narrow_ingress, _least_privilege, _called_by_address, _kept_and_sealed,
    _https, _no_secrets, _logs_are_ours,
)  # fmt: skip
