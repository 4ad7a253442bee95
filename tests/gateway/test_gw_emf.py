"""Metrics for CloudWatch: one list of names, documents as the specification has them, and a reader who may be slow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from rr_gateway import MODEL, asked, drained, running, world
from rr_ledger import booking
from runrails import Limits
from runrails.errors import ConfigError
from runrails.events import Event
from runrails.ledger import Reserved
from runrails.metrics import METRICS, NAMESPACE, metric, sent_to_cloudwatch
from runrails.stores.memory import MemoryStore
from runrails.stores.sqlite import SQLiteStore
from runrails.testing import FlakyStore, ManualClock
from runrails.testing.provider import Error, Text
from runrails_gateway.ops.emf import documents, figures_of
from runrails_gateway.ops.emitting import Emitting, emf_of_environment
from runrails_gateway.ops.metrics import Metrics

TIME_MS = 1_795_000_000_000


def ticking() -> Any:
    """A clock that goes on by 10 ms whenever somebody looks at it."""
    ticks = count(0, 10)
    return lambda: next(ticks)


class Counted:
    """A registry with one metric of each kind."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.tokens = self._made(Counter, "runrails_tokens")
        self.requests = self._made(Counter, "runrails_requests")
        self.open = self._made(Gauge, "runrails_requests_open")
        listed = metric("runrails_request_seconds")
        self.seconds = Histogram(listed.name, "x", listed.labels, registry=self.registry, buckets=listed.buckets)
        self.samples = 0

    def _made(self, kind: Any, name: str) -> Any:
        return kind(name, "x", metric(name).labels, registry=self.registry)

    def sample(self) -> None:
        self.samples += 1


def emitting(counted: Any, lines: list[str]) -> Emitting:
    """One that is flushed by hand."""
    return Emitting(counted, lines.append, clock=lambda: TIME_MS, service="test", every_s=3_600)


def check_document(document: dict[str, Any]) -> None:
    """What the specification asks: the directive names what is there, and no more than 100 values of it."""
    about = document["_aws"]
    assert TIME_MS == about["Timestamp"]
    (directive,) = about["CloudWatchMetrics"]
    assert NAMESPACE == directive["Namespace"]
    for dimensions in directive["Dimensions"]:
        assert 1 <= len(dimensions) <= 30
        assert all(isinstance(document[name], str) and document[name] for name in dimensions)
    assert 1 <= len(directive["Metrics"]) <= 100
    for each in directive["Metrics"]:
        value = document[each["Name"]]
        if isinstance(value, dict):
            assert {"Values", "Counts", "Min", "Max", "Count", "Sum"} == set(value)
            assert 1 <= len(value["Values"]) == len(value["Counts"]) <= 100
            assert (value["Min"], value["Max"]) == (min(value["Values"]), max(value["Values"]))
            assert sum(value["Counts"]) == value["Count"]
        else:
            assert isinstance(value, float | int)
    # A line is written at once, and a pipe takes so much at once from several writers.
    assert len(json.dumps(document)) < 4_096


def test_every_metric_is_listed_once() -> None:
    """Names, CloudWatch's names, and dimensions that are labels."""
    assert len(METRICS) == len({each.name for each in METRICS})
    assert len(sent_to_cloudwatch()) == len({each.cloudwatch for each in sent_to_cloudwatch()})
    for each in METRICS:
        assert each.dimension is None or each.dimension in each.labels
        assert ("histogram" == each.kind) == bool(each.buckets)
        assert each.help.endswith(".")
    with pytest.raises(KeyError):
        metric("runrails_made_up")


def test_what_is_counted_is_what_is_listed() -> None:
    """The registry of a gateway has these metrics and no other."""
    found = {family.name: tuple(family.documentation.split()) for family in Metrics(ticking()).registry.collect()}
    assert {each.name: tuple(each.help.split()) for each in METRICS} == found


