"""How large slices are, what becomes of them, and what a URL says of leases."""

from __future__ import annotations

from pathlib import Path

import pytest

from rr_ledger import CENT, DOLLAR, FOUR, KEY, ORG, RUN, TOKENS, USER
from runrails.errors import ConfigError
from runrails.ledger import Account
from runrails.stores import absolute_url, open_store
from runrails.stores.leased import LeasedStore
from runrails.stores.leases import Age, Lease, Terms, fate, low_mark, parse, slice_size, terms

TERMS = Terms(50 * CENT, 60_000, (8,), 64, 2_000)
FRESH = Age(taken_ms=0, used_ms=0, written_ms=0, unwritten=0, open=0, dry=False)


@pytest.mark.parametrize(
    "wrong",
    [
        {"slice": "0"}, {"slice": "-1"}, {"slice": 0.5}, {"slice": "much"}, {"ttl_ms": 4_999}, {"ttl_ms": 86_400_001},
        {"ttl_ms": 60.0}, {"share": 0}, {"share": 1_001}, {"checkpoint_calls": 0}, {"checkpoint_ms": 60_001},
    ],
)  # fmt: skip
def test_malformed_leases_are_refused(wrong: dict[str, object]) -> None:
    """A slice is more than nothing and no float; times and counts have a range."""
    with pytest.raises(ConfigError, match=r"Lease\(slice="):
        Lease(**wrong)  # type: ignore[arg-type]


def test_a_lease_is_written_in_dollars() -> None:
    """As text, as everywhere."""
    assert 50 * CENT == Lease().slice_pusd == Lease(slice="0.50").slice_pusd
    assert (5_000, 86_400_000) == (Lease(ttl_ms=5_000).ttl_ms, Lease(ttl_ms=86_400_000).ttl_ms)


def test_calls_are_leased_if_all_their_scopes_are() -> None:
    """One scope that is not leased, or counts something else than money, and the call goes by itself."""
    both = {"user": Lease(slice="0.50"), "org": Lease(slice="2", ttl_ms=30_000, share=20)}
    assert Terms(50 * CENT, 60_000, (8,), 64, 2_000) == terms(both, [USER])
    assert Terms(2 * DOLLAR, 30_000, (20,), 64, 2_000) == terms(both, [ORG])
    assert Terms(50 * CENT, 30_000, (8, 20), 64, 2_000) == terms(both, [USER, ORG])
    assert [None] * 4 == [terms(both, [KEY]), terms(both, FOUR), terms(both, [USER, TOKENS]), terms({}, [RUN])]


def test_runs_are_leased_along() -> None:
    """A run's calls are nearly all one process's, so it need not be named, and is split in two at most."""
    assert Terms(50 * CENT, 60_000, (2, 8), 64, 2_000) == terms({"user": Lease()}, [RUN, USER])
    named = terms({"user": Lease(), "run": Lease(slice="0.10", share=1)}, [RUN, USER])
    assert named is not None
    assert (10 * CENT, (1, 8)) == (named.slice_pusd, named.shares)


@pytest.mark.parametrize(
    ("limit", "need", "left", "size"),
    [
        (None, CENT, None, 50 * CENT), (100 * DOLLAR, CENT, None, 50 * CENT), (4 * DOLLAR, CENT, None, 50 * CENT),
        (DOLLAR, CENT, None, DOLLAR // 8), (16 * CENT, CENT, None, 2 * CENT), (16 * CENT - 1, CENT, None, 0),
        (None, 25 * CENT, None, 50 * CENT), (None, 25 * CENT + 1, None, 0), (None, CENT, 80 * CENT, 10 * CENT),
        (None, CENT, 16 * CENT, 2 * CENT), (None, CENT, 16 * CENT - 1, 0), (None, CENT, -5, 0), (0, 0, None, 0),
        (None, 0, 0, 0),
    ],
)  # fmt: skip
def test_slices_shrink_with_what_is_left(limit: int | None, need: int, left: int | None, size: int) -> None:
    """A slice is a part of the limit and of what is left; one that would not serve two calls is not taken."""
    assert size == slice_size(TERMS, [limit], need, left=left, share=8)


@pytest.mark.parametrize(
    ("age", "now_ms", "expected"),
    [
        (FRESH, 1_999, "keep"), (FRESH, 2_000, "return"), (FRESH._replace(used_ms=29_000), 29_999, "keep"),
        (FRESH._replace(used_ms=29_999), 30_000, "return"), (FRESH._replace(dry=True), 1, "return"),
        (FRESH._replace(dry=True, open=1), 1, "keep"), (FRESH._replace(dry=True, open=1), 2_000, "return"),
        (FRESH._replace(unwritten=63), 1_999, "keep"), (FRESH._replace(unwritten=64), 1, "write"),
        (FRESH._replace(unwritten=1, written_ms=100, used_ms=2_000), 2_099, "keep"),
        (FRESH._replace(unwritten=1, written_ms=100, used_ms=2_000), 2_100, "write"),
    ],
)  # fmt: skip
def test_the_fate_of_a_slice(age: Age, now_ms: int, expected: str) -> None:
    """It goes back at half its time to live, idle for two seconds, or dry; its calls are written by number and time."""
    assert expected == fate(TERMS, age, now_ms)


def test_the_next_slice_is_fetched_before_the_last_calls() -> None:
    """A quarter is left by then."""
    assert (12, 0) == (low_mark(50), low_mark(3))


def test_a_url_names_what_is_leased(tmp_path: Path) -> None:
    """Options of the lease may stand among others, and keep standing when the URL is made absolute."""
    lease = Lease(slice="0.25", ttl_ms=30_000)
    assert ("synchronous=normal", {"user": lease, "org": lease}) == parse(
        "lease=user,org&synchronous=normal&lease_slice=0.25&lease_ttl_s=30"
    )
    assert ("region=eu-west-1", {}) == parse("region=eu-west-1")
    assert ("", {"key": Lease()}) == parse("lease=key")
    url = f"sqlite:///{tmp_path}/ledger.db?lease=user&synchronous=normal"
    with open_store(url) as store:  # type: ignore[attr-defined]
        assert isinstance(store, LeasedStore)
        assert str(tmp_path / "ledger.db") == store.shared.path  # type: ignore[attr-defined]
    with open_store("memory:?lease=user,key,org,run") as store:  # type: ignore[attr-defined]
        assert isinstance(store, LeasedStore)
    assert url == absolute_url(url)


@pytest.mark.parametrize(
    "wrong",
    [
        "lease=", "lease=nobody", "lease=user,", "lease_slice=0.5", "lease_ttl_s=60", "lease=user&lease_slice=0",
        "lease=user&lease_slice=much", "lease=user&lease_ttl_s=1.5", "lease=user&lease_ttl_s=1", "lease=user&lease=org",
    ],
)  # fmt: skip
def test_malformed_options_are_refused(wrong: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(ConfigError):
        open_store(f"memory:?{wrong}")


@pytest.mark.parametrize("wrong", [{}, {"team": Lease()}, {"user": "0.50"}])
def test_leases_are_given_by_kind(wrong: dict[str, Lease]) -> None:
    """Of scopes that there are."""
    with pytest.raises(ConfigError, match="kind of scope"):
        LeasedStore(open_store("memory:"), wrong)  # type: ignore[arg-type]


def test_an_account_of_no_known_kind_is_not_leased() -> None:
    """Also with one lease for all."""
    assert terms(dict.fromkeys(("run", "user", "key", "org"), Lease()), [Account("team:t", "-")]) is None
