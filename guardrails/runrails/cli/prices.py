"""`runrails prices`: what a model costs and which layer says so, and whether the price data is in order."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runrails.cli import price_checks
from runrails.cli.output import EXIT_CODES, AsJson, error_panel, make_table, print_json, stderr, stdout
from runrails.cli.price_checks import moment_ms, project_file, say, show_changes, usd_per_mtok

if TYPE_CHECKING:
    from runrails.pricing.book import LayerSays
    from runrails.pricing.cards import PriceCard, Rates
    from runrails.pricing.compile import Change

__all__ = ["app", "prices"]

EXIT_NEGATIVE = 1
"""The model is unknown, or the data differs."""

app = typer.Typer(name="prices", help="Show, check and refresh model prices.", no_args_is_help=True)
prices = app


@app.command(epilog=EXIT_CODES)
def show(
    model: Annotated[str, typer.Argument(help="For instance gpt-4o, openai:gpt-4 or a Bedrock profile.")],
    provider: Annotated[str | None, typer.Option(help="Whose model it is: openai, azure, bedrock, …")] = None,
    at: Annotated[str | None, typer.Option(help="Moment in UTC like 2026-11-21T14:30. Default: now.")] = None,
    region: Annotated[str | None, typer.Option(help="Cloud region it is called in, for Bedrock.")] = None,
    tier: Annotated[str | None, typer.Option(help="Service tier: batch, flex, priority, …")] = None,
    project: Annotated[Path | None, typer.Option(help="Price file. Default: ./runrails.toml if it is there.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what MODEL costs, which layer says so and what it overrode."""
    from runrails.errors import PriceUnknown
    from runrails.pricing.book import PriceBook

    now_ms = moment_ms(at)
    book = PriceBook.load(project_file=project or project_file())
    try:
        card = book.card(model, provider=provider, now_ms=now_ms, region=region, tier=tier)
    except PriceUnknown as exc:
        if as_json:
            print_json(exc.as_dict())
        else:
            stderr().print(error_panel(exc))
        raise typer.Exit(EXIT_NEGATIVE) from exc
    layers = book.explain(model, provider=provider, now_ms=now_ms, region=region)
    if as_json:
        print_json(
            {
                **card.as_dict(),
                "at_ms": now_ms,
                "usd_per_mtok": _usd_per_mtok(card, card.rates),
                "layers": [_layer(each) for each in layers],
            }
        )
    else:
        _print_card(card)
        _print_layers(card, layers)


app.command(epilog=EXIT_CODES)(price_checks.check)
app.command(epilog=EXIT_CODES)(price_checks.diff)
app.command(epilog=EXIT_CODES)(price_checks.verify)


