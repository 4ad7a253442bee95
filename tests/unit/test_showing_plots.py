"""`Report.plot()`: what it draws, and that it leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
from matplotlib.figure import Figure

from rr_core import FAILED, Bench, model_step, tool_step
from runrails import Limits, LoopDetected
from runrails.report import Report


@pytest.fixture(scope="module")
def report() -> Report:
    """Of a run that a loop has stopped, with a name that Matplotlib would take for a formula."""
    run = Bench(Limits(run="0.10")).guard.run("a $x^2$ run")
    with pytest.raises(LoopDetected):
        while True:
            model_step(run)
            tool_step(run, FAILED)
    return run.report()


def texts(figure: Figure) -> list[str]:
    """Titles, axis labels and legends."""
    found = [] if figure.get_suptitle() is None else [figure.get_suptitle()]
    for axes in figure.axes:
        found += [axes.get_title(), axes.get_xlabel(), axes.get_ylabel()]
        legend = axes.get_legend()
        found += [] if legend is None else [text.get_text() for text in legend.get_texts()]
    return found


def test_it_draws_cost_tokens_and_calls_with_units(report: Report) -> None:
    """Three plots; every axis with numbers says what they are; the limit and the loop are marked."""
    figure = report.plot()
    assert 3 == len(figure.axes)
    for wanted in (
        "Run a $x^2$ run", "cost in US dollars", "tokens of a step", "number of calls", "step", "limit $0.10", "hint",
        "loop detected", "failed",
    ):  # fmt: skip
        assert wanted in texts(figure), wanted


def test_the_figure_shows_itself_in_a_notebook(report: Report) -> None:
    """As a PNG, light or dark, whatever the backend is; drawing it warns of nothing."""
    light, dark = report.plot(), report.plot(dark=True)
    for figure in (light, dark):
        assert figure._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]
    assert light.get_facecolor() != dark.get_facecolor()


def test_a_run_without_steps_can_be_drawn() -> None:
    """Empty axes are no error."""
    figure = Bench().guard.run().report().plot()
    assert figure._repr_png_()  # type: ignore[attr-defined]


def test_a_hostile_name_is_drawn_harmlessly(report: Report) -> None:
    """Without letters that no font has, which Matplotlib would warn of, and no longer than there is room for."""
    figure = replace(report, name="\x1b]0;\x07\u202e" + "n" * 500).plot()
    title = figure.get_suptitle()

    assert figure._repr_png_()  # type: ignore[attr-defined]
    assert (True, True) == (title.isprintable(), len(title) < 100)


def test_no_global_figure_is_left_behind() -> None:
    """`pyplot` is not even loaded, so nobody has to close anything."""
    code = (
        "import sys; from runrails import Guard; "
        "Guard(store='memory:').run().report().plot(); print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "False\n" == done.stdout


def test_without_matplotlib_the_error_names_the_extra(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what draws the same without it."""
    for name in ("matplotlib", "matplotlib.figure", "matplotlib.ticker"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "runrails.showing.plots", raising=False)
    with pytest.raises(ImportError, match=r"runrails\[plot\].*--html"):
        report.plot()
