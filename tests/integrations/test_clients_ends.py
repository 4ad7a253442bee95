"""A wrapped client's own run: asked for, resumed, reported; and books that are right however the program ends."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from rr_clients import HI, MODEL, World, in_loop
from runrails import BudgetExceeded, ConfigError, Guard, Limits
from runrails.ledger import RUN_PERIOD, Account
from runrails.stores.memory import MemoryStore
from runrails.stores.sqlite import SQLiteStore
from runrails.testing.provider import FakeProvider, Stall, Text

WORDS = Text("one two three four five six seven eight nine ten")


def test_own_run_can_be_asked_for() -> None:
    """Before its first call and after, from a copy as well: it is one run, and its report is the client's."""
    with World() as world:
        client = world.openai()
        run = world.guard.run_of(client)
        assert (0, None) == (run.report().steps, run.parent)
        client.chat.completions.create(model=MODEL, messages=HI)
        client.with_options(timeout=9).chat.completions.create(model=MODEL, messages=HI)
        assert run is world.guard.run_of(client.with_options(timeout=3))
        assert (2, world.spent) == (run.report().model_calls, run.report().cost_pusd)
        assert run is not world.guard.run_of(world.anthropic())


def test_own_run_is_nobodys_child() -> None:
    """Asked for inside another run it is still the one for calls outside of any."""
    with World() as world:
        client = world.openai()
        with world.guard.run() as outer:
            own = world.guard.run_of(client)
            client.chat.completions.create(model=MODEL, messages=HI)
        assert (None, 0, 1) == (own.parent, own.report().model_calls, outer.report().model_calls)


@pytest.mark.parametrize("thing", [object(), "client", None])
def test_only_wrapped_clients_have_one(thing: object) -> None:
    """What this guard has not wrapped is refused by name."""
    with World() as world:
        other = Guard(store=MemoryStore(), sinks=())
        for asked in (thing, world.openai(wrapped=False)):
            with pytest.raises(ConfigError, match="not a client that this guard has wrapped"):
                world.guard.run_of(asked)
        with pytest.raises(ConfigError, match="not a client that this guard has wrapped"):
            other.run_of(world.openai())
        other.close()


def test_run_that_a_budget_stopped_goes_on_with_a_higher_limit() -> None:
    """The stop latches; `run_of(client).resume(limits=…)` is the way on, and the spending is kept."""
    with World(limits=Limits(run="0.012")) as world:
        client = world.openai()
        client.chat.completions.create(model="fake-flat", messages=HI, max_tokens=10)
        with pytest.raises(BudgetExceeded):
            client.chat.completions.create(model="fake-flat", messages=HI, max_tokens=10)
        run, spent = world.guard.run_of(client), world.spent
        assert "budget_exceeded" == run.stop_reason
        with pytest.raises(BudgetExceeded):
            client.chat.completions.create(model="fake-flat", messages=HI, max_tokens=10)
        run.resume(limits=Limits(run="1.00"))
        client.chat.completions.create(model="fake-flat", messages=HI, max_tokens=10)
        assert (None, 2 * spent, 2) == (run.stop_reason, world.spent, run.report().model_calls)


def _drop(client: Any) -> None:
    stream = client.chat.completions.create(model=MODEL, messages=HI, max_tokens=1000, stream=True)
    next(stream)
    del stream
    gc.collect()


def test_dropped_stream_is_in_the_report_at_once() -> None:
    """Nobody has to wait for the background thread."""
    with World(WORDS) as world:
        client = world.openai()
        _drop(client)
        assert world.held > 0
        report = world.guard.run_of(client).report()
        assert (0, world.spent, 1) == (world.held, report.cost_pusd, len(report.rows))
        assert report.cost_pusd > 0


def test_dropped_stream_is_in_the_saved_record() -> None:
    """A run that is closed, and one that ends with its guard, have it in their record."""
    with World(WORDS) as world:
        client = world.openai()
        with world.guard.run() as run:
            _drop(client)
        _drop(client)
        own = world.guard.run_of(client)
        world.guard.close()
        for kept in (run, own):
            record = world.store.run(kept.id)  # type: ignore[attr-defined]  # every engine here has it
            assert (1, True) == (len(record.report["rows"]), record.report["cost_pusd"] > 0)


def test_report_on_an_event_loop_does_not_ask_a_remote_store() -> None:
    """There what was dropped is left to the background thread: a network must not block the loop."""
    from runrails.testing import FlakyStore

    with World(WORDS, store=FlakyStore(MemoryStore(), remote=True)) as world:

        async def work() -> None:
            client = world.aopenai()
            stream = await client.chat.completions.create(model=MODEL, messages=HI, max_tokens=1000, stream=True)
            await anext(aiter(stream))
            world.guard.housekeeper.left_behind.append(lambda: None)
            world.guard.run_of(client).report()
            assert 1 == len(world.guard.housekeeper.left_behind)
            await stream.close()

        in_loop(world, work)


SCRIPT = """
import gc, os, sys
import openai
from runrails import Guard, Limits
from runrails.stores.sqlite import SQLiteStore
from runrails.testing.prices import PRICES

path, url, how = sys.argv[1:]
store = SQLiteStore(path)
guard = Guard(Limits(run=None, month="100"), user="alice", store=store, prices=PRICES, sinks=())
client = guard.wrap(openai.OpenAI(base_url=url, api_key="k", max_retries=0))
def ask():
    return client.chat.completions.create(model="fake-model", messages=[{"role": "user", "content": "hi"}],
                                          max_tokens=1000, stream=True)
stream = ask()
next(stream)
if how == "dropped":
    del stream
elif how == "cycle":
    loop = [stream]
    loop.append(loop)
    gc.disable()
    del stream, loop
elif how == "exit":
    sys.exit(3)
elif how == "error":
    raise ValueError("the script's own")
elif how == "forked":
    if os.fork() == 0:
        sys.exit(0)
    os.wait()
    assert store.balance([b.account for b in store.balances() if b.account.scope == "user:alice"][0]).held > 0
"""


@pytest.mark.parametrize("how", ["dropped", "kept", "cycle", "exit", "error", "forked"])
def test_books_are_right_when_a_script_just_ends(how: str, tmp_path: Path) -> None:
    """A stream that was dropped, or is still there when the program ends, is settled; the run's record is kept."""
    gate = threading.Event()
    path = tmp_path / "books.db"
    with FakeProvider(Stall(gate, WORDS, after_chunks=3)) as provider:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(path), provider.openai_url, how], capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        gate.set()
        provider.wait_idle()
        billed = provider.bill.total_pusd()
    # Python 3.13.0 itself crashes when a stream of the HTTP library is collected at the very end, guarded or not.
    crash = -signal.SIGSEGV if sys.version_info[:2] == (3, 13) else None
    assert done.returncode in {{"exit": 3, "error": 1}.get(how, 0), crash}
    assert "AssertionError" not in done.stderr
    store = SQLiteStore(path)
    (balance,) = [each for each in store.balances(period=None) if each.account.scope == "user:alice"]
    (record,) = store.usage(user="alice")
    assert (0, True) == (balance.held, billed <= balance.spent < record.estimated_pusd)
    (kept,) = store.runs(user="alice")
    assert (balance.spent, 1) == (kept.report["cost_pusd"], kept.report["model_calls"])
    assert balance.spent == store.balance(Account(f"run:{kept.id}", RUN_PERIOD)).spent
    store.close()
