"""
A guarded client over the bare one, against the fake provider: whole calls, and chunks of a stream (memory store).

The yardstick is the bare client's own call in the same run; guarded and bare calls alternate, so that a busy machine
slows both. What the guard adds is also measured without the network, on a transport that answers at once: there the
provider's scatter, far larger than the guard, does not drown it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import openai
from rr_bench import Row, main, percentile

from runrails import Guard, Limits
from runrails.stores.memory import MemoryStore
from runrails.testing.prices import PRICES
from runrails.testing.provider import FakeProvider, Text

CALLS = 1_500
STREAMS = 60
CHUNKS = 400
WARM_UP = 150
GATE_CALL = 0.35
"""How much of a bare call on an instant transport the guard may add: 100 us over some 550; 0.18 measured."""
GATE_CHUNK = 0.15
"""How much of the SDK's own work on a chunk: 5 us over some 50; 0.06 measured."""
MESSAGES: Any = [{"role": "user", "content": "x" * 200}] * 5
ANSWER = (
    b'{"id":"1","object":"chat.completion","created":1,"model":"fake-model","choices":[{"index":0,"finish_reason":'
    b'"stop","message":{"role":"assistant","content":"fine"}}],'
    b'"usage":{"prompt_tokens":300,"completion_tokens":20,"total_tokens":320}}'
)
CHUNK = (
    b'data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"fake-model",'
    b'"choices":[{"index":0,"delta":{"content":"word "},"finish_reason":null}],"usage":null}\n\n'
)
LAST = (
    b'data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"fake-model","choices":[],'
    b'"usage":{"prompt_tokens":300,"completion_tokens":400,"total_tokens":700}}\n\ndata: [DONE]\n\n'
)


class _Body(httpx2.SyncByteStream):
    """A stream of chunks, one at a time."""

    def __iter__(self) -> Iterator[bytes]:
        for _ in range(CHUNKS):
            yield CHUNK
        yield LAST


class _Instant(httpx2.BaseTransport):
    """Answers at once."""

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        if b'"stream":true' in request.read():
            return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=_Body())
        return httpx2.Response(200, headers={"content-type": "application/json"}, content=ANSWER)


def measure() -> list[Row]:
    """Medians of bare and guarded calls."""
    guard = Guard(Limits(run=None, steps=None, month="1000"), store=MemoryStore(), prices=PRICES, sinks=())
    rows: list[Row] = []
    with FakeProvider(Text("fine")) as provider:
        bare, guarded = _pair(guard, base_url=provider.openai_url)
        plain, added = _added(bare, guarded, _call, CALLS)
        rows += [
            Row("chat.completions.create, bare, over HTTP", plain * 1e6, "us"),
            Row("added by the guard, over HTTP", added * 1e6, "us", added / plain, "the bare call"),
        ]
    transport = _Instant()
    bare, guarded = _pair(guard, base_url="http://instant/v1", http_client=httpx2.Client(transport=transport))
    plain, added = _added(bare, guarded, _call, CALLS)
    name = "added by the guard, instant transport"
    rows.append(Row(name, added * 1e6, "us", added / plain, "the bare call", GATE_CALL))
    plain, added = _added(bare, guarded, _stream, STREAMS)
    plain, added = plain / CHUNKS, added / CHUNKS
    name = "added to a chunk of a stream"
    rows.append(Row(name, added * 1e6, "us", added / plain, "the SDK's own chunk", GATE_CHUNK))
    guard.close()
    return rows


def _pair(guard: Guard, **options: Any) -> tuple[openai.OpenAI, openai.OpenAI]:
    made = [openai.OpenAI(api_key="k", max_retries=0, **options) for _ in range(2)]
    return made[0], guard.wrap(made[1])


def _call(client: openai.OpenAI) -> None:
    client.chat.completions.create(model="fake-model", messages=MESSAGES, max_tokens=100)


def _stream(client: openai.OpenAI) -> None:
    asked: Any = {"include_usage": True}
    for _ in client.chat.completions.create(
        model="fake-model", messages=MESSAGES, max_tokens=1000, stream=True, stream_options=asked
    ):
        pass


def _added(
    bare: openai.OpenAI, guarded: openai.OpenAI, work: Callable[[openai.OpenAI], None], calls: int
) -> tuple[float, float]:
    times: tuple[list[float], list[float]] = ([], [])
    warm_up = min(WARM_UP, calls // 4)
    for number in range(warm_up + calls):
        for place, client in enumerate((bare, guarded)):
            began = time.perf_counter()
            work(client)
            if number >= warm_up:
                times[place].append(time.perf_counter() - began)
    plain, whole = (percentile(sorted(values), 50) for values in times)
    return plain, whole - plain


if __name__ == "__main__":
    raise SystemExit(main(measure))
