"""HTTPS to STS, once, through the egress guard: no redirects, no proxies, an end to time and size."""

from __future__ import annotations

import ssl
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from runrails.egress import EgressFailed, Policy, fetch, system_resolver
from runrails.egress_rules import EgressRefused, check_networks
from runrails.errors import ConfigError
from runrails.identity.errors import Unauthenticated
from runrails_aws.identity.answer import ANSWER_BYTES_MAX, STSAnswer
from runrails_aws.identity.canonical import BODY, METHOD, PATH

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from typing import LiteralString

    from runrails.egress import Resolver
    from runrails_aws.identity.canonical import STSRequest

__all__ = ["HTTPSTransport", "Transport"]

PORT = 443
TIMEOUT_MS_MAX = 60_000

_REASONS: Mapping[str, LiteralString] = MappingProxyType(
    {
        "timeout": "aws_sts_slow",
        "resolver_timeout": "aws_sts_slow",
        "certificate": "aws_sts_tls",
        "tls": "aws_sts_tls",
        "redirect": "aws_sts_redirected",
        "too_large": "aws_sts_oversized",
    }
)
"""What the egress guard calls it, and what we do; all else is "unreachable"."""


class Transport(Protocol):
    """Sends a request to STS and has the answer."""

    def __call__(self, request: STSRequest, /) -> STSAnswer:
        """Raises Unauthenticated, with the reason in `reason`; whatever else it raises is taken for "unreachable"."""
        ...


class HTTPSTransport:
    """
    Asks STS over TLS. Every request has a connection of its own, since logins are rare.

    Nothing of the environment but its certificate authorities counts, and no redirect is followed: the answer of any
    other host than the region's STS could name anybody.

    Args:
        timeout_ms: For the whole request, from looking up the name to the last byte.
        networks: Of VPC endpoints of STS, as `10.20.0.0/16`; without them only public addresses are connected to.
        resolver: Finds the addresses of a host.
        context: How certificates are verified; by default against the authorities of the system.
        port: Another one only for a server of a test.

    Raises:
        ConfigError: The time is out of range, or the context verifies nothing.
        ValueError: What should be a network is none.
    """

    def __init__(
        self,
        *,
        timeout_ms: int = 5_000,
        networks: Collection[str] = (),
        resolver: Resolver = system_resolver,
        context: ssl.SSLContext | None = None,
        port: int = PORT,
    ) -> None:
        if type(timeout_ms) is not int or not 1 <= timeout_ms <= TIMEOUT_MS_MAX:
            raise ConfigError("timeout_ms is out of range.", next_step=f"Give 1 to {TIMEOUT_MS_MAX:,} milliseconds.")
        if context is not None and not (context.verify_mode is ssl.CERT_REQUIRED and context.check_hostname):
            raise ConfigError(
                "A TLS context that does not verify lets anybody be STS.",
                next_step="Give one of ssl.create_default_context().",
            )
        check_networks(networks)
        self._timeout_ms = timeout_ms
        self._networks = tuple(networks)
        self._resolver = resolver
        self._context = context
        self._port = port

    def __call__(self, request: STSRequest, /) -> STSAnswer:
        """Send it, and have the answer. Raises Unauthenticated, with the reason in `reason`."""
        policy = Policy(
            allow_hosts=(request.host,), ports=(self._port,), networks=self._networks,
            body_bytes_max=ANSWER_BYTES_MAX, timeout_ms=self._timeout_ms,
        )  # fmt: skip
        headers = dict(request.headers)  # whatever their host is, the egress guard sends its own
        try:
            answer = fetch(
                f"https://{request.host}:{self._port}{PATH}", policy=policy, method=METHOD, headers=headers, body=BODY,
                resolver=self._resolver, context=self._context,
            )  # fmt: skip
            return STSAnswer(answer.status, answer.headers.get("content-type"), answer.body)
        except EgressFailed as failure:
            reason = _REASONS.get(failure.reason, "aws_sts_unreachable")
        except EgressRefused as refused:
            reason = "aws_sts_address" if refused.reason == "not_public" else "aws_sts_unreachable"
        raise Unauthenticated(reason)
