"""
What goes wrong with stored provider keys.

Whoever makes a call learns that its key cannot be read and nothing else. Why is in `CredentialUnreadable.reason`, which
is in no message and in no `as_dict`; `advice` says to the operator what mends it.
"""

from __future__ import annotations

from typing import Any, Literal, Self, TypeAlias

from runrails.errors import CredentialError, FieldValue

__all__ = [
    "CredentialChanged",
    "CredentialExists",
    "CredentialNotFound",
    "CredentialSuspended",
    "CredentialUnreadable",
    "Reason",
    "advice",
]

Reason: TypeAlias = Literal[
    "malformed", "unknown_key", "wrong_key", "altered", "kms_denied", "kms_disabled", "kms_unreachable", "kms_unusable",
    "wrapper_failed",
]  # fmt: skip

_ADVICE: dict[Reason, str] = {
    "malformed": "The record is damaged. Restore it from a backup, or remove the key and add it again.",
    "unknown_key": (
        "It is sealed with a master key that RUNRAILS_MASTER_KEYS does not name here. Give every process both keys "
        "before one of them makes the new one the first."
    ),
    "wrong_key": (
        "The master key of that name is not the one it was sealed with, or the record was moved here from elsewhere. "
        "Check what RUNRAILS_MASTER_KEYS refers to."
    ),
    "altered": "The record was changed or moved after it was sealed. Find out by whom, then remove the key and add it.",
    "kms_denied": "AWS KMS does not let these credentials use the key: allow kms:GenerateDataKey and kms:Decrypt.",
    "kms_disabled": "The key in AWS KMS is disabled, pending deletion or gone. Enable it, or restore it.",
    "kms_unreachable": "AWS KMS did not answer. Check the network, the region and the endpoint; then try again.",
    "kms_unusable": "AWS KMS refused the request. Check the key's ARN, its region and that it is symmetric.",
    "wrapper_failed": "What wraps data keys failed in a way of its own. Check its configuration.",
}


class CredentialUnreadable(CredentialError):
    """A stored key cannot be opened, or a new one cannot be sealed. It is the same outwardly whatever the reason."""

    code = "credential_unreadable"
    http_status = 503

    reason: Reason
    """For the operator alone."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(
            "The provider key cannot be used at the moment.",
            next_step="Ask the operator, whom `runrails byok list --open` tells why.",
        )
        self.reason = reason

    def again(self) -> Self:
        """A fresh copy to raise."""
        error = super().again()
        error.reason = self.reason
        return error

    def __reduce__(self) -> tuple[Any, ...]:
        """It crosses process borders with its reason."""
        return CredentialUnreadable, (self.reason,)


class CredentialNotFound(CredentialError):
    """There is no such key."""

    code = "credential_not_found"
    http_status = 404

    def __init__(self, *, owner: str, provider: str, label: str) -> None:
        super().__init__(
            f"{owner} has no {provider} key called {label}.",
            next_step=f"Add it: runrails byok add {provider} --owner {owner}{_label(label)}",
            **_named(owner, provider, label),
        )


class CredentialExists(CredentialError):
    """There is such a key already. Nothing was changed."""

    code = "credential_exists"
    http_status = 409

    def __init__(self, *, owner: str, provider: str, label: str) -> None:
        super().__init__(
            f"{owner} has a {provider} key called {label} already; nothing was changed.",
            next_step=f"Replace it: runrails byok rotate {provider} --owner {owner}{_label(label)}. "
            "Or add this one with another --label.",
            **_named(owner, provider, label),
        )


class CredentialChanged(CredentialError):
    """Somebody else changed it at the same moment. Nothing was written."""

    code = "credential_changed"
    http_status = 409

    def __init__(self, *, owner: str, provider: str, label: str) -> None:
        super().__init__(
            f"Somebody else changed the {provider} key {label} of {owner} at the same moment; nothing was written.",
            next_step="Look at it (runrails byok list), and try again if it is not as it should be.",
            **_named(owner, provider, label),
        )


class CredentialSuspended(CredentialError):
    """An operator has suspended it."""

    code = "credential_suspended"

    def __init__(self, *, owner: str, provider: str, label: str) -> None:
        super().__init__(
            f"The {provider} key {label} of {owner} is suspended.",
            next_step="Ask the operator who suspended it.",
            **_named(owner, provider, label),
        )


def advice(reason: Reason) -> str:
    """What an operator can do about a key that cannot be opened."""
    return _ADVICE[reason]


def _named(owner: str, provider: str, label: str) -> dict[str, FieldValue]:
    return {"owner": owner, "provider": provider, "label": label}


def _label(label: str) -> str:
    return "" if label == "default" else f" --label {label}"
