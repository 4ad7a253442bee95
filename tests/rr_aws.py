"""AWS without AWS: a strict STS of our own and moto's with IAM authentication on, behind one face."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.client import HTTPConnection
from types import SimpleNamespace
from typing import NamedTuple, Protocol
from xml.sax.saxutils import escape

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest

from runrails_aws.identity.answer import STSAnswer
from runrails_aws.identity.canonical import BODY, METHOD, PATH, STSRequest
from runrails_aws.identity.regions import REGIONS

ACCOUNT = "123456789012"
SERVER_ID = "gateway.example.com"
REGION = "eu-central-1"
ELSEWHERE = "us-east-1"
ALLOWED = (REGION, ELSEWHERE, "cn-north-1", "us-gov-west-1")
NAMESPACE = "https://sts.amazonaws.com/doc/2011-06-15/"


class Key(NamedTuple):
    """Credentials as botocore freezes them."""

    access_key: str
    secret_key: str
    token: str | None = None


class Engine(Protocol):
    """An STS and the IAM behind it. Called with a request, it answers as `Transport` does."""

    asked: list[STSRequest]

    def __call__(self, request: STSRequest, /) -> STSAnswer: ...

    def user(self, name: str, *, path: str = "/", partition: str = "aws") -> Key:
        """A new IAM user's access key."""
        ...

    def role(self, name: str, *, path: str = "/", partition: str = "aws") -> None:
        """A new role; one of that name is deleted before."""
        ...

    def assume(self, name: str, session: str, *, path: str = "/", partition: str = "aws") -> Key:
        """A session of a role."""
        ...


def answer_xml(arn: str, user_id: str, account: str = ACCOUNT) -> bytes:
    """What STS answers."""
    return (
        f'<GetCallerIdentityResponse xmlns="{NAMESPACE}">\n  <GetCallerIdentityResult>\n    <Arn>{escape(arn)}</Arn>\n'
        f"    <UserId>{escape(user_id)}</UserId>\n    <Account>{account}</Account>\n  </GetCallerIdentityResult>\n"
        "  <ResponseMetadata>\n    <RequestId>01234567-89ab-cdef-0123-456789abcdef</RequestId>\n  </ResponseMetadata>\n"
        "</GetCallerIdentityResponse>\n"
    ).encode()


def error_xml(code: str, message: str = "No.") -> bytes:
    """How STS refuses."""
    return (
        f'<ErrorResponse xmlns="{NAMESPACE}"><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message>'
        "</Error><RequestId>0</RequestId></ErrorResponse>"
    ).encode()


def _unique(prefix: str, length: int = 21) -> str:
    return prefix + "".join(secrets.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") for _ in range(length - len(prefix)))


@dataclass
class _Known:
    key: Key
    arn: str
    user_id: str
    partition: str
    ends_ms: int | None = None


class _Refusal(Exception):
    def __init__(self, status: int, code: str, message: str = "No.") -> None:
        super().__init__(code)
        self.answer = STSAnswer(status, "text/xml", error_xml(code, message))


_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([A-Z0-9]+)/([0-9]{8})/([a-z0-9-]+)/sts/aws4_request, "
    r"SignedHeaders=([a-z0-9-]+(?:;[a-z0-9-]+)*), Signature=([0-9a-f]{64})"
)


@dataclass
class StrictSTS:
    """An STS that checks what moto's does not: the clock, the host, repeated headers, what is left unsigned."""

    clock: Callable[[], int]
    asked: list[STSRequest] = field(default_factory=list)
    keys: dict[str, _Known] = field(default_factory=dict)
    roles: dict[tuple[str, str], str] = field(default_factory=dict)

    def __call__(self, request: STSRequest, /) -> STSAnswer:
        self.asked.append(request)
        try:
            known = self._authenticated(request)
        except _Refusal as refusal:
            return refusal.answer
        return STSAnswer(200, "text/xml", answer_xml(known.arn, known.user_id))

    def _authenticated(self, request: STSRequest) -> _Known:
        headers = dict(request.headers)
        found = _AUTHORIZATION.fullmatch(headers.get("authorization", ""))
        if found is None or len(headers) != len(request.headers) or any(name != name.lower() for name in headers):
            raise _Refusal(400, "IncompleteSignature")
        key_id, day, region, names, signature = found.groups()
        signed = names.split(";")
        must = {name for name in headers if name.startswith("x-amz-")} | {"host"}
        if signed != sorted(set(signed)) or not must <= set(signed) <= set(headers):
            raise _Refusal(403, "SignatureDoesNotMatch")
        known = self.keys.get(key_id)
        here = REGIONS.get(region)
        if known is None or here is None or known.partition != here.partition:
            raise _Refusal(403, "InvalidClientTokenId")
        if headers.get("x-amz-security-token") != known.key.token:
            raise _Refusal(403, "InvalidClientTokenId")
        date = headers["x-amz-date"]
        moment_ms = int(datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp() * 1000)
        if abs(self.clock() - moment_ms) > 15 * 60_000:
            raise _Refusal(403, "SignatureDoesNotMatch", f"Signature expired: {date} is now earlier than it may be")
        if known.ends_ms is not None and self.clock() >= known.ends_ms:
            raise _Refusal(403, "ExpiredToken")
        if headers["host"] != here.host or not date.startswith(day):
            raise _Refusal(403, "SignatureDoesNotMatch")
        wanted = AWSRequest(METHOD, f"https://{here.host}{PATH}", {name: headers[name] for name in signed}, BODY)
        wanted.context["timestamp"] = date
        signer = SigV4Auth(SimpleNamespace(**known.key._asdict()), "sts", region)
        if signer.signature(signer.string_to_sign(wanted, signer.canonical_request(wanted)), wanted) != signature:
            raise _Refusal(403, "SignatureDoesNotMatch")
        return known

    def user(self, name: str, *, path: str = "/", partition: str = "aws") -> Key:
        key = Key(_unique("AKIA", 20), secrets.token_urlsafe(30))
        arn = f"arn:{partition}:iam::{ACCOUNT}:user{path}{name}"
        self.keys[key.access_key] = _Known(key, arn, _unique("AIDA"), partition)
        return key

    def role(self, name: str, *, path: str = "/", partition: str = "aws") -> None:
        self.roles[partition, name] = _unique("AROA")

    def assume(
        self, name: str, session: str, *, path: str = "/", partition: str = "aws", ends_ms: int | None = None
    ) -> Key:
        key = Key(_unique("ASIA", 20), secrets.token_urlsafe(30), "FwoGZXIvYXdz" + secrets.token_urlsafe(300) + "==")
        arn = f"arn:{partition}:sts::{ACCOUNT}:assumed-role/{name}/{session}"
        user_id = f"{self.roles[partition, name]}:{session}"
        self.keys[key.access_key] = _Known(key, arn, user_id, partition, ends_ms)
        return key


