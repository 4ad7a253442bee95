"""
One attempt at a model on Bedrock: a request of OpenAI's or Anthropic's is sent as Converse, and the answer is handed on
in the words it was asked in, so that whoever reads along needs to know nothing of Bedrock.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, cast

from runrails_gateway.bedrock.asking import Failed, Frames, betas_of, converse_path
from runrails_gateway.bedrock.parts import compact, map_of
from runrails_gateway.bedrock.refusing import KEY_REFUSED, STALE, refusal_of, told_of
from runrails_gateway.bedrock.signing import Credentials, NoCredentials, session_of_environment, signed
from runrails_gateway.bedrock.wording import WORDINGS, About
from runrails_gateway.upstream.sending import AnswerTooLarge, NoAnswer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runrails.guard import Guard
    from runrails_gateway.bedrock.parts import Body, Json
    from runrails_gateway.bedrock.signing import Session
    from runrails_gateway.bedrock.wording import Wording
    from runrails_gateway.config import Upstream
    from runrails_gateway.upstream.sending import Answer, Sender

__all__ = ["BedrockSender"]

ERROR_BYTES_MAX = 65_536
ANSWER_BYTES_MAX = 67_108_864
_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
_JSON = "application/json"
_GARBLED = (ValueError, TypeError, RecursionError)
"""What reading comes to where an answer is not as Bedrock documents it: a list where a name is expected."""
_EVENTS = "application/vnd.amazon.eventstream"


class BedrockSender:
    """
    For upstreams of dialect ``bedrock``. Make it where its event loop runs.

    Args:
        http: What sends the bytes; closed with this.
        guard: For its clocks, ids and events.
        find: Makes a session of botocore; by default one that finds what any AWS SDK finds.
    """

    def __init__(self, http: Sender, guard: Guard, find: Callable[[], Session] | None = None) -> None:
        self._http = http
        self._guard = guard
        self._credentials = Credentials(find or session_of_environment, guard.monotonic)

    async def send(self, upstream: Upstream, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """See `Sender.send`. Of the caller's headers only betas that are known there go further, in the request."""
        wording = WORDINGS[path.partition("?")[0]]
        asked = cast("Body", json.loads(body))
        model, stream = str(asked["model"]), asked.get("stream") is True
        there, data = converse_path(model, stream=stream), compact(_with_betas(wording.request(asked), headers, model))
        try:
            proven = await self._proven(upstream, there, data, key=headers.get("Authorization"))
        except NoCredentials as exc:
            self._guard.emit("aws_credentials_missing", "error", upstream=upstream.name, error=exc.kind)
            return _Given(KEY_REFUSED, {}, b"{}")
        agent = headers.get("User-Agent")
        if agent is not None:
            proven["User-Agent"] = agent
        proven |= {"Accept": _EVENTS if stream else _JSON, "Accept-Encoding": "identity"}  # not signed
        answer = await self._http.send(upstream, there, proven, data)
        if answer.status != 200:
            return await self._refused(upstream, wording, answer)
        about = About(model, self._id_of(answer), self._guard.clock() // 1_000)
        return _Streamed(answer, wording, about) if stream else _Whole(answer, wording, about)

    async def close(self) -> None:
        """See `Sender.close`."""
        await self._http.close()

    async def _proven(self, upstream: Upstream, path: str, body: bytes, *, key: str | None) -> dict[str, str]:
        """Headers with what proves who asks: an operator's API key of Bedrock, or a signature."""
        if key is not None:
            return {"Content-Type": _JSON, "Authorization": key}
        frozen = await self._credentials.frozen()
        return signed(
            frozen, region=upstream.region or "", url=upstream.base_url + path, headers={"Content-Type": _JSON},
            body=body, now_ms=self._guard.clock(),
        )  # fmt: skip

    async def _refused(self, upstream: Upstream, wording: Wording, answer: Answer) -> Answer:
        try:
            raw = await answer.whole(ERROR_BYTES_MAX)
        except (NoAnswer, AnswerTooLarge):
            raw = b""
        answer.close()
        name, told = refusal_of(answer.status, answer.headers, raw, request_id=self._id_of(answer))
        if name in STALE:
            self._credentials.refused()
        if told.status == KEY_REFUSED:
            self._guard.emit("aws_credentials_refused", "error", upstream=upstream.name, error=name)
        return _Given(told.status, dict(told.headers), wording.dialect.refusal(told))

    def _id_of(self, answer: Answer) -> str:
        theirs = answer.headers.get("x-amzn-requestid", "")
        return theirs if _ID.fullmatch(theirs) else self._guard.new_id()


def _with_betas(request: Json, headers: Mapping[str, str], model: str) -> Json:
    betas = betas_of(headers.get("anthropic-beta"), model)
    if not betas:
        return request
    more = map_of(request.get("additionalModelRequestFields"))
    return {**request, "additionalModelRequestFields": {**more, "anthropic_beta": betas}}


class _Given:
    """An answer that is there."""

    __slots__ = ("_body", "headers", "status")

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = {"content-type": _JSON, **headers}
        self._body = body

    async def piece(self) -> bytes:
        body, self._body = self._body, b""
        return body

    async def whole(self, bytes_max: int) -> bytes:
        del bytes_max
        return await self.piece()

    def close(self) -> None:
        """There is nothing to let go of."""


class _Whole:
    """An answer of Converse as one of the dialect's."""

    __slots__ = ("_about", "_answer", "_over", "_wording", "headers", "status")

    def __init__(self, answer: Answer, wording: Wording, about: About) -> None:
        self._answer = answer
        self._wording = wording
        self._about = about
        self._over = False
        self.status = answer.status
        self.headers = {"content-type": _JSON, "x-request-id": about.id}

    async def piece(self) -> bytes:
        return b"" if self._over else await self.whole(ANSWER_BYTES_MAX)

    async def whole(self, bytes_max: int) -> bytes:
        self._over = True
        raw = await self._answer.whole(bytes_max)
        try:
            told: object = json.loads(raw)
            if isinstance(told, dict):
                return compact(self._wording.answer(cast("Body", told), self._about))
        except _GARBLED:
            pass
        raise NoAnswer(sent=True, timed_out=False)

    def close(self) -> None:
        self._answer.close()


class _Streamed:
    """An event stream of ConverseStream as server-sent events of the dialect. Nothing is kept but half a frame."""

    __slots__ = ("_answer", "_broken", "_dialect", "_frames", "_id", "_retold", "_said_all", "_stopped", "headers",
                 "status")  # fmt: skip

    def __init__(self, answer: Answer, wording: Wording, about: About) -> None:
        self._answer = answer
        self._dialect = wording.dialect
        self._id = about.id
        self._retold = wording.stream(about)
        self._frames = Frames()
        self._stopped = self._said_all = self._broken = False
        self.status = answer.status
        self.headers = {"content-type": "text/event-stream; charset=utf-8", "x-request-id": about.id}

    async def piece(self) -> bytes:
        while not (self._said_all or self._broken):
            data = await self._answer.piece()
            said = self._retell(data) if data else self._end()
            if said:
                return said
        if self._broken:
            raise NoAnswer(sent=True, timed_out=False)
        await self._drained()
        return b""

    async def whole(self, bytes_max: int) -> bytes:
        pieces: list[bytes] = []
        while data := await self.piece():
            pieces.append(data)
            if sum(map(len, pieces)) > bytes_max:
                self.close()
                raise AnswerTooLarge
        return b"".join(pieces)

    def close(self) -> None:
        self._answer.close()

    def _retell(self, data: bytes) -> bytes:
        said: list[bytes] = []
        try:
            for kind, told in self._frames.feed(data):
                said.append(self._retold.event(kind, told))
                self._stopped = self._stopped or kind == "messageStop"
                if kind == "metadata":  # The last one: whoever reads along settles now, not when the connection ends.
                    said.append(self._end())
                    break
        except Failed as exc:
            self._said_all = True
            said.append(self._dialect.event(told_of(exc.kind, request_id=self._id)))
        except _GARBLED:
            self._broken = True
        return b"".join(said)

    def _end(self) -> bytes:
        """The end of what comes; of an answer that had not come to its own, its caller must be told so."""
        if not self._stopped:
            self._broken = True
            return b""
        self._said_all = True
        return self._retold.end()

    async def _drained(self) -> None:
        """What may still come says nothing, but a connection that was read to its end can be used again."""
        try:
            while await self._answer.piece():
                pass
        except NoAnswer:
            pass
