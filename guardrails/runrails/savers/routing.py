"""Which calls may go to a cheaper model, and to which. Decides only; who sends a request puts the model into it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from runrails.savers.shares import Share, reached, share

if TYPE_CHECKING:
    from decimal import Decimal
    from fractions import Fraction

__all__ = ["Downgrade"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Downgrade:
    """
    Cheaper models for `Limits(downgrade=Downgrade(...))`, used by guarded clients and `GuardrailMiddleware`.

    A call is sent to the cheaper model if its kind is one of `kinds`, or once the share `above` of a run's budget is
    spent. A call's kind is its tag `kind`: `guard.attribute(tags={"kind": "classify"})`. It never goes to a model that
    is dearer for this very call, that nobody has priced, or whose context or output could be too short for it.

    Args:
        to: The cheaper model of each model, or one for all: `{"gpt-4o": "gpt-4o-mini"}`, `"gpt-4o-mini"`. It must be
            one that the same client or adapter can ask, and that understands the same request.
        above: Share of the run's budget, as text, Decimal or Fraction: `"0.80"`.
        kinds: Kinds of steps that the cheaper model is always good enough for.

    Raises:
        TypeError: A name is not text, or the share is a float.
        ValueError: Nothing says when or to which model, or the share is not above 0 and at most 1.
    """

    to: Mapping[str, str] | str = field(hash=False)
    above: str | Decimal | Fraction | None = None
    kinds: tuple[str, ...] = ()

    share: Share | None = field(init=False, repr=False, compare=False)
    """`above` as a ratio."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "to", _models(self.to))
        kinds = cast("object", self.kinds)
        if isinstance(kinds, str) or not all(isinstance(kind, str) for kind in cast("tuple[object, ...]", kinds)):
            raise TypeError('Downgrade(kinds=…) must be a tuple of texts, like ("classify",).')
        object.__setattr__(self, "kinds", tuple(self.kinds))
        object.__setattr__(self, "share", None if self.above is None else share(self.above, "Downgrade(above=…)"))
        if self.above is None and not self.kinds:
            raise ValueError('Downgrade(…) must say when: above="0.80" of the budget, or kinds=("classify",).')

    def model_for(self, model: str, *, kind: str | None, spent: tuple[tuple[int, int | None], ...]) -> str | None:
        """
        The cheaper model for a call, or None if it goes where it was meant to.

        Args:
            model: The model that is asked for.
            kind: The call's kind.
            spent: What the run, and each run it is part of, has spent, and its budget.
        """
        cheaper = self.to if isinstance(self.to, str) else self.to.get(model)
        if cheaper is None or cheaper == model:
            return None
        if kind is not None and kind in self.kinds:
            return cheaper
        least = self.share
        if least is not None and any(reached(used, limit, least) for used, limit in spent):
            return cheaper
        return None


def _models(to: object) -> dict[str, str] | str:
    if isinstance(to, str):
        models: dict[object, object] = {"": to}
    elif isinstance(to, Mapping):
        models = dict(cast("Mapping[object, object]", to))
    else:
        raise TypeError(f"Downgrade(to=…) must be a mapping of models, or one model, not {type(to).__name__}.")
    for name in (*models, *models.values()):
        if not isinstance(name, str):
            raise TypeError(f"Downgrade(to=…) must name models by text, not {type(name).__name__}.")
    if not models or not all(models.values()):
        raise ValueError('Downgrade(to=…) must name a cheaper model: to={"gpt-4o": "gpt-4o-mini"}.')
    return to if isinstance(to, str) else cast("dict[str, str]", models)
