"""
runrails for the OpenAI Agents SDK.

>>> from runrails import Guard, Limits
>>> from runrails_openai_agents import GuardrailRunner

`await GuardrailRunner(guard).run(agent, "…")` in the place of `Runner.run(agent, "…")`; so too `run_sync` and
`run_streamed`. An agent that is used as a tool of another one is guarded with `guard_agent` before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runrails_openai_agents.guarding import guard_agent, guard_config
    from runrails_openai_agents.runner import GuardrailRunner

__all__ = ["GuardrailRunner", "guard_agent", "guard_config"]

_HOMES = {
    "GuardrailRunner": "runrails_openai_agents.runner",
    "guard_agent": "runrails_openai_agents.guarding",
    "guard_config": "runrails_openai_agents.guarding",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'runrails_openai_agents' has no attribute {name!r}")
    from importlib import import_module

    try:
        value: object = getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as exc:
        if (exc.name or "").partition(".")[0] != "agents":
            raise
        raise ImportError(
            f'{name} needs openai-agents, which is not installed: pip install "runrails[openai-agents]"', name=exc.name
        ) from exc
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
