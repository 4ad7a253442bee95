"""Which tests guard which module, and which of its mutants are none. `test_mutants.py` keeps it complete."""

from __future__ import annotations

__all__ = ["EQUIVALENT", "ROOMS", "TABLE"]

CORE, AWS = "guardrails/runrails", "integrations/runrails_aws"

ROOMS = (
    f"{CORE}/documents/*.py", f"{CORE}/credentials/*.py", f"{CORE}/identity/*.py", f"{CORE}/identity/*/*.py",
    f"{CORE}/secret*.py", f"{CORE}/egress*.py", f"{CORE}/redaction.py", f"{CORE}/keyroutes.py", f"{CORE}/routed.py",
    f"{CORE}/bypass.py", f"{CORE}/clients/keys.py", f"{CORE}/cli/*key*.py", f"{CORE}/cli/byok*.py",
    f"{CORE}/cli/tokens*.py", f"{AWS}/kms.py", f"{AWS}/ssm.py", f"{AWS}/keycheck.py", f"{AWS}/identity/*.py",
    f"{AWS}/dynamodb/documents.py", "integrations/*/keys.py",
)  # fmt: skip
"""Where every module with a check is in the table."""

_DOCUMENTS = (
    "tests/contract/test_documents.py", "tests/faults/test_documents_sqlite.py", "tests/unit/test_vault_limits.py",
    "tests/unit/test_sqlite_sweeping.py",
)  # fmt: skip
_VAULT = (
    "tests/unit/test_vault.py", "tests/unit/test_envelope.py", "tests/unit/test_key_ring.py",
    "tests/attacks/test_vault_attacks.py", "tests/unit/test_wycheproof_vault.py", "tests/unit/test_vault_limits.py",
    "tests/unit/test_vault_attacked.py",
)  # fmt: skip
_CHECKS = (
    "tests/unit/test_keychecks.py", "tests/unit/test_keychecks_aws.py", "tests/unit/test_cli_byok_validate.py",
    "tests/integrations/test_keys_routed.py", "tests/integrations/test_keys_attacked.py",
    "tests/unit/test_key_choice_limits.py",
    "tests/unit/test_vault_attacked.py", "tests/integrations/test_keys_attacked.py",
)  # fmt: skip
_KEYS = (
    "tests/unit/test_api_key_format.py", "tests/unit/test_api_keys.py", "tests/unit/test_api_keys_known.py",
    "tests/unit/test_api_keys_managing.py", "tests/unit/test_api_keys_legacy.py", "tests/unit/test_cli_keys.py",
    "tests/attacks/test_keys_attacks.py", "tests/attacks/test_identity_attacked.py",
    "tests/unit/test_identity_limits.py", "tests/unit/test_identity_doors.py",
)  # fmt: skip
_DOORS = (
    "tests/unit/test_identity.py", "tests/unit/test_identity_doors.py", "tests/attacks/test_keys_attacks.py",
    "tests/attacks/test_identity_attacked.py",
)  # fmt: skip
_JWT = (
    "tests/unit/test_jwt_tokens.py", "tests/unit/test_jwt_remote.py", "tests/unit/test_cli_tokens.py",
    "tests/attacks/test_jwt_attacks.py", "tests/attacks/test_jwt_wycheproof.py", "tests/unit/test_identity_limits.py",
    "tests/unit/test_identity_doors.py", "tests/attacks/test_identity_attacked.py",
)  # fmt: skip
_STS = (
    "tests/unit/test_aws_identity.py", "tests/attacks/test_aws_attacks.py", "tests/faults/test_aws_sts_faults.py",
    "tests/integrations/test_aws_limits.py",
)  # fmt: skip
_EGRESS = (
    "tests/integrations/test_egress.py", "tests/attacks/test_egress_attacks.py", "tests/unit/test_egress_attacked.py",
    "tests/integrations/test_egress_limits.py",
)  # fmt: skip
_SECRETS = (
    "tests/unit/test_secretvalue.py", "tests/unit/test_secretrefs.py", "tests/unit/test_secret_limits.py",
    "tests/unit/test_cli_tokens.py",
)  # fmt: skip
_ROUTES = (
    "tests/integrations/test_keys_routed.py", "tests/integrations/test_keys_langchain.py",
    "tests/integrations/test_keys_attacked.py", "tests/unit/test_key_choice_limits.py",
    "tests/integrations/test_keys_langchain_attacked.py",
)  # fmt: skip
_REDACTION = (
    "tests/unit/test_redaction.py", "tests/unit/test_redaction_limits.py", "tests/unit/test_redaction_attacked.py",
)  # fmt: skip
_CLI = (
    "tests/unit/test_cli_byok.py", "tests/unit/test_cli_byok_validate.py", "tests/unit/test_cli_byok_attacked.py",
    "tests/unit/test_cli_key_limits.py",
)  # fmt: skip

