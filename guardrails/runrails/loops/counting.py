"""How one more outcome changes what is remembered. Each function is the counting half of a rule in `rules`."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING
from zlib import crc32

from runrails.loops.canonical import canonical
from runrails.loops.digest import digest64
from runrails.loops.memory import FAILURES_MAX, CallMemory, FailureMemory, PairMemory, Scope, recall
from runrails.loops.outcome import Outcome, Status
from runrails.loops.units import combination, line_units, names, share_name, words
from runrails.loops.verbs import acts

if TYPE_CHECKING:
    from runrails.loops.policy import LoopPolicy
    from runrails.loops.snapshot import Memory

__all__ = [
    "args_seed",
    "count_failure",
    "count_progress",
    "count_repeat",
    "is_failure",
    "is_polling",
    "is_recent",
    "learn",
    "take_news",
]

_OK, _EMPTY = Status.OK, Status.EMPTY
_SEEDS_MAX = 512
FAILURE_GAP_TURNS = 12
"""A failure that comes back later than this after the last time is a new story."""
POLL_GAP_TURNS = 2
"""What is done between two polls (waiting, as a rule) has the poll's allowance."""


_COMMAND = re.compile(r"(?:.*[\x1c-\x1f])?(?:command|cmd|script|code)\x1f", re.DOTALL)
_NO_ARGS = frozenset((canonical({}), canonical(None), ""))


def is_recent(scope: Scope, turn: int) -> bool:
    """Whether a failure at that turn is still the same story."""
    return scope.turns - turn <= FAILURE_GAP_TURNS


def is_polling(scope: Scope) -> bool:
    """Whether the agent is waiting for a declared poll that has some allowance left."""
    return scope.poll_turn > 0 and scope.turns - scope.poll_turn <= POLL_GAP_TURNS


def take_news(scope: Scope, read: Outcome, era: int) -> None:
    """A call gave an outcome it had never given: what had repeated so far counts no more."""
    scope.previous_era, scope.era = scope.era, era
    scope.blocked = scope.blocked_batch = 0
    if read.status is _OK:
        scope.ok_era = era
        scope.stuck_failure = 0


def count_repeat(
    scope: Scope,
    pair_key: int,
    pair: PairMemory,
    memory: CallMemory,
    read: Outcome,
    *,
    poll: bool,
    failed: bool,
    policy: LoopPolicy,
) -> None:
    """The same call with the same outcome and nothing new between. `failed`: it counts as a failure among news, too."""
    if pair.era != scope.era or (poll and memory.pair != pair_key):
        # News steps one rung down, not to the ground: what had been blocked may be tried again once.
        had_blocked = memory.blocked_era and memory.blocked_era == scope.previous_era and memory.pair == pair_key
        pair.count = max(0, min(policy.hint_at, policy.block_at - 2)) if had_blocked else 0
        pair.era, pair.first = scope.era, scope.steps
    pair.count += 1
    if memory.era != scope.era or poll or pair.count >= memory.count:
        memory.count, memory.first = pair.count, pair.first
    _count_total(scope, pair, memory, failed=failed)
    memory.pair, memory.outcome, memory.era, memory.epoch = pair_key, read.key, scope.era, scope.epoch
    pair.turn = memory.turn = scope.turns
    memory.flags = (
        memory.flags & CallMemory.BARRED
        | (CallMemory.FAILED if read.status is not _OK else 0)
        | (CallMemory.BARE if read.bare else 0)
        | (CallMemory.TERMINAL if read.terminal else 0)
    )
    if poll and not read.terminal and pair.count < policy.poll_at:
        scope.poll_turn = scope.turns


def _count_total(scope: Scope, pair: PairMemory, memory: CallMemory, *, failed: bool) -> None:
    """The same failure, whatever came between; a success of the call itself ends the story."""
    recovered = memory.total == 0 or memory.epoch != scope.epoch
    if not failed:
        memory.total = 0
        memory.flags &= ~CallMemory.BARRED
        return
    if recovered or pair.epoch != scope.epoch or not is_recent(scope, pair.turn):
        pair.epoch, pair.total, pair.total_first = scope.epoch, 0, scope.steps
        memory.flags &= ~CallMemory.BARRED
    pair.total += 1
    memory.total, memory.total_first = pair.total, pair.total_first


def is_failure(scope: Scope, read: Outcome, tool: str, args: str) -> bool:
    """
    Whether an empty outcome counts as a failure though other calls brought news between.

    Silence is how commands, writes and checks say that all is well. A call that asks for nothing in particular (an
    inbox, a queue) looks whether there is something by now, and what was just changed is rightly looked at again.
    """
    if not read.worded and (acts(tool) or _COMMAND.match(args)):
        return False
    return args not in _NO_ARGS and not share_name(scope.touched, names(args))


def count_failure(
    tables: Memory,
    scope: Scope,
    seed: int,
    tool: str,
    read: Outcome,
    *,
    threshold: int,
) -> None:
    """One failure text, whichever calls give it, with no success that is new between."""
    key = read.key ^ seed
    failure = recall(tables.failures, key, FailureMemory, FAILURES_MAX)
    if failure.ok_era != scope.ok_era:
        failure.ok_era, failure.count, failure.first = scope.ok_era, 0, scope.steps
        failure.tool_1 = failure.tool_2 = failure.tool_3 = failure.tool_4 = 0
    failure.count += 1
    failure.add_tool(digest64("tool", tool))
    if failure.count >= threshold:
        scope.stuck_failure = key


def learn(tables: Memory, seed: int, read: Outcome, tool: str, args: str | None) -> bool:
    """
    Remember the words and lines of a new outcome and, if given, of a new call; whether any was not known.

    Combinations are news for each tool, or the second tool of a job would find every ticket known.
    """
    news = tables.units.learn(line_units(read.text), seed)
    if args is None:
        return news
    # A combination tells something only where every word of it is known.
    return tables.units.learn(words(args), seed) or tables.units.learn(combination(args), args_seed(seed, tool)) or news


@lru_cache(_SEEDS_MAX)
def args_seed(seed: int, tool: str) -> int:
    """What the combinations of a tool's arguments are remembered under."""
    return crc32(tool.encode("utf-8", "surrogatepass"), seed & 0xFFFFFFFF)


def count_progress(scope: Scope, *, progress: bool, slow: bool, policy: LoopPolicy) -> None:
    """
    Not one word or line that was not known.

    `slow` is for results of many lines, whose reading is often repeated for good reasons. It takes
    `no_progress_lines_at` of those, or `no_progress_at` others.
    """
    if progress:
        scope.points = scope.streak = 0
        return
    if scope.streak == 0:
        scope.streak_first = scope.steps
    scope.points += policy.no_progress_at if slow else policy.no_progress_lines_at
    scope.streak += 1
