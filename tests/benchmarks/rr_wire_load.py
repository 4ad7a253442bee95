"""
What the gateway's benchmark is made of besides gateways: a provider that answers at once, and callers that wait for it.

    python tests/benchmarks/rr_wire_load.py 8000      # the provider

Both are written on bare sockets, so that what they cost is small beside what is measured.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["EVENTS", "PAUSE_S", "SAID", "Load", "conversation", "load", "request"]

EVENTS = 24
"""Pieces of a streamed answer."""
SAID = "All is well. " * 8
PAUSE_S = 0.02
"""How long the provider takes over what a user called "pause" asks; others it answers at once."""
_USAGE = {"prompt_tokens": 40, "completion_tokens": 60, "total_tokens": 100}
_HEAD = {"id": "chatcmpl-1", "created": 1, "model": "gpt-4o-mini"}
_LENGTH = re.compile(rb"content-length:\s*(\d+)", re.IGNORECASE)
_TURN = re.compile(rb'"user": "(\w+)_(\d+)"')


def _call(name: str, number: int) -> dict[str, object]:
    arguments = json.dumps({"page": number})
    return {"id": f"call_{name}_{number}", "type": "function", "function": {"name": "look", "arguments": arguments}}


def _whole(body: bytes) -> bytes:
    """Says the same to everybody; an agent, whose requests are numbered, is asked for another page as well."""
    message: dict[str, object] = {"role": "assistant", "content": SAID, "refusal": None}
    turn = _TURN.search(body)
    if turn is not None:
        message["tool_calls"] = [_call(turn[1].decode(), int(turn[2]))]
    choice = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": "stop" if turn is None else "tool_calls",
    }
    usage = {"prompt_tokens": len(body) // 5 + 8, "completion_tokens": 60, "total_tokens": len(body) // 5 + 68}
    answer = json.dumps({**_HEAD, "object": "chat.completion", "usage": usage, "choices": [choice]}).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(answer)
    return head + answer


def _stream() -> list[bytes]:
    chunk = {**_HEAD, "object": "chat.completion.chunk"}
    deltas = [{"role": "assistant", "content": ""}, *[{"content": SAID[n::22]} for n in range(22)]]
    events = [{**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    events.append({**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    last = {**chunk, "choices": [], "usage": _USAGE}
    said = [b"data: " + json.dumps(event).encode() + b"\n\n" for event in [*events, last]] + [b"data: [DONE]\n\n"]
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    return [head, *[b"%x\r\n%s\r\n" % (len(each), each) for each in said], b"0\r\n\r\n"]


class Provider(asyncio.Protocol):
    """Answers every request with the same words."""

    stream = _stream()

    def __init__(self) -> None:
        self._waiting = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._waiting += data
        while (end := self._waiting.find(b"\r\n\r\n")) >= 0:
            found = _LENGTH.search(self._waiting, 0, end)
            size = end + 4 + (0 if found is None else int(found[1]))
            if len(self._waiting) < size:
                return
            body, self._waiting = self._waiting[end + 4 : size], self._waiting[size:]
            if b'"user": "pause"' in body:
                asyncio.get_running_loop().call_later(PAUSE_S, self._transport.write, _whole(body))  # type: ignore[attr-defined]
            elif b'"stream": true' in body or b'"stream":true' in body:
                for piece in self.stream:
                    self._transport.write(piece)  # type: ignore[attr-defined]
            else:
                self._transport.write(_whole(body))  # type: ignore[attr-defined]


def request(body: bytes, *, key: str, path: str = "/v1/chat/completions") -> bytes:
    """A whole request."""
    head = (
        f"POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n"
        f"user-agent: bench\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def conversation(history_bytes: int, turns: int, *, name: str) -> list[bytes]:
    """
    The bodies of one agent's requests: a history of about that size, which grows by one tool call and its result each.

    The results differ, so that nothing stops it.
    """
    messages: list[dict[str, object]] = [
        {"role": "system", "content": "You look things up."}, {"role": "user", "content": f"Look up {name}."},
    ]  # fmt: skip
    count = 0

    def turn() -> None:
        nonlocal count
        count += 1
        messages.append({"role": "assistant", "content": SAID, "tool_calls": [_call(name, count)]})
        words = f"Page {count} of {name} says: " + " ".join(f"word{count}x{n}" for n in range(60))
        messages.append({"role": "tool", "tool_call_id": f"call_{name}_{count}", "content": words})

    while history_bytes and sum(len(json.dumps(each)) for each in messages) < history_bytes:
        turn()
    bodies: list[bytes] = []
    for _ in range(turns):
        turned = {"user": f"{name}_{count + 1}"} if history_bytes else {}
        bodies.append(json.dumps({"model": "gpt-4o-mini", **turned, "messages": messages, "max_tokens": 600}).encode())
        if history_bytes:
            turn()
    return bodies


class Load(NamedTuple):
    """What a round of requests came to."""

    requests: int
    seconds: float
    latencies_s: list[float]
    """Sorted."""
    refused: list[bytes]
    """What was answered to those that were not."""


async def _caller(port: int, work: list[bytes], latencies: list[float], told: list[bytes]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**22)
    try:
        while work:
            sent = work.pop()
            began = time.perf_counter()
            writer.write(sent)
            head = await reader.readuntil(b"\r\n\r\n")
            found = _LENGTH.search(head)
            if found is not None:
                body = await reader.readexactly(int(found[1]))
                if b" 200 " not in head[:16]:
                    told.append(body)
            else:
                await reader.readuntil(b"\r\n0\r\n\r\n")
            latencies.append(time.perf_counter() - began)
    finally:
        writer.close()


def load(port: int, requests: Sequence[bytes], *, connections: int) -> Load:
    """Send all of them over so many connections, each when the one before it is answered."""
    work = list(reversed(requests))
    latencies: list[float] = []
    told: list[bytes] = []

    async def run() -> float:
        began = time.perf_counter()
        await asyncio.gather(*[_caller(port, work, latencies, told) for _ in range(connections)])
        return time.perf_counter() - began

    seconds = asyncio.run(run())
    return Load(len(latencies), seconds, sorted(latencies), told)


async def _provide(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Provider, "127.0.0.1", port)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_provide(int(sys.argv[1])))
