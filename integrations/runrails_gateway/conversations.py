"""Which run a request belongs to, and whether its conversation goes round in circles."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from runrails_gateway.continuing import kept_after
from runrails_gateway.history import history_of, mark_of, stream_mark
from runrails_gateway.loopcheck import LoopCheck
from runrails_gateway.recognition import Runs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runrails.identity.principal import Principal
    from runrails.run import Run
    from runrails_gateway.config import GatewayConfig
    from runrails_gateway.continuing import Continued
    from runrails_gateway.dialects import Ask
    from runrails_gateway.exchange import Exchange
    from runrails_gateway.history import History
    from runrails_gateway.recognition import Recognised

__all__ = ["Conversations", "Talk"]

KNOWN_MAX = 1_000
"""Runs that are known without asking the documents; they take a kilobyte each."""


class Talk(NamedTuple):
    """A request as a part of its conversation."""

    operation: str
    history: History
    recognised: Recognised
    named: bool
    """Whether the request names the answer it goes on from, and brings only what is new."""
    ask: Ask


class Conversations:
    """For one event loop."""

    def __init__(self, config: GatewayConfig) -> None:
        guard = config.guard
        self._runs = Runs(
            config.documents, clock=guard.clock, new_id=guard.run_id, emit=guard.emit, kept_max=KNOWN_MAX
        )  # fmt: skip
        self._loops = LoopCheck(
            guard.limits.loops, guard.tools,
            failed=lambda error: guard.emit("detector_failed", "error", error=error),
        )  # fmt: skip

    def close(self) -> None:
        """Let go of threads."""
        self._runs.close()

    async def recognise(self, principal: Principal, ask: Ask, *, header: str | None) -> Talk:
        """Which conversation a request belongs to. Raises BadRequest for a malformed header."""
        history = history_of(ask.operation, ask.body)
        found = await self._runs.recognise(principal, history, header=header, previous_id=ask.previous_id)
        if found.heard is not None:
            self._loops.recall(found.keys[0], found.heard)
        return Talk(ask.operation, history, found, ask.previous_id is not None, ask)

    def check(self, talk: Talk, run: Run) -> None:
        """Raise LoopDetected if the conversation goes round in circles."""
        finding = self._loops.check(
            talk.recognised.keys, talk.history, nameable=talk.operation == "responses.create", named=talk.named
        )  # fmt: skip
        if finding is not None:
            run.found(finding)

    async def answered(self, talk: Talk, exchange: Exchange, answer: bytes | Mapping[str, object]) -> None:
        """
        Remember an answer, so that the conversation is known when it goes on.

        Args:
            talk: What was answered.
            exchange: The same as a request that has come to an answer.
            answer: Its JSON, or all bytes of a stream.
        """
        name = talk.operation
        mark = stream_mark(name, answer) if isinstance(answer, bytes) else mark_of(name, answer)
        if mark is not None:
            heard = self._loops.answered(talk.recognised.keys, mark)
            keeps = None if mark.answer_id is None else _keeps(talk, exchange, mark.items)
            await self._runs.answered(talk.recognised, mark, heard=heard, keeps=keeps)


def _keeps(talk: Talk, exchange: Exchange, items: int) -> Continued | None:
    """What the provider keeps of the conversation, to which a next request may add."""
    ticket, result = exchange.ticket, exchange.result
    if ticket is None or result is None:
        return None
    return kept_after(talk.ask, ticket.permit.call, result, talk.recognised.keeps, items)
