"""What a program's processes are told through their environment, so that they all belong to one run."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from runrails.autoguard.folder import new_path
from runrails.autoguard.plan import read_plan
from runrails.autoguard.session import ENTRY_POINTS, RUN_ID, STARTED, make_guard
from runrails.autoguard.variables import AUTOGUARD, OFF, ON, SESSION
from runrails.clocks import system_ms
from runrails.errors import ConfigError
from runrails.ids import run_id
from runrails.stores import absolute_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runrails.autoguard.plan import Plan

__all__ = ["check", "inherited", "modules_of"]

PROJECT_FILE = "runrails.toml"


def inherited(environment: Mapping[str, str]) -> dict[str, str]:
    """
    The variables to add for a run that begins here; its processes may change their directory.

    Needs nothing but Python's own library: when it starts, others may not be on its path yet.

    Raises:
        ConfigError: Something that the environment says is wrong.
    """
    switch = environment.get(AUTOGUARD, "").strip().lower()
    if switch and switch not in ON | OFF:
        raise ConfigError(f"{AUTOGUARD} must be 1 or 0.", next_step=f"Write {AUTOGUARD}=1, or leave it out.")
    plan = read_plan(environment)
    told = {
        AUTOGUARD: ",".join(_known_modules()),
        SESSION: new_path(),
        RUN_ID: plan.run_id or run_id(plan.user),
        STARTED: str(system_ms()),
    }
    if plan.store is not None:
        told["RUNRAILS_STORE"] = absolute_url(plan.store)
    prices = plan.price_file or (PROJECT_FILE if os.path.isfile(PROJECT_FILE) else None)  # noqa: PTH113 -- pathlib costs 3 ms
    if prices is not None:
        told["RUNRAILS_PRICES"] = os.path.abspath(prices)  # noqa: PTH100 -- see above
    return told


def check(plan: Plan, environment: Mapping[str, str]) -> None:
    """
    See that the guard can be made that every process of the program will make: its settings, prices and ledger.

    Raises:
        ConfigError: It cannot.
        StoreUnavailable: The ledger is out of reach.
    """
    make_guard(replace(plan, store=environment.get("RUNRAILS_STORE"))).close()


def modules_of(environment: Mapping[str, str]) -> list[str]:
    """The modules to watch for: those an adapter can guard where the run was started."""
    told = environment.get(AUTOGUARD, "").strip()
    # A process of the run may have been told once more that it is to be guarded, as by a `.env` file.
    return _known_modules() if told.lower() in ON else [name for name in told.split(",") if name]


def _known_modules() -> list[str]:
    from importlib.metadata import entry_points

    names = sorted({entry.name for entry in entry_points(group=ENTRY_POINTS)})
    if not names:
        raise ConfigError(
            "This installation of runrails has no adapters that guard a program as it is.",
            next_step="Install the distribution again: pip install --force-reinstall runrails",
        )
    return names
