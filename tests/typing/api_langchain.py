"""The public face of the LangChain adapter as a type checker sees it. Checked by mypy and pyright in CI; never run."""

from __future__ import annotations

from typing import assert_type

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables import Runnable, RunnableConfig

from runrails import Guard, Run
from runrails_langchain import GuardrailCallbackHandler, attach

handler = GuardrailCallbackHandler(Guard(store="memory:"))
assert_type(handler, GuardrailCallbackHandler)
assert_type(handler.runs, tuple[Run, ...])
assert_type(handler.last_run, Run | None)
listed: list[BaseCallbackHandler] = [handler]
config: RunnableConfig = {"callbacks": listed}


def ask(agent: Runnable[str, str]) -> str:
    """Attach it."""
    return agent.invoke("hello", config)


attach()
