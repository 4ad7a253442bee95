"""Master keys: random or refused, told apart, named once, and never part of an error."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from rr_vault import ALICE, CANARY, everything_of, leaks, master, ring
from runrails.credentials import CredentialUnreadable, KeyRing
from runrails.credentials.envelope import open_, seal
from runrails.credentials.opening import Locked, Wrappers, open_vault, open_wrapper
from runrails.credentials.ring import new_master_key
from runrails.errors import ConfigError
from runrails.secretvalue import Secret

CONTEXT = ALICE.context(1, b"{}")
KEY = master().reveal_bytes()


@pytest.mark.parametrize(
    "form",
    [
        KEY, KEY.hex(), KEY.hex().upper(), base64.b64encode(KEY), base64.urlsafe_b64encode(KEY),
        base64.urlsafe_b64encode(KEY).rstrip(b"="), base64.b64encode(KEY) + b"\n", b" " + KEY.hex().encode() + b"\r\n",
    ],
    ids=range(8),
)  # fmt: skip
def test_every_form_of_a_key_is_that_key(form: str | bytes) -> None:
    """Bytes, hexadecimal digits and both kinds of base64, with or without what editors add."""
    blob = seal(Secret(CANARY), CONTEXT, ring())
    assert CANARY == open_(blob, CONTEXT, KeyRing("k1", {"k1": Secret(form)})).reveal()


@pytest.mark.parametrize(
    "bad",
    [
        b"short", KEY[:31], KEY + b"x", KEY.hex()[:62], KEY.hex() + "00", base64.b64encode(KEY[:16]),
        base64.b64encode(KEY + KEY), bytes(32), b"\xff" * 32, bytes(range(32)), b"correct horse battery staple 32!",
        base64.b64encode(b"correct horse battery staple 32!"), "ab" * 32, "00" * 32, "zz" * 32,
        base64.b64encode(bytes([7, 9] * 16)), "x" * 44, "€" * 15,
        b"Kx7#wolf;Tq9!moss&Vb2?fern%Zp4=L",
    ],
    ids=range(19),
)  # fmt: skip
def test_what_is_no_random_key_is_refused(bad: str | bytes) -> None:
    """Too short, too long, a pass phrase, a pattern; nothing of it is in the error, which says how to make one."""
    with pytest.raises(ConfigError) as caught:
        KeyRing("k1", {"k1": Secret(bad)})
    assert "runrails byok init" in caught.value.next_step
    shown = everything_of(caught.value)
    text = bad if isinstance(bad, str) else bad.decode("latin-1")
    assert len(text) < 16 or text[:16] not in shown


def test_a_drawn_key_is_never_refused() -> None:
    """Of ten thousand none."""
    for _ in range(10_000):
        KeyRing("k", {"k": Secret(os.urandom(32))})
    assert 44 == len(new_master_key().reveal())


@pytest.mark.parametrize("name", ["", "K1", "k_1", "k" * 33, "kms", "k1\n", "ä", "-k", "k 1"])
def test_a_malformed_name_is_refused(name: str) -> None:
    """Names are told in errors and stand in records."""
    with pytest.raises(ConfigError):
        KeyRing(name, {name: master()})


def test_rings_that_cannot_be_meant_are_refused() -> None:
    """No active key, one key under two names, or more than there is reason for."""
    with pytest.raises(ConfigError, match="lacks its active key"):
        KeyRing("k2", {"k1": master()})
    with pytest.raises(ConfigError, match="k1 and k2 are the same"):
        KeyRing("k1", {"k1": Secret(KEY), "k2": Secret(KEY.hex())})
    keys = {f"k{count}": master(f"k{count}") for count in range(17)}
    with pytest.raises(ConfigError, match="at most 16"):
        KeyRing("k1", keys)
    del keys["k16"]
    KeyRing("k1", keys)


def test_a_data_key_opens_with_its_name_and_context_only() -> None:
    """Wrapped under one name it is not opened under another, even with the same key there."""
    data_key = ring().new_data_key(CONTEXT)
    renamed = KeyRing("k9", {"k9": master("k1")})

    assert data_key.plain == ring().unwrap(data_key.wrapped, "k1", CONTEXT)
    for wrapper, key_id, context, reason in (
        (renamed, "k9", CONTEXT, "wrong_key"), (ring(), "k9", CONTEXT, "unknown_key"),
        (ring(), "k1", CONTEXT._replace(version=2), "wrong_key"), (ring("k2"), "k2", CONTEXT, "wrong_key"),
    ):  # fmt: skip
        with pytest.raises(CredentialUnreadable) as caught:
            wrapper.unwrap(data_key.wrapped, key_id, context)
        assert reason == caught.value.reason
    for size in (0, 1, 12, 28, 59, 61, 600):
        with pytest.raises(CredentialUnreadable):
            ring().unwrap((data_key.wrapped * 11)[:size], "k1", CONTEXT)


def test_a_ring_shows_its_names_alone() -> None:
    """In its repr, and in what it is made of."""
    shown = repr(ring("k2", "k1")) + repr(vars(ring("k2", "k1")))
    assert "KeyRing(active='k2', keys=['k1', 'k2'])" == repr(ring("k2", "k1"))
    assert repr(KEY)[2:14] not in shown
    assert KEY.hex()[:12] not in shown


def test_the_setting_names_keys_and_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first seals, all open."""
    (tmp_path / "k1").write_text(KEY.hex() + "\n")
    monkeypatch.setenv("KEY_TWO", master("k2").reveal_bytes().hex())
    monkeypatch.setenv("RUNRAILS_MASTER_KEYS", f" k2:env:KEY_TWO , k1:file:{tmp_path}/k1 ")
    wrapper = open_wrapper()

    assert ("k2", False, True, True) == (wrapper.active, wrapper.remote, wrapper.knows("k1"), wrapper.knows("k2"))
    assert CANARY == open_(seal(Secret(CANARY), CONTEXT, ring()), CONTEXT, wrapper).reveal()
    assert CANARY == open_(seal(Secret(CANARY), CONTEXT, wrapper), CONTEXT, ring("k2")).reveal()


