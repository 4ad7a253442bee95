"""What a call of a `bedrock-runtime` client may cost: which operations cost money, and what bounds them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast
from urllib.parse import unquote

from runrails.calls import ModelCall
from runrails.clients.plan import Plan
from runrails.errors import BoundUnknown
from runrails.request_wire import may_reason
from runrails.values import quick
from runrails_aws.bedrock.answers import ConverseEvents, InvokeEvents, converse_answer, invoke_answer
from runrails_aws.bedrock.converse import converse, map_of
from runrails_aws.bedrock.invoke import invocation, with_cap

if TYPE_CHECKING:
    from runrails.calls import ModelResult, Permit
    from runrails.clients.plan import AnswerReader, Options
    from runrails.request_wire import WireCall
    from runrails_aws.bedrock.answers import EventsReader

__all__ = ["BedrockDialect", "BedrockOptions", "BedrockPlan", "retries_of"]

Body = Mapping[str, object]

FREE = frozenset({"CountTokens", "GetAsyncInvoke", "ListAsyncInvokes"})
"""Counting and looking; Bedrock's price list has nothing for them."""
_model_call = quick(ModelCall)
_PAID = frozenset({"Converse", "ConverseStream", "InvokeModel", "InvokeModelWithResponseStream"})
_PLAIN_TIERS = (None, "default", "flex")
_MANAGED_PROMPT = re.compile(r":prompt/")
_STANDS_FOR_A_MODEL = re.compile(
    r"arn:.*:(application-inference-profile|provisioned-model|custom-model-deployment|imported-model"
    r"|(default-)?prompt-router)/.*"
)
_ATTEMPTS = {"legacy": 5, "standard": 3, "adaptive": 3}
"""How often botocore sends a request at most, by its retry mode, where the client's configuration gives no number."""


@dataclass(slots=True, kw_only=True)
class BedrockOptions:
    """A call as botocore is about to send it, with what the core's guarded clients ask of a request's options."""

    url: str
    """The operation's name."""
    model: str
    json_data: object
    """The decoded body."""
    headers: Mapping[str, str]
    """By names in lower case."""
    region: str | None
    max_retries: object
    method: str = "POST"
    extra_json: object = None
    post_parser: object = None

    def get_max_retries(self, max_retries: int) -> int:
        """How often the request may be sent again."""
        return self.max_retries if type(self.max_retries) is int else max_retries

    @classmethod
    def read(cls, operation: str, params: Body, context: Body) -> BedrockOptions:
        """
        A call from what botocore has made of it for the wire.

        Raises:
            BoundUnknown: Its body is no JSON object.
        """
        path, region = str(params.get("url_path", "")).split("/"), context.get("client_region")
        headers = {name.lower(): _text(value) for name, value in map_of(params.get("headers")).items()}
        return cls(
            url=operation, model=unquote(path[2]) if len(path) > 2 else "", json_data=_body(params.get("body")),
            headers=headers, region=None if region is None else str(region),
            max_retries=retries_of(context.get("client_config")),
        )  # fmt: skip


@dataclass(slots=True)
class BedrockPlan(Plan):
    """A call that costs money, and how it is told what it may do."""

    body: Body
    cap: tuple[str, ...]
    events: EventsReader | None
    """For this one call; None if its answer is no stream."""

    @property
    def unnamed(self) -> bool:
        """Whether the call names no model but something of the account's that stands for one."""
        return _STANDS_FOR_A_MODEL.fullmatch(self.call.model) is not None

    def body_for(self, permit: Permit) -> Body | None:
        """The body with the permit's cap; None if it stays as it is."""
        if not self.cap or permit.max_tokens is None or permit.max_tokens == self.call.max_tokens:
            return None
        return with_cap(self.body, self.cap, permit.max_tokens)


