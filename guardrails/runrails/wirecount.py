"""What the prompt of a request comes to, counted part by part; and what of a conversation was counted before. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runrails.calls import Prompt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Count", "Measured"]


class Count:
    """What a request has, counted part by part."""

    __slots__ = ("cache", "images", "messages", "mode", "pictures", "stored", "texts", "tools", "unbounded")

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.tools: list[str] = []
        self.messages = 0
        self.images = 0
        self.pictures: list[int] = []
        self.mode = ""
        self.cache = False
        self.unbounded: str | None = None
        self.stored: str | None = None

    def add(self, other: Count) -> None:
        """What was counted of something else that is sent behind it."""
        self.texts += other.texts
        self.messages += other.messages
        self.images += other.images
        self.pictures += other.pictures
        self.cache = self.cache or other.cache
        self.unbounded = other.unbounded or self.unbounded
        self.stored = other.stored or self.stored

    def copy(self) -> Count:
        """The same, to go on from."""
        made = Count()
        made.add(self)
        return made

    def prompt(self) -> Prompt:
        """All of it."""
        if self.unbounded is None and self.stored is None and not (self.tools or self.images or self.mode):
            return Prompt(texts=tuple(self.texts), messages=self.messages)
        return Prompt(
            texts=tuple(self.texts), messages=self.messages, tools=tuple(self.tools), images=self.images,
            unbounded=self.unbounded, stored=self.stored, pictures=tuple(self.pictures), mode=self.mode,
        )  # fmt: skip


class Measured:
    """
    What the first messages of a conversation come to, so that of a request which begins with the very same ones only
    the others are measured. Nothing in it changes but for what `grown` is called on afterwards.
    """

    __slots__ = ("_count", "items")

    def __init__(self) -> None:
        self._count = Count()
        self.items = 0
        """How many there are."""

    def grown(self) -> Measured:
        """The same, for a conversation that begins alike."""
        made = Measured()
        made._count, made.items = self._count, self.items
        return made

    def measure(self, items: Sequence[object], add: Callable[[object, Count], None]) -> Count:
        """All items, those that are known included; `add` counts those that are not."""
        count = self._count.copy()
        add(items[self.items :], count)
        self._count, self.items = count, len(items)
        return count
