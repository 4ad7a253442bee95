"""
How a stop leaves code we do not own.

Retry layers, fallbacks and a user's ``except Exception`` swallow exceptions. Inside ``with guard.run():`` an adapter
therefore raises a private BaseException, which nothing of theirs catches, and the ``with`` turns it into the public
`GuardrailStopped` again. Outside such a boundary only public exceptions are ever raised.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from runrails.errors import GuardrailStopped

__all__ = ["Trip", "find_trip", "raise_stop"]


class Trip(BaseException):
    """Carries a stop to the boundary. Adapters raise it only while `run.owned` is true."""

    def __init__(self, stop: GuardrailStopped) -> None:
        super().__init__(str(stop))
        self.stop = stop

    def __reduce__(self) -> tuple[type[Trip], tuple[GuardrailStopped]]:
        """Worker processes hand it over with its stop."""
        return Trip, (self.stop,)


def find_trip(error: BaseException | None) -> Trip | None:
    """The trip in an exception, looking into exception groups (task groups wrap what their tasks raise)."""
    if isinstance(error, Trip):
        return error
    if isinstance(error, BaseExceptionGroup):
        # isinstance leaves open what the group holds; every group holds exceptions.
        for inner in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            found = find_trip(inner)
            if found is not None:
                return found
    return None


def raise_stop(error: BaseException | None, answered: GuardrailStopped | None = None) -> None:
    """
    Raise the public stop if `error` carries a trip; what else a group of exceptions held stays its cause.

    Without an error, `answered` is raised: a stop that somebody has answered in a tool's place, and nobody has raised.
    """
    if error is None and answered is not None:
        raise answered.again()
    trip = find_trip(error)
    if trip is None:
        return
    others = None
    if isinstance(error, BaseExceptionGroup):
        others = cast("BaseExceptionGroup[BaseException]", error).split(Trip)[1]
    raise trip.stop.again() from others
