"""`runrails prices`: what a model costs, and whether the shipped price data is still what genai-prices publishes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from runrails.cli.output import EXIT_CODES, AsJson, error_panel, make_table, print_json, stderr, stdout

if TYPE_CHECKING:
    from runrails.pricing.cards import PriceCard, Rates
    from runrails.pricing.compile import Change

__all__ = ["app", "prices"]

EXIT_NEGATIVE = 1
"""The model is unknown, or the data differs."""
_ROWS_MAX = 40

app = typer.Typer(name="prices", help="Show, check and refresh model prices.", no_args_is_help=True)
prices = app


@app.command(epilog=EXIT_CODES)
def show(
    model: Annotated[str, typer.Argument(help="For instance gpt-4o, openai:gpt-4 or a Bedrock profile.")],
    provider: Annotated[str | None, typer.Option(help="Whose model it is: openai, azure, bedrock, …")] = None,
    at: Annotated[str | None, typer.Option(help="Moment in UTC like 2026-11-21T14:30. Default: now.")] = None,
    project: Annotated[Path | None, typer.Option(help="Price file. Default: ./runrails.toml if it is there.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what MODEL costs and which layer says so."""
    from runrails.errors import PriceUnknown
    from runrails.pricing.book import PriceBook

    now_ms = _moment_ms(at)
    try:
        card = PriceBook.load(project_file=project or _project_file()).card(model, provider=provider, now_ms=now_ms)
    except PriceUnknown as exc:
        if as_json:
            print_json(exc.as_dict())
        else:
            stderr().print(error_panel(exc))
        raise typer.Exit(EXIT_NEGATIVE) from exc
    if as_json:
        print_json({**card.as_dict(), "at_ms": now_ms, "usd_per_mtok": _usd_per_mtok(card, card.rates)})
    else:
        _print_card(card)


@app.command(epilog=EXIT_CODES)
def check(as_json: AsJson = False) -> None:
    """Check the shipped data: its checksum, and what the installed genai-prices says now."""
    from runrails.pricing.compile import PricesUnavailable, changes, installed_snapshot
    from runrails.pricing.snapshot import SNAPSHOT_FILE, SnapshotDamaged, read_snapshot

    try:
        shipped = read_snapshot().version
    except SnapshotDamaged as exc:
        _say(f"The shipped price data is damaged: {exc}.", {"checksum": "wrong"}, as_json=as_json)
        raise typer.Exit(EXIT_NEGATIVE) from exc
    facts: dict[str, object] = {"checksum": "right", "shipped_version": shipped}
    try:
        installed, content = installed_snapshot()
    except PricesUnavailable as exc:
        facts |= {"installed_version": None, "changes": []}
        _say(f"The checksum is right (genai-prices {shipped}). Nothing to compare: {exc}", facts, as_json=as_json)
        return
    found = changes(Path(SNAPSHOT_FILE).read_bytes(), content)
    facts |= {"installed_version": installed, "changes": [change._asdict() for change in found]}
    versions = f"Shipped: genai-prices {shipped}; installed: {installed}"
    _say(f"The checksum is right. {versions}; {len(found)} models differ.", facts, as_json=as_json)
    if found:
        _print_changes(found, as_json=as_json)
        raise typer.Exit(EXIT_NEGATIVE)


