"""
Reads a provider's billing export: CSV with a header, as it comes from a console, a spreadsheet or a script.

Plain or gzipped, UTF-8 or UTF-16, with or without a byte order mark, separated by commas, semicolons or tabs, with
either kind of line end. A line that cannot be right ends the reading: half a bill is worse than none.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, TextIO, cast

from runrails.billing.amounts import parse_amount
from runrails.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from decimal import Decimal
    from pathlib import Path

__all__ = ["BillLine", "Columns", "Export"]

_KNOWN: dict[str, tuple[str, ...]] = {
    "id": ("request_id", "response_id", "completion_id", "message_id", "generation_id", "id"),
    "amount": ("cost_usd", "amount_usd", "cost", "amount", "total_cost", "amount_value"),
    "currency": ("currency", "amount_currency"),
    "model": ("model", "model_id", "model_name", "line_item"),
    "time": ("timestamp", "date", "day", "created_at", "start_time", "start_time_iso", "usage_date"),
}
"""What headers are called, the clearest first; in lower case, with `_` for blanks and hyphens."""
_GZIP = b"\x1f\x8b"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_TOLD_EVERY = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Headers of the columns that are read; None: whichever of the usual names is there."""

    id: str | None = None
    amount: str | None = None
    currency: str | None = None
    model: str | None = None
    time: str | None = None


class BillLine(NamedTuple):
    """One line of a bill."""

    number: int
    """Of the line in the file, from 1."""
    id: str
    """Empty if it is of no call."""
    dollars: Decimal
    """Negative for a credit."""
    model: str
    time: str
    row: int = 0
    """Hash of all that the line says."""


class Export:
    """
    A file with a bill.

    Args:
        path: The file.
        columns: Where things are, if not under their usual names.
        needs: Columns that must be there.

    Raises:
        ConfigError: The file cannot be read, or a column is missing.
    """

    def __init__(self, path: Path, columns: Columns, *, needs: tuple[str, ...]) -> None:
        self.path = path
        with self._opened() as (text, _):
            self._delimiter, header = self._header(text)
        self._width = len(header)
        self._places = {
            field.name: self._place(header, field.name, getattr(columns, field.name)) for field in fields(columns)
        }
        for name in needs:
            if self._places[name] is None:
                raise ConfigError(
                    f"{path.name} has no column for the {name}: none of its headers is one of "
                    f"{', '.join(_KNOWN[name])}.",
                    next_step=f"Name it: --{name}-column HEADER.",
                    file=path.name,
                )
        self.headers = {name: header[place] for name, place in self._places.items() if place is not None}
        """What was taken for what."""

    def digest(self) -> str:
        """The SHA-256 of the file as it is, for the audit trail."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def lines(self, watch: Callable[[int], None] | None = None) -> Iterator[BillLine]:
        """
        Every line; `watch` hears now and then how many bytes of the file have been read.

        Raises:
            ConfigError: A line cannot be right; it names the file and the line.
        """
        with self._opened() as (text, raw):
            rows = csv.reader(text, delimiter=self._delimiter, strict=True)
            read = 0
            try:
                next(rows)
                for row in rows:
                    if any(cell.strip() for cell in row):
                        yield self._line(rows.line_num, row)
                    read += 1
                    if watch is not None and read % _TOLD_EVERY == 0:
                        watch(raw.tell())
            except csv.Error as exc:
                raise self._wrong(rows.line_num, f"cannot be read: {exc}") from exc
            except (UnicodeError, EOFError, OSError) as exc:
                raise self._wrong(rows.line_num + 1, f"or one soon after it cannot be read: {exc}") from exc

    def _line(self, number: int, row: list[str]) -> BillLine:
        if len(row) != self._width:
            raise self._wrong(number, f"has {len(row)} columns and the header {self._width}")

        def cell(name: str) -> str:
            place = self._places[name]
            return "" if place is None else row[place].strip()

        if self._places["currency"] is not None and cell("currency").upper() != "USD":
            raise self._wrong(number, "is not in USD; other currencies are not converted")
        written = cell("amount")
        if "," in written and self._delimiter == ";":
            raise self._wrong(number, "has an amount with a comma, which between semicolons may mean two things")
        try:
            dollars = parse_amount(written)
        except ValueError as exc:
            raise self._wrong(number, f"in column {self.headers['amount']!r} {exc}") from None
        return BillLine(number, cell("id"), dollars, cell("model"), cell("time"), hash(tuple(row)))

    def _place(self, header: list[str], name: str, given: str | None) -> int | None:
        names = [_plain(each) for each in header]
        wanted = _KNOWN[name] if given is None else (_plain(given),)
        for each in wanted:
            if names.count(each) > 1:
                raise self._wrong(1, f"has the column {each!r} more than once")
            if each in names:
                return names.index(each)
        if given is not None:
            raise ConfigError(
                f"{self.path.name} has no column {given!r}.", next_step=f"It has: {', '.join(header)}.",
                file=self.path.name,
            )  # fmt: skip
        return None

    def _header(self, text: TextIO) -> tuple[str, list[str]]:
        try:
            first = text.readline()
        except (UnicodeError, EOFError, OSError) as exc:
            raise self._wrong(1, f"cannot be read: {exc}") from exc
        delimiter = max(",;\t", key=first.count)
        try:
            header = [cell for row in csv.reader([first], delimiter=delimiter, strict=True) for cell in row]
        except csv.Error as exc:
            raise self._wrong(1, f"cannot be read: {exc}") from exc
        if not any(cell.strip() for cell in header):
            raise self._wrong(1, "has no headers")
        return delimiter, header

    @contextmanager
    def _opened(self) -> Generator[tuple[TextIO, BinaryIO]]:
        try:
            raw: BinaryIO = self.path.open("rb")
        except OSError as exc:
            raise ConfigError(
                f"{self.path} cannot be read: {exc.strerror}.", next_step="Name a CSV file.", file=self.path.name
            ) from exc
        with raw:
            packed = raw.read(2) == _GZIP
            raw.seek(0)
            plain = cast("BinaryIO", gzip.GzipFile(fileobj=raw)) if packed else raw
            try:
                wide = plain.read(2) in _UTF16
                plain.seek(0)
            except (EOFError, OSError) as exc:
                raise self._wrong(1, f"cannot be read: {exc}") from exc
            text = io.TextIOWrapper(plain, encoding="utf-16" if wide else "utf-8-sig", newline="")
            try:
                yield text, raw
            finally:
                text.detach()

    def _wrong(self, number: int, what: str) -> ConfigError:
        return ConfigError(
            f"{self.path.name}, line {number}: it {what}.", next_step="Nothing was written. Put the file right first.",
            file=self.path.name, line=number,
        )  # fmt: skip


def _plain(header: str) -> str:
    return header.strip().lower().replace(" ", "_").replace("-", "_")
