"""
The decision: a token bucket that is one number, without a read-modify-write of a level and without a refill job.

Source: the Generic Cell Rate Algorithm in its form of virtual scheduling, ITU-T Recommendation I.371 (2004), annex A,
which the ATM Forum's Traffic Management 4.1 has too. It keeps a *theoretical arrival time*: the moment from which on
the bucket is full again. A call moves it by what it costs and conforms if it is then at most a burst ahead of now.

Times are whole nanoseconds. What one unit costs is rounded up to them, so never more than the rate is granted; a burst
is a multiple of it, so a full bucket grants exactly its burst. A bucket that is full is the same as none at all:
engines may forget it.

We depart from the recommendation in three places:

- Two limits, and those of several scopes, are decided together: all of them move, or none.
- A time further ahead than a burst cannot come from this clock: the clock was put back. It counts as one burst ahead,
  an empty bucket, instead of refusing until the clock has caught up.
- What was taken and not used is given back, as far as it still lies ahead. Time has brought back the rest already;
  giving that back as well would let two bursts through at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from runrails.rates.limiter import Cost, Figure, Granted, Limited, RateUnit, Taken

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runrails.rates.limiter import Ask

__all__ = ["FULL", "MS", "Times", "credited", "decide", "terms"]

MINUTE_NS = 60_000_000_000
MS = 1_000_000


class Times(NamedTuple):
    """From when on each bucket of a scope is full again, nanoseconds by the engine's clock."""

    requests_ns: int
    tokens_ns: int

    def full_at(self, now_ms: int) -> bool:
        """Whether forgetting it changes no decision from now on."""
        now_ns = now_ms * MS
        return self.requests_ns <= now_ns and self.tokens_ns <= now_ns


FULL = Times(0, 0)
"""A scope that nobody has used, or that has been forgotten."""


class _Line(NamedTuple):
    """One limit in one decision."""

    scope: str
    unit: RateUnit
    limit: int
    needed: int
    unit_ns: int
    """What one request or token costs; 0 where there is no limit."""
    before_ns: int
    """The time as it stands, put right if the clock was put back."""
    after_ns: int
    """The time if the call is granted."""
    wait_ns: int | None
    """How long it has to wait; None for ever."""

    def figure(self, time_ns: int, now_ns: int) -> Figure:
        ahead_ns = max(0, time_ns - now_ns)
        remaining = max(0, self.limit - -(-ahead_ns // self.unit_ns))
        return Figure(self.limit, remaining, -(-ahead_ns // MS))


def decide(
    asks: Sequence[Ask], times: Sequence[Times], cost: Cost, now_ms: int, *, skew_ms: int = 0
) -> tuple[Granted | Limited, tuple[Times, ...] | None]:
    """
    Whether a call may start now, and the times to be written in the order of `asks`; None if nothing changes.

    A refusal changes nothing, unless a clock was put back: then what it found is put right once.

    Args:
        asks: The scopes, checked by `check_asks`.
        times: Their times as they stand; `FULL` for a scope that is not known.
        cost: What the call takes from each of them.
        now_ms: The engine's clock.
        skew_ms: By how much the clocks of those who share the engine may differ; nothing on one machine.
    """
    now_ns = now_ms * MS
    lines = [
        line
        for ask, time in zip(asks, times, strict=True)
        for line in (
            _line(
                ask.scope, "requests", ask.rates.requests_per_minute, ask.rates.requests_burst, time.requests_ns,
                cost.requests, now_ns, skew_ms * MS,
            ),
            _line(
                ask.scope, "tokens", ask.rates.tokens_per_minute, ask.rates.tokens_burst, time.tokens_ns, cost.tokens,
                now_ns, skew_ms * MS,
            ),
        )
    ]  # fmt: skip
    refused = [line for line in lines if line.wait_ns != 0]
    if refused:
        worst = max(refused, key=lambda line: MINUTE_NS**2 if line.wait_ns is None else line.wait_ns)
        wait_ms = None if worst.wait_ns is None else -(-worst.wait_ns // MS)
        requests, tokens = _figures(lines, now_ns, granted=False)
        limited = Limited(worst.scope, worst.unit, worst.limit, worst.needed, wait_ms, requests, tokens)
        return limited, _changed(times, [line.before_ns for line in lines])
    requests, tokens = _figures(lines, now_ns, granted=True)
    taken = tuple(
        Taken(first.scope, first.after_ns, second.after_ns, first.unit_ns, second.unit_ns)
        for first, second in zip(lines[::2], lines[1::2], strict=True)
    )
    return Granted(requests, tokens, taken), _changed(times, [line.after_ns for line in lines])


def terms(per_minute: int, burst: int | None) -> tuple[int, int]:
    """The most that may come at once, and what one of it costs, in nanoseconds."""
    return per_minute if burst is None else burst, -(-MINUTE_NS // per_minute)


def credited(time: Times, taken: Taken, unused: Cost, now_ms: int) -> Times:
    """
    The times after a call has given back what it did not use.

    What a call takes lies in the stretch that ends with the time it was granted. Of that stretch, what has passed was
    brought back by time; only what lies ahead can be given back.
    """
    now_ns = now_ms * MS
    return Times(
        time.requests_ns - _credit(unused.requests * taken.request_ns, taken.requests_ns, now_ns),
        time.tokens_ns - _credit(unused.tokens * taken.token_ns, taken.tokens_ns, now_ns),
    )


def _credit(unused_ns: int, taken_ns: int, now_ns: int) -> int:
    return max(0, min(unused_ns, taken_ns - now_ns))


def _line(
    scope: str, unit: RateUnit, per_minute: int | None, burst: int | None, time_ns: int, needed: int, now_ns: int,
    skew_ns: int,
) -> _Line:  # fmt: skip
    if per_minute is None:
        return _Line(scope, unit, 0, needed, 0, time_ns, time_ns, 0)
    limit, unit_ns = terms(per_minute, burst)
    burst_ns = limit * unit_ns
    before_ns = now_ns + burst_ns if time_ns - now_ns > burst_ns + skew_ns else time_ns
    if needed == 0:
        return _Line(scope, unit, limit, needed, unit_ns, before_ns, before_ns, 0)
    after_ns = max(before_ns, now_ns) + needed * unit_ns
    wait_ns = None if needed > limit else max(0, after_ns - now_ns - burst_ns)
    return _Line(scope, unit, limit, needed, unit_ns, before_ns, after_ns, wait_ns)


def _figures(lines: Sequence[_Line], now_ns: int, *, granted: bool) -> tuple[Figure | None, Figure | None]:
    """For requests and for tokens, the figure of the scope that has least left."""
    found: list[Figure | None] = []
    for ours in (lines[::2], lines[1::2]):
        figures = [line.figure(line.after_ns if granted else line.before_ns, now_ns) for line in ours if line.unit_ns]
        found.append(min(figures, key=lambda figure: (figure.remaining, -figure.reset_ms), default=None))
    return found[0], found[1]


def _changed(times: Sequence[Times], new_ns: Sequence[int]) -> tuple[Times, ...] | None:
    found = tuple(Times(first, second) for first, second in zip(new_ns[::2], new_ns[1::2], strict=True))
    return None if found == tuple(times) else found
