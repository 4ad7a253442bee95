"""What operators see of a gateway: metrics, the log of requests, traces, readiness. And what nobody may see in them."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sys
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, get_current_span

from rr_gateway import HOUSE, MODEL, USAGE, Caller, World, asked, drained, running, world
from runrails import Limits
from runrails.clocks import monotonic_ms, system_ms
from runrails.errors import ConfigError
from runrails.ledger import Refused, Reservation, Reserved
from runrails.money import PUSD_PER_USD
from runrails.pricing.spec import Price
from runrails.stores.memory import MemoryStore
from runrails.testing import FlakyStore
from runrails.testing.provider import Error, Text
from runrails.testing.stores import Fault
from runrails_gateway.dialects import CHAT
from runrails_gateway.exchange import Exchange
from runrails_gateway.ops.exporting import open_tracing
from runrails_gateway.ops.loglines import Lines, choice_of_environment
from runrails_gateway.ops.metrics import MODELS_MAX, Metrics
from runrails_gateway.ops.requestlog import LOGGER, STRANGERS_MAX, RequestLog
from runrails_gateway.ops.tracing import Tracing
from runrails_gateway.ops.watching import ops_of_environment

CANARY = "xyzzy-canary-7f3a"
KEY_CANARY = "sk-proj-Xyzzy7f3aCanaryCanaryCanaryCanary0123456789"
SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")


class Ops:
    """All watchers there are, and what they have seen."""

    def __init__(self) -> None:
        self.metrics = Metrics(monotonic_ms)
        self.log = RequestLog(system_ms, monotonic_ms)
        self.exporter = InMemorySpanExporter()
        self._provider = TracerProvider(shutdown_on_exit=False)
        self._provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracing = Tracing(self._provider, close=self._provider.shutdown)

    @property
    def settings(self) -> dict[str, Any]:
        """For `world`."""
        return {"watchers": (self.metrics, self.log, self.tracing), "metrics": self.metrics}

    def samples(self) -> dict[str, float]:
        """Figures by their names and labels; times are left out."""
        found = [SAMPLE.match(line) for line in self.metrics.text().decode().splitlines() if not line.startswith("#")]
        return {
            f"{each[1]}{{{each[2] or ''}}}": float(each[3])
            for each in found
            if each and "seconds" not in each[1] and not each[1].endswith("_created")
        }


@pytest.fixture
def ops() -> Iterator[Ops]:
    """Watchers of one test."""
    made = Ops()
    yield made
    made.tracing.close()


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """What the log of requests says."""
    return [json.loads(record.getMessage()) for record in caplog.records if record.name == LOGGER]


async def carried(made: World, *callers: Caller) -> None:
    """Requests, one after the other, to their end."""
    async with running(made.config) as app:
        for each in callers:
            await app(each.scope, each.receive, each.send)
        await drained(app)


async def test_every_figure_is_there(ops: Ops) -> None:
    """What was answered, refused and failed, by operation, model and status; tokens and dollars of what was paid."""
    script = {MODEL: Text("Hi.", usage=USAGE, ignores_max_tokens=True), "fake-flat": Error(500, message="no")}
    with world(script, Limits(run=None, month="100", steps=None), **ops.settings) as made:
        made.guard.emit.sinks = (*made.guard.emit.sinks, ops.metrics)
        good, bad = asked(made), asked(made, model="fake-flat")
        unknown = Caller("/v1/chat/completions", {}, {"authorization": "Bearer rr_live_nobody"})
        malformed = asked(made, "messages", model=7)
        await carried(made, good, asked(made, stream=True), bad, unknown, malformed)
        made.guard.emit("something_happened", "warning")
        found = ops.samples()
        cost = made.spent / PUSD_PER_USD
    assert (200, 500, 401) == (good.status, bad.status, unknown.status)
    expected = {
        "runrails_requests_open{}": 0,
        'runrails_requests_total{ending="answered",model="fake-model",operation="chat.complete",status="200"}': 2,
        'runrails_requests_total{ending="failed",model="fake-flat",operation="chat.complete",status="500"}': 1,
        'runrails_requests_total{ending="refused",model="",operation="chat.complete",status="401"}': 1,
        'runrails_tokens_total{kind="input",model="fake-model"}': 2 * USAGE.input_tokens,
        'runrails_tokens_total{kind="output",model="fake-model"}': 2 * USAGE.output_tokens,
        'runrails_tokens_total{kind="cache_read",model="fake-model"}': 2 * USAGE.cache_read_tokens,
        'runrails_cost_usd_total{model="fake-flat",payer="platform"}': 0,
        'runrails_events_total{level="warning",name="runrails.something_happened"}': 1,
    }  # fmt: skip
    assert expected == {name: found.get(name) for name in expected}
    assert cost == pytest.approx(found['runrails_cost_usd_total{model="fake-model",payer="platform"}'])
    assert 2 == sum(number for name, number in found.items() if name.startswith("runrails_refused_total"))
    assert 'runrails_request_seconds_bucket{le="0.05",operation="chat.complete"}' in ops.metrics.text().decode()


async def test_names_that_callers_make_up_are_no_labels(ops: Ops) -> None:
    """Only what was let through is named, and of that the first few hundred; the rest is one."""
    prices = {f"fake-{n}": Price(call="0") for n in range(MODELS_MAX + 5)}
    with world(Text("Hi."), guard={"prices": prices}, **ops.settings) as made:
        priced = [asked(made, model=name) for name in prices]
        await carried(made, *priced, *[asked(made, model=f"nobodys-{n}") for n in range(20)])
    found = ops.samples()
    models = {part[1] for name in found for part in re.finditer(r'model="([^"]*)"', name)}
    assert MODELS_MAX + 2 == len(models)
    assert (
        5 == found['runrails_requests_total{ending="answered",model="(other)",operation="chat.complete",status="200"}']
    )
    assert {"", "(other)"} == {model for model in models if model not in prices}


async def test_metrics_are_for_who_may_see_usage(ops: Ops) -> None:
    """They tell what everybody spends: no caller sees them, nor an organisation's administrator."""
    with world(**ops.settings) as made:
        keys = {
            401: "rr_live_nobody", 403: made.new_key("bob"), 200: made.new_key("olga", scopes=("admin:usage",)),
        }  # fmt: skip
        confined = made.new_key("otto", scopes=("admin:usage",), org="acme")
        for status, key in [*keys.items(), (403, confined)]:
            caller = Caller("/metrics", b"", {"authorization": f"Bearer {key}"}, method="GET")
            await carried(made, caller)
            assert status == caller.status
            assert (status == 200) == (b"runrails_requests_open" in caller.body)
        assert "text/plain" in caller.headers["content-type"] or caller.status == 403
        nobody = Caller("/metrics", b"", {}, method="GET")
        await carried(made, nobody)
        assert 401 == nobody.status
    with world() as made:
        caller = Caller("/metrics", b"", {"authorization": f"Bearer {made.key}"}, method="GET")
        await carried(made, caller)
        assert 404 == caller.status


