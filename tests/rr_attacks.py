"""
The form of an attack, for every room: what is tried on a real surface, how it must be refused, what must not change.

A room has a file ``tests/attacks/test_<room>_attacks.py`` with a `World`, a list of attacks and one of controls: what
looks like them and must be let in.
"""

from __future__ import annotations

import json
import pickle
import traceback
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

import pytest

from rr_keys import holds_part
from runrails.errors import RunrailsError
from runrails.identity.errors import Unauthenticated

__all__ = ["Attack", "Control", "World", "check_nobody", "check_refused", "check_tells_nothing", "named"]

OUTWARD = (str(Unauthenticated()), json.dumps(Unauthenticated().as_dict()), 401)
"""What everybody is told whose credential proves nobody."""


class World(Protocol):
    """Where attacks of one room happen."""

    def state(self) -> object:
        """All that an attack might change; compared before and after."""
        ...

    def secrets(self) -> Sequence[str]:
        """What may not be told in any error: no 12 characters in a row of it."""
        ...


_W = TypeVar("_W", bound=World)


class Attack(NamedTuple, Generic[_W]):
    """One attempt."""

    name: str
    act: Callable[[_W], object]
    """Does it; whoever gets an answer has got in."""
    refusal: type[RunrailsError] = Unauthenticated


class Control(NamedTuple, Generic[_W]):
    """Something that is right, and must work in the same world."""

    name: str
    act: Callable[[_W], object]
    expected: object


_N = TypeVar("_N", Attack, Control)  # type: ignore[type-arg]


def named(cases: Sequence[_N]) -> list[object]:
    """Parameters with their names. A name that is there twice would hide a case."""
    names = [case.name for case in cases]
    assert len(set(names)) == len(names), sorted(name for name in names if names.count(name) > 1)
    return [pytest.param(case, id=case.name) for case in cases]


def check_refused(attack: Attack[_W], world: _W) -> None:
    """Make the attempt: it ends in exactly its error, tells nothing, and changes nothing."""
    before = world.state()
    try:
        got = attack.act(world)
    except RunrailsError as caught:
        error = caught
    else:
        pytest.fail(f"let in: {attack.name} got {type(got).__name__}")
    assert type(error) is attack.refusal
    check_tells_nothing(error, world.secrets())
    assert before == world.state()


def check_nobody(act: Callable[[], object], reason: str, secrets: Sequence[str] = ()) -> None:
    """Somebody is not let in, for that reason, which only the operator learns; and nothing behind the error is told."""
    with pytest.raises(Unauthenticated) as caught:
        act()
    assert reason == caught.value.reason
    assert (None, None) == (caught.value.__cause__, caught.value.__context__)
    check_tells_nothing(caught.value, secrets)


def check_tells_nothing(error: RunrailsError, secrets: Sequence[str]) -> None:
    """In no form is a piece of a secret; and all who are not let in are told one and the same."""
    copied = pickle.loads(pickle.dumps(error))
    told = [
        str(error),
        repr(error),
        json.dumps(error.as_dict()),
        "".join(traceback.format_exception(error)),
        repr(copied),
    ]
    if isinstance(error, Unauthenticated):
        assert OUTWARD == (str(error), json.dumps(error.as_dict()), error.http_status)
        told.append(error.reason)
    for secret in secrets:
        assert not any(holds_part(each, secret) for each in told)
