"""
Guarding every client that a program will make, for a program that does not wrap them itself (`runrails run`).

The constructors of the SDK's own classes are patched: nothing else sees each client exactly once, whoever makes it.
Where the program is not asked to be changed from outside, nothing is patched; clients are wrapped one by one.
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING

from runrails.clients.guarded import HOOKS
from runrails.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from runrails.guard import Guard

__all__ = ["guard_constructed"]

_MARK = "runrails_patched"


def guard_constructed(guard: Guard, kinds: tuple[type, ...]) -> Callable[[], None]:
    """
    Guard the clients of these classes, and of classes made from them, as soon as each is made.

    A client of another class that has the same base, and so could send what nobody sees, is refused when it is made.

    Returns:
        What ends it. Clients made meanwhile stay guarded.

    Raises:
        ConfigError: This version of the SDK is not known.
    """
    undo: list[Callable[[], None]] = []
    for kind in kinds:
        base = next((parent for parent in kind.__mro__ if HOOKS[0] in vars(parent)), kind)
        missing = [name for name in HOOKS if not hasattr(kind, name)]
        if missing:
            raise ConfigError(
                f"This version of {kind.__module__.partition('.')[0]} has no {missing[0]}, which guarding needs.",
                next_step="Install a version in the range of runrails' extra for it.",
            )
        if base is not kind:
            undo.append(_after_construction(base, lambda client: _check_kind(client, kinds)))
        undo.append(_after_construction(kind, guard.wrap))

    def detach() -> None:
        for each in reversed(undo):
            each()

    return detach


def _after_construction(kind: type, then: Callable[[object], object]) -> Callable[[], None]:
    construct: Callable[..., None] = getattr(kind, "__init__")  # noqa: B009 -- mypy takes `kind` for an instance
    if hasattr(construct, _MARK):
        return lambda: None
    own = "__init__" in vars(kind)

    @wraps(construct)
    def constructing(self: object, *args: object, **kwargs: object) -> None:
        construct(self, *args, **kwargs)
        then(self)

    def undo() -> None:
        if vars(kind).get("__init__") is not constructing:
            return  # somebody else has patched it since, and calls ours
        if own:
            type.__setattr__(kind, "__init__", construct)
        else:
            type.__delattr__(kind, "__init__")

    setattr(constructing, _MARK, True)
    type.__setattr__(kind, "__init__", constructing)
    return undo


def _check_kind(client: object, kinds: tuple[type, ...]) -> None:
    if not isinstance(client, kinds):
        made = type(client)
        raise ConfigError(
            f"runrails guards this program, but cannot guard a {made.__module__}.{made.__qualname__}.",
            next_step=f"Use one of: {', '.join(kind.__name__ for kind in kinds)}; or start the program without it.",
        )
