"""
64 parallel streams, cut at every chunk: one ledger line each, within one chunk of the truth, and nothing held after.

The truth is the provider's own: what it had generated when it noticed. It stalls after the very chunk that the reader
leaves at, or after the one behind it, which is how far a provider is ahead that sends as fast as it generates; so the
ledger may miss one chunk of what was billed, but no more. It bills a token a byte, as tokenizers do for some texts, so
that the bound of what came is what it generated; of the input, where a wire tells nothing before the end, the bound is
charged, and that difference is the same for every stream.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from rr_clients import MODEL, World
from runrails import Limits
from runrails.ledger import RUN_PERIOD, Account, FullStore
from runrails.run import Run
from runrails.stores.memory import MemoryStore
from runrails.stores.sqlite import SQLiteStore
from runrails.testing.provider import Answer, FakeProvider, HangUp, Stall, Text
from runrails.testing.provider.values import ProviderRequest
from runrails.usage import Usage

STREAMS = 64
CHUNKS = 16
CHUNK_TOKENS = 12
CAP = 1000
INPUT_TOKENS = 7
INPUT_PUSD, OUTPUT_PUSD = 3_000_000, 15_000_000
TIMEOUT_S = 1.0
"""Streams that are to time out come to their places one after the other, so that none does before it is there."""

TEXT = Text(
    "012345678901" * CHUNKS, chunks=CHUNKS,
    usage=Usage(input_tokens=INPUT_TOKENS, output_tokens=CHUNKS * CHUNK_TOKENS),
)  # fmt: skip


def place(i: int) -> int:
    """At which chunk a stream is cut."""
    return i % CHUNKS


def say(how: str, i: int) -> str:
    """A prompt of the same size for all, by which the provider knows what to do."""
    return f"{how:8}{i:03}"


class Cutting(World):
    """A provider that stalls or hangs up where the prompt says, and how far its streams have come."""

    def __init__(self, **options: Any) -> None:
        self.never = threading.Event()
        super().__init__(self.answer, Limits(run=None, month="1000", steps=None), **options)
        self.runs: dict[int, Run] = {}
        self.hold_pusd = 0
        self._turns = threading.Lock()
        self._first = threading.Lock()

    def answer(self, request: ProviderRequest) -> Answer:
        """As scripted by the prompt."""
        how, i = _said(request)
        if how == "close":
            return HangUp(TEXT, after_chunks=place(i))
        # Every other round of all places the provider is one chunk ahead.
        return Stall(self.never, TEXT, after_chunks=place(i) + i // CHUNKS % 2)

    @contextmanager
    def stream(self, i: int) -> Iterator[None]:
        """Around one stream: a run of its own, by which its line in the ledger is found."""
        with self.guard.run(f"stream {i}") as run:
            self.runs[i] = run
            yield

    def turn(self, how: str) -> Turn:
        """The turn of a stream that is to time out; others come all at once."""
        lock = self._turns if how == "timeout" else threading.Lock()
        lock.acquire()
        return Turn(lock)

    def begun(self) -> None:
        """A stream's answer has begun: by the first one, remember what is held for one."""
        if self._first.acquire(blocking=False):
            accounts = [Account(f"run:{run.id}", RUN_PERIOD) for run in list(self.runs.values())]
            # Asked once each: another thread's stream may end at any moment, and this one's may be the last to begin.
            self.hold_pusd = max(self.store.balance(account).held for account in accounts)

    def check(self, how: str, count: int, *, tells_input: bool, worst_tokens: float = CHUNK_TOKENS) -> None:
        """Every stream has one line, which is what the provider billed but for a chunk; nothing is held anywhere."""
        self.guard.flush()
        self.provider.wait_idle()
        assert isinstance(self.store, FullStore)
        assert [] == [each for each in self.store.balances() if each.held]
        billed = bills(self.provider, how)
        assert set(range(count)) == set(self.runs) == set(billed)
        slack = 0 if tells_input else self.hold_pusd - CAP * OUTPUT_PUSD - INPUT_TOKENS * INPUT_PUSD
        worst = 0.0
        for i, run in self.runs.items():
            (line,) = self.store.usage(run=run.id)
            assert line.actual_pusd is not None
            assert "unresolved" == line.state
            assert line.actual_pusd == run.report().cost_pusd >= INPUT_TOKENS * INPUT_PUSD
            assert place(i) <= billed[i] / CHUNK_TOKENS <= place(i) + 1
            off = (line.actual_pusd - slack - INPUT_TOKENS * INPUT_PUSD) / OUTPUT_PUSD - billed[i]
            worst = max(worst, abs(off))
        assert worst <= worst_tokens, f"{worst} tokens from the truth"
        assert self.spent == sum(run.report().cost_pusd for run in self.runs.values())
        RESULTS.append((how, count, worst))


