"""An envelope opens where it was sealed for, whole and unchanged, and nowhere else."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rr_vault import ALICE, CANARY, CountingWrapper, everything_of, leaks, master, ring
from runrails.credentials import Context, CredentialId, CredentialUnreadable, DataKey, KeyRing, primitives
from runrails.credentials.envelope import MAGIC, key_id_of, open_, seal
from runrails.secretvalue import Secret

CONTEXT = ALICE.context(1, b'{"base_url":null}')
SECRET = Secret(CANARY)
BLOB = seal(SECRET, CONTEXT, ring())


def refused(blob: bytes, context: Context = CONTEXT, wrapper: KeyRing | CountingWrapper | None = None) -> str:
    """Why it does not open; the error says nothing else."""
    with pytest.raises(CredentialUnreadable) as caught:
        open_(blob, context, wrapper or ring())
    error = caught.value
    assert ("The provider key cannot be used at the moment.", {}) == (error.what, error.fields)
    assert error.reason not in str(error) + repr(error.as_dict())
    assert error.__context__ is None
    return error.reason


def test_it_opens_where_it_was_sealed_for() -> None:
    """The very secret, text or bytes, of any length."""
    assert CANARY == open_(BLOB, CONTEXT, ring()).reveal()
    for size in (1, 15, 16, 17, 4_096):
        secret = Secret(bytes(range(256)) * 16)
        blob = seal(Secret(secret.reveal_bytes()[:size]), CONTEXT, ring())
        assert secret.reveal_bytes()[:size] == open_(blob, CONTEXT, ring()).reveal_bytes()


def test_every_sealing_is_another() -> None:
    """Data key, nonce, commitment and what is sealed are never the same twice."""
    blobs = [seal(SECRET, CONTEXT, ring()) for _ in range(50)]
    start = len(MAGIC) + 3 + 2
    for first, last in ((start, start + 60), (start + 60, start + 92), (start + 92, start + 104), (start + 104, None)):
        assert 50 == len({blob[first:last] for blob in blobs})
    assert [] == leaks("".join(map(repr, blobs)) + "".join(blob.hex() for blob in blobs), CANARY)


def test_every_flipped_bit_is_refused() -> None:
    """Each of them, wherever it is."""
    wrapper = ring()
    for bit in range(8 * len(BLOB)):
        flipped = bytearray(BLOB)
        flipped[bit // 8] ^= 1 << bit % 8
        assert refused(bytes(flipped), wrapper=wrapper) in {"malformed", "unknown_key", "wrong_key", "altered"}


def test_every_truncation_and_any_addition_is_refused() -> None:
    """From either end, down to nothing."""
    wrapper = ring()
    for length in range(len(BLOB)):
        refused(BLOB[:length], wrapper=wrapper)
        refused(BLOB[length + 1 :], wrapper=wrapper)
    for more in (b"\0", b"x" * 16, BLOB):
        refused(BLOB + more, wrapper=wrapper)
        refused(more + BLOB, wrapper=wrapper)


def test_every_part_of_the_context_counts() -> None:
    """Another owner, provider, label, version, purpose or public part opens nothing, and says nothing."""
    others = [
        CONTEXT._replace(owner="user:bob"), CONTEXT._replace(owner="org:alice"), CONTEXT._replace(owner="platform"),
        CONTEXT._replace(provider="anthropic"), CONTEXT._replace(label="work"), CONTEXT._replace(version=2),
        CONTEXT._replace(version=0), CONTEXT._replace(purpose="signing key"), CONTEXT._replace(public=b"{}"),
        CONTEXT._replace(public=b""), CONTEXT._replace(public=b'{"base_url":"https://evil.example"}'),
    ]  # fmt: skip
    for other in others:
        assert "wrong_key" == refused(BLOB, other)


def test_the_envelope_is_bound_even_if_the_wrapper_is_not() -> None:
    """A wrapper that gives the data key for any context: the sealed secret is bound to the context as well."""

    class Generous(CountingWrapper):
        def unwrap(self, wrapped: bytes, key_id: str, context: Context) -> Secret:
            return super().unwrap(wrapped, key_id, CONTEXT)

    assert CANARY == open_(BLOB, CONTEXT, Generous()).reveal()
    for other in (CONTEXT._replace(owner="user:bob"), CONTEXT._replace(version=2), CONTEXT._replace(public=b"")):
        assert "altered" == refused(BLOB, other, Generous())


def test_no_two_contexts_have_one_form() -> None:
    """However their parts are cut: each has its length before it."""
    parts = ["", "a", "ab", "b", "bc", "c", "a\0", "\0a", "\x00\x00\x00\x01a"]
    contexts = [Context(*three, 1, "p") for three in itertools.product(parts, repeat=3)]
    contexts += [Context("o", "p", "l", version, purpose, public) for version, purpose, public in (
        (1, "1", b""), (11, "", b""), (1, "1p", b""), (1, "1", b"p"), (1, "", b"1")
    )]  # fmt: skip

    assert len(contexts) == len({context.encoded() for context in contexts})
    assert len(contexts) == len(set(contexts))


SHORT = st.text(max_size=4)
PARTS = st.tuples(SHORT, SHORT, SHORT, st.integers(0, 99), st.binary(max_size=4))


@given(one=PARTS, other=PARTS)
@settings(max_examples=200, deadline=None)
def test_contexts_are_equal_where_their_forms_are(one: tuple, other: tuple) -> None:
    """And only there."""
    first, second = (Context(*each[:4], "purpose", each[4]) for each in (one, other))
    assert (first == second) == (first.encoded() == second.encoded())


@given(secret=st.binary(min_size=1, max_size=200), public=st.binary(max_size=50), noise=st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_anything_comes_back_and_noise_never_opens(secret: bytes, public: bytes, noise: bytes) -> None:
    """Round trip of any bytes; noise, with and without the right beginning, is refused and never crashes."""
    context = CONTEXT._replace(public=public)
    assert secret == open_(seal(Secret(secret), context, ring()), context, ring()).reveal_bytes()
    for blob in (noise, MAGIC + noise, MAGIC + b"\x02k1" + noise, MAGIC + b"\x02k1\x00\x3c" + noise):
        refused(blob)
    assert key_id_of(noise) is None


def test_what_is_no_envelope_of_ours_asks_for_no_key() -> None:
    """Another beginning, or a master key that is not here: refused before a wrapper is asked."""

    class Elsewhere(CountingWrapper):
        def knows(self, key_id: str) -> bool:
            return False

    wrapper, elsewhere = CountingWrapper(), Elsewhere()
    assert "malformed" == refused(b"rre2" + BLOB[4:], wrapper=wrapper)
    assert "unknown_key" == refused(BLOB, wrapper=elsewhere)
    assert (0, 0) == (wrapper.unwrapped, elsewhere.unwrapped)


def test_parts_of_two_envelopes_do_not_go_together() -> None:
    """Of two for the same context, no header with another's secret, nor any other splice."""
    other = seal(Secret(CANARY[::-1]), CONTEXT, ring())
    assert len(BLOB) == len(other)
    for cut in range(1, len(BLOB)):
        for spliced in (BLOB[:cut] + other[cut:], other[:cut] + BLOB[cut:]):
            if spliced not in {BLOB, other}:
                refused(spliced)


