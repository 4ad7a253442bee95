"""Pieces of HTML, and how a stop is shown."""

from __future__ import annotations

import io
from html.parser import HTMLParser

import pytest
from rich.console import Console

from rr_core import Bench, model_step
from runrails import Limits
from runrails.errors import (
    BudgetBusy,
    BudgetExceeded,
    GuardrailStopped,
    LimitReached,
    LoopDetected,
    PriceUnknown,
    RunrailsError,
)
from runrails.money import usd
from runrails.showing.html import Tone, bar, escape, fragment, page, panel, paragraph, table
from runrails.showing.stops import stop_facts, stop_panel, stop_rich, stop_text, stop_title

NASTY = "<script>alert(1)</script>\"'&\x1b[31m\u202e\ud800"
BUDGET = BudgetExceeded(
    scope="run:nightly", period="-", unit="pusd", limit=usd("2"), spent=usd("1.93"), held=0, needed=usd("0.12")
)
LOOP = LoopDetected(
    "Tool 'fetch_review' gave the same result 5 times.", next_step="If this is meant: write ToolRule(poll=True).",
    scope="run:nightly", rule="repeated_failure", tool="fetch_review", agent="reader", count=5, threshold=5,
    first_step=3, last_step=7, call_fingerprint="ab" * 8, spent_pusd=usd("0.16"), tokens=12_000,
)  # fmt: skip


