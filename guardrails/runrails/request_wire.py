"""
Requests as they go over the wire of OpenAI and Anthropic, made into what bounds them. What cannot be bounded is named.

Text is measured as the JSON that is sent: never shorter than the text itself. Only the size matters, so what this makes
is never decoded again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, cast

from runrails.calls import Prompt
from runrails.pictures import picture
from runrails.tiers import premium
from runrails.values import named, placed
from runrails.wirecount import Count, Measured

__all__ = [
    "WireCall", "answer_texts", "anthropic_messages", "may_reason", "mode_of", "openai_chat", "openai_embeddings",
    "openai_responses", "picture",
]  # fmt: skip

Body = Mapping[str, object]
"""A decoded JSON object."""

CLIENT_TOOL_TOKENS_MAX = 1_024
"""The hidden prompt of a tool that the provider describes and the client executes; 735 documented."""
_DEPTH_MAX = 8
_TEXTS = frozenset(
    {"text", "input_text", "output_text", "refusal", "thinking", "redacted_thinking", "tool_use", "function_call",
     "function_call_output", "custom_tool_call", "custom_tool_call_output", "search_result", "summary_text",
     "reasoning_text"}
)  # fmt: skip
"""Content whose JSON is what is sent, or more."""
_TYPE = re.compile(r"[a-z0-9_-]{1,40}")
_PLAIN_ID = re.compile(r"[A-Za-z0-9_-]+")
"""What JSON writes as it is."""
_CALL_KEYS = frozenset({"id", "type", "function", "index"})
_PLAIN_TEXTS = frozenset({"text", "input_text", "output_text"})
"""Content that is a text and little else."""
_IMAGES = frozenset({"image", "image_url", "input_image"})
_NESTED = frozenset({"tool_result", "message", "function_call_output", "custom_tool_call_output"})
"""What may have content blocks of its own, under `content` or `output`."""
_CLIENT_TOOLS = re.compile(r"(bash|text_editor|computer|memory)_\d+")
_REASONERS = re.compile(
    r"(^|[/.:])(o[1-9]\b|gpt-(?!3|4)|gemini-(2\.5|[3-9])|grok-[3-9]|magistral|deepseek-r|fake-reasoner)"
    r"|reason|think|\br1\b|qwq"
)
_SCHEMAS = ("response_format", "text", "output_config", "output_format")


_prompt = placed(Prompt, "texts", "messages")


class WireCall(NamedTuple):
    """What a request says about the call."""

    model: str
    prompt: Prompt
    max_tokens: int | None
    """The cap in the request; None if there is none."""
    n: int
    """How many answers are asked for."""
    cache_write: bool
    reasoning: bool
    """Whether the model may write reasoning that its answer does not show."""


def _any_chat(body: Body, measured: Measured | None = None) -> WireCall:
    count = Count()
    _count_messages(body.get("messages"), count, measured)
    if not _PLAIN_KEYS.issuperset(body):
        _add_tools(body, count)
        for key in _DEARER:
            if body.get(key) is not None:  # an empty object asks for a search as well
                count.unbounded = key
    return _call(body, count, ("max_completion_tokens", "max_tokens"), reasoning=bool(body.get("reasoning_effort")))


def _count_messages(given: object, count: Count, measured: Measured | None) -> None:
    if measured is None:
        _add_messages(given, count)
    else:
        count.add(measured.measure(tuple(_items(given)), _add_messages))


def openai_chat(body: Body, measured: Measured | None = None) -> WireCall:
    """A request to `/chat/completions`, of which some may be `measured` already."""
    if measured is not None:
        return _any_chat(body, measured)
    # By far the most requests, in one go: messages of text and a role, and nothing that needs a closer look.
    given, model = body.get("messages"), body.get("model")
    if type(given) is not list or not isinstance(model, str) or not model or not _PLAIN_KEYS.issuperset(body):
        return _any_chat(body)
    texts: list[str] = []
    messages: list[object] = given  # pyright: ignore[reportUnknownVariableType] -- a cast is one call more
    for message in messages:
        if not isinstance(message, dict):
            return _any_chat(body)
        said: dict[str, object] = message  # pyright: ignore[reportUnknownVariableType] -- a cast is one call more
        content = said.get("content")
        if type(content) is not str or len(said) != 2 or "role" not in said:
            return _any_chat(body)
        texts.append(content)
    cap, answers = body.get("max_completion_tokens"), body.get("n")
    if cap is None:
        cap = body.get("max_tokens")
    reasons = _known.get(model)
    if reasons is None:
        reasons = may_reason(model)
    prompt = _prompt(tuple(texts), len(texts))
    reasons = reasons or bool(body.get("reasoning_effort"))
    return named(WireCall, (model, prompt, cap, 1 if answers is None else answers, False, reasons))


def openai_responses(body: Body, measured: Measured | None = None) -> WireCall:
    """A request to `/responses`, of which some may be `measured` already."""
    count = Count()
    _add_text(body.get("instructions"), count)
    given = body.get("input")
    if isinstance(given, str):
        count.texts.append(given)
        count.messages += 1
    elif measured is None:
        _add_input(given, count)
    else:
        count.add(measured.measure(tuple(_items(given)), _add_input))
    _add_tools(body, count)
    for key in ("previous_response_id", "conversation", "prompt"):
        if body.get(key):
            count.stored = key
    return _call(body, count, ("max_output_tokens",), reasoning=bool(body.get("reasoning")))


def openai_embeddings(body: Body) -> WireCall:
    """A request to `/embeddings`: text, texts, or tokens."""
    count = Count()
    given = body.get("input")
    for item in [given] if isinstance(given, str) else _items(given):
        if isinstance(item, str):
            count.texts.append(item)
            count.messages += 1
        elif isinstance(item, int):
            count.texts.append("x")  # a token
        elif isinstance(item, list):
            count.texts.append("x" * len(cast("list[object]", item)))
            count.messages += 1
        else:
            count.unbounded = type(item).__name__
    return _call(body, count, (), reasoning=False)


def anthropic_messages(body: Body, measured: Measured | None = None) -> WireCall:
    """A request to `/v1/messages`, of which some may be `measured` already."""
    count = Count()
    system = body.get("system")
    if isinstance(system, str):
        count.texts.append(system)
    else:
        for block in _items(system):
            _add_block(block, count)
    _count_messages(body.get("messages"), count, measured)
    _add_tools(body, count)
    for key in ("mcp_servers", "container", "fallbacks", "compaction"):
        if body.get(key):
            count.unbounded = key
    if body.get("thread"):
        count.stored = "thread"
    thinking = body.get("thinking")
    thinks = isinstance(thinking, Mapping) and cast("Body", thinking).get("type") != "disabled"
    call = _call(body, count, ("max_tokens",), reasoning=thinks)
    return call._replace(cache_write=count.cache or "cache_control" in body)


def may_reason(model: str) -> bool:
    """Whether models of that name write reasoning that their answers do not show."""
    known = _known.get(model)
    if known is None:
        known = _REASONERS.search(model.lower()) is not None
        if len(_known) < 1_024:
            _known[model] = known
    return known


_known: dict[str, bool] = {}


_PLAIN_KEYS = frozenset({"model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed",
                         "stop", "stream", "stream_options", "n", "user", "store", "reasoning_effort"})  # fmt: skip
"""Beside these a chat request may hold something else that costs tokens."""
_DEARER = ("prediction", "web_search_options", "audio", "search_parameters", "enable_search", "plugins", "models")
"""Searches, and other models than the named one, by the names that OpenAI, xAI, Qwen and OpenRouter have for them."""


def _call(body: Body, count: Count, caps: Sequence[str], *, reasoning: bool) -> WireCall:
    if "service_tier" in body or "speed" in body or "inference_geo" in body:
        count.unbounded = premium(body) or count.unbounded
    if "context_management" in body and "compact" in _json(body["context_management"]):
        count.unbounded = "compaction"  # a call of its own, of which the request's cap says nothing
    name = body.get("model")
    model = name if isinstance(name, str) and name else "unknown"
    # A nonsensical cap or number of answers is passed on: the bound refuses it by name.
    cap: object = None
    for key in caps:
        cap = body.get(key)
        if cap is not None:
            break
    answers = body.get("n")
    known = _known.get(model)
    thinks = reasoning or (may_reason(model) if known is None else known)
    return named(WireCall, (model, count.prompt(), cap, 1 if answers is None else answers, False, thinks))


def _add_messages(given: object, count: Count) -> None:
    for message in _items(given):
        looked_at: object = message
        said = cast("dict[str, object]", looked_at) if type(looked_at) is dict else {}
        content = said.get("content")
        if type(content) is not str or "role" not in said:
            _add_message(message, count)
        elif len(said) == 2:
            count.messages += 1  # Most are text and a role, which need no closer look.
            count.texts.append(content)
        elif len(said) != 3 or not _add_third(said, content, count):
            _add_message(message, count)


def _add_third(said: dict[str, object], content: str, count: Count) -> bool:
    """A message with one member more: nearly all others of an agent. False, and nothing done, if it is another one."""
    called, calls = said.get("tool_call_id"), said.get("tool_calls")
    if type(called) is str and _PLAIN_ID.fullmatch(called):
        count.messages += 1
        if content:
            count.texts.append(content)
        count.texts.append(f'{{"tool_call_id":"{called}"}}')
        return True
    if type(calls) is not list or not calls:
        return False
    before, messages = len(count.texts), count.messages
    count.messages += 1
    if content:
        count.texts.append(content)
    for call in calls:  # pyright: ignore[reportUnknownVariableType] -- a cast is one call more
        if not _add_call(call, count):  # pyright: ignore[reportUnknownArgumentType] -- see above
            del count.texts[before:]
            count.messages = messages
            return False
    return True


def _add_message(given: object, count: Count) -> None:
    count.messages += 1
    message = _made(given)
    if not isinstance(message, Mapping):
        count.unbounded = type(message).__name__
        return
    said = cast("Body", message)
    content = said.get("content")
    if isinstance(content, str):
        if content or len(said) == 2:
            count.texts.append(content)
    elif content is not None:
        for block in _items(content):
            _add_block(block, count)
    if said.get("audio") is not None:
        count.unbounded = "audio"
    if len(said) > 2 or "content" not in said:
        more = {key: value for key, value in said.items() if value and key not in ("role", "content")}
        if "tool_calls" in more and all(_add_call(call, count) for call in _items(more["tool_calls"])):
            del more["tool_calls"]
        if more:
            count.texts.append(_json(more))


def _add_call(given: object, count: Count) -> bool:
    """A tool call as its name, id and arguments; False if it has anything else, and is better measured whole."""
    if type(given) is not dict and not isinstance(given, Mapping):
        return False
    call = cast("Body", given)
    function = call.get("function")
    if type(function) is not dict and not isinstance(function, Mapping):
        return False
    asked = cast("Body", function)
    name, call_id, arguments = asked.get("name"), call.get("id"), asked.get("arguments")
    if len(asked) != 2 or not _CALL_KEYS.issuperset(call):
        return False
    if isinstance(name, str) and isinstance(call_id, str) and isinstance(arguments, str):
        _add_parts((name, call_id, arguments), count)
        return True
    return False


def _add_parts(call: tuple[str, str, str], count: Count) -> None:
    count.messages += 1  # It is framed as a message is.
    count.texts += call


def answer_texts(content: object, calls: Iterable[tuple[str, str, object]] = ()) -> tuple[str, ...] | None:
    """
    The texts of an answer as the next request sends them back: what it says, then each call's name, id and arguments.

    None if it says something that is no plain text.
    """
    if content is not None and not isinstance(content, str):
        return None
    texts = [content] if content else []
    for name, call_id, arguments in calls:
        texts += (name, call_id, arguments if isinstance(arguments, str) else _json(arguments))
    return tuple(texts) or None


def _add_input(given: object, count: Count) -> None:
    for item in _items(given):
        _add_item(item, count)


def _add_item(given: object, count: Count) -> None:
    """One item of the input of a response."""
    item = _made(given)
    if not isinstance(item, Mapping):
        count.unbounded = type(item).__name__
        return
    said = cast("Body", item)
    kind = said.get("type")
    if kind is None or kind == "message":
        _add_message(said, count)
    elif kind == "reasoning":
        count.texts.append(_json(said))
        if not said.get("encrypted_content"):
            count.stored = "earlier reasoning"
    elif kind == "item_reference":
        count.stored = "an earlier item"
    else:
        count.messages += 1
        _add_block(said, count)


def _add_block(given: object, count: Count, depth: int = 0) -> None:
    block = _made(given)
    if isinstance(block, str):
        count.texts.append(block)
        return
    if not isinstance(block, Mapping) or depth > _DEPTH_MAX:
        count.unbounded = "nested content" if isinstance(block, Mapping) else type(block).__name__
        return
    known = cast("Body", block)
    given_kind = known.get("type")
    kind = given_kind if isinstance(given_kind, str) else ""
    if "cache_control" in known:
        # It moves from one message to another, and is no part of what the model reads.
        count.cache = True
        known = {key: value for key, value in known.items() if key != "cache_control"}
    nested = known.get("content", known.get("output")) if kind in _NESTED else None
    if isinstance(nested, list):
        count.texts.append(_json({key: value for key, value in known.items() if key not in ("content", "output")}))
        for inner in cast("list[object]", nested):
            _add_block(inner, count, depth + 1)
    elif kind in _TEXTS or kind in _NESTED:
        _add_said(kind, known, count)
    elif kind in _IMAGES:
        count.images += 1
        count.pictures.append(picture(known))
    elif kind == "document" and _is_plain(known):
        count.texts.append(_json(known))
    else:
        count.unbounded = _shown(kind)


def _add_said(kind: object, block: Body, count: Count) -> None:
    """A block of text. The plain kinds are measured as what they say, so that an answer is known again."""
    text, name, call_id = block.get("text"), block.get("name"), block.get("id")
    if kind in _PLAIN_TEXTS and isinstance(text, str):
        measured: tuple[str, ...] = ("type", "text")
        count.texts.append(text)
    elif kind == "tool_use" and isinstance(name, str) and isinstance(call_id, str):
        measured = ("type", "name", "id", "input")
        _add_parts((name, call_id, _json(block.get("input"))), count)
    else:
        count.texts.append(_json(block))
        return
    if len(block) > len(measured):
        rest = {key: value for key, value in block.items() if value and key not in measured}
        if rest:
            count.texts.append(_json(rest))


def _shown(kind: object) -> str:
    """A type as an error may name it: not whatever somebody wrote there."""
    return kind if isinstance(kind, str) and _TYPE.fullmatch(kind) else "untyped content"


def mode_of(body: Body) -> str:
    """What of a request decides the hidden prompt beside the tools."""
    return "".join(_json(part) for key in ("tool_choice", "thinking") if (part := body.get(key)))


def _is_plain(document: Body) -> bool:
    source = document.get("source")
    return isinstance(source, Mapping) and cast("Body", source).get("type") == "text"


def _add_tools(body: Body, count: Count) -> None:
    if "tool_choice" in body or "thinking" in body:
        count.mode = mode_of(body)
    for tool in (*_items(body.get("tools")), *_items(body.get("functions"))):
        group = _group_of(tool)
        if group is None:
            _add_tool(tool, count)
        else:
            _add_group(group, count)
    for key in _SCHEMAS:
        schema = body.get(key)
        if schema:
            count.tools.append(_json(schema))


def _group_of(tool: object) -> Body | None:
    known = cast("Body", tool) if isinstance(tool, Mapping) else None
    return known if known is not None and known.get("type") == "namespace" else None


def _add_group(group: Body, count: Count) -> None:
    """Tools under a common name, as `openai.types.responses.NamespaceTool`; there are no groups in groups."""
    count.tools.append(_json({key: value for key, value in group.items() if key != "tools"}))
    for tool in _items(group.get("tools")):
        _add_tool(tool, count)


def _add_tool(tool: object, count: Count) -> None:
    text = _json(tool)
    kind = cast("Body", tool).get("type") if isinstance(tool, Mapping) else None
    if kind is not None and kind not in ("function", "custom"):
        if isinstance(kind, str) and _CLIENT_TOOLS.fullmatch(kind):
            text += "x" * CLIENT_TOOL_TOKENS_MAX
        else:
            count.unbounded = f"the tool {_shown(kind)}"
    if '"cache_control"' in text:
        count.cache = True
    count.tools.append(text)


def _add_text(text: object, count: Count) -> None:
    if isinstance(text, str):
        count.texts.append(text)
        count.messages += 1
    elif text is not None:
        count.unbounded = type(text).__name__


def _items(value: object) -> Iterable[object]:
    if value is None:
        return ()
    if isinstance(value, list | tuple):
        return cast("Sequence[object]", value)
    return (value,)


def _made(value: object) -> object:
    """The SDKs take their own objects for messages and blocks, and send what these dump."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return cast("Body", value)
    dump: object = getattr(value, "model_dump", None)
    return dump() if callable(dump) and not isinstance(value, type) else value


def _json(value: object) -> str:
    return _encode(value)


def _plain(value: object) -> object:
    made = _made(value)
    # What JSON cannot express is measured by its repr: for the bound only the size matters.
    return cast("Body", made) if isinstance(made, Mapping) else repr(value)


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=_plain).encode
"""Made once: `json.dumps` makes one for each of a conversation's many parts."""
