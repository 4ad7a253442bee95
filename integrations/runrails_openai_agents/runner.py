"""The runner: `agents.Runner` with the guard around it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from agents import RunConfig, Runner
from agents.run_state import RunState

from runrails.dialogue import open_dialogue
from runrails.errors import ConfigError, GuardrailStopped
from runrails_openai_agents.guarding import guard_agent, guard_config, is_guarded
from runrails_openai_agents.requests import question_of

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from agents import Agent, RunResult, RunResultStreaming
    from agents.items import TResponseInputItem
    from agents.run_config import RunOptions
    from typing_extensions import Unpack

    from runrails.dialogue import Dialogue
    from runrails.guard import Guard
    from runrails.run import Run

__all__ = ["GuardrailRunner"]

_C = TypeVar("_C")
_CAUSES_MAX = 8


class GuardrailRunner:
    """
    Runs agents as `agents.Runner` does, with the same arguments, and guards whatever they do.

    A call that keeps failing gets a hint in its result, then is answered in the tool's place; when the run is over, the
    next model call raises `GuardrailStopped`, where every tool call in the conversation has its result. A call that
    may not start raises `CallRefused`. A budget that is nearly used up lowers the request's `max_tokens`. Agents that
    are handed off to belong to it; so do agents used as tools.

    Inside `with guard.run():` or a supervisor it all belongs to that run, else each call is a run of its own. One
    runner serves any number of agents, tasks and event loops.

    Args:
        guard: Limits, prices and the store.
    """

    def __init__(self, guard: Guard) -> None:
        self.guard = guard

    async def run(
        self,
        starting_agent: Agent[_C],
        input: str | list[TResponseInputItem] | RunState[_C],  # noqa: A002 -- the SDK's name
        **options: Unpack[RunOptions[_C]],
    ) -> RunResult:
        """
        As `Runner.run`.

        Raises:
            GuardrailStopped: The run is over.
            CallRefused: A call may not start, and nothing was sent.
            ConfigError: The agent cannot be guarded; the message says why.
        """
        agent = self._agent(starting_agent, input)
        config = self._config(options)
        dialogue = open_dialogue(self.guard, question_of(input))
        try:
            with dialogue.inside():
                return await Runner.run(agent, input, **options)
        except Exception as exc:
            _raise_stop(dialogue.run, exc)
            raise
        finally:
            await dialogue.aclose()
            if config is not None:
                await config.model_provider.aclose()

    def run_sync(
        self,
        starting_agent: Agent[_C],
        input: str | list[TResponseInputItem] | RunState[_C],  # noqa: A002 -- the SDK's name
        **options: Unpack[RunOptions[_C]],
    ) -> RunResult:
        """As `Runner.run_sync`; raises what `run` does."""
        agent = self._agent(starting_agent, input)
        self._config(options)
        dialogue = open_dialogue(self.guard, question_of(input))
        try:
            with dialogue.inside():
                return Runner.run_sync(agent, input, **options)
        except Exception as exc:
            _raise_stop(dialogue.run, exc)
            raise
        finally:
            dialogue.close()

    def run_streamed(
        self,
        starting_agent: Agent[_C],
        input: str | list[TResponseInputItem] | RunState[_C],  # noqa: A002 -- the SDK's name
        **options: Unpack[RunOptions[_C]],
    ) -> RunResultStreaming:
        """
        As `Runner.run_streamed`; its `stream_events` raises what `run` does.

        Only a stop that a tool lets out comes in the SDK's own `UserError` here, as its cause.
        """
        agent = self._agent(starting_agent, input)
        config = self._config(options)
        dialogue = open_dialogue(self.guard, question_of(input))
        try:
            with dialogue.inside():
                result = Runner.run_streamed(agent, input, **options)
        except BaseException:
            dialogue.close()
            raise
        task = result.run_loop_task
        if task is None:
            dialogue.close()
        else:
            task.add_done_callback(lambda _: _later(_ended(dialogue, config)))
        return result

    def _agent(self, agent: Agent[_C], given: object) -> Agent[_C]:
        current: object = getattr(given, "_current_agent", None)
        if isinstance(given, RunState) and not is_guarded(self.guard, current):
            raise ConfigError(
                "The agent of this state is not guarded.",
                next_step="Read the state with RunState.from_json(guard_agent(guard, agent), …).",
            )
        return guard_agent(self.guard, agent)

    def _config(self, options: RunOptions[_C]) -> RunConfig | None:
        """Guard the models that are looked up by name. Returns the configuration if nobody else has made one."""
        given = options.get("run_config")
        config = options["run_config"] = guard_config(self.guard, given)
        return config if given is None else None


def _raise_stop(run: Run, error: Exception) -> None:
    """The SDK wraps what a tool raises, and a tool may have called an agent of this run."""
    cause: BaseException | None = error.__cause__
    for _ in range(_CAUSES_MAX):
        if isinstance(cause, GuardrailStopped) and run.stopped is not None:
            raise run.stopped.again() from error
        cause = None if cause is None else cause.__cause__


async def _ended(dialogue: Dialogue, config: RunConfig | None) -> None:
    await dialogue.aclose()
    if config is not None:
        await config.model_provider.aclose()


_running: set[asyncio.Task[None]] = set()
"""asyncio itself keeps no task alive."""


def _later(work: Coroutine[object, object, None]) -> None:
    task = asyncio.ensure_future(work)
    _running.add(task)
    task.add_done_callback(_running.discard)
