"""Requests and tokens a minute, as a guard's calls meet them."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from rr_core import CENT, Bench, cent_call, done, model_step
from runrails import BudgetExceeded, ConfigError, Guard, Limits, Price, RateLimited, Rates, StoreUnavailable, aio
from runrails.calls import Economy, ModelCall, ModelResult, Prompt
from runrails.rates import Ask, Cost, Figure, Granted, Limited
from runrails.stores.memory import MemoryStore
from runrails.stores.sqlite import SQLiteStore
from runrails.testing import FlakyStore, ManualClock


def paced(rates: Rates | None = None, **given: object) -> Limits:
    """Limits of which only the rates matter; nothing is waited for unless it is said."""
    return Limits(steps=None, rates=rates, **{"run": None, "hold_wait_ms": 0, **given})  # type: ignore[arg-type]


def left(bench: Bench, scope: str, rates: Rates) -> tuple[Figure | None, Figure | None]:
    """How the rates of a scope stand, without taking anything."""
    answer = bench.store.rates().take([Ask(scope, rates)], Cost(0, 0))  # type: ignore[attr-defined]
    assert isinstance(answer, Granted | Limited)
    return answer.requests, answer.tokens


def test_a_call_too_many_is_refused_and_told_when_to_come_again() -> None:
    """Nothing is reserved for it, the run goes on, and at that time the call starts."""
    bench = Bench(paced(Rates(requests_per_minute=60, requests_burst=2)))
    run = bench.guard.run()
    for _ in range(2):
        model_step(run)
    with pytest.raises(RateLimited) as caught:
        run.before_model(cent_call())

    error = caught.value
    assert ("user:alice", "requests", 2, 1, 1_000) == (
        error.fields["scope"], error.fields["unit"], error.fields["limit"], error.fields["needed"],
        error.retry_after_ms,
    )  # fmt: skip
    assert 429 == error.http_status and "1,000 ms" in str(error)
    assert (2 * CENT, 0, 2, None) == (
        bench.spent("user:alice"), bench.held("user:alice"), run.report().steps, run.stop_reason,
    )  # fmt: skip
    bench.clock.advance(999)
    with pytest.raises(RateLimited):
        model_step(run)
    bench.clock.advance(1)
    model_step(run)


def test_tokens_are_taken_at_the_worst_and_given_back() -> None:
    """While it is in flight a call takes all that it can use; afterwards what it did use."""
    rates = Rates(tokens_per_minute=1_000)
    bench = Bench(paced(rates))
    run = bench.guard.run()
    permit = run.before_model(cent_call(max_tokens=400))
    _, tokens = left(bench, "user:alice", rates)
    assert tokens is not None and 400 <= 1_000 - tokens.remaining <= 500
    with pytest.raises(RateLimited, match="tokens"):
        run.before_model(cent_call(max_tokens=600))
    run.after_model(permit, done(input_tokens=10, output_tokens=5))

    assert Figure(1_000, 985, 900) == left(bench, "user:alice", rates)[1]


def test_several_answers_take_several_times_the_tokens() -> None:
    """Each of them may be as long as the cap."""
    rates = Rates(tokens_per_minute=1_000)
    bench = Bench(paced(rates))
    run = bench.guard.run()
    run.before_model(replace(cent_call(max_tokens=200), n=3))
    _, tokens = left(bench, "user:alice", rates)

    assert tokens is not None and 600 <= 1_000 - tokens.remaining <= 700


def test_an_answer_from_the_cache_takes_nothing() -> None:
    """Nothing is sent for it, so it needs no room either."""
    rates = Rates(requests_per_minute=1, tokens_per_minute=1_000)
    bench = Bench(paced(rates))
    run = bench.guard.run()
    call = replace(cent_call(), economy=Economy(stored=True))
    for _ in range(3):
        run.before_model(call)

    assert (Figure(1, 1, 0), Figure(1_000, 1_000, 0)) == left(bench, "user:alice", rates)


@pytest.mark.parametrize(("end", "requests", "tokens"), [("failed", 9, 1_000), ("cached", 10, 1_000)])
def test_a_call_that_used_nothing_gives_its_tokens_back(end: str, requests: int, tokens: int) -> None:
    """One that failed was a request all the same; one that was answered from a cache was none."""
    rates = Rates(requests_per_minute=10, tokens_per_minute=1_000)
    bench = Bench(paced(rates))
    model_step(bench.guard.run(), result=ModelResult(end=end))  # type: ignore[arg-type]
    found = left(bench, "user:alice", rates)

    assert (requests, tokens) == tuple(figure.remaining for figure in found if figure is not None)


def test_without_reported_usage_the_worst_stays_taken() -> None:
    """Nothing reported is not nothing used."""
    rates = Rates(tokens_per_minute=1_000)
    bench = Bench(paced(rates))
    model_step(bench.guard.run(), cent_call(max_tokens=400), ModelResult(end="completed"))
    _, tokens = left(bench, "user:alice", rates)

    assert tokens is not None and tokens.remaining <= 600


def test_what_a_budget_refuses_takes_no_rate() -> None:
    """The month is used up: the rate stands as before, however often the call is tried."""
    rates = Rates(requests_per_minute=10, tokens_per_minute=10_000)
    bench = Bench(paced(rates, month="0.01"))
    run = bench.guard.run()
    model_step(run)
    before = left(bench, "user:alice", rates)
    with pytest.raises(BudgetExceeded):
        run.before_model(cent_call())

    assert before == left(bench, "user:alice", rates)


def test_a_permit_that_is_handed_back_unsent_takes_nothing() -> None:
    """What it took of the money and of the rates goes back."""
    rates = Rates(requests_per_minute=10, tokens_per_minute=1_000)
    bench = Bench(paced(rates))
    run = bench.guard.run()
    run._meter.give_back(run.before_model(cent_call()))

    assert (Figure(10, 10, 0), Figure(1_000, 1_000, 0)) == left(bench, "user:alice", rates)


def test_user_key_and_organisation_have_rates_of_their_own() -> None:
    """The first that is used up refuses, and names whose it is; calls for another key go on."""
    limits = paced(
        Rates(requests_per_minute=100), key_rates=Rates(requests_per_minute=2), org_rates=Rates(requests_per_minute=3)
    )
    bench = Bench(limits, key="k1", org="acme")
    run = bench.guard.run()
    for _ in range(2):
        model_step(run)
    with pytest.raises(RateLimited) as caught:
        model_step(run)
    assert "key:k1" == caught.value.fields["scope"]
    with bench.guard.attribute(key="k2"):
        model_step(run)
        with pytest.raises(RateLimited) as caught:
            model_step(run)
    assert "org:acme" == caught.value.fields["scope"]
    assert Figure(100, 97, 1_800) == left(bench, "user:alice", Rates(requests_per_minute=100))[0]


def test_guards_on_one_store_share_their_rates(tmp_path: Path) -> None:
    """On a file as well: two stores, one bucket."""
    clock = ManualClock()
    stores = [SQLiteStore(tmp_path / "ledger.db", clock=clock, synchronous="NORMAL") for _ in range(2)]
    benches = [Bench(paced(Rates(requests_per_minute=2)), store=store) for store in stores]
    for _ in range(100):
        benches[1].guard.new_id()  # Both count from one.
    for bench in benches:
        model_step(bench.guard.run())
    for bench in benches:
        with pytest.raises(RateLimited):
            model_step(bench.guard.run())
        bench.guard.close()
    for store in stores:
        store.close()


def test_a_short_wait_is_waited_for() -> None:
    """What comes back within `hold_wait_ms` needs no refusal."""
    bench = Bench(paced(Rates(requests_per_minute=60, requests_burst=1), hold_wait_ms=1_500))
    run = bench.guard.run()
    model_step(run)
    thread = threading.Thread(target=model_step, args=(run,))
    thread.start()
    while thread.is_alive():
        time.sleep(0.01)
        bench.clock.advance(100)
    thread.join()

    assert 2 * CENT == bench.spent("user:alice")


def test_more_than_a_burst_is_refused_at_once() -> None:
    """It would never fit, so nobody waits for it, and the message says what would help."""
    bench = Bench(paced(Rates(tokens_per_minute=100), hold_wait_ms=60_000))
    with pytest.raises(RateLimited, match="larger bursts") as caught:
        bench.guard.run().before_model(cent_call(max_tokens=101))

    assert caught.value.retry_after_ms is None


def test_a_call_without_a_cap_takes_what_chat_models_write() -> None:
    """Nobody knows how much it will be; 4,096 tokens and its input are taken."""
    rates = Rates(tokens_per_minute=10_000)
    bench = Bench(paced(rates, run="1.00"))
    bench.guard.run().before_model(cent_call(max_tokens=None))
    _, tokens = left(bench, "user:alice", rates)

    assert tokens is not None and 4_096 <= 10_000 - tokens.remaining <= 4_196


def test_observing_refuses_nothing_and_tells() -> None:
    """The call starts with its hold, and an event has the refusal that would have been."""
    bench = Bench(paced(Rates(requests_per_minute=1)), mode="observe")
    run = bench.guard.run()
    for _ in range(3):
        model_step(run)

    assert 3 * CENT == bench.spent("user:alice")
    assert 2 == bench.names().count("call_would_refuse")


def test_a_limiter_out_of_reach_refuses_unless_told_otherwise() -> None:
    """Fail closed; failing open is the named option, and an event."""

    class Away(MemoryStore):
        def rates(self) -> object:  # type: ignore[override]
            class Engine:
                remote = False

                def take(self, *_: object) -> Granted:
                    raise StoreUnavailable("The limiter is away.", next_step="Bring it back.")

                def give_back(self, *_: object) -> None:
                    raise AssertionError("nothing was taken")

                def close(self) -> None:
                    pass

            return Engine()

    closed = Bench(paced(Rates(requests_per_minute=1)), store=Away(clock=ManualClock()))
    with pytest.raises(StoreUnavailable, match="limiter"):
        closed.guard.run().before_model(cent_call())
    assert (0, 0) == (closed.spent("user:alice"), closed.held("user:alice"))
    opened = Bench(paced(Rates(requests_per_minute=1)), store=Away(clock=ManualClock()), on_store_error="allow")
    model_step(opened.guard.run())
    assert "rates_bypassed" in opened.names()
    assert CENT == opened.spent("user:alice")


def test_settings_that_cannot_hold_are_refused() -> None:
    """A store without a limiter, a value that is no rate, and a run that began without."""
    with pytest.raises(ConfigError, match="rate limiter"):
        Bench(paced(Rates(requests_per_minute=1)), store=FlakyStore(MemoryStore())).guard.run()
    with pytest.raises(TypeError, match="key_rates"):
        Limits(key_rates=60)  # type: ignore[arg-type]
    bench = Bench(Limits())
    run = bench.guard.run()
    with pytest.raises(ConfigError, match="began without"):
        run.resume(limits=paced(Rates(requests_per_minute=1)))
    model_step(run)
    assert CENT == bench.spent("user:alice")


async def test_on_an_event_loop_calls_wait_beside_it() -> None:
    """Ten a second and one at once: four calls take a third of a second, and the loop runs on."""
    limits = paced(Rates(requests_per_minute=600, requests_burst=1), hold_wait_ms=5_000)
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            beats += 1
            await asyncio.sleep(0)

    with Guard(limits, store="memory:", prices={"cent": Price(call="0.01")}) as guard:
        run = guard.run()
        task = asyncio.create_task(beat())
        began = time.monotonic()
        call = ModelCall(model="cent", prompt=Prompt(texts=("hi",), messages=1), max_tokens=10)
        permits = await asyncio.gather(*(aio.before_model(run, call) for _ in range(4)))
        took = time.monotonic() - began
        task.cancel()
        for permit in permits:
            run.after_model(permit, done())

    assert took >= 0.295
    assert beats >= 20


def test_runs_without_rates_have_a_plain_meter() -> None:
    """What nobody uses costs nothing."""
    bench = Bench(Limits())
    assert "Meter" == type(bench.guard.run()._meter).__name__
