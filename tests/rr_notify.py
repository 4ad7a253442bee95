"""A receiver of webhooks on this machine, and events to send."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

from runrails.events import Event


class Received(NamedTuple):
    """One request as it arrived."""

    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict[str, object]:
        """Its body."""
        found: dict[str, object] = json.loads(self.body)
        return found


class Receiver:
    """Answers with the given statuses in order, 200 after them, and keeps what it received."""

    def __init__(self, *statuses: int, headers: dict[str, str] | None = None) -> None:
        self.statuses = list(statuses)
        self.headers = headers or {}
        self.received: list[Received] = []
        self.url = ""


@contextmanager
def receiving(*statuses: int, headers: dict[str, str] | None = None) -> Iterator[Receiver]:
    """A receiver that listens as long as the block runs."""
    receiver = Receiver(*statuses, headers=headers)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.received.append(Received(self.path, headers, body))
            self.send_response(receiver.statuses.pop(0) if receiver.statuses else 200)
            for name, value in receiver.headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def warned(scope: str = "user:alice", **fields: str | int | bool | None) -> Event:
    """A warning as the housekeeper sends it."""
    given = {
        "scope": scope, "period": "2026-11", "unit": "pusd", "limit": 10 * 10**12, "spent": 8 * 10**12, "held": 0,
        "message": f"{scope} has used $8.00 of its $10.00 budget in 2026-11.", **fields,
    }  # fmt: skip
    return Event("runrails.budget_warned", "warning", given)
