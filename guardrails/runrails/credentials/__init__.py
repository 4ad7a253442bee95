"""
Users' own provider keys (bring your own key): sealed where they are kept, opened where a call needs one.

`Vault` keeps them through a `DocumentStore`; `KeyRing` has master keys on this machine, `runrails_aws.kms` in AWS KMS.
A record is one envelope: AES-256-GCM with a data key of its own, bound to owner, provider, label, version and purpose.
"""

from __future__ import annotations

from runrails.credentials.errors import (
    CredentialChanged,
    CredentialExists,
    CredentialNotFound,
    CredentialSuspended,
    CredentialUnreadable,
)
from runrails.credentials.records import Credential, CredentialId, CredentialInfo
from runrails.credentials.ring import KeyRing
from runrails.credentials.vault import Vault
from runrails.credentials.wrapping import Context, DataKey, KeyWrapper

__all__ = [
    "Context",
    "Credential",
    "CredentialChanged",
    "CredentialExists",
    "CredentialId",
    "CredentialInfo",
    "CredentialNotFound",
    "CredentialSuspended",
    "CredentialUnreadable",
    "DataKey",
    "KeyRing",
    "KeyWrapper",
    "Vault",
]