@pytest.mark.parametrize(
    "setting",
    [
        "k1", "k1:", ":env:X", "k1:env:NOT_THERE", "k1:file:relative", "k1:file:/not/there", f"k1:{CANARY}", CANARY,
        "k1:env:KEY_TWO,k1:env:KEY_TWO", "k1:env:KEY_TWO,k2:env:KEY_TWO", "k1:env:KEY_TWO,", ",", "K1:env:KEY_TWO",
        f"{KEY.hex()}", f"k1:plain:{KEY.hex()}", "kms", "kms:", "kms:alias/mine", "kms:1234", "k1:env:SHORT",
        "kms:arn:aws:kms:eu-west-1:123456789012:alias/mine", "kms:arn:aws:s3:eu-west-1:123456789012:key/x",
    ],
)  # fmt: skip
def test_a_malformed_setting_is_refused(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever stands where a reference belongs is not told: it may be the key itself."""
    monkeypatch.setenv("KEY_TWO", KEY.hex())
    monkeypatch.setenv("SHORT", CANARY[:20])
    with pytest.raises(ConfigError) as caught:
        open_wrapper(setting)
    assert "runrails byok init" in caught.value.next_step or setting not in {"k1", "k1:", ",", CANARY}
    assert caught.value.next_step
    told = str(caught.value) + repr(caught.value.as_dict())
    assert [] == leaks(told, CANARY, KEY.hex())


def test_without_a_setting_there_is_no_vault(tmp_path: Path) -> None:
    """The error says how to get a key; no file is made."""
    with pytest.raises(ConfigError, match="runrails byok init"):
        open_vault(f"sqlite:///{tmp_path}/v.db")
    assert [] == list(tmp_path.iterdir())
    open_vault(f"sqlite:///{tmp_path}/v.db", locked=True).close()
    assert tmp_path.joinpath("v.db").exists()


def test_a_vault_of_the_settings_works(tmp_path: Path) -> None:
    """From two settings to a stored key that opens."""
    (tmp_path / "k1").write_bytes(KEY)
    for _ in range(2):
        vault = open_vault(f"sqlite:///{tmp_path}/v.db", master_keys=f"k1:file:{tmp_path}/k1")
        if vault.peek(ALICE) is None:
            vault.add(ALICE, Secret(CANARY))
        assert CANARY == vault.get(ALICE).secret.reveal()
        assert vault.remote is False
        vault.close()


def test_several_wrappers_are_one() -> None:
    """The first seals; each opens what is its own."""
    both = Wrappers([ring("k2"), ring("k1")])
    blob = seal(Secret(CANARY), CONTEXT, ring("k1"))

    assert ("k2", False) == (both.active, both.remote)
    assert CANARY == open_(blob, CONTEXT, both).reveal()
    assert CANARY == open_(seal(Secret(CANARY), CONTEXT, both), CONTEXT, ring("k2")).reveal()
    with pytest.raises(CredentialUnreadable) as caught:
        both.unwrap(b"x", "k3", CONTEXT)
    assert "unknown_key" == caught.value.reason


def test_without_keys_nothing_is_sealed_or_opened() -> None:
    """Who only lists and removes has none."""
    for use in (
        lambda: seal(Secret(CANARY), CONTEXT, Locked()),
        lambda: open_(seal(Secret(CANARY), CONTEXT, ring()), CONTEXT, Locked()),
        lambda: Locked().unwrap(b"x", "k1", CONTEXT),
    ):
        with pytest.raises(CredentialUnreadable) as caught:
            use()
        assert "unknown_key" == caught.value.reason
