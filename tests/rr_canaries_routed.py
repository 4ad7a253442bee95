"""What the canaries of calls share: a world whose users' keys are canaries, and what must hold of every call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anthropic
import openai

import rr_canaries as birds
from rr_canaries import Canary, Lookout
from rr_routed import Keys
from runrails.credentials import CredentialId
from runrails.errors import RunrailsError
from runrails.keyroutes import KeyPolicy
from runrails.secretvalue import Secret
from runrails.stores.sqlite import SQLiteStore
from runrails.testing.provider import Error, HangUp

SDK = (openai.OpenAIError, anthropic.AnthropicError, RunrailsError)
ALICE = CredentialId("user:alice", "openai")
ASKED: Any = [{"role": "user", "content": birds.PROMPT.text}]


class Routed(Keys):
    """A world whose ledger is a file, and whose user's keys are canaries."""

    def __init__(self, lookout: Lookout, directory: Path, policy: KeyPolicy | None = None, **options: Any) -> None:
        self.out = lookout
        self.directory = directory
        self.says: Any = None
        books = options.pop("store", None) or SQLiteStore(directory / "books.db")
        super().__init__(policy, store=books, **options)

    def _answer(self, request: Any) -> Any:
        told = super()._answer(request)
        return self.says if self.says is not None else told

    def shown(self) -> None:
        """Everything there is after a call."""
        self.out.show(self.guard, self.router, self.vault, *self.events, *self.vault.list())
        self.out.show(*self.store.usage(), *self.store.balances())  # type: ignore[attr-defined]


Call = Callable[[Routed], object]


def echo(status: int, canary: Canary) -> Error:
    """The key in the words of the answer, whole and in pieces, and in a header."""
    message = f"Incorrect API key provided: {canary.text}. Beginning {canary.text[:24]}…, ending …{canary.text[-16:]}."
    return Error(status, message=message, headers={"x-key": canary.text, "retry-after": "0"})


ROUTES: dict[str, tuple[KeyPolicy, Callable[[Routed], object]]] = {
    "required": (KeyPolicy(byok="require"), lambda world: world.vault.remove(ALICE)),
    "forbidden model": (KeyPolicy(models=("other",)), lambda world: None),
    "invalid": (KeyPolicy(), lambda world: world.vault.mark(ALICE, "invalid", 1)),
    "suspended": (KeyPolicy(), lambda world: world.vault.mark(ALICE, "suspended")),
    "unsendable": (KeyPolicy(), lambda world: world.vault.rotate(ALICE, Secret(birds.OPENAI.text + "\nx: y"))),
    "not ASCII": (KeyPolicy(), lambda world: world.vault.rotate(ALICE, Secret(birds.OPENAI.text + "ü"))),
    "bytes": (KeyPolicy(), lambda world: world.vault.rotate(ALICE, Secret(b"\xff" + birds.OPENAI.text.encode()))),
}  # fmt: skip


def check_call(lookout: Lookout, directory: Path, act: Call, canary: Canary, status: int) -> None:
    """A call on a user's key that comes to this status; 0: the provider hangs up."""
    with Routed(lookout, directory) as world:
        which = world.own("user:alice", canary.text, provider=canary.name.split()[0].lower())
        if status == 0:
            world.says = HangUp(billed=False)
        elif status != 200:
            world.says = echo(status, canary)
        if status == 200:
            act(world)
        else:
            lookout.fails(lambda: act(world), *SDK, Exception)
        assert {canary.text} == set(world.seen)
        assert ("invalid" if status == 401 else "unverified") == world.vault.peek(which).status  # type: ignore[union-attr]
        world.shown()


def check_not_made(lookout: Lookout, directory: Path, act: Call, route: str) -> None:
    """A call that may go out on nobody's key."""
    policy, prepare = ROUTES[route]
    with Routed(lookout, directory, policy) as world:
        world.own("user:alice", birds.OPENAI.text)
        prepare(world)
        lookout.fails(lambda: act(world))
        assert [] == world.seen
        world.shown()
