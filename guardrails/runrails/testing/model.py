"""A model that lives in the test: no network, no framework, the same scripts and the same bill as the fake provider."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from runrails.calls import ModelCall, ModelResult, Prompt
from runrails.testing.provider.bill import Bill, BilledCall, BilledEnd, price_function
from runrails.testing.provider.plan import Plan, take_apart
from runrails.testing.provider.reply import Reply, make_reply
from runrails.testing.provider.script import Script, Scripted
from runrails.testing.provider.stories import echo
from runrails.testing.provider.values import Error, ProviderMessage, ProviderRequest, ToolUse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from runrails.pricing.spec import Price
    from runrails.testing.provider.bill import PriceFunction
    from runrails.usage import Usage

__all__ = ["FakeModel", "FakeProviderError", "FakeReply", "Stage"]

POLL_S = 0.005
"""How often a stalled asynchronous call looks at its event."""


class FakeProviderError(Exception):
    """What a scripted `Error` becomes where there is no SDK to raise its own."""

    def __init__(self, status: int, code: str | None) -> None:
        super().__init__(f"scripted error {status}" + (f" ({code})" if code else ""))
        self.status = status
        self.status_code = status
        self.code = code


class Stage:
    """Where in-process models play their scripts: counts calls, waits, writes the bill. Safe from any thread."""

    def __init__(
        self,
        *,
        price_pusd: PriceFunction | None = None,
        sleep: Callable[[float], None] = time.sleep,
        asleep: Callable[[float], Awaitable[None]] | None = None,
    ) -> None:
        self.bill = Bill(price_pusd)
        self.calls = 0
        self.in_flight_max = 0
        self._sleep = sleep
        self._asleep = asleep
        self._in_flight = 0
        self._lock = threading.Lock()

    def enter(self) -> int:
        """Count a call that starts; its number, from 1."""
        with self._lock:
            self.calls += 1
            self._in_flight += 1
            self.in_flight_max = max(self.in_flight_max, self._in_flight)
            return self.calls

    def leave(self) -> None:
        """Count a call that has ended."""
        with self._lock:
            self._in_flight -= 1

    def wait(self, whats: Sequence[int | threading.Event]) -> None:
        """Wait as told."""
        for what in whats:
            if isinstance(what, int):
                self._sleep(what / 1000)
            else:
                what.wait()

    async def await_(self, whats: Sequence[int | threading.Event]) -> None:
        """Wait as told, leaving the event loop free."""
        asleep = self._asleep
        if asleep is None:
            import asyncio

            asleep = asyncio.sleep
        for what in whats:
            if isinstance(what, int):
                await asleep(what / 1000)
                continue
            while not what.is_set():
                await asleep(POLL_S)

    def reply(self, request: ProviderRequest, plan: Plan) -> Reply:
        """
        Decide what is said.

        Raises:
            FakeProviderError: The script says so.
            ConnectionError: The provider hangs up before it answers.
        """
        if isinstance(plan.said, Error):
            if plan.said.usage is not None:
                self.add(request, plan.said.usage, "errored")
            raise FakeProviderError(plan.said.status, plan.said.code)
        reply = make_reply(request, plan.said, served_model=request.model)
        hang_up = plan.hang_up
        if hang_up is not None and (hang_up.after_chunks is None or not request.stream):
            if hang_up.billed:
                self.add(request, reply.usage, "errored")
            raise ConnectionError("the scripted provider hung up")
        return reply

    def add(self, request: ProviderRequest, usage: Usage, end: BilledEnd) -> None:
        """Write a line of the bill."""
        self.bill.add(
            BilledCall(
                number=request.number,
                wire=request.wire,
                model=request.model,
                served_model=request.model,
                usage=usage,
                end=end,
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeReply:
    """What a `FakeModel` said."""

    text: str = field(repr=False)
    tool_uses: tuple[ToolUse, ...]
    finish: Literal["stop", "length", "tools"]
    result: ModelResult
    """What to hand to `Run.after_model`."""


class FakeModel:
    """
    A language model for tests of the core.

    Args:
        script: As for `FakeProvider`. Left out, the prompt comes back.
        name: The model's name; one with a card in `runrails.testing.PRICES` needs no other price.
        price: What it costs, if it has no card there.
        price_pusd: Price function of the bill; left out, that of the cards.
        sleep: Waits for a `Delay` in synchronous calls.
        asleep: The same in asynchronous ones.
    """

    def __init__(
        self,
        script: Script = echo,
        *,
        name: str = "fake-model",
        price: Price | None = None,
        price_pusd: PriceFunction | None = None,
        sleep: Callable[[float], None] = time.sleep,
        asleep: Callable[[float], Awaitable[None]] | None = None,
    ) -> None:
        self.name = name
        self._price = price
        self._scripted = Scripted(script)
        self._stage = Stage(price_pusd=price_pusd or price_function(self.prices), sleep=sleep, asleep=asleep)

    @property
    def prices(self) -> Mapping[str, Price]:
        """The written price card, for `Guard(prices=model.prices)`."""
        return written_prices(self.name, self._price)

    @property
    def bill(self) -> Bill:
        """Every call that costs money."""
        return self._stage.bill

    @property
    def calls(self) -> int:
        """How many calls have started."""
        return self._stage.calls

    @property
    def concurrency_max(self) -> int:
        """The most calls that were ever in flight at once."""
        return self._stage.in_flight_max

    def model_call(self, prompt: str, *, max_tokens: int | None = None) -> ModelCall:
        """What to hand to `Run.before_model` for such a call."""
        return ModelCall(
            model=self.name,
            provider="fake",
            prompt=Prompt(texts=(prompt,), messages=1),
            max_tokens=max_tokens,
            can_cap=True,
        )

    def __call__(self, prompt: str, *, max_tokens: int | None = None) -> FakeReply:
        """
        Answer.

        Raises:
            FakeProviderError: The script says so. Nothing was billed, unless it says that too.
            ConnectionError: The scripted provider hung up.
        """
        request = self._request(prompt, max_tokens)
        try:
            plan = take_apart(self._scripted.answer(request))
            self._stage.wait(plan.waits)
            return self._said(request, plan)
        finally:
            self._stage.leave()

    async def acall(self, prompt: str, *, max_tokens: int | None = None) -> FakeReply:
        """Answer, leaving the event loop free. Raises as a plain call does."""
        request = self._request(prompt, max_tokens)
        try:
            plan = take_apart(self._scripted.answer(request))
            await self._stage.await_(plan.waits)
            return self._said(request, plan)
        finally:
            self._stage.leave()

    def _request(self, prompt: str, max_tokens: int | None) -> ProviderRequest:
        return ProviderRequest(
            wire="in_process",
            path="",
            number=self._stage.enter(),
            model=self.name,
            messages=(ProviderMessage(role="user", text=prompt),),
            max_tokens=max_tokens,
        )

    def _said(self, request: ProviderRequest, plan: Plan) -> FakeReply:
        reply = self._stage.reply(request, plan)
        self._stage.add(request, reply.usage, "completed")
        told = None if reply.report == "none" else reply.usage
        return FakeReply(
            text=reply.text,
            tool_uses=reply.tool_uses,
            finish=reply.finish,
            result=ModelResult(end="completed", usage=told, model=self.name),
        )


def written_prices(name: str, price: Price | None) -> Mapping[str, Price]:
    """The one card of a model: the price given, else its own in PRICES, else that of `fake-model`."""
    from runrails.testing.prices import PRICES

    return {name: price or PRICES.get(name) or PRICES["fake-model"]}
