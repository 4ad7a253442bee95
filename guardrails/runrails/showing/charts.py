"""The plots of a report as inline SVG: drawn here, so that a file with them needs nothing else. Integers throughout."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from runrails.money import format_usd
from runrails.showing.html import escape
from runrails.showing.series import series_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runrails.report import Report
    from runrails.showing.series import CallCount, Series

__all__ = ["charts", "ticks"]

WIDTH, HEIGHT = 360, 210
LEFT, RIGHT, TOP, BOTTOM = 64, 8, 12, 40
LABEL, DIGIT, GAP = 18, 7, 5
"""What an axis' name takes, a digit beside it, and the room between that and the axis."""
LEAST = 10**10
"""The scale of a run that has cost nothing goes to a cent."""
ROW, BAR = 32, 11
LABEL_CHARS = 42
LIMIT_IN_SIGHT = 5
"""A limit more than so many times above the cost is told of and not drawn: the cost would be a flat line."""
TICKS_MAX = 5
_TINY = 12


class _Plane(NamedTuple):
    """Where numbers are on the paper."""

    steps: int
    top: int
    """The number at the upper edge."""
    left: int
    """What is to the left of it takes so much."""

    def x(self, place: int) -> int:
        return self.left + (2 * place + 1) * (WIDTH - self.left - RIGHT) // (2 * self.steps)

    def y(self, number: int) -> int:
        return HEIGHT - BOTTOM - number * (HEIGHT - TOP - BOTTOM) // max(1, self.top)


def charts(report: Report) -> str:
    """The plots side by side where there is room, else below each other; empty for a run of which no step is known."""
    series = series_of(report)
    if not series.steps:
        return ""
    drawn = [_cost(series, report.limit_pusd), _tokens(series), _calls(series.calls, series.calls_left_out)]
    return f'<div class="rr-charts">{"".join(drawn)}</div>'


