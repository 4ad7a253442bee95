"""`runrails prices check`, `diff` and `verify`: a price file, the shipped data, and what was charged by them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from runrails.cli.output import AsJson, error_panel, make_table, print_json, stderr, stdout, when
from runrails.errors import ConfigError, PriceUnknown
from runrails.money import format_usd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from runrails.ledger import Store, SupportsUsage, UsageRecord
    from runrails.pricing.book import PriceBook
    from runrails.pricing.cards import PriceCard
    from runrails.pricing.compile import Change
    from runrails.recompute import Recomputed

__all__ = ["check", "diff", "moment_ms", "project_file", "say", "show_changes", "verify"]

EXIT_NEGATIVE = 1
ROWS_MAX = 40
_LISTED_MAX = 1_000
"""Differences told one by one; the rest is counted."""


def check(
    file: Annotated[Path | None, typer.Argument(help="A price file. Without one the shipped data is checked.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check a price FILE, or the shipped data: its checksums, and what the installed genai-prices says now."""
    if file is not None:
        _check_file(file, as_json=as_json)
        return
    from runrails.pricing.patches import read_patches
    from runrails.pricing.snapshot import SnapshotDamaged, read_snapshot

    try:
        shipped, _ = read_snapshot().version, read_patches()
    except SnapshotDamaged as exc:
        say(f"The shipped price data is damaged: {exc}.", {"checksum": "wrong"}, as_json=as_json)
        raise typer.Exit(EXIT_NEGATIVE) from exc
    facts: dict[str, object] = {"checksum": "right", "shipped_version": shipped}
    found = _against_genai(facts)
    if found is None:
        say(f"The checksums are right (genai-prices {shipped}). Nothing to compare with.", facts, as_json=as_json)
        return
    versions = f"Shipped: genai-prices {shipped}; installed: {facts['installed_version']}"
    say(f"The checksums are right. {versions}; {len(found)} models differ.", facts, as_json=as_json)
    if found:
        show_changes(found, as_json=as_json)
        raise typer.Exit(EXIT_NEGATIVE)


