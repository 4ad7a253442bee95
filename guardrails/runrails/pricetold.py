"""What a run tells of its models' prices, mostly once a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runrails.calls import ModelCall, ServedTier
    from runrails.events import Emitter
    from runrails.ledger import Settled
    from runrails.pricing.cards import PriceCard

__all__ = ["PriceTold"]

MODELS_MAX = 256
_PLAIN_BP = 10_000


class PriceTold:
    """Of one run. Thread-safe."""

    __slots__ = ("_emit", "_run_id", "_told")

    def __init__(self, emit: Emitter, *, run_id: str) -> None:
        self._emit = emit
        self._run_id = run_id
        self._told: set[tuple[str, str]] = set()

    def assumed(self, call: ModelCall, card: PriceCard) -> None:
        """Nobody has priced the model, and the guard was told to assume the dearest: say so, once a model."""
        if self._is_new(call.model, card.source):
            self._emit("price_assumed", "warning", run=self._run_id, model=call.model, note=card.note)

    def unpriced(self, model: str, tier: ServedTier) -> None:
        """Nobody has published what the tier costs that served a call: say so, once a model."""
        if self._is_new(model, tier.name):
            self._emit(
                "tier_unpriced", "warning" if tier.factor_bp > _PLAIN_BP else "info", run=self._run_id, model=model,
                service_tier=tier.name, factor_bp=tier.factor_bp,
            )  # fmt: skip

    def overrun(self, model: str, settled: Settled) -> None:
        """A call has cost more than it held: say so, each time."""
        self._emit(
            "bound_violated", "warning", run=self._run_id, model=model, held_pusd=settled.held,
            cost_pusd=settled.actual, overrun_pusd=settled.overrun,
        )  # fmt: skip

    def _is_new(self, model: str, what: str) -> bool:
        if (model, what) in self._told or len(self._told) >= MODELS_MAX:
            return False
        self._told.add((model, what))
        return True
