"""The plots of a report by Matplotlib; without `pyplot`, which would keep the figure until somebody closes it."""

# Matplotlib's own types leave the arguments of most of its methods open.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownLambdaType=false

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from runrails.money import format_usd
from runrails.showing.series import series_of
from runrails.showing.terminal import plain

try:
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator
except ImportError as error:
    raise ImportError(
        "Report.plot() needs Matplotlib: pip install 'runrails[plot]'. `runrails report RUN --html FILE` draws the "
        "same without it."
    ) from error

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from runrails.report import Report
    from runrails.showing.series import Series

__all__ = ["ReportFigure", "plot_report"]

_LIGHT = {
    "back": "#ffffff", "fore": "#1b1f24", "line": "#d5dae0", "cost": "#0b62c4", "output": "#8a4fd0", "ok": "#0f7d85",
    "hint": "#b26a00", "block": "#8a4fd0", "stop": "#c62828",
}  # fmt: skip
_DARK = {
    "back": "#15191e", "fore": "#e4e8ec", "line": "#414a54", "cost": "#6cb0ff", "output": "#b992ff", "ok": "#4fc4cc",
    "hint": "#eaa53b", "block": "#b992ff", "stop": "#ff7b72",
}  # fmt: skip
_MARKERS = {"hint": "^", "block": "s", "stop": "D"}
_PUSD_PER_USD = 10**12
_LIMIT_IN_SIGHT = 5
_LABEL_CHARS = 28
_TITLE_CHARS = 70


class ReportFigure(Figure):
    """A figure that notebooks show whatever their Matplotlib settings are."""

    def _repr_png_(self) -> bytes:
        out = io.BytesIO()
        self.savefig(out, format="png", dpi=110, facecolor=self.get_facecolor())
        return out.getvalue()


def plot_report(report: Report, *, dark: bool = False) -> Figure:
    """As `Report.plot` says."""
    series, colours = series_of(report), _DARK if dark else _LIGHT
    figure = ReportFigure(figsize=(11, 7), layout="constrained", facecolor=colours["back"])
    above, below = figure.subplots(2, 2, height_ratios=(3, 2), squeeze=False)
    grid = above[0].get_gridspec()
    for axes in above:
        axes.remove()
    cost = figure.add_subplot(grid[0, :])
    figure.suptitle(
        plain(f"Run {_short(report.name or report.run, _TITLE_CHARS)}"), color=colours["fore"], parse_math=False
    )
    _cost(cost, series, report.limit_pusd, colours)
    _tokens(below[0], series, colours)
    _calls(below[1], series, colours)
    for axes in (cost, *below):
        _dress(axes, colours)
    return figure


def _cost(axes: Axes, series: Series, limit: int | None, colours: dict[str, str]) -> None:
    axes.set(title="Cost so far, by step", xlabel="step", ylabel="cost in US dollars")
    places = list(range(len(series.steps)))
    totals = [total / _PUSD_PER_USD for total in series.total_pusd]
    axes.step(
        [-1, *places], [series.before_pusd / _PUSD_PER_USD, *totals], where="post", color=colours["cost"], label="cost"
    )
    highest = max(series.total_pusd, default=0)
    if limit is not None and (not highest or limit <= _LIMIT_IN_SIGHT * highest):
        axes.axhline(limit / _PUSD_PER_USD, color=colours["stop"], linestyle="--", label=f"limit {format_usd(limit)}")
    elif limit is not None:
        axes.plot([], [], color=colours["stop"], linestyle="--", label=f"limit {format_usd(limit)}, above this scale")
    for level, shape in _MARKERS.items():
        marked = [mark for mark in series.marks if mark.level == level]
        if marked:
            axes.plot(
                [mark.place for mark in marked], [totals[mark.place] for mark in marked], shape,
                color=colours[level], markersize=9, label=marked[-1].label, linestyle="none", zorder=3,
            )  # fmt: skip
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda dollars, _: f"${dollars:,.10g}"))
    _number_steps(axes, series)
    axes.legend(facecolor=colours["back"], edgecolor=colours["line"], labelcolor=colours["fore"], loc="best")


def _tokens(axes: Axes, series: Series, colours: dict[str, str]) -> None:
    axes.set(title="Tokens, by step", xlabel="step", ylabel="tokens of a step")
    places = list(range(len(series.steps)))
    axes.bar(places, series.input_tokens, width=1, color=colours["cost"], label="input")
    axes.bar(places, series.output_tokens, width=1, bottom=series.input_tokens, color=colours["output"], label="output")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda tokens, _: f"{tokens:,.0f}"))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    _number_steps(axes, series)
    axes.legend(facecolor=colours["back"], edgecolor=colours["line"], labelcolor=colours["fore"])


def _calls(axes: Axes, series: Series, colours: dict[str, str]) -> None:
    others = f" ({series.calls_left_out:,} others, none more often)" if series.calls_left_out else ""
    axes.set(title="Tool calls with the same arguments", xlabel=f"number of calls{others}")
    calls = series.calls[::-1]
    labels = [plain(_short(each.label, _LABEL_CHARS)) for each in calls]
    places, left = list(range(len(calls))), [0] * len(calls)
    for kind, colour in (("ok", "ok"), ("failed", "hint"), ("blocked", "stop")):
        counts = [{"ok": each.ok, "failed": each.failed, "blocked": each.blocked}[kind] for each in calls]
        if any(counts):
            axes.barh(places, counts, left=left, color=colours[colour], label=kind)
        left = [before + count for before, count in zip(left, counts, strict=True)]
    axes.set_yticks(places, labels, parse_math=False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    if calls:
        axes.legend(facecolor=colours["back"], edgecolor=colours["line"], labelcolor=colours["fore"], loc="lower right")


def _short(text: str, chars_max: int) -> str:
    return text if len(text) <= chars_max else f"{text[: chars_max - 1]}…"


def _number_steps(axes: Axes, series: Series) -> None:
    """Ticks stand at places and show the numbers of the steps there."""
    steps = series.steps

    def shown(place: float, _: object) -> str:
        return f"{steps[int(place)]:,}" if 0 <= place < len(steps) and place == int(place) else ""

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.xaxis.set_major_formatter(FuncFormatter(shown))
    axes.set_xlim(-1, max(1, len(steps)))


def _dress(axes: Axes, colours: dict[str, str]) -> None:
    axes.set_facecolor(colours["back"])
    axes.tick_params(colors=colours["fore"], which="both")
    axes.grid(visible=True, color=colours["line"], linewidth=0.6)
    axes.set_axisbelow(True)
    axes.xaxis.label.set_color(colours["fore"])
    axes.yaxis.label.set_color(colours["fore"])
    axes.title.set_color(colours["fore"])
    for spine in axes.spines.values():
        spine.set_color(colours["line"])
