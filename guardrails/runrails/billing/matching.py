"""Holds a bill against the ledger, call by call. Decides only; nothing is written here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from runrails.billing.amounts import ZERO, added, whole_pusd
from runrails.errors import ConfigError
from runrails.figures import due
from runrails.ledger import AMOUNT_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from decimal import Decimal

    from runrails.billing.export import BillLine
    from runrails.ledger import UsageRecord

__all__ = ["Billed", "Findings", "Scope", "Settling", "match", "sum_up"]


class Billed:
    """What one call came to on the bill."""

    __slots__ = ("_rows", "dollars", "first_line", "lines", "records", "repeated")

    def __init__(self, first_line: int) -> None:
        self.first_line = first_line
        self.lines = 0
        self.dollars: Decimal = ZERO
        self.records: Sequence[UsageRecord] = ()
        """Records that it may be about: one, if all is well; no more than two are kept."""
        self.repeated = False
        """Whether a line is there twice, the same to the last letter."""
        self._rows: int | set[int] = 0

    def add(self, line: BillLine) -> None:
        """One more line of it."""
        if self.lines == 0:
            self._rows = line.row  # most calls have one line, for which a set would be a lot
        else:
            rows = self._rows = self._rows if isinstance(self._rows, set) else {self._rows}
            self.repeated = self.repeated or line.row in rows
            rows.add(line.row)
        self.lines += 1
        self.dollars = added(self.dollars, line.dollars)


class Settling(NamedTuple):
    """A record that the bill puts right."""

    record: UsageRecord
    billed_pusd: int
    """What the provider gets."""
    due_pusd: int
    """What the record's owner pays: with the mark-up."""

    @property
    def difference_pusd(self) -> int:
        """Negative if money is given back."""
        return self.due_pusd - (self.record.actual_pusd or 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Which records ought to be on the bill."""

    whole: bool = False
    """Whether the bill claims to have every call of the records it is held against."""
    provider: str | None = None
    """Only this provider's."""
    own_key: bool = False
    """The bill of a key of a user's own, instead of the platform's."""
    tag: str | None = None
    """A tag that holds an id of the client's own, by which the bill names calls."""
    add_repeated: bool = False
    """Whether lines that are the same to the last letter are added up as well."""


@dataclass(slots=True, kw_only=True)
class Findings:
    """What came of it."""

    agreed: int = 0
    settling: list[Settling] = field(default_factory=list[Settling])
    unknown: list[tuple[str, Billed]] = field(default_factory=list[tuple[str, Billed]])
    """Ids on the bill that no record has."""
    unclear: list[tuple[str, Billed]] = field(default_factory=list[tuple[str, Billed]])
    """Ids that several records have, or several of which name the same record."""
    in_flight: list[tuple[str, Billed]] = field(default_factory=list[tuple[str, Billed]])
    repeated: list[tuple[str, Billed]] = field(default_factory=list[tuple[str, Billed]])
    """Calls of which a line is there twice, so that nobody can tell whether they were billed twice."""
    missing: list[UsageRecord] = field(default_factory=list["UsageRecord"])
    """Records that ought to be on the bill and are not."""

    @property
    def difference_pusd(self) -> int:
        """What all of it comes to."""
        return sum(each.difference_pusd for each in self.settling)

    @property
    def complete(self) -> bool:
        """Whether nothing is left open."""
        return not (self.unknown or self.unclear or self.in_flight or self.repeated or self.missing)


def sum_up(lines: Iterable[BillLine]) -> tuple[dict[str, Billed], int]:
    """The lines of a bill by the id they name, and how many there are. Those that name none are under ``""``."""
    found: dict[str, Billed] = {}
    count = 0
    for line in lines:
        count += 1
        billed = found.get(line.id)
        if billed is None:
            billed = found[line.id] = Billed(line.number)
        billed.add(line)
    return found, count


def match(bill: dict[str, Billed], records: Iterable[UsageRecord], scope: Scope) -> Findings:
    """
    What the bill says of each record.

    A call is named by the provider's id of its answer, by our own id of it, or by the client's in a tag.

    Raises:
        ConfigError: What a call was billed cannot be right.
    """
    findings = Findings()
    twice: set[str] = set()
    for record in records:
        names = [name for name in _names(record, scope.tag) if name in bill]
        for name in names:
            bill[name].records = (*bill[name].records[:1], record)
        twice.update(names if len(names) > 1 else ())
        if not names and scope.whole and _belongs(record, scope):
            findings.missing.append(record)
    for name, billed in bill.items():
        if not name or not billed.records:
            if billed.dollars or name:
                findings.unknown.append((name, billed))
        elif len(billed.records) > 1 or name in twice:
            findings.unclear.append((name, billed))
        elif billed.records[0].state == "held":
            findings.in_flight.append((name, billed))
        elif billed.repeated and not scope.add_repeated:
            findings.repeated.append((name, billed))
        else:
            _settle(findings, billed)
    return findings


def _settle(findings: Findings, billed: Billed) -> None:
    record = billed.records[0]
    try:
        net = whole_pusd(billed.dollars)
        owed = due(net, record.facts)
        if owed > AMOUNT_MAX:
            raise ValueError("comes to more than any ledger counts with its mark-up")  # noqa: TRY301 -- told like the others
    except ValueError as exc:
        raise ConfigError(
            f"What the bill has for one call, from line {billed.first_line} on, {exc}.",
            next_step="Nothing was written. Put the file right first.",
            line=billed.first_line,
        ) from None
    if record.state == "unresolved" or owed != record.actual_pusd:
        findings.settling.append(Settling(record, net, owed))
    else:
        findings.agreed += 1


def _names(record: UsageRecord, tag: str | None) -> set[str]:
    names = {record.id}
    if record.result is not None and record.result.answer_id:
        names.add(record.result.answer_id)
    if tag is not None:
        names.update(value for name, value in record.facts.tags if name == tag)
    return names


def _belongs(record: UsageRecord, scope: Scope) -> bool:
    """Whether a provider must have billed it: it may have cost something, by the key in question."""
    facts = record.facts
    return (
        record.state not in ("held", "released")
        and bool(record.actual_pusd)
        and facts.byok == scope.own_key
        and (scope.provider is None or facts.provider == scope.provider)
    )
