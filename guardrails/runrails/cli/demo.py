"""`runrails demo`: the founding incident, played and stopped."""

from __future__ import annotations

import warnings
from typing import Annotated

import typer

from runrails.cli.output import AsJson, print_json, stderr, stdout
from runrails.cli.shell import NEGATIVE

__all__ = ["demo"]

RETRIES_MAX = 4_900
"""The agent framework's own default limit, 9,999 supersteps at two a retry, ends the unguarded pass near 5,000."""


def demo(
    retries: Annotated[
        int, typer.Option("--retries", min=1, max=RETRIES_MAX, help="Retries before the scripted morning comes.")
    ] = 891,
    incident: Annotated[
        str | None,
        typer.Option("--incident", metavar="NAME", help="Play another public incident instead; `list` shows them."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """
    Play the founding incident with a real agent: 891 retries without a guard, then with one callback.

    A LangGraph agent over the openai SDK analyses customer reviews against a fake provider on 127.0.0.1. No API key is
    needed and nothing leaves this machine. Exits with 1 if the guard's books and the provider's bill disagree.
    """
    if incident is not None:
        warnings.filterwarnings("ignore")  # as below
        _another(incident, as_json=as_json)
        return
    from runrails.demo import play
    from runrails.demo.screen import LiveScreen, PlainScreen, SilentScreen, show_result

    warnings.filterwarnings("ignore")  # frameworks' deprecation notes are no part of the show
    progress = stderr() if as_json else stdout()
    if progress.is_terminal:
        screen: SilentScreen = LiveScreen(progress, retries=retries)
    else:
        screen = SilentScreen() if as_json else PlainScreen(progress)
    with screen:
        result = play(retries=retries, watcher=screen)
    if as_json:
        print_json(result.as_dict())
    else:
        show_result(stdout(), result)
    if not result.ledger_equals_bill:
        raise typer.Exit(NEGATIVE)


def _another(name: str, *, as_json: bool) -> None:
    """Another incident than the founding one, or the list of them."""
    from runrails.demo.incidents import INCIDENTS, incident_named, play_incident
    from runrails.demo.incidents.screen import show_incident, show_incidents

    if name == "list":
        if as_json:
            print_json([each.as_dict() for each in INCIDENTS.values()])
        else:
            show_incidents(stdout(), INCIDENTS.values())
        return
    incident = incident_named(name)
    progress = stderr()
    if progress.is_terminal:
        with progress.status(f"Playing {incident.name}: without a guard, then with one"):
            played = play_incident(incident)
    else:
        played = play_incident(incident)
    if as_json:
        print_json(played.as_dict())
    else:
        show_incident(stdout(), played)
    if not played.ledger_equals_bill:
        raise typer.Exit(NEGATIVE)