def test_an_envelope_commits_to_its_key() -> None:
    """Another data key, even one that would open what is sealed, is told by the commitment."""

    class Other(CountingWrapper):
        def unwrap(self, wrapped: bytes, key_id: str, context: Context) -> Secret:
            return Secret(bytes(range(32)))

    assert "altered" == refused(BLOB, wrapper=Other())
    # With the commitment of that key put in its place, the header is another one, and what is sealed does not open.
    derived = primitives.hkdf_sha256(bytes(range(32)), salt=b"", info=b"runrails envelope 1", size=64)
    place = len(MAGIC) + 3 + 2 + 60
    assert "altered" == refused(BLOB[:place] + derived[32:] + BLOB[place + 32 :], wrapper=Other())
    # And made from one key alone, with everything else right but the commitment, it is refused for that.
    forged = _forged(commitment=b"\0" * 32)
    assert "altered" == refused(forged, wrapper=Other())
    assert CANARY == open_(_forged(commitment=derived[32:]), CONTEXT, Other()).reveal()


def _forged(*, commitment: bytes) -> bytes:
    """An envelope whose tag is right for the data key of `Other`, with any commitment."""
    derived = primitives.hkdf_sha256(bytes(range(32)), salt=b"", info=b"runrails envelope 1", size=64)
    header = MAGIC + b"\x02k1\x00\x01w" + commitment + bytes(12)
    cipher = primitives.aead(derived[:32])
    return header + primitives.encrypt(cipher, bytes(12), CANARY.encode(), header + CONTEXT.encoded())


@pytest.mark.parametrize("length", [0, 1, 2, 4, 8, 11, 13, 16, 32, 128, 257])
def test_a_nonce_has_twelve_bytes(length: int) -> None:
    """Any other is refused: to seal, to open, and from a generator that gives another."""
    cipher = primitives.aead(bytes(32))
    with pytest.raises(ValueError):
        primitives.encrypt(cipher, bytes(length), b"x", b"")
    with pytest.raises(ValueError):
        primitives.decrypt(cipher, bytes(length), bytes(32), b"")
    with pytest.raises(ValueError):
        seal(SECRET, CONTEXT, ring(), random=lambda _: bytes(length))