async def test_a_request_is_one_line(ops: Ops, caplog: pytest.LogCaptureFixture) -> None:
    """Who, what, how it ended and what it cost, in the words of the ledger."""
    with caplog.at_level(logging.INFO, LOGGER), world(**ops.settings) as made:
        good, refused = asked(made), asked(made, model="nobodys")
        await carried(made, good, refused)
        first, second = lines(caplog)
        (row,) = made.rows()
    assert {
        "request_id": good.headers["x-request-id"], "operation": "chat.complete", "status": 200, "ending": "answered",
        "user": "alice", "method": "api_key", "model": MODEL, "run": good.headers["x-runrails-run"],
        "upstream": "fake-openai", "payer": "platform", "reservation": row.id, "unresolved": False,
        "input_tokens": USAGE.input_tokens, "output_tokens": USAGE.output_tokens,
    }.items() <= first.items()  # fmt: skip
    assert {"time", "duration_ms", "bytes_in", "bytes_out", "key_id", "cost"} <= set(first)
    assert (400, "refused", "model_unpriced") == (second["status"], second["ending"], second["code"])
    assert [logging.INFO, logging.WARNING] == [each.levelno for each in caplog.records if each.name == LOGGER]


async def test_strangers_do_not_fill_the_log(ops: Ops, caplog: pytest.LogCaptureFixture) -> None:
    """A thousand bad keys are not a thousand lines; how many were left out is told with the next second."""
    now = [5_000]
    log = RequestLog(system_ms, lambda: now[0])
    with caplog.at_level(logging.INFO, LOGGER), world(watchers=(log,)) as made:
        body: dict[str, Any] = {"model": MODEL}
        bad = [Caller("/v1/chat/completions", body, {"x-api-key": "rr_live_nobody"}) for _ in range(STRANGERS_MAX + 7)]
        await carried(made, *bad)
        assert STRANGERS_MAX == len(lines(caplog))
        now[0] += 1_000
        await carried(made, bad[0], asked(made))
    assert [{"untold": 7, "code": "unauthenticated"}] == [line for line in lines(caplog) if "untold" in line]
    assert "answered" == lines(caplog)[-1]["ending"]


