"""What a run's last answer is made of, where it is asked for outside of the conversation."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langchain_core.messages import BaseMessage

__all__ = ["Heard"]


class Heard:
    """The newest conversation of a run's root agent, as its model was sent it; kept while the run lasts."""

    __slots__ = ("messages",)

    def __init__(self) -> None:
        self.messages: Sequence[BaseMessage] = ()
