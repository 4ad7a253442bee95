"""
Take away each security check of the vault in turn, and see a test fail: `python tests/mutate_vault.py [WORD…]`.

A copy of the sources is changed, never these. With words, only the mutants in whose description one of them is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
CREDENTIALS = "guardrails/runrails/credentials"
VAULT = ("tests/unit/test_vault.py", "tests/attacks/test_vault_attacks.py")
ENVELOPE = ("tests/unit/test_envelope.py",)
RING = ("tests/unit/test_key_ring.py",)
KMS = ("tests/integrations/test_aws_kms.py",)
SECRET = ("tests/unit/test_secretvalue.py",)
DOCUMENTS = ("tests/contract/test_documents.py", "tests/faults/test_documents_sqlite.py")
CLI = ("tests/unit/test_cli_byok.py",)


class Mutant(NamedTuple):
    """One check taken away."""

    what: str
    file: str
    tests: tuple[str, ...]
    changes: tuple[tuple[str, str], ...]


def mutants() -> list[Mutant]:
    """Every one of them."""
    found: list[Mutant] = []

    def add(file: str, tests: tuple[str, ...], what: str, *changes: tuple[str, str]) -> None:
        found.append(Mutant(what, file, tests, changes))

    file = f"{CREDENTIALS}/primitives.py"
    add(file, ENVELOPE, "nonce of any length", ("if len(nonce) != NONCE_BYTES:", "if False:"))
    add(
        file,
        ENVELOPE,
        "context not authenticated",
        ("plaintext, aad)", "plaintext, b'')"),
        ("sealed, aad)", "sealed, b'')"),
    )

    file = f"{CREDENTIALS}/envelope.py"
    add(file, ENVELOPE, "no magic", ("if blob[:place] != MAGIC:", "if False:"))
    add(file, ENVELOPE, "no commitment", ("if not compare_digest(commitment, parts.commitment):", "if False:"))
    add(
        file,
        ENVELOPE,
        "data key of any length opens",
        ("if len(data_key.reveal_bytes()) != DATA_KEY_BYTES:", "if False:"),
    )
    add(
        file,
        ENVELOPE,
        "data key of any length seals",
        ("len(data_key.plain.reveal_bytes()) == DATA_KEY_BYTES\n", "True\n"),
    )
    add(file, ENVELOPE, "key id of any letters seals", ("and data_key.key_id.isascii()", ""))
    add(file, ENVELOPE, "key id of any length seals", ("and 0 < len(data_key.key_id) <= KEY_ID_BYTES_MAX", ""))
    add(file, ENVELOPE, "wrapped key of any length seals", ("and 0 < len(data_key.wrapped) <= WRAPPED_BYTES_MAX", ""))
    add(
        file,
        ENVELOPE,
        "header not authenticated",
        ("secret.reveal_bytes(), header + context.encoded())", "secret.reveal_bytes(), context.encoded())"),
        ("parts.sealed, parts.header + context.encoded())", "parts.sealed, context.encoded())"),
    )
    add(
        file,
        ENVELOPE,
        "sealed secret not bound to the context",
        ("secret.reveal_bytes(), header + context.encoded())", "secret.reveal_bytes(), header)"),
        ("parts.sealed, parts.header + context.encoded())", "parts.sealed, parts.header)"),
    )
    add(
        file,
        ENVELOPE,
        "unknown master key asked for",
        ("if not _asked(lambda: wrapper.knows(parts.key_id)):", "if False:"),
    )
    add(
        file,
        ENVELOPE,
        "a wrapper's own error gets out",
        ("    except Exception:  # noqa: BLE001", "    except ZeroDivisionError:  # noqa: BLE001"),
    )
    add(file, ENVELOPE, "one nonce for all", ("random(primitives.NONCE_BYTES)", "bytes(12)"))
    add(
        file,
        ENVELOPE,
        "commitment of nothing",
        (
            "return Secret(derived[:DATA_KEY_BYTES]), derived[DATA_KEY_BYTES:]",
            "return Secret(derived[:DATA_KEY_BYTES]), bytes(32)",
        ),
    )
    add(file, ENVELOPE, "short envelopes parsed", ("or len(blob) <= end + primitives.TAG_BYTES", ""))

    file = f"{CREDENTIALS}/wrapping.py"
    add(file, ENVELOPE, "parts without their length", ('len(part).to_bytes(4, "big") + part', "part"))
    for part in ("self.owner", "self.provider", "self.label", "str(self.version)", "self.purpose"):
        line = "texts = (self.owner, self.provider, self.label, str(self.version), self.purpose)"
        add(file, ENVELOPE, f"context without {part}", (line, line.replace(part, '""')))
    add(file, ENVELOPE, "context without what is public", ("for text in texts), self.public]", "for text in texts)]"))

    file = f"{CREDENTIALS}/ring.py"
    add(file, RING, "no active key needed", ("if active not in keys:", "if False:"))
    add(file, RING, "any number of keys", ("if len(keys) > KEYS_MAX:", "if False:"))
    add(file, RING, "a name twice", ("if check_key_id(key_id) in keys:", "if False:"))
    add(file, RING, "no colon", ("if not colon or not reference:", "if False:"))
    add(file, RING, "any name", ("if _ID.fullmatch(key_id) and key_id != _RESERVED:", "if True:"))
    add(file, RING, "the name of a service", (" and key_id != _RESERVED:", ":"))
    add(file, RING, "wrapped key of any length", ("if len(wrapped) != _WRAPPED_BYTES:", "if False:"))
    add(file, RING, "name not authenticated", ('len(name).to_bytes(1, "big") + name + context', "context"))
    add(file, RING, "wrapped for any context", ("+ name + context.encoded()", "+ name"))
    add(file, RING, "placeholders", ("weakness(held, bytes_min=DATA_KEY_BYTES) is not None or", ""))
    add(file, RING, "pass phrases", ("is not None or all(0x20 <= byte < 0x7F for byte in held)", "is not None"))
    add(
        file,
        RING,
        "keys of any length",
        ("return Secret(key) if len(key) == DATA_KEY_BYTES else None", "return Secret(key[:32].ljust(32, b'x'))"),
    )
    add(file, RING, "one key under two names", ("if master == before:", "if False:"))
    add(
        file,
        RING,
        "wrong key opens",
        (
            'if opened is None:\n            raise CredentialUnreadable("wrong_key")',
            "if opened is None:\n            return Secret(bytes(31) + b'1')",
        ),
    )

    file = f"{CREDENTIALS}/records.py"
    add(
        file,
        VAULT,
        "owner of any letters",
        ('return found[1], check_id(found[2], what="The name of a key\'s owner")', "return found[1], found[2]"),
    )
    add(file, VAULT, "any provider", ("if not _PROVIDER.fullmatch(self.provider):", "if False:"))
    add(file, VAULT, "any label", ("if not _LABEL.fullmatch(self.label):", "if False:"))
    add(
        file,
        (*VAULT, *ENVELOPE),
        "kind of owner not in the name",
        ('f"{scope}.{self.provider}.{self.label}"', 'f"user.{self.provider}.{self.label}"'),
    )
    add(
        file,
        VAULT,
        "hint of short keys",
        ("if len(held) < _HINT_FROM_CHARS or not held.isascii():", "if not held.isascii():"),
    )
    add(file, VAULT, "hint of any letters", ("return hint if hint.isprintable() else None", "return hint"))
    add(file, VAULT, "longer hint", ("_HINT_CHARS = 4", "_HINT_CHARS = 5"))
    add(file, VAULT, "key of any length", ("if len(secret.reveal_bytes()) > SECRET_BYTES_MAX:", "if False:"))
    add(file, VAULT, "any base URL", ("(len(url) <= _BASE_URL_CHARS_MAX and _BASE_URL.fullmatch(url))", "True"))
    add(file, VAULT, "base URL of any length", ("len(url) <= _BASE_URL_CHARS_MAX and ", ""))
    add(file, VAULT, "any region", ("if region is None or _REGION.fullmatch(region):", "if True:"))
    add(file, VAULT, "damaged status is fine", ('return cls("suspended", None, "")', 'return cls("valid", None, "")'))
    add(file, VAULT, "any status", ("if status not in STATUSES or not sound:", "if not sound:"))
    add(file, VAULT, "status of any form", ("if status not in STATUSES or not sound:", "if status not in STATUSES:"))
    add(file, VAULT, "record without its magic", ("if data[: len(_MAGIC)] != _MAGIC:", "if False:"))
    add(
        file,
        VAULT,
        "public part of any form",
        ("if not _is_time(created_ms) or not _is_time(rotated_ms) or not isinstance(secret_id, str):", "if False:"),
    )

    file = f"{CREDENTIALS}/vault.py"
    add(file, VAULT, "suspended keys open", ('if status.status == "suspended":', "if False:"))
    add(
        file,
        VAULT,
        "adding overwrites what is there",
        ("if before is not None and before.data != REMOVED:", "if False:"),
    )
    add(
        file,
        VAULT,
        "adding overwrites what comes",
        (
            "        if written is None:\n            raise CredentialExists",
            (
                "        if written is None:\n            written = self._existing(which)\n"
                "        if False:\n            raise CredentialExists"
            ),
        ),
    )
    add(file, VAULT, "any number of keys", (">= CREDENTIALS_MAX:", ">= 10**9:"))
    add(
        file,
        VAULT,
        "rotating without opening",
        ("old = self._open(which, document)[0].public", "old = Record.parse(document.data).public"),
    )
    add(
        file,
        VAULT,
        "a lost rotation is not told",
        (
            "        if written is None:\n            raise CredentialChanged",
            (
                "        if written is None:\n            written = document\n"
                "        if False:\n            raise CredentialChanged"
            ),
        ),
    )
    add(
        file,
        VAULT,
        "removed for good leaves no version",
        (
            "if self._documents.put(which.address, REMOVED, expected=document.version, expires_ms=gone_ms):",
            "if self._documents.delete(which.address, expected=document.version):",
        ),
    )
    add(
        file,
        VAULT,
        "removing ends a suspension",
        ('if noted is not None and StatusRecord.parse(noted.data).status != "suspended":', "if noted is not None:"),
    )
    add(
        file,
        VAULT,
        "a check of another secret counts",
        ("outdated = secret_id not in {None, info.secret_id}", "outdated = False"),
    )
    add(
        file,
        VAULT,
        "a check ends a suspension",
        ('if outdated or (before.status == "suspended") != resume:', "if outdated:"),
    )
    add(
        file,
        VAULT,
        "status of the key before",
        ('of_this = status.status == "suspended" or status.secret_id == public.secret_id', "of_this = True"),
    )
    add(file, VAULT, "rotating ends a suspension", ('of_this = status.status == "suspended" or ', "of_this = "))
    add(file, VAULT, "cache not by context", (".digest() + context.encoded()).digest()", ".digest()).digest()"))
    add(
        file,
        VAULT,
        "cache not by envelope",
        ("sha256(sha256(record.envelope).digest() + context.encoded())", "sha256(context.encoded())"),
    )
    add(
        file,
        VAULT,
        "changes are not forgotten",
        ("        finally:\n            self._opened.forget(which)", "        finally:\n            pass"),
    )
    add(
        file,
        VAULT,
        "marking forgets nothing",
        ("    ) -> CredentialInfo:\n        self._opened.forget(which)\n", "    ) -> CredentialInfo:\n"),
    )
    add(
        file,
        VAULT,
        "removing forgets nothing",
        ("                self._opened.forget(which)\n                self._drop", "                self._drop"),
    )
    add(file, VAULT, "closing forgets nothing", ("self._opened.clear()", "pass"))
    add(
        file,
        VAULT,
        "another version opens",
        (
            "context = which.context(document.version, record.public_bytes)",
            "context = which.context(1, record.public_bytes)",
        ),
        ("seal(secret, which.context(expected + 1, text)", "seal(secret, which.context(1, text)"),
    )
    add(
        file,
        VAULT,
        "public part not bound",
        (
            "context = which.context(document.version, record.public_bytes)",
            "context = which.context(document.version, b'')",
        ),
        ("seal(secret, which.context(expected + 1, text)", "seal(secret, which.context(expected + 1, b'')"),
    )
    add(
        file,
        VAULT,
        "removed keys are there",
        (
            "if document is None or document.data == REMOVED:\n            raise CredentialNotFound",
            "if document is None:\n            raise CredentialNotFound",
        ),
    )
    add(
        file,
        VAULT,
        "removed keys are listed",
        ("if found is not None and document.data != REMOVED and", "if found is not None and"),
    )
    add(
        file,
        VAULT,
        "other owners' keys are listed",
        ("and document.address.name.startswith(start):\n                yield", ":\n                yield"),
    )
    add(
        file,
        VAULT,
        "no sealing anew on reading",
        ("if key_id_of(record.envelope) != self._wrapper.active and self._may_rewrap(which):", "if False:"),
    )
    add(
        file,
        VAULT,
        "sealing anew breaks reading",
        ("except (CredentialUnreadable, StoreUnavailable):", "except ZeroDivisionError:"),
    )
    add(
        file,
        VAULT,
        "sealing anew again and again",
        ("self._rewrap_from_ms = self._monotonic() + REWRAP_PAUSE_MS", "pass"),
    )

    file = f"{CREDENTIALS}/cache.py"
    add(file, VAULT, "opened keys stay for ever", ("if self._monotonic() >= entry.until_ms:", "if False:"))
    add(file, VAULT, "any number of opened keys", ("if len(self._entries) > self._count_max:", "if False:"))
    add(file, VAULT, "what is over stays in memory", ("            self._sweep(now_ms)\n", ""))
    add(
        file,
        VAULT,
        "a cache of none keeps one",
        ("if self._ttl_ms <= 0 or self._count_max <= 0:", "if False:"),
        ("if len(self._entries) > self._count_max:", "if len(self._entries) > max(1, self._count_max):"),
    )

    file = f"{CREDENTIALS}/errors.py"
    add(
        file,
        ENVELOPE,
        "callers are told why",
        (
            'whom `runrails byok list --open` tells why.",\n',
            'whom `runrails byok list --open` tells why.",\n            reason=reason,\n',
        ),
    )

    file = "integrations/runrails_aws/kms.py"
    add(file, KMS, "key not named to open", ("KeyId=self._key_arn, CiphertextBlob=wrapped,", "CiphertextBlob=wrapped,"))
    add(
        file,
        KMS,
        "context not told to open",
        ("CiphertextBlob=wrapped, EncryptionContext=context.fields(),", "CiphertextBlob=wrapped,"),
    )
    add(
        file,
        KMS,
        "context not told at all",
        ("CiphertextBlob=wrapped, EncryptionContext=context.fields(),", "CiphertextBlob=wrapped,"),
        ('KeySpec="AES_256", EncryptionContext=context.fields()', 'KeySpec="AES_256"'),
    )
    add(file, KMS, "another key answers", ('if answer.get("KeyId") == self._key_arn:', "if True:"))
    add(file, KMS, "another key is asked for", ("if key_id != self._key_arn:", "if False:"))
    add(
        file,
        KMS,
        "any key's ARN known",
        ("return key_id == self._key_arn", "return True"),
        ("if key_id != self._key_arn:", "if False:"),
    )
    add(
        file,
        KMS,
        "aliases",
        ("if found is None:", "if not key_arn:"),
        ("self._region = found[1]", "self._region = 'eu-west-1'"),
    )
    add(file, KMS, "answers of any form", ("if isinstance(value, bytes) and value:", "if True:"))
    add(
        file,
        KMS,
        "boto3's errors get out",
        ("except Exception as error:  # noqa: BLE001", "except ZeroDivisionError as error:  # noqa: BLE001"),
    )

    file = "guardrails/runrails/secretvalue.py"
    add(
        file,
        SECRET,
        "repr",
        (
            "def __repr__(self) -> str:\n        return _SHOWN",
            "def __repr__(self) -> str:\n        return repr(self._held)",
        ),
    )
    add(
        file,
        SECRET,
        "str",
        ("def __str__(self) -> str:\n        return _SHOWN", "def __str__(self) -> str:\n        return self.reveal()"),
    )
    add(
        file,
        SECRET,
        "format",
        (
            "def __format__(self, format_spec: str, /) -> str:\n        return _SHOWN",
            "def __format__(self, format_spec: str, /) -> str:\n        return self.reveal()",
        ),
    )
    add(file, SECRET, "pickle", ("def __reduce_ex__", "def _reduce_ex"), ("def __getstate__", "def _getstate"))
    add(file, SECRET, "state", ("def __getstate__", "def _getstate"))
    add(file, SECRET, "hash", ("    __hash__ = None", "    __hash__ = lambda self: hash(self._held)"))
    add(file, SECRET, "changes", ("def __setattr__", "def _setattr"))
    add(file, SECRET, "deletes", ("def __delattr__", "def _delattr"))
    add(file, SECRET, "subclasses", ("def __init_subclass__", "def _init_subclass"))
    add(file, SECRET, "equal to all", ("return compare_digest(self._held, other._held)", "return True"))
    add(
        file,
        SECRET,
        "equal to text",
        (
            "if type(other) is not Secret:\n            return NotImplemented",
            "if type(other) is not Secret:\n            return other in (self._held, self._held.decode())",
        ),
    )
    add(file, SECRET, "empty", ('return held or ValueError("A secret must not be empty.")', "return held"))
    add(file, SECRET, "frames", ("        del value\n", ""))
    add(
        file,
        SECRET,
        "decoding error tells",
        (
            "            pass  # Python's own error carries the value, also as the context of another.\n",
            "            raise\n",
        ),
    )
    add(file, SECRET, "any type", ('return TypeError("A secret must be text or bytes.")', "held = bytes(value)"))

    for file in ("guardrails/runrails/documents/memory.py", "guardrails/runrails/documents/sqlite.py"):
        add(
            file,
            DOCUMENTS,
            f"no version compared to put in {file[-9:]}",
            ("if expected != (0 if known is None else known.version):", "if False:")
            if "memory" in file
            else ("if _version(connection, address, now_ms) != expected:", "if False:"),
        )
        add(
            file,
            DOCUMENTS,
            f"no version compared to remove in {file[-9:]}",
            ("if known is None or known.version != expected:", "if known is None:")
            if "memory" in file
            else ("if expected == 0 or _version(connection, address, now_ms) != expected:", "if False:"),
        )
        add(
            file,
            DOCUMENTS,
            f"nothing expires in {file[-9:]}",
            ("known is None or known.expires_ms is None or self._clock() < known.expires_ms", "True")
            if "memory" in file
            else ('_LIVE = "(expires_ms IS NULL OR expires_ms > ?)"', '_LIVE = "(? IS NOT NULL)"'),
        )
    file = "guardrails/runrails/documents/sqlite.py"
    add(file, DOCUMENTS, "removed bytes stay in the file", ("secure_delete = ON", "secure_delete = OFF"))
    file = "guardrails/runrails/documents/__init__.py"
    add(file, DOCUMENTS, "any address", ("if type(kind) is not str or not _KIND.fullmatch(kind):", "if False:"))
    add(file, DOCUMENTS, "any owner", ('check_id(owner, what="A document\'s owner")', "pass"))
    add(file, DOCUMENTS, "any name", ('check_id(name, what="A document\'s name")', "pass"))
    add(file, DOCUMENTS, "any size", ("if len(data) > DATA_BYTES_MAX:", "if False:"))
    add(
        file,
        DOCUMENTS,
        "any version",
        ("if type(expected) is not int or not 0 <= expected < _TIME_MS_MAX:", "if False:"),
    )

    file = "guardrails/runrails/cli/byok.py"
    add(file, CLI, "keys on the command line", ("    if context.args:\n", "    if False:\n"))
    add(file, CLI, "click tells what stands there", ('_EXTRA = {"allow_extra_args": True}', "_EXTRA = {}"))
    add(
        file,
        CLI,
        "master keys overwritten",
        ("os.O_CREAT | os.O_EXCL | os.O_WRONLY", "os.O_CREAT | os.O_TRUNC | os.O_WRONLY"),
    )
    add(file, CLI, "master keys readable", ("os.O_WRONLY, 0o600)", "os.O_WRONLY, 0o644)"))
    add(
        file,
        CLI,
        "keys are echoed",
        (
            '_held(getpass(f"{provider} key (not shown): ").encode(',
            '_held(input(f"{provider} key (not shown): ").encode(',
        ),
    )
    add(file, CLI, "nothing is a key", ("if given else None", "if True else None"))
    return found


def is_killed(mutant: Mutant, copy: Path) -> bool | None:
    """Whether a test fails with it; None if its text is not in the file, so that it must be written anew."""
    path = copy / mutant.file
    before = path.read_text(encoding="utf-8")
    text = before
    for old, new in mutant.changes:
        if text.count(old) < 1:
            return None
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")
    paths = os.pathsep.join(str(copy / root) for root in ("guardrails", "integrations", "tests"))
    try:
        done = subprocess.run(
            [sys.executable, "-B", "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *mutant.tests],
            cwd=copy, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, timeout=120, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return True
    finally:
        path.write_text(before, encoding="utf-8")
    return done.returncode == 1


def main(words: list[str]) -> int:
    """Print what survives; 1 if anything does."""
    wanted = [each for each in mutants() if not words or any(word in f"{each.file} {each.what}" for word in words)]
    began, bad = time.monotonic(), 0
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name)
        for part in ("guardrails", "integrations", "tests"):
            shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        for mutant in wanted:
            killed = is_killed(mutant, copy)
            if not killed:
                bad += 1
                print(f"{'SURVIVED' if killed is False else 'NOT FOUND'}: {mutant.file}: {mutant.what}", flush=True)
    print(f"{len(wanted)} mutants, {len(wanted) - bad} killed ({time.monotonic() - began:.0f} s)")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