async def test_a_span_says_what_the_conventions_say(ops: Ops) -> None:
    """A child of the caller's own, with the attributes for generative models; no content."""
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    with world(**ops.settings) as made:
        good = asked(made, headers={"traceparent": f"00-{trace}-{parent}-01"})
        await carried(made, good, asked(made, model="nobodys"))
        spent = made.spent
    span, refused = ops.exporter.get_finished_spans()
    assert span.context is not None
    assert span.parent is not None
    assert (f"chat {MODEL}", SpanKind.SERVER, StatusCode.UNSET) == (span.name, span.kind, span.status.status_code)
    assert (int(trace, 16), int(parent, 16)) == (span.context.trace_id, span.parent.span_id)
    found = dict(span.attributes or {})
    assert {
        "gen_ai.operation.name": "chat", "gen_ai.request.model": MODEL, "gen_ai.response.model": MODEL,
        "gen_ai.conversation.id": good.headers["x-runrails-run"],
        "gen_ai.usage.input_tokens": USAGE.input_tokens, "gen_ai.usage.output_tokens": USAGE.output_tokens,
        "http.response.status_code": 200, "runrails.request.id": good.headers["x-request-id"],
        "runrails.cost_usd": spent / PUSD_PER_USD,
    }.items() <= found.items()  # fmt: skip
    assert good.json()["id"] == found["gen_ai.response.id"]
    assert ("chat", "model_unpriced") == (refused.name, (refused.attributes or {})["error.type"])
    assert "gen_ai.request.model" not in (refused.attributes or {})


class Noting(MemoryStore):
    """Notes beneath which span each reservation was made."""

    def __init__(self) -> None:
        super().__init__()
        self.spans: list[int] = []

    def reserve(self, reservation: Reservation) -> Reserved | Refused:
        self.spans.append(get_current_span().get_span_context().span_id)
        return super().reserve(reservation)


async def test_what_a_request_does_is_beneath_its_span(ops: Ops) -> None:
    """Each beneath its own, side by side too; whoever calls the gateway keeps the span that they are in."""
    store = Noting()
    with world(store=store, **ops.settings) as made:
        async with running(made.config) as app:
            callers = [asked(made), asked(made, "messages"), asked(made, stream=True)]
            await asyncio.gather(*[app(each.scope, each.receive, each.send) for each in callers])
            await drained(app)
            one = asked(made)
            await app(one.scope, one.receive, one.send)
            assert not get_current_span().get_span_context().is_valid
            await drained(app)
    spans = [span.context.span_id for span in ops.exporter.get_finished_spans() if span.context is not None]
    assert 4 == len(set(spans))
    assert sorted(spans) == sorted(store.spans)


async def test_a_middlewares_span_is_around_the_gateways(ops: Ops) -> None:
    """As an instrumented application makes one, from the same `traceparent`."""
    with world(**ops.settings) as made:
        tracer = TracerProvider(shutdown_on_exit=False).get_tracer("middleware")
        with tracer.start_as_current_span("POST /v1") as outer:
            trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
            await carried(made, asked(made, headers={"traceparent": f"00-{trace}-{parent}-01"}))
            assert outer is get_current_span()
    (span,) = ops.exporter.get_finished_spans()
    assert span.parent is not None
    assert outer.get_span_context().span_id == span.parent.span_id


