"""The extension's parts by themselves: what is written behind the magics, when the meter draws, how a stop is told."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from runrails import Limits, current
from runrails.calls import ModelCall, ModelResult, Prompt, ToolCall, ToolOutcome
from runrails.errors import (
    BudgetExceeded,
    ConfigError,
    GuardrailStopped,
    LimitReached,
    LoopDetected,
    PriceUnknown,
)
from runrails.stores.sqlite import SQLiteStore
from runrails.testing import PRICES, ManualClock
from runrails.usage import Usage
from runrails_notebook.cells import here
from runrails_notebook.display import TerminalScreen
from runrails_notebook.drawing import cells_picture, meter_picture, state_picture
from runrails_notebook.kernel import KernelGuard
from runrails_notebook.meter import INTERVAL_MS, LiveMeter, MeterView, view_of
from runrails_notebook.options import WrongUse, guarded_options, guardrails_options
from runrails_notebook.settings import CellWish, Settings
from runrails_notebook.telling import retold

CENT = 10**10
SETTINGS = Settings(store="memory:", prices=PRICES, budget="0.05")
VIEW = MeterView(
    title="[3]", state="working", stopped=False, spent_pusd=CENT, limit_pusd=2 * CENT, kernel_spent_pusd=3 * CENT,
    kernel_limit_pusd=None, input_tokens=1_000, output_tokens=20, model_calls=2, tool_calls=1, steps=3, steps_max=200,
    tool="<b>search</b> (ok)", ladder="", refusals=0, seconds=4,
)  # fmt: skip


class Film:
    """A screen that remembers, and may break."""

    def __init__(self, *, breaks: bool = False) -> None:
        self.views: list[MeterView] = []
        self.closed = 0
        self.breaks = breaks

    def draw(self, view: MeterView) -> None:
        self.views.append(view)
        if self.breaks:
            raise OSError("no display")

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def kernel() -> Iterator[KernelGuard]:
    """Guards this process, without any SDK attached; gives it back."""
    made = KernelGuard(SETTINGS, monotonic=ManualClock(start_ms=1_000))
    token = here.set(None)
    made.start()
    yield made
    made.close()
    here.reset(token)
    assert current.default is None


def clock_of(kernel: KernelGuard) -> ManualClock:
    assert isinstance(kernel.monotonic, ManualClock)
    return kernel.monotonic


def call(tool: str = "") -> None:
    """One call for a cent in whatever run this is, and perhaps a tool call."""
    run = current.current_run()
    assert run is not None
    permit = run.before_model(ModelCall(model="fake-flat", max_tokens=16, prompt=Prompt(texts=("hi",))))
    run.after_model(permit, ModelResult(end="completed", usage=Usage(input_tokens=4, output_tokens=1)))
    if tool:
        asked = ToolCall(name=tool, args={})
        run.before_tool(asked)
        run.after_tool(asked, ToolOutcome(ok=True, result="a result"))


def test_what_is_written_behind_the_magics() -> None:
    """Options change what they name; the rest stays; `none` is no limit."""
    asked = guardrails_options("table --budget $7 --month none --steps 1,000 --poll a --poll b --loops off", SETTINGS)

    assert ("table", True) == (asked.action, asked.changes)
    assert replace(SETTINGS, budget="7", steps=1_000, polls=("a", "b"), loops=False) == asked.settings
    assert (None, False) == ((same := guardrails_options("", SETTINGS)).action, same.changes)
    assert guardrails_options("--price m=3/15", SETTINGS).settings.prices.keys() == PRICES.keys() | {"m"}
    assert CellWish(run="0.50", steps=9, name="a b") == guarded_options("--run 0.50 --steps 9 --name 'a b'")


@pytest.mark.parametrize(
    "line",
    [
        "--budget -1", "--budget 0", "--budget NaN", "--budget", "--steps 0", "--steps ten", "--user 'a b'",
        "--price m", "--loops maybe", "--bud 5", "everything", "--month '5", f"--steps {'9' * 5_000}",
    ],
    ids=lambda line: line[:12],
)  # fmt: skip
def test_what_cannot_be_read_changes_nothing(line: str) -> None:
    """It is said in one line, with how it is written."""
    with pytest.raises((WrongUse, ConfigError)):
        guardrails_options(line, SETTINGS)


@pytest.mark.parametrize(
    "line",
    ["--run none", "--run 0", "--steps none", f"--steps {'9' * 5_000}", "--name '" + "x" * 61 + "'", "--what", "5"],
    ids=lambda line: line[:12],
)
def test_a_cell_cannot_ask_for_no_limit(line: str) -> None:
    """What `%%guarded` gives is always narrower than what there is."""
    with pytest.raises(WrongUse):
        guarded_options(line)


def test_each_cell_has_a_run_of_its_own_in_the_kernels(kernel: KernelGuard) -> None:
    """The cell's limit stops the cell, the kernel's limit all of them, and more of it lets them go on."""
    kernel.begin(1, info="a", wish=CellWish(run="0.02"))
    call("search")
    call()
    with pytest.raises(BudgetExceeded):
        call()
    kernel.end("a")
    kernel.begin(2, info="b")
    for _ in range(3):
        call()
    with pytest.raises(BudgetExceeded):
        call()
    kernel.end("b")
    kernel.use(replace(SETTINGS, budget="0.06"))
    kernel.begin(3, info="c")
    call()
    kernel.end("c")

    assert 6 * CENT == kernel.spent_pusd
    assert [(1, 2, "budget exceeded"), (2, 3, "budget exceeded"), (3, 1, "done")] == [
        (cell.number, cell.cost_pusd // CENT, cell.state) for cell in kernel.cells
    ]
    assert "kernel            6           1      30  $0.06" in cells_picture(kernel).text


def test_what_goes_on_outside_of_cells_is_guarded(kernel: KernelGuard) -> None:
    """Its loops stop it, until the next cell begins; the kernel goes on."""
    call()
    rest = kernel.rest.run
    assert rest is not None
    rest.end_with(LimitReached(scope=rest.latch.scope, unit="steps", limit=1, used=1, setting="steps"))
    with pytest.raises(LimitReached):
        call()
    kernel.begin(1, info="a")
    call()
    kernel.end("a")
    call()

    assert 3 * CENT == kernel.spent_pusd
    assert (2 * CENT, "limit reached") == (kernel.rest.cost_pusd, kernel.rest.state)


def test_an_execution_inside_of_a_cell_belongs_to_it(kernel: KernelGuard) -> None:
    """`%run other.ipynb` executes cells in a cell: one budget, and it ends when the outer one does."""
    outer = kernel.begin(1, info="a", wish=CellWish(run="0.01"))
    assert outer is kernel.begin(2, info="b")
    call()
    assert kernel.end("b") is None
    with pytest.raises(BudgetExceeded):
        call()
    assert outer is kernel.end("a")
    assert [] == kernel.running


class Sent:
    """An execution, as IPython tells of it."""

    def __init__(self, text: str, *, by_itself: bool = True) -> None:
        self.raw_cell, self.store_history = text, by_itself


def test_an_interrupt_for_which_ipython_makes_another_object_ends_the_cell(kernel: KernelGuard) -> None:
    """It is known by its text; what is executed inside of a cell, or executes nothing, ends none."""
    outer = kernel.begin(1, info=Sent("ask()"))
    kernel.begin(1, info=Sent("inside", by_itself=False))
    for other in ("", "  \n", "inside", "another"):
        assert kernel.end(Sent(other)) is None
    assert [outer] == kernel.running

    assert outer is kernel.end(Sent("ask()"))
    assert ([], True) == (kernel.running, outer.ended)


def test_a_cell_whose_end_nobody_has_told_ends_when_the_next_one_begins(kernel: KernelGuard) -> None:
    """An interrupt may come between; the next cell has its own budget all the same, and what it may has not shrunk."""
    lost = kernel.begin(1, info=Sent("a"), wish=CellWish(run="0.01"))
    call()
    nested = kernel.begin(2, info=Sent("b", by_itself=False))
    following = kernel.begin(2, info=Sent("c"))
    call()
    call()

    assert lost is nested
    assert ("interrupted", [following], 2 * CENT) == (lost.state, kernel.running, following.cost_pusd)
    assert following is kernel.end(following.info)


def test_the_ledger_may_be_another_until_something_was_called(kernel: KernelGuard, tmp_path: Path) -> None:
    """After that whoever wants another one restarts the kernel; nothing is changed by the refusal."""
    elsewhere = f"sqlite:///{tmp_path / 'ledger.db'}"
    kernel.month()
    kernel.use(replace(SETTINGS, store=elsewhere, user="bob"))
    kernel.begin(1, info="a")
    call()
    kernel.end("a")
    with pytest.raises(ConfigError, match="--user cannot change any more"):
        kernel.use(replace(kernel.settings, user="alice"))

    assert ("bob", CENT) == (kernel.guard.user, kernel.month().spent)
    assert (tmp_path / "ledger.db").exists()


def test_when_the_kernel_ends_every_run_is_closed_and_kept(kernel: KernelGuard, tmp_path: Path) -> None:
    """The kernel's own and those of its cells, also of the one that still works; closing twice is fine."""
    kernel.use(replace(SETTINGS, store=f"sqlite:///{tmp_path / 'ledger.db'}"))
    kernel.begin(1, info="a")
    call()
    kernel.end("a")
    kernel.begin(2, info="b", wish=CellWish(name="second"))
    call()
    kernel.close()
    kernel.close()
    store = SQLiteStore(tmp_path / "ledger.db")
    kept = {(run.name, run.report["cost_pusd"]) for run in store.runs()}
    store.close()

    assert {("notebook", 2 * CENT), ("notebook [1]", CENT), ("notebook [2] second", CENT)} == kept
    assert current.default is None