def diff(
    litellm: Annotated[
        Path | None, typer.Option(help="litellm's price JSON. Default: that of an installed litellm, if there is one.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare our prices with the installed genai-prices and with litellm's table."""
    facts: dict[str, object] = {}
    changed = _against_genai(facts)
    path = litellm or _installed_litellm()
    rows: list[tuple[str, str, str]] = []
    if path is not None:
        from runrails.pricing.compile import litellm_table

        try:
            table = litellm_table(path.read_bytes())
        except (OSError, ValueError) as exc:
            raise ConfigError(f"{path} cannot be read: {exc}.", next_step="Point --litellm to its JSON.") from exc
        rows = _against_litellm(table, facts)
    if changed is None and path is None:
        facts["message"] = "Neither genai-prices nor litellm is installed."
    if as_json:
        print_json({**facts, "litellm_differences": [list(row) for row in rows]})
    else:
        _show_diff(changed, rows, facts, litellm=path is not None)
    if changed or rows:
        raise typer.Exit(EXIT_NEGATIVE)


def verify(
    store: Annotated[
        str | None,
        typer.Option("--store", metavar="URL", help="The store; by default RUNRAILS_STORE or the local one."),
    ] = None,
    since: Annotated[str | None, typer.Option(help="Only calls since this day or moment, UTC.")] = None,
    project: Annotated[Path | None, typer.Option(help="Price file. Default: ./runrails.toml if it is there.")] = None,
    allow_unkept: Annotated[
        bool, typer.Option("--allow-unkept", help="Do not fail for lines whose rates nobody has kept.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Work every charge out again, from its usage and the rates kept under its fingerprint."""
    from runrails.ledger import SupportsUsage
    from runrails.stores import open_store

    first_ms = 0 if since is None else moment_ms(since)
    counts: Counter[str] = Counter()
    differences: list[dict[str, object]] = []
    ledger = open_store(store)
    try:
        if not isinstance(ledger, SupportsUsage):
            raise ConfigError("This store keeps no usage.", next_step="Point --store to one that does.")
        for record, found in _recomputed(ledger, first_ms, project):
            counts[found.verdict] += 1
            counts["assumed"] += found.assumed
            if found.verdict == "differs" and len(differences) < _LISTED_MAX:
                differences.append(_difference(record, found))
    finally:
        ledger.close()
    facts: dict[str, object] = {
        "lines": counts.total() - counts["assumed"],
        **{name: counts[name] for name in ("equal", "differs", "stand_in", "open", "unkept", "billed", "assumed")},
        "differences": differences,
    }
    if as_json:
        print_json(facts)
    else:
        _show_verified(facts, differences)
    unverified = counts["unkept"] > 0 and not allow_unkept
    if unverified and not as_json:
        stderr().print(
            f"{counts['unkept']} lines could not be verified: nobody has kept the rates behind their fingerprints. "
            "If that is known (lines of before rates were kept), pass --allow-unkept.",
            soft_wrap=True,
        )
    if differences or unverified:
        raise typer.Exit(EXIT_NEGATIVE)


def project_file() -> Path | None:
    """The price file in the current directory, if there is one."""
    from runrails import settings

    return settings.price_file()


def moment_ms(at: str | None) -> int:
    """Milliseconds since the epoch of a moment in UTC; now for None."""
    from datetime import UTC, datetime

    from runrails.clocks import system_ms

    if at is None:
        return system_ms()
    try:
        moment = datetime.fromisoformat(at)
    except ValueError as exc:
        raise typer.BadParameter(f"{at!r} is not a moment like 2026-11-21 or 2026-11-21T14:30.") from exc
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1_000)


def say(text: str, facts: Mapping[str, object], *, as_json: bool) -> None:
    """One sentence for people, or its facts for a program."""
    if as_json:
        print_json({"message": text, **facts})
    else:
        stdout().print(text, soft_wrap=True)


def show_changes(found: list[Change], *, as_json: bool) -> None:
    """The first of the changed models, for people."""
    if as_json or not found:
        return
    rows = [[change.model, change.before or "absent", change.after or "absent"] for change in found[:ROWS_MAX]]
    if len(found) > ROWS_MAX:
        rows.append([f"… and {len(found) - ROWS_MAX} more", "", ""])
    stdout().print(make_table("Changed models", {"model": False, "before": False, "after": False}, rows))


def _check_file(file: Path, *, as_json: bool) -> None:
    from runrails.clocks import system_ms
    from runrails.pricing.book import PriceBook
    from runrails.pricing.project import read_project

    try:
        project = read_project(file)
        book = PriceBook(project=project)
        book.explain("gpt-4o", now_ms=system_ms())  # a contract's terms are held against each other when they are used
    except ConfigError as exc:
        if as_json:
            print_json({"in_order": False, **exc.as_dict()})
        else:
            stderr().print(error_panel(exc))
        raise typer.Exit(EXIT_NEGATIVE) from exc
    unpriced = [alias for alias in project.aliases if not _has_price(book, alias, system_ms())]
    facts: dict[str, object] = {
        "in_order": not unpriced,
        "prices": len(project.prices),
        "aliases": len(project.aliases),
        "terms": len(project.contract),
        "unpriced_aliases": unpriced,
    }
    text = f"{file}: {len(project.prices)} prices, {len(project.aliases)} aliases, {len(project.contract)} terms."
    say(
        text + (f" No price is known for what these stand for: {', '.join(unpriced)}." if unpriced else " In order."),
        facts, as_json=as_json,
    )  # fmt: skip
    if unpriced:
        raise typer.Exit(EXIT_NEGATIVE)


def _has_price(book: PriceBook, model: str, now_ms: int) -> bool:
    try:
        book.card(model, now_ms=now_ms)
    except PriceUnknown:
        return False
    return True


def _against_genai(facts: dict[str, object]) -> list[Change] | None:
    from runrails.pricing.compile import PricesUnavailable, changes, installed_snapshot
    from runrails.pricing.snapshot import SNAPSHOT_FILE

    try:
        installed, content = installed_snapshot()
    except PricesUnavailable:
        facts |= {"installed_version": None, "changes": []}
        return None
    found = changes(Path(SNAPSHOT_FILE).read_bytes(), content)
    facts |= {"installed_version": installed, "changes": [change._asdict() for change in found]}
    return found


def _against_litellm(table: Mapping[str, object], facts: dict[str, object]) -> list[tuple[str, str, str]]:
    from runrails.clocks import system_ms
    from runrails.pricing.book import PriceBook
    from runrails.pricing.compile import litellm_prices

    book, now_ms = PriceBook(), system_ms()
    counts: Counter[str] = Counter()
    rows: list[tuple[str, str, str]] = []
    for provider, model, theirs in litellm_prices(table):
        try:
            ours = _pair(book.card(model, provider=provider, now_ms=now_ms))
        except PriceUnknown:
            counts["refused"] += 1
            continue
        if ours == theirs:
            counts["equal"] += 1
        else:
            counts["differ"] += 1
            rows.append((f"{provider}:{model}", " / ".join(ours), " / ".join(theirs)))
    facts["litellm"] = {name: counts[name] for name in ("equal", "differ", "refused")}
    return rows


def _pair(card: PriceCard) -> tuple[str, str]:
    return usd_per_mtok(card.rates.input, card.denominator), usd_per_mtok(card.rates.output, card.denominator)


def usd_per_mtok(rate: int, denominator: int) -> str:
    """Dollars per million tokens of a card's rate, without a rounding that anybody could see."""
    from decimal import Context, Decimal

    value = Context(prec=28).divide(Decimal(rate), Decimal(10**6 * denominator))
    return f"{value.normalize():f}"


def _installed_litellm() -> Path | None:
    from importlib.util import find_spec

    spec = find_spec("litellm")
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        file = Path(place) / "model_prices_and_context_window_backup.json"
        if file.is_file():
            return file
    return None


def _show_diff(
    changed: list[Change] | None, rows: list[tuple[str, str, str]], facts: Mapping[str, object], *, litellm: bool
) -> None:
    if changed is None:
        stdout().print("genai-prices is not installed.")
    else:
        stdout().print(f"genai-prices {facts['installed_version']}: {len(changed)} models differ.")
        show_changes(changed, as_json=False)
    if not litellm:
        stdout().print("litellm is not installed; --litellm FILE compares with its table.")
        return
    counts = cast("Mapping[str, int]", facts["litellm"])
    stdout().print(f"litellm: {counts['equal']} equal, {counts['differ']} differ, {counts['refused']} refused by us.")
    if rows:
        shown = [list(row) for row in rows[:ROWS_MAX]]
        if len(rows) > ROWS_MAX:
            shown.append([f"… and {len(rows) - ROWS_MAX} more", "", ""])
        title = "Dollars per million tokens, in / out"
        stdout().print(make_table(title, {"model": False, "ours": True, "litellm": True}, shown))


def _recomputed(ledger: SupportsUsage, first_ms: int, project: Path | None) -> Iterator[tuple[UsageRecord, Recomputed]]:
    from runrails.recompute import recompute

    finder = _CardFinder(cast("Store", ledger), project)
    for record in ledger.usage():
        if record.at_ms >= first_ms:
            yield record, recompute(record, finder.for_record(record))


class _CardFinder:
    """Finds rates by fingerprint: those the store keeps, else today's, if they are the same."""

    def __init__(self, store: Store, project: Path | None) -> None:
        from runrails.ledger import SupportsPriceCards
        from runrails.pricing.book import PriceBook

        self._store = store if isinstance(store, SupportsPriceCards) else None
        self._book = PriceBook.load(project_file=project or project_file())
        self._known: dict[str, PriceCard] = {}

    def for_record(self, record: UsageRecord) -> Callable[[str], PriceCard | None]:
        def find(fingerprint: str) -> PriceCard | None:
            known = self._known.get(fingerprint) or self._kept(fingerprint) or self._now(fingerprint, record)
            if known is not None:
                self._known[fingerprint] = known
            return known

        return find

    def _kept(self, fingerprint: str) -> PriceCard | None:
        from runrails.pricing.cards import card_from_text

        text = None if self._store is None else self._store.price_card(fingerprint)
        try:
            card = None if text is None else card_from_text(text)
        except ValueError:
            return None
        # Whoever has changed the rates in the store has not found a text with the same fingerprint.
        return card if card is not None and card.fingerprint == fingerprint else None

    def _now(self, fingerprint: str, record: UsageRecord) -> PriceCard | None:
        facts, served = record.facts, None if record.result is None else record.result.model
        for model in (facts.model, served):
            try:
                card = None if not model else self._book.card(
                    model, provider=facts.provider or None, now_ms=record.at_ms
                )  # fmt: skip
            except PriceUnknown:
                continue
            for each in () if card is None else (card, *card.service_tiers):
                if each.fingerprint == fingerprint:
                    return each
        return None


def _difference(record: UsageRecord, found: Recomputed) -> dict[str, object]:
    return {
        "id": record.id,
        "at_ms": record.at_ms,
        "user": record.facts.user,
        "model": record.facts.model,
        "price_card": found.price_card,
        "recorded_pusd": record.actual_pusd,
        "recomputed_pusd": found.expected_pusd,
    }


def _show_verified(facts: Mapping[str, object], differences: list[dict[str, object]]) -> None:
    stdout().print(
        f"{facts['lines']} lines: {facts['equal']} as recorded, {facts['differs']} differ, {facts['stand_in']} charged "
        f"by a stand-in, {facts['open']} in flight, {facts['unkept']} without kept rates, {facts['billed']} as billed, "
        f"{facts['assumed']} at an assumed price.",
        soft_wrap=True,
    )
    if differences:
        rows = [
            [
                when(cast("int", line["at_ms"])), str(line["id"]), str(line["model"]),
                format_usd(cast("int", line["recorded_pusd"])), format_usd(cast("int", line["recomputed_pusd"])),
            ]
            for line in differences[:ROWS_MAX]
        ]  # fmt: skip
        headings = {"when (UTC)": False, "call": False, "model": False, "recorded": True, "worked out": True}
        stdout().print(make_table("Charges that differ", headings, rows))