@pytest.mark.parametrize("kind", ["chat", "messages", "responses"])
async def test_nothing_secret_is_seen(kind: str, ops: Ops, caplog: pytest.LogCaptureFixture) -> None:
    """No prompt, answer, tool's argument, credential or upstream's key in any log at DEBUG, metric or span."""
    said = {"input": CANARY} if kind == "responses" else {"messages": [{"role": "user", "content": CANARY}]}
    with (
        caplog.at_level(logging.DEBUG),
        world({MODEL: Text(CANARY), "*": Error(401, message=f"{KEY_CANARY} {HOUSE}")}, **ops.settings) as made,
    ):
        made.guard.emit.sinks = (*made.guard.emit.sinks, ops.metrics)
        key = made.key
        wrong = f"{key[:-4]}aaaa"
        callers = [
            asked(made, kind, **said), asked(made, kind, stream=True, **said),
            asked(made, kind, **{**said, "model": KEY_CANARY}), asked(made, kind, **{**said, "model": "fake-flat"}),
            asked(made, kind, **said, headers={"authorization": f"Bearer {wrong}"}),
            asked(made, kind, **said, headers={"x-runrails-run": f"{CANARY}/{KEY_CANARY}"}),
            asked(made, kind, **said, headers={"traceparent": KEY_CANARY}),
            asked(made, kind, tools=[{"name": CANARY}], **said),
        ]  # fmt: skip
        await carried(made, *callers)
    assert len(callers) == len(lines(caplog))
    seen = "\n".join(Lines().format(record) for record in caplog.records if record.name != "asyncio")
    seen += ops.metrics.text().decode()
    seen += "\n".join(span.to_json() for span in ops.exporter.get_finished_spans())
    secrets = (CANARY, KEY_CANARY, HOUSE, key, wrong, key.rpartition("_")[2])
    assert [] == [secret for secret in secrets if secret in seen]


async def test_readiness_names_what_is_away(ops: Ops) -> None:
    """The ledger makes a gateway unready; an upstream that rests is told, and found to be back by being asked."""
    away: list[str] = []
    fates: Iterator[Fault] = ("request_lost" if away else "ok" for _ in count())
    store = FlakyStore(MemoryStore(), fates, verbs={"balance"})
    with world({MODEL: Text("Hi."), "*": Error(503, message="no")}, store=store, **ops.settings) as made:
        async with running(made.config) as app:

            async def ready() -> Caller:
                caller = Caller("/readyz", b"", {}, method="GET")
                await app(caller.scope, caller.receive, caller.send)
                return caller

            fine = await ready()
            assert (200, "ready", "in_use") == (
                fine.status,
                fine.json()["status"],
                fine.json()["upstreams"]["fake-openai"],
            )
            for _ in range(5):
                caller = asked(made, model="fake-flat")
                await app(caller.scope, caller.receive, caller.send)
            rests = await ready()
            assert (200, "resting") == (rests.status, rests.json()["upstreams"]["fake-openai"])
            away.append("the ledger")
            unready = await ready()
            assert (503, "unavailable", "out_of_reach") == (
                unready.status, unready.json()["status"], unready.json()["ledger"],
            )  # fmt: skip
            away.clear()
            assert 200 == (await ready()).status


def test_what_others_log_is_a_line_without_secrets() -> None:
    """A library's message and traceback are JSON too, and go through the redaction."""
    try:
        raise ValueError(f"could not send {KEY_CANARY}")
    except ValueError as error:
        record = logging.LogRecord("aiohttp", logging.ERROR, "", 1, "key=%s", (KEY_CANARY,), (ValueError, error, None))
    line = json.loads(Lines().format(record))
    assert ("aiohttp", "error") == (line["logger"], line["level"])
    assert "ValueError" in line["traceback"]
    assert KEY_CANARY not in json.dumps(line)


def test_what_is_logged_is_one_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    """Anything else is a mistake that is told."""
    monkeypatch.delenv("RUNRAILS_GATEWAY_LOG", raising=False)
    assert "problems" == choice_of_environment()
    monkeypatch.setenv("RUNRAILS_GATEWAY_LOG", "ALL")
    assert "all" == choice_of_environment()
    monkeypatch.setenv("RUNRAILS_GATEWAY_LOG", "everything")
    with pytest.raises(ConfigError, match="RUNRAILS_GATEWAY_LOG"):
        choice_of_environment()


def test_traces_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an endpoint there are none; with one and nothing that sends there, it is told at once."""
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_SDK_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    assert open_tracing() is None
    assert 2 == len(ops_of_environment().watchers)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert open_tracing() is None
    monkeypatch.setenv("OTEL_SDK_DISABLED", "false")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter", None)
    with pytest.raises(ConfigError, match="OTLP"):
        open_tracing()


def test_a_span_that_never_began_ends_nothing(ops: Ops) -> None:
    """A watcher that was added later is told of ends alone."""

    async def send(message: dict[str, Any]) -> None:
        raise AssertionError(message)

    ops.tracing.ended(Exchange({"headers": []}, send, CHAT, request_id="req_1", started_ms=0))  # type: ignore[arg-type]
    assert () == ops.exporter.get_finished_spans()
