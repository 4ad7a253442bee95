"""
The sixteen ways in which hosted gateways are known to fail. Each is a test of ours over HTTP, and most have a companion
that shows the failure in a naive gateway: what finds nothing wrong there proves nothing here.
"""

from __future__ import annotations

import gc
import logging
import re
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from rr_gateway import HOUSE, MODEL, PATIENCE_S, STREAMED, World, gateway
from rr_gateway_http import Answered, Served, burst, hang_up_after, post
from rr_keys import holds_part
from rr_naive_gateway import naive
from runrails import Limits
from runrails.money import usd
from runrails.notify import Notifier
from runrails.stores.memory import MemoryStore
from runrails.stores.sqlite import SQLiteStore
from runrails.testing import FlakyStore, ManualClock
from runrails.testing.provider import Error, ProviderRequest, Stall, Text
from runrails.testing.provider.values import Answer
from runrails.usage import Usage

FLAT = "fake-flat"
CENT_PUSD = usd("0.01")
"""What a call of `fake-flat` costs."""
SMALL = Text("ok", usage=Usage(input_tokens=10, output_tokens=10), ignores_max_tokens=True)
SMALL_PUSD = (10 * 3 + 10 * 15) * 10**6
NOW = Limits(run=None, month="0.05", hold_wait_ms=0)
"""Worth five flat calls; who would have to wait for others' money is told so at once."""


def statuses(answers: list[Answered]) -> dict[int, int]:
    """How many of each."""
    found = [answer.status for answer in answers]
    return {status: found.count(status) for status in sorted(set(found))}


# 1


def burst_of_24(made: Served, go: threading.Event) -> int:
    """How many of a burst reach the provider, where five are paid for."""
    burst(made, 24, go)
    return made.hits


def test_01_burst_does_not_pass_between_check_and_write() -> None:
    """The check of a budget is the write: of a burst, as many calls pass as are paid for."""
    go = threading.Event()
    with gateway(Stall(go, SMALL), NOW) as made:
        assert 5 == burst_of_24(made, go)
        made.settled()
        assert (5 * CENT_PUSD, 5) == (made.spent, len(made.rows()))
        assert (402, 5) == (post(made).status, made.hits)


def test_01_naive() -> None:
    """All of them pass where spending is written down after the answer."""
    go = threading.Event()
    with naive(Stall(go, SMALL), budget=0.05) as made:
        assert 24 == burst_of_24(made, go)


# 2


def in_turns(replicas: list[Any]) -> int:
    """How many calls two replicas let through together, where five are paid for."""
    for number in range(16):
        post(replicas[number % 2])
    return sum(made.hits for made in replicas)


def test_02_replicas_share_one_count(tmp_path: Path) -> None:
    """Two gateways with one ledger spend one budget, not two."""
    with ExitStack() as stack:
        stores = [SQLiteStore(tmp_path / "ledger.db", synchronous="NORMAL") for _ in range(2)]
        for store in stores:
            stack.callback(store.close)
        replicas = [stack.enter_context(gateway(SMALL, NOW, store=store)) for store in stores]
        assert 5 == in_turns(replicas)
        assert {5 * CENT_PUSD} == {made.spent for made in replicas}


def test_02_naive(tmp_path: Path) -> None:
    """Each replica that counts for itself lets the whole budget through."""
    with ExitStack() as stack:
        replicas = [
            stack.enter_context(naive(SMALL, budget=0.045, ledger=tmp_path / "ledger.db")) for _ in range(2)
        ]  # fmt: skip
        assert 10 == in_turns(replicas)


# 3


def test_03_no_call_without_a_reservation() -> None:
    """A model that nobody has priced is not called, nor is any while the reservation cannot be written."""
    with gateway(SMALL, NOW) as made:
        answer = post(made, model="fake-unpriced")
        assert (400, "model_unpriced") == (answer.status, answer.code)
        assert "false" == answer.headers["x-should-retry"]
        made.untouched()
    store = FlakyStore(MemoryStore(), ["request_lost"] * 50)
    with gateway(SMALL, NOW, store=store) as made:
        answer = post(made)
        assert (503, "false", 0) == (answer.status, answer.headers["x-should-retry"], made.hits)