def test_the_meter_is_drawn_when_something_is_new_and_no_more_often(kernel: KernelGuard) -> None:
    """Nothing before the first call; so often at most; the end always; nothing after it."""
    clock, film = clock_of(kernel), Film()
    cell = kernel.begin(4, info="a")
    meter = LiveMeter(kernel, cell, film, monotonic=clock)
    clock.advance(INTERVAL_MS)
    assert not meter.tick()
    call("search")
    assert meter.tick()
    call()
    clock.advance(INTERVAL_MS - 1)
    assert not meter.tick()
    clock.advance(1)
    assert meter.tick()
    clock.advance(INTERVAL_MS)
    assert not meter.tick()
    call()
    kernel.end("a")
    meter.finish()
    meter.finish()

    assert not meter.tick()
    assert [(1, "working"), (2, "working"), (3, "done")] == [(view.model_calls, view.state) for view in film.views]
    assert ("search (ok)", 3 * CENT, 1) == (film.views[-1].tool, film.views[-1].kernel_spent_pusd, film.closed)


def test_a_screen_that_breaks_ends_the_meter_and_nothing_else(kernel: KernelGuard) -> None:
    """It is not asked a second time."""
    clock, film = clock_of(kernel), Film(breaks=True)
    meter = LiveMeter(kernel, kernel.begin(1, info="a"), film, monotonic=clock)
    call()
    clock.advance(INTERVAL_MS)
    assert not meter.tick()
    call()
    clock.advance(INTERVAL_MS)
    assert not meter.tick()
    kernel.end("a")
    meter.finish()

    assert ("OSError", 1) == (meter.failure, len(film.views))


