"""
Every prefix of a conversation has a name: `C_0` is of its owner, `C_j` of `C_{j-1}` and turn j. Pure.

A conversation is sent anew with every request, so what is known of one of its prefixes is known of the request. Names
of two owners never meet. What a system message says has no part in it: it often holds the time of day.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runrails_gateway.history import History

__all__ = ["chain", "extend", "root"]

_BYTES = 16


def root(*owner: str) -> bytes:
    """The name of the empty conversation of an owner."""
    text = "".join([f"{len(part)}:{part}" for part in owner])
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_BYTES, person=b"runrails-owner").digest()


def chain(owner: str | bytes, history: History) -> tuple[bytes, ...]:
    """
    The names of all prefixes, the empty one first: one more than the history has turns.

    Args:
        owner: Whose it is, or the name of the conversation that it goes on from.
        history: The turns.
    """
    key = root(owner) if isinstance(owner, str) else owner
    keys, made, noted = [key], blake2b, history.noted
    if noted is not None:
        _, known = noted.memo.known("chain", noted.items, tuple[bytes, ...])
        if known and known[0] == key:
            keys, key = [*known], known[-1]
    done = len(keys) - 1
    for role, digest in zip(history.roles[done:], history.digests[done:], strict=True):
        if role != "system":
            key = made(key + digest, digest_size=_BYTES).digest()
        keys.append(key)
    if noted is not None:
        noted.memo.note("chain", noted.items, tuple(keys[: noted.turns + 1]))
    return tuple(keys)


def extend(key: bytes, digest: bytes) -> bytes:
    """The name of a conversation with one turn more."""
    return blake2b(key + digest, digest_size=_BYTES).digest()
