"""What goes through the one door: a model call or a tool call, what came of it, and what the guard said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from runrails.values import value

if TYPE_CHECKING:
    from runrails.attribution import Attribution
    from runrails.keyroutes import KeyPlace, Route
    from runrails.usage import Usage

__all__ = [
    "Block",
    "Economy",
    "Finding",
    "ModelCall",
    "ModelResult",
    "Permit",
    "Proceed",
    "Prompt",
    "ServedTier",
    "Stop",
    "ToolCall",
    "ToolOutcome",
    "Verdict",
]

RequestType = Literal["completion", "embedding", "agent"]
CallEnd = Literal["completed", "failed", "cut", "cached", "unknown"]
"""
How a model call ended: `completed` with an answer; `failed` with proof that it costs nothing (a definite error answer
or nothing was sent); `cut` in the middle of a stream; `cached` (no provider was asked); `unknown` (a timeout or a lost
connection after sending: the money may be spent).
"""


@value
class Prompt:
    """What will be sent, as far as its size matters. Adapters fill it in; nothing here is ever logged or stored."""

    texts: tuple[str, ...] = ()
    """Every piece of text, roles and tool-call arguments included."""
    messages: int = 0
    """How many messages the texts came in; each costs some tokens of framing."""
    tools: tuple[str, ...] = ()
    """The compact JSON of every tool's schema."""
    images: int = 0
    """Pictures in the messages, of any size."""
    unbounded: str | None = None
    """Name of a content type whose size cannot be bounded (a URL, a PDF, audio), if there is one."""
    stored: str | None = None
    """What the provider adds of its own keeping (an earlier answer): only the model's context bounds it."""
    stored_tokens: int | None = None
    """The most input tokens that this can be, where somebody has seen what it was made of."""
    pictures: tuple[int, ...] = ()
    """A hash of each picture, in order, if the adapter can tell them apart: a conversation is then known again."""
    mode: str = ""
    """What else of the request decides the provider's hidden prompt (a forced tool, thinking), in any form."""


class Economy(NamedTuple):
    """What was done to a call so that it costs less; what that saves is known when it ends."""

    asked_model: str | None = None
    """The model that was asked for, where a cheaper one is used."""
    left_out_messages: int = 0
    """How many messages were left out of the conversation."""
    left_out_chars: int = 0
    """How much text that was."""
    sent_chars: int = 0
    """How much was not."""
    stored: bool = False
    """The answer comes from the response cache: nothing is sent, so nothing is held for it."""


@value
class ModelCall:
    """A call to a language model that is about to start."""

    model: str
    provider: str | None = None
    """`openai`, `azure`, `anthropic`, `bedrock`, `google`, …; None if the model's name is enough."""
    region: str | None = None
    """The cloud region it runs in, if the client knows: on Bedrock prices depend on it."""
    service_tier: str | None = None
    """The service tier the request names; `auto` leaves it to the provider, so the dearest is held for."""
    prompt: Prompt = Prompt()
    max_tokens: int | None = None
    """The cap on output tokens that is in the request, if one is."""
    n: int = 1
    """How many answers are asked for."""
    can_cap: bool = False
    """Whether the adapter can put the permit's `max_tokens` into the request."""
    cache_write: bool = False
    """Whether the request may write the provider's prompt cache, which costs more than plain input."""
    request_type: RequestType = "completion"
    endpoint: str = ""
    user_agent: str = ""
    agent: str = ""
    """Path of the sub-agent that calls, `""` for the root."""
    retries: int = 0
    """How many more attempts the adapter may make; it makes no more than the permit says."""
    by: Attribution | None = None
    """Whose money it is, where this call alone says so; see `Guard.attribute` for what else does."""
    economy: Economy | None = None
    """What makes it cheaper than it was asked for; None for nearly all calls."""
    place: KeyPlace | None = None
    """Where its key goes, if the adapter can put another one in; see `runrails.keyroutes`."""
    credential: str = ""
    """Which key of the vault it goes out on, as `user:alice/openai/default`; empty if no router chose one."""


class ServedTier(NamedTuple):
    """Another way of serving than the one the model's standard price is for, as an answer reports it."""

    name: str
    """What the provider calls it; the price card is asked for it by this name."""
    factor_bp: int
    """The most that it multiplies the standard price by, in basis points; 10,000 for one that is no dearer."""


