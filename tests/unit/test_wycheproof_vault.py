"""
What the vault is made of against the vectors of C2SP/wycheproof, which are not part of this repository.

AES-GCM: every vector with a nonce of 12 bytes, through our own functions; every other length must be refused.
"""

from __future__ import annotations

import hmac
import json
from pathlib import Path

import pytest

from runrails.credentials import primitives

VECTORS = Path(__file__).parents[3] / "shared" / "data" / "wycheproof"

pytestmark = pytest.mark.skipif(not VECTORS.is_dir(), reason=f"needs Wycheproof's vectors in {VECTORS}")


def cases(name: str) -> list[tuple[dict, dict]]:
    """(group, test) of a file."""
    content = json.loads((VECTORS / f"{name}.json").read_text())
    found = [(group, test) for group in content["testGroups"] for test in group["tests"]]
    assert content["numberOfTests"] == len(found)
    return found


def test_aes_gcm() -> None:
    """Valid ones seal and open to the very bytes; invalid ones do not open; other nonces are refused."""
    done = {"valid": 0, "invalid": 0, "nonce": 0}
    for group, test in cases("aes_gcm"):
        key, nonce, aad, text, sealed, tag = (
            bytes.fromhex(test[part]) for part in ("key", "iv", "aad", "msg", "ct", "tag")
        )
        cipher = primitives.aead(key)
        if group["ivSize"] != 96:
            with pytest.raises(ValueError):
                primitives.encrypt(cipher, nonce, text, aad)
            with pytest.raises(ValueError):
                primitives.decrypt(cipher, nonce, sealed + tag, aad)
            done["nonce"] += 1
        elif test["result"] == "valid":
            assert sealed + tag == primitives.encrypt(cipher, nonce, text, aad), test["tcId"]
            assert text == primitives.decrypt(cipher, nonce, sealed + tag, aad), test["tcId"]
            done["valid"] += 1
        else:
            assert primitives.decrypt(cipher, nonce, sealed + tag, aad) is None, test["tcId"]
            done["invalid"] += 1
    print(done)
    assert 316 == sum(done.values())
    assert min(done.values()) > 20


def test_hkdf_sha256() -> None:
    """All 86: what is too long is refused, all else is as it should be."""
    found = cases("hkdf_sha256")
    for _, test in found:
        key, salt, info = (bytes.fromhex(test[part]) for part in ("ikm", "salt", "info"))
        if test["result"] == "valid":
            derived = primitives.hkdf_sha256(key, salt=salt, info=info, size=test["size"])
            assert bytes.fromhex(test["okm"]) == derived, test["tcId"]
        else:
            with pytest.raises(ValueError):
                primitives.hkdf_sha256(key, salt=salt, info=info, size=test["size"])
    assert 86 == len(found)


def test_hmac_sha256() -> None:
    """All 174 of the function that HKDF and API keys rest on; no invalid tag is taken for a valid one."""
    found = cases("hmac_sha256")
    for group, test in found:
        key, text, tag = (bytes.fromhex(test[part]) for part in ("key", "msg", "tag"))
        made = hmac.digest(key, text, "sha256")[: group["tagSize"] // 8]
        assert (test["result"] == "valid") == hmac.compare_digest(made, tag), test["tcId"]
    assert 174 == len(found)