def ticks(most: int, count_max: int = TICKS_MAX) -> list[int]:
    """Round numbers from 0 to the first that is not below `most`, at most so many above 0."""
    power = 1
    while True:
        for factor in (1, 2, 5):
            step = factor * power
            if step * count_max >= most:
                return list(range(0, max(most, 1) + step, step))[: -(-max(most, 1) // step) + 1]
        power *= 10


def _plane(series: Series, marked: Sequence[int], shown: Callable[[int], str]) -> _Plane:
    """With room for the longest number that is written beside it."""
    widest = max(len(shown(number)) for number in marked)
    return _Plane(len(series.steps), marked[-1], max(LEFT, LABEL + widest * DIGIT + GAP))


def _cost(series: Series, limit: int | None) -> str:
    highest = max(series.total_pusd)
    in_sight = limit is not None and limit <= LIMIT_IN_SIGHT * highest
    marked = ticks((max(highest, limit) if in_sight and limit is not None else highest) or LEAST)
    plane = _plane(series, marked, format_usd)
    parts = _axes(plane, marked, format_usd, series.steps, "cost in US dollars")
    path = f"M{plane.left} {plane.y(series.before_pusd)}"
    for place, total in enumerate(series.total_pusd):
        path += f"H{plane.x(place)}V{plane.y(total)}"
    parts.append(f'<path class="rr-curve" d="{path}"></path>')
    if limit is not None:
        parts += _limit(plane, limit, in_sight=in_sight)
    parts += [_mark(mark.level, plane.x(mark.place), plane.y(series.total_pusd[mark.place])) for mark in series.marks]
    levels = {mark.level: mark.label for mark in series.marks}
    legend = [("curve", "cost"), *((level, levels[level]) for level in ("hint", "block", "stop") if level in levels)]
    told = f"The cost rises to {format_usd(highest)} in {len(series.steps):,} steps."
    return _figure("Cost so far, by step", told, HEIGHT, parts, legend)


def _limit(plane: _Plane, limit: int, *, in_sight: bool) -> list[str]:
    text = f"limit {format_usd(limit)}"
    if not in_sight:
        return [
            f'<text class="rr-limit-text" x="{plane.left + 6}" y="{TOP + 10}">{escape(text)}, above this scale</text>'
        ]
    y = plane.y(limit)
    at = y - 4 if y > TOP + _TINY else y + _TINY
    return [
        f'<path class="rr-limit" d="M{plane.left} {y}H{WIDTH - RIGHT}"></path>',
        f'<text class="rr-limit-text" x="{plane.left + 6}" y="{at}">{escape(text)}</text>',
    ]


def _tokens(series: Series) -> str:
    both = [told + answered for told, answered in zip(series.input_tokens, series.output_tokens, strict=True)]
    marked = ticks(max(both))
    plane = _plane(series, marked, _count)
    parts = _axes(plane, marked, _count, series.steps, "tokens of a step")
    parts.append(f'<path class="rr-output" d="{_area(plane, both)}"></path>')
    parts.append(f'<path class="rr-input" d="{_area(plane, series.input_tokens)}"></path>')
    told = f"Up to {max(both):,} tokens a step."
    return _figure("Tokens, by step", told, HEIGHT, parts, [("input", "input"), ("output", "output")])


def _count(tokens: int) -> str:
    return f"{tokens:,}"


def _area(plane: _Plane, numbers: Sequence[int]) -> str:
    width = WIDTH - plane.left - RIGHT
    path = f"M{plane.left} {plane.y(0)}"
    for place, number in enumerate(numbers):
        hundredths = (place + 1) * width * 100 // plane.steps  # a thousand steps are more than there are whole places
        path += f"V{plane.y(number)}H{plane.left + hundredths // 100}.{hundredths % 100:02d}"
    return f"{path}V{plane.y(0)}Z"


def _calls(calls: Sequence[CallCount], left_out: int) -> str:
    if not calls:
        return ""
    most, width = max(each.total for each in calls), WIDTH - 2 * RIGHT
    parts: list[str] = []
    for row, call in enumerate(calls):
        top, x = row * ROW, RIGHT
        label = call.label if len(call.label) <= LABEL_CHARS else f"{call.label[: LABEL_CHARS - 1]}…"
        parts.append(f'<text x="{RIGHT}" y="{top + 13}">{escape(label)}</text>')
        parts.append(f'<text class="rr-end" x="{WIDTH - RIGHT}" y="{top + 13}">{call.total:,}</text>')
        for kind, count in (("ok", call.ok), ("failed", call.failed), ("blocked", call.blocked)):
            long = count * width // most
            parts.append(f'<rect class="rr-{kind}-bar" x="{x}" y="{top + 17}" width="{long}" height="{BAR}"></rect>')
            x += long
    legend = [
        (f"{kind}-bar", kind) for kind in ("ok", "failed", "blocked") if any(getattr(call, kind) for call in calls)
    ]
    told = f"The most frequent call was made {most:,} times."
    height = len(calls) * ROW + 4
    if left_out:
        height += ROW // 2
        parts.append(f'<text x="{RIGHT}" y="{height - 5}">and {left_out:,} other calls, none more often</text>')
    return _figure("Tool calls with the same arguments (number)", told, height, parts, legend)


def _axes(
    plane: _Plane, marked: Sequence[int], shown: Callable[[int], str], steps: Sequence[int], label: str
) -> list[str]:
    parts: list[str] = []
    for number in marked:
        y = plane.y(number)
        parts.append(f'<path class="rr-axis" d="M{plane.left} {y}H{WIDTH - RIGHT}"></path>')
        parts.append(f'<text class="rr-end" x="{plane.left - 5}" y="{y + 4}">{escape(shown(number))}</text>')
    every = max(1, -(-len(steps) // TICKS_MAX))
    for place in range(0, len(steps), every):
        at = f'x="{plane.x(place)}" y="{HEIGHT - BOTTOM + 15}"'
        parts.append(f'<text class="rr-middle" {at}>{steps[place]:,}</text>')
    parts.append(f'<text class="rr-middle" x="{(plane.left + WIDTH) // 2}" y="{HEIGHT - 7}">step</text>')
    middle = (TOP + HEIGHT - BOTTOM) // 2
    parts.append(f'<text class="rr-middle" transform="translate(11 {middle}) rotate(-90)">{escape(label)}</text>')
    return parts


def _mark(level: str, x: int, y: int) -> str:
    """A shape of its own for each, besides the colour."""
    shape = {
        "hint": f"M{x} {y - 6}L{x + 6} {y + 4}H{x - 6}Z",
        "block": f"M{x - 5} {y - 5}h10v10h-10Z",
    }.get(level, f"M{x} {y - 7}L{x + 7} {y}L{x} {y + 7}L{x - 7} {y}Z")
    return f'<path class="rr-mark-{"stop" if level not in ("hint", "block") else level}" d="{shape}"></path>'


def _sign(kind: str) -> str:
    if kind in ("hint", "block", "stop"):
        return _mark(kind, 8, 8)
    if kind == "curve":
        return '<path class="rr-curve" d="M1 8H15"></path>'
    return f'<rect class="rr-{kind}" x="2" y="2" width="12" height="12"></rect>'


def _figure(title: str, told: str, height: int, parts: Sequence[str], legend: Sequence[tuple[str, str]]) -> str:
    signs = "".join(
        f'<span class="rr-key"><svg viewBox="0 0 16 16" width="14" height="14" aria-hidden="true">{_sign(kind)}</svg>'
        f" {escape(text)}</span>"
        for kind, text in legend
    )
    return (
        f'<figure class="rr-figure"><figcaption><b>{escape(title)}</b><span class="rr-keys">{signs}</span></figcaption>'
        f'<svg class="rr-chart" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(told)}">'
        f"{''.join(parts)}</svg></figure>"
    )
