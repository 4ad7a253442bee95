"""`runrails runs` and `runrails report`: what became of past runs, from the store's archive."""

from __future__ import annotations

from contextlib import contextmanager
from itertools import islice
from pathlib import Path  # noqa: TC003 -- Typer reads the annotations
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.text import Text

from runrails.cli.output import AsJson, make_table, print_json, stderr, stdout, when
from runrails.cli.shell import NEGATIVE
from runrails.cli.tags import Tag, tags_of
from runrails.errors import ConfigError
from runrails.ledger import RunArchive, RunRecord
from runrails.money import format_usd
from runrails.plainfields import end_of, run_fields

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping

__all__ = ["report", "runs"]

ID_SHOWN_CHARS = 12
"""How much of a run id the table shows; the report takes any beginning that only one run has."""
SEARCH_MAX = 10_000
"""How many of the newest runs a shortened id is looked for in."""

StoreUrl = Annotated[
    str | None, typer.Option("--store", metavar="URL", help="The store; by default RUNRAILS_STORE or the local one.")
]


def runs(
    user: Annotated[str | None, typer.Option("--user", help="Only this user's runs.")] = None,
    tag: Tag = None,
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=10_000, help="At most so many.")] = 20,
    store: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """List finished runs, newest first; those with a tag are looked for among the newest 10,000."""
    tags = tags_of(tag)
    with _archive(store) as archive:
        found = archive.runs(user=user, count_max=SEARCH_MAX if tags else count)
        records = list(islice((record for record in found if _has(record, tags)), count))
    if as_json:
        print_json([run_fields(record) for record in records])
        return
    if not records:
        stdout().print("No runs yet. A run is kept when it ends: with guard.run(): … or the callback's root chain.")
        return
    columns = {
        "run": False,
        "started (UTC)": False,
        "name": False,
        "user": False,
        "calls": True,
        "cost": True,
        "end": False,
    }
    stdout().print(make_table("Runs", columns, (_row(record) for record in records)))


def report(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The run's id, or its beginning.")],
    steps: Annotated[
        int, typer.Option("--steps", min=0, max=1_000, help="Show at most so many of the newest steps.")
    ] = 20,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write all of it, with plots, to a file for browsers.")
    ] = None,
    store: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """
    Show what one run did, what it cost, and what stopped it.

    With --html as one file that needs nothing else: it can be mailed, printed and kept.
    """
    with _archive(store) as archive:
        found = _find(archive, run)
    if len(found) == 1:
        if html is not None:
            _write(found[0], html)
        if html is None or as_json:
            _show(found[0], steps=steps, as_json=as_json)
        return
    what = "No run has this id." if not found else f"{len(found)} runs begin like this."
    if as_json:
        print_json({"error": "run_not_found" if not found else "run_ambiguous", "message": what})
    else:
        stderr().print(f"{what} `runrails runs` lists them.")
    raise typer.Exit(NEGATIVE)


def _write(record: RunRecord, file: Path) -> None:
    from runrails.archived import read_report
    from runrails.showing.reports import report_page

    about = f"Run {record.id}, {when(record.started_ms)} to {when(record.ended_ms)} UTC. Written by runrails."
    try:
        file.write_text(report_page(read_report(record.report), about=about), encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{file} cannot be written: {error.strerror}.", next_step="Choose another place for --html."
        ) from error
    stderr().print(f"Wrote {file}.", soft_wrap=True)


@contextmanager
def _archive(url: str | None) -> Generator[RunArchive]:
    from runrails.stores import open_store

    store = open_store(url)
    try:
        if not isinstance(store, RunArchive):
            raise ConfigError(
                "This store keeps no runs.", next_step="Point --store or RUNRAILS_STORE to one that does."
            )
        yield store
    finally:
        store.close()


def _has(record: RunRecord, tags: Mapping[str, str]) -> bool:
    return tags.items() <= _tags(record.report).items()


def _tags(facts: Mapping[str, object]) -> Mapping[str, str]:
    tags = facts.get("tags")
    return cast("Mapping[str, str]", tags) if isinstance(tags, dict) else {}