_BYPASS = (
    "tests/faults/test_bypass.py", "tests/faults/test_bypass_attacked.py", "tests/faults/test_bypass_limits.py",
)  # fmt: skip


def _of(package: str, names: str, *tests: str) -> dict[str, tuple[str, ...]]:
    return {f"{package}/{name}.py": tests for name in names.split()}


TABLE: dict[str, tuple[str, ...]] = {
    **_of(f"{CORE}/documents", "__init__ memory sqlite", *_DOCUMENTS),
    **_of(f"{CORE}/documents", "opening", *_DOCUMENTS, *_CLI, "tests/unit/test_cli_keys.py"),
    **_of(f"{CORE}/credentials", "cache envelope errors primitives records ring vault wrapping", *_VAULT, *_DOCUMENTS),
    **_of(f"{CORE}/credentials", "opening", *_VAULT, *_CLI, "tests/integrations/test_aws_kms.py"),
    **_of(f"{CORE}/credentials", "revalidation validation router", *_CHECKS),
    **_of(f"{CORE}/identity", "authenticate principal", *_DOORS, *_KEYS),
    **_of(f"{CORE}/identity", "operations", *_DOORS, *_KEYS, "tests/gateway/test_gw_org_budgets.py"),
    **_of(
        f"{CORE}/identity/apikeys", "format hashing keys known legacy making managing opening records used desk", *_KEYS
    ),
    **_of(f"{CORE}/identity/jwt", "jwk keyset opening remote revocation strict tokens", *_JWT),
    **_of(f"{CORE}/identity", "startup", "tests/unit/test_secret_checks.py"),
    **_of(f"{CORE}/identity", "opening", "tests/unit/test_aws_opening.py", "tests/gateway/test_gw_aws_callers.py"),
    **_of(CORE, "secretvalue secretrefs secretrules", *_SECRETS),
    **_of(CORE, "egress egress_rules", *_EGRESS),
    **_of(CORE, "redaction", *_REDACTION),
    **_of(CORE, "keyroutes routed clients/keys", *_ROUTES),
    **_of(CORE, "bypass", *_BYPASS),
    **_of(f"{CORE}/cli", "byok", *_CLI),
    **_of(f"{CORE}/cli", "keychecks", *_CHECKS, *_CLI),
    **_of(f"{CORE}/cli", "keys", "tests/unit/test_cli_keys.py", "tests/unit/test_cli_adopt.py", _CLI[-1]),
    **_of(f"{CORE}/cli", "tokens", "tests/unit/test_cli_tokens.py", "tests/unit/test_cli_key_limits.py"),
    **_of(AWS, "kms", "tests/integrations/test_aws_kms.py", "tests/integrations/test_aws_limits.py"),
    **_of(AWS, "ssm", "tests/integrations/test_aws_ssm.py", "tests/integrations/test_aws_limits.py"),
    **_of(AWS, "keycheck", "tests/unit/test_keychecks_aws.py"),
    **_of(f"{AWS}/identity", "answer arns canonical exchange grants lambda_event proof", *_STS),
    **_of(f"{AWS}/identity", "roster sign transport verify", *_STS),
    **_of(f"{AWS}/identity", "opening", "tests/unit/test_aws_opening.py", "tests/gateway/test_gw_aws_callers.py"),
    **_of(
        AWS, "dynamodb/documents", "tests/dynamodb/test_ddb_documents.py", "tests/contract/test_documents.py", _STS[-1]
    ),
    "integrations/runrails_langchain/keys.py": (
        "tests/integrations/test_keys_langchain.py",
        "tests/integrations/test_keys_langchain_attacked.py",
        "tests/unit/test_key_choice_limits.py",
    ),
}
"""A module, and the tests of which one must fail when one of its checks is taken out."""

