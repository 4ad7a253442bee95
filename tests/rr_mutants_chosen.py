"""
Changes of a module that its form does not show to be a check, each chosen by somebody, and its text.

`rr_mutants` finds what looks like a check; these are bindings, constants, modes and promises, and a test must miss each
of them as well. What is to be replaced must be there, letter by letter: `test_mutants.py` says so if it is no more.
"""

from __future__ import annotations

__all__ = ["CHOSEN"]

CHOSEN: dict[str, dict[str, tuple[tuple[str, str], ...]]] = {
    "guardrails/runrails/cli/byok.py": {
        "click tells what stands there": (('_EXTRA = {"allow_extra_args": True}', "_EXTRA = {}"),),
        "master keys overwritten": (("os.O_CREAT | os.O_EXCL | os.O_WRONLY", "os.O_CREAT | os.O_TRUNC | os.O_WRONLY"),),
        "master keys readable": (("os.O_WRONLY, 0o600)", "os.O_WRONLY, 0o644)"),),
        "keys are echoed": (
            (
                '_held(getpass(f"{provider} key (not shown): ").encode(',
                '_held(input(f"{provider} key (not shown): ").encode(',
            ),
        ),
    },
    "guardrails/runrails/credentials/cache.py": {
        "any number of opened keys": (("if len(self._entries) > self._count_max:", "if False:"),),
        "what is over stays in memory": (("            self._sweep(now_ms)\n", ""),),
        "a cache of none keeps one": (
            ("if self._ttl_ms <= 0:", "if False:"),
            ("if len(self._entries) > self._count_max:", "if len(self._entries) > max(1, self._count_max):"),
        ),
    },
    "guardrails/runrails/credentials/envelope.py": {
        "header not authenticated": (
            ("secret.reveal_bytes(), header + context.encoded())", "secret.reveal_bytes(), context.encoded())"),
            ("parts.sealed, parts.header + context.encoded())", "parts.sealed, context.encoded())"),
        ),
        "sealed secret not bound to the context": (
            ("secret.reveal_bytes(), header + context.encoded())", "secret.reveal_bytes(), header)"),
            ("parts.sealed, parts.header + context.encoded())", "parts.sealed, parts.header)"),
        ),
        "a wrapper's own error gets out": (
            ("    except Exception:  # noqa: BLE001", "    except ZeroDivisionError:  # noqa: BLE001"),
        ),
        "one nonce for all": (("random(primitives.NONCE_BYTES)", "bytes(12)"),),
        "commitment of nothing": (
            (
                "return Secret(derived[:DATA_KEY_BYTES]), derived[DATA_KEY_BYTES:]",
                "return Secret(derived[:DATA_KEY_BYTES]), bytes(32)",
            ),
        ),
    },
    "guardrails/runrails/credentials/errors.py": {
        "callers are told why": (
            (
                'whom `runrails byok list --open` tells why.",\n',
                'whom `runrails byok list --open` tells why.",\n            reason=reason,\n',
            ),
        ),
    },
    "guardrails/runrails/credentials/primitives.py": {
        "context not authenticated": (
            ("plaintext, aad)", "plaintext, b'')"),
            ("sealed, aad)", "sealed, b'')"),
        ),
    },
    "guardrails/runrails/credentials/records.py": {
        "kind of owner not in the name": (
            ('f"{scope}.{self.provider}.{self.label}"', 'f"user.{self.provider}.{self.label}"'),
        ),
        "hint of any letters": (("return hint if hint.isprintable() else None", "return hint"),),
        "longer hint": (("_HINT_CHARS = 4", "_HINT_CHARS = 5"),),
        "any base URL": (("(len(url) <= _BASE_URL_CHARS_MAX and _BASE_URL.fullmatch(url))", "True"),),
        "damaged status is fine": (('return cls("suspended", None, "")', 'return cls("valid", None, "")'),),
    },
    "guardrails/runrails/credentials/ring.py": {
        "name not authenticated": (('len(name).to_bytes(1, "big") + name + context', "context"),),
        "wrapped for any context": (("+ name + context.encoded()", "+ name"),),
        "keys of any length": (
            ("return Secret(key) if len(key) == DATA_KEY_BYTES else None", "return Secret(key[:32].ljust(32, b'x'))"),
        ),
        "wrong key opens": (
            (
                'if opened is None:\n            raise CredentialUnreadable("wrong_key")',
                "if opened is None:\n            return Secret(bytes(31) + b'1')",
            ),
        ),
    },
    "guardrails/runrails/credentials/vault.py": {
        "adding overwrites what comes": (
            (
                "        if written is None:\n            raise CredentialExists",
                (
                    "        written = written or self._existing(which)\n"
                    "        if False:\n            raise CredentialExists"
                ),
            ),
        ),
        "any number of keys": ((">= CREDENTIALS_MAX:", ">= 10**9:"),),
        "rotating without opening": (
            ("old = self._open(which, document)[0].public", "old = Record.parse(document.data).public"),
        ),
        "a lost rotation is not told": (
            (
                "        if written is None:\n            raise CredentialChanged",
                "        written = written or document\n        if False:\n            raise CredentialChanged",
            ),
        ),
        "removed for good leaves no version": (
            (
                "if self._documents.put(which.address, REMOVED, expected=document.version, expires_ms=gone_ms):",
                "if self._documents.delete(which.address, expected=document.version):",
            ),
        ),
        "a check of another secret counts": (
            ("outdated = secret_id not in {None, info.secret_id}", "outdated = False"),
        ),
        "a check ends a suspension": (('if outdated or (before.status == "suspended") != resume:', "if outdated:"),),
        "status of the key before": (
            ('of_this = status.status == "suspended" or status.secret_id == public.secret_id', "of_this = True"),
        ),
        "cache not by context": ((".digest() + context.encoded()).digest()", ".digest()).digest()"),),
        "cache not by envelope": (
            ("sha256(sha256(record.envelope).digest() + context.encoded())", "sha256(context.encoded())"),
        ),
        "changes are not forgotten": (
            ("        finally:\n            self._opened.forget(which)", "        finally:\n            pass"),
        ),
        "marking forgets nothing": (
            ("    ) -> CredentialInfo:\n        self._opened.forget(which)\n", "    ) -> CredentialInfo:\n"),
        ),
        "removing forgets nothing": (
            ("                self._opened.forget(which)\n                self._drop", "                self._drop"),
        ),
        "closing forgets nothing": (("self._opened.clear()", "pass"),),
        "another version opens": (
            (
                "context = which.context(document.version, record.public_bytes)",
                "context = which.context(1, record.public_bytes)",
            ),
            ("seal(secret, which.context(expected + 1, text)", "seal(secret, which.context(1, text)"),
        ),
        "public part not bound": (
            (
                "context = which.context(document.version, record.public_bytes)",
                "context = which.context(document.version, b'')",
            ),
            ("seal(secret, which.context(expected + 1, text)", "seal(secret, which.context(expected + 1, b'')"),
        ),
        "no sealing anew on reading": (
            ("if key_id_of(record.envelope) != self._wrapper.active and self._may_rewrap(which):", "if False:"),
        ),
        "sealing anew breaks reading": (
            ("except (CredentialUnreadable, StoreUnavailable):", "except ZeroDivisionError:"),
        ),
        "sealing anew again and again": (("self._rewrap_from_ms = self._monotonic() + REWRAP_PAUSE_MS", "pass"),),
    },
    "guardrails/runrails/credentials/wrapping.py": {
        "parts without their length": (('len(part).to_bytes(4, "big") + part', "part"),),
        "context without self.owner": (
            (
                "texts = (self.owner, self.provider, self.label, str(self.version), self.purpose)",
                'texts = ("", self.provider, self.label, str(self.version), self.purpose)',
            ),
        ),
        "context without self.provider": (
            (
                "texts = (self.owner, self.provider, self.label, str(self.version), self.purpose)",
                'texts = (self.owner, "", self.label, str(self.version), self.purpose)',
            ),
        ),
        "context without self.label": (
            (
                "texts = (self.owner, self.provider, self.label, str(self.version), self.purpose)",
                'texts = (self.owner, self.provider, "", str(self.version), self.purpose)',
            ),
        ),
        "context without str(self.version)": (
            (
                "texts = (self.owner, self.provider, self.label, str(self.version), self.purpose)",
                'texts = (self.owner, self.provider, self.label, "", self.purpose)',
            ),
        ),
        "context without self.purpose": (
            (
                "texts = (self.owner, self.provider, self.label, str(self.version), self.purpose)",
                'texts = (self.owner, self.provider, self.label, str(self.version), "")',
            ),
        ),
        "context without what is public": (("for text in texts), self.public]", "for text in texts)]"),),
    },
    "guardrails/runrails/documents/__init__.py": {
        "any owner": (('check_id(owner, what="A document\'s owner")', "pass"),),
        "any name": (('check_id(name, what="A document\'s name")', "pass"),),
    },
    "guardrails/runrails/documents/sqlite.py": {
        "nothing expires in sqlite.py": (
            ('_LIVE = "(expires_ms IS NULL OR expires_ms > ?)"', '_LIVE = "(? IS NOT NULL)"'),
        ),
        "removed bytes stay in the file": (("secure_delete = ON", "secure_delete = OFF"),),
    },
    "guardrails/runrails/secretvalue.py": {
        "repr": (
            (
                "def __repr__(self) -> str:\n        return _SHOWN",
                "def __repr__(self) -> str:\n        return repr(self._held)",
            ),
        ),
        "str": (
            (
                "def __str__(self) -> str:\n        return _SHOWN",
                "def __str__(self) -> str:\n        return self.reveal()",
            ),
        ),
        "format": (
            (
                "def __format__(self, format_spec: str, /) -> str:\n        return _SHOWN",
                "def __format__(self, format_spec: str, /) -> str:\n        return self.reveal()",
            ),
        ),
        "pickle": (
            ("def __reduce_ex__", "def _reduce_ex"),
            ("def __getstate__", "def _getstate"),
        ),
        "state": (("def __getstate__", "def _getstate"),),
        "hash": (("    __hash__ = None", "    __hash__ = lambda self: hash(self._held)"),),
        "changes": (("def __setattr__", "def _setattr"),),
        "deletes": (("def __delattr__", "def _delattr"),),
        "subclasses": (("def __init_subclass__", "def _init_subclass"),),
        "equal to text": (
            (
                "if type(other) is not Secret:\n            return NotImplemented",
                "if type(other) is not Secret:\n            return other in (self._held, self._held.decode())",
            ),
        ),
        "empty": (('return held or ValueError("A secret must not be empty.")', "return held"),),
        "frames": (("        del value\n", ""),),
        "decoding error tells": (
            (
                "            pass  # Python's own error carries the value, also as the context of another.\n",
                "            raise\n",
            ),
        ),
        "any type": (('return TypeError("A secret must be text or bytes.")', "held = bytes(value)"),),
    },
    "integrations/runrails_aws/kms.py": {
        "key not named to open": (("KeyId=self._key_arn, CiphertextBlob=wrapped,", "CiphertextBlob=wrapped,"),),
        "context not told to open": (
            ("CiphertextBlob=wrapped, EncryptionContext=context.fields(),", "CiphertextBlob=wrapped,"),
        ),
        "context not told at all": (
            ("CiphertextBlob=wrapped, EncryptionContext=context.fields(),", "CiphertextBlob=wrapped,"),
            ('KeySpec="AES_256", EncryptionContext=context.fields()', 'KeySpec="AES_256"'),
        ),
        "another key answers": (('if answer.get("KeyId") == self._key_arn:', "if True:"),),
        "any key's ARN known": (
            ("return key_id == self._key_arn", "return True"),
            ("if key_id != self._key_arn:", "if False:"),
        ),
        "aliases": (
            ("if found is None:", "if not key_arn:"),
            ("self._region = found[1]", "self._region = 'eu-west-1'"),
        ),
        "boto3's errors get out": (
            ("except Exception as error:  # noqa: BLE001", "except ZeroDivisionError as error:  # noqa: BLE001"),
        ),
    },
}
