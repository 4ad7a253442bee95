"""Whom AWS has let in already: behind a function URL or an HTTP API with IAM authorisation, the event names them."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from runrails.identity.errors import Unauthenticated

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runrails.identity.opening import EventVerifier
    from runrails.identity.principal import Principal
    from runrails_gateway.lambda_events import Asked

__all__ = ["EventDoor"]

_PREFIX = "runrails-aws-event."
"""Begins as proofs of AWS identities do, so that an `Authenticator` asks here."""


class EventDoor:
    """
    Lets in whom the event names that is being answered, and nobody else. For one event after the other.

    Args:
        verifier: Tells whom an event names.
    """

    waits = False

    def __init__(self, verifier: EventVerifier) -> None:
        self._verifier = verifier
        self._known: dict[str, Principal] = {}

    def admit(self, event: Mapping[str, object], request: Asked) -> Asked:
        """The request with a credential for whom the event names in the place of its own; without any if for nobody."""
        self._known.clear()
        nobodys = request.without_credentials()
        try:
            principal = self._verifier.verify(event)
        except Unauthenticated:
            return nobodys
        credential = _PREFIX + secrets.token_hex(32)
        self._known[credential] = principal
        return nobodys._replace(headers=[*nobodys.headers, (b"authorization", f"Bearer {credential}".encode())])

    def verify(self, text: str, /) -> Principal:
        """Whom a credential of `admit` stands for. Raises Unauthenticated."""
        principal = self._known.get(text)
        if principal is None:
            raise Unauthenticated("aws_event_anonymous")
        return principal
