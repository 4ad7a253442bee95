"""
The conversation that a request brings along, as turns: who speaks, a digest of what is said, tool calls and results.

A history is read in one cheap pass that makes digests; calls and results are read only of the turns that somebody asks
for, which are the new ones. Pure, and lenient: what is malformed is the provider's to refuse.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias, cast

from runrails.calls import ToolCall, ToolOutcome
from runrails.toolwire import chat_asked, function_asked, function_call, result_of
from runrails_gateway.canonical import answer_digest, content_digest, remembered, said_digest, spelled, text_of
from runrails_gateway.growing import Grown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from runrails.toolwire import Asked
    from runrails_gateway.growing import Memo

__all__ = [
    "AnswerMark", "History", "Turn", "chat_history", "chat_mark", "history_of", "mark_of", "messages_history",
    "messages_mark", "response_mark", "responses_history", "stream_mark",
]  # fmt: skip

Body = Mapping[str, object]
Role = Literal["system", "user", "assistant", "tool"]
_Told = tuple[str, ToolOutcome]


class Turn(NamedTuple):
    """One turn of a conversation."""

    role: Role
    digest: bytes
    """16 bytes, equal for turns that say the same."""
    calls: tuple[ToolCall, ...] = ()
    """What an assistant's turn asks for, in order."""
    results: tuple[_Told, ...] = ()
    """Of a tool's turn: the id of the call each answers, and what came of it."""


class History:
    """The turns of a conversation. Immutable; the request's body must not change while it is in use."""

    __slots__ = ("_read", "answers", "digests", "looked", "noted", "results", "roles")

    def __init__(self, looked: _Looked, read: Callable[[_Unit], Turn], noted: _Noted | None = None) -> None:
        self.looked = looked
        _, self.roles, self.digests, self.results = looked
        self._read = read
        self.answers = self.roles.count("assistant")
        """How many answers of the model it holds."""
        self.noted = noted
        """Where to note what is found out about its beginning; None if the next request is read as a whole."""

    def __len__(self) -> int:
        return len(self.roles)

    def turn(self, place: int) -> Turn:
        """One of the turns."""
        return self._read(self.looked.units[place])

    def turns_from(self, place: int) -> Iterator[Turn]:
        """The turns from one on."""
        for unit in self.looked.units[place:]:
            yield self._read(unit)

    @property
    def turns(self) -> tuple[Turn, ...]:
        """All of them. Reading all takes its time; see `turns_from`."""
        return tuple(self.turns_from(0))


_Unit = tuple[Role, bytes, object]
"""A turn that was looked at: who speaks, its digest, and the part of the body it is read from."""


class _Looked(NamedTuple):
    """Turns that were looked at."""

    units: tuple[_Unit, ...] = ()
    roles: tuple[Role, ...] = ()
    digests: tuple[bytes, ...] = ()
    results: int = 0
    """How many results of tools; in Anthropic's form a turn holds several."""

    def and_then(self, units: Sequence[_Unit], results: int) -> _Looked:
        """The same, and more."""
        return _Looked(
            (*self.units, *units), (*self.roles, *[unit[0] for unit in units]),
            (*self.digests, *[unit[1] for unit in units]), self.results + results,
        )  # fmt: skip


_NOTHING = _Looked()
_Look: TypeAlias = "Callable[[Sequence[object], list[_Unit]], int]"
"""Makes units of items; how many results of tools are in them."""


class _Noted(NamedTuple):
    """The beginning of a conversation that the next request need not bring up again."""

    memo: Memo
    items: int
    turns: int