@pytest.mark.parametrize(
    "given_key",
    [
        lambda plain, wrapped, key_id: DataKey(Secret(plain[:31]), wrapped, key_id),
        lambda plain, wrapped, key_id: DataKey(Secret(plain + b"x"), wrapped, key_id),
        lambda plain, wrapped, key_id: DataKey(Secret(plain), b"", key_id),
        lambda plain, wrapped, key_id: DataKey(Secret(plain), bytes(6_145), key_id),
        lambda plain, wrapped, key_id: DataKey(Secret(plain), wrapped, ""),
        lambda plain, wrapped, key_id: DataKey(Secret(plain), wrapped, "k" * 256),
        lambda plain, wrapped, key_id: DataKey(Secret(plain), wrapped, "kä"),
    ],
)
def test_a_wrapper_that_gives_something_else_seals_nothing(given_key: Callable[..., DataKey]) -> None:
    """Neither short keys nor ids that could not be read again."""

    class Odd(CountingWrapper):
        def new_data_key(self, context: Context) -> DataKey:
            made = super().new_data_key(context)
            return given_key(made.plain.reveal_bytes(), made.wrapped, made.key_id)

    with pytest.raises(CredentialUnreadable) as caught:
        seal(SECRET, CONTEXT, Odd())
    assert "wrapper_failed" == caught.value.reason


def test_a_wrapper_that_gives_a_short_key_opens_nothing() -> None:
    """A data key of another length is none."""

    class Short(CountingWrapper):
        def unwrap(self, wrapped: bytes, key_id: str, context: Context) -> Secret:
            return Secret(super().unwrap(wrapped, key_id, context).reveal_bytes()[:16])

    assert "wrapper_failed" == refused(BLOB, wrapper=Short())


def test_whatever_a_wrapper_raises_is_our_error() -> None:
    """Without what it said, which may be of keys; also as a context or cause."""
    wrapper = CountingWrapper()
    wrapper.fails = RuntimeError(f"could not use {CANARY}")
    assert "wrapper_failed" == refused(BLOB, wrapper=wrapper)
    with pytest.raises(CredentialUnreadable) as caught:
        seal(SECRET, CONTEXT, wrapper)
    assert [] == leaks(everything_of(caught.value), CANARY)
    wrapper.fails = "kms_unreachable"
    assert "kms_unreachable" == refused(BLOB, wrapper=wrapper)


def test_the_wrong_ring_opens_nothing() -> None:
    """Another key of the same name, no key of that name, and the right key again."""
    assert "wrong_key" == refused(BLOB, wrapper=KeyRing("k1", {"k1": master("another")}))
    assert "unknown_key" == refused(BLOB, wrapper=ring("k2"))
    assert CANARY == open_(BLOB, CONTEXT, ring("k2", "k1")).reveal()


def test_users_providers_and_versions_are_never_interchangeable() -> None:
    """
    Every pair among 20 users, 3 providers and 2 versions: each opens at its own place and at none of the others.

    `tests/attack_vault.py` does it with 100 users: 359,400 pairs.
    """
    from attack_vault import swapped

    assert (120, 120 * 119, 0) == swapped(users=20)


def test_the_error_and_its_frames_hold_no_key() -> None:
    """What a logger prints that shows local variables: neither the secret nor the data key nor the master key."""
    keys = [master().reveal_bytes().hex(), ring().unwrap(BLOB[9:69], "k1", CONTEXT).reveal_bytes().hex()]
    for blob, context in ((BLOB[:-1] + bytes([BLOB[-1] ^ 1]), CONTEXT), (BLOB, CONTEXT._replace(version=9))):
        with pytest.raises(CredentialUnreadable) as caught:
            open_(blob, context, ring())
        shown = everything_of(caught.value)
        assert [] == leaks(shown, CANARY)
        assert all(bytes.fromhex(key) not in shown.encode("latin-1", "replace") for key in keys)
        assert all(repr(bytes.fromhex(key))[2:-1] not in shown for key in keys)


def test_ids_say_whose_key_it_is_in_one_way() -> None:
    """No two ids share an address; every address leads back to its id."""
    from runrails.credentials.records import id_of

    owners = [
        "user:alice",
        "org:alice",
        "platform",
        "user:platform",
        "org:platform",
        "user:user.alice",
        "user:a.b",
        "user:a",
    ]
    labels = ["default", "x.default", "b.c", "a"]
    ids = [
        CredentialId(owner, provider, label)
        for owner in owners for provider in ("openai", "openai-x", "o") for label in labels
    ]  # fmt: skip

    assert len(ids) == len({which.address for which in ids})
    assert ids == [id_of(which.address) for which in ids]
    assert len(ids) == len({which.context(1, b"").encoded() for which in ids})