@app.command(epilog=EXIT_CODES)
def refresh(
    out: Annotated[Path | None, typer.Option(help="Directory to write to. Default: inside the package.")] = None,
    litellm: Annotated[
        Path | None, typer.Option(help="litellm's price JSON: also renews cross-check and patches.")
    ] = None,
    litellm_version: Annotated[str, typer.Option(help="Which release of litellm that file is of.")] = "unknown",
    allow_zero: Annotated[bool, typer.Option("--allow-zero", help="Let priced models become unpriced.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write the price data anew from the installed genai-prices."""
    from runrails.errors import ConfigError
    from runrails.pricing.compile import PricesUnavailable, changes, installed_snapshot, litellm_table, write_checked
    from runrails.pricing.snapshot import SNAPSHOT_FILE

    target = (Path(SNAPSHOT_FILE).parent if out is None else out) / "snapshot.json"
    try:
        version, content = installed_snapshot()
        table = None if litellm is None else litellm_table(litellm.read_bytes())
        found = changes(target.read_bytes(), content) if target.exists() else []
        if not allow_zero:
            _refuse_zeroes(found, as_json=as_json)
        write_checked(target, content)
        if table is not None:
            _write_second_opinion(target, table, litellm_version, content)
    except (PricesUnavailable, OSError, ValueError) as exc:
        raise ConfigError(f"The prices were not refreshed: {exc}", next_step="Correct that and repeat.") from exc
    facts: dict[str, object] = {"written": True, "version": version, "changes": [change._asdict() for change in found]}
    say(f"Wrote {target} from genai-prices {version}; {len(found)} models changed.", facts, as_json=as_json)
    show_changes(found, as_json=as_json)


def _refuse_zeroes(found: list[Change], *, as_json: bool) -> None:
    zeroed = [change for change in found if change.to_zero]
    if not zeroed:
        return
    text = f"Nothing was written: {len(zeroed)} models would lose their price. If that is right, add --allow-zero."
    say(text, {"written": False, "changes": [change._asdict() for change in zeroed]}, as_json=as_json)
    show_changes(zeroed, as_json=as_json)
    raise typer.Exit(EXIT_NEGATIVE)


def _write_second_opinion(target: Path, table: dict[str, object], version: str, content: bytes) -> None:
    import json

    from runrails.pricing.compile import EMPTY_CROSSCHECK, render_crosscheck, write_checked
    from runrails.pricing.patching import render_patches
    from runrails.pricing.snapshot import Snapshot

    data = json.loads(content)
    crosscheck = render_crosscheck(table, version, Snapshot(data, EMPTY_CROSSCHECK))
    write_checked(target.with_name("crosscheck.json"), crosscheck)
    patches = render_patches(table, version, Snapshot(data, json.loads(crosscheck)))
    write_checked(target.with_name("patches.json"), patches)


def _usd_per_mtok(card: PriceCard, rates: Rates) -> dict[str, str]:
    return {name: usd_per_mtok(rate, card.denominator) for name, rate in rates._asdict().items()}


def _layer(said: LayerSays) -> dict[str, object]:
    if said.card is None:
        return {"layer": said.layer, "usd_per_mtok": None, "why": said.why}
    return {
        "layer": said.layer,
        "usd_per_mtok": _usd_per_mtok(said.card, said.card.rates),
        "call_pusd": said.card.call_pusd,
        "note": said.card.note or None,
    }


def _print_card(card: PriceCard) -> None:
    from runrails.money import format_usd

    headings = {"dollars per million tokens": False, card.service_tier or "base": True}
    columns = [_usd_per_mtok(card, card.rates)]
    for tier in card.tiers:
        headings[f"input > {tier.above_tokens:,}"] = True
        columns.append(_usd_per_mtok(card, tier.rates))
    for other in card.service_tiers:
        headings[other.service_tier] = True
        columns.append(_usd_per_mtok(other, other.rates))
    rows = [[name.replace("_", " "), *(column[name] for column in columns)] for name in card.rates._fields]
    if card.call_pusd:
        rows.append(["each call, in dollars", format_usd(card.call_pusd)])
    for name, rate in card.uses._asdict().items():
        if rate is not None:
            rows.append([f"each {name.replace('_', ' ')}, in dollars", format_usd(rate)])
    for label, tokens in (("largest input", card.context_tokens_max), ("longest answer", card.output_tokens_max)):
        rows.append([label, "unknown" if tokens is None else f"{tokens:,} tokens"])
    title = f"{card.provider}:{card.model}" if card.provider else card.model
    table = make_table(title, headings, rows)
    over = f" over {card.over}" if card.over else ""
    table.caption = f"from {card.source}{over}, card {card.fingerprint[:16]}"
    stdout().print(table)


def _print_layers(card: PriceCard, layers: tuple[LayerSays, ...]) -> None:
    if card.note:
        stdout().print(f"Source: {card.note}.", soft_wrap=True)
    for said in layers:
        if said.card is not None and said.layer != card.source:
            rates = _usd_per_mtok(said.card, said.card.rates)
            stdout().print(f"Overridden: {said.layer}, {rates['input']} in and {rates['output']} out.", soft_wrap=True)
