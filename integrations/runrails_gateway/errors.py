"""
What the gateway itself refuses, and what its upstreams failed at. What the core raises is told by `dialects.telling`.

No part of a request is ever in one of these: what a caller sent may be somebody else's secret.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from runrails.errors import RunrailsError

if TYPE_CHECKING:
    from typing import LiteralString

__all__ = ["BadRequest", "Failure", "ModelNotFound", "NotServed", "TooLarge", "TooSlow", "UpstreamError"]

Failure: TypeAlias = Literal["unreachable", "timed_out", "failed", "limited", "key_refused", "garbled", "resting"]
"""
How an upstream failed: `unreachable`, no connection; `timed_out`; `failed`, it answered that it did; `limited`, it
answered that it was asked too often; `key_refused`, it would not take the platform's key; `garbled`, its answer cannot
be read; `resting`, it failed so often that it is not asked for a while.
"""


class BadRequest(RunrailsError):
    """
    A request that cannot be served as it is. It was not sent on, and costs nothing.

    Args:
        reason: What is wrong, as a word of ours: the `code` of the answer.
        what: The same as a sentence.
        next_step: What to send instead.
        param: The member of the request it is about, as `messages` or `tools`; a name of ours, not of the request.
    """

    code = "bad_request"
    http_status = 400

    def __init__(
        self,
        reason: LiteralString,
        what: LiteralString,
        *,
        next_step: LiteralString = "Correct the request.",
        param: LiteralString | None = None,
    ) -> None:
        super().__init__(what, next_step=next_step, reason=reason, param=param)

    @property
    def reason(self) -> str:
        """What is wrong, as a word of ours."""
        return str(self.fields["reason"])

    @property
    def param(self) -> str | None:
        """The member of the request it is about."""
        param = self.fields.get("param")
        return param if isinstance(param, str) else None


class TooLarge(BadRequest):
    """The request's body is larger than the gateway takes. It was not read to its end."""

    code = "too_large"
    http_status = 413

    def __init__(self, bytes_max: int) -> None:
        RunrailsError.__init__(
            self, f"The request's body is larger than {bytes_max:,} bytes.", next_step="Send a smaller one.",
            reason="request_too_large", param=None, bytes_max=bytes_max,
        )  # fmt: skip


class TooSlow(BadRequest):
    """The request did not come in time."""

    code = "too_slow"
    http_status = 408

    def __init__(self) -> None:
        super().__init__("request_timeout", "The request did not come in time.", next_step="Send it again.")


class NotServed(BadRequest):
    """Nothing is served there; with other methods, something may be."""

    code = "not_served"
    http_status = 404

    def __init__(self, *, methods: str = "") -> None:
        if methods:
            super().__init__("method_not_allowed", "This address does not take that method.", next_step="Use another.")
            self.fields["allow"] = methods
        else:
            super().__init__(
                "unknown_url", "Nothing is served at this address.",
                next_step="Set the client's base URL to the gateway's address and /v1, or without /v1 for Anthropic's.",
            )  # fmt: skip


class ModelNotFound(BadRequest):
    """No upstream of this gateway serves the model, or not in this dialect."""

    code = "model_not_found"
    http_status = 404

    def __init__(self) -> None:
        super().__init__(
            "model_not_found", "No upstream of this gateway serves that model.", param="model",
            next_step="GET /v1/models lists those there are.",
        )  # fmt: skip


class UpstreamError(RunrailsError):
    """
    A provider gave no answer that could be passed on. What it said itself is never part of this.

    Args:
        failure: How it failed.
        status: The status it answered with, if it did.
        attempts: How often it was asked.
        retry_after_ms: When to come again, if that is known.
    """

    code = "upstream_error"
    http_status = 502

    def __init__(
        self, failure: Failure, *, status: int | None = None, attempts: int = 1, retry_after_ms: int | None = None
    ) -> None:
        what, next_step = _FAILURES[failure]
        super().__init__(
            what, next_step=next_step, failure=failure, upstream_status=status, attempts=attempts,
            retry_after_ms=retry_after_ms,
        )  # fmt: skip

    @property
    def failure(self) -> str:
        """How it failed."""
        return str(self.fields["failure"])

    @property
    def status(self) -> int | None:
        """The status it answered with."""
        return self._number("upstream_status")

    @property
    def attempts(self) -> int:
        """How often it was asked."""
        return self._number("attempts") or 0

    @property
    def retry_after_ms(self) -> int | None:
        """When to come again."""
        return self._number("retry_after_ms")

    def _number(self, name: str) -> int | None:
        value = self.fields.get(name)
        return value if isinstance(value, int) else None


_FAILURES: dict[Failure, tuple[str, str]] = {
    "unreachable": ("The provider could not be reached.", "Try again later."),
    "timed_out": ("The provider did not answer in time.", "Try again, with a smaller request if it was a large one."),
    "failed": ("The provider failed.", "Try again later."),
    "limited": ("The provider is asked too often at the moment.", "Try again a little later."),
    "key_refused": ("The provider refused the platform's key.", "Ask the operator of this gateway to replace it."),
    "garbled": ("The provider's answer could not be read.", "Try again later."),
    "resting": ("The provider has failed so often that it is not asked for a moment.", "Try again later."),
}
