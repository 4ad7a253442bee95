"""A secret as a value: it can be handed on, kept and compared, and shows itself to nobody who does not ask by name."""

from __future__ import annotations

from typing import NoReturn, final

__all__ = ["Secret"]

_SHOWN = "Secret(…)"


@final
class Secret:
    """
    A key, token, pepper or password.

    Whatever prints, logs, formats, inspects or serialises it gets ``Secret(…)`` or an error; only `reveal` and
    `reveal_bytes` give it away. Python cannot wipe a string from memory, so that is not promised.

    Args:
        value: Text or bytes, not empty.

    Raises:
        TypeError: It is neither.
        ValueError: It is empty, or text that has no UTF-8 form. The message never has the value.
    """

    __slots__ = ("_held",)

    _held: bytes

    def __init__(self, value: str | bytes) -> None:
        held = _as_bytes(value)
        # Some loggers print the local variables of every frame of an error.
        del value
        if isinstance(held, Exception):
            raise held
        object.__setattr__(self, "_held", held)

    def __init_subclass__(cls) -> NoReturn:
        raise TypeError("A secret has no subclasses: one of them might show it.")

    def reveal(self) -> str:
        """
        The secret as text.

        Raises:
            ValueError: It is bytes that are no UTF-8 text.
        """
        try:
            return self._held.decode()
        except UnicodeDecodeError:
            pass  # Python's own error carries the value, also as the context of another.
        raise ValueError("This secret is bytes, not text; use reveal_bytes().")

    def reveal_bytes(self) -> bytes:
        """The secret as bytes; of text, its UTF-8 form."""
        return self._held

    def __eq__(self, other: object) -> bool:
        """Whether both hold the same bytes, in a time that does not tell where they differ."""
        if type(other) is not Secret:
            return NotImplemented
        from hmac import compare_digest

        return compare_digest(self._held, other._held)

    # A hash would tell of the value to whoever sees it, and a dict compares by it in a time that tells more.
    __hash__ = None  # type: ignore[assignment] # pyright: ignore[reportAssignmentType] -- how Python says that there is none

    def __repr__(self) -> str:
        return _SHOWN

    def __str__(self) -> str:
        return _SHOWN

    def __format__(self, format_spec: str, /) -> str:
        return _SHOWN

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object, /) -> Secret:
        # Dataclasses are copied deeply by `asdict`; what never changes may be shared.
        return self

    def __reduce_ex__(self, protocol: object, /) -> NoReturn:
        raise TypeError("A secret is not pickled: hand on where it is kept, for instance env:NAME.")

    def __getstate__(self) -> NoReturn:
        raise TypeError("A secret has no state to show.")

    def __setattr__(self, name: str, value: object, /) -> NoReturn:
        raise AttributeError("A secret never changes.")

    def __delattr__(self, name: str, /) -> NoReturn:
        raise AttributeError("A secret never changes.")


def _as_bytes(value: object) -> bytes | ValueError | TypeError:
    """What is held, or what is wrong with it."""
    if isinstance(value, str):
        try:
            held = value.encode()
        except UnicodeEncodeError:
            return ValueError("A secret that is text must have a UTF-8 form.")
    elif isinstance(value, bytes):
        held = bytes(value)
    else:
        return TypeError("A secret must be text or bytes.")
    return held or ValueError("A secret must not be empty.")
