"""
runrails for Pydantic AI.

>>> from runrails import Guard, Limits
>>> from runrails_pydantic_ai import GuardrailCapability

`Agent(…, capabilities=[GuardrailCapability(guard)])` guards every run of the agent, and so does
`agent.run(…, capabilities=[GuardrailCapability(guard)])` for one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runrails_pydantic_ai.capability import GuardrailCapability

__all__ = ["GuardrailCapability"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'runrails_pydantic_ai' has no attribute {name!r}")
    try:
        from runrails_pydantic_ai.capability import GuardrailCapability
    except ModuleNotFoundError as exc:
        if (exc.name or "").partition(".")[0] != "pydantic_ai":
            raise
        raise ImportError(
            f"{name} needs pydantic-ai-slim, which is not installed (or is too old): "
            'pip install "runrails[pydantic-ai]"',
            name=exc.name,
        ) from exc
    globals()[name] = GuardrailCapability
    return GuardrailCapability


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
