"""Calls, tokens and money summed by whom or what they are for; one form for a run's report and for a store's usage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runrails.attribution import Attribution
from runrails.errors import ConfigError
from runrails.figures import figures_of
from runrails.periods import day_of

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping

    from runrails.ledger import UsageRecord

__all__ = [
    "GROUPS_MAX",
    "OTHER",
    "USAGE_GROUPS_MAX",
    "GroupRow",
    "Groups",
    "check_dimension",
    "group_usage",
    "groups_of",
    "no_such_group",
    "with_tags",
]

GROUPS_MAX = 256
"""Most users, models and so on that a run's report tells apart."""
USAGE_GROUPS_MAX = 10_000
"""The same for the usage of a store."""
OTHER = "(other)"
"""The group of all that came when there were so many groups already."""
TAG = "tag:"
PAYERS = ("user", "key", "org")
USAGE_DIMENSIONS = (*PAYERS, "model", "agent", "run", "day")


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRow:
    """What one group came to."""

    name: str | None
    """None: the calls that have none, for instance no such tag."""
    calls: int
    input_tokens: int = 0
    output_tokens: int = 0
    cost_pusd: int = 0
    own_key_pusd: int = 0
    """The part of the cost that was paid on keys of the users' own."""
    discount_pusd: int = 0
    """What contracts took off, which is no part of the cost. Only a store's usage tells it, as it does the mark-up."""
    markup_pusd: int = 0
    """The part of the cost that was charged on top of what providers got."""

    @property
    def billed_pusd(self) -> int:
        """The part of the cost that the platform bills."""
        return self.cost_pusd - self.own_key_pusd

    @property
    def provider_pusd(self) -> int:
        """What providers ask for it without contracts."""
        return self.cost_pusd - self.markup_pusd + self.discount_pusd

    @property
    def tokens(self) -> int:
        """Input and output tokens together."""
        return self.input_tokens + self.output_tokens


class Groups:
    """Sums by a key, bounded: when there are `count_max` groups, what is new goes to `OTHER`. Not thread-safe."""

    __slots__ = ("_count_max", "_sums")

    def __init__(self, count_max: int = GROUPS_MAX) -> None:
        self._count_max = count_max
        self._sums: dict[Hashable, list[int]] = {}

    def add(
        self, key: Hashable, calls: int, input_tokens: int = 0, output_tokens: int = 0, cost_pusd: int = 0,
        own_key_pusd: int = 0, discount_pusd: int = 0, markup_pusd: int = 0,
    ) -> None:  # fmt: skip
        """Count into a group."""
        sums = self._sums.get(key)
        if sums is None:
            key = key if len(self._sums) < self._count_max else OTHER
            sums = self._sums.setdefault(key, [0] * 7)
        sums[0] += calls
        sums[1] += input_tokens
        sums[2] += output_tokens
        sums[3] += cost_pusd
        sums[4] += own_key_pusd
        sums[5] += discount_pusd
        sums[6] += markup_pusd

    def items(self) -> Iterator[tuple[Hashable, list[int]]]:
        """Every key and its sums, in the order of the arguments of `add`."""
        yield from self._sums.items()

    def rows(self) -> tuple[GroupRow, ...]:
        """The dearest first, `OTHER` last."""
        rows = [
            GroupRow(
                name=None if key is None else str(key), calls=calls, input_tokens=inputs, output_tokens=outputs,
                cost_pusd=cost, own_key_pusd=own_key, discount_pusd=discount, markup_pusd=markup,
            )
            for key, (calls, inputs, outputs, cost, own_key, discount, markup) in self.items()
        ]  # fmt: skip
        rows.sort(key=lambda row: (row.name == OTHER, -row.cost_pusd, -row.calls, row.name or ""))
        return tuple(rows)


def groups_of(payers: Groups) -> dict[str, tuple[GroupRow, ...]]:
    """What sums by `Attribution` come to by user, key, organisation and each tag."""
    listed = [(by if isinstance(by, Attribution) else None, sums) for by, sums in payers.items()]
    tags = sorted({name for by, _ in listed if by is not None for name, _ in by.tags})
    found = {dimension: Groups() for dimension in (*PAYERS, *(TAG + name for name in tags))}
    for by, sums in listed:
        given: dict[str, str | None] = {}
        if by is not None:
            given = {"user": by.user, "key": by.key, "org": by.org, **{TAG + name: value for name, value in by.tags}}
        for dimension, groups in found.items():
            groups.add(OTHER if by is None else given.get(dimension), *sums)
    return {dimension: groups.rows() for dimension, groups in found.items()}


def group_usage(records: Iterable[UsageRecord], by: str, *, count_max: int = USAGE_GROUPS_MAX) -> tuple[GroupRow, ...]:
    """
    Usage summed by `user`, `key`, `org`, `model` (the one asked for), `agent`, `run`, `day` (UTC) or `tag:NAME`.

    Calls in flight are counted, at no cost yet; what was released, and so never sent, is not.

    Raises:
        ConfigError: Usage is not grouped by that.
    """
    key = _key(check_dimension(by))
    groups = Groups(count_max)
    for record in records:
        if record.state != "released":
            used = None if record.result is None else record.result.usage
            tokens = (0, 0) if used is None else (used.input_tokens, used.output_tokens)
            figures = figures_of(record)
            more = (0, 0, 0) if figures is None else (figures.own_key_pusd, figures.discount_pusd, figures.markup_pusd)
            groups.add(key(record), 1, *tokens, record.actual_pusd or 0, *more)
    rows = groups.rows()
    return tuple(sorted(rows, key=lambda row: row.name or "")) if by == "day" else rows


def with_tags(records: Iterable[UsageRecord], tags: Mapping[str, str]) -> Iterator[UsageRecord]:
    """Those that have all of these tags."""
    wanted = set(tags.items())
    return (record for record in records if wanted.issubset(record.facts.tags))


def check_dimension(by: str) -> str:
    """Return `by` if usage can be grouped by it. Raises ConfigError."""
    if by in USAGE_DIMENSIONS or (by.startswith(TAG) and by != TAG):
        return by
    raise no_such_group("Usage", USAGE_DIMENSIONS)


def no_such_group(what: str, dimensions: Iterable[str]) -> ConfigError:
    """The error for a dimension that nothing is grouped by."""
    return ConfigError(
        f"{what} is grouped by {', '.join(dimensions)} or tag:NAME, and by nothing else.",
        next_step='Write "user", or "tag:team" for the tag `team`.',
    )


def _key(by: str) -> Callable[[UsageRecord], str | None]:
    if by == "day":
        return lambda record: day_of(record.at_ms)
    if by.startswith(TAG):
        name = by[len(TAG) :]
        return lambda record: next((value for tag, value in record.facts.tags if tag == name), None)
    # An agent without a name is the root; a key and an organisation may be missing.
    return lambda record: getattr(record.facts, by) or None