def test_03_reservation_whose_answer_was_lost_counts_once() -> None:
    """It is asked about again, not taken for granted nor taken twice: one hold, one row, one call."""
    store = FlakyStore(MemoryStore(), ["reply_lost"] * 50, verbs={"reserve"})
    with gateway(SMALL, NOW, store=store) as made:
        assert (200, 1) == (post(made).status, made.hits)
        made.settled()
        assert (CENT_PUSD, 1) == (made.spent, len(made.rows()))


def test_03_naive(tmp_path: Path) -> None:
    """What has no price is free, and a ledger out of reach does not matter."""
    with naive(SMALL, budget=0.05, ledger=tmp_path / "missing" / "ledger.db") as made:
        for _ in range(12):
            assert 200 == post(made, model="fake-unpriced", key=made.key).status
        assert (12, 0.0) == (made.hits, made.spent)


# 4


def small_calls(made: Served) -> dict[int, int]:
    """What becomes of calls without a limit of tokens, whose worst case is dearer than the whole budget."""
    return statuses([post(made, model=MODEL) for _ in range(6)])


def test_04_worst_case_does_not_starve() -> None:
    """A call that could cost more than is left is made smaller, told so, and answered; nothing stays held."""
    with gateway(SMALL, Limits(run=None, month="0.05")) as made:
        assert {200: 6} == small_calls(made)
        made.settled()
        assert 6 * SMALL_PUSD == made.spent
        assert 0 < int(post(made, model=MODEL).headers["x-runrails-max-tokens"]) < 4096


def test_04_calls_at_once_wait_for_each_others_money() -> None:
    """An agent's calls side by side: what one holds comes back, and the others wait for that and are answered."""
    from concurrent.futures import ThreadPoolExecutor

    with gateway(SMALL, Limits(run=None, month="0.05")) as made, ThreadPoolExecutor(6) as pool:
        assert {200: 6} == statuses(list(pool.map(lambda _: post(made, model=MODEL), range(6))))
        made.settled()
        assert 6 * SMALL_PUSD == made.spent


def test_04_naive() -> None:
    """Everything is refused, and nothing was spent."""
    with naive(SMALL, budget=0.05, reserves=True) as made:
        assert ({429: 6}, 0, 0.0) == (small_calls(made), made.hits, made.spent)


def until_refused(made: Served) -> int:
    """How many calls of a cent a dime pays for."""
    for _ in range(14):
        if post(made).status != 200:
            break
    return made.hits


def test_04_money_is_counted_exactly() -> None:
    """A dime is worth ten cents."""
    with gateway(SMALL, Limits(run=None, month="0.10")) as made:
        assert 10 == until_refused(made)
        assert 10 * CENT_PUSD == made.spent


def test_04_naive_money() -> None:
    """In floats it is worth eleven."""
    with naive(SMALL, budget=0.10) as made:
        assert 11 == until_refused(made)


# 5


def after_failures(made: Served) -> int:
    """What a paying user gets after calls that failed upstream and cost nothing."""
    for _ in range(8):
        assert 400 == post(made, model=MODEL, max_tokens=1000).status
    return post(made, model=MODEL, max_tokens=1000).status


FAILING = [*[Error(400)] * 8, SMALL]


def test_05_failed_calls_leave_nothing_behind() -> None:
    """What was held for calls that failed is given back, and the next one is let through."""
    with gateway(FAILING, Limits(run=None, month="0.10")) as made:
        assert 200 == after_failures(made)
        made.settled()
        assert SMALL_PUSD == made.spent


def test_05_naive() -> None:
    """The count goes up with each failure, until a user who has spent nothing is refused."""
    with naive([*[Error(400)] * 8, SMALL], budget=0.5, reserves=True) as made:
        assert 429 == after_failures(made)


def test_05_raised_budget_counts_at_once() -> None:
    """No count is kept beside the ledger: an operator who raises a limit need not restart anything."""
    with gateway(SMALL, NOW) as made:
        assert {200: 5, 402: 2} == statuses([post(made) for _ in range(7)])
        made.store.set_limit("user:alice", usd("0.07"))
        assert {200: 2, 402: 1} == statuses([post(made) for _ in range(3)])
        made.settled()


