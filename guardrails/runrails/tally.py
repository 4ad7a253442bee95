"""The counts of one run: steps, calls, tokens and time, and the limits on them. Pure: the time is an argument."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runrails.errors import BudgetBusy, CallTooLarge, LimitReached

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runrails.limits import Limits

__all__ = ["Tally"]


class Tally:
    """
    Mutable counts of a run and, through `parent`, of the runs it is part of: what a child does counts there too.

    Not thread-safe by itself; a run and its children share one lock.
    """

    __slots__ = (
        "admitting", "cost_pusd", "held_tokens", "limits", "model_calls", "parent", "paused_ms", "savings", "scope",
        "started_ms", "steps", "tokens", "tool_calls",
    )  # fmt: skip

    def __init__(self, scope: str, limits: Limits, *, started_ms: int, parent: Tally | None = None) -> None:
        self.scope = scope
        self.limits = limits
        self.started_ms = started_ms
        """When it would have started, had it never stood still."""
        self.paused_ms: int | None = None
        """Since when its clock stands still: a run that is stopped or has ended takes no time."""
        self.parent = parent
        self.steps = 0
        self.model_calls = 0
        self.admitting = 0
        """Model calls that are counted already but may still be refused, for instance while they wait for money."""
        self.tool_calls = 0
        self.tokens = 0
        self.held_tokens = 0
        self.cost_pusd = 0
        self.savings: dict[str, tuple[int, int, int]] = {}
        """Calls that were made cheaper, and the tokens and picodollars that saved, by what did it."""

    def elapsed_ms(self, now_ms: int) -> int:
        """How long the run has taken so far."""
        return (now_ms if self.paused_ms is None else self.paused_ms) - self.started_ms

    def pause(self, now_ms: int) -> None:
        """Let its clock stand still; a second time changes nothing."""
        if self.paused_ms is None:
            self.paused_ms = now_ms

    def go_on(self, now_ms: int) -> None:
        """Let its clock go on."""
        if self.paused_ms is not None:
            self.started_ms += now_ms - self.paused_ms
            self.paused_ms = None

    def take_over(self, steps: int) -> None:
        """Count steps that were taken elsewhere: so many at least, those counted here included."""
        self.steps = max(self.steps, steps)

    def soonest(self, now_ms: int) -> tuple[int, Tally] | None:
        """How many milliseconds are left, here or in a parent, and where; None if no time is limited."""
        found: tuple[int, Tally] | None = None
        for tally in self.chain():
            if tally.limits.seconds is not None:
                left_ms = tally.limits.seconds * 1_000 - tally.elapsed_ms(now_ms)
                if found is None or left_ms < found[0]:
                    found = (left_ms, tally)
        return found

    def late(self, now_ms: int) -> LimitReached:
        """The stop for which the time is up, of this run or of the one whose limit is the soonest."""
        _, tally = self.soonest(now_ms) or (0, self)
        return LimitReached(
            scope=tally.scope, unit="seconds", limit=tally.limits.seconds or 0,
            used=tally.elapsed_ms(now_ms) // 1_000, setting="seconds",
        )  # fmt: skip

    def begin_model(self, *, now_ms: int, enforce: bool = True) -> int:
        """
        Count a model call here and in every parent until `admitted` or `undo_model`; return its step.

        Raises, with nothing counted:
            LimitReached: A limit is used up.
            BudgetBusy: It is, but by calls that may still be refused.
        """
        tally: Tally | None = self
        while enforce and tally is not None:
            limits = tally.limits
            steps, calls = limits.steps, limits.model_calls
            if limits.tokens is not None or limits.seconds is not None or (steps is not None and tally.steps >= steps):
                tally.check_common(now_ms)
            if calls is not None and tally.model_calls >= calls:
                tally.check("model_calls", calls, tally.model_calls, tally.admitting)
            tally = tally.parent
        tally = self
        while tally is not None:
            tally.model_calls += 1
            tally.steps += 1
            tally.admitting += 1
            tally = tally.parent
        return self.steps

    def crowded(self) -> bool:
        """Whether a limit is used up, here or in a parent, but by calls that may still be refused."""
        tally: Tally | None = self
        while tally is not None:
            if tally.admitting:
                limits = tally.limits
                for limit, used in ((limits.steps, tally.steps), (limits.model_calls, tally.model_calls)):
                    if limit is not None and used - tally.admitting < limit <= used:
                        return True
            tally = tally.parent
        return False

    def admitted(self) -> None:
        """A model call that was counted may start."""
        tally: Tally | None = self
        while tally is not None:
            tally.admitting -= 1
            tally = tally.parent

    def begin_tool(self, *, now_ms: int, enforce: bool = True) -> int:
        """Count a tool call here and in every parent; return its step. Raises like `begin_model`."""
        chain = tuple(self.chain())
        if enforce:
            for tally in chain:
                tally.check_common(now_ms)
                tally.check("tool_calls", tally.limits.tool_calls, tally.tool_calls)
        for tally in chain:
            tally.tool_calls += 1
            tally.steps += 1
        return self.steps

    def undo_model(self) -> None:
        """Take back a model call that was refused, so that a refusal costs no step."""
        for tally in self.chain():
            tally.model_calls -= 1
            tally.steps -= 1
            tally.admitting -= 1

    def begin_step(self, *, now_ms: int, enforce: bool = True) -> int:
        """Count a step that is neither, of a loop of the user's own, here and in every parent. Raises alike."""
        chain = tuple(self.chain())
        if enforce:
            for tally in chain:
                tally.check_common(now_ms)
        for tally in chain:
            tally.steps += 1
        return self.steps

    def withdraw_model(self) -> None:
        """Take back a model call that was admitted but never sent."""
        for tally in self.chain():
            tally.model_calls -= 1
            tally.steps -= 1

    def hold_tokens(
        self, *, input_tokens: int, output_tokens: int | None, floor_tokens: int, uncapped: bool = False,
        waited_ms: int = 0,
    ) -> int:  # fmt: skip
        """
        Set tokens aside for a call, here and in every parent, and return how many.

        Without a cap on the output everything that is left is set aside; so it is where the cap does not fit and is not
        the last word (`uncapped`): the request can be given a smaller one, or has none but the model's own.

        Raises:
            LimitReached: Not even `floor_tokens` of output fit into what is not yet used.
            BudgetBusy: They would fit if calls in flight had ended.
            CallTooLarge: The call's cap does not fit.
        """
        if self.parent is None and self.limits.tokens is None:
            return 0
        limited = [tally for tally in self.chain() if tally.limits.tokens is not None]
        if not limited:
            return 0
        floor = input_tokens + (floor_tokens if output_tokens is None else min(floor_tokens, output_tokens))
        cap = None if output_tokens is None else input_tokens + output_tokens
        held = min(tally.room_for_tokens(floor, cap, uncapped=uncapped, waited_ms=waited_ms) for tally in limited)
        for tally in self.chain():
            tally.held_tokens += held
        return held

    def settle(self, *, held_tokens: int, used_tokens: int, cost_pusd: int) -> None:
        """Replace tokens set aside by those used, and count the cost, here and in every parent."""
        tally: Tally | None = self
        while tally is not None:
            tally.held_tokens -= held_tokens
            tally.tokens += used_tokens
            tally.cost_pusd += cost_pusd
            tally = tally.parent

    def saved(self, what: str, tokens: int, pusd: int) -> None:
        """Count a call that was made cheaper, here and in every parent."""
        for tally in self.chain():
            count, all_tokens, all_pusd = tally.savings.get(what, (0, 0, 0))
            tally.savings[what] = (count + 1, all_tokens + tokens, all_pusd + pusd)

    def chain(self) -> Iterator[Tally]:
        """This run's tally, then those of the runs it is part of."""
        tally: Tally | None = self
        while tally is not None:
            yield tally
            tally = tally.parent

    def room_for_tokens(self, floor: int, cap: int | None, *, uncapped: bool, waited_ms: int) -> int:
        """What this tally alone could set aside; raises like `hold_tokens`."""
        limit = self.limits.tokens or 0
        if self.tokens + floor > limit:
            raise LimitReached(scope=self.scope, unit="tokens", limit=limit, used=self.tokens, setting="tokens")
        left = limit - self.tokens - self.held_tokens
        greedy = cap is None or (uncapped and cap > left)
        needed = floor if cap is None or greedy else cap
        if self.tokens + needed > limit:
            raise CallTooLarge(
                scope=self.scope, period="-", unit="tokens", limit=limit, spent=self.tokens, needed=needed
            )
        if needed > left:
            raise BudgetBusy(
                scope=self.scope, period="-", unit="tokens", limit=limit, spent=self.tokens, held=self.held_tokens,
                needed=needed, waited_ms=waited_ms,
            )  # fmt: skip
        return left if greedy else needed

    def check_common(self, now_ms: int) -> None:
        """Raise LimitReached, or BudgetBusy, if no step of any kind may start."""
        limits = self.limits
        if limits.steps is not None:
            self.check("steps", limits.steps, self.steps, self.admitting)
        if limits.tokens is not None:
            self.check("tokens", limits.tokens, self.tokens)
        if limits.seconds is not None:
            self.check("seconds", limits.seconds, self.elapsed_ms(now_ms) // 1_000)

    def check(self, setting: str, limit: int | None, used: int, admitting: int = 0) -> None:
        """Raise LimitReached if `used` has reached `limit`; BudgetBusy if some of it may still be given back."""
        if limit is None or used < limit:
            return
        unit = setting.replace("_", " ")
        if used - admitting < limit:
            raise BudgetBusy(
                scope=self.scope, period="-", unit=unit, limit=limit, spent=used - admitting, held=admitting, needed=1,
                waited_ms=0,
            )  # fmt: skip
        raise LimitReached(scope=self.scope, unit=unit, limit=limit, used=used, setting=setting)
