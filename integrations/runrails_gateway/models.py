"""`GET /v1/models`: what can be called here and has a price, in the words of OpenAI or of Anthropic."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

from runrails.attribution import Attribution
from runrails.calls import ModelCall
from runrails.errors import PriceUnknown
from runrails_gateway.config import matches

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runrails.identity.principal import Principal
    from runrails.pricing.book import PriceBook
    from runrails_gateway.config import GatewayConfig, Upstream

__all__ = ["Model", "SupportsPolicy", "models_for", "models_of", "one_model", "page_of"]

MODELS_MAX = 2_000
_CREATED = 1_700_000_000
"""Nobody here knows when a model was made; clients' types want a number."""
_CREATED_AT = "2023-11-14T22:13:20Z"


class Model(NamedTuple):
    """A model that can be called."""

    name: str
    upstream: str


@runtime_checkable
class SupportsPolicy(Protocol):
    """What chooses keys and has a policy about models."""

    def allows(self, call: ModelCall, by: Attribution) -> bool:
        """Whether somebody may call that model at all."""
        ...


def models_for(config: GatewayConfig, principal: Principal) -> tuple[Model, ...]:
    """The models that somebody may call."""
    guard = config.guard
    models = models_of(config.upstreams, guard.prices, guard.clock())
    router = guard.credentials
    if not isinstance(router, SupportsPolicy):
        return models
    upstreams = {each.name: each for each in config.upstreams}
    by = Attribution(user=principal.user, key=principal.key_id, org=principal.org)
    return tuple(model for model in models if router.allows(_call(model, upstreams[model.upstream]), by))


def _call(model: Model, upstream: Upstream) -> ModelCall:
    return ModelCall(model=model.name, provider=upstream.provider, place=upstream.place)


def models_of(upstreams: Sequence[Upstream], book: PriceBook, now_ms: int) -> tuple[Model, ...]:
    """
    The models of these upstreams whose price is known, by name.

    What an upstream lists by its full name is looked up; where it ends in ``*``, the models that prices are written
    down for are gone through.
    """
    found: dict[str, Model] = {}
    for upstream in upstreams:
        for name in _names(upstream, book):
            if name not in found and len(found) < MODELS_MAX and _is_priced(name, upstream, book, now_ms):
                found[name] = Model(name, upstream.name)
    return tuple(found[name] for name in sorted(found))


def page_of(models: Sequence[Model], *, anthropic: bool) -> bytes:
    """The list as an answer."""
    data = [_told(model, anthropic=anthropic) for model in models]
    if not anthropic:
        return _json({"object": "list", "data": data})
    ends = {"first_id": models[0].name if models else None, "last_id": models[-1].name if models else None}
    return _json({"data": data, "has_more": False, **ends})


def one_model(model: Model, *, anthropic: bool) -> bytes:
    """One of them as an answer."""
    return _json(_told(model, anthropic=anthropic))


def _told(model: Model, *, anthropic: bool) -> dict[str, object]:
    if anthropic:
        return {"type": "model", "id": model.name, "display_name": model.name, "created_at": _CREATED_AT}
    return {"id": model.name, "object": "model", "created": _CREATED, "owned_by": model.upstream}


def _names(upstream: Upstream, book: PriceBook) -> Iterator[str]:
    yield from (name for name in upstream.models if not name.endswith("*"))
    if any(name.endswith("*") for name in upstream.models):
        for name in book.names(upstream.provider):
            if matches(upstream.models, name):
                yield name


def _is_priced(name: str, upstream: Upstream, book: PriceBook, now_ms: int) -> bool:
    try:
        book.card(name, provider=upstream.provider, now_ms=now_ms, region=upstream.region)
    except PriceUnknown:
        return False
    return True


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
