"""Callers who hang up, tasks that are cancelled, gateways that end: every permit is handed back exactly once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from uvicorn import Config

from rr_gateway import (
    PATIENCE_S,
    STREAMED,
    TOLD,
    Caller,
    Timers,
    World,
    asked,
    changed,
    drained,
    gateway,
    running,
    world,
)
from runrails.run import Run
from runrails.testing import ManualClock
from runrails.testing.provider import HangUp, Stall, Text
from runrails.usage import Usage
from runrails_gateway import serving

CHUNKS = 24
LONG = Text("tick " * CHUNKS, usage=Usage(input_tokens=1000, output_tokens=500), chunks=CHUNKS, ignores_max_tokens=True)
LONG_PUSD = 1000 * 3_000_000 + 500 * 15_000_000


@pytest.fixture
def handed_back(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Which permits were given out, and which were handed back."""
    seen: dict[str, list[str]] = {"given": [], "back": []}
    before, after = Run.before_model, Run.after_model

    def before_model(self: Run, *args: Any, **kwargs: Any) -> Any:
        permit = before(self, *args, **kwargs)
        seen["given"].append(permit.id)
        return permit

    def after_model(self: Run, permit: Any, result: Any) -> Any:
        seen["back"].append(permit.id)
        return after(self, permit, result)

    monkeypatch.setattr(Run, "before_model", before_model)
    monkeypatch.setattr(Run, "after_model", after_model)
    return seen


def once_each(made: World, seen: dict[str, list[str]], calls: int) -> None:
    """Every permit came back once, and the ledger has one row for each."""
    assert calls == len(seen["given"])
    assert seen["given"] == seen["back"]
    assert sorted(seen["given"]) == sorted(row.id for row in made.rows())
    assert 0 == made.held


def paid(made: World) -> None:
    """
    What nobody knows is charged at the hold. A stream that is cut is charged for what came: what was on its way is
    billed by nobody but this provider, whose stream may be far ahead of its reader.
    """
    cut = [row.actual_pusd for row in made.rows() if row.result is not None and row.result.end == "cut"]
    assert made.billed <= made.spent + sum(max(0, LONG_PUSD - pusd) for pusd in cut)
    assert all(cut)


async def hung_up_at(made: World, app: Any, kind: str, piece: int) -> Caller:
    caller = asked(made, kind, stream=True)

    def leave(number: int) -> None:
        if number == piece:
            caller.hang_up()

    if piece == 0:
        caller.hang_up()
    caller.on_piece = leave
    await app(caller.scope, caller.receive, caller.send)
    await drained(app)
    return caller


@pytest.mark.parametrize("kind", STREAMED)
async def test_hang_up_at_every_piece(kind: str, handed_back: dict[str, list[str]]) -> None:
    """The stream is read on without its caller, and settled at what it really cost: one row for each."""
    with world(LONG) as made:
        async with running(made.config) as app:
            for piece in range(CHUNKS + 3):
                await hung_up_at(made, app, kind, piece)
        once_each(made, handed_back, CHUNKS + 3)
        made.settled()
        assert {"completed"} == {row.result.end for row in made.rows()}


@pytest.mark.parametrize("kind", STREAMED)
async def test_cancelled_at_every_piece(kind: str, handed_back: dict[str, list[str]]) -> None:
    """A server that cancels the request's task ends nothing but the waiting."""
    with world(LONG) as made:
        async with running(made.config) as app:
            for piece in range(CHUNKS + 3):
                caller = asked(made, kind, stream=True)
                task = asyncio.create_task(app(caller.scope, caller.receive, caller.send))
                caller.on_piece = lambda number, at=piece, of=task: of.cancel() if number == at else None
                if piece == 0:
                    for _ in range(3):
                        await asyncio.sleep(0)
                    task.cancel()
                await asyncio.wait([task])
                await drained(app)
        assert handed_back["given"] == handed_back["back"]
        once_each(made, handed_back, len(handed_back["given"]))
        assert CHUNKS + 2 <= len(handed_back["given"])
        made.settled()


