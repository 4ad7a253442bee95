"""API keys, proven: what is looked at, in which order, how often, and what nobody is told."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import threading
import traceback
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from rr_keys import (
    PEPPER,
    PEPPERS,
    START_MS,
    CountingDocuments,
    holds_part,
    make_keys,
    open_documents_of,
    resealed,
    with_secret,
)  # fmt: skip
from runrails.documents import Address
from runrails.errors import ConfigError, StoreUnavailable
from runrails.identity.apikeys import ApiKeys, Peppers
from runrails.identity.apikeys.format import make_key, new_key_id
from runrails.identity.apikeys.hashing import PEPPERS_MAX
from runrails.identity.errors import Unauthenticated
from runrails.identity.principal import Principal
from runrails.rates import Rates
from runrails.secretvalue import Secret
from runrails.testing import ManualClock

DAY_MS = 86_400_000
OTHER = Secret("Zr8wQy1uXk5tGm4eCj7vHb2nSd6aLp9F")


@pytest.fixture
def clock() -> ManualClock:
    """Both clocks, stopped."""
    return ManualClock(START_MS)


@pytest.fixture(params=["memory", "sqlite"])
def documents(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> CountingDocuments:
    """Every engine of documents on this machine."""
    return open_documents_of(request.param, tmp_path, clock)


def refusal(keys: ApiKeys, text: object) -> Unauthenticated:
    """How a key is refused. What is kept of keys does not change by it."""
    with pytest.raises(Unauthenticated) as caught:
        keys.verify(text)  # type: ignore[arg-type]
    return caught.value


def test_malformed_keys_ask_the_store_nothing(documents: CountingDocuments, clock: ManualClock) -> None:
    """5,000 guesses without a right checksum are 0 reads, 0 writes, and keep nothing."""
    keys = make_keys(documents, clock=clock)
    text = keys.create("alice", scopes={"ai:complete"})[1].reveal()
    documents.reads = documents.writes = 0
    for number in range(5_000):
        guess = f"{text[:60]}{number:014d}"
        assert refusal(keys, guess).reason == "malformed"
    assert (documents.reads, documents.writes) == (0, 0)
    assert keys._known.sizes() == (0, 0)


@pytest.mark.parametrize("wrong", [None, b"rr_live_", 7, "", "x", "rr_live_" * 10, "\ud800" * 74])
def test_what_is_no_key_is_refused_like_one(wrong: object) -> None:
    """Nothing crashes, whatever is presented."""
    assert refusal(make_keys(), wrong).reason == "malformed"


def test_every_refusal_says_the_same(documents: CountingDocuments, clock: ManualClock) -> None:
    """Unknown, wrong, suspended, revoked, expired, rotated, of another environment: one message, one status."""
    keys = make_keys(documents, clock=clock)
    texts: dict[str, str] = {"malformed": "rr_live_x"}
    texts["unknown"] = make_key("live", new_key_id(bytes), lambda n: bytes(range(n))).reveal()
    right = keys.create("alice", scopes={"ai:complete"})[1].reveal()
    texts["wrong_secret"] = with_secret(right, "0" * 43)
    for reason in ("suspend", "revoke"):
        info, secret = keys.create("alice", scopes={"ai:complete"})
        getattr(keys, reason)(info.id)
        texts[reason] = secret.reveal()
    texts["expired"] = keys.create("alice", scopes={"ai:complete"}, expires_ms=clock() + 1)[1].reveal()
    texts["other_environment"] = (
        make_keys(documents, clock=clock, environment="test").create("a", scopes=())[1].reveal()
    )
    info, secret = keys.create("alice", scopes={"ai:complete"})
    keys.rotate(info.id, 0)
    texts["rotated"] = secret.reveal()
    clock.advance(1)
    before = documents.everything()
    told = {(error.http_status, str(error), json.dumps(error.as_dict()), repr(error.fields))
            for error in (refusal(keys, text) for text in texts.values())}  # fmt: skip
    assert len(told) == 1
    assert {refusal(keys, texts[name]).reason for name in ("suspend", "revoke")} == {"not_active"}
    assert refusal(keys, texts["expired"]).reason == "expired"
    assert refusal(keys, texts["other_environment"]).reason == "other_environment"
    assert before == documents.everything()


def test_status_expiry_and_environment_are_judged_after_the_secret(clock: ManualClock) -> None:
    """Whoever has only the public part of a suspended, expired or foreign key learns nothing, not even the log does."""
    documents = open_documents_of("memory", Path(), clock)
    keys = make_keys(documents, clock=clock)
    suspended, secret = keys.create("alice", scopes=())
    keys.suspend(suspended.id)
    expired = keys.create("alice", scopes=(), expires_ms=clock() + 1)[1]
    clock.advance(1)
    foreign = make_keys(documents, clock=clock, environment="test").create("alice", scopes=())[1]
    for text in (secret.reveal(), expired.reveal(), foreign.reveal()):
        assert refusal(keys, with_secret(text, "0" * 43)).reason == "wrong_secret"


def test_a_proven_key_is_its_principal(documents: CountingDocuments, clock: ManualClock) -> None:
    """User, organisation, scopes, rates, budget and expiry come from the record."""
    keys = make_keys(documents, clock=clock)
    rates = Rates(requests_per_minute=60, tokens_per_minute=100_000, requests_burst=5)
    info, secret = keys.create(
        "alice", scopes=["ai:embed", "ai:complete"], name="laptop", org="acme", expires_ms=clock() + DAY_MS,
        rates=rates, month_pusd=50 * 10**12,
    )  # fmt: skip
    expected = Principal(
        user="alice", org="acme", key_id=info.id, scopes=frozenset({"ai:complete", "ai:embed"}), method="api_key",
        expires_ms=clock() + DAY_MS, rates=rates, month_pusd=50 * 10**12,
    )  # fmt: skip
    assert expected == keys.verify(secret.reveal())
    assert expected == make_keys(documents, clock=clock).verify(secret.reveal())
    keys.flush()
    assert keys.list("alice") == keys.list() == [replace(info, last_used_ms=START_MS)]
    assert keys.list("bob") == []


def test_a_key_of_another_environment_cannot_be_rewritten(documents: CountingDocuments, clock: ManualClock) -> None:
    """The environment is part of what is hashed, with a right checksum or without."""
    keys, testing = (make_keys(documents, clock=clock, environment=each) for each in ("live", "test"))
    text = testing.create("alice", scopes=())[1].reveal()
    assert refusal(keys, resealed(text.replace("rr_test", "rr_live"))).reason == "wrong_secret"
    assert refusal(testing, resealed(text.replace("rr_test", "rr_live"))).reason == "wrong_secret"
    assert testing.verify(text).user == "alice"


def test_the_secret_of_one_key_does_not_prove_another(documents: CountingDocuments, clock: ManualClock) -> None:
    """Not under its id, nor with its record copied to where another's is."""
    keys = make_keys(documents, clock=clock)
    (mine, secret), (hers, _) = keys.create("mallory", scopes=()), keys.create("alice", scopes={"admin:keys"})
    assert refusal(keys, resealed(secret.reveal().replace(mine.id, hers.id))).reason == "wrong_secret"
    copied = documents.inner.get(Address("api-key", hers.id, "key"))
    there = documents.inner.get(Address("api-key", mine.id, "key"))
    assert copied is not None and there is not None
    documents.inner.put(there.address, copied.data, expected=there.version)
    assert refusal(keys, secret.reveal()).reason == "unreadable"


