"""Which path speaks which wire. One thread a connection, kept alive."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, NamedTuple, Protocol
from urllib.parse import unquote, urlsplit

from runrails.testing.provider import anthropic, bedrock, embeddings, openai_chat, openai_responses
from runrails.testing.provider.engine import play
from runrails.testing.provider.line import HttpLine
from runrails.testing.provider.values import Answer, Error, Json, ProviderRequest, Text
from runrails.testing.provider.wire import BadRequest, Dialect, Received

if TYPE_CHECKING:
    import socket
    import threading
    from socketserver import BaseServer

    from runrails.testing.provider.books import Books
    from runrails.testing.provider.script import Scripted

__all__ = ["Handler", "Provider"]

BODY_BYTES_MAX = 64 * 1024 * 1024
_JSON: Mapping[str, str] = {"content-type": "application/json"}
_MODEL = r"(?P<model>[^/]+)"
_COUNT_TOKENS = "/v1/messages/count_tokens"
_NO_JSON = Error(400, message="the body is not a JSON object")


class _Route(NamedTuple):
    pattern: re.Pattern[str]
    dialect: Dialect
    stream: bool = False


_ROUTES = (
    _Route(re.compile(r"/(?:v1/)?chat/completions"), openai_chat.DIALECT),
    _Route(re.compile(r"/(?:v1/)?responses"), openai_responses.DIALECT),
    _Route(re.compile(r"/(?:v1/)?embeddings"), embeddings.DIALECT),
    _Route(re.compile(r"/v1/messages"), anthropic.DIALECT),
    # Azure puts the deployment into the path.
    _Route(re.compile(rf"/openai/deployments/{_MODEL}/chat/completions"), openai_chat.DIALECT),
    _Route(re.compile(rf"/openai/deployments/{_MODEL}/embeddings"), embeddings.DIALECT),
    _Route(re.compile(rf"/model/{_MODEL}/converse"), bedrock.CONVERSE),
    _Route(re.compile(rf"/model/{_MODEL}/converse-stream"), bedrock.CONVERSE, stream=True),
    _Route(re.compile(rf"/model/{_MODEL}/invoke"), bedrock.INVOKE),
    _Route(re.compile(rf"/model/{_MODEL}/invoke-with-response-stream"), bedrock.INVOKE, stream=True),
)


class Provider(Protocol):
    """What a handler needs of the provider it serves for."""

    books: Books
    closing: threading.Event
    served_as: Mapping[str, str]
    scripted: Scripted

    def summary(self) -> bytes:
        """The books as JSON."""
        ...


class Handler(BaseHTTPRequestHandler):
    """Serves one connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    provider: Provider
    """Set by the server on a subclass of its own."""

    def __init__(self, request: socket.socket, client_address: object, server: BaseServer) -> None:
        self._socket = request
        super().__init__(request, client_address, server)

    def handle(self) -> None:
        """Serve requests until one side has had enough. A client that leaves is no error here."""
        try:
            super().handle()
        except OSError:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the base class names it so
        """Nothing is logged: requests hold prompts and keys."""

    def do_GET(self) -> None:
        """Lists of models, and the provider's own books under /fake/."""
        path = urlsplit(self.path).path
        line = self._line()
        if path == "/fake/bill":
            line.whole(200, _JSON, self.provider.summary())
            return
        books = self.provider.books
        books.begin(path, counted=False)
        try:
            self._models(path.removeprefix("/v1"), line)
        finally:
            books.finish()

    def _models(self, path: str, line: HttpLine) -> None:
        known = self.provider.books.models | self.provider.scripted.models | self.provider.served_as.keys()
        name = path.removeprefix("/models/")
        is_anthropic = "anthropic-version" in self.headers
        if path == "/models":
            line.whole(200, _JSON, embeddings.models_page(known, anthropic=is_anthropic))
        elif name in known:
            line.whole(200, _JSON, embeddings.model_card(name, anthropic=is_anthropic))
        else:
            _fail(line, openai_chat.DIALECT, Error(404, message="not found"))

    def do_POST(self) -> None:
        """Everything that can cost money, and token counting, which does not."""
        path = urlsplit(self.path).path
        books = self.provider.books
        route, match = _route(path)
        body = self._body()
        line = self._line()
        number = books.begin(path, counted=route is not None)
        try:
            if body is None:
                _fail(line, openai_chat.DIALECT, Error(413, message="request too large"), number)
            elif path == _COUNT_TOKENS:
                self._count_tokens(body, line)
            elif route is None or match is None:
                _fail(line, openai_chat.DIALECT, Error(404, message="unknown path"))
            else:
                self._exchange(route, match.groupdict().get("model"), body, number, line)
        finally:
            self.close_connection = self.close_connection or line.ended
            books.finish()

    def _exchange(self, route: _Route, model: str | None, body: bytes, number: int, line: HttpLine) -> None:
        request = self._request(route, None if model is None else unquote(model), body, number)
        if isinstance(request, Error):
            _fail(line, route.dialect, request, number)
            return
        provider = self.provider
        provider.books.received(request)
        try:
            play(
                self._answer(request),
                request=request,
                dialect=route.dialect,
                line=line,
                bill=provider.books.bill,
                served_model=provider.served_as.get(request.model, request.model),
            )
        except OSError:
            line.hang_up()
        except Exception as error:  # noqa: BLE001 -- `FakeProvider` raises it in the test whose script it is
            provider.books.script_errors.append(error)
            _fail(line, route.dialect, Error(500, code="script_failed", message=type(error).__name__), number)
            line.hang_up()

    def _answer(self, request: ProviderRequest) -> Answer:
        # Embeddings need no script; a list of chat answers must not be used up by them.
        scripted = self.provider.scripted
        if request.wire == "openai_embeddings" and not scripted.names(request.model):
            return Text("")
        return scripted.answer(request)

    def _count_tokens(self, body: bytes, line: HttpLine) -> None:
        request = self._request(_Route(re.compile(""), anthropic.DIALECT), None, body, 0)
        if isinstance(request, Error):
            _fail(line, anthropic.DIALECT, request)
        else:
            line.whole(200, _JSON, anthropic.tokens_counted(request))

    def _request(self, route: _Route, model: str | None, body: bytes, number: int) -> ProviderRequest | Error:
        try:
            value: Json = json.loads(body)
        except ValueError:
            return _NO_JSON
        if not isinstance(value, Mapping):
            return _NO_JSON
        headers = {name.lower(): text for name, text in self.headers.items()}
        try:
            return route.dialect.parse(
                Received(urlsplit(self.path).path, number, headers, value, model, route.stream),
            )
        except BadRequest as error:
            return Error(400, message=str(error))

    def _body(self) -> bytes | None:
        """The request's body; None if it is too long or of no known length, and then the connection ends."""
        if "chunked" in self.headers.get("transfer-encoding", ""):
            return self._chunks()
        length = self.headers.get("content-length", "0")
        if length.isascii() and length.isdigit() and int(length) <= BODY_BYTES_MAX:
            return self.rfile.read(int(length))
        self.close_connection = True
        return None

    def _chunks(self) -> bytes | None:
        body = b""
        while size := int(self.rfile.readline(100).split(b";")[0] or b"0", 16):
            body += self.rfile.read(min(size, BODY_BYTES_MAX) + 2)[:-2]
            if len(body) > BODY_BYTES_MAX:
                self.close_connection = True
                return None
        self.rfile.readline(100)
        return body

    def _line(self) -> HttpLine:
        return HttpLine(self._socket, self.provider.closing)


def _route(path: str) -> tuple[_Route | None, re.Match[str] | None]:
    for route in _ROUTES:
        if match := route.pattern.fullmatch(path):
            return route, match
    return None, None


def _fail(line: HttpLine, dialect: Dialect, error: Error, number: int = 0) -> None:
    """An error of the provider itself, which a retry would not mend."""
    headers, body = dialect.error(error, number)
    line.whole(error.status, {**_JSON, "x-should-retry": "false", **headers}, body)