def _find(archive: RunArchive, run: str) -> list[RunRecord]:
    exact = archive.run(run)
    if exact is not None:
        return [exact]
    return [record for record in archive.runs(count_max=SEARCH_MAX) if record.id.startswith(run)]


def _row(record: RunRecord) -> tuple[str, ...]:
    facts = record.report
    return (
        record.id[:ID_SHOWN_CHARS],
        when(record.started_ms),
        record.name or "-",
        record.user,
        f"{_number(facts, 'model_calls'):,}",
        format_usd(_number(facts, "cost_pusd")),
        end_of(record),
    )


def _show(record: RunRecord, *, steps: int, as_json: bool) -> None:
    facts = record.report
    if as_json:
        print_json(dict(facts))
        return
    out = stdout()
    head = make_table(f"Run {record.name or record.id}", {"": False, " ": False}, _head(record))
    head.show_header = False
    out.print(head)
    for line in _stops(facts):
        out.print(line)
    newest = _items(facts, "rows")[-steps:] if steps else []
    if newest:
        columns = {"step": True, "kind": False, "name": False, "end": False, "tokens": True, "cost": True, "ms": True}
        title = f"The newest {len(newest)} of {_number(facts, 'steps'):,} steps"
        out.print(make_table(title, columns, (_step(row) for row in newest)))


def _head(record: RunRecord) -> Iterable[tuple[str, str]]:
    facts = record.report
    limit = facts.get("limit_pusd")
    of = f" of {format_usd(limit)}" if isinstance(limit, int) else ""
    yield "run", record.id
    yield "user", record.user
    for key in ("key", "org"):
        if facts.get(key) is not None:
            yield key, str(facts[key])
    if _tags(facts):
        yield "tags", ", ".join(f"{name}={value}" for name, value in _tags(facts).items())
    yield "mode", record.mode
    yield "started (UTC)", when(record.started_ms)
    yield "duration", f"{_number(facts, 'duration_ms') / 1000:.1f} s"
    yield "cost", format_usd(_number(facts, "cost_pusd")) + of
    for key, words in (("unresolved_pusd", "of it not confirmed"), ("overrun_pusd", "billed above the holds")):
        if _number(facts, key):
            yield words, format_usd(_number(facts, key))
    for saving in _items(facts, "savings"):
        amount, calls = format_usd(_number(saving, "saved_pusd")), _number(saving, "calls")
        yield f"saved by {saving.get('what', '')}", f"{amount} ({calls:,} {'call' if calls == 1 else 'calls'})"
    yield "model calls", f"{_number(facts, 'model_calls'):,}"
    yield "tool calls", f"{_number(facts, 'tool_calls'):,}"
    yield "tokens", f"{_number(facts, 'input_tokens'):,} in, {_number(facts, 'output_tokens'):,} out"
    yield "hints, blocks, refusals", ", ".join(str(_number(facts, key)) for key in ("hints", "blocks", "refusals"))
    yield "end", end_of(record)


def _stops(facts: Mapping[str, object]) -> Iterator[Text]:
    for key, style in (("stop_message", "bold red"), ("would_have_stopped", "bold yellow")):
        message = facts.get(key)
        if isinstance(message, str):
            yield Text(message, style=style)


def _step(row: Mapping[str, object]) -> tuple[str, ...]:
    agent = row.get("agent")
    name = f"{row.get('name', '')} ({agent})" if agent else str(row.get("name", ""))
    tokens = _number(row, "input_tokens") + _number(row, "output_tokens")
    is_model = row.get("kind") == "model"
    return (
        str(row.get("step", "")),
        str(row.get("kind", "")),
        name,
        str(row.get("end", "")),
        f"{tokens:,}" if is_model else "",
        format_usd(_number(row, "cost_pusd")) if is_model else "",
        f"{_number(row, 'duration_ms'):,}",
    )


def _number(facts: Mapping[str, object], key: str) -> int:
    value = facts.get(key)
    return value if isinstance(value, int) else 0


def _items(facts: Mapping[str, object], key: str) -> list[Mapping[str, object]]:
    value = facts.get(key)
    return cast("list[Mapping[str, object]]", value) if isinstance(value, list) else []
