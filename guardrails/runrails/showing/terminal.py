"""The pieces that everything shown in a terminal is made of. Rich is loaded when something is shown, not before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.table import Table
    from rich.text import Text

__all__ = ["Sheet", "grid", "lines_table", "plain"]

WORD_MAX = 24
"""A longer word (an id, a path) may be broken where there is no room; a shorter one never is."""
_EDGES = 3
"""Columns that a table needs beside each of its own: a line and a blank on either side."""


class Sheet:
    """
    A table for Rich that can also be read where it is narrow.

    No word of it is broken: where the columns do not fit beside each other, each row is a few words with their
    headings, and goes over as many lines as it needs.
    """

    def __init__(self, title: str, columns: Sequence[str], *, right: Collection[int] = ()) -> None:
        self.title = title
        self.columns = tuple(columns)
        self.right = frozenset(right)
        """The places, from 0, of columns of numbers."""
        self.whole = self.right
        """The places of columns whose lines are never broken, not even at a blank."""
        self.show_header = True
        self.caption = ""
        self._rows: list[tuple[Text, ...]] = []

    def add_row(self, *cells: str | Text) -> None:
        """One row, whose last cells may be left out; text of unknown origin is made harmless."""
        from rich.text import Text

        if len(cells) > len(self.columns):
            raise ValueError(f"A row of {len(cells)} cells does not fit into {len(self.columns)} columns.")
        row = [Text(plain(cell)) if isinstance(cell, str) else cell for cell in cells]
        self._rows.append((*row, *(Text() for _ in self.columns[len(cells) :])))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """As a table if that fits, else row by row."""
        del console  # Rich asks every renderable in the same way
        widths = self._widths(options.max_width)
        if widths is None:
            yield from self._stacked()
        else:
            yield self._table(widths)

    def _widths(self, most: int) -> list[int] | None:
        """Of each column; None if they do not fit."""
        from rich.cells import cell_len

        least, widths = [0] * len(self.columns), [0] * len(self.columns)
        headings = [self.columns] if self.show_header else []
        for cells in [*headings, *([cell.plain for cell in row] for row in self._rows)]:
            for place, cell in enumerate(cells):
                words = cell.splitlines() if place in self.whole else cell.split()
                longest = max(map(cell_len, words), default=0)
                least[place] = max(least[place], longest if place in self.whole else min(longest, WORD_MAX))
                widths[place] = max([widths[place], *map(cell_len, cell.splitlines())])
        room = most - _EDGES * len(self.columns) - 1
        if sum(least) > room:
            return None
        over = sum(widths) - room
        while over > 0:
            place = max(range(len(widths)), key=lambda each: (widths[each] - least[each], each))
            taken = min(over, max(1, (widths[place] - least[place]) // 2))
            widths[place] -= taken
            over -= taken
        return widths

    def _table(self, widths: Sequence[int]) -> Table:
        from rich.table import Table
        from rich.text import Text

        made = Table(title=Text(plain(self.title)) if self.title else None, title_justify="left")
        made.show_header = self.show_header
        made.caption = Text(plain(self.caption)) if self.caption else None
        for place, (heading, width) in enumerate(zip(self.columns, widths, strict=True)):
            justify: Literal["left", "right"] = "right" if place in self.right else "left"
            made.add_column(heading, justify=justify, width=width, overflow="fold")
        for row in self._rows:
            made.add_row(*row)
        return made

    def _stacked(self) -> Iterable[Text]:
        from rich.text import Text

        if self.title:
            yield Text(plain(self.title), style="italic")
        for row in self._rows:
            line = Text()
            for heading, cell in zip(self.columns, row, strict=True):
                if cell.plain.strip():
                    line.append("   " if line else "")
                    line.append(f"{heading.strip()} ".lstrip(), style="dim")
                    line.append_text(Text(" ").join(cell.split()))
            yield line
        if self.caption:
            yield Text(plain(self.caption), style="dim")


def plain(text: str) -> str:
    """Without what a terminal obeys: names may come from anybody."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)


def grid(pairs: Iterable[tuple[str, str]]) -> Table:
    """Labels and texts side by side, without lines."""
    from rich.table import Table
    from rich.text import Text

    made = Table.grid(padding=(0, 2))
    made.add_column(style="dim", overflow="fold")
    made.add_column(overflow="fold")
    for label, text in pairs:
        made.add_row(label, Text(plain(text)))
    return made


def lines_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Collection[int] = ()
) -> Sheet:
    """A table under a title; `right` are the places, from 0, of columns of numbers."""
    made = Sheet(title, columns, right=right)
    for row in rows:
        made.add_row(*row)
    return made
