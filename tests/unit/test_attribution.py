"""Whose money: the values, how one place's word goes over another's, and the block that says it."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import pickle
import threading
from collections.abc import AsyncIterator, Iterator

import pytest

from rr_core import Bench
from runrails import Attribution, ConfigError, ScopeExhausted
from runrails.attributing import Ambient, Attributing
from runrails.attribution import TAG_NAME_CHARS_MAX, TAG_VALUE_CHARS_MAX, TAGS_MAX, check_tags
from runrails.errors import BudgetExceeded, CallRefused, GuardrailStopped

SECRET = "sk-live 0123"


@pytest.mark.parametrize("wrong", ["", " ", "a b", "ü", "x" * 129, "-a", 5, True, b"bob", SECRET, "a\n"])
@pytest.mark.parametrize("field", ["user", "key", "org"])
def test_ids_outside_the_grammar_are_refused(field: str, wrong: object) -> None:
    """User, key and organisation are ids; the error names the field and not what was given."""
    with pytest.raises(ConfigError, match=field) as caught:
        Attribution(**{field: wrong})  # type: ignore[arg-type]
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"": "x"}, {"1a": "x"}, {"te am": "x"}, {"team=x": "y"}, {"ü": "x"}, {"a" * (TAG_NAME_CHARS_MAX + 1): "x"},
        {5: "x"}, {"team": ""}, {"team": "x" * (TAG_VALUE_CHARS_MAX + 1)}, {"team": "a\nb"}, {"team": "\udc80"},
        {"team": "(other)"}, {"team": 5}, {"team": None}, {"team": SECRET + "\0"}, [("team", "x")], "team=x", 5,
        {f"t{n}": "x" for n in range(TAGS_MAX + 1)},
    ],
)  # fmt: skip
def test_malformed_tags_are_refused(wrong: object) -> None:
    """A tag has a plain name and printable text; the error has neither."""
    with pytest.raises(ConfigError) as caught:
        Attribution(tags=wrong)  # type: ignore[arg-type]
    assert SECRET not in str(caught.value)
    with pytest.raises((ConfigError, TypeError, ValueError)):
        check_tags(tuple(wrong.items()) if isinstance(wrong, dict) else wrong)


def test_tags_at_their_limits_are_taken() -> None:
    """Sixteen tags, a name of 64 characters and a value of 128, in any script, fit."""
    longest = "ü é 語 -_" * (TAG_VALUE_CHARS_MAX // 8)
    assert TAG_VALUE_CHARS_MAX == len(longest)
    tags = {f"t{n}": "x" for n in range(TAGS_MAX - 1)} | {"a" * TAG_NAME_CHARS_MAX: longest}
    assert tags == dict(Attribution(tags=tags).tags)
    assert check_tags(Attribution(tags=tags).tags) == Attribution(tags=tags).tags


def test_it_is_a_value() -> None:
    """Equal by content whatever the order of tags, hashable, immutable, out of its maker's reach, can be pickled."""
    tags = {"team": "search", "env": "prod"}
    one = Attribution(user="bob", tags=tags)
    other = Attribution(user="bob", tags={"env": "prod", "team": "search"})
    tags["team"] = "ads"
    assert (one, hash(one)) == (other, hash(other))
    assert (("env", "prod"), ("team", "search")) == one.tags
    assert one != Attribution(user="bob", tags={"env": "prod"})
    with pytest.raises(AttributeError):
        one.user = "eve"  # type: ignore[misc]
    assert one == pickle.loads(pickle.dumps(one)) == copy.deepcopy(one)


def test_the_newer_word_wins_field_by_field_and_tag_by_tag() -> None:
    """What the newer does not say stays as the older said it."""
    older = Attribution(user="alice", org="acme", tags={"team": "ads", "env": "prod"})
    newer = Attribution(user="bob", key="k1", tags={"team": "search"})
    assert Attribution(user="bob", key="k1", org="acme", tags={"team": "search", "env": "prod"}) == newer.over(older)
    assert older == Attribution().over(older) == older.over(Attribution())
    assert Attribution(user="bob", org="acme") == Attribution(user="bob").over(Attribution(org="acme"))


