"""Scripts: which answer comes next."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias, TypeGuard

from runrails.testing.provider.values import Answer, Delay, Error, HangUp, ProviderRequest, Stall, Text, ToolCalls

__all__ = ["Script", "ScriptFunction", "Scripted", "repeating"]

ScriptFunction = Callable[[ProviderRequest], Answer]
Script: TypeAlias = "Answer | Sequence[Answer] | ScriptFunction | Mapping[str, Script]"
"""
One answer (for ever), a list of answers (each once, in order), a function of the request, or a mapping from a model's
name to any of these (`*` for every other model).
"""

SCRIPT_ENDED = Error(
    400,
    code="script_ended",
    message="The script has no more answers. Add one, or use repeating(...) for answers that never end.",
    headers={"x-should-retry": "false"},
)
NO_SCRIPT = Error(404, code="model_not_found", message='No script for this model. Add one, or one for "*".')


def repeating(*answers: Answer) -> ScriptFunction:
    """The answers in turn, over and over, for ever."""
    if not answers:
        raise ValueError("repeating() needs at least one answer.")
    count = 0
    lock = threading.Lock()

    def answer(request: ProviderRequest) -> Answer:
        del request
        nonlocal count
        with lock:
            count += 1
            return answers[(count - 1) % len(answers)]

    return answer


class Scripted:
    """A script in use: hands out the next answer, from any thread, each answer of a list exactly once."""

    def __init__(self, script: Script) -> None:
        self._route: dict[str, Scripted] | None = None
        self._answer: ScriptFunction
        if _is_route(script):
            self._route = {model: Scripted(part) for model, part in script.items()}
            self._answer = self._routed
        elif isinstance(script, Text | ToolCalls | Error | Delay | Stall | HangUp):
            self._answer = repeating(script)
        elif callable(script):
            self._answer = script
        elif _is_list(script):
            self._answer = _once(script)
        else:
            raise TypeError("A script is an answer, a list of answers, a function, or a mapping of these by model.")

    def answer(self, request: ProviderRequest) -> Answer:
        """The next answer; `script_ended` (400) when a list is used up."""
        return self._answer(request)

    def names(self, model: str) -> bool:
        """Whether the script has an entry of its own for this model."""
        return self._route is not None and model in self._route

    @property
    def models(self) -> frozenset[str]:
        """The models that have an entry of their own."""
        return frozenset(self._route or ()) - {"*"}

    def _routed(self, request: ProviderRequest) -> Answer:
        route = self._route or {}
        part = route.get(request.model) or route.get("*")
        return part.answer(request) if part is not None else NO_SCRIPT


def _is_route(script: Script) -> TypeGuard[Mapping[str, Script]]:
    return isinstance(script, Mapping)


def _is_list(script: Script) -> TypeGuard[Sequence[Answer]]:
    return isinstance(script, Sequence)


def _once(answers: Sequence[Answer]) -> ScriptFunction:
    waiting = iter(tuple(answers))
    lock = threading.Lock()

    def answer(request: ProviderRequest) -> Answer:
        del request
        with lock:
            return next(waiting, SCRIPT_ENDED)

    return answer
