"""Plays a cell of the matrix: a stubborn model, tools that fail, a real executor round them, a guard round that."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any

from rr_matrix import ASYNC, Cell
from runrails import Guard, GuardrailStopped, Limits
from runrails.errors import CallRefused
from runrails.ledger import Account
from runrails.periods import month_of
from runrails.run import Run
from runrails.stores.memory import MemoryStore
from runrails.testing.prices import PRICES
from runrails.testing.provider import FakeProvider
from runrails.testing.provider.values import Answer, Error, ProviderRequest, Stall, Text, ToolCalls, ToolUse

MODEL = "fake-flat"
"""A cent a call, whatever it says."""
OTHER = "fake-flat-other"
"""The model of the fallback, which never has an error."""
CENT = 10**10
BUDGET_CALLS = 5
CALLS_MAX = 30
"""After so many model calls an item gives up, so that a cell that finds no stop ends by itself."""
REWORDINGS = ("Let me try that again.", "Perhaps it works now.", "One more attempt.", "Strange, once more then.")
ITEMS = ("one", "two")
AT_ONCE = Error(500, headers={"retry-after": "0.001"})
CARDS = {**PRICES, OTHER: PRICES[MODEL]}


_providers: list[FakeProvider] = []


def provider() -> FakeProvider:
    """The provider of this process, which one cell after the other uses: starting it takes longer than a cell."""
    if not _providers:
        _providers.append(FakeProvider(price_pusd=_bill).start())
    return _providers[0]


def close_provider() -> None:
    """After the last cell."""
    while _providers:
        gc.collect()
        _providers.pop().close()


class WatchedGuard(Guard):
    """A guard that can say which runs it has opened."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.opened: list[Run] = []

    def run(self, *args: Any, **kwargs: Any) -> Run:
        """As the guard's."""
        made = super().run(*args, **kwargs)
        self.opened.append(made)
        return made


@dataclass
class Log:
    """All that starts, in order and from any thread, and what of it started when the run was already stopped."""

    stopped: Callable[[], bool]
    order: list[tuple[str, str]] = field(default_factory=list)
    late: list[tuple[str, str]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, kind: str, what: str) -> None:
        """Note a start: of a `model` for an item, or of a `tool` with its arguments."""
        with self._lock:
            self.order.append((kind, what))
            if self.stopped():
                self.late.append((kind, what))

    def counted(self, kind: str) -> Counter[str]:
        """How often each was started."""
        return Counter(what for of, what in self.order if of == kind)

    def models_after_last_tool(self, item: str) -> int:
        """How many model calls of an item, of their own or of a sub-agent, came after the last execution for it."""
        count = 0
        for kind, what in reversed(self.order):
            if item not in what:
                continue
            if kind == "tool":
                break
            count += 1
        return count


