"""
What a provider adds to a request that names the answer it goes on from (`previous_response_id`), as a bound. Pure.

The provider bills all of it as input, and only it has it. But whoever passed on the named answer has seen what was
reported of it. What is added are the items that this answer's request had as input, then the items of the answer:

- The first were counted when that request was billed: they are in its reported input, with everything else that was
  in there and is not added any more (instructions, tools), so that input is no less than they are. Two things could
  be less then than now. *Reasoning* of answers before may have been left out then and put in now: so all of it that was
  ever reported is added once more. *Pictures* behind an address may be others by now: so each counts once more as the
  largest there can be.
- The second were counted as output, hidden reasoning included. As input each item is framed like a message, and text
  that is split anew may be split otherwise than it was written, which is what the margin is for.

That holds as long as one model is asked: another one has another tokenizer, and counts pictures otherwise. It does not
hold for an answer before which the provider was allowed to leave something out (`truncation`, `context_management`): it
may put that in again. There, and where the named answer, or one that it goes on from, was not seen here by the same
user or came without usage, nothing is said: the model's whole context is the bound.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, cast

from runrails.bounds import MESSAGE_TOKENS_MAX, image_tokens_max
from runrails.request_wire import openai_responses

if TYPE_CHECKING:
    from runrails.calls import ModelCall, ModelResult
    from runrails_gateway.dialects import Ask
    from runrails_gateway.dialects.base import Body

__all__ = ["Continued", "continued_of", "continuing", "kept_after"]

SLACK_TOKENS = 64
"""What a provider may add to a longer conversation of its own."""
_SPLIT_ANEW = 8
"""One token more for so many of output."""


class Continued(NamedTuple):
    """What a provider keeps up to and with an answer, as far as it can come to as input."""

    model: str
    """The model that was asked."""
    tokens: int
    """The most input tokens that it can be to this model."""
    reasoning_tokens: int
    """Reasoning in all of it, which may be left out of one answer's input and be in that of the next."""
    pictures: int
    """How many pictures are in it."""


def continued_of(row: object) -> Continued | None:
    """What somebody has written down; None if it is not ours."""
    if isinstance(row, list):
        match cast("list[object]", row):
            case [str() as model, int() as tokens, int() as reasoning, int() as pictures]:
                return Continued(model, tokens, reasoning, pictures)
            case _:
                pass
    return None


def continuing(call: ModelCall, ask: Ask, before: Continued | None) -> ModelCall:
    """
    A call that names an earlier answer, bounded by what is known of that.

    Args:
        call: The call as it was read: the model's whole context bounds it.
        ask: The request.
        before: What is kept with the named answer, if the one who asks has seen it here.
    """
    if before is None or before.model != call.model or ask.model != call.model or call.prompt.stored is None:
        return call
    own = {name: value for name, value in ask.body.items() if name != "previous_response_id"}
    if openai_responses(own).prompt.stored is not None:  # It refers to something else as well.
        return call
    return replace(call, prompt=replace(call.prompt, stored_tokens=before.tokens))


def kept_after(
    ask: Ask, call: ModelCall, result: ModelResult, before: Continued | None, items: int
) -> Continued | None:
    """
    What is kept with an answer; None if nobody can tell.

    Args:
        ask: Its request.
        call: The same as a call, as it was sent.
        result: What came of it.
        before: What was kept with the answer that it went on from, if it did.
        items: How many items the answer has.
    """
    usage = result.usage or result.stored_usage
    if usage is None or result.end not in ("completed", "cached") or _leaves_out(ask.body):
        return None
    if ask.model != call.model or call.prompt.unbounded is not None:
        return None
    if ask.previous_id is not None and (before is None or before.model != call.model):
        return None
    reasoning, pictures = (0, 0) if before is None else (before.reasoning_tokens, before.pictures)
    pictures += call.prompt.images
    tokens = usage.input_tokens + reasoning + usage.output_tokens + usage.output_tokens // _SPLIT_ANEW
    tokens += MESSAGE_TOKENS_MAX * items + SLACK_TOKENS
    if pictures:
        tokens += pictures * image_tokens_max(call.provider or "", call.model)
    return Continued(call.model, tokens, reasoning + usage.reasoning_tokens, pictures)


def _leaves_out(body: Body) -> bool:
    """Whether the provider may leave out some of what it was sent."""
    return body.get("truncation") not in (None, "disabled") or bool(body.get("context_management"))
