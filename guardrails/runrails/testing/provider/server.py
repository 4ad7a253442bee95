"""The fake provider itself: a small threaded HTTP server on 127.0.0.1 with a script and books of its own."""

from __future__ import annotations

import socket
import threading
from http.server import ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

from runrails.testing.provider.books import Books
from runrails.testing.provider.handler import Handler
from runrails.testing.provider.script import Script, Scripted
from runrails.testing.provider.stories import echo
from runrails.testing.provider.wire import compact

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from runrails.testing.provider.bill import Bill, PriceFunction
    from runrails.testing.provider.values import ProviderRequest

__all__ = ["FakeProvider"]

_POLL_S = 0.02
"""How long `close` may wait for the accepting thread to notice."""


class FakeProvider:
    """
    A provider of language models for tests: speaks the wires of OpenAI, Anthropic and Bedrock, answers by a script and
    writes a bill that nothing under test can touch.

    Use it as a context manager. Nothing leaves 127.0.0.1 and no key is checked.

    Args:
        script: What to answer; see `Script`. Left out, the newest message comes back.
        price_pusd: Price of a usage in picodollars, for `bill.total_pusd()`. Left out, `runrails.testing.PRICES` and
            the shipped prices.
        served_as: For a model asked for, the name that its answers give (`{"gpt-4o": "gpt-4o-2024-08-06"}`).
        port: 0 for any free port.
    """

    def __init__(
        self,
        script: Script = echo,
        *,
        price_pusd: PriceFunction | None = None,
        served_as: Mapping[str, str] | None = None,
        port: int = 0,
    ) -> None:
        self.books = Books(price_pusd)
        self.closing = threading.Event()
        self.served_as: Mapping[str, str] = dict(served_as or {})
        self.scripted = Scripted(script)
        self._port = port
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> Self:
        """
        Begin to serve. `with` does it for you.

        Raises:
            RuntimeError: It was started before.
            OSError: The port is taken.
        """
        if self._server is not None:
            raise RuntimeError("This provider was started before; make another one.")
        provider = self

        class _BoundHandler(Handler):
            pass

        _BoundHandler.provider = provider
        self._server = _Server(("127.0.0.1", self._port), _BoundHandler)
        self._port = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_S,), name="runrails-fake-provider", daemon=True
        )
        self._thread.start()
        return self

    def close(self) -> None:
        """Break off what is in flight, stalled or not, and wait for every thread. Closing twice is fine."""
        server, thread = self._server, self._thread
        if server is None or thread is None or self.closing.is_set():
            return
        self.closing.set()
        server.shutdown()
        thread.join()
        server.break_off()
        server.server_close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if error is None and self.books.script_errors:
            raise self.books.script_errors[0]

    @property
    def url(self) -> str:
        """Where it listens: `http://127.0.0.1:PORT`. Also the base URL for Azure OpenAI."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def openai_url(self) -> str:
        """`base_url` of the openai SDK and of ChatOpenAI."""
        return self.url + "/v1"

    @property
    def anthropic_url(self) -> str:
        """`base_url` of the anthropic SDK and of ChatAnthropic."""
        return self.url

    @property
    def bedrock_url(self) -> str:
        """`endpoint_url` of a bedrock-runtime client."""
        return self.url

    @property
    def bill(self) -> Bill:
        """Every call that costs money."""
        return self.books.bill

    @property
    def requests(self) -> Mapping[str, int]:
        """How often each path was asked for, retries and refusals included."""
        return self.books.requests

    @property
    def received(self) -> tuple[ProviderRequest, ...]:
        """The newest requests that were understood, oldest first."""
        return self.books.kept

    @property
    def concurrency_max(self) -> int:
        """The most requests that were ever in flight at once."""
        return self.books.concurrency_max

    def use(self, script: Script) -> None:
        """Answer by another script from now on."""
        self.scripted = Scripted(script)

    def wait_received(self, count: int, *, timeout_s: float = 60.0) -> None:
        """
        Wait until so many requests that can cost money have come in.

        Raises:
            TimeoutError: They did not come in time.
        """
        if not self.books.wait_received(count, timeout_s):
            raise TimeoutError(f"Fewer than {count} requests came in within {timeout_s} s.")

    def wait_idle(self, *, timeout_s: float = 60.0) -> None:
        """
        Wait until nothing is in flight: only then is the bill of a client that left complete.

        Raises:
            TimeoutError: Something was still in flight.
        """
        if not self.books.wait_idle(timeout_s):
            raise TimeoutError(f"Requests were still in flight after {timeout_s} s.")

    def summary(self) -> bytes:
        """The books as JSON, as `GET /fake/bill` gives them to other processes."""
        calls = self.bill.calls
        input_tokens, output_tokens = self.bill.total_tokens()
        return compact(
            {
                "calls": len(calls),
                "ends": {end: sum(call.end == end for call in calls) for end in ("completed", "cut", "errored")},
                "input_tokens": input_tokens,
                "output_tokens": output_tokens,
                "total_pusd": self.bill.total_pusd(),
                "requests": dict(self.requests),
                "concurrency_max": self.concurrency_max,
            }
        )


class _Server(ThreadingHTTPServer):
    """Remembers its connections, so that closing need not wait for idle ones."""

    daemon_threads = False
    block_on_close = True
    request_queue_size = 256

    def __init__(self, address: tuple[str, int], handler: type[Handler]) -> None:
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:  # typeshed has no narrower type here
        """Keep the connection in mind and serve it in a thread of its own."""
        with self._lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:  # typeshed has no narrower type here
        """Forget a connection and close it."""
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def break_off(self) -> None:
        """Close every connection under the feet of its thread, which ends by that."""
        with self._lock:
            for connection in self._connections:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # it was closed on the other side

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A broken connection is none of our business; anything else is shown by the base class."""
        import sys

        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)