def test_05_no_budget_is_never_used_up() -> None:
    """Where none is set, none is hit."""
    with gateway(SMALL, Limits(run=None, steps=None)) as made:
        assert {200: 12} == statuses([post(made) for _ in range(12)])


# 6

CHUNKS = 24
STREAM = Text(
    "tick " * CHUNKS, usage=Usage(input_tokens=1000, output_tokens=500), chunks=CHUNKS, chunk_delay_ms=2,
    ignores_max_tokens=True,
)  # fmt: skip
LEFT_AT = (1, 12, 23)


def rows_of(made: Any) -> int:
    """How many calls are written down."""
    made.provider.wait_idle()
    return len(made.rows() if isinstance(made, World) else made.rows)


def quiet(made: World) -> None:
    """Wait until nothing is held any more."""
    made.provider.wait_idle()
    deadline = time.monotonic() + PATIENCE_S
    while made.held or len(made.watching.over) < made.watching.began_count:
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("kind", STREAMED)
def test_06_usage_survives_a_hang_up(kind: str) -> None:
    """Over a socket, at the first, a middle and the last piece: one row each, with all that the provider bills."""
    from rr_gateway import BODIES

    path, body = BODIES[kind]
    with gateway(STREAM, Limits(run=None, month="10")) as made:
        for pieces in LEFT_AT:
            hang_up_after(made, pieces, path, **body)
            quiet(made)
        assert len(LEFT_AT) == rows_of(made)
        made.settled()


def test_06_naive() -> None:
    """Who has left before the end has paid nothing."""
    go = threading.Event()
    with naive(Stall(go, STREAM, after_chunks=12), budget=10.0) as made:
        for pieces in LEFT_AT[:2]:
            hang_up_after(made, pieces, max_tokens=2000)
            _until(lambda: made.open_streams == 0)
        assert (0, 2) == (rows_of(made), made.hits)
        assert 2 == len(made.provider.bill)
        go.set()


def test_06_a_read_stream_is_no_hang_up() -> None:
    """Who leaves right after the last event has had everything: the row says that it was completed."""
    with gateway(STREAM, Limits(run=None, month="10")) as made:
        came = hang_up_after(made, CHUNKS + 40, max_tokens=2000)
        assert b"[DONE]" in came
        quiet(made)
        assert ["completed"] == [row.result.end for row in made.rows()]
        assert ["answered"] == [exchange.ending for exchange in made.watching.over]


@pytest.mark.parametrize("stream", [False, True])
def test_06_a_reported_zero_is_zero(stream: bool) -> None:
    """Usage that says 0 is a report, and not the lack of one: nothing is charged for it."""
    free = Text("", usage=Usage(), ignores_max_tokens=True)
    with gateway(free, Limits(run=None, month="10")) as made:
        assert 200 == post(made, model=MODEL, max_tokens=1000, stream=stream).status
        made.settled()
        assert ([0], ["completed"]) == (
            [row.actual_pusd for row in made.rows()], [row.result.end for row in made.rows()]
        )  # fmt: skip


# 7


def test_07_one_row_for_each_call() -> None:
    """Neither none nor two: in every dialect, streamed or not, whatever ids callers send along, however they repeat."""
    from rr_gateway import BODIES

    with gateway(SMALL, Limits(run=None, month="10")) as made:
        sent = 0
        for kind, (path, body) in BODIES.items():
            for stream in (False, True) if kind in STREAMED else (False,):
                for headers in ({}, {}, {"x-request-id": "the-same"}, {"x-request-id": "the-same"}):
                    again = {**headers, "x-stainless-retry-count": "1", "idempotency-key": "the-same"}
                    more = {"stream": True} if stream else {}
                    assert 200 == post(made, path, headers=again, **{**body, **more}).status
                    sent += 1
        made.settled()
        assert (sent, sent) == (len(made.rows()), made.hits)
        assert sent == len({row.id for row in made.rows()})
        assert sent == len({exchange.id for exchange in made.ended()})