def _history(body: Body, member: str, look: _Look, read: Callable[[_Unit], Turn]) -> History:
    """Of a conversation whose beginning was looked at before, only what is new is."""
    given = body.get(member)
    items = cast("list[object]", given) if isinstance(given, list) else []
    units: list[_Unit] = []
    if type(body) is not Grown:
        results = look(items, units)
        return History(_NOTHING.and_then(units, results), read)
    memo = body.memo
    known, looked = memo.known("history", len(items), _Looked)
    if known < len(items):
        looked = looked.and_then(units, look(items[known:], units))
        memo.note("history", len(items), looked)
    return History(looked, read, _Noted(memo, len(items), len(looked.units)))


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerMark:
    """By what an answer of the model is known again when it comes back in a request."""

    digest: bytes
    """That of the turn that it will be."""
    calls: tuple[ToolCall, ...] = ()
    spelled: tuple[str, ...] = ()
    """The calls' arguments in one spelling, in the same order."""
    answer_id: str | None = None
    """By which a next request may name the answer instead of sending it (Responses API)."""
    items: int = 0
    """How many items the answer has, where it may be named."""

    @property
    def call_ids(self) -> tuple[str, ...]:
        """The ids of the tool calls that have one."""
        return tuple(call.id for call in self.calls if call.id is not None)


def _marked(text: str, calls: tuple[ToolCall, ...], *, answer_id: str | None = None, items: int = 0) -> AnswerMark:
    asked = [(call.id or "", call.name, spelled(call.args)) for call in calls]
    args = tuple([call[2] for call in asked])
    return AnswerMark(digest=said_digest(text, asked), calls=calls, spelled=args, answer_id=answer_id, items=items)


EMPTY = History(_NOTHING, lambda unit: Turn(unit[0], unit[1]))


def history_of(operation: str, body: Body) -> History:
    """The history in a request for an operation of `runrails.identity.OPERATIONS`; empty for those without any."""
    read = _HISTORIES.get(operation)
    return EMPTY if read is None else read(body)


def mark_of(operation: str, body: Body) -> AnswerMark | None:
    """The mark of a whole answer to such a request; None if it holds none."""
    read = _MARKS.get(operation)
    return None if read is None else read(body)


def stream_mark(operation: str, sse: bytes) -> AnswerMark | None:
    """The mark of an answer that came as server-sent events; None if they hold none."""
    from runrails_gateway.assembling import assembled

    body = assembled(operation, sse)
    return None if body is None else mark_of(operation, body)


# OpenAI's chat completions.


def chat_history(body: Body) -> History:
    """The history of a chat completion's request."""
    return _history(body, "messages", _look_at_chat, _chat_turn)


def _look_at_chat(items: Sequence[object], units: list[_Unit]) -> int:
    results = 0
    for message in _maps(items):
        role, content = message.get("role"), message.get("content")
        if role == "assistant":
            units.append(("assistant", _chat_digest(content, _chat_asked(message)), message))
        elif role in ("tool", "function"):  # no set: it may be anything, and a list has no hash
            units.append(("tool", content_digest("t", content, _text(message.get("tool_call_id"))), message))
            results += 1
        elif role in ("system", "developer"):
            units.append(("system", b"", message))
        else:
            units.append(("user", _said(content), message))
    return results


def chat_mark(body: Body) -> AnswerMark | None:
    """The mark of a chat completion; of several choices, of the first."""
    choice = next(_maps(body.get("choices")), None)
    message = None if choice is None else choice.get("message")
    if not isinstance(message, Mapping):
        return None
    answer = cast("Body", message)
    content, asked = answer.get("content"), _chat_asked(answer)
    mark = _marked(text_of(content), _called(asked))
    if asked:  # It comes back with what its results are for.
        remembered(b"c", (content, asked), lambda _answer: mark.digest)
    return mark


def _chat_digest(content: object, asked: list[Asked]) -> bytes:
    if type(content) is str and not asked:
        return answer_digest(content, ())
    return remembered(b"c", (content, asked), _answered)


def _answered(answer: tuple[object, list[Asked]]) -> bytes:
    content, asked = answer
    return answer_digest(text_of(content), asked)


def _chat_asked(message: Body) -> list[Asked]:
    given, legacy = message.get("tool_calls"), message.get("function_call")
    asked = [call for each in _maps(given) if (call := chat_asked(each)) is not None] if given else []
    if legacy is not None and isinstance(legacy, Mapping):
        call = function_asked(cast("Body", legacy), "")
        asked += () if call is None else (call,)
    return asked


def _called(asked: list[Asked]) -> tuple[ToolCall, ...]:
    return tuple([ToolCall(name=name, args=args, id=call_id or None) for call_id, name, args in asked])