class Play:
    """The world of one cell. `with` serves and closes."""

    def __init__(self, cell: Cell, *, guarded: bool = True) -> None:
        self.cell = cell
        self.guarded = guarded
        limits = None if cell.stop_reason != "budget_exceeded" else Limits(run="0.05", loops=None)
        self.guard = WatchedGuard(limits, user="alice", store=MemoryStore(), prices=CARDS, sinks=())
        self.log = Log(self._stopped)
        self.never = threading.Event()
        self.items = ITEMS if "batch" in cell.mode else ITEMS[:1]
        self.provider = provider() if "client" in cell.parts else None
        self._billed_before = 0
        self.models: list[Any] = []
        self._clients: dict[str, Any] = {}
        self._lock = threading.Lock()
        self.sent = 0
        """Calls of a raw SDK that were let through; each may be several requests."""
        self._erred: set[tuple[str, int]] = set()

    def __enter__(self) -> Play:
        if self.provider is not None:
            self.provider.use(self.answer)
            self._billed_before = self.provider.bill.total_pusd()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.never.set()
        self.guard.close()
        if "sync" in self._clients:
            self._clients["sync"].close()
        if self.provider is not None:
            self.provider.wait_idle()
            if error is None and self.provider.books.script_errors:
                raise self.provider.books.script_errors[0]

    @contextlib.contextmanager
    def sending(self) -> Iterator[None]:
        """One call of a raw SDK."""
        refused = False
        try:
            yield
        except (GuardrailStopped, CallRefused):
            refused = True
            raise
        finally:
            with self._lock:
                self.sent += not refused

    async def aclose(self) -> None:
        """Close the asynchronous client inside its loop."""
        if "async" in self._clients:
            await self._clients["async"].close()

    def client(self, kind: str) -> Any:
        """The `sync` or the `async` client of the provider, wrapped; made when it is asked for."""
        if kind not in self._clients:
            made = _make_client(self, kind)
            self._clients[kind] = self.guard.wrap(made) if self.guarded else made
        return self._clients[kind]

    def answer(self, request: ProviderRequest) -> Answer:
        """What the model says, here and over HTTP: it never gives up."""
        item = next(message.text for message in request.messages if message.role == "user")
        turn = 1 + sum(message.role == "assistant" for message in request.messages)
        failure = self.cell.failure
        self.log.add("model", item)
        if self.log.counted("model")[item] > CALLS_MAX:
            return Text("I could not do it.")
        if failure == "cancelled" and turn == 2:
            return Stall(self.never)
        if failure == "retry" and (item, turn) not in self._erred:
            self._erred.add((item, turn))
            return AT_ONCE
        if failure == "fallback" and request.model == MODEL:
            return AT_ONCE
        name = "classify"
        if failure == "unknown tool":
            name = "clasify_reviw"
        elif failure == "sub-agent" and not item.startswith("sub "):
            name = "delegate"
        uses = [ToolUse(name, {"text": item})] * (3 if failure == "parallel" else 1)
        return ToolCalls(uses, text=REWORDINGS[turn % len(REWORDINGS)])

    def classify(self, text: str) -> str:
        """The tool, as a plain function."""
        self.log.add("tool", f"classify {text}")
        if self.cell.failure in {"identical", "catch-all", "retry"}:
            raise OSError("the service is down")
        return "no result"

    # What came of it.

    @property
    def spent(self) -> tuple[int, int]:
        """What the guard's user has spent and holds."""
        found = self.guard.store.balance(Account("user:alice", month_of(self.guard.clock())))
        return found.spent, found.held

    @property
    def billed(self) -> int:
        """What the models, or the provider, bill."""
        if self.provider is not None:
            self.provider.wait_idle()
            return self.provider.bill.total_pusd() - self._billed_before
        return sum(model.bill.total_pusd() for model in self.models)

    @property
    def counts(self) -> tuple[int, int]:
        """Model calls and tool calls of all runs, as they report them."""
        reports = [run.report() for run in self.guard.opened if run.parent is None]
        return sum(report.model_calls for report in reports), sum(report.tool_calls for report in reports)

    def _stopped(self) -> bool:
        # The items of a batch are runs of their own; there, what starts too late is found by counting.
        runs = self.guard.opened
        return len(self.items) == 1 and any(run.stopped is not None for run in runs)


def _make_client(world: Play, kind: str) -> Any:
    assert world.provider is not None
    options: dict[str, Any] = {"api_key": "k", "max_retries": 2 if world.cell.failure == "retry" else 0}
    if world.cell.executor == "Anthropic loop":
        import anthropic as sdk

        made = {"sync": sdk.Anthropic, "async": sdk.AsyncAnthropic}[kind]
        options["base_url"] = world.provider.anthropic_url
    else:
        import openai as sdk

        made = {"sync": sdk.OpenAI, "async": sdk.AsyncOpenAI}[kind]
        options["base_url"] = world.provider.openai_url
        if world.cell.executor != "OpenAI loop":
            options["max_retries"] = 0
    # Without certificates to load, which nobody here needs, a client is made in a fraction of the time.
    http = {"sync": sdk.DefaultHttpxClient, "async": sdk.DefaultAsyncHttpxClient}[kind]
    return made(http_client=http(verify=False), **options)