def test_no_single_bit_of_a_record_can_be_changed(clock: ManualClock) -> None:
    """Whoever writes to the store and has no pepper can change nobody's scopes, budget, status or hash."""
    documents = open_documents_of("memory", Path(), clock)
    text = make_keys(documents, clock=clock).create("alice", scopes={"ai:embed"}, org="acme")[1].reveal()
    kept = documents.everything()[0]
    version = kept.version
    for place in range(len(kept.data)):
        for bit in range(8):
            data = kept.data[:place] + bytes([kept.data[place] ^ 1 << bit]) + kept.data[place + 1 :]
            assert documents.inner.put(kept.address, data, expected=version) is not None
            version += 1
            assert refusal(make_keys(documents, clock=clock), text).reason == "unreadable"
    for length in range(len(kept.data)):
        documents.inner.put(kept.address, kept.data[:length], expected=version)
        version += 1
        assert refusal(make_keys(documents, clock=clock), text).reason == "unreadable"
    with pytest.raises(ConfigError, match="not written with one of these peppers"):
        make_keys(documents, clock=clock).list("alice")
    documents.inner.put(kept.address, kept.data, expected=version)
    assert make_keys(documents, clock=clock).verify(text).user == "alice"


def test_a_record_of_an_unknown_scheme_or_pepper_is_refused(clock: ManualClock) -> None:
    """A hash that nobody here can check proves nothing, even in a record that is authentic."""
    from runrails.identity.apikeys.making import Terms, made
    from runrails.identity.apikeys.managing import KeyBook

    documents = open_documents_of("memory", Path(), clock)
    keys = make_keys(documents, clock=clock)
    for kept in (
        "plain",
        "hs512$p1$" + "0" * 64,
        "hs256$p9$" + "0" * 64,
        "hs256$p1$",
        "$2b$04$" + "a" * 53,
        "scrypt$1$2",
    ):
        key_id = new_key_id(lambda count: b"\x07" * (count - 1) + bytes([len(documents.everything())]))
        secret = make_key("live", key_id, lambda count: b"\x09" * count)
        record = made(Terms(user="alice", scopes=()), key_id=key_id, environment="live", kept=kept, now_ms=1)
        assert KeyBook(documents, PEPPERS).add(record)
        assert refusal(keys, secret.reveal()).reason == "wrong_secret"