def _chat_turn(unit: _Unit) -> Turn:
    role, digest, part = unit
    message = cast("Body", part)
    if role == "assistant":
        return Turn(role, digest, calls=_called(_chat_asked(message)))
    if role == "tool":
        # There is no flag for an error on this wire; some clients send one all the same.
        outcome = ToolOutcome(ok=message.get("status") != "error", result=result_of(message.get("content")))
        return Turn(role, digest, results=((_text(message.get("tool_call_id")), outcome),))
    return Turn(role, digest)


# Anthropic's messages.


def messages_history(body: Body) -> History:
    """The history of a message's request. Results of tools come in a user's message; what else is in it follows."""
    return _history(body, "messages", _look_at_messages, _message_turn)


def _look_at_messages(items: Sequence[object], units: list[_Unit]) -> int:
    told = 0
    for message in _maps(items):
        content = message.get("content")
        if message.get("role") == "assistant":
            digest = _message_digest(content) if type(content) is str else remembered(b"m", content, _message_digest)
            units.append(("assistant", digest, content))
            continue
        results = [block for block in _maps(content) if block.get("type") == "tool_result"]
        if not results:
            units.append(("user", _said(content), None))
            continue
        told += len(results)
        units.append(("tool", remembered(b"t", results, _results_digest), results))
        said = [part for part in cast("list[object]", content) if not _is_result(part)]
        if said:
            units.append(("user", _said(said), None))
    return told


def messages_mark(body: Body) -> AnswerMark | None:
    """The mark of a message."""
    content = body.get("content")
    if not isinstance(content, list):
        return None
    parts = cast("list[object]", content)
    return _marked(text_of(parts), _message_calls(parts))


def _message_digest(content: object) -> bytes:
    if isinstance(content, str):
        return answer_digest(content, ())
    asked = [
        (_text(block.get("id")), _text(block.get("name")), block.get("input"))
        for block in _maps(content)
        if block.get("type") == "tool_use"
    ]
    return answer_digest(text_of(content), asked)


def _message_calls(content: object) -> tuple[ToolCall, ...]:
    return tuple(
        ToolCall(name=_text(block.get("name")), args=block.get("input"), id=_text(block.get("id")) or None)
        for block in _maps(content)
        if block.get("type") == "tool_use"
    )


def _message_turn(unit: _Unit) -> Turn:
    role, digest, part = unit
    if role == "assistant":
        return Turn(role, digest, calls=_message_calls(part))
    if role == "tool":
        return Turn(role, digest, results=tuple(map(_message_result, cast("list[Body]", part))))
    return Turn(role, digest)


def _message_result(block: Body) -> _Told:
    ok = block.get("is_error") is not True
    return _text(block.get("tool_use_id")), ToolOutcome(ok=ok, result=result_of(block.get("content")))


def _is_result(part: object) -> bool:
    return isinstance(part, Mapping) and cast("Body", part).get("type") == "tool_result"


# OpenAI's responses.


def responses_history(body: Body) -> History:
    """The history of a response's request. What the model gave comes in items; those in a row are one answer."""
    given = body.get("input")
    if isinstance(given, str):
        return History(_NOTHING.and_then([("user", _said(given), None)], 0), _response_turn)
    items = cast("list[object]", given) if isinstance(given, list) else []
    memo = body.memo if type(body) is Grown else None
    known, looked = (0, _NOTHING) if memo is None else memo.known("history", len(items), _Looked)
    units: list[_Unit] = []
    answer: list[Body] = []
    results = sure = 0
    for place in range(known, len(items)):
        item = items[place]
        if not isinstance(item, Mapping):
            continue
        results += _look_at_item(cast("Body", item), units, answer)
        if not answer:
            known, sure = place + 1, len(units)
    noted: _Noted | None = None
    if memo is not None:
        # An answer at the end may go on in the next request, and is looked at again, with what stands in it.
        looked = looked.and_then(units[:sure], results)
        memo.note("history", known, looked)
        noted = _Noted(memo, known, len(looked.units))
        units, results = units[sure:], 0
    _end_answer(answer, units)
    return History(looked.and_then(units, results), _response_turn, noted)


