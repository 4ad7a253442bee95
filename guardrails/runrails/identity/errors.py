"""
Who may not come in, and who may not do that.

To the outside all refusals of a credential are one and the same: whoever tries keys or tokens must not learn which part
of them was wrong. The operator's log may have the `reason`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runrails.errors import RunrailsError

if TYPE_CHECKING:
    from typing import LiteralString

__all__ = ["AuthBusy", "AuthError", "Forbidden", "Unauthenticated", "UnknownKey"]


class AuthError(RunrailsError):
    """A caller is not let in, or may not do what was asked. Nothing was done."""

    code = "auth_error"
    http_status = 403


class Unauthenticated(AuthError):
    """
    There is no valid credential. The message is the same whatever was wrong with it.

    Args:
        reason: What was wrong, as a short word of ours for the operator's log (`expired`). It is never part of the
            credential, and never in the message, in `as_dict` or in a pickled copy.
    """

    code = "unauthenticated"
    http_status = 401

    def __init__(self, reason: LiteralString = "unspecified") -> None:
        super().__init__(
            "No valid credential was presented.",
            next_step="Send exactly one valid API key or token, as `Authorization: Bearer …` or as `x-api-key: …`.",
        )
        self._reason = reason

    @property
    def reason(self) -> str:
        """What was wrong, for the operator's log only."""
        return getattr(self, "_reason", "unspecified")


class Forbidden(AuthError):
    """
    The caller is known and may not do that.

    Args:
        operation: What was asked for, as `runrails.identity.operations` names it.
        missing: The scope that would be needed; None if it is not a scope that is missing.
        raises: Whether it would allow an organisation more than it has.
    """

    code = "forbidden"
    http_status = 403

    def __init__(self, operation: str, *, missing: str | None = None, raises: bool = False) -> None:
        if raises:
            what = "An administrator of an organisation allows nobody more than the organisation may spend."
            hint = "Ask an operator of the platform to raise its limit."
        elif missing is None:
            what = f"This credential may not do {operation} there."
            hint = "Use one of whom it belongs to, or of an operator."
        else:
            what = f"This credential may not do {operation}: it lacks the scope {missing}."
            hint = f"Use one that has {missing}, or ask an operator for it."
        super().__init__(what, next_step=hint, operation=operation, missing=missing)


class AuthBusy(AuthError):
    """
    The credential could not be checked right now. It is neither accepted nor refused.

    Args:
        reason: What is busy, as a short word of ours for the operator's log; told to nobody else.
    """

    code = "auth_busy"
    http_status = 503

    def __init__(self, reason: LiteralString = "unspecified") -> None:
        super().__init__(
            "Too many credentials are being checked.", next_step="Send the same request again in a few seconds."
        )
        self._reason = reason

    @property
    def reason(self) -> str:
        """What is busy, for the operator's log only."""
        return getattr(self, "_reason", "unspecified")


class UnknownKey(AuthError):
    """There is no API key with that id, which somebody named who may manage keys."""

    code = "unknown_key"
    http_status = 404

    def __init__(self) -> None:
        super().__init__("There is no API key with that id.", next_step="`runrails keys list` shows those there are.")
