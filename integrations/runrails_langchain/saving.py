"""Cheaper requests of an agent: a shorter conversation, a cheaper model."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from runrails.errors import ConfigError
from runrails.thrift import asked_as, cheaper_model, pruning_of, shortened_to, tell_of_refusal
from runrails_langchain.models import model_facts
from runrails_langchain.requests import plan
from runrails_langchain.shortening import shortened

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from langchain.agents.middleware import ModelRequest
    from langchain_core.language_models import BaseChatModel

    from runrails.attribution import Attribution
    from runrails.calls import ModelCall
    from runrails.run import Run
    from runrails_langchain.requests import Planned

__all__ = ["Models", "Spared", "models_by_name", "spared"]

Models = dict[str, "BaseChatModel"]


class Spared(NamedTuple):
    """A request as it is to be sent, and what is known of it."""

    request: ModelRequest[Any]
    planned: Planned


def models_by_name(models: Iterable[BaseChatModel]) -> Models:
    """
    The models by the names that their providers know.

    Raises:
        ConfigError: One of them is no chat model, or does not tell its name.
    """
    found: Models = {}
    for model in models:
        try:
            about = cast("Mapping[str, object]", model._get_ls_params())  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] -- there is no public form
        except AttributeError:
            raise _no_model(model) from None
        name = model_facts(about, {}).name
        if name == "unknown":
            raise _no_model(model)
        found[name] = model
    return found


def spared(run: Run, request: ModelRequest[Any], planned: Planned, by: Attribution | None, cheaper: Models) -> Spared:
    """What is to be sent of a request that is about to be sent in a run."""
    if run.guard.mode == "observe":  # it changes no request
        return Spared(request, planned)
    pruning = pruning_of(run)
    cut = None if pruning is None else shortened(request.messages, pruning)
    if cut is not None:
        request = request.override(messages=cut.messages)
        made = plan(request, by)
        planned = replace(made, call=shortened_to(planned.call, made.call, cut.left_out))
    model = cheaper_model(run, planned.call)
    if model is None:
        return Spared(request, planned)
    if model not in cheaper:
        tell_of_refusal(run, planned.call.model, model, "no_model")
        return Spared(request, planned)
    changed = _as_asked(Spared(*_with_model(request, cheaper[model], by)), planned.call, by)
    if changed is None:
        tell_of_refusal(run, planned.call.model, model, "adapter")
        return Spared(request, planned)
    made = changed.planned
    return Spared(changed.request, replace(made, call=asked_as(run, planned.call, made.call)))


def _with_model(
    request: ModelRequest[Any], model: BaseChatModel, by: Attribution | None
) -> tuple[ModelRequest[Any], Planned]:  # fmt: skip
    changed = request.override(model=model)
    return changed, plan(changed, by)


def _as_asked(spared: Spared, asked: ModelCall, by: Attribution | None) -> Spared | None:
    """The request to the cheaper model with no more output than was asked for, at no dearer tier; None if it cannot."""
    request, planned = spared
    call, cap = planned.call, asked.max_tokens
    if call.n > asked.n or call.service_tier not in (None, asked.service_tier):
        return None
    if cap is None or (call.max_tokens is not None and call.max_tokens <= cap):
        return spared
    capped = planned.capped(request, cap)
    return None if capped is None else Spared(capped, plan(capped, by))


def _no_model(model: object) -> ConfigError:
    return ConfigError(
        f"cheaper must be chat models with a name, and a {type(model).__name__} is none.",
        next_step='Write GuardrailMiddleware(guard, cheaper=[ChatOpenAI(model="gpt-4o-mini")]).',
    )
