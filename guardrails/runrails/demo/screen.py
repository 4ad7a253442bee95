"""What the demo shows: a live table while it plays, and its figures in the end."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from runrails.demo.figures import STORY_PUSD, Demo, PassKey, Play
from runrails.demo.reviews import REVIEWS
from runrails.money import format_usd

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

__all__ = ["HEADINGS", "LiveScreen", "PlainScreen", "SilentScreen", "show_result"]

HEADINGS: Mapping[PassKey, str] = {
    "unguarded": "without a guard",
    "guarded": "with the callback",
    "budget": "budget only",
}
_CODE: Mapping[PassKey, str] = {
    "guarded": 'agent.invoke(inputs, {"callbacks": [GuardrailCallbackHandler(guard)]})',
    "budget": 'guard = Guard(limits=Limits(run="10", loops=None))',
}
"""What a user would have written; one line in the first case."""


class SilentScreen:
    """Shows nothing: for `--json` when nobody watches."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to clear away."""

    def begin(self, key: PassKey) -> None:
        """A pass begins."""

    def failed(self, key: PassKey, failures: int, model_calls: int) -> None:
        """The failing call has been executed once more."""

    def end(self, play: Play) -> None:
        """A pass is over."""


class PlainScreen(SilentScreen):
    """A line a pass: for output that is not a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def end(self, play: Play) -> None:
        """Say how the pass went."""
        facts = play.facts
        how = "until the morning" if facts.stopped is None else f"stopped: {facts.stopped.reason}"
        self._console.print(
            f"{HEADINGS[facts.key]}: {facts.failing_executions:,} retries, {play.model_calls:,} model calls, "
            f"{facts.seconds:.1f} s, {how}",
            highlight=False,
            soft_wrap=True,
        )


class LiveScreen(SilentScreen):
    """A table that moves while the agent works."""

    def __init__(self, console: Console, *, retries: int) -> None:
        self._retries = retries
        self._lock = threading.Lock()
        self._failures: dict[PassKey, int] = {}
        self._model_calls: dict[PassKey, int] = {}
        self._over: dict[PassKey, Play] = {}
        self._live = Live(
            console=console, refresh_per_second=8, transient=True, get_renderable=self._table, redirect_stdout=False
        )

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def begin(self, key: PassKey) -> None:
        """A pass begins."""
        with self._lock:
            self._failures[key] = self._model_calls[key] = 0

    def failed(self, key: PassKey, failures: int, model_calls: int) -> None:
        """The failing call has been executed once more."""
        with self._lock:
            self._failures[key], self._model_calls[key] = failures, model_calls

    def end(self, play: Play) -> None:
        """A pass is over."""
        with self._lock:
            self._over[play.facts.key] = play
            self._failures[play.facts.key] = play.facts.failing_executions
            self._model_calls[play.facts.key] = play.model_calls

    def _table(self) -> RenderableType:
        table = Table(
            title="A real agent analyses six reviews; one is not in English", title_justify="left", expand=True
        )
        table.add_column("pass", no_wrap=True)
        table.add_column("retries", ratio=1)
        table.add_column("", justify="right", min_width=3)
        table.add_column("calls", justify="right")
        table.add_column("at $3.20", justify="right", min_width=9)
        table.add_column("", min_width=7)
        with self._lock:
            for key, heading in HEADINGS.items():
                table.add_row(*self._row(key, heading))
        return table

    def _row(self, key: PassKey, heading: str) -> tuple[RenderableType, ...]:
        failures = self._failures.get(key)
        if failures is None:
            begun = bool(self._failures) or key != "unguarded"
            return heading, "", "", "", "", Text("waiting" if begun else "loading", style="dim")
        play = self._over.get(key)
        bar = ProgressBar(total=self._retries, completed=failures)
        if play is None:
            state = Text("running", style="yellow")
        else:
            state = Text("stopped", style="green") if play.facts.stopped else Text("ran on", style="red")
        money = format_usd(failures * STORY_PUSD)
        return heading, bar, f"{failures:,}", f"{self._model_calls[key]:,}", money, state


def show_result(console: Console, demo: Demo) -> None:
    """The stops in the words a user would see, what was kept, and the figures."""
    for key, code in _CODE.items():
        console.print(_stop_panel(demo.plays[key], code), highlight=False)
    console.print(_figures(demo), *_notes(demo), sep="\n", highlight=False)
    if demo.avoided_pusd:
        left = demo.plays["guarded"].facts.failing_executions
        avoided = format_usd(demo.avoided_pusd)
        console.print(Text(f"With the callback, {demo.retries:,} became {left:,}: {avoided} not spent (2).", "bold"))


def _stop_panel(play: Play, code: str) -> Panel:
    facts = play.facts
    parts: list[RenderableType] = [Text(code, style="cyan"), ""]
    if facts.stopped is None:
        parts.append(Text("Not stopped: the scripted morning came first.", style="yellow"))
    else:
        parts.append(Text.assemble((f"{facts.stopped.exception}: ", "bold red"), facts.stopped.message))
    kept = ", ".join(f"{review} {topic}" for review, topic in sorted(facts.topics.items())) or "nothing yet"
    missing = ", ".join(review.id for review in REVIEWS if review.id not in facts.topics)
    parts += ["", Text.assemble(("Classified before the stop, and kept: ", "green"), f"{kept}. Open: {missing}.")]
    return Panel(Group(*parts), title=HEADINGS[facts.key], title_align="left")


def _figures(demo: Demo) -> Table:
    table = Table(title=f"One failing call, {demo.retries:,} retries", title_justify="left", expand=True)
    table.add_column("", ratio=1)
    for heading in ("no guard", "callback", "budget only"):
        table.add_column(heading, justify="right")
    plays = [demo.plays[key] for key in HEADINGS]

    def row(label: str, *cells: str, style: str | None = None, last: bool = False) -> None:
        table.add_row(label, *cells, style=style, end_section=last)

    row("model calls", *(f"{play.model_calls:,}" for play in plays))
    row("tool calls", *(f"{play.tool_calls:,}" for play in plays))
    row("the failing call, executed", *(f"{play.facts.failing_executions:,}" for play in plays), style="bold")
    row("model calls after the last", *(f"{play.facts.model_calls_after_last_failure:,}" for play in plays))
    row("tokens (1)", *(f"{play.tokens:,}" for play in plays), last=True)
    row("the retries, at $3.20 each (2)", *(format_usd(play.story_retries_pusd) for play in plays), style="bold")
    row("whole run, at $3.20 a call (2)", *(format_usd(play.story_pusd) for play in plays))
    row("whole run, price table (3)", *(format_usd(play.table_pusd) for play in plays))
    row("guard's ledger (4)", *("-" if p.ledger_pusd is None else format_usd(p.ledger_pusd) for p in plays), last=True)
    row("ended by", *("morning" if p.facts.stopped is None else p.facts.stopped.exception for p in plays))
    row("ended before model call", *("-" if p.facts.stopped is None else f"{p.model_calls + 1:,}" for p in plays))
    return table


def _notes(demo: Demo) -> list[Text]:
    price = format_usd(demo.story_card.call_pusd)
    total = format_usd(demo.plays["unguarded"].story_retries_pusd)
    told = ", where the article says $2,847" if demo.retries == 891 else ""
    notes = (
        "(1) 4,000 a model call is the article's figure; 3,500 in and 500 out is our split.",
        f'(2) The article\'s figure, set by hand: prices={{"{demo.model}": Price(call="3.20")}}.',
        f"    {demo.retries:,} x {price} is {total}{told}.",
        f"(3) {demo.model} in the built-in price table, which never comes near {price} a call.",
    )
    if demo.ledger_equals_bill:
        agreement = Text("(4) Equals the provider's own bill, to the picodollar and token by token.", "dim")
    else:
        agreement = Text("(4) DIFFERS from the provider's own bill. Please report this.", style="bold red")
    return [*(Text(note, style="dim") for note in notes), agreement]
