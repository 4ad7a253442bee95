"""Tells what knows nothing of LangChain, such as a wrapped SDK client inside a tool, in which run it is called."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langchain_core.runnables.config import var_child_runnable_config

from runrails import current

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from runrails.guard import Guard
    from runrails.run import Run

__all__ = ["finding"]


def finding(of: Callable[[Guard, UUID], Run | None]) -> None:
    """
    From now on the run that a handler has opened is found by code inside it.

    Args:
        of: Gives the run in which a guard's handlers have seen a LangChain run of that id start.
    """

    def find(guard: Guard) -> Run | None:
        config = var_child_runnable_config.get()
        # LangChain sets it for everything it calls, with the manager of the callbacks that are called for it.
        parent: UUID | None = getattr(None if config is None else config.get("callbacks"), "parent_run_id", None)
        return None if parent is None else of(guard, parent)

    current.enclosing.append(find)