def test_07_naive() -> None:
    """Rows by the callers' ids: those without one share a row."""
    with naive(SMALL, budget=10.0) as made:
        for _ in range(8):
            assert 200 == post(made, model=MODEL).status
        assert (8, 1) == (made.hits, rows_of(made))


# 8

PAID: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {},
    "/v1/responses": {"input": "hi", "messages": []},
    "/v1/messages": {"max_tokens": 20},
    "/v1/embeddings": {"input": "hi", "messages": []},
}
ELSEWHERE = (
    "/v1/completions", "/v1/images/generations", "/v1/audio/speech", "/v1/batches", "/v1/files", "/v1/moderations",
    "/openai/v1/chat/completions", "/v1/chat/completions/", "/v1//chat/completions", "/v1/Chat/Completions",
    "/v1/../v1/chat/completions", "/anthropic/v1/messages", "/v1/messages/batches", "/v1/realtime", "/pass/v1/x",
    "/v1/responses/resp_1/cancel", "/model/fake-flat/converse", "/fake/bill",
)  # fmt: skip


def spend_all(made: Served) -> None:
    """Use the budget up."""
    while post(made).status == 200:
        pass


def beyond_the_budget(made: Served) -> int:
    """How many requests reach the provider after the budget is used up, by whatever address."""
    spend_all(made)
    before = made.hits
    for path, body in PAID.items():
        post(made, path, **body)
    for path in ELSEWHERE:
        post(made, path)
    return made.hits - before


def test_08_no_address_goes_around_the_budget() -> None:
    """All that cost are under it, in every dialect; nothing else is passed on."""
    with gateway(SMALL, NOW) as made:
        assert 0 == beyond_the_budget(made)
        assert {402: 4} == statuses([post(made, path, **body) for path, body in PAID.items()])
        assert {404} <= set(statuses([post(made, path) for path in ELSEWHERE])) <= {404, 405, 307}
        made.settled()


def test_08_no_key_goes_around_the_budget() -> None:
    """An administrator's key is a key: what may do everything else may not spend what is not there."""
    powers = ("ai:complete", "ai:embed", "admin:keys", "admin:budgets", "admin:usage", "admin:credentials")
    with gateway(SMALL, NOW) as made:
        admin = made.new_key("alice", scopes=powers)
        spend_all(made)
        assert (402, 5) == (post(made, key=admin).status, made.hits)


def test_08_naive() -> None:
    """What came later is passed on as it is."""
    with naive(SMALL, budget=0.05) as made:
        assert beyond_the_budget(made) > 3


# 9


def ms_of(*when: int) -> int:
    return int(datetime(*when, tzinfo=UTC).timestamp() * 1000)  # type: ignore[misc, arg-type]


def at_times(made: Served, clock: ManualClock, *times_ms: int) -> list[int]:
    """What the answer is at each of these times, the budget being used up at the first."""
    found = []
    for at_ms in times_ms:
        clock.set(at_ms)
        if not found:
            spend_all(made)
        found.append(post(made).status)
    return found


MARCH = (ms_of(2026, 3, 1), ms_of(2026, 3, 31, 23, 59), ms_of(2026, 4, 1))
ZONES = {
    "UTC": MARCH,
    "Asia/Tokyo": (ms_of(2026, 3, 1), ms_of(2026, 3, 31, 14, 59, 59), ms_of(2026, 3, 31, 15)),
    "America/New_York": (ms_of(2026, 10, 31), ms_of(2026, 11, 1, 3, 59, 59), ms_of(2026, 11, 1, 4)),
}
"""A used-up month, its last moment, and the first one of the next: in New York the clocks go back that very day."""


@pytest.mark.parametrize("zone", ZONES)
def test_09_month_begins_when_it_begins(zone: str) -> None:
    """A month has the days it has, in the zone that is set, and its budget begins anew at its first moment."""
    clock = ManualClock(ZONES[zone][0])
    more = {"clock": clock, "zone": zone}
    with gateway(SMALL, NOW, store=MemoryStore(clock=clock), guard=more) as made:
        assert [402, 402, 200] == at_times(made, clock, *ZONES[zone])
        assert CENT_PUSD * 6 == sum(row.actual_pusd for row in made.rows())


