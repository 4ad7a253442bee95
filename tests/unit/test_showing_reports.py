"""How runs, reports, balances and outcomes are shown: to people, and to what they calculate with."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import replace

import pytest
from rich.console import Console

from rr_core import FAILED, OK, Bench, model_step, tool_step
from runrails import Limits, LoopDetected
from runrails.archived import read_report
from runrails.calls import ModelResult, ToolCall, ToolOutcome
from runrails.ledger import Account, Balance
from runrails.loops import ToolRule
from runrails.outcome import Outcome
from runrails.report import STEPS_KEPT_MAX, Report, StepRow
from runrails.run import Run
from runrails.showing.charts import WIDTH, charts, ticks
from runrails.showing.reports import ROW_NAMES, report_page
from runrails.showing.series import CALLS_SHOWN_MAX, series_of
from runrails.showing.terminal import Sheet
from runrails.usage import Usage

SECRET = "sk-prompt-argument-result"


def looped(limits: Limits | None = None) -> Run:
    """A run in which a failing call is hinted at, blocked and stopped."""
    bench = Bench(limits)
    run = bench.guard.run("nightly")
    with pytest.raises(LoopDetected):
        while True:
            model_step(run, result=ModelResult(end="completed", usage=Usage(input_tokens=10, output_tokens=5)))
            call = ToolCall(name="classify", args={"text": SECRET})
            if not hasattr(run.before_tool(call, can_block=True), "message"):
                bench.clock.advance(250)
                run.after_tool(call, ToolOutcome(ok=False, result=SECRET), can_block=True)
    return run


@pytest.fixture(scope="module")
def stopped() -> Run:
    """Nobody changes it."""
    return looped()


def printed(thing: object, width: int = 80) -> str:
    """What a terminal of that width shows."""
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(thing)
    return console.export_text()


# What is kept of a step.


def test_each_step_tells_its_call_its_finding_and_the_cost_so_far(stopped: Run) -> None:
    """The ladder stands at the very steps where it was climbed, and equal calls have one fingerprint."""
    report = stopped.report()
    tools = [row for row in report.rows if row.kind == "tool"]
    assert ["", "", "hint", "", "block"] == [row.finding for row in tools]
    assert {finding.call_fingerprint for finding in report.findings} == {row.call for row in tools}
    models = [row for row in report.rows if row.kind == "model"]
    assert [10**10 * n for n in range(1, len(models) + 1)] == [row.total_pusd for row in models]
    assert "stop" == report.rows[-1].finding
    assert report.cost_pusd == report.rows[-1].total_pusd


def test_without_a_loop_detector_calls_have_no_fingerprint() -> None:
    """They are told apart by their names alone."""
    run = Bench(Limits(loops=None)).guard.run()
    tool_step(run)
    assert ("", "") == (run.report().rows[0].call, run.report().rows[0].finding)


def test_observing_marks_what_would_have_been_blocked() -> None:
    """Nothing is blocked, so the mark stands at the step that gave the reason."""
    run = Bench(mode="observe").guard.run()
    for _ in range(6):
        tool_step(run)
    assert "hint" in [row.finding for row in run.report().rows]
    assert {"block", "stop"} & {row.finding for row in run.report().rows}
    assert "blocked" not in {row.end for row in run.report().rows}


def test_a_child_s_cost_is_in_its_parent_s_total() -> None:
    """A parent that goes on after its child begins where the child ended."""
    bench = Bench()
    with bench.guard.run("outer") as outer:
        model_step(outer)
        with bench.guard.run("inner") as inner:
            model_step(inner)
        model_step(outer)
    assert [10**10, 3 * 10**10] == [row.total_pusd for row in outer.report().rows]
    assert [0, 10**10, 3 * 10**10] == [series_of(outer.report()).before_pusd, *series_of(outer.report()).total_pusd]


def test_a_kept_report_is_read_back_as_it_was(stopped: Run) -> None:
    """Through JSON, as stores keep it, with every step, finding and group."""
    report = stopped.report()
    assert report == read_report(json.loads(json.dumps(report.as_dict())))


def test_records_of_other_versions_can_be_read(stopped: Run) -> None:
    """What is missing is empty, what is new or of another form is left out; nothing raises."""
    plain = json.loads(json.dumps(stopped.report().as_dict()))
    for row in plain["rows"]:
        for name in ("call", "finding", "total_pusd"):
            row.pop(name, None)
    plain["rows"][0]["new_in_a_later_version"] = 1
    plain["groups"] = "no groups"
    old = read_report(plain)
    assert ("", "", None) == old.rows[0][-3:]
    assert {} == old.groups
    assert stopped.report().cost_pusd == series_of(old).total_pusd[-1]
    empty = read_report({"rows": [1, None, "x", {}], "findings": {}, "limit_pusd": True, "steps": "many"})
    assert (0, None, 1) == (
        empty.steps,
        empty.limit_pusd,
        sum(row.name == "" and row.step == 0 for row in empty.rows[:1]),
    )
    assert report_page(empty)


def test_only_what_a_step_has_is_kept_of_it(stopped: Run) -> None:
    """A thousand steps are one record of a store, so empty fields are left out."""
    rows = stopped.report().as_dict()["rows"]
    assert isinstance(rows, list)
    assert "call" not in rows[0]
    assert "finding" not in rows[0]
    assert "total_pusd" in rows[0]


# For programs.


def test_rows_are_flat_and_have_no_content(stopped: Run) -> None:
    """One row a step, the same names in each, whole numbers and text, amounts exact."""
    rows = stopped.report().to_rows()
    assert len(stopped.report().rows) == len(rows)
    assert all(tuple(row) == ROW_NAMES for row in rows)
    assert all(type(value) in (str, int, type(None)) for row in rows for value in row.values())
    assert ("0.01", 10**10) == (rows[0]["cost_usd"], rows[0]["cost_pusd"])


def test_a_data_frame_needs_pandas_and_says_so(stopped: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the fix, and what gives the same without it."""
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"pip install pandas.*to_rows"):
        stopped.report().to_dataframe()