class Turn:
    """A lock that was taken, to be let go once."""

    def __init__(self, lock: threading.Lock | asyncio.Lock) -> None:
        self._lock: threading.Lock | asyncio.Lock | None = lock

    def over(self) -> None:
        """Whoever is next may come."""
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()


RESULTS: list[tuple[str, int, float]] = []


def _said(request: ProviderRequest) -> tuple[str, int]:
    text = next(message.text for message in reversed(request.messages) if message.role == "user")
    return text[:8].strip(), int(text[8:])


def bills(provider: FakeProvider, how: str) -> dict[int, int]:
    """How many tokens the provider billed for each stream."""
    numbers = {request.number: _said(request) for request in provider.received}
    assert {how} == {said for said, _ in numbers.values()}
    assert len(numbers) == len(provider.bill.calls)
    return {numbers[call.number][1]: call.usage.output_tokens for call in provider.bill.calls}


# The wires: how to ask, and whether an event has a chunk of the text.


def chat(client: Any, prompt: str, i: int) -> Any:
    """Every other stream by the SDK's helper."""
    asked: Any = {"model": MODEL, "messages": [{"role": "user", "content": prompt}], "max_tokens": CAP}
    if i % 2:
        return client.chat.completions.stream(**asked)
    return client.chat.completions.create(**asked, stream=True)


def has_chat(event: Any) -> bool:
    """A chunk, or the helper's event."""
    if hasattr(event, "choices"):
        return bool(event.choices and event.choices[0].delta.content)
    return bool(event.type == "content.delta" and event.delta)


def responses(client: Any, prompt: str, i: int) -> Any:
    """As `chat`."""
    asked: Any = {"model": MODEL, "input": prompt, "max_output_tokens": CAP}
    return client.responses.stream(**asked) if i % 2 else client.responses.create(**asked, stream=True)


def has_response(event: Any) -> bool:
    """The same event in both."""
    return bool(event.type == "response.output_text.delta")


def messages(client: Any, prompt: str, i: int) -> Any:
    """As `chat`."""
    asked: Any = {"model": MODEL, "messages": [{"role": "user", "content": prompt}], "max_tokens": CAP}
    return client.messages.stream(**asked) if i % 2 else client.messages.create(**asked, stream=True)


def has_message(event: Any) -> bool:
    """The same event in both."""
    return bool(event.type == "content_block_delta")


WIRES: dict[str, tuple[str, Callable[..., Any], Callable[[Any], bool], bool]] = {
    "chat": ("openai", chat, has_chat, False),
    "responses": ("openai", responses, has_response, False),
    "messages": ("anthropic", messages, has_message, True),
}


def entered(asked: Any) -> AbstractContextManager[Any]:
    """A stream, or the helper's manager of one, as a context manager that closes it."""
    return asked if hasattr(asked, "__enter__") else nullcontext(asked)


# Threads.


def patient(folder: Path) -> SQLiteStore:
    """A ledger for which 64 threads may wait, on however busy a machine."""
    return SQLiteStore(folder / "books.db", synchronous="NORMAL", busy_timeout_ms=60_000)


def read_in_thread(world: Cutting, client: Any, wire: str, how: str, i: int, barrier: threading.Barrier) -> None:
    """Read to the place and go away, all together."""
    _, ask, has_text, _ = WIRES[wire]
    seen, turn = 0, world.turn(how)
    with world.stream(i):
        try:
            with entered(ask(client, say(how, i), i)) as stream:
                for number, event in enumerate(stream):
                    if number == 0:
                        world.begun()
                    seen += has_text(event)
                    if seen == place(i):
                        turn.over()
                    if how == "break" and seen == place(i):
                        barrier.wait(60)
                        break
        except Exception:
            if how == "break":
                barrier.abort()
                raise
        finally:
            turn.over()
        # The provider may be one chunk ahead, which a reader that waits for more has seen.
        assert place(i) <= seen <= place(i) + (how == "timeout")