def test_only_what_was_counted_since_is_told() -> None:
    """Counters as what came to them, by their dimension; gauges as they are; histograms as values and counts."""
    counted, lines = Counted(), []
    emitted = emitting(counted, lines)
    counted.requests.labels("chat", MODEL, "200", "answered").inc(2)
    counted.requests.labels("chat", MODEL, "500", "failed").inc()
    counted.tokens.labels(MODEL, "input").inc(7)
    counted.tokens.labels("other", "input").inc(3)
    counted.tokens.labels(MODEL, "output").inc(5)
    for seconds in (0.01, 0.05, 0.3, 9_000):
        counted.seconds.labels("chat").observe(seconds)
    counted.open.set(4)
    assert emitted.flush()
    first = [json.loads(line) for line in lines]
    for each in first:
        check_document(each)
    by_kind = {each.get("Kind", ""): each for each in first}
    assert {"", "input", "output"} == set(by_kind)
    assert (3, 4, 10, 5) == (
        by_kind[""]["Requests"], by_kind[""]["RequestsOpen"], by_kind["input"]["Tokens"], by_kind["output"]["Tokens"],
    )  # fmt: skip
    assert {
        "Values": [0.05, 0.5, 640.0], "Counts": [2, 1, 1], "Min": 0.05, "Max": 640.0, "Count": 4, "Sum": 640.6,
    } == by_kind[""]["RequestDuration"]  # fmt: skip
    assert {"test"} == {each["Service"] for each in first}
    lines.clear()
    counted.requests.labels("chat", MODEL, "200", "answered").inc(4)
    assert emitted.flush()
    (second,) = map(json.loads, lines)
    assert {"_aws", "Service", "Requests", "RequestsOpen"} == set(second)
    assert 4 == second["Requests"]
    assert 2 == counted.samples


def test_what_could_not_be_written_is_told_later() -> None:
    """Neither lost nor twice, also if the reader was gone in the middle."""
    counted, lines, failing = Counted(), [], [False, True, True]

    def write(line: str) -> None:
        if failing and failing.pop(0):
            raise BrokenPipeError
        lines.append(line)

    emitted = Emitting(counted, write, clock=lambda: TIME_MS, service="test", every_s=3_600)
    counted.requests.labels("chat", MODEL, "200", "answered").inc(2)
    counted.tokens.labels(MODEL, "input").inc(7)
    assert [False, False, True] == [emitted.flush() for _ in range(3)]
    told = [json.loads(line) for line in lines]
    assert (2, 7) == (sum(each.get("Requests", 0) for each in told), sum(each.get("Tokens", 0) for each in told))


def test_a_bad_look_does_not_end_all_later_ones() -> None:
    """The thread goes on, and what it missed is told."""
    counted, lines, again = Counted(), [], threading.Event()

    def look() -> None:
        counted.samples += 1
        if 1 == counted.samples:
            raise RuntimeError("dictionary changed size during iteration")
        again.set()

    counted.sample = look  # type: ignore[method-assign]
    counted.tokens.labels(MODEL, "input").inc(7)
    emitted = Emitting(counted, lines.append, clock=lambda: TIME_MS, service="test", every_s=0.001).start()
    assert again.wait(30)
    emitted.close()
    assert 7 == sum(json.loads(line).get("Tokens", 0) for line in lines)


class Store(MemoryStore):
    """A shared one, which counts by itself."""

    throttled, swept = 3, 2


@pytest.mark.parametrize("leased", [False, True], ids=["alone", "behind leases"])
def test_what_a_store_counts_is_told(leased: bool) -> None:
    """Also if leases stand before it. Holds of the dead are what it swept; what the living gave up is among them."""
    store: Any = Store()
    guard = SimpleNamespace(
        store=SimpleNamespace(shared=store) if leased else store, housekeeper=SimpleNamespace(open={})
    )  # fmt: skip
    metrics = Metrics(ticking())
    metrics.watch(guard)  # type: ignore[arg-type]
    metrics(Event("runrails.hold_abandoned", "warning", {}))
    metrics.sample()
    metrics.sample()
    found = figures_of(metrics.registry)
    assert (3, 2) == (found["runrails_store_throttled", ""], found["runrails_holds_abandoned", ""])
    store.throttled, store.swept = 5, 2
    metrics.sample()
    found = figures_of(metrics.registry)
    assert (5, 2) == (found["runrails_store_throttled", ""], found["runrails_holds_abandoned", ""])


