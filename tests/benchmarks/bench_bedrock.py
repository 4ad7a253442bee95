"""
A guarded boto3 client of bedrock-runtime over the bare one: Converse, and the events of ConverseStream (memory store).

The yardstick is the bare client's own call in the same run, on a transport that answers at once: botocore signs, sends
and parses as ever, and no network is in between. Guarded and bare calls alternate, now this one first and now that one,
and the median of their differences counts, so that a busy machine slows both.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from struct import pack
from typing import Any, NamedTuple
from zlib import crc32

import boto3
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from rr_bench import Row, added_by, main

from runrails import Guard, Limits, Price
from runrails.stores.memory import MemoryStore

CALLS = 1_200
STREAMS = 60
EVENTS = 400
GATE_CALL = 0.4
"""How much of a bare call the guard may add: 100 us over some 360 is 0.28, and a busy machine is not to decide."""
GATE_EVENT = 0.35
"""How much of botocore's own work on an event: 5 us over some 14; 0.11 measured."""
MODEL = "anthropic.claude-sonnet-4-5-20250929-v1:0"
ASKED: Any = {
    "modelId": MODEL,
    "messages": [{"role": role, "content": [{"text": "x" * 200}]} for role in ("user", "assistant") * 2 + ("user",)],
    "inferenceConfig": {"maxTokens": 1_000},
}
USAGE = {"inputTokens": 300, "outputTokens": 400, "totalTokens": 700}
ANSWER = json.dumps(
    {"output": {"message": {"role": "assistant", "content": [{"text": "fine"}]}}, "stopReason": "end_turn",
     "usage": USAGE, "metrics": {"latencyMs": 1}}
).encode()  # fmt: skip


class _Streamed(NamedTuple):
    """A body of events, in pieces as a connection would give them."""

    pieces: list[bytes]

    def stream(self, *_: object, **__: object) -> Iterator[bytes]:
        """All of it."""
        return iter(self.pieces)

    def close(self) -> None:
        """Nothing is open."""


def measure() -> list[Row]:
    """Medians of bare and guarded calls."""
    guard = Guard(
        Limits(run=None, steps=None, month="1000"), store=MemoryStore(), sinks=(),
        prices={MODEL: Price(input="3", output="15", output_tokens_max=8_192)},
    )  # fmt: skip
    bare, guarded = _client(), guard.wrap(_client())
    plain, added = added_by(bare, guarded, _call, CALLS)
    rows = [
        Row("converse, bare, instant transport", plain * 1e6, "us"),
        Row("added to Converse, at most 100 us", added * 1e6, "us", added / plain, "the bare call", GATE_CALL),
    ]
    plain, added = added_by(bare, guarded, _stream, STREAMS)
    plain, added = plain / EVENTS, added / EVENTS
    name = "added to an event of ConverseStream, at most 5 us"
    rows.append(Row(name, added * 1e6, "us", added / plain, "botocore's own event", GATE_EVENT))
    guard.close()
    return rows


def _client() -> Any:
    client: Any = boto3.client(
        "bedrock-runtime", region_name="us-east-1", aws_access_key_id="k", aws_secret_access_key="s",
        config=Config(retries={"total_max_attempts": 1}),
    )  # fmt: skip
    # What answers before a request is sent stands in for the network.
    client.meta.events.register_last("before-send.bedrock-runtime", _answer)
    return client


def _answer(request: Any, **_: object) -> AWSResponse:
    if not request.url.endswith("converse-stream"):
        return _response(request, "application/json", _Streamed([ANSWER]))
    return _response(request, "application/vnd.amazon.eventstream", _Streamed(_EVENTS))


def _response(request: Any, kind: str, body: _Streamed) -> AWSResponse:
    return AWSResponse(request.url, 200, {"content-type": kind, "x-amzn-requestid": "1"}, body)


def _event(name: str, payload: dict[str, object]) -> bytes:
    """One message in AWS's event stream encoding."""
    headers = b"".join(
        pack(f"!B{len(key)}sBH{len(value)}s", len(key), key, 7, len(value), value)
        for key, value in ((b":event-type", name.encode()), (b":message-type", b"event"))
    )
    data = json.dumps(payload).encode()
    head = pack("!II", 16 + len(headers) + len(data), len(headers))
    message = head + pack("!I", crc32(head)) + headers + data
    return message + pack("!I", crc32(message))


_EVENTS = [
    _event("messageStart", {"role": "assistant"}),
    *[_event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "word "}})] * EVENTS,
    _event("contentBlockStop", {"contentBlockIndex": 0}),
    _event("messageStop", {"stopReason": "end_turn"}),
    _event("metadata", {"usage": USAGE, "metrics": {"latencyMs": 1}}),
]


def _call(client: Any) -> None:
    client.converse(**ASKED)


def _stream(client: Any) -> None:
    for _ in client.converse_stream(**ASKED)["stream"]:
        pass


if __name__ == "__main__":
    raise SystemExit(main(measure))
