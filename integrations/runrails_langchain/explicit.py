"""What tells a callback of ours from others without loading LangChain."""

from __future__ import annotations

__all__ = ["Guarding"]


class Guarding:
    """Base of our callback: where one is attached already, that of the whole process is not."""