def test_a_data_frame_is_made_of_the_rows(stopped: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever `pandas` is: it is handed the rows and the order of the columns."""

    class DataFrame:
        def __init__(self, rows: list[dict[str, object]], *, columns: list[str]) -> None:
            self.rows, self.columns = rows, columns

    monkeypatch.setitem(sys.modules, "pandas", type(sys)("pandas"))
    monkeypatch.setattr(sys.modules["pandas"], "DataFrame", DataFrame, raising=False)
    frame = stopped.report().to_dataframe()
    assert (stopped.report().to_rows(), list(ROW_NAMES)) == (frame.rows, frame.columns)


# For people.


@pytest.mark.parametrize("width", [40, 80, 140])
def test_everything_is_shown_in_any_terminal(stopped: Run, width: int) -> None:
    """No line is longer than the terminal, and no short word is broken."""
    balance = stopped.guard.store.balance(Account(f"run:{stopped.id}", "-"))
    outcome = Outcome(answer="It was dark.", value=None, stop=stopped.stopped, report=stopped.report(), run=stopped)
    for thing in (stopped, stopped.report(), balance, outcome):
        text = printed(thing, width)
        assert max(map(len, text.splitlines())) <= width
        if thing is not balance:
            assert "classify" in text
            assert "blocked" in text
    assert "It was dark." in printed(outcome, width)


def test_as_text_it_is_a_few_lines(stopped: Run) -> None:
    """Without Rich and without HTML."""
    balance = stopped.guard.store.balance(Account(f"run:{stopped.id}", "-"))
    assert str(stopped.report()) == str(stopped)
    assert f"run:{stopped.id}: $0.06 spent of $1.00 (active)" == str(balance)
    assert f"<Run {stopped.id} 'nightly': $0.06 of $1.00, 10 steps, loop_detected>" == repr(stopped)


def test_html_tells_how_it_ended_what_it_cost_and_where(stopped: Run) -> None:
    """For notebooks, with the plots; and of the run the same as of its report."""
    html = stopped.report()._repr_html_()
    for wanted in (
        "stopped (loop detected)",
        "$0.06 of $1.00",
        "rr-curve",
        "rr-mark-hint",
        "rr-mark-block",
        "classify",
    ):
        assert wanted in html, wanted
    assert html == stopped._repr_html_()


def test_a_balance_is_coloured_by_its_status() -> None:
    """Active, warning, blocked; and without a limit there is no bar."""
    for spent, limit, tone in ((1, 100, "ok"), (85, 100, "warn"), (100, 100, "stop"), (5, None, "plain")):
        balance = Balance(account=Account("user:a", "2026-11"), limit=limit, spent=spent, held=0)
        html = balance._repr_html_().split("</style>")[1]
        assert f"rr-bar rr-{tone}" in html
        assert (limit is not None) == ("svg" in html)


def test_an_outcome_shows_its_answer_escaped(stopped: Run) -> None:
    """Whoever shows an outcome asked for the answer; its markup is text."""
    outcome = Outcome(answer="<b>done</b>", value=None, stop=None, report=stopped.report(), run=stopped)
    assert "&lt;b&gt;done" in outcome._repr_html_()
    assert "<b>" not in repr(outcome)


def test_nothing_shown_has_prompts_arguments_or_results(stopped: Run) -> None:
    """Not the page with everything either, nor the rows."""
    report = stopped.report()
    shown = [
        report_page(report),
        report._repr_html_(),
        printed(report),
        str(report),
        repr(stopped),
        str(report.to_rows()),
    ]
    assert [] == [text for text in shown if SECRET in text]


def test_a_name_cannot_write_to_the_terminal_that_a_report_is_printed_to() -> None:
    """Control characters and marks that turn text around are shown as what they are: nothing."""
    text = str(Bench().guard.run("\x1b]0;owned\x07\u202egnp.exe").report())
    assert text.isprintable()
    assert text.startswith("run ?]0;owned??gnp.exe: $0.00")


def test_a_page_needs_nothing_from_elsewhere(stopped: Run) -> None:
    """No script, no address; the plots are inside."""
    page = report_page(stopped.report(), about="the end")
    assert 3 == page.count("<figure")
    for forbidden in ("<script", "http://", "https://", "url(", "@import", "<link", "<img"):
        assert forbidden not in page, forbidden


def test_a_run_without_steps_can_be_shown() -> None:
    """Nothing to plot is no error."""
    run = Bench().guard.run()
    assert "" == charts(run.report())
    assert run._repr_html_()
    assert printed(run)
    assert [] == run.report().to_rows()


def test_showing_is_not_loaded_by_the_core() -> None:
    """`from runrails import Guard` loads neither Rich nor Matplotlib nor what shows."""
    code = (
        "import sys; from runrails import Guard, Limits; "
        "print([n for n in sys.modules if n.partition('.')[0] in ('rich', 'matplotlib', 'pandas') "
        "or n.startswith('runrails.showing')])"
    )
    assert "[]\n" == subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


# Plots.


@pytest.mark.parametrize("most", [0, 1, 2, 3, 5, 7, 49, 51, 10**12 - 1, 10**12, 2**63 - 1])
def test_ticks_are_round_few_and_reach_the_top(most: int) -> None:
    """From 0 to the first that is not below it."""
    found = ticks(most)
    assert 0 == found[0]
    assert found[-1] >= most
    assert found[-2] < max(most, 1)
    assert 2 <= len(found) <= 6
    assert str(found[1]).rstrip("0") in ("1", "2", "5")


def long_run(count: int, limit_pusd: int | None = 10**12) -> Report:
    """A report with so many steps."""
    rows = tuple(
        StepRow(n, "tool", f"t{n}", "", "ok", 0, 0, 0, 1, f"{n:016x}", "", n) if n % 2
        else StepRow(n, "model", "m", "", "completed", n, 1, 1, 1, "", "", n)
        for n in range(1, count + 1)
    )  # fmt: skip
    bench = Bench().guard.run().report()
    return replace(bench, rows=rows, steps=count, cost_pusd=count, limit_pusd=limit_pusd)


def test_many_calls_are_not_all_drawn() -> None:
    """The most frequent are; of the others the number."""
    series = series_of(long_run(60))
    assert (CALLS_SHOWN_MAX, 20) == (len(series.calls), series.calls_left_out)
    assert "and 20 other calls" in charts(long_run(60))


def test_a_limit_far_above_is_told_and_not_drawn() -> None:
    """Else the cost would be a flat line."""
    assert "rr-limit-text" in charts(long_run(10))
    assert 'class="rr-limit"' not in charts(long_run(10))
    assert 'class="rr-limit"' in charts(long_run(10, limit_pusd=20))
    assert "rr-limit" not in charts(long_run(10, limit_pusd=None))


@pytest.mark.parametrize(
    ("cost", "longest"), [(0, "$0.002"), (7 * 10**14, "$800.00"), (7, "$0.000000000008"), (2**63 - 1, "$10,000,000.00")]
)
def test_the_longest_amount_stands_between_its_axis_and_the_axis_name(cost: int, longest: str) -> None:
    """However dear or cheap a run was; one that has cost nothing is drawn on a scale of a cent."""
    rows = [StepRow(1, "model", "m", "", "completed", 1, 1, cost, 1, "", "", cost)]
    drawn = charts(replace(long_run(1, None), rows=tuple(rows), cost_pusd=cost)).partition("</figure>")[0]
    axis = int(drawn.partition('class="rr-curve" d="M')[2].partition("M")[2].partition(" ")[0])

    assert f">{longest}</text>" in drawn
    assert 18 + 7 * len(longest) < axis < WIDTH // 2


@pytest.mark.parametrize("count", [1, 2, STEPS_KEPT_MAX])
def test_any_number_of_steps_can_be_drawn(count: int) -> None:
    """One step as well as all that are kept; a page of them stays under a megabyte."""
    assert charts(long_run(count))
    assert len(report_page(long_run(count))) < 1_000_000


def test_names_are_escaped_in_plots() -> None:
    """A tool may be called anything."""
    run = Bench(tools={"x": ToolRule()}).guard.run('<i>&"')
    tool_step(run, OK, name="<script>")
    tool_step(run, FAILED, name="<script>")
    page = report_page(run.report())
    assert "<script>" not in page
    assert "<i>" not in page


# Tables.


def test_a_table_that_does_not_fit_is_shown_row_by_row() -> None:
    """With the headings, and without breaking a word."""
    sheet = Sheet("Title", ["name", "amount"], right=[1])
    sheet.add_row("classify_review", "$1,234.56")
    assert "┃" in printed(sheet, 40)
    narrow = printed(sheet, 20)
    assert "┃" not in narrow
    assert ["Title", "name classify_review", "amount $1,234.56"] == [
        line.strip() for line in narrow.replace("   amount", "\namount").splitlines()
    ]


def test_a_row_may_be_shorter_but_not_longer() -> None:
    """What is left out is empty, in a table and row by row."""
    sheet = Sheet("", ["name", "amount"], right=[1])
    sheet.add_row("short")
    assert "short" in printed(sheet, 40)
    assert "name short" == printed(sheet, 10).strip()
    with pytest.raises(ValueError, match="2 columns"):
        sheet.add_row("a", "b", "c")


def test_numbers_are_never_broken_and_long_words_may_be() -> None:
    """A table that fits by folding an id is still a table."""
    sheet = Sheet("", ["id", "cost"], right=[1])
    sheet.add_row("x" * 60, "$1,234.56")
    text = printed(sheet, 50)
    assert "$1,234.56" in text
    assert "┃" in text
