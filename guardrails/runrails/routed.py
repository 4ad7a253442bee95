"""Meters of guards that choose the key of every call: whose key pays is decided before the money is held."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runrails.calls import ModelCall, Permit
from runrails.meter import Meter
from runrails.pacing import PacedMeter
from runrails.values import changing

if TYPE_CHECKING:
    from runrails.ledger import Refused

__all__ = ["RoutedMeter", "RoutedPacedMeter"]

_on_key, _on_route = changing(ModelCall, "by", "credential"), changing(Permit, "route")


class _Routing(Meter):
    def admit(self, call: ModelCall, step: int) -> tuple[Permit, Refused | None]:
        """
        See `Meter.admit`. The permit says which key the call goes out on.

        Raises:
            CredentialError: There is none that it may go out on.
        """
        router = self._guard.credentials
        if router is None or (call.economy is not None and call.economy.stored):
            return super().admit(call, step)
        route = router.route(call, self._accounts.payer(call))
        permit, refused = super().admit(_on_key(call, route.of(call.by), route.name), step)
        return _on_route(permit, route), refused

    def covers(self, permit: Permit, call: ModelCall) -> bool:
        """See `Meter.covers`; the permit's key stays, where it belongs."""
        route = permit.route
        if call.place != permit.call.place:
            return False  # Another client will send it, into whose requests this key may not be put.
        if route is not None:
            call = _on_key(call, route.of(call.by), route.name)
        return super().covers(permit, call)


class RoutedMeter(_Routing):
    """A meter that chooses keys."""


class RoutedPacedMeter(_Routing, PacedMeter):
    """One that takes calls from rates as well."""