@pytest.mark.parametrize("how", ["break", "close", "timeout"])
@pytest.mark.parametrize("wire", WIRES)
def test_streams_read_by_threads(wire: str, how: str, tmp_path: Path) -> None:
    """The reader leaves; the server closes the socket; the read times out. One of the waves on SQLite."""
    kind, _, _, tells_input = WIRES[wire]
    store = patient(tmp_path) if wire == "chat" else MemoryStore()
    with Cutting(store=store) as world, ThreadPoolExecutor(STREAMS) as pool:
        client = getattr(world, kind)(timeout=TIMEOUT_S if how == "timeout" else 100)
        barrier, count = threading.Barrier(STREAMS), CHUNKS if how == "timeout" else STREAMS
        done = [pool.submit(read_in_thread, world, client, wire, how, i, barrier) for i in range(count)]
        errors = [error for each in done if (error := each.exception()) is not None]
        # Those that waited for one that failed say nothing of why.
        assert [] == sorted(errors, key=lambda error: isinstance(error, threading.BrokenBarrierError))
        world.check(how, count, tells_input=tells_input)


# Tasks.


async def ended(tasks: list[asyncio.Task[None]], how: str) -> None:
    """All of them at once, cancelled if that is how."""
    open_ = set(tasks)
    while open_:
        # More than once: `wait_for` of Python 3.11, which langchain-openai reads with, may swallow a cancellation.
        for task in open_ if how == "cancel" else ():
            task.cancel()
        _, open_ = await asyncio.wait(open_, timeout=1)
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(end) for end in ends} == {asyncio.CancelledError if how == "cancel" else type(None)}


async def read_in_task(
    world: Cutting, client: Any, wire: str, how: str, i: int, reached: asyncio.Event, turns: asyncio.Lock
) -> None:  # fmt: skip
    """Read to the place, and go away or wait there to be cancelled."""
    _, ask, has_text, _ = WIRES[wire]
    lock = turns if how == "timeout" else asyncio.Lock()
    await lock.acquire()
    seen, turn = 0, Turn(lock)
    with world.stream(i):
        try:
            asked = ask(client, say(how, i), i)
            if asyncio.iscoroutine(asked):
                asked = await asked
            async with asked as stream:
                number = 0
                async for event in stream:
                    if number == 0:
                        world.begun()
                    number += 1
                    seen += has_text(event)
                    if seen == place(i):
                        turn.over()
                        reached.set()
                        if how == "break":
                            break
        except Exception:
            if how in ("break", "cancel"):
                raise
        finally:
            turn.over()
            reached.set()
            # As in a thread.
            assert place(i) <= seen <= place(i) + (how in ("cancel", "timeout"))


@pytest.mark.parametrize("how", ["break", "cancel", "close", "timeout"])
@pytest.mark.parametrize("wire", WIRES)
def test_streams_read_by_tasks(wire: str, how: str) -> None:
    """The reader leaves; its task is cancelled in the middle of a read; the server closes the socket; a timeout."""
    kind, _, _, tells_input = WIRES[wire]
    count = CHUNKS if how == "timeout" else STREAMS
    with Cutting() as world:

        async def main() -> None:
            client = getattr(world, f"a{kind}")(timeout=TIMEOUT_S if how == "timeout" else 100)
            reached = [asyncio.Event() for _ in range(count)]
            turns = asyncio.Lock()
            tasks = [
                asyncio.create_task(read_in_task(world, client, wire, how, i, reached[i], turns)) for i in range(count)
            ]
            for each in reached:
                await each.wait()
            await ended(tasks, how)
            await world.aclose()

        asyncio.run(main())
        gc.collect()
        world.check(how, count, tells_input=tells_input)


# LangChain.

FEWER = 32


def langchain_model(world: Cutting, *, seconds: float = 100) -> Any:
    """A model of langchain-openai, which the callback sees; its HTTP clients are closed with the world."""
    from langchain_openai import ChatOpenAI
    from openai import DefaultAsyncHttpxClient, DefaultHttpxClient

    from runrails_langchain import attach

    attach()
    clients = DefaultHttpxClient(trust_env=False), DefaultAsyncHttpxClient(trust_env=False)
    world._closing.append(clients[0].close)
    world._aclosing.append(clients[1].aclose)
    return ChatOpenAI(
        model=MODEL, base_url=world.provider.openai_url, api_key="k", max_retries=0, max_tokens=CAP, stream_usage=True,
        http_client=clients[0], http_async_client=clients[1], timeout=seconds,
    )  # type: ignore[call-arg, arg-type]  # its own aliases, and a plain key  # fmt: skip