def test_where_a_panel_tells_it_all_no_meter_is_begun(kernel: KernelGuard) -> None:
    """One that was drawn before shows how it ended."""
    clock, quick, slow = clock_of(kernel), Film(), Film()
    cell = kernel.begin(1, info="a", wish=CellWish(run="0.01"))
    meters = [LiveMeter(kernel, cell, film, monotonic=clock) for film in (quick, slow)]
    call()
    clock.advance(INTERVAL_MS)
    meters[1].tick()
    with pytest.raises(BudgetExceeded):
        call()
    for meter in meters:
        meter.finish(told=True)

    assert ([], ["working", "budget exceeded"]) == (quick.views, [view.state for view in slow.views])


def test_a_view_tells_of_the_loop_detector(kernel: KernelGuard) -> None:
    """The third equal outcome is a hint, which the meter shows as a warning."""
    cell = kernel.begin(1, info="a")
    call()
    run = current.current_run()
    assert run is not None
    for _ in range(3):
        asked = ToolCall(name="search", args={"q": "x"})
        run.before_tool(asked, can_block=True)
        run.after_tool(asked, ToolOutcome(ok=False, result="no result"), can_block=True)
    view = view_of(kernel, cell)

    assert view is not None
    assert ("hint: search, 3 times the same", "search (failed)") == (view.ladder, view.tool)
    assert "rr-warn" in meter_picture(view).html.partition("</style>")[2]