def test_records_under_a_pepper_that_is_gone_are_refused(documents: CountingDocuments, clock: ManualClock) -> None:
    """And come back with it; the error for the operator names the key and no secret."""
    keys = make_keys(documents, clock=clock)
    info, secret = keys.create("alice", scopes=())
    without = make_keys(documents, clock=clock, peppers=Peppers("p2", {"p2": OTHER}))
    wrong = make_keys(documents, clock=clock, peppers=Peppers("p1", {"p1": OTHER}))
    for other in (without, wrong):
        assert refusal(other, secret.reveal()).reason == "unreadable"
        with pytest.raises(ConfigError, match=info.id):
            other.suspend(info.id)
    assert keys.verify(secret.reveal()).user == "alice"


def test_a_key_is_hashed_anew_when_the_pepper_changes(documents: CountingDocuments, clock: ManualClock) -> None:
    """After its next use it needs the old pepper no more; a failing store does not keep anybody out."""
    secret = make_keys(documents, clock=clock).create("alice", scopes=())[1].reveal()
    both = Peppers("p2", {"p2": OTHER, "p1": PEPPER})
    only = Peppers("p2", {"p2": OTHER})
    assert refusal(make_keys(documents, clock=clock, peppers=only), secret).reason == "unreadable"
    documents.kinds_away = frozenset({"api-key-used"})
    reader = make_keys(documents, clock=clock, peppers=both)
    documents.put = _refusing(documents)  # type: ignore[method-assign]
    assert reader.verify(secret).user == "alice"
    reader.flush()
    del documents.put  # type: ignore[method-assign]
    again = make_keys(documents, clock=clock, peppers=both)
    assert again.verify(secret).user == "alice"
    again.flush()
    assert make_keys(documents, clock=clock, peppers=only).verify(secret).user == "alice"


def test_an_earlier_secret_is_not_hashed_in_the_place_of_the_newest(
    documents: CountingDocuments, clock: ManualClock
) -> None:
    """Used first after the pepper has changed, it stays the earlier one, and the newest stays good."""
    keys = make_keys(documents, clock=clock)
    info, earlier = keys.create("alice", scopes=())
    newest = keys.rotate(info.id, DAY_MS)[1]
    both = Peppers("p2", {"p2": OTHER, "p1": PEPPER})
    before = documents.everything()
    first = make_keys(documents, clock=clock, peppers=both)
    assert first.verify(earlier.reveal()).expires_ms == START_MS + DAY_MS
    first.flush()
    assert before == documents.everything()
    anew = make_keys(documents, clock=clock, peppers=both)
    assert anew.verify(newest.reveal()).expires_ms is None
    anew.flush()
    assert make_keys(documents, clock=clock, peppers=both).verify(earlier.reveal()).expires_ms == START_MS + DAY_MS


def _refusing(documents: CountingDocuments):  # type: ignore[no-untyped-def]
    def put(*_: object, **__: object) -> None:
        raise StoreUnavailable("The documents cannot be written.", next_step="Try again.")

    return put


def test_a_store_out_of_reach_lets_nobody_in(documents: CountingDocuments, clock: ManualClock) -> None:
    """It is an error of its own, and not the caller's; afterwards the same key is good."""
    keys = make_keys(documents, clock=clock)
    text = keys.create("alice", scopes=())[1].reveal()
    documents.away = True
    with pytest.raises(StoreUnavailable):
        keys.verify(text)
    documents.away = False
    assert keys.verify(text).user == "alice"


