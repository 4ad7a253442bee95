"""What the tests of chosen keys share: a vault, and a provider that notes on which key every request came."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from openai import _base_client

from rr_clients import TOLD, World
from runrails.credentials import CredentialId, KeyRing, Vault
from runrails.credentials.router import Router
from runrails.documents.memory import MemoryDocuments
from runrails.keyroutes import KeyPolicy
from runrails.secretvalue import Secret
from runrails.testing.provider import Answer, Error
from runrails.testing.provider.values import ProviderRequest

ALICE = "sk-of-alice-0123456789abcdefghij"
ACME = "sk-of-acme-0123456789abcdefghijkl"
HOUSE = "sk-of-the-house-0123456789abcdefg"
HTTP: Any = getattr(_base_client, "httpx2", None) or getattr(_base_client, "httpx")  # noqa: B009 -- older ones have only this
"""The HTTP library of the installed SDK."""
ADDRESSES = {"openai": "openai_url", "anthropic": "anthropic_url"}


class Keys(World):
    """
    A world whose guard chooses keys. Keys in `bad` are refused by the provider; `seen` has what came in order,
    `asked` also what was said.
    """

    def __init__(self, policy: KeyPolicy | Callable[[Any], KeyPolicy] | None = None, **options: Any) -> None:
        self.seen: list[str] = []
        self.asked: list[tuple[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.bad: set[str] = set()
        self.moved_to: str | None = None
        self.fails_with: int | None = None
        self.meanwhile: Callable[[], object] | None = None
        self.vault = Vault(MemoryDocuments(), KeyRing("k1", {"k1": Secret(os.urandom(32))}))
        self.router = Router(self.vault, policy, fresh_ms=options.pop("fresh_ms", 0))
        super().__init__(self._answer, credentials=options.pop("credentials", self.router), **options)

    def _answer(self, request: ProviderRequest) -> Answer:
        headers = dict(request.headers)
        key = headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")
        self.seen.append(key)
        self.asked.append((key, request.messages[-1].text if request.messages else ""))
        self.headers.append(headers)
        if self.meanwhile is not None:
            self.meanwhile()
        if self.fails_with is not None:
            return Error(self.fails_with)
        if self.moved_to is not None:
            return Error(307, headers={"location": f"{self.moved_to}{request.path}"})
        return Error(401) if key in self.bad else TOLD

    def own(self, owner: str, secret: str, *, provider: str = "openai", **options: Any) -> CredentialId:
        """Give somebody a key for this provider."""
        url = options.pop("base_url", getattr(self.provider, ADDRESSES[provider]))
        return self.vault.add(CredentialId(owner, provider), Secret(secret), base_url=url, **options).id

    def house(self, **options: Any) -> Any:
        """A client with the platform's key."""
        return self.openai(api_key=HOUSE, **options)

    def paid(self) -> list[tuple[str, bool]]:
        """By which key, and whether it was anybody's own, as the records have it."""
        return [(record.facts.credential, record.facts.byok) for record in self.store.usage()]  # type: ignore[attr-defined]

    def months(self) -> dict[str, int]:
        """What every scope with a calendar has spent."""
        return {
            balance.account.scope: balance.spent
            for balance in self.store.balances()  # type: ignore[attr-defined]
            if balance.account.period != "-" and balance.spent
        }