def test_the_meter_is_readable_as_html_and_as_text() -> None:
    """Names are escaped; without a limit no bar is drawn for it."""
    picture = meter_picture(VIEW)
    body = picture.html.partition("</style>")[2]

    assert "runrails · [3] · working · 4 s · $0.01 of $0.02 · kernel $0.03\n" in picture.text
    assert "&lt;b&gt;search&lt;/b&gt; (ok)" in body
    assert 1 == body.count("<svg")
    assert "<script" not in picture.html


def test_a_name_cannot_write_to_the_terminal_that_shows_the_meter() -> None:
    """Control characters and marks that turn text around are shown as what they are: nothing."""
    hostile = replace(VIEW, tool="\x1b]0;owned\x07\u202egnp.exe (ok)", note="\x1b[2J")
    picture = meter_picture(hostile)

    assert {"\n"} == {letter for letter in picture.text if not letter.isprintable()}
    assert not {"\x1b", "\x07", "\u202e"} & set(picture.html)


def test_the_meter_in_a_terminal() -> None:
    """A live table, which is left as it ended."""
    text = io.StringIO()
    screen = TerminalScreen(Console(file=text, force_terminal=True, width=70, color_system=None))
    screen.draw(VIEW)
    screen.draw(replace(VIEW, state="done", spent_pusd=2 * CENT))
    screen.close()

    assert "$0.01 of $0.02" in text.getvalue()
    assert "[3] · done" in text.getvalue().rpartition("working")[2]


def test_a_stop_is_told_in_the_words_of_a_notebook(kernel: KernelGuard) -> None:
    """Which cell or kernel it is, and which magic allows more; the error itself stays as it is."""
    cell = kernel.begin(1, info="a", wish=CellWish(run="0.01"))
    call()
    with pytest.raises(BudgetExceeded) as stopped:
        call()
    told = retold(stopped.value, kernel, cell)
    unknown = retold(PriceUnknown("Unknown.", next_step="Write it.", model="m"), kernel, cell)
    strange = retold(GuardrailStopped("Over.", next_step="Go home."), kernel, cell)
    odd = retold(LoopDetected("Again.", next_step="Stop.", tool="look up; it's"), kernel, cell)

    assert told.what.startswith("The budget of this cell is used up: $0.01 spent")
    assert "If that is not enough: begin the cell with a higher `%%guarded --run`." == told.next_step
    assert ("this cell", f"run:{cell.run_id}") == (told.fields["scope"], stopped.value.fields["scope"])
    assert "`%guardrails --price m=IN/OUT`" in unknown.next_step
    assert ("Over.", "Go home.") == (strange.what, strange.next_step)
    said = odd.next_step.partition("`%guardrails ")[2].partition("` and")[0]
    assert ("look up; it's",) == guardrails_options(said, SETTINGS).settings.polls


def test_the_state_says_how_the_kernel_stands(kernel: KernelGuard) -> None:
    """Its budget, the month, what each cell may; and that nothing is stopped where it is off."""
    kernel.use(replace(SETTINGS, month="50", cell="0.50"))
    state = state_picture(kernel, kernel.month())
    kernel.off()
    off = state_picture(kernel, None, heard="The ledger is away.")

    assert state.text.startswith("runrails is on in this kernel\n  kernel: $0.00 of $0.05\n  user:")
    assert "$0.00 of $50.00 in " in state.text
    assert "each cell: $0.50 and 200 steps, loop detector on" in state.text
    assert off.text.startswith("runrails is off in this kernel")
    assert "The ledger is away." in off.text


def test_limits_of_a_cell_are_the_usual_ones_but_for_what_was_said() -> None:
    """A cell has the steps and the loop detector of `Limits()`; its money is the kernel's."""
    usual = Limits()

    assert (None, usual.steps, usual.loops) == ((cell := Settings().cell_limits()).run, cell.steps, cell.loops)
    assert ("0.10", 7) == ((own := Settings(cell="1").cell_limits(CellWish(run="0.10", steps=7))).run, own.steps)
    assert ("5.00", None, None) == ((all_ := Settings().kernel_limits).run, all_.steps, all_.loops)