def test_holds_of_a_killed_worker_are_told(tmp_path: Path) -> None:
    """By whoever finds them overdue; the dead tell nothing."""
    clock = ManualClock(TIME_MS)
    dead, living = (SQLiteStore(tmp_path / "l.db", clock=clock) for _ in range(2))
    metrics = Metrics(ticking())
    metrics.watch(SimpleNamespace(store=living, housekeeper=SimpleNamespace(open={})))  # type: ignore[arg-type]
    assert isinstance(dead.reserve(booking("a", ttl_ms=60_000)), Reserved)
    clock.advance(60_001)
    assert isinstance(living.reserve(booking("b")), Reserved)
    metrics.sample()
    assert 1 == figures_of(metrics.registry)["runrails_holds_abandoned", ""]
    dead.close()
    living.close()


def test_two_who_look_at_once_count_once() -> None:
    """Whoever scrapes the figures, and the thread that writes them."""
    metrics = Metrics(ticking())
    metrics.watch(SimpleNamespace(store=Store(), housekeeper=SimpleNamespace(open={})))  # type: ignore[arg-type]
    added: list[float] = []
    others: list[threading.Thread] = []

    class Slow:
        def inc(self, amount: float) -> None:
            if not others:  # somebody else looks between the comparison and the note of it
                others.append(threading.Thread(target=metrics.sample))
                others[0].start()
                others[0].join(0.2)
            added.append(amount)

    metrics._throttles = Slow()  # type: ignore[assignment]
    metrics.sample()
    others[0].join(30)
    assert [3] == added


_WORKER = """
from runrails.clocks import monotonic_ms
from runrails_gateway.ops.emf import figures_of
from runrails_gateway.ops.metrics import Metrics
metrics = Metrics(monotonic_ms)
metrics._tokens.labels("m", "input").inc(3)
together = [line for line in metrics.text().decode().splitlines() if line.startswith("runrails_tokens_total")]
print(figures_of(metrics.registry)["runrails_tokens", "input"], *together)
"""


