"""Every error, as HTTP tells it: status, words and headers."""

from __future__ import annotations

from runrails_gateway.dialects.told import Told

__all__ = ["Told", "tell"]


def tell(
    error: BaseException, *, request_id: str, hide_amounts: bool = False, run_id: str | None = None, zone: str = "UTC"
) -> Told:
    """
    What a caller is told.

    Args:
        error: Whatever was raised. Of what is not ours, nothing is told.
        request_id: Of this request, for the operator's log.
        hide_amounts: Whether budgets' amounts are left out.
        run_id: The run that the request belongs to, if that is known.
        zone: The time zone of the budgets' months.
    """
    raise NotImplementedError
