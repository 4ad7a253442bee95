"""Values are frozen dataclasses in every respect; they are only made more quickly."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError, asdict, dataclass, field, fields, is_dataclass, replace

import pytest

from runrails.calls import ModelCall, ModelResult, Permit, Prompt
from runrails.ledger import CallFacts, ResultFacts
from runrails.usage import Usage
from runrails.values import changing, placed, value


@value
class Point:
    """What is tested."""

    x: int
    y: int = 2
    name: str | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if self.x < 0:
            raise ValueError("x must not be negative")

    @property
    def total(self) -> int:
        """Both."""
        return self.x + self.y


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain:
    """The same, as the standard library makes it."""

    x: int
    y: int = 2
    name: str | None = None


def test_it_is_a_frozen_dataclass() -> None:
    """Equal, hashable, with a repr, fields and copies, and nothing can be set."""
    made = Point(x=1, name="a")
    assert (Point(x=1, name="a"), 3, hash(Point(x=1, name="a"))) == (made, made.total, hash(made))
    assert repr(Plain(x=1, name="a")).removeprefix("Plain") == repr(made).removeprefix("Point")
    assert [each.name for each in fields(Plain)] == [each.name for each in fields(Point)]
    assert (Point, True, {"x": 1, "y": 2, "name": "a"}) == (type(made), is_dataclass(made), asdict(made))
    assert Point(x=1, y=5, name="a") == replace(made, y=5)
    for name in ("x", "y", "other"):
        with pytest.raises((FrozenInstanceError, AttributeError, TypeError)):
            setattr(made, name, 3)
    with pytest.raises(FrozenInstanceError):
        del made.x  # type: ignore[misc]
    assert not hasattr(made, "__dict__")


@pytest.mark.parametrize("wrong", [{}, {"x": 1, "z": 2}, {"y": 1}])
def test_wrong_arguments_are_refused_alike(wrong: dict[str, int]) -> None:
    """Missing and unknown ones raise TypeError, positional ones too."""
    with pytest.raises(TypeError):
        Point(**wrong)
    with pytest.raises(TypeError):
        Point(1)  # type: ignore[misc]


def test_it_is_checked_after_it_is_made() -> None:
    """`__post_init__` is called, on what is frozen already."""
    with pytest.raises(ValueError, match="negative"):
        Point(x=-1)


def test_it_survives_copies_and_processes() -> None:
    """Pickled, copied and deep-copied it is equal and of its class."""
    made = Point(x=1, name="a")
    for again in (pickle.loads(pickle.dumps(made)), copy.copy(made), copy.deepcopy(made)):
        assert (made, Point) == (again, type(again))


def test_what_it_cannot_do_is_refused_early() -> None:
    """Subclasses and defaults that are made anew raise when the class is defined."""
    with pytest.raises(TypeError, match="no subclasses"):

        class Sub(Point):  # type: ignore[misc]
            """Not possible."""

    with pytest.raises(TypeError, match="made anew"):

        @value
        class Listed:
            """Not possible."""

            items: list[int] = field(default_factory=list)


@pytest.mark.parametrize("kind", [ModelCall, ModelResult, Permit, Prompt, CallFacts, ResultFacts, Usage])
def test_values_of_the_hot_path_are_such(kind: type) -> None:
    """They keep their slots, and are their own class once made."""
    needed = {
        ModelCall: {"model": "m"}, ModelResult: {"end": "failed"}, CallFacts: {"user": "u", "run": "r"},
        Permit: {"id": "i", "call": ModelCall(model="m"), "bound_pusd": 1, "max_tokens": 1, "started_ms": 1, "step": 1},
    }.get(kind, {})  # fmt: skip
    made = kind(**needed)
    assert (kind, False) == (type(made), hasattr(made, "__dict__"))
    assert made == replace(made)


@pytest.mark.parametrize("names", [(), ("y",), ("x", "x"), ("x", "z"), ("x", "x", "y")])
def test_places_must_be_its_fields(names: tuple[str, ...]) -> None:
    """Each once, none that it has not, and all that have no default."""
    with pytest.raises(TypeError, match="Point"):
        placed(Point, *names)


@pytest.mark.parametrize("given", [(), (1,), (1, 2, 3)])
def test_places_are_all_filled(given: tuple[int, ...]) -> None:
    """Neither fewer nor more; and nothing is given by a name that is no place."""
    make = placed(Point, "x", "name")
    with pytest.raises(TypeError):
        make(*given)
    with pytest.raises(TypeError):
        make(1, "a", y=1)


def test_placed_is_the_same_value() -> None:
    """In any order of its fields, checked unless that is not wanted, with the defaults of all others."""
    assert [Point(x=1, name="a"), Point(x=1, name="a", y=3)] == [
        placed(Point, "name", "x")("a", 1), placed(Point, "x", "y", "name")(1, 3, "a")
    ]  # fmt: skip
    with pytest.raises(ValueError, match="negative"):
        placed(Point, "x")(-1)
    assert -1 == placed(Point, "x", checks=False)(-1).x
    prompt = Prompt(texts=("a",), messages=1)
    made = placed(ModelCall, "model", "max_tokens")("m", 5)
    assert (ModelCall(model="m", max_tokens=5), ModelCall) == (made, type(made))
    assert ModelCall(model="m", prompt=prompt) == placed(ModelCall, "model", "prompt")("m", prompt)
    with pytest.raises(FrozenInstanceError):
        made.model = "n"  # type: ignore[misc]


_A_PROMPT = Prompt(texts=("a",))


@dataclass(slots=True)
class Changing:
    """No value: whoever has it may change it."""

    x: int
    y: Prompt = _A_PROMPT
    more: list[int] = field(default_factory=list)


def test_placed_makes_what_may_be_changed() -> None:
    """A dataclass with slots of its own kind; what is made anew for each must be given."""
    with pytest.raises(TypeError, match="Changing"):
        placed(Changing, "x")
    made = placed(Changing, "x", "more")(1, [2])
    assert (Changing(1, more=[2]), Changing) == (made, type(made))
    made.x = 3
    assert Changing(3, more=[2]) == made


def test_changing_is_replace() -> None:
    """The same value with other fields; the one it is made from stays as it was."""
    call = ModelCall(model="m", prompt=Prompt(texts=("a",), messages=1))
    change = changing(ModelCall, "credential", "model")

    changed = change(call, "user:alice/openai/default", "n")

    assert replace(call, credential="user:alice/openai/default", model="n") == changed
    assert ModelCall(model="m", prompt=Prompt(texts=("a",), messages=1)) == call