@app.command(epilog=EXIT_CODES)
def refresh(
    out: Annotated[Path | None, typer.Option(help="Directory to write to. Default: inside the package.")] = None,
    litellm: Annotated[Path | None, typer.Option(help="litellm's price JSON: also renews the cross-check.")] = None,
    litellm_version: Annotated[str, typer.Option(help="Which release of litellm that file is of.")] = "unknown",
    allow_zero: Annotated[bool, typer.Option("--allow-zero", help="Let priced models become unpriced.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write the price data anew from the installed genai-prices."""
    from runrails.errors import ConfigError
    from runrails.pricing.compile import PricesUnavailable, changes, installed_snapshot, write_checked
    from runrails.pricing.snapshot import SNAPSHOT_FILE

    target = (Path(SNAPSHOT_FILE).parent if out is None else out) / "snapshot.json"
    try:
        version, content = installed_snapshot()
        table = None if litellm is None else _litellm_table(litellm)
        found = changes(target.read_bytes(), content) if target.exists() else []
        if not allow_zero:
            _refuse_zeroes(found, as_json=as_json)
        write_checked(target, content)
        if table is not None:
            write_checked(target.with_name("crosscheck.json"), _crosscheck(table, litellm_version, content))
    except (PricesUnavailable, OSError, ValueError) as exc:
        raise ConfigError(f"The prices were not refreshed: {exc}", next_step="Correct that and repeat.") from exc
    facts: dict[str, object] = {"written": True, "version": version, "changes": [change._asdict() for change in found]}
    _say(f"Wrote {target} from genai-prices {version}; {len(found)} models changed.", facts, as_json=as_json)
    _print_changes(found, as_json=as_json)


def _refuse_zeroes(found: list[Change], *, as_json: bool) -> None:
    zeroed = [change for change in found if change.to_zero]
    if not zeroed:
        return
    text = f"Nothing was written: {len(zeroed)} models would lose their price. If that is right, add --allow-zero."
    _say(text, {"written": False, "changes": [change._asdict() for change in zeroed]}, as_json=as_json)
    _print_changes(zeroed, as_json=as_json)
    raise typer.Exit(EXIT_NEGATIVE)


def _litellm_table(path: Path) -> dict[str, object]:
    table: object = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(table, dict):
        raise ValueError(f"{path} is not litellm's price table")  # noqa: TRY004 -- bad input, not a wrong argument
    return cast("dict[str, object]", table)


def _crosscheck(table: dict[str, object], version: str, content: bytes) -> bytes:
    from runrails.pricing.compile import EMPTY_CROSSCHECK, render_crosscheck
    from runrails.pricing.snapshot import Snapshot

    return render_crosscheck(table, version, Snapshot(json.loads(content), EMPTY_CROSSCHECK))


def _project_file() -> Path | None:
    from runrails.pricing.project import PROJECT_FILE

    here = Path(PROJECT_FILE)
    return here if here.is_file() else None


def _moment_ms(at: str | None) -> int:
    from datetime import UTC, datetime

    from runrails.clocks import system_ms

    if at is None:
        return system_ms()
    try:
        moment = datetime.fromisoformat(at)
    except ValueError as exc:
        raise typer.BadParameter(f"{at!r} is not a moment like 2026-11-21 or 2026-11-21T14:30.") from exc
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1_000)


def _usd_per_mtok(card: PriceCard, rates: Rates) -> dict[str, str]:
    from decimal import Context, Decimal

    scale = Decimal(10**6 * card.denominator)
    divide = Context(prec=28).divide
    return {name: f"{divide(Decimal(rate), scale).normalize():f}" for name, rate in rates._asdict().items()}


def _print_card(card: PriceCard) -> None:
    from runrails.money import format_usd

    headings = {"dollars per million tokens": False, "base": True}
    columns = [_usd_per_mtok(card, card.rates)]
    for tier in card.tiers:
        headings[f"input > {tier.above_tokens:,}"] = True
        columns.append(_usd_per_mtok(card, tier.rates))
    rows = [[name.replace("_", " "), *(column[name] for column in columns)] for name in card.rates._fields]
    if card.call_pusd:
        rows.append(["each call, in dollars", format_usd(card.call_pusd)])
    for label, tokens in (("largest input", card.context_tokens_max), ("longest answer", card.output_tokens_max)):
        rows.append([label, "unknown" if tokens is None else f"{tokens:,} tokens"])
    title = f"{card.provider}:{card.model}" if card.provider else card.model
    table = make_table(title, headings, rows)
    table.caption = f"from {card.source}, card {card.fingerprint[:16]}"
    stdout().print(table)


def _print_changes(found: list[Change], *, as_json: bool) -> None:
    if as_json or not found:
        return
    rows = [[change.model, change.before or "absent", change.after or "absent"] for change in found[:_ROWS_MAX]]
    if len(found) > _ROWS_MAX:
        rows.append([f"… and {len(found) - _ROWS_MAX} more", "", ""])
    stdout().print(make_table("Changed models", {"model": False, "before": False, "after": False}, rows))


def _say(text: str, facts: dict[str, object], *, as_json: bool) -> None:
    if as_json:
        print_json({"message": text, **facts})
    else:
        stdout().print(text, soft_wrap=True)
