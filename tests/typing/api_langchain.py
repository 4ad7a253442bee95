"""The public face of the LangChain adapter as a type checker sees it. Checked by mypy and pyright in CI; never run."""

from __future__ import annotations

from typing import Any, assert_type

from langchain.agents.middleware import AgentMiddleware
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables import Runnable, RunnableConfig

from runrails import Guard, Run
from runrails_langchain import GuardrailCallbackHandler, GuardrailMiddleware, attach

handler = GuardrailCallbackHandler(Guard(store="memory:"))
assert_type(handler, GuardrailCallbackHandler)
assert_type(handler.runs, tuple[Run, ...])
assert_type(handler.last_run, Run | None)
listed: list[BaseCallbackHandler] = [handler]
config: RunnableConfig = {"callbacks": listed}

middleware: list[AgentMiddleware[Any, Any, Any]] = [GuardrailMiddleware(handler.guard, on_stop="raise")]


def ask(agent: Runnable[str, str]) -> str:
    """Attach it."""
    return agent.invoke("hello", config)


attach()