class BedrockDialect:
    """Reads the calls of `bedrock-runtime` clients."""

    def plan(self, client: object, options: Options) -> BedrockPlan | None:
        """
        What a call may cost; None if it is free.

        Raises:
            BoundUnknown: It costs money, and nobody can tell how much.
        """
        del client
        if not isinstance(options, BedrockOptions):
            raise TypeError("only what botocore sends is read here")
        operation, model = options.url, options.model
        if operation in FREE:
            return None
        if operation not in _PAID:
            raise BoundUnknown(
                f"What {operation[:60]} of Bedrock costs cannot be told beforehand.",
                next_step="Use a client that is not guarded for it, or leave it out; Converse, ConverseStream, "
                "InvokeModel and InvokeModelWithResponseStream are guarded.",
                endpoint=operation[:60],
            )
        body = cast("Body", options.json_data)
        _refuse_surcharges(body, options)
        if operation.startswith("Converse"):
            wire = converse(body, model=model)
            told = ConverseEvents(reasoning=wire.reasoning) if operation == "ConverseStream" else None
            return _planned(options, wire, converse_answer, ("inferenceConfig", "maxTokens"), told)
        asked = invocation(body, model=model)

        def answer(body: Body) -> ModelResult:
            return invoke_answer(body, asked)

        events = InvokeEvents(reasoning=asked.wire.reasoning) if operation != "InvokeModel" else None
        return _planned(options, asked.wire, answer, asked.cap, events, embedding=asked.embedding)


def retries_of(config: object) -> int:
    """How often a client with this configuration sends a request again at most."""
    given = map_of(getattr(config, "retries", None))
    attempts = given.get("total_max_attempts")
    if type(attempts) is not int:
        attempts = _ATTEMPTS.get(str(given.get("mode")), 1)
    return max(0, attempts - 1)


def _planned(
    options: BedrockOptions, wire: WireCall, answer: AnswerReader, cap: tuple[str, ...],
    events: EventsReader | None, *, embedding: bool = False,
) -> BedrockPlan:  # fmt: skip
    # Thinking that was asked for has a budget of its own, which a smaller cap would contradict.
    can_cap = bool(cap) and (not wire.reasoning or may_reason(wire.model))
    call = _model_call(
        model=wire.model, provider="bedrock", region=options.region, prompt=wire.prompt, max_tokens=wire.max_tokens,
        n=wire.n,        can_cap=can_cap, cache_write=wire.cache_write,
        request_type="embedding" if embedding else "completion", endpoint=options.url,
        user_agent=options.headers.get("user-agent", ""), retries=options.get_max_retries(0),
    )  # fmt: skip
    body = cast("Body", options.json_data)
    return BedrockPlan(call, answer, None, {}, cap[-1] if cap else "", body, cap, events)


def _refuse_surcharges(body: Body, options: BedrockOptions) -> None:
    """Refuse what costs more than the plain price of its tokens. Converse says it in the body, the others outside."""
    headers = options.headers
    tier = map_of(body.get("serviceTier")).get("type", headers.get("x-amzn-bedrock-service-tier"))
    latency = map_of(body.get("performanceConfig")).get(
        "latency", headers.get("x-amzn-bedrock-performanceconfig-latency")
    )
    what = None
    if tier not in _PLAIN_TIERS:
        what = "a premium service tier (priority or reserved)"
    elif latency not in (None, "standard"):
        what = "latency-optimized inference"
    elif "guardrailConfig" in body or "x-amzn-bedrock-guardrailidentifier" in headers:
        what = "a guardrail, which is billed by the piece of text"
    elif _MANAGED_PROMPT.search(options.model):
        what = "a managed prompt, whose size is known to Bedrock alone"
    if what is not None:
        raise BoundUnknown(
            f"The request asks for {what}; no price card has what that costs.",
            next_step="Leave it out, or use a client that is not guarded for it.",
            model=options.model[:120],
        )


def _body(given: object) -> object:
    if given is None or given == b"":
        return {}
    try:
        body: object = json.loads(cast("bytes | str", given)) if isinstance(given, bytes | bytearray | str) else None
    except (ValueError, RecursionError):
        body = None
    if isinstance(body, Mapping):
        return cast("Body", body)
    raise BoundUnknown(
        "The request's body is no JSON object, so what it costs cannot be told.",
        next_step="Pass the body as the JSON text of an object, or its bytes.",
    )


def _text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