_TYPES = "Only type checkers need it: "
EQUIVALENT: dict[str, dict[str, str]] = {
    f"{AWS}/dynamodb/documents.py": {
        "DynamoDBDocuments._put_new: and there is not None": f"{_TYPES}`_live` says no of nothing.",
        "DynamoDBDocuments._put_new: failed is None ? None": f"{_TYPES}what has not failed is done.",
    },
    f"{CORE}/bypass.py": {
        "Bypass._left_behind: or self._books is None": "Without books the directory is empty text, which is none.",
        "Bypass.written: if not self._open": "A shortcut without the lock: what follows says the same of an empty set.",
        "_lock_on_windows: except OSError": "There is no Windows here to play it on.",
    },
    f"{CORE}/clients/keys.py": {
        "Chosen.end: and isinstance(dialect, SupportsKeys)": f"{_TYPES}without it no request was noted.",
    },
    f"{CORE}/credentials/envelope.py": {
        "_prefixed: < for <= in end <= len(blob)": "What ends where all does leaves none of the rest: malformed.",
    },
    f"{CORE}/credentials/router.py": {
        "Router._of: or known.secret is None": f"{_TYPES}a key that is usable has been opened.",
    },
    f"{CORE}/keyroutes.py": {
        "_is_home: base_url is None ? None": f"{_TYPES}no text is no address either.",
        "is_place: and place.base_url is None": f"{_TYPES}with a place of its own no text is nobody's home.",
        "is_place: or base_url is None": f"{_TYPES}no text is no address either.",
    },
    f"{CORE}/routed.py": {
        "_Routing.admit: or router is None": f"{_TYPES}only guards that choose keys have such a meter.",
    },
    f"{CORE}/egress_rules.py": {
        "_overlap: and isinstance(other, IPv4Network)": f"{_TYPES}networks of two kinds never overlap.",
        "_overlap: and isinstance(other, IPv6Network)": f"{_TYPES}networks of two kinds never overlap.",
    },
    f"{CORE}/identity/authenticate.py": {
        "_form_of: and type(name) is bytes": "It only saves time: a text in small letters is none of the names either.",
        "_form_of: if type(name) is bytes and name.islower()": "It only saves time: what follows finds the same.",
    },
    f"{CORE}/identity/apikeys/keys.py": {
        "ApiKeys._prove: or document is None": f"{_TYPES}without a record nobody has its key, so there is no place.",
        "ApiKeys._prove: or record is None": f"{_TYPES}without a record nobody has its key, so there is no place.",
        "ApiKeys.recall: or principal.key_id is None": f"{_TYPES}whom a key proved has a key.",
    },
    f"{CORE}/identity/apikeys/desk.py": {
        "_authorise_within: principal.org is None ? None": "Who is of no organisation reaches all, whoever is named.",
    },
    f"{CORE}/identity/apikeys/legacy.py": {
        "BcryptPool.proves: and kept is not None #2": f"{_TYPES}`known` says so already.",
    },
    f"{CORE}/identity/jwt/jwk.py": {
        "read_jwks: and _is_object(each)": f"{_TYPES}`_check_public` has refused every other one.",
    },
    f"{CORE}/identity/jwt/keyset.py": {
        "KeySet.__init__: signing is None ? None": f"{_TYPES}no key is called None.",
    },
    f"{CORE}/identity/jwt/remote.py": {
        "RemoteKeys.find: and self._may_try()": "`_refresh` asks it again; here it only saves a wait.",
    },
}
"""A module's mutants that nobody could tell from it, and why."""
