"""
A guarded client over the bare one, against the fake provider: whole calls, and chunks of a stream (memory store).

The yardstick is the bare client's own call in the same run. Guarded and bare calls alternate, now this one first and
now that one, and the median of their differences counts, so that a busy machine slows both. The provider is a process
of its own: in ours its threads would do their book-keeping at the cost of whoever calls next. What the guard adds is
also measured without the network, on a transport that answers at once, with an answer of the same form.

Over HTTP the same work of ours takes half as long again: while a client waits for its answer the processor's caches are
put to other use, and what is executed once a call comes back from memory. A transport that sleeps instead shows the
same. So do not measure the guard's functions in a loop of their own: there they take less than half of it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import openai
from rr_bench import Row, added_by, main

from runrails import Guard, Limits
from runrails.stores.memory import MemoryStore
from runrails.testing.prices import PRICES

CALLS = 1_500
STREAMS = 60
CHUNKS = 400
GATE_CALL = 0.2
"""How much of a bare call on an instant transport the guard may add: 100 us over some 900; 0.1 measured."""
GATE_CHUNK = 0.15
"""How much of the SDK's own work on a chunk: 5 us over some 50; 0.06 measured."""
MESSAGES: Any = [{"role": "user", "content": "x" * 200}] * 5
ANSWER = (
    b'{"id":"1","object":"chat.completion","created":1,"model":"fake-model","choices":[{"index":0,"finish_reason":'
    b'"stop","logprobs":null,"message":{"role":"assistant","content":"fine","refusal":null}}],'
    b'"usage":{"prompt_tokens":300,"completion_tokens":20,"total_tokens":320,'
    b'"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,'
    b'"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}}'
)
"""As the provider over HTTP answers: with the parts of the usage, of which there are none."""
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
    with _provider() as url:
        bare, guarded = _pair(guard, base_url=url)
        plain, added = added_by(bare, guarded, _call, CALLS)
        rows += [
            Row("chat.completions.create, bare, over HTTP", plain * 1e6, "us"),
            Row("added by the guard, over HTTP", added * 1e6, "us", added / plain, "the bare call"),
        ]
    transport = _Instant()
    bare, guarded = _pair(guard, base_url="http://instant/v1", http_client=httpx2.Client(transport=transport))
    plain, added = added_by(bare, guarded, _call, CALLS)
    name = "added by the guard, instant transport"
    rows.append(Row(name, added * 1e6, "us", added / plain, "the bare call", GATE_CALL))
    plain, added = added_by(bare, guarded, _stream, STREAMS)
    plain, added = plain / CHUNKS, added / CHUNKS
    name = "added to a chunk of a stream"
    rows.append(Row(name, added * 1e6, "us", added / plain, "the SDK's own chunk", GATE_CHUNK))
    guard.close()
    return rows


@contextmanager
def _provider() -> Iterator[str]:
    """Serve in another process; gives the address."""
    command = [sys.executable, "-m", "runrails.testing.provider", "--script", "steady"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())["openai_url"]
    finally:
        process.communicate()


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


if __name__ == "__main__":
    raise SystemExit(main(measure))