_REGION_OF = {"aws": "us-east-1", "aws-cn": "cn-north-1", "aws-us-gov": "us-gov-west-1"}


class MotoSTS:
    """moto's server: IAM, and an STS that computes every signature itself."""

    def __init__(self) -> None:
        from moto.server import ThreadedMotoServer

        self.asked: list[STSRequest] = []
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        self._address = self._server.get_host_and_port()
        self._clients: dict[tuple[str, str], object] = {}
        self._authenticate("0")

    def close(self) -> None:
        """Leave moto's state, which is the process's, as it was found."""
        self._authenticate("inf")
        self._send("/moto-api/reset", "")
        self._server.stop()

    def __call__(self, request: STSRequest, /) -> STSAnswer:
        self.asked.append(request)
        connection = HTTPConnection(*self._address, timeout=30)
        connection.request(METHOD, PATH, BODY, dict(request.headers))
        with connection.getresponse() as response:
            answer = STSAnswer(response.status, response.getheader("content-type"), response.read())
        connection.close()
        return answer

    def user(self, name: str, *, path: str = "/", partition: str = "aws") -> Key:
        from moto.iam.models import iam_backends

        with self._open():
            iam = self._client("iam", partition)
            iam.create_user(UserName=name, Path=path)
            made = iam.create_access_key(UserName=name)["AccessKey"]
        # moto's ids of users have another form than AWS's, and are the only thing of it that is changed here.
        iam_backends[ACCOUNT][partition].get_user(name).id = _unique("AIDA")
        return Key(made["AccessKeyId"], made["SecretAccessKey"])

    def role(self, name: str, *, path: str = "/", partition: str = "aws") -> None:
        trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Principal": "*"}]}
        with self._open():
            iam = self._client("iam", partition)
            if any(one["RoleName"] == name for one in iam.list_roles()["Roles"]):
                iam.delete_role(RoleName=name)
            iam.create_role(RoleName=name, Path=path, AssumeRolePolicyDocument=json.dumps(trust))

    def assume(self, name: str, session: str, *, path: str = "/", partition: str = "aws") -> Key:
        arn = f"arn:{partition}:iam::{ACCOUNT}:role{path}{name}"
        with self._open():
            found = self._client("sts", partition).assume_role(RoleArn=arn, RoleSessionName=session)["Credentials"]
        return Key(found["AccessKeyId"], found["SecretAccessKey"], found["SessionToken"])

    def _open(self) -> _Opened:
        return _Opened(self)

    def _client(self, service: str, partition: str) -> object:
        import boto3

        if (service, partition) not in self._clients:
            self._clients[service, partition] = boto3.client(
                service, endpoint_url="http://{}:{}".format(*self._address), region_name=_REGION_OF[partition],
                aws_access_key_id="AKIAADMINADMINADMIN0", aws_secret_access_key="admin",
            )  # fmt: skip
        return self._clients[service, partition]

    def _authenticate(self, after: str) -> None:
        """After how many requests signatures are checked: "0" is at once, "inf" is never."""
        self._send("/moto-api/reset-auth", after)

    def _send(self, path: str, body: str) -> None:
        connection = HTTPConnection(*self._address, timeout=30)
        connection.request("POST", path, body, {"content-type": "text/plain"})
        with connection.getresponse() as response:
            assert response.status == 200, response.read()
        connection.close()


class _Opened:
    """While something is set up, moto takes every signature."""

    def __init__(self, engine: MotoSTS) -> None:
        self._engine = engine

    def __enter__(self) -> None:
        self._engine._authenticate("inf")

    def __exit__(self, *_: object) -> None:
        self._engine._authenticate("0")
