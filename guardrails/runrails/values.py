"""
Frozen dataclasses that are made quickly, for values of which every call makes several.

A frozen dataclass assigns each field through `object.__setattr__`, since its own refuses to. Here a new object belongs
to a twin class with the same slots that does not refuse, until its fields are set. It takes half the time.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING, Protocol, TypeVar, cast, dataclass_transform

if TYPE_CHECKING:
    from collections.abc import Callable
    from dataclasses import Field
    from types import FunctionType

__all__ = ["changing", "named", "placed", "quick", "value"]

_T = TypeVar("_T")


class _Named(Protocol):
    def __call__(self, kind: type[_T], values: tuple[object, ...], /) -> _T: ...


named = cast("_Named", tuple.__new__)  # pyright: ignore[reportUnknownMemberType] -- typeshed leaves it open
"""
Makes a named tuple of all its fields, for the path of every call: without the Python function that each of them has for
that, which costs as much again, and more where it has to be fetched from memory. Nothing is checked, not the count.
"""


@dataclass_transform(frozen_default=True, kw_only_default=True)
def value(kind: type[_T]) -> type[_T]:
    """As `dataclass(frozen=True, slots=True, kw_only=True)`, for classes with plain defaults and without subclasses."""
    made = dataclass(frozen=True, slots=True, kw_only=True, init=False)(kind)
    names = [each.name for each in fields(made)]  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] -- made above
    twin = type(made.__name__, (), {"__slots__": made.__dict__["__slots__"], "__module__": made.__module__})
    space: dict[str, object] = {
        "_switch": object.__setattr__, "_new": object.__new__, "_twin": twin, "_made": made
    }  # fmt: skip
    given: list[str] = []
    needed: list[str] = []
    for each in fields(made):  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] -- made above
        if each.default_factory is not MISSING:
            raise TypeError(f"{made.__name__}.{each.name} has a default that is made anew, which a value has not.")
        if each.default is not MISSING:
            space[f"_{each.name}"] = each.default
            given.append(f"{each.name}=_{each.name}")
        else:
            needed.append(each.name)
    setting = [*(f" self.{name} = {name}" for name in names), " self.__class__ = _made"]
    checking = [" self.__post_init__()"] if hasattr(made, "__post_init__") else []
    asked = ", ".join((*needed, *given))
    lines = [f"def __init__(self, *, {asked}):", " _switch(self, '__class__', _twin)", *setting, *checking]
    # No `*` here: what is not given is then taken from a tuple, and not looked for in a dictionary, one by one.
    for name, after in (("make", checking), ("assume", [])):
        lines += [f"def {name}({asked}):", " self = _new(_twin)", *setting, *after, " return self"]
    exec("\n".join(lines), space)  # noqa: S102 -- of the names of fields alone, as dataclasses itself does it
    init = cast("Callable[..., None]", space["__init__"])
    init.__qualname__, init.__module__ = f"{made.__qualname__}.__init__", made.__module__
    type.__setattr__(made, "__init__", init)
    type.__setattr__(made, "__init_subclass__", classmethod(_refuse_subclass))
    _makers[made] = (space["make"], space["assume"])
    return made


_WRITTEN = frozenset({str, int, bool, type(None)})
_makers: dict[type, tuple[object, object]] = {}
"""What makes each value: one way checks it, the other does not."""


def quick(kind: type[_T], *, checks: bool = True) -> type[_T]:
    """
    What makes the same value as its class in half the time again: a plain function, to be called like the class.

    A class is called through a dictionary of its arguments; a function is handed them.

    Args:
        kind: The class.
        checks: False for a caller who knows already that the fields are as the class wants them.
    """
    return cast("type[_T]", _makers[kind][not checks])


def placed(kind: type[_T], *names: str, checks: bool = True) -> Callable[..., _T]:
    """
    As `quick`, called with the contents of these fields in this order; all others have their defaults.

    Arguments by name are matched with each of the function's names, and defaults handed over one by one, which for a
    value of many fields takes as long as making it. Makes dataclasses with slots as well that are no values.

    Args:
        kind: The class.
        names: Its fields that are given.
        checks: As for `quick`.
    """
    known = {each.name: each for each in fields(kind)}  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] -- a dataclass
    needed = {name for name, each in known.items() if each.default is MISSING}
    if not needed <= {*names} <= known.keys() or len({*names}) != len(names):
        raise TypeError(f"{kind.__name__} is made of its own fields, each once, and not without those it needs.")
    space: dict[str, object] = {f"_{name}": each.default for name, each in known.items()}
    space |= {"_new": object.__new__, "_twin": kind}
    if kind in _makers:
        space = cast("FunctionType", _makers[kind][1]).__globals__
    setting = [f" self.{name} = {name if name in names else _default_of(each)}" for name, each in known.items()]
    lines = [f"def place({', '.join(names)}):", " self = _new(_twin)", *setting]
    lines += [" self.__class__ = _made"] if kind in _makers else []
    lines += [" self.__post_init__()"] if checks and hasattr(kind, "__post_init__") else []
    exec("\n".join([*lines, " return self"]), space)  # noqa: S102 -- as in `value`
    return cast("Callable[..., _T]", space["place"])


def _default_of(field: Field[object]) -> str:
    """A field's default in code: written out if it is one of Python's own constants, which need no looking up."""
    return repr(field.default) if type(field.default) in _WRITTEN or field.default == () else f"_{field.name}"


def changing(kind: type[_T], *changed: str) -> Callable[..., _T]:
    """
    As `dataclasses.replace` for these fields of such values, in a tenth of the time: called with a value and the new
    contents of those fields, in their order. Nothing is checked.
    """
    assume = cast("FunctionType", _makers[kind][1])
    code = assume.__code__  # Given by place, in the order it has them in, they are handed over quickest.
    names = code.co_varnames[: code.co_argcount]
    given = ", ".join(name if name in changed else f"old.{name}" for name in names)
    space: dict[str, object] = {"_assume": assume}
    exec(f"def change(old, {', '.join(changed)}): return _assume({given})", space)  # noqa: S102 -- as in `value`
    return cast("Callable[..., _T]", space["change"])


def _refuse_subclass(kind: type, /, **_: object) -> None:
    raise TypeError(f"{kind.__mro__[1].__name__} is a value and has no subclasses.")
