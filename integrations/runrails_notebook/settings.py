"""What a kernel and its cells may use, as the magics say it."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from runrails.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runrails.pricing import PriceSpec

__all__ = ["CellWish", "Settings"]

BUDGET = "5.00"
STEPS = 200
_NO_PRICES: Mapping[str, PriceSpec] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class CellWish:
    """What `%%guarded` says of one cell; None is as for every cell."""

    run: str | None = None
    steps: int | None = None
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Of a kernel. Money in dollars as text; None means no limit of that kind."""

    budget: str | None = BUDGET
    """What the kernel may spend until it is restarted."""
    month: str | None = None
    """What the user may spend in a calendar month, over all kernels and programs on the store."""
    cell: str | None = None
    """What each cell may spend."""
    steps: int | None = STEPS
    """Model and tool calls of each cell."""
    user: str | None = None
    org: str | None = None
    store: str | None = None
    """The ledger's URL; as `Guard` has it if left out."""
    prices: Mapping[str, PriceSpec] = field(default_factory=lambda: _NO_PRICES)
    polls: tuple[str, ...] = ()
    """Tools that are asked again on purpose until their answer changes."""
    loops: bool = True
    meter: bool = True
    """Whether a meter is shown while a cell works."""

    @property
    def kernel_limits(self) -> Limits:
        """Of the whole kernel. Steps and loops are those of single cells: it may live for weeks."""
        return Limits(run=self.budget, month=self.month, steps=None, loops=None)

    def cell_limits(self, wish: CellWish | None = None) -> Limits:
        """Of one cell; the kernel's apply beside them."""
        wish = wish or CellWish()
        usual = Limits()
        return Limits(
            run=wish.run or self.cell,
            month=self.month,
            steps=wish.steps or self.steps,
            loops=usual.loops if self.loops else None,
        )

    @property
    def rest_limits(self) -> Limits:
        """Of what goes on outside of cells."""
        return Limits(run=None, month=self.month, steps=None, loops=Limits().loops if self.loops else None)

    def opens_another(self, other: Settings) -> bool:
        """Whether the ledger, or whose money it is, differs."""
        return (self.user, self.org, self.store) != (other.user, other.org, other.store)
