"""Scripts with a character: one that echoes, and agents that will not give up on a tool."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from runrails.testing.provider.values import Answer, Json, ProviderRequest, Text, ToolCalls, ToolUse

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from runrails.testing.provider.script import ScriptFunction
    from runrails.usage import Usage

__all__ = ["REWORDINGS", "echo", "founding", "looks_empty", "never_gives_up", "until_morning", "works_through"]

REWORDINGS = (
    "The tool gave no result. I will try again.",
    "That did not work; one more attempt should do it.",
    "Perhaps it was a hiccup. Let me ask the tool once more.",
    "Still nothing. I am confident that the next call succeeds.",
    "I will retry the same step with fresh eyes.",
    "The answer must be there, so I ask for it again.",
    "No output yet. Trying anew, since I cannot go on without it.",
)
"""Seven ways to say the same: what hides a repeated call from detectors that compare thoughts."""
RETRIES_OVERNIGHT = 891
"""Retries in the founding incident."""

_EMPTY = re.compile(
    r"\s*(?:|null|none|\[\]|\{\}|\"\"|''|.*\bno results?\b.*|.*\bnothing found\b.*)\s*", re.IGNORECASE | re.DOTALL
)
_STATE = re.compile(r"call_(\d+)_(\d+)_(\d+)")


def echo(request: ProviderRequest) -> Answer:
    """The newest message's text comes back."""
    return Text(request.last.text if request.last is not None else "")


def looks_empty(result: str) -> bool:
    """Whether a tool's result says nothing: blank, an empty value, or words such as "no result"."""
    return _EMPTY.fullmatch(result) is not None


def works_through(
    tool: str,
    work: Sequence[Mapping[str, Json]],
    *,
    failed: Callable[[str], bool] = looks_empty,
    retries_max: int | None = None,
    rewordings: Sequence[str] = REWORDINGS,
    answer: str = "All done.",
    given_up: str = "Good morning. I could not finish the work.",
    usage: Usage | None = None,
) -> ScriptFunction:
    """
    An agent that calls `tool` for each piece of work in turn, and again for the same piece while the result is empty.

    The state is in the ids of the tool calls, which every wire hands back: the script is a pure function of the
    request, serves any number of agents at once, and does not mind if the history it is shown has been shortened.

    Args:
        tool: Name of the tool.
        work: The arguments of each call.
        failed: Says of a tool's result whether it is worth another try.
        retries_max: Failing calls, over all the work, after which the agent gives up; None: never.
        rewordings: Thoughts, taken in turn, one a call.
        answer: The last answer when everything is done.
        given_up: The last answer when it gives up.
        usage: Billed for every answer; None: counted.
    """
    if not work or not rewordings:
        raise ValueError("works_through() needs at least one piece of work and one thought.")

    def next_answer(request: ProviderRequest) -> Answer:
        agent, place, failures = request.number, 0, 0
        last = request.last
        state = _STATE.fullmatch(last.tool_call_id or "") if last is not None and last.role == "tool" else None
        if last is not None and state is not None:
            agent, place, failures = map(int, state.groups())
            empty = failed(last.text)
            failures += empty
            place += not empty
        if retries_max is not None and failures >= retries_max:
            return Text(given_up, usage=usage)
        if place >= len(work):
            return Text(answer, usage=usage)
        call = ToolUse(tool, work[place], id=f"call_{agent}_{place}_{failures}")
        return ToolCalls([call], text=rewordings[(place + failures) % len(rewordings)], usage=usage)

    return next_answer


def never_gives_up(
    tool: str,
    args: Mapping[str, Json],
    *,
    rewordings: Sequence[str] = REWORDINGS,
    failed: Callable[[str], bool] = looks_empty,
    usage: Usage | None = None,
) -> ScriptFunction:
    """An agent that asks for the same tool with the same arguments, reworded, for as long as the result is empty."""
    return works_through(tool, [args], rewordings=rewordings, failed=failed, usage=usage)


def until_morning(
    tool: str,
    args: Mapping[str, Json],
    *,
    n: int = RETRIES_OVERNIGHT,
    rewordings: Sequence[str] = REWORDINGS,
    failed: Callable[[str], bool] = looks_empty,
    usage: Usage | None = None,
) -> ScriptFunction:
    """Like `never_gives_up`, but after `n` failing calls the morning comes and with it a final answer."""
    return works_through(tool, [args], rewordings=rewordings, failed=failed, retries_max=n, usage=usage)


def founding() -> ScriptFunction:
    """The founding incident: a classifier gives nothing for a review that is not in English, and the agent retries."""
    return never_gives_up("classify_review", {"text": "Le produit est arrivé cassé."})