def _bill(model: str, usage: object) -> int:
    return CENT


Result = object
"""What came of an item: what the executor gave, an `Outcome`, or the stop it raised."""


def play(world: Play) -> list[Result]:
    """Play a cell to its end: a result for each item, or one for all of them where a stop ended them together."""
    from rr_matrix_executors import build

    mode = world.cell.mode
    target = build(world)
    try:
        if mode in ASYNC:
            return asyncio.run(_in_loop(world, target))
        if not _has(world, "boundary"):
            return _drive(world, target)
        with world.guard.run():
            return _drive(world, target)
    except GuardrailStopped as stop:
        return [stop]


def _has(world: Play, layer: str) -> bool:
    return world.guarded and layer in world.cell.parts


def _config(world: Play) -> dict[str, Any]:
    config: dict[str, Any] = {"recursion_limit": 200}
    if _has(world, "callback"):
        from runrails_langchain import GuardrailCallbackHandler

        config["callbacks"] = [GuardrailCallbackHandler(world.guard)]
    return config


def _questions(world: Play, target: Any) -> list[Any]:
    return [target.question(item) for item in world.items]


def _drive(world: Play, target: Any) -> list[Result]:
    mode, config, asked = world.cell.mode, _config(world), _questions(world, target)
    supervisor = world.guard.supervise(target.face(mode)) if _has(world, "supervisor") else None
    if mode == "batch":
        if supervisor is not None:
            return [*supervisor.batch(asked, config)]
        return list(target.face(mode).batch(asked, config, return_exceptions=True))
    if mode == "stream":
        stream = target.stream(*asked, config) if supervisor is None else supervisor.stream(*asked, config)
        chunks = list(stream)
        return [chunks[-1] if supervisor is None else stream.outcome]
    return [target.invoke(*asked, config) if supervisor is None else supervisor.invoke(*asked, config)]


async def _in_loop(world: Play, target: Any) -> list[Result]:
    async def work() -> list[Result]:
        if not _has(world, "boundary"):
            return await _adrive(world, target)
        async with world.guard.run():
            return await _adrive(world, target)

    try:
        if world.cell.failure == "cancelled" and world.guarded:
            return await _cancel(world, work)
        return await work()
    except GuardrailStopped as stop:
        return [stop]
    finally:
        await world.aclose()


async def _adrive(world: Play, target: Any) -> list[Result]:
    mode, config, asked = world.cell.mode, _config(world), _questions(world, target)
    supervisor = world.guard.supervise(target.face(mode)) if _has(world, "supervisor") else None
    if mode == "abatch":
        if supervisor is not None:
            return [*await supervisor.abatch(asked, config)]
        return list(await target.face(mode).abatch(asked, config, return_exceptions=True))
    if mode == "ainvoke":
        return [await (target.ainvoke(*asked, config) if supervisor is None else supervisor.ainvoke(*asked, config))]
    if mode == "astream":
        stream = target.astream(*asked, config) if supervisor is None else supervisor.astream(*asked, config)
    elif supervisor is None:
        stream = target.astream_events(*asked, config)
    else:
        stream = supervisor.astream_events(*asked, config, version="v2")
    chunks = [chunk async for chunk in stream]
    return [chunks[-1] if supervisor is None else stream.outcome]


async def _cancel(world: Play, work: Callable[[], Coroutine[Any, Any, list[Result]]]) -> list[Result]:
    """Cancel it when the second model call of every item is in flight, not sooner, however slow the machine is."""
    task = asyncio.ensure_future(work())
    while sum(world.log.counted("model").values()) < 2 * len(world.items) and not task.done():  # noqa: ASYNC110 -- no one tells
        await asyncio.sleep(0.001)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        return await task
    return []
