"""
What bounds a request to Converse, and to InvokeModel with Amazon's own Nova models, which speak nearly the same.

Source: Bedrock API reference, Converse. A kind of content that is not known here is named and refused, never guessed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import cast

from runrails.calls import Prompt
from runrails.request_wire import WireCall, anthropic_messages, may_reason, picture

__all__ = ["converse", "list_of", "map_of", "measured"]

Body = Mapping[str, object]

_DEPTH_MAX = 4
_FIELDS = frozenset(
    {"additionalModelRequestFields", "additionalModelResponseFieldPaths", "guardrailConfig", "inferenceConfig",
     "messages", "outputConfig", "performanceConfig", "promptVariables", "reasoningConfig", "requestMetadata",
     "schemaVersion", "serviceTier", "system", "toolConfig"}
)  # fmt: skip
"""What a request may have; whether a field that comes later costs anything is not known."""
_WHOLE = frozenset({"citationsContent", "json", "reasoningContent", "searchResult", "toolUse"})
"""Blocks whose JSON is what is sent, or more."""
_REASONING = ("reasoning", "reasoningConfig", "reasoning_config", "reasoning_effort", "thinking")
_SILENT = frozenset(_REASONING)
_NOTHING: Body = {}
_CAPS = ("maxTokens", "max_tokens", "max_new_tokens")
"""Names of the cap in `inferenceConfig`; the last one is an older name that Nova takes."""
_MULTIPLIERS = frozenset(
    {"best_of", "maxTokenCount", "maxTokens", "max_completion_tokens", "max_gen_len", "max_new_tokens",
     "max_output_tokens", "max_tokens", "max_tokens_to_sample", "n", "numResults", "num_generations",
     "num_return_sequences"}
)  # fmt: skip
"""Fields of the models themselves that would set another cap beside `inferenceConfig`, or ask for several answers."""


class _Count:
    __slots__ = ("cache", "images", "messages", "pictures", "texts", "tools", "unbounded")

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.tools: list[str] = []
        self.messages = 0
        self.images = 0
        self.pictures: list[int] = []
        self.cache = False
        self.unbounded: str | None = None

    def add(self, given: object, depth: int = 0) -> None:
        """Take in a content block, which has one key: its kind."""
        block = map_of(given)
        if len(block) == 1 and depth == 0:
            text = block.get("text")
            if type(text) is str:  # Most are text, which need no closer look.
                self.texts.append(text)
                return
        if not block or depth > _DEPTH_MAX:
            self.unbounded = "nested content" if block else "untyped content"
        for kind, value in block.items():
            if kind == "text":
                self.texts.append(value if isinstance(value, str) else measured(value))
            elif kind in _WHOLE or (kind == "document" and _is_plain(map_of(value))):
                self.texts.append(measured(value))
            elif kind == "image":
                self.images += 1
                self.pictures.append(picture(value))
            elif kind == "cachePoint":
                self.cache = True
            elif kind == "guardContent":
                self.add(value, depth + 1)
            elif kind == "toolResult":
                self._add_result(map_of(value), depth)
            else:
                self.unbounded = kind

    def add_tools(self, config: Body) -> None:
        """Take in the tools; those that the provider executes cost more than tokens."""
        for given in list_of(config.get("tools")):
            for kind, value in map_of(given).items():
                if kind == "toolSpec":
                    self.tools.append(measured(value))
                elif kind == "cachePoint":
                    self.cache = True
                else:
                    self.unbounded = f"the tool {map_of(value).get('name', kind)}"
        if config.get("toolChoice"):
            self.texts.append(measured(config["toolChoice"]))

    def add_fields(self, fields: Body, model: str) -> None:
        """Take in the model's own fields: tools of Anthropic's, and whatever else there is as text."""
        if not fields:
            return
        nested = {name for key in ("inferenceConfig", "textGenerationConfig") for name in map_of(fields.get(key))}
        second = sorted(_MULTIPLIERS & (fields.keys() | nested))
        own = anthropic_messages({**fields, "model": model})
        self.unbounded = f"{second[0]} beside inferenceConfig" if second else own.prompt.unbounded or self.unbounded
        self.tools.extend(own.prompt.tools)
        self.texts.append(measured(fields))
        self.cache = self.cache or own.cache_write

    def _add_result(self, result: Body, depth: int) -> None:
        self.texts.append(measured({name: value for name, value in result.items() if name != "content"}))
        for inner in list_of(result.get("content")):
            self.add(inner, depth + 1)


def converse(body: Body, *, model: str) -> WireCall:
    """A request in Converse's form."""
    count = _Count()
    # First what is the same in every request, so that a longer conversation begins as the shorter one did.
    if "toolConfig" in body:
        count.add_tools(map_of(body["toolConfig"]))
    fields = map_of(body.get("additionalModelRequestFields"))
    if fields:
        count.add_fields(fields, model)
    system = list_of(body.get("system"))
    count.messages += bool(system)
    for block in system:
        count.add(block)
    for message in list_of(body.get("messages")):
        count.messages += 1
        for block in list_of(map_of(message).get("content")):
            count.add(block)
    output = map_of(body.get("outputConfig"))
    if output:
        count.tools.append(measured(output))
    config = map_of(body.get("inferenceConfig"))
    caps = [config[name] for name in _CAPS if config.get(name) is not None]
    if len(caps) > 1:
        count.unbounded = "two caps on the output"
    if not _FIELDS.issuperset(body):
        count.unbounded = f"the field {min(set(body) - _FIELDS)}"
    asked = "effort" in output
    if fields or not _SILENT.isdisjoint(body):
        asked = asked or any(_is_on(place.get(name)) for place in (fields, body) for name in _REASONING)
    return WireCall(
        model=model,
        prompt=Prompt(
            texts=tuple(count.texts), messages=count.messages, tools=tuple(count.tools), images=count.images,
            unbounded=count.unbounded, pictures=tuple(count.pictures),
        ),
        max_tokens=cast("int | None", caps[0]) if caps else None,  # the bound refuses nonsense by name
        n=1,
        cache_write=count.cache,
        reasoning=asked or may_reason(model),
    )  # fmt: skip


def measured(value: object) -> str:
    """A text no shorter than what is sent of this; only its size matters."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def map_of(value: object) -> Body:
    """The value if it is an object, else an empty one."""
    # Nearly all are plain ones; the question about any mapping takes longer.
    return cast("Body", value) if type(value) is dict or isinstance(value, Mapping) else _NOTHING


def list_of(value: object) -> Sequence[object]:
    """The value if it is a list; else one of just that, so that it is looked at all the same."""
    if value is None:
        return ()
    return cast("list[object]", value) if isinstance(value, list) else (value,)


def _is_plain(document: Body) -> bool:
    """Whether it brings its text; what a file becomes only the provider knows."""
    source = map_of(document.get("source"))
    blocks = list_of(source.get("content"))
    return set(source) <= {"text", "content"} and all(set(map_of(block)) == {"text"} for block in blocks)


def _is_on(value: object) -> bool:
    return bool(value) and map_of(value).get("type") != "disabled"