@pytest.mark.parametrize("how", ["break", "close", "timeout"])
def test_langchain_streams_read_by_threads(how: str) -> None:
    """`.stream()`, left by its reader, its server, or in time."""
    with Cutting() as world, ThreadPoolExecutor(FEWER) as pool:
        model = langchain_model(world, seconds=TIMEOUT_S if how == "timeout" else 100)
        barrier = threading.Barrier(FEWER)

        def read(i: int) -> None:
            seen, turn = 0, world.turn(how)
            with world.stream(i):
                stream = model.stream(say(how, i))
                try:
                    for number, chunk in enumerate(stream):
                        if number == 0:
                            world.begun()
                        seen += bool(chunk.content)
                        if seen == place(i):
                            turn.over()
                        if how == "break" and seen == place(i):
                            barrier.wait(60)
                            break
                except Exception:
                    if how == "break":
                        raise
                finally:
                    turn.over()
                stream.close()

        count = CHUNKS if how == "timeout" else FEWER
        for done in [pool.submit(read, i) for i in range(count)]:
            done.result()
        asyncio.run(world.aclose())
        world.check(how, count, tells_input=False)


@pytest.mark.parametrize("layer", ["model", "agent"])
@pytest.mark.parametrize("how", ["break", "cancel", "close"])
def test_langchain_streams_read_by_tasks(how: str, layer: str) -> None:
    """`.astream()` of a model, and of an agent with the middleware: left, cancelled, or closed by the server."""
    with Cutting() as world:

        async def read(streamed: Callable[[str], Any], i: int, reached: asyncio.Event) -> None:
            seen = number = 0
            with world.stream(i):
                stream = streamed(say(how, i))
                try:
                    async for chunk in stream:
                        if number == 0:
                            world.begun()
                        number += 1
                        seen += bool((chunk[0] if isinstance(chunk, tuple) else chunk).content)
                        if seen == place(i):
                            reached.set()
                            if how == "break":
                                break
                except Exception:
                    if how != "close":
                        raise
                finally:
                    reached.set()
                    await stream.aclose()

        async def main() -> None:
            model = langchain_model(world)
            streamed = model.astream if layer == "model" else _agent(world, model)
            reached = [asyncio.Event() for _ in range(FEWER)]
            tasks = [asyncio.create_task(read(streamed, i, reached[i])) for i in range(FEWER)]
            for each in reached:
                await each.wait()
            await ended(tasks, how)
            await world.aclose()

        asyncio.run(main())
        gc.collect()
        world.check(how, FEWER, tells_input=False)


def _agent(world: Cutting, model: Any) -> Callable[[str], Any]:
    from langchain.agents import create_agent

    from runrails_langchain import GuardrailMiddleware

    agent: Any = create_agent(model, [], middleware=[GuardrailMiddleware(world.guard)])

    def streamed(prompt: str) -> Any:
        return agent.astream({"messages": [("user", prompt)]}, stream_mode="messages")

    return streamed


# Bedrock.


@pytest.mark.parametrize("how", ["break", "close", "timeout"])
@pytest.mark.parametrize("operation", ["ConverseStream", "InvokeModelWithResponseStream"])
def test_bedrock_streams_read_by_threads(operation: str, how: str) -> None:
    """Streams of boto3: closed by their reader or by the server, or timed out."""
    import json

    from rr_bedrock import BedrockWorld

    class CuttingBedrock(Cutting, BedrockWorld):
        """With clients of boto3."""

    def ask(client: Any, prompt: str) -> Any:
        if operation == "ConverseStream":
            said = [{"role": "user", "content": [{"text": prompt}]}]
            return client.converse_stream(modelId=MODEL, messages=said, inferenceConfig={"maxTokens": CAP})["stream"]
        body = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": CAP}
        body |= {"messages": [{"role": "user", "content": prompt}]}
        return client.invoke_model_with_response_stream(modelId=MODEL, body=json.dumps(body))["body"]

    with CuttingBedrock() as world, ThreadPoolExecutor(FEWER) as pool:
        client = world.boto(read_timeout=TIMEOUT_S if how == "timeout" else 100, max_pool_connections=FEWER)
        barrier = threading.Barrier(FEWER)

        def read(i: int) -> None:
            seen, turn = 0, world.turn(how)
            with world.stream(i):
                events = ask(client, say(how, i))
                try:
                    for number, event in enumerate(events):
                        if number == 0:
                            world.begun()
                        data = event.get("chunk", {}).get("bytes", b"")
                        seen += "contentBlockDelta" in event or b"text_delta" in data
                        if seen == place(i):
                            turn.over()
                        if how == "break" and seen == place(i):
                            barrier.wait(60)
                            break
                except Exception:
                    if how == "break":
                        raise
                finally:
                    turn.over()
                events.close()

        count = CHUNKS if how == "timeout" else FEWER
        for done in [pool.submit(read, i) for i in range(count)]:
            done.result()
        world.check(how, count, tells_input=operation != "ConverseStream")