def test_a_worker_tells_cloudwatch_of_itself_alone(tmp_path: Path) -> None:
    """It adds them up by itself; Prometheus is told of all of them together, by whichever it asks."""
    setting = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    told = [
        subprocess.run([sys.executable, "-c", _WORKER], env=setting, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    line = 'runrails_tokens_total{kind="input",model="m"}'
    assert [f"3.0 {line} 3.0\n", f"3.0 {line} 6.0\n"] == told


def test_a_blocked_reader_blocks_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe that nobody reads is full: requests are counted as before, and closing waits for a moment only."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(writing, b"x" * 65_536)
    os.set_blocking(writing, True)
    writes = threading.Event()

    def write(line: str) -> None:
        writes.set()
        os.write(writing, line.encode())

    counted = Counted()
    counted.requests.labels("chat", MODEL, "200", "answered").inc()
    emitted = Emitting(counted, write, clock=lambda: TIME_MS, service="test", every_s=0.01).start()
    monkeypatch.setattr("runrails_gateway.ops.emitting.CLOSE_S", 0.05)
    try:
        assert writes.wait(30)
        for _ in range(1_000):
            counted.requests.labels("chat", MODEL, "200", "answered").inc()
        assert 1_001 == figures_of(counted.registry)["runrails_requests", ""]
    finally:
        os.set_blocking(reading, False)
        emitted.close()
        assert emitted._thread.is_alive()  # closing has not waited for it
        while emitted._thread.is_alive():  # now somebody reads
            try:
                os.read(reading, 65_536)
            except BlockingIOError:
                emitted._thread.join(0.01)
        os.close(reading)
        os.close(writing)


async def test_a_gateway_tells_all_there_is() -> None:
    """What was answered, stopped, refused for want of a ledger, and not spent."""
    metrics, faults = Metrics(ticking()), FlakyStore(MemoryStore(), ["ok", "request_lost"], verbs={"reserve"})
    limits = Limits(run=None, month="0.000001", steps=None)
    with world({MODEL: Text("Hi.")}, limits, watchers=(metrics,), metrics=metrics, store=faults) as made:
        made.guard.emit.sinks = (*made.guard.emit.sinks, metrics)
        metrics.watch(made.guard)
        callers = [asked(made), asked(made)]
        async with running(made.config) as app:
            for each in callers:
                await app(each.scope, each.receive, each.send)
            await drained(app)
        assert [402, 503] == [each.status for each in callers]
        lines: list[str] = []
        assert emitting(metrics, lines).flush()
    told = [json.loads(line) for line in lines]
    for each in told:
        check_document(each)
    whole = {name: value for each in told if not {"Code", "Reason"} & each.keys() for name, value in each.items()}
    assert (2, 1) == (whole["Requests"], whole["StoreUnavailable"])
    assert 1 == whole["Failures"]  # an empty budget is nobody's fault
    assert 1 == sum(each.get("RunStops", 0) for each in told)
    assert whole["AvoidedUSD"] > 0
    assert whole["Memory"] > 10_000_000
    assert 0 == whole["RequestsOpen"] == whole["OldestHold"]


@pytest.mark.parametrize(("status", "failures"), [(400, 0), (404, 0), (422, 0), (401, 1), (429, 1), (500, 1)], ids=str)
async def test_a_callers_own_fault_is_no_failure(status: int, failures: int) -> None:
    """What a provider cannot understand says nothing of the gateway; nobody is woken for it."""
    metrics = Metrics(ticking())
    with world({MODEL: Error(status, message="no")}, watchers=(metrics,), metrics=metrics) as made:
        caller = asked(made)
        async with running(made.config) as app:
            await app(caller.scope, caller.receive, caller.send)
            await drained(app)
    assert caller.status >= 400
    found = figures_of(metrics.registry)
    assert (1, failures) == (found["runrails_requests", ""], found.get(("runrails_failures", ""), 0))


def test_the_environment_asks_for_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Off unless asked for; what is neither is refused, and so is a name that CloudWatch would not take."""
    counted = Counted()
    for text in ("", "off", " OFF "):
        monkeypatch.setenv("RUNRAILS_EMF", text)
        assert emf_of_environment(counted, lambda: TIME_MS) is None
    monkeypatch.setenv("RUNRAILS_EMF", "cloudwatch")
    with pytest.raises(ConfigError, match="RUNRAILS_EMF"):
        emf_of_environment(counted, lambda: TIME_MS)
    monkeypatch.setenv("RUNRAILS_EMF", "stdout")
    for name in (":x", "é", "a\tb", "x" * 256):
        monkeypatch.setenv("RUNRAILS_EMF_SERVICE", name)
        with pytest.raises(ConfigError, match="RUNRAILS_EMF_SERVICE"):
            emf_of_environment(counted, lambda: TIME_MS)


def test_standard_output_gets_lines(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """The last of them when the gateway ends."""
    monkeypatch.setenv("RUNRAILS_EMF", "stdout")
    counted = Counted()
    emitted = emf_of_environment(counted, lambda: TIME_MS)
    assert emitted is not None
    counted.tokens.labels(MODEL, "input").inc(7)
    emitted.close()
    (line, *_) = [json.loads(each) for each in capfd.readouterr().out.splitlines() if "Tokens" in each]
    check_document(line)
    assert ("gateway", 7) == (line["Service"], line["Tokens"])
    assert [] == [each for each in threading.enumerate() if "runrails-emf" == each.name]


def test_no_document_is_about_nothing() -> None:
    """An idle gateway has its gauges to tell, and nothing else."""
    counted = Counted()
    before = figures_of(counted.registry)
    (only,) = documents(before, before, time_ms=TIME_MS, service="test")
    assert {"_aws", "Service", "RequestsOpen"} == set(only.content)