def test_tags_of_two_places_count_together() -> None:
    """Sixteen together fit, a seventeenth is an error."""
    older = Attribution(tags={f"t{n}": "x" for n in range(TAGS_MAX - 1)})
    assert TAGS_MAX == len(Attribution(tags={"new": "x", "t0": "y"}).over(older).tags)
    with pytest.raises(ConfigError, match="16"):
        Attribution(tags={"new": "x", "newer": "y"}).over(older)


def within(ambient: Ambient, **said: str) -> Attributing:
    return Attributing(ambient, Attribution(**said))  # type: ignore[arg-type]


def user(ambient: Ambient) -> str | None:
    by = ambient.get()
    return None if by is None else by.user


def test_blocks_nest_and_end() -> None:
    """The inner word wins, the outer one is back after it, and nothing is left behind, an exception or not."""
    ambient = Ambient()
    assert ambient.get() is None
    with within(ambient, user="alice", org="acme"):
        with pytest.raises(ZeroDivisionError), within(ambient, user="bob"):
            assert Attribution(user="bob", org="acme") == ambient.get()
            _ = 1 / 0
        assert Attribution(user="alice", org="acme") == ambient.get()
    assert ambient.get() is None


def test_two_guards_do_not_hear_each_other() -> None:
    """A block of one guard says nothing for another's calls, however they are nested."""
    one, other = Ambient(), Ambient()
    with within(one, user="alice"), within(other, user="bob"), within(one, org="acme"):
        assert Attribution(user="alice", org="acme") == one.get()
        assert Attribution(user="bob") == other.get()


def test_one_block_serves_many_threads_and_may_be_entered_again() -> None:
    """A block keeps no state: threads that enter the same one do not see each other's end."""
    ambient = Ambient()
    block = within(ambient, user="bob")
    seen: list[tuple[str | None, str | None]] = []
    all_inside = threading.Barrier(2)

    def work() -> None:
        with block:
            all_inside.wait(60)
            during = user(ambient)
        seen.append((during, user(ambient)))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with block, block:
        work_again = user(ambient)
    assert [("bob", None)] * 2 == seen
    assert ("bob", None) == (work_again, user(ambient))


def test_a_generator_finished_elsewhere_takes_nothing_away() -> None:
    """A block left in another context than it was entered in changes nothing there."""
    ambient = Ambient()

    def generate() -> Iterator[str | None]:
        with within(ambient, user="bob"):
            yield user(ambient)

    generator = generate()
    assert "bob" == contextvars.copy_context().run(next, generator)
    with within(ambient, user="alice"):
        generator.close()
        assert "alice" == user(ambient)
    assert user(ambient) is None


async def test_tasks_do_not_hear_each_other() -> None:
    """Each task has its own word; a task begun inside a block keeps it."""
    ambient = Ambient()

    async def work(name: str) -> list[str | None]:
        with within(ambient, user=name):
            await asyncio.sleep(0)
            child = asyncio.create_task(asyncio.sleep(0, result=None))
            await child
            return [user(ambient), await asyncio.to_thread(user, ambient)]

    async def stream() -> AsyncIterator[str | None]:
        with within(ambient, user="zoe"):
            yield user(ambient)

    names = [f"u{n}" for n in range(20)]
    assert [[name, name] for name in names] == await asyncio.gather(*map(work, names))
    assert ["zoe"] == [name async for name in stream()]
    assert user(ambient) is None


def test_a_block_is_no_decorator() -> None:
    """Around a coroutine function it would end before the coroutine begins, so it cannot be put around any."""
    bench = Bench()
    assert not callable(bench.guard.attribute(user="bob"))
    with pytest.raises(ConfigError, match="user"):
        bench.guard.attribute(user="no body")


def test_a_refusal_for_a_scope_is_a_refusal_and_not_a_stop() -> None:
    """It has every field of the stop it stands for, says that others go on, and crosses processes."""
    stop = BudgetExceeded(scope="user:bob", period="2026-11", unit="pusd", limit=10, spent=10, held=0, needed=5)
    refusal = ScopeExhausted(stop)
    assert isinstance(refusal, CallRefused)
    assert not isinstance(refusal, GuardrailStopped)
    assert stop.fields == refusal.fields
    assert ("scope_exhausted", 402) == (refusal.code, refusal.http_status)
    assert "others go on" in refusal.next_step
    again = pickle.loads(pickle.dumps(refusal))
    assert (ScopeExhausted, refusal.as_dict()) == (type(again), again.as_dict())
