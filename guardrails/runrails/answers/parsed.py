"""Usage reports as an SDK has parsed them: its objects hold what the wire had, and are read where they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from runrails.answers.reading import map_of, read_usage
from runrails.usage import Usage
from runrails.usage_wire import REPORT_TOKENS_MAX, from_openai_chat
from runrails.values import placed

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["chat_usage", "plain", "report_of"]

_DEPTH_MAX = 6
_PLAIN = frozenset({int, str, bool, type(None), list, dict})
_COUNTS = frozenset({int, type(None)})
_FIELDS = 5
"""How many the report of a chat completion has; one with others is looked at closely."""
_OF_PROMPT, _OF_COMPLETION = "prompt_tokens_details", "completion_tokens_details"
_usage = placed(Usage, "input_tokens", "output_tokens", checks=False)


def chat_usage(report: object) -> Usage | None:
    """The usage of a chat completion or of embeddings; None if none is reported, or one that cannot be true."""
    if type(report) is dict:
        return read_usage(from_openai_chat, report)  # pyright: ignore[reportUnknownArgumentType] -- a cast is one call more
    told: object = getattr(report, "__dict__", None)
    if type(told) is dict and len(told) == _FIELDS and not getattr(report, "__pydantic_extra__", None):  # pyright: ignore[reportUnknownArgumentType] -- a cast is one call more
        # By far the most reports: whole numbers of tokens in and out, and no parts of them.
        fields: dict[str, object] = told  # pyright: ignore[reportUnknownVariableType] -- see above
        entering, leaving = fields.get("prompt_tokens"), fields.get("completion_tokens")
        both, inside, made = fields.get("total_tokens"), fields.get(_OF_PROMPT, 0), fields.get(_OF_COMPLETION, 0)
        if (
            type(entering) is int and 0 <= entering <= REPORT_TOKENS_MAX
            and type(leaving) is int and 0 <= leaving <= REPORT_TOKENS_MAX
            and type(both) is int and 0 <= both <= REPORT_TOKENS_MAX
            and (inside is None or _is_nothing(inside)) and (made is None or _is_nothing(made))
        ):  # fmt: skip
            return _usage(entering, leaving)
    return read_usage(from_openai_chat, map_of(plain(report)))


def _is_nothing(part: object) -> bool:
    """Whether a parsed part of a report has counts alone, and all of them are zero or missing."""
    told: object = getattr(part, "__dict__", None)
    if type(told) is not dict or getattr(part, "__pydantic_extra__", None):
        return False
    counts: tuple[object, ...] = tuple(told.values())  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType] -- see above
    return not any(counts) and _COUNTS.issuperset(map(type, counts))


def report_of(body: Mapping[str, object]) -> Mapping[str, object]:
    """The usage report in an answer, of the wire or parsed, as the wire had it; empty if there is none."""
    return map_of(plain(body.get("usage")))


def plain(value: object, depth: int = 0) -> object:
    """A parsed object as the mapping it was made from. Quicker than a dump, which validates."""
    fields: object = getattr(value, "__dict__", None)
    if not isinstance(fields, dict) or depth > _DEPTH_MAX:
        return value
    made: dict[str, object] = fields  # pyright: ignore[reportUnknownVariableType] -- a cast is one call more
    extra: object = getattr(value, "__pydantic_extra__", None)
    if not extra and _PLAIN.issuperset(map(type, made.values())):
        return made  # It is only read, so the object's own will do.
    made = made.copy()
    for name, part in made.items():
        if type(part) not in _PLAIN:
            made[name] = plain(part, depth + 1)
    if extra:
        made.update(cast("dict[str, object]", extra))
    return made
