"""The detector's whole memory, and its form as JSON: versioned, compact, at most 64 KiB."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from struct import error as struct_error
from typing import TYPE_CHECKING, NamedTuple, cast

from runrails.loops.batches import Batches
from runrails.loops.explain import explain
from runrails.loops.memory import (
    CALLS_MAX,
    FAILURES_MAX,
    PAIRS_MAX,
    SCOPES_MAX,
    CallMemory,
    FailureMemory,
    PairMemory,
    Scope,
    Units,
    pack_records,
    unpack_records,
)

if TYPE_CHECKING:
    from runrails.calls import Finding

__all__ = ["TOLD_MAX", "VERSION", "Memory", "Told"]

TOLD_MAX = 4
"""Stops that are remembered; the first one ends the run as a rule."""

NUMBER_MAX = 0x7FFFFFFF
"""A fresh state never gets near it, and the tables of one that did could not be written."""

VERSION = 2
"""Of the state's form and of how fingerprints are made: with another version, nothing remembered would match."""
_RULES = ("repeated_failure", "repeated_result", "same_failure", "no_progress", "poll", "batch")


class Told(NamedTuple):
    """A stop an agent has coming. `final`: it was already answered with one; otherwise blocking may come first."""

    finding: Finding
    final: bool


@dataclass(slots=True)
class Memory:
    """Every table of a detector."""

    number: int = 0
    """The last era or epoch given out."""
    scopes: dict[int, Scope] = field(default_factory=dict[int, Scope])
    pairs: dict[int, PairMemory] = field(default_factory=dict[int, PairMemory])
    calls: dict[int, CallMemory] = field(default_factory=dict[int, CallMemory])
    failures: dict[int, FailureMemory] = field(default_factory=dict[int, FailureMemory])
    units: Units = field(default_factory=Units)
    batches: Batches = field(default_factory=Batches)
    told: dict[int, Told] = field(default_factory=dict[int, Told])

    def next_number(self) -> int:
        """Another era or epoch, never given out before."""
        self.number += 1
        return self.number

    def pack(self) -> dict[str, object]:
        """As JSON values."""
        return {
            "version": VERSION,
            "number": self.number,
            "scopes": pack_records(self.scopes, Scope.LAYOUT),
            "pairs": pack_records(self.pairs, PairMemory.LAYOUT),
            "calls": pack_records(self.calls, CallMemory.LAYOUT),
            "failures": pack_records(self.failures, FailureMemory.LAYOUT),
            "units": self.units.pack(),
            "batches": self.batches.pack(),
            "told": [_pack_told(seed, told) for seed, told in self.told.items()],
        }

    @classmethod
    def unpack(cls, state: Mapping[str, object]) -> Memory:
        """
        What `pack` made.

        Raises:
            ValueError: It is no such state, or one of another version.

        """
        version = state.get("version") if isinstance(cast("object", state), Mapping) else None
        if version != VERSION:
            raise ValueError(
                f"This is not a loop detector's state of version {VERSION} (its version is {version!r}). "
                "Start with a new LoopDetector; only what had repeated so far is forgotten.",
            )
        try:
            return cls(
                number=_whole(state["number"]),
                scopes=unpack_records(state["scopes"], Scope, SCOPES_MAX),
                pairs=unpack_records(state["pairs"], PairMemory, PAIRS_MAX),
                calls=unpack_records(state["calls"], CallMemory, CALLS_MAX),
                failures=unpack_records(state["failures"], FailureMemory, FAILURES_MAX),
                units=Units.unpack(state["units"]),
                batches=Batches.unpack(cast("list[list[object]]", state["batches"])),
                told=dict(_unpack_told(row) for row in cast("list[list[object]]", state["told"])),
            )
        except (LookupError, TypeError, ValueError, struct_error) as exc:
            raise ValueError(
                f"The loop detector's state is damaged ({type(exc).__name__}). Start with a new LoopDetector; "
                "only what had repeated so far is forgotten.",
            ) from exc


def _whole(value: object) -> int:
    if type(value) is int and 0 <= value <= NUMBER_MAX:
        return value
    raise ValueError("a number that is none of ours")


def _pack_told(seed: int, told: Told) -> list[object]:
    found = told.finding
    return [
        f"{seed:x}", told.final, found.level, found.rule, found.tool, found.agent, found.count, found.threshold,
        found.first_step, found.last_step, found.call_fingerprint, found.outcome_fingerprint,
    ]  # fmt: skip


def _unpack_told(row: list[object]) -> tuple[int, Told]:
    seed, final, level, rule, tool, agent = row[:6]
    count, threshold, first, last = (_whole(number) for number in row[6:10])
    call, outcome = (int(str(text), 16) for text in row[10:12])
    if rule not in _RULES or level not in ("hint", "block", "stop"):
        raise ValueError("a finding of no known rule")
    finding = explain(
        level=level, rule=str(rule), tool=str(tool), agent=str(agent), count=count, threshold=threshold,
        steps=(first, last), keys=(call, outcome),
    )  # fmt: skip
    return int(str(seed), 16), Told(finding, final=bool(final))