def test_09_reset_is_told() -> None:
    """Who is refused is told when it begins anew, by the clock of its zone."""
    clock = ManualClock(ZONES["Asia/Tokyo"][0])
    with gateway(SMALL, NOW, store=MemoryStore(clock=clock), guard={"clock": clock, "zone": "Asia/Tokyo"}) as made:
        spend_all(made)
        answer = post(made)
        assert "2026-03-31T15:00:00Z" == answer.headers["x-runrails-budget-reset"]
        assert "retry-after" not in answer.headers


def test_09_naive() -> None:
    """Thirty days are over before March is."""
    clock = ManualClock(MARCH[0])
    with naive(SMALL, budget=0.05, clock=clock) as made:
        assert [429, 200] == at_times(made, clock, *MARCH[:2])


# 10


def wrong_keys(made: World) -> dict[str, str]:
    """Keys that are no good, by why."""
    gone = made.new_key("bob")
    made.keys.revoke(made.keys.list("bob")[0].id)
    asleep = made.new_key("carol")
    made.keys.suspend(made.keys.list("carol")[0].id)
    clock = made.guard.clock
    over = made.new_key("dave", expires_ms=clock() + 300)
    while clock() < made.keys.list("dave")[0].expires_ms:  # type: ignore[operator]
        time.sleep(0.005)
    swapped = made.key[:30] + ("A" if made.key[30] != "A" else "B") + made.key[31:]
    return {
        "revoked": gone,
        "suspended": asleep,
        "expired": over,
        "wrong": swapped,
        "older": "sk-0123456789abcdefghijk",
    }


def test_10_no_secret_leaks(caplog: pytest.LogCaptureFixture) -> None:
    """No key, whole or in part, is in an answer, a header, an event or a log line of any level; nor its hash."""
    with caplog.at_level(logging.DEBUG), gateway([Error(400, message=f"no {HOUSE}"), SMALL], NOW) as made:
        bad = wrong_keys(made)
        answers = [post(made), post(made)]
        for key in bad.values():
            answers += [post(made, key=key, headers=headers) for headers in ({}, {"x-api-key": key})]
            answers += [post(made, path, key=key) for path in ("/v1/messages", "/v1/nothing")]
        assert [400, 200] == [answer.status for answer in answers[:2]]
        assert {401: 15, 404: 5} == statuses(answers[2:])
        assert 1 == len({answer.code for answer in answers[2:] if answer.status == 401}), "nobody learns why"
        told = repr(answers) + repr(made.events) + caplog.text + repr(made.watching.over) + repr(made.config)
        for secret in (*bad.values(), made.key, HOUSE):
            assert not holds_part(told, secret.rpartition("_")[2])


AMOUNT = re.compile(r"\$|usd|0\.05|\b5000|50_?000|spent|remaining", re.IGNORECASE)
ID = re.compile(r"[0-9a-f]{16}[0-9a-z]{16,}")
"""Drawn digits may be those of an amount."""


def test_10_amounts_can_be_kept_from_callers() -> None:
    """With `hide_amounts`, neither answers nor refusals say what was spent, what is left or what a call costs."""
    with gateway(SMALL, NOW, hide_amounts=True) as made:
        answers = [post(made, path, **body) for path, body in PAID.items() for _ in range(3)]
        assert {200: 5, 402: 7} == statuses(answers)
        for answer in answers:
            said = repr({name: value for name, value in answer.headers.items() if name.startswith("x-")})
            assert AMOUNT.search(ID.sub("", said)) is None
            if answer.status == 402:
                assert AMOUNT.search(ID.sub("", answer.raw.decode())) is None


def test_10_naive() -> None:
    """The key stands in the answer, and what others have spent."""
    with naive(SMALL, budget=0.05) as made:
        secret = "rr_live_somebody_else_s_key_0123456789"
        assert secret in post(made, key=secret).raw.decode()
        spend_all(made)
        assert AMOUNT.search(post(made).raw.decode()) is not None


# 11


def files_open(directory: Path) -> int:
    """How many file handles of this process lead to a ledger."""
    found = 0
    for each in Path("/proc/self/fd").iterdir():
        try:
            found += str(each.readlink()).startswith(str(directory))
        except OSError:
            continue
    return found


