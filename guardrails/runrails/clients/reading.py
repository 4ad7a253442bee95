"""What came back: a parsed answer, a raw one, or a body that is still to be read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, cast

from runrails.answers.parsed import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Response", "body_of", "inherited", "plain", "response_of", "subclass_of"]


_NO_MODEL = object()


class Response(Protocol):
    """An HTTP response of httpx or of what follows it."""

    @property
    def is_closed(self) -> bool:
        """Whether its body has been read or given up."""
        ...

    def json(self) -> object:
        """The decoded body."""
        ...


class _Generated(Protocol):
    runrails_class: type[object]


def response_of(answer: object) -> Response | None:
    """The HTTP response behind a stream or a raw answer; None for a parsed one."""
    if hasattr(answer, "__pydantic_fields_set__") or isinstance(answer, Mapping):
        return None
    for found in (getattr(answer, "http_response", None), getattr(answer, "response", None), answer):
        if hasattr(found, "iter_bytes") and hasattr(found, "is_closed"):
            return cast("Response", found)
    return None


def body_of(answer: object) -> Mapping[str, object] | None:
    """
    What a parsed answer says of the model, the service tier and its usage; and what it says. Its parts are as the wire
    had them or parsed, and only to be read: they are the answer's own.
    """
    extra: object = getattr(answer, "__pydantic_extra__", _NO_MODEL)
    if extra is not _NO_MODEL:
        # Asking the object itself for what it has not takes longer than all the rest.
        fields: dict[str, object] = vars(answer)
        if extra:
            fields = {**fields, **cast("dict[str, object]", extra)}
        if "usage" in fields:
            return fields
    elif isinstance(answer, Mapping):
        return cast("Mapping[str, object]", answer)
    if not hasattr(answer, "usage"):
        return None
    told = {name: getattr(answer, name, None) for name in ("id", "model", "service_tier", "choices", "content")}
    return {**told, "usage": getattr(answer, "usage", None)}


def subclass_of(kind: type, own: type, names: Iterable[str], more: Mapping[str, object] | None = None) -> type:
    """
    A subclass of `kind` with the methods `names` of `own`, and whatever there is `more`.

    It has one base only: an object's class can be switched to it, which a second base would forbid.
    """
    space: dict[str, object] = {**{name: own.__dict__[name] for name in names}, **(more or {})}
    space |= {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    made = type(kind.__name__, (kind,), space)
    type.__setattr__(made, "runrails_class", made)
    return made


def inherited(instance: object, name: str) -> Callable[..., object]:
    """The method `name` as the class has it that the instance's generated class was made from."""
    generated = cast("_Generated", instance).runrails_class
    return cast("Callable[..., object]", getattr(super(generated, instance), name))