@pytest.mark.parametrize(
    ("kind", "stream"), [*[(kind, stream) for kind in STREAMED for stream in (False, True)], ("embeddings", False)]
)
async def test_cancelled_at_every_await(kind: str, stream: bool, handed_back: dict[str, list[str]]) -> None:
    """Wherever the task that carries a call is cancelled, as a loop that ends does, its permit is handed back once."""
    with world(LONG) as made:
        for turns in range(0, 60, 3):
            async with running(made.config) as app:
                caller = asked(made, kind, stream=stream)
                serving = asyncio.create_task(app(caller.scope, caller.receive, caller.send))
                for _ in range(turns):
                    await asyncio.sleep(0)
                    if turns > 20:
                        await asyncio.sleep(0.0005)
                assert app.hot is not None
                for task in list(app.hot._open):
                    task.cancel()
                await asyncio.wait([serving])
        once_each(made, handed_back, len(handed_back["given"]))
        made.provider.wait_idle()
        paid(made)


@pytest.mark.parametrize("stream", [False, True])
async def test_cancelled_at_every_await_of_a_remote_ledger(
    stream: bool, handed_back: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same where every question to the ledger is a wait: handed back once, or withdrawn where nobody waits."""
    from rr_far import FarStore

    withdrawn: list[str] = []
    withdraw = Run.withdraw
    monkeypatch.setattr(Run, "withdraw", lambda run, permit: (withdrawn.append(permit.id), withdraw(run, permit)))
    store = FarStore()
    with world(LONG, store=store) as made:
        async with running(made.config) as app:  # Its usage is more than anybody expects, which is known from here on.
            caller = asked(made, stream=stream)
            await app(caller.scope, caller.receive, caller.send)
            await drained(app)
        for turns in range(0, 40, 2):
            async with running(made.config) as app:
                caller = asked(made, stream=stream)
                serving = asyncio.create_task(app(caller.scope, caller.receive, caller.send))
                for _ in range(turns):
                    await asyncio.sleep(0.0005)
                assert app.hot is not None
                for task in list(app.hot._open):
                    task.cancel()
                await asyncio.wait([serving])
        assert [] == store.on_loop
        # A thread that asks for money for somebody who has gone may still be under way.
        await asyncio.to_thread(_wait, lambda: sorted(handed_back["given"]) == sorted(handed_back["back"] + withdrawn))
        await asyncio.to_thread(_wait_settled, made)
        made.provider.wait_idle()
        assert sorted(handed_back["given"]) == sorted(handed_back["back"] + withdrawn)
        paid(made)


async def test_hang_up_before_anything_is_sent_costs_nothing(handed_back: dict[str, list[str]]) -> None:
    """A caller that left while it waited for others' money: nothing was sent."""
    with world(LONG) as made:
        async with running(made.config) as app:
            caller = asked(made, stream=True)
            caller.hang_up()
            task = asyncio.create_task(app(caller.scope, caller.receive, caller.send))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            await drained(app)
        assert handed_back["given"] == handed_back["back"]


async def test_hang_up_of_a_whole_answer(handed_back: dict[str, list[str]]) -> None:
    """An answer in one piece is waited for and settled without its caller."""
    go = threading.Event()
    with world(Stall(go, TOLD)) as made:
        async with running(made.config) as app:
            caller = asked(made)
            task = asyncio.create_task(app(caller.scope, caller.receive, caller.send))
            await asyncio.to_thread(made.provider.wait_received, 1)
            task.cancel()
            await asyncio.wait([task])
            assert app.hot is not None
            assert (1, []) == (app.hot.open_requests, handed_back["back"])
            go.set()
            await drained(app)
        once_each(made, handed_back, 1)
        made.settled()
        assert 0 == caller.status


async def test_drain_has_a_time(handed_back: dict[str, list[str]]) -> None:
    """A stream that nobody reads any more and that goes on for long is cut, and charged for what came."""
    go = threading.Event()
    counted = Text("tick " * CHUNKS, chunks=CHUNKS)
    with world(Stall(go, counted, after_chunks=5), drain_ms_max=50) as made:
        async with running(made.config) as app:
            await hung_up_at(made, app, "chat", 1)
        once_each(made, handed_back, 1)
        made.provider.wait_idle()
        go.set()
        assert ["cut"] == [row.result.end for row in made.rows()]
        assert made.billed <= made.spent


async def test_drain_has_a_size(handed_back: dict[str, list[str]]) -> None:
    """And one that is long in bytes."""
    with world(Text("word " * 5000, chunks=5000, ignores_max_tokens=True), drain_bytes_max=2_000) as made:
        async with running(made.config) as app:
            await hung_up_at(made, app, "chat", 1)
        once_each(made, handed_back, 1)
        made.provider.wait_idle()
        assert ["cut"] == [row.result.end for row in made.rows()]


async def test_request_has_a_time(handed_back: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """An upstream that never answers: 504, charged at the hold, as nobody knows what it did."""
    timers = Timers(monkeypatch)
    with world(Stall(threading.Event(), TOLD), request_ms_max=54_321) as made:
        async with running(made.config) as app:
            caller = asked(made)
            task = asyncio.create_task(app(caller.scope, caller.receive, caller.send))
            await asyncio.to_thread(made.provider.wait_received, 1)
            timers.end(54_321)
            await task
        once_each(made, handed_back, 1)
        assert (504, ["unknown"]) == (caller.status, [row.result.end for row in made.rows()])
        assert made.spent > 0


@pytest.mark.parametrize("kind", STREAMED)
async def test_stream_has_a_time(
    kind: str, handed_back: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """One that stands still ends with an error in the stream, in the dialect."""
    timers = Timers(monkeypatch)
    with world(Stall(threading.Event(), LONG, after_chunks=3), request_ms_max=54_321) as made:
        async with running(made.config) as app:
            caller = asked(made, kind, stream=True)
            caller.on_piece = lambda number: timers.end(54_321) if number == 1 else None
            await app(caller.scope, caller.receive, caller.send)
        once_each(made, handed_back, 1)
        assert (200, True) == (caller.status, caller.complete)
        assert b"error" in caller.pieces[-1]


@pytest.mark.parametrize("kind", STREAMED)
async def test_provider_hangs_up_in_a_stream(kind: str, handed_back: dict[str, list[str]]) -> None:
    """The caller is told by an event, and it is settled at no less than what came."""
    with world(HangUp(LONG, after_chunks=5)) as made:
        async with running(made.config) as app:
            caller = asked(made, kind, stream=True)
            await app(caller.scope, caller.receive, caller.send)
        once_each(made, handed_back, 1)
        made.provider.wait_idle()
        assert (200, True) == (caller.status, caller.complete)
        assert b"error" in caller.pieces[-1]
        assert made.spent > 0


@pytest.mark.parametrize("kind", STREAMED)
async def test_settled_before_the_last_event_is_handed_out(kind: str, handed_back: dict[str, list[str]]) -> None:
    """Whoever has read to the end finds the ledger complete."""
    with world(LONG) as made:
        async with running(made.config) as app:
            caller = asked(made, kind, stream=True)
            spent: list[tuple[bool, int]] = []
            caller.on_piece = lambda _: spent.append((_is_last(caller.pieces[-1]), made.spent))
            await app(caller.scope, caller.receive, caller.send)
        assert [made.billed] == [amount for last, amount in spent if last]
        once_each(made, handed_back, 1)


def _is_last(piece: bytes) -> bool:
    return any(sign in piece for sign in (b"[DONE]", b"message_stop", b"response.completed"))


@pytest.mark.parametrize("kind", STREAMED)
async def test_who_leaves_after_the_last_event_has_had_everything(kind: str) -> None:
    """They need not wait for the end of the connection; who leaves at the first event has left."""
    go = threading.Event()
    with world([LONG, Stall(go, LONG, after_chunks=3)]) as made:
        async with running(made.config) as app:
            for last in (True, False):
                caller = asked(made, kind, stream=True)

                def leave(_: int, caller: Caller = caller, last: bool = last) -> None:
                    if not last or _is_last(caller.pieces[-1]):
                        caller.hang_up()
                    if caller.gone and not last:
                        asyncio.get_running_loop().call_later(0.05, go.set)

                caller.on_piece = leave
                await app(caller.scope, caller.receive, caller.send)
                await drained(app)
        assert ["answered", "left"] == [each.ending for each in made.watching.over]
        assert ["completed"] * 2 == [row.result.end for row in made.rows()]


async def test_shutdown_waits_for_what_is_under_way(handed_back: dict[str, list[str]]) -> None:
    """A gateway that ends lets open calls finish and settles them."""
    go = threading.Event()
    with world(Stall(go, TOLD)) as made:
        async with running(made.config) as app:
            caller = asked(made)
            task = asyncio.create_task(app(caller.scope, caller.receive, caller.send))
            await asyncio.to_thread(made.provider.wait_received, 1)
            asyncio.get_running_loop().call_later(0.05, go.set)
        await asyncio.wait_for(task, PATIENCE_S)
        once_each(made, handed_back, 1)
        assert 200 == caller.status
        made.settled()


async def test_shutdown_has_a_time(handed_back: dict[str, list[str]]) -> None:
    """What does not end in time is cut off and charged at the hold."""
    with world(Stall(threading.Event(), TOLD), shutdown_ms_max=50) as made:
        async with running(made.config) as app:
            caller = asked(made)
            task = asyncio.create_task(app(caller.scope, caller.receive, caller.send))
            await asyncio.to_thread(made.provider.wait_received, 1)
        await asyncio.wait([task])
        once_each(made, handed_back, 1)
        assert ["unknown"] == [row.result.end for row in made.rows()]


async def test_what_the_server_waits_is_a_part_of_that_time(handed_back: dict[str, list[str]]) -> None:
    """It waits for open requests before it says that the gateway is to end: together they take an hour, not two."""
    hour, clock = 3_600_000, ManualClock()
    with world(Stall(threading.Event(), TOLD), shutdown_ms_max=hour, guard={"monotonic": clock}) as made:
        async with running(made.config) as app:
            caller = asked(made)
            task = asyncio.create_task(app(caller.scope, caller.receive, caller.send))
            await asyncio.to_thread(made.provider.wait_received, 1)
            hot = app.hot
            assert hot is not None
            app.ending()
            until = hot.ending()
            clock.advance(hour)
            app.ending()
            assert until == hot.ending()
            await asyncio.wait_for(hot.close(), PATIENCE_S)
        await asyncio.wait([task])
        once_each(made, handed_back, 1)
        assert ["unknown"] == [row.result.end for row in made.rows()]


async def test_the_server_says_that_it_ends_before_it_waits() -> None:
    """Only then is it known since when requests are waited for."""
    told: list[str] = []

    class Lifespan:
        async def shutdown(self) -> None:
            told.append("lifespan")

    server = serving._Server(Config(None, log_config=None), lambda: told.append("ending"))
    server.servers, server.lifespan = [], Lifespan()  # type: ignore[assignment]
    await server.shutdown()
    assert ["ending", "lifespan"] == told


@pytest.mark.parametrize("pieces", [1, 7, 20])
def test_real_client_hangs_up(pieces: int) -> None:
    """Over a socket: the SDK closes its stream early, and the row has all that the provider billed."""
    import openai

    slow = Text("tick " * CHUNKS, usage=LONG.usage, chunks=CHUNKS, chunk_delay_ms=3, ignores_max_tokens=True)
    with gateway(slow) as made:
        with openai.OpenAI(base_url=made.openai_url, api_key=made.key, max_retries=0) as client:
            stream = client.chat.completions.create(
                model="fake-model", messages=[{"role": "user", "content": "hi"}], stream=True, max_tokens=2000
            )
            for _, _chunk in zip(range(pieces), stream, strict=False):
                pass
            stream.close()
        made.provider.wait_idle()
        _wait_settled(made)
        made.settled()
        assert 1 == len(made.rows())


def _wait_settled(made: World) -> None:
    _wait(lambda: not made.held)


def _wait(done: Callable[[], bool]) -> None:
    import time

    deadline = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.005)


async def test_remote_store_settles_off_the_loop(handed_back: dict[str, list[str]]) -> None:
    """A ledger across a network is never asked on the event loop, whoever hangs up."""
    from rr_far import FarStore

    store = FarStore()
    with world(LONG, store=store) as made:
        async with running(changed(made.config)) as app:
            for piece in (0, 3, CHUNKS):
                await hung_up_at(made, app, "chat", piece)
        assert [] == store.on_loop
        assert handed_back["given"] == handed_back["back"]
        made.provider.wait_idle()