def open_while_32_wait(made: Served, directory: Path, go: threading.Event) -> int:
    """How many handles are open while calls wait for the provider."""
    found: list[int] = []

    def measure() -> None:
        _until(lambda: made.hits == 32)
        found.append(files_open(directory))
        go.set()

    measuring = threading.Thread(target=measure)
    measuring.start()
    assert {200: 32} == statuses(burst(made, 32, threading.Event()))
    measuring.join()
    return found[0]


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true() and time.monotonic() < deadline:
        time.sleep(0.005)


def test_11_open_calls_hold_no_connection_to_the_ledger(tmp_path: Path) -> None:
    """However many calls wait for a provider, the ledger has its few connections; none of them deadlocks."""
    go = threading.Event()
    store = SQLiteStore(tmp_path / "ledger.db", synchronous="NORMAL")
    try:
        with gateway(Stall(go, SMALL), Limits(run=None, month="10"), store=store) as made:
            threads = threading.active_count()
            assert open_while_32_wait(made, tmp_path, go) <= 12
            made.settled()
            assert 32 == len(made.rows())
            assert threading.active_count() <= threads + 32 + 8, "32 are the provider's own"
    finally:
        store.close()


def test_11_naive(tmp_path: Path) -> None:
    """One connection for each call, for as long as the provider thinks."""
    go = threading.Event()
    with naive(Stall(go, SMALL), budget=10.0, ledger=tmp_path / "ledger.db") as made:
        (tmp_path / "ledger.db").touch()
        assert open_while_32_wait(made, tmp_path, go) >= 32


# 12

BODY_BYTES = 60_000


WARM_UP = 130
"""Conversations that fill what is kept of the newest ones for a while, 6 MB at most."""


def grown_bytes(made: Any, requests: int) -> int:
    """How much more memory is in use after so many conversations of 60 kB more, each of them another one."""

    def ask(number: int) -> None:
        said = [{"role": "user", "content": f"{number} " + chr(97 + number % 26) * BODY_BYTES}]
        assert 200 == post(made, messages=said).status

    def used() -> int:
        made.provider.wait_idle()
        made.provider.books._received.clear()
        if isinstance(made, World):
            made.watching.over.clear()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        for number in range(WARM_UP):
            ask(number)
        before = used()
        for number in range(requests):
            ask(1000 + number)
        return used() - before
    finally:
        tracemalloc.stop()


def test_12_memory_does_not_grow_with_conversations() -> None:
    """Digests are kept of them, and only so many; what was said only of the newest, for minutes, and not above 6 MB."""
    with gateway(SMALL, Limits(run=None, month="10")) as made:
        assert grown_bytes(made, 60) < 60 * BODY_BYTES // 3


def test_12_naive() -> None:
    """Everything that was ever said is still there."""
    with naive(SMALL, budget=10.0) as made:
        assert grown_bytes(made, 60) > 60 * BODY_BYTES


# 13


def test_13_one_alert_for_each_threshold() -> None:
    """At 80 % once, at the limit once: not with every request, and not again by another process on the ledger."""
    sent: list[str] = []
    store = MemoryStore()
    for _ in range(2):
        notifier = Notifier(lambda event: sent.append(event.name))
        with gateway(SMALL, NOW, store=store, guard={"sinks": [notifier]}) as made:
            for _ in range(14):
                post(made)
                made.guard.flush()
            assert notifier.flush()
    assert ["runrails.budget_warned", "runrails.budget_limit_reached"] == sent


def test_13_naive() -> None:
    """One with every request."""
    with naive(SMALL, budget=0.045) as made:
        for _ in range(14):
            post(made)
        assert 9 == len(made.alerts)


# 14


def wants_no_cap(request: ProviderRequest) -> Answer:
    """A model that takes no limit of tokens, as there are some."""
    named = {"max_tokens", "max_completion_tokens", "max_output_tokens"} & set(request.body)
    return Error(400, message=f"Unsupported parameter: {named}") if named else SMALL