class Reader(HTMLParser):
    """Balances the tags of what it is fed, and keeps their names and the text."""

    VOID = ("meta", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


def read(html: str) -> Reader:
    """What a browser would see."""
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert [] == reader.open
    html.encode()  # no half letters
    return reader


def test_text_is_escaped_and_what_cannot_be_seen_is_shown() -> None:
    """Markup, quotes, a terminal's commands, turned text and half letters are harmless."""
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#x27;&amp;?[31m??" == escape(NASTY)
    assert "Zoë 👩‍🔬 東京\n\t" == escape("Zoë 👩‍🔬 東京\n\t")


def test_every_piece_escapes_its_texts() -> None:
    """No text that a piece is given becomes a tag."""
    whole = page(
        NASTY, panel(NASTY, paragraph(NASTY, soft=True), tone=Tone.WARN), table([NASTY], [[NASTY]]),
        bar(NASTY, 1, 2, text=NASTY),
    )  # fmt: skip
    seen = read(whole)
    assert "script" not in seen.tags
    assert 8 == seen.text.count("<script>alert(1)</script>")


def test_a_fragment_has_one_style_and_nothing_from_elsewhere() -> None:
    """No script, no address, no style at single elements, and classes that begin with `rr-` but for MathJax's own."""
    seen = read(fragment(panel("a", bar("b", 1, 3, text="c"), tone=Tone.OK), table(["d"], [["e"]], right=[0])))
    names = {name for name, _ in seen.attributes}
    classes = {each for name, value in seen.attributes if name == "class" and value for each in value.split()}
    assert 1 == seen.tags.count("style")
    assert set() == names & {"style", "src", "href", "onclick", "onload"}
    # Jupyter would set what stands between two dollar signs as a formula.
    assert {"tex2jax_ignore", "mathjax_ignore"} == {each for each in classes if not each.startswith("rr-")}
    assert "abcde" == seen.text


def test_only_the_frames_of_tables_are_sized_without_their_content() -> None:
    """All of a fragment would have no width in a flex item or a table's cell, and nothing would be seen."""
    style = fragment().split("<style>")[1].split("</style>")[0]
    sized = [rule.split("{")[0].strip() for rule in style.split("}") if "inline-size" in rule]
    assert [".rr-scroll"] == sized


def test_a_page_allows_itself_nothing_from_elsewhere() -> None:
    """The document says in its own policy that it needs nothing."""
    whole = page("Run a", paragraph("b"))
    assert "default-src 'none'" in whole
    assert "http" not in whole.replace("http-equiv", "")
    assert whole.startswith("<!DOCTYPE html>")


@pytest.mark.parametrize(
    ("part", "whole", "width"),
    [(0, 10, "0"), (1, 3, "333"), (10, 10, "1000"), (11, 10, "1000"), (-1, 10, "0"), (0, 0, "1000"), (1, 0, "1000")],
)
def test_a_bar_is_filled_by_its_part(part: int, whole: int, width: str) -> None:
    """From empty to full, also below nothing, above everything and of nothing."""
    assert f'class="rr-track-part" width="{width}"' in bar("a", part, whole, text="b")


def test_without_a_whole_there_is_no_bar() -> None:
    """What has no limit is told in words."""
    assert "svg" not in bar("spent", 5, None, text="$5.00")
    assert "$5.00" in bar("spent", 5, None, text="$5.00")


def test_the_columns_of_numbers_stand_right() -> None:
    """In the head and in every row, and in no other column."""
    made = table(["step", "model"], [["1", "m"], ["2", "n"]], right=[0])
    assert 3 == made.count('class="rr-num"')
    assert '<td class="rr-num">2</td><td>n</td>' in made


def test_a_budget_stop_says_whose_how_much_the_limit_and_what_to_do() -> None:
    """As a panel, as lines and for Rich."""
    console = Console(width=60, file=io.StringIO(), record=True)
    console.print(stop_rich(BUDGET))
    for shown in (read(stop_panel(BUDGET)).text, stop_text(BUDGET), console.export_text()):
        for wanted in ("the budget is used up", "run:nightly", "$2.00", "$1.93", "$0.12", "Limits(run="):
            assert wanted in shown, (wanted, shown)
    assert '<rect class="rr-track-part" width="965"' in stop_panel(BUDGET)
    assert "rr-stop" in stop_panel(BUDGET)


def test_a_loop_says_which_tool_how_often_and_what_it_cost() -> None:
    """The fields of a loop, and how to allow it."""
    shown = read(stop_panel(LOOP)).text
    for wanted in ("fetch_review", "reader", "repeated failure, seen 5 times, threshold 5", "$0.16", "poll=True"):
        assert wanted in shown, wanted


def test_a_refusal_is_no_stop() -> None:
    """It is told apart by its title and its colour."""
    busy = BudgetBusy(scope="user:a", period="2026-11", unit="pusd", limit=5, spent=1, held=4, needed=2, waited_ms=3)
    assert "Not started: calls in flight hold the budget" == stop_title(busy)
    assert "rr-warn" in stop_panel(busy).split("</style>")[1]
    assert ("whose", "user:a in 2026-11") in stop_facts(busy)


@pytest.mark.parametrize(
    "stop",
    [
        GuardrailStopped("Somebody stopped it.", next_step="Ask them."),
        LimitReached(scope="run:a", unit="steps", limit=5, used=5, setting="steps"),
        PriceUnknown("No price for 'x'.", next_step="Write one.", model="x"),
        GuardrailStopped(NASTY, next_step=NASTY, scope=NASTY, tool=NASTY, rule=NASTY, unit=NASTY, limit=True),
    ],
    ids=["plain", "limit", "price", "nasty"],
)
def test_any_stop_can_be_shown(stop: RunrailsError) -> None:
    """Whatever fields it has or has not."""
    assert stop_text(stop)
    assert "script" not in read(stop_panel(stop)).tags
    console = Console(width=40, file=io.StringIO(), record=True)
    console.print(stop_rich(stop))
    assert "\x1b[31m" not in console.export_text()


def test_a_stop_is_shown_with_what_its_run_did() -> None:
    """With a report, the run's cost, steps, tokens and time are told as well."""
    bench = Bench(Limits(run="0.02"))
    with pytest.raises(BudgetExceeded) as caught, bench.guard.run("nightly") as run:
        while True:
            model_step(run)
            bench.clock.advance(1_000)
    report = run.report()
    facts = dict(stop_facts(caught.value, report))
    assert "nightly" == facts["run"]
    assert f"{report.steps:,}: {report.model_calls:,} model, 0 tool" == facts["run's steps"]
    assert facts["run's time"] in read(stop_panel(caught.value, report)).text
