"""
runrails for LangChain and LangGraph.

>>> from runrails import Guard, Limits
>>> from runrails_langchain import GuardrailCallbackHandler

Add `GuardrailCallbackHandler(guard)` to the callbacks of any agent, chain or model, or put the call inside
``with guard.run():``, which needs no callbacks argument. An agent made by `create_agent` (langchain 1.0 or newer) can
have `GuardrailMiddleware(guard)`, which also hints, blocks, and ends it gracefully. LangChain has no callback events
for embeddings and for clients used without it: those are guarded where they are called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runrails_langchain.attaching import attach
    from runrails_langchain.caching import ResponseCacheAdapter
    from runrails_langchain.handler import GuardrailCallbackHandler
    from runrails_langchain.keys import use_keys
    from runrails_langchain.middleware import GuardrailMiddleware
    from runrails_langchain.toolguard import guard_tools

__all__ = [
    "GuardrailCallbackHandler", "GuardrailMiddleware", "ResponseCacheAdapter", "attach", "guard_tools", "use_keys",
]  # fmt: skip

_HOMES = {
    "GuardrailCallbackHandler": "runrails_langchain.handler",
    "GuardrailMiddleware": "runrails_langchain.middleware",
    "ResponseCacheAdapter": "runrails_langchain.caching",
    "attach": "runrails_langchain.attaching",
    "guard_tools": "runrails_langchain.toolguard",
    "use_keys": "runrails_langchain.keys",
}
_NEEDS = {"langchain_core": "langchain-core", "langchain": "langchain>=1", "langgraph": "langgraph>=1"}
"""What pip calls the packages that a name here may need; the middleware needs more than the callback does."""


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'runrails_langchain' has no attribute {name!r}")
    from importlib import import_module

    try:
        value: object = getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as exc:
        package = _NEEDS.get((exc.name or "").partition(".")[0])
        if package is None:
            raise
        extra = "runrails[langchain]" if package == "langchain-core" else package
        raise ImportError(
            f'{name} needs {package}, which is not installed (or is too old): pip install "{extra}"', name=exc.name
        ) from exc
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