@value
class ModelResult:
    """What came of a model call."""

    end: CallEnd
    usage: Usage | None = None
    """What the provider reported; None if it reported nothing (which is not the same as zero)."""
    model: str | None = None
    """The model the provider says it used, if it differs from the one asked for."""
    output_text: tuple[str, ...] = ()
    """What had arrived of a cut answer; only its size is used."""
    reasoning: bool = False
    """Whether the model may have written hidden reasoning that a cut stream does not show."""
    input_usage: Usage | None = None
    """What was reported of the input of a cut answer; its output counts are not looked at."""
    unknown_attempts: int = 0
    """Earlier attempts of this call whose outcome nobody knows; each is charged at the most it can have cost."""
    floor_usage: Usage | None = None
    """What had been reported while the answer was still coming: it used that much at least."""
    tier: ServedTier | None = None
    """The service tier that the answer names, if it is not the standard one."""
    answer: tuple[str, ...] | None = None
    """The answer's texts as the next request will send them back, if the adapter can tell; only a hash is kept."""
    held_pusd: int = 0
    """What this attempt holds by now, where what came was worth more than was held for it (see `runrails.growth`)."""
    stored_usage: Usage | None = None
    """For a cached answer: what it used when it was paid for."""
    answer_id: str | None = None
    """The provider's own id of the answer, by which its bill may name the call: `chatcmpl-…`, `msg_…`, `resp_…`."""


@value
class Permit:
    """Leave to start one model call. Hand it back to `Run.after_model`, whatever happens."""

    id: str
    """Also the reservation's id in the ledger."""
    call: ModelCall
    bound_pusd: int
    """The most the call can cost: what is held."""
    max_tokens: int | None
    """The cap on output tokens to send; None if the request goes out without one."""
    uncapped: bool = False
    """The whole rest of the budget is held because the request has no cap and its bound did not fit."""
    as_asked: bool = True
    """False where `max_tokens` is less than what was asked for or, if nothing was, than the model's own maximum."""
    started_ms: int
    step: int
    priced: bool = True
    """False in observe mode for a model nobody has priced."""
    retries: int = 0
    """How many more attempts may be made; each is part of `bound_pusd`."""
    held: bool = True
    """False if the store was out of reach and `on_store_error="allow"` let the call start without a hold."""
    by: Attribution | None = None
    """Whose money it is, from everything that says so."""
    input_tokens: int | None = None
    """The most input tokens it can have; None if nobody has told."""
    route: Route | None = None
    """The key it goes out on; None if the guard chooses none."""

    @property
    def attempt_pusd(self) -> int:
        """The most that one attempt can cost."""
        return self.bound_pusd // (1 + self.retries)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A tool call that is about to start."""

    name: str
    args: object = None
    """The arguments as the model gave them: a mapping, or the JSON text of one."""
    id: str | None = None
    """The model's id of the call, if it has one."""
    batch: str | int | None = None
    """Equal for calls that one answer of the model asked for; None for a call on its own."""
    agent: str = ""
    """Path of the sub-agent that calls, `""` for the root."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolOutcome:
    """What a tool gave back."""

    ok: bool
    """False if the tool raised or its framework marked the result as an error."""
    result: object = None
    """What it returned: text or JSON-like values. For a failure, the error's text."""
    error_type: str | None = None
    """Class name of the exception, if one was raised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Why the loop detector spoke. Holds counts and fingerprints, never arguments or results."""

    level: Literal["hint", "block", "stop"]
    rule: str
    """`repeated_failure`, `repeated_result`, `same_failure`, `no_progress`, `poll`, `batch`."""
    tool: str
    agent: str
    count: int
    """How often the call gave this outcome with nothing new between."""
    threshold: int
    first_step: int
    """Number of the tool result (1-based, in this agent) where it began."""
    last_step: int
    call_fingerprint: str
    outcome_fingerprint: str
    for_model: str
    """Advice to the model: short, friendly, names what to deliver instead. Never invites the same call again."""
    what_happened: str
    """For people: tool, counts, steps and rule."""
    how_to_allow: str
    """For people: what to write if the repetition is meant."""

    @property
    def for_human(self) -> str:
        """What happened and how to allow it, in one text."""
        return f"{self.what_happened} If this is meant: {self.how_to_allow}"


@dataclass(frozen=True, slots=True)
class Proceed:
    """The step may start."""

    hint: Finding | None = None


@dataclass(frozen=True, slots=True)
class Block:
    """The tool call must not be executed; give the model `message` as its result. The run goes on."""

    message: str
    finding: Finding


@dataclass(frozen=True, slots=True)
class Stop:
    """The run is over."""

    finding: Finding


Verdict = Proceed | Block | Stop

PROCEED = Proceed()