def test_14_no_cap_is_forced_on_who_set_none() -> None:
    """Where money is there, requests arrive as they were sent: no limit of tokens is put in."""
    with gateway(wants_no_cap, Limits(run="1.00", month="5.00")) as made:
        assert 200 == post(made, model=MODEL).status
        assert 200 == post(made, "/v1/responses", raw=b'{"model":"fake-model","input":"hi"}').status
        assert 200 == post(made, model=MODEL, stream=True).status
        assert {"model", "messages"} == set(made.provider.received[0].body)
        assert not any("x-runrails-max-tokens" in post(made, model=MODEL).headers for _ in range(2))
        made.settled()


def test_14_naive() -> None:
    """The model refuses a parameter that its caller never sent."""
    with naive(wants_no_cap) as made:
        assert 400 == post(made, model=MODEL).status


# 15


def remaining(made: Served, name: str) -> list[str]:
    """What is left, as three answers in a row say."""
    return [post(made).headers[name] for _ in range(3)]


def test_15_remaining_moves() -> None:
    """Each answer says what is left, streams too; a refusal says that it is nothing."""
    with gateway(SMALL, NOW) as made:
        assert ["0.04", "0.03", "0.02"] == remaining(made, "x-runrails-budget-remaining")
        post(made)
        post(made)
        assert "0" == post(made).headers["x-runrails-budget-remaining"]


def test_15_naive() -> None:
    """It stays what it was set to."""
    with naive(SMALL, budget=0.05) as made:
        assert 1 == len(set(remaining(made, "x-budget-remaining")))


# 16


def by_openai(made: Any) -> None:
    with openai.OpenAI(base_url=made.openai_url, api_key=made.key) as client:
        client.chat.completions.create(model=FLAT, messages=[{"role": "user", "content": "hi"}])


def by_anthropic(made: Any) -> None:
    with anthropic.Anthropic(base_url=made.url, api_key=made.key) as client:
        client.messages.create(model=FLAT, messages=[{"role": "user", "content": "hi"}], max_tokens=20)


def by_langchain(made: Any) -> None:
    from langchain_openai import ChatOpenAI

    ChatOpenAI(model=FLAT, base_url=made.openai_url, api_key=made.key).invoke("hi")


def by_langchain_anthropic(made: Any) -> None:
    from langchain_anthropic import ChatAnthropic

    ChatAnthropic(model=FLAT, base_url=made.url, api_key=made.key, max_tokens=20).invoke("hi")  # type: ignore[call-arg]


CLIENTS = {each.__name__: each for each in (by_openai, by_anthropic, by_langchain, by_langchain_anthropic)}


def requests_after(made: Any, ask: Callable[[Any], None]) -> int:
    """How many requests a client makes for one call, once the budget is used up."""
    spend_all(made)
    before = made.watching.began_count if isinstance(made, World) else made.count
    with pytest.raises((openai.APIStatusError, anthropic.APIStatusError)):
        ask(made)
    return (made.watching.began_count if isinstance(made, World) else made.count) - before


@pytest.fixture(scope="module")
def used_up() -> Iterator[World]:
    """A gateway with a budget that nothing is left of."""
    with gateway(SMALL, NOW) as made:
        spend_all(made)
        yield made


@pytest.mark.parametrize("client", CLIENTS)
def test_16_used_up_budget_is_not_retried(used_up: World, client: str) -> None:
    """A budget that is used up passes by no waiting: each client makes exactly one request, with default settings."""
    assert 1 == requests_after(used_up, CLIENTS[client])
    assert 5 == used_up.hits


@pytest.mark.parametrize("client", ["by_openai", "by_langchain"])
def test_16_naive(client: str) -> None:
    """429 is tried again, each time in vain."""
    with naive(SMALL, budget=0.045) as made:
        assert 3 == requests_after(made, CLIENTS[client])


def test_all_sixteen_are_here() -> None:
    """Each has a test of its own, and at least eight a naive gateway that fails."""
    names = [name for name in globals() if name.startswith("test_")]
    assert set(range(1, 17)) == {int(name[5:7]) for name in names if name[5:7].isdigit()}
    assert 14 <= len({name[5:7] for name in names if "_naive" in name})
