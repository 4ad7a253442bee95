"""
Public incidents, replayed small: `runrails demo --incident NAME`.

Every incident is a script and a few facts in a module of its own. Importing this package loads no framework;
`play_incident` does. A new incident is one module and one line here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runrails.demo.incidents.fanout import FAN_OUT
from runrails.demo.incidents.hermes import HERMES
from runrails.demo.incidents.kilo import KILO
from runrails.demo.incidents.recursion import RECURSION
from runrails.demo.incidents.values import Growth, Incident, IncidentPass, IncidentPlay, Source

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "INCIDENTS",
    "Growth",
    "Incident",
    "IncidentPass",
    "IncidentPlay",
    "Source",
    "incident_named",
    "play_incident",
]

INCIDENTS: Mapping[str, Incident] = {each.name: each for each in (KILO, HERMES, RECURSION, FAN_OUT)}
"""By the name that the command line takes."""


def incident_named(name: str) -> Incident:
    """
    The incident of that name.

    Raises:
        ConfigError: There is none; the message lists those there are.
    """
    from runrails.errors import ConfigError

    found = INCIDENTS.get(name)
    if found is None:
        raise ConfigError(
            f"There is no incident named {name!r}.",
            next_step=f"These can be played: {', '.join(INCIDENTS)}.",
            incident=name,
        )
    return found


def play_incident(incident: Incident) -> IncidentPlay:
    """
    Play an incident twice, as the defaults allow it and with a guard. Takes seconds; nothing leaves 127.0.0.1.

    Raises:
        ConfigError: A package is missing; the message names the command that installs it.
    """
    from runrails.demo import require_packages

    require_packages()
    from runrails.demo.incidents.playing import play_twice

    return play_twice(incident)
