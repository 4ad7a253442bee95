"""Plain HTTP for tests of gateways: requests without an SDK, many at once, callers who hang up, bytes that trickle."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

from rr_gateway import PATIENCE_S

__all__ = ["Answered", "Served", "burst", "exchange", "hang_up_after", "head_of", "port_of", "post"]

CHAT = "/v1/chat/completions"


class Served(Protocol):
    """A gateway that listens: ours, or the naive one."""

    url: str
    key: str

    @property
    def hits(self) -> int: ...


class Answered(NamedTuple):
    """A whole answer."""

    status: int
    headers: dict[str, str]
    raw: bytes

    def json(self) -> Any:
        return json.loads(self.raw)

    @property
    def code(self) -> Any:
        """Which error it was."""
        return self.json()["error"]["code"]


def port_of(made: Served) -> int:
    return int(made.url.rpartition(":")[2])


def post(
    made: Served, path: str = CHAT, *, key: str | None = None, headers: dict[str, str] | None = None,
    raw: bytes | None = None, **body: Any,
) -> Answered:  # fmt: skip
    """One request, sent once."""
    asked = {"model": "fake-flat", "messages": [{"role": "user", "content": "hi"}], **body}
    line = http.client.HTTPConnection("127.0.0.1", port_of(made), timeout=PATIENCE_S)
    try:
        given = {"authorization": f"Bearer {made.key if key is None else key}", **(headers or {})}
        line.request("POST", path, json.dumps(asked) if raw is None else raw, given)
        answer = line.getresponse()
        return Answered(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
    finally:
        line.close()


def burst(made: Served, count: int, go: threading.Event, **body: Any) -> list[Answered]:
    """So many at once: nothing is answered upstream before each has been sent on or refused. See `Stall(go)`."""
    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(post, made, **body) for _ in range(count)]
        deadline = time.monotonic() + PATIENCE_S
        while sum(future.done() for future in futures) + made.hits < count:
            assert time.monotonic() < deadline, "requests are neither sent on nor refused"
            time.sleep(0.005)
        go.set()
        return [future.result() for future in futures]


def head_of(made: Served, path: str, *lines: str, key: str | None = None) -> bytes:
    """The head of a request, letter by letter."""
    known = f"authorization: Bearer {made.key if key is None else key}"
    return "\r\n".join([f"POST {path} HTTP/1.1", "host: x", known, *lines, "", ""]).encode()


def hang_up_after(made: Served, pieces: int, path: str = CHAT, **body: Any) -> bytes:
    """A stream whose caller leaves after so many events; what came."""
    asked = json.dumps({"model": "fake-model", "messages": [{"role": "user", "content": "hi"}], "stream": True, **body})
    came = b""
    with socket.create_connection(("127.0.0.1", port_of(made)), PATIENCE_S) as line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        line.sendall(head_of(made, path, f"content-length: {len(asked)}") + asked.encode())
        while came.count(b"data: ") < pieces and b"[DONE]" not in came:
            piece = line.recv(65_536)
            if not piece:
                break
            came += piece
    return came


def exchange(made: Served, sent: bytes, *, slowly: bytes = b"", pause_s: float = 0.02) -> tuple[bytes, float]:
    """
    Bytes over a socket, then some one by one without end; what came back until the gateway hung up or answered, and
    how many seconds that took.
    """
    began = time.monotonic()
    came = b""
    with socket.create_connection(("127.0.0.1", port_of(made)), PATIENCE_S) as line:
        try:
            line.sendall(sent)
            if slowly:
                line.settimeout(pause_s)
                while time.monotonic() - began < PATIENCE_S:
                    try:
                        piece = line.recv(65_536)
                    except TimeoutError:
                        line.settimeout(PATIENCE_S)  # A large piece takes longer than the pause on a busy machine.
                        line.sendall(slowly)
                        line.settimeout(pause_s)
                        continue
                    came += piece
                    if not piece or b"\r\n\r\n" in came:
                        break
            else:
                while piece := line.recv(65_536):
                    came += piece
                    if b"\r\n\r\n" in came:
                        break
        except OSError:  # it was closed while we wrote
            pass
    return came, time.monotonic() - began
