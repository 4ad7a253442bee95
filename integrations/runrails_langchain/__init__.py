"""
runrails for LangChain and LangGraph.

>>> from runrails import Guard, Limits
>>> from runrails_langchain import GuardrailCallbackHandler

Add `GuardrailCallbackHandler(guard)` to the callbacks of any agent, chain or model, or put the call inside
``with guard.run():``, which needs no callbacks argument. LangChain has no callback events for embeddings and for
clients used without it: those are guarded where they are called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runrails_langchain.attach import attach
    from runrails_langchain.handler import GuardrailCallbackHandler

__all__ = ["GuardrailCallbackHandler", "attach"]

_HOMES = {"GuardrailCallbackHandler": "runrails_langchain.handler", "attach": "runrails_langchain.attach"}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'runrails_langchain' has no attribute {name!r}")
    from importlib import import_module

    try:
        value: object = getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.partition(".")[0] != "langchain_core":
            raise
        raise ImportError(
            'runrails_langchain needs langchain-core, which is not installed: pip install "runrails[langchain]"'
        ) from exc
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
