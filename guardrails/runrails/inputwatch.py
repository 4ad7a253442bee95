"""What one run knows of its calls' inputs: their bounds, what was reported of them, and whether that was more."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from runrails.anchoring import PLAIN_BP, SLACK_TOKENS, Anchor, Anchors, Margins, anchor_of, input_bound
from runrails.values import named

if TYPE_CHECKING:
    from runrails.calls import ModelCall, ModelResult
    from runrails.events import Emitter
    from runrails.pricing.cards import PriceCard

__all__ = ["InputWatch", "Predicted"]


class Predicted(NamedTuple):
    """The bound of a call's input, and the margin that is in it."""

    input_tokens: int
    margin_bp: int = PLAIN_BP
    again: Anchor | None = None
    """The newest call of the same caller, if it sent exactly the same."""
    before: Anchor | None = None
    """The call that it continues."""


class InputWatch:
    """Thread-safe; keeps hashes and counts, never a text."""

    __slots__ = ("_emit", "_margins", "_run_id", "_told", "anchors")

    def __init__(self, margins: Margins, emit: Emitter, *, run_id: str) -> None:
        self.anchors = Anchors()
        """What is remembered."""
        self._margins = margins
        self._emit = emit
        self._run_id = run_id
        self._told: set[str] = set()

    def bound(self, call: ModelCall, card: PriceCard) -> Predicted:
        """
        The most input tokens that the call can have.

        Raises:
            BoundUnknown: The prompt has content whose size cannot be told.
        """
        prompt = call.prompt
        kept = self.anchors.kept.get((call.agent, card.provider, call.model))
        if kept and not (prompt.images or self._margins.any) and prompt.unbounded is None and prompt.stored is None:
            newest, texts = kept[0], prompt.texts
            count, digest, chars, messages, images, _, setting, reported, _ = newest
            if (
                hash(texts) == digest
                and len(texts) == count
                and prompt.messages == messages
                and not images
                and sum(map(len, texts)) == chars
                and hash((prompt.tools, prompt.mode)) == setting
            ):
                # By far the quickest to tell; what `input_bound` says of nothing new.
                tokens, tokens_max = reported + SLACK_TOKENS, card.context_tokens_max
                tokens = tokens if tokens_max is None or tokens < tokens_max else tokens_max
                return named(Predicted, (tokens, PLAIN_BP, newest, newest))
        margin_bp = self._margins.of(card.provider, call.model)
        before = self.anchors.find(call, card) if kept else None
        return named(Predicted, (input_bound(call, card, before, margin_bp), margin_bp, None, before))

    def ended(self, call: ModelCall, card: PriceCard, predicted: Predicted, result: ModelResult) -> None:
        """Compare what was reported with what was predicted, and remember it for the next call. Never raises."""
        try:
            again, usage, said = predicted.again, result.usage, result.answer
            if (
                again is not None and usage is not None and result.end == "completed"
                and again.input_tokens == usage.input_tokens <= predicted.input_tokens
                and again.reply == ((len(said), hash(said), usage.output_tokens) if said else None)
            ):  # fmt: skip
                kept = self.anchors.kept.get((call.agent, card.provider, call.model))
                if kept and kept[0] is again:
                    return  # It told nothing new.
            self._learn(call, card, predicted, result)
        except Exception as exc:  # noqa: BLE001 -- it observes: the next call is bounded as a whole
            self._emit("settlement_failed", "error", run=self._run_id, reason=type(exc).__name__)

    def _learn(self, call: ModelCall, card: PriceCard, predicted: Predicted, result: ModelResult) -> None:
        usage = result.usage
        if result.end == "cut":
            usage = usage or result.input_usage
        elif result.end != "completed":
            return
        if usage is None:
            return
        if usage.input_tokens > predicted.input_tokens:
            self._underestimated(call, card, predicted, usage.input_tokens)
        elif call.request_type != "embedding":
            whole = result.end == "completed"
            anchor = anchor_of(
                call.prompt, usage.input_tokens, output_tokens=usage.output_tokens if whole else 0,
                answer=result.answer, before=predicted.before,
            )  # fmt: skip
            if anchor is not None:
                self.anchors.keep(call, card, anchor)

    def _underestimated(self, call: ModelCall, card: PriceCard, predicted: Predicted, actual: int) -> None:
        margin_bp = self._margins.widen(
            card.provider, call.model, predicted=predicted.input_tokens, actual=actual, had_bp=predicted.margin_bp
        )
        self.anchors.drop(call, card)
        if call.model not in self._told:
            self._told.add(call.model)
            self._emit(
                "input_underestimated", "warning", run=self._run_id, model=call.model,
                predicted_tokens=predicted.input_tokens, actual_tokens=actual, margin_bp=margin_bp,
            )  # fmt: skip