def _look_at_item(item: Body, units: list[_Unit], answer: list[Body]) -> int:
    """One item of the input; `answer` has those of the answer that may not have ended yet."""
    kind, role = item.get("type"), item.get("role")
    if role in ("system", "developer"):
        units.append(("system", b"", None))
    elif role == "assistant" or (role is None and not _is_output(kind)):
        answer.append(item)
    else:
        _end_answer(answer, units)
        if role is not None:
            units.append(("user", _said(item.get("content")), None))
        else:
            units.append(("tool", content_digest("t", item.get("output"), _text(item.get("call_id"))), item))
            return 1
    return 0


def response_mark(body: Body) -> AnswerMark | None:
    """The mark of a response. One that the provider does not keep has no id to go on from."""
    output = body.get("output")
    if not isinstance(output, list):
        return None
    items = list(_maps(cast("list[object]", output)))
    answer_id = None if body.get("store") is False else _text(body.get("id")) or None
    return _marked(_items_text(items), _items_calls(items), answer_id=answer_id, items=len(items))


def _end_answer(answer: list[Body], units: list[_Unit]) -> None:
    if answer:
        items = answer.copy()
        answer.clear()
        units.append(("assistant", remembered(b"r", items, _items_digest), items))


def _is_output(kind: object) -> bool:
    return isinstance(kind, str) and (kind.endswith("_output") or kind == "mcp_approval_response")


def _items_digest(items: Sequence[Body]) -> bytes:
    asked = [(call.id or "", call.name, call.args) for call in _items_calls(items)]
    return answer_digest(_items_text(items), asked)


def _items_text(items: Sequence[Body]) -> str:
    said = [item for item in items if item.get("role") == "assistant" and _item_call(item) is None]
    return "".join([text_of(item.get("content")) for item in said])


def _items_calls(items: Sequence[Body]) -> tuple[ToolCall, ...]:
    return tuple([call for item in items if (call := _item_call(item)) is not None])


def _item_call(item: Body) -> ToolCall | None:
    """What the caller is asked to execute. What the provider executes itself has no `call_id`."""
    kind, call_id = item.get("type"), item.get("call_id")
    if not (isinstance(kind, str) and kind.endswith("_call") and isinstance(call_id, str)):
        return None
    if kind == "function_call":
        return function_call(item, call_id)
    if kind == "custom_tool_call":
        return ToolCall(name=_text(item.get("name")), args=item.get("input"), id=call_id)
    action = item.get("action", item.get("operation"))
    if isinstance(action, Mapping):  # The SDK fills it up with nulls.
        action = {key: value for key, value in cast("Body", action).items() if value is not None}
    return ToolCall(name=kind, args=action, id=call_id)


def _response_turn(unit: _Unit) -> Turn:
    role, digest, part = unit
    if role == "assistant":
        return Turn(role, digest, calls=_items_calls(cast("list[Body]", part)))
    if role == "tool":
        item = cast("Body", part)
        outcome = ToolOutcome(ok=item.get("status") != "failed", result=result_of(item.get("output")))
        return Turn(role, digest, results=((_text(item.get("call_id")), outcome),))
    return Turn(role, digest)


def _said(content: object) -> bytes:
    return _content(content) if type(content) is str else remembered(b"u", content, _content)


def _content(content: object) -> bytes:
    return content_digest("u", content)


def _results_digest(results: list[Body]) -> bytes:
    return content_digest("t", results)


def _maps(value: object) -> Iterator[Body]:
    """The objects in a list."""
    if isinstance(value, list):
        items: list[object] = value  # pyright: ignore[reportUnknownVariableType] -- a cast is one call more
        for item in items:
            if type(item) is dict or isinstance(item, Mapping):
                yield item  # pyright: ignore[reportUnknownVariableType] -- see above


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


_HISTORIES: Mapping[str, Callable[[Body], History]] = {
    "chat.complete": chat_history, "messages.create": messages_history, "responses.create": responses_history,
}  # fmt: skip
_MARKS: Mapping[str, Callable[[Body], AnswerMark | None]] = {
    "chat.complete": chat_mark, "messages.create": messages_mark, "responses.create": response_mark,
}  # fmt: skip