def test_many_threads_agree(documents: CountingDocuments, clock: ManualClock) -> None:
    """Right keys are right and wrong ones wrong, in eight threads at once with a cache that is too small."""
    keys = make_keys(documents, clock=clock, cache_max=3)
    made = [keys.create(f"user-{number}", scopes=()) for number in range(8)]
    wrong: list[object] = []

    def work(place: int) -> None:
        info, secret = made[place]
        text = secret.reveal()
        for _ in range(60):
            if keys.verify(text).key_id != info.id:
                wrong.append(info.id)
            try:
                keys.verify(with_secret(text, "0" * 43))
                wrong.append("let in")
            except Unauthenticated:
                pass

    threads = [threading.Thread(target=work, args=(place,)) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    keys.close()
    assert wrong == []


def test_peppers_must_be_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weak, equal, missing, misnamed and too many are refused by name, and never shown."""
    for active, peppers in (
        ("p1", {"p1": Secret("short")}),
        ("p1", {"p1": Secret("changeme" * 8)}),
        ("p1", {"p1": PEPPER, "p2": PEPPER}),
        ("p2", {"p1": PEPPER}),
        ("p1", {}),
        ("P 1", {"P 1": PEPPER}),
        ("p$1", {"p$1": PEPPER}),
        ("p0", {f"p{number}": Secret(PEPPER.reveal() + f"{number:03d}x") for number in range(PEPPERS_MAX + 1)}),
    ):
        with pytest.raises(ConfigError) as caught:
            Peppers(active, peppers)
        assert not any(holds_part(str(caught.value), each.reveal()) for each in peppers.values())
    many = {f"p{number}": Secret(PEPPER.reveal() + f"{number:03d}x") for number in range(PEPPERS_MAX)}
    assert Peppers("p3", many).active == "p3"
    monkeypatch.setenv("RR_ONE", PEPPER.reveal())
    monkeypatch.setenv("RR_TWO", OTHER.reveal())
    parsed = Peppers.parse("p2:env:RR_TWO, p1:env:RR_ONE")
    assert parsed.active == "p2"
    assert repr(parsed) == "Peppers(active='p2', peppers=['p1', 'p2'])"
    assert set(parsed.secrets) == {"RUNRAILS_KEY_PEPPERS (p1)", "RUNRAILS_KEY_PEPPERS (p2)"}
    for pasted in (PEPPER.reveal(), PEPPER.reveal().lower(), f"p1:{PEPPER.reveal()}", f"{PEPPER.reveal()}:env:RR_ONE"):
        with pytest.raises(ConfigError) as caught:
            Peppers.parse(pasted)
        assert not holds_part(str(caught.value.as_dict()).lower(), PEPPER.reveal().lower())
    for setting in ("", "p1", "env:RR_ONE", "p1:env:RR_ONE,p1:env:RR_TWO", "p1:env:RR_NONE", "P:env:RR_ONE", "p1:"):
        with pytest.raises(ConfigError):
            Peppers.parse(setting)


def test_no_part_of_a_secret_is_told_anywhere(
    documents: CountingDocuments, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Not by reprs, JSON, errors, pickles, tracebacks or logs at DEBUG; not by what is kept in the store."""
    caplog.set_level(logging.DEBUG)
    keys = make_keys(documents, clock=clock)
    info, secret = keys.create("alice", scopes={"ai:complete"}, name="laptop")
    text = secret.reveal()
    hidden = text[25:]
    told = [repr(each) for each in (secret, info, keys, PEPPERS, keys.verify(text), keys.list(), keys.show(info.id))]
    told += [str(secret), f"{secret}", f"{secret:>20}", json.dumps(info.as_dict()), str(asdict(info))]
    told += [repr(vars(keys)), repr(vars(keys._book)), repr(vars(keys._known)), repr(copy.copy(secret))]
    rotated, newer = keys.rotate(info.id)
    told += [repr(rotated), json.dumps(rotated.as_dict())]
    other = newer.reveal()[25:]
    for wrong in (with_secret(text, "0" * 43), text[:-1] + "!", text + text, resealed(text.replace("live", "test"))):
        try:
            keys.verify(wrong)
        except Unauthenticated as error:
            told += [str(error), repr(error), json.dumps(error.as_dict()), repr(pickle.loads(pickle.dumps(error))),
                     "".join(traceback.format_exception(error)), error.reason, repr(vars(error))]  # fmt: skip
    documents.away = True
    try:
        make_keys(documents, clock=clock).verify(text)
    except StoreUnavailable as error:
        told.append("".join(traceback.format_exception(error)))
    documents.away = False
    told += [repr(each) for each in documents.everything()]
    told.append(caplog.text)
    for shown in told:
        assert not holds_part(shown, hidden)
        assert not holds_part(shown, other)
        assert not holds_part(shown, PEPPER.reveal())
    with pytest.raises(TypeError):
        pickle.dumps(secret)
