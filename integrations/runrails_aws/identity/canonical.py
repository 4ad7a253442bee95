"""
The one request a proof is a signature of. Client and server build it here, letter by letter the same. Pure.

Signature Version 4 as AWS documents it: "Create a signed AWS API request", IAM User Guide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from runrails.errors import ConfigError
from runrails.ids import check_id

if TYPE_CHECKING:
    from runrails_aws.identity.proof import Proof
    from runrails_aws.identity.regions import Region

__all__ = [
    "BODY",
    "METHOD",
    "PATH",
    "SERVER_HEADER",
    "STSRequest",
    "check_server_id",
    "signed_request",
    "unsigned_request",
]

METHOD = "POST"
PATH = "/"
BODY = b"Action=GetCallerIdentity&Version=2011-06-15"
SERVER_HEADER = "x-guard-server-id"
"""Names the server a proof is for, and is signed: a proof shown to one server opens no other."""

Headers = tuple[tuple[str, str], ...]


class STSRequest(NamedTuple):
    """What is sent to STS over HTTPS, by `METHOD` to `PATH` with `BODY`."""

    host: str
    headers: Headers
    """Lower-case names, each once."""

    def __repr__(self) -> str:
        return f"STSRequest(host={self.host!r}, headers=…)"


def check_server_id(server_id: object) -> str:
    """A server's name for itself. Raises ConfigError if it is malformed."""
    try:
        return check_id(server_id, what="The server's id")
    except ValueError as error:
        raise ConfigError(str(error), next_step="Name one server, for instance gateway.example.com.") from None


def unsigned_request(region: Region, server_id: str, date: str, token: str | None) -> STSRequest:
    """The request with every header that is signed, in the order in which they are."""
    headers = [
        ("content-type", "application/x-www-form-urlencoded; charset=utf-8"),
        ("host", region.host),
        ("x-amz-date", date),
        (SERVER_HEADER, server_id),
    ]
    if token is not None:
        headers.append(("x-amz-security-token", token))
    return STSRequest(region.host, tuple(sorted(headers)))


def signed_request(region: Region, server_id: str, proof: Proof) -> STSRequest:
    """The request a proof claims to be a signature of. Whether it is, STS says."""
    token = None if proof.token is None else proof.token.reveal()
    request = unsigned_request(region, server_id, proof.date, token)
    signed = ";".join(name for name, _ in request.headers)
    authorization = (
        f"AWS4-HMAC-SHA256 Credential={proof.key_id}/{proof.date[:8]}/{region.name}/sts/aws4_request, "
        f"SignedHeaders={signed}, Signature={proof.signature.reveal()}"
    )
    return request._replace(headers=(*request.headers, ("authorization", authorization)))
