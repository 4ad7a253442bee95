"""What `runrails doctor` looks at. Each check ends in findings and never raises; none writes to the ledger."""

from __future__ import annotations

import os
import re
import sqlite3
import sys
from contextlib import closing
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

from runrails.autoguard.session import STARTED
from runrails.autoguard.variables import ELSEWHERE, GATEWAYS, KNOWN, SESSION, is_wanted
from runrails.cli.finding import Finding, FindingState
from runrails.cli.output import when
from runrails.cli.surroundings import check_extras, check_halves, check_project
from runrails.clocks import system_ms
from runrails.deliveries import Delivery, SupportsDeliveries
from runrails.errors import RunrailsError
from runrails.ledger import Account
from runrails.money import format_usd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = [
    "Examinable",
    "Finding",
    "check_adapters",
    "check_all",
    "check_bypassed",
    "check_clock",
    "check_packages",
    "check_prices",
    "check_settings",
    "check_store",
]

PRICES_OLD_DAYS = 90
"""Vendors change prices every few weeks; a quarter is when a table begins to mislead."""
CLOCK_FLOOR_MS = 1_767_225_600_000
"""2026-01-01: no right clock is earlier than the year this was written in."""
CLOCK_AHEAD_MAX_MS = 300_000
"""A record this far in the future means that a clock went backwards."""
FAILURE_OLD_MS = 7 * 86_400_000
"""A sender that has not been tried for so long has probably been replaced."""
BUSY_S = 2.0
_OVERDUE = "SELECT count(*), coalesce(sum(estimated_pusd), 0) FROM reservation WHERE state = 'held' AND expires_ms <= ?"
BOUNDARIES = "runrails.boundaries"
_FRAMEWORKS = ("langchain-core", "langchain", "langgraph", "openai", "anthropic", "boto3")


@runtime_checkable
class Examinable(Protocol):
    """A store that knows more of its own health than whether it answers."""

    def examine(self) -> Iterable[tuple[str, str, str, str]]:
        """Fields of a `Finding`, one after the other. Writes nothing."""
        ...


def check_all(store: str | None) -> list[Finding]:
    """Everything, in the order in which one thing builds on another."""
    findings: list[Finding] = []
    checks: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
        ("packages", check_packages),
        ("packages", check_extras),
        ("settings", check_settings),
        ("settings", lambda: check_halves(os.environ)),
        ("project file", check_project),
        ("secrets", _check_secrets),
        ("store", lambda: check_store(store, now_ms=system_ms())),
        ("bypassed calls", check_bypassed),
        ("prices", lambda: check_prices(now_ms=system_ms())),
        ("adapters", lambda: check_adapters(entry_points(group=BOUNDARIES))),
        ("clock", lambda: check_clock(now_ms=system_ms())),
    )
    for name, check in checks:
        try:
            findings.extend(check())
        except RunrailsError as error:
            findings.append(Finding(name, "problem", error.what, error.next_step))
        except Exception as error:  # noqa: BLE001 -- a doctor that dies tells nothing about the other checks
            findings.append(
                Finding(name, "problem", f"The check itself failed: {type(error).__name__}.", "Please report it.")
            )
    return findings


def check_packages() -> Iterator[Finding]:
    """Python's version, and every package the distribution asks for."""
    shown = ".".join(map(str, sys.version_info[:3]))
    yield Finding("python", "ok", f"{shown} ({sys.executable})")
    try:
        own = version("runrails")
    except PackageNotFoundError:
        yield Finding(
            "runrails", "note", "Running from a source tree.", "Install it so that adapters attach: pip install -e ."
        )
        return
    yield Finding("runrails", "ok", own)
    needed = {name: _version(name) for name in _needed(requires("runrails") or [])}
    missing = [name for name, installed in needed.items() if installed is None]
    if missing:
        yield Finding("packages", "problem", f"Missing: {', '.join(missing)}.", f"pip install {' '.join(missing)}")
    else:
        yield Finding("packages", "ok", ", ".join(f"{name} {installed}" for name, installed in needed.items()))
    found = [f"{name} {installed}" for name in _FRAMEWORKS if (installed := _version(name)) is not None]
    yield Finding("frameworks", "ok", ", ".join(found) or "none installed (extras: langchain, openai, anthropic, aws)")


def check_settings() -> Iterator[Finding]:
    """The environment variables, and the project's price file if there is one."""
    from runrails import settings
    from runrails.ids import check_id
    from runrails.pricing.project import read_project

    known = KNOWN | ELSEWHERE | {SESSION, STARTED}
    user = settings.user()
    try:
        check_id(user, what="RUNRAILS_USER")
        yield Finding("user", "ok", f"user:{user}")
    except ValueError as error:
        yield Finding("user", "problem", str(error), "Set RUNRAILS_USER to a name of that form, or unset it.")
    unknown = sorted(
        name for name in os.environ
        if name.startswith("RUNRAILS_") and not name.startswith(GATEWAYS) and name not in known
    )  # fmt: skip
    if unknown:
        fix = "`runrails run --help` lists those there are; unset the others or mend their spelling."
        yield Finding("settings", "note", f"Not known, and so without effect: {', '.join(unknown)}.", fix)
    yield from _check_autoguard()
    file = settings.price_file()
    if file is None:
        yield Finding("price file", "ok", "none: only the built-in price table is used")
    else:
        project = read_project(file)
        yield Finding("price file", "ok", f"{file}: {len(project.prices)} prices, {len(project.aliases)} aliases")


def _check_secrets() -> Iterator[Finding]:
    from runrails.cli.secretchecks import check_secrets

    return check_secrets()


def _check_autoguard() -> Iterator[Finding]:
    """Whether the environment has programs guarded, and whether that takes effect: this Python is one of them."""
    if not is_wanted(os.environ):
        yield Finding("autoguard", "ok", "off: the environment names no budget; `runrails run` guards a program")
        return
    from runrails.autoguard import boot
    from runrails.autoguard.plan import read_plan

    limits = read_plan(os.environ).limits
    named = {
        "a run": limits.run,
        "the user's month": limits.month,
        "the key's": limits.key_month,
        "the organisation's": limits.org_month,
    }
    shown = ", ".join(f"${amount} for {what}" for what, amount in named.items() if amount is not None)
    if boot.session is not None:
        yield Finding("autoguard", "ok", f"on in every Python that uses this installation: {shown or 'no budget'}")
    else:
        fix = "Start programs with `runrails run -- …`, or install the distribution instead of its source tree."
        yield Finding("autoguard", "note", f"Asked for ({shown}), but this Python did not load it at its start.", fix)


def check_store(url: str | None, *, now_ms: int) -> Iterator[Finding]:
    """The ledger can be opened, is of this version's schema, can be written, and is unharmed."""
    from runrails.stores import open_store

    store = open_store(url)
    try:
        # Reading an account that was never used asks every engine for an answer and changes nothing.
        store.balance(Account("user:doctor", "-"))
        path: object = getattr(store, "path", None)
        deliveries = list(store.deliveries()) if isinstance(store, SupportsDeliveries) else []
        examined = list(store.examine()) if isinstance(store, Examinable) else []
    finally:
        store.close()
    if isinstance(path, str):
        yield Finding("store", "ok", f"{path}: a ledger of this version")
        yield from _check_file(path, now_ms)
    else:
        yield Finding("store", "ok", f"{type(store).__name__} answers")
    for check, state, detail, fix in examined:
        yield Finding(check, cast("FindingState", state), detail, fix)
    yield from (_check_delivery(each, now_ms) for each in deliveries)


def check_bypassed() -> Iterator[Finding]:
    """Calls that were let through while a ledger was away, and are not in it yet."""
    from runrails.bypass import directory, left_in

    for left in left_in(directory()):
        detail = (
            f"{len(left.calls)} calls ({format_usd(sum(call.actual for call in left.calls))}) were let through while "
            f"{left.books} was away, and are not in it yet: {left.path}"
        )
        if left.alive and not left.damaged:
            yield Finding("bypassed calls", "note", detail, "Their process runs and writes them when it can.")
            continue
        if left.damaged:
            detail += f"; {left.damaged} lines cannot be read"
        fix = "Write them: runrails ledger reclaim --store URL. So does the next guard that allows such calls."
        yield Finding("bypassed calls", "problem", detail, fix)


def _check_delivery(found: Delivery, now_ms: int) -> Finding:
    """Whether what a sender of notifications was given to send last has arrived."""
    detail = f"{found.sender}: {found.sent} sent, {found.failed} failed, {found.dropped} dropped"
    if found.sent_ms is not None:
        detail += f"; last sent {when(found.sent_ms)}"
    if found.error_ms is not None:
        detail += f"; last error {found.last_error} at {when(found.error_ms)}"
    if not found.failing:
        return Finding("notifications", "ok", detail)
    if now_ms - (found.error_ms or 0) > FAILURE_OLD_MS:
        return Finding("notifications", "note", detail, "If it is not used any more, this can be left as it is.")
    fix = "See that its address is right and answers; the log has runrails.notification_failed for each."
    return Finding("notifications", "problem", detail, fix)


def _check_file(path: str, now_ms: int) -> Iterator[Finding]:
    with closing(sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
            yield Finding("store writable", "ok", "yes")
        except sqlite3.Error as error:
            fix = "Give this user write permission to the file and its directory, and close whatever holds the file."
            yield Finding("store writable", "problem", f"It cannot be written: {error}.", fix)
        try:
            harm = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
            newest: int | None = connection.execute("SELECT max(at_ms) FROM reservation").fetchone()[0]
            overdue, amount = cast("tuple[int, int]", connection.execute(_OVERDUE, (now_ms,)).fetchone())
        except sqlite3.Error as error:
            harm, newest, overdue, amount = str(error), None, 0, 0
    if harm == "ok":
        yield Finding("store integrity", "ok", "unharmed")
    else:
        fix = "Restore it from a backup, or move it aside with its -wal and -shm files to begin with an empty ledger."
        yield Finding("store integrity", "problem", f"It is damaged: {harm}.", fix)
    if os.name == "posix" and Path(path).stat().st_mode & 0o077:
        yield Finding("store privacy", "note", "Other users of this machine can read the ledger.", f"chmod 600 {path}")
    if overdue:
        count = "1 hold is" if overdue == 1 else f"{overdue:,} holds are"
        detail = f"{count} over time ({format_usd(amount)}): whoever made such calls died before telling their end."
        fix = "The next call on this store charges them as held; `runrails usage reconcile BILL.csv` puts that right."
        yield Finding("store holds", "note", detail, fix)
    if newest is not None and newest - now_ms > CLOCK_AHEAD_MAX_MS:
        detail = f"The newest record is of {when(newest)}, and the clock says {when(now_ms)}: one of them is wrong."
        yield Finding("store clock", "problem", detail, "Set the clock (NTP) on every machine that uses this store.")


def check_prices(*, now_ms: int) -> Iterator[Finding]:
    """The price data: unharmed, and not old."""
    from runrails.pricing.patches import read_patches
    from runrails.pricing.snapshot import SnapshotDamaged, read_snapshot

    try:
        snapshot, _ = read_snapshot(), read_patches()
    except SnapshotDamaged as error:
        yield Finding(
            "price table", "problem", f"{error}.", "Install runrails again: pip install --force-reinstall runrails"
        )
        return
    yield Finding("price table", "ok", f"checksum right, genai-prices {snapshot.version}")
    newest = max(
        (
            window.first_ms
            for provider in snapshot.provider_ids()
            for model in snapshot.model_ids(provider)
            if (schedule := snapshot.schedule(provider, model)) is not None
            for window in schedule.windows
            if window.first_ms <= now_ms
        ),
        default=0,
    )
    age_days = (now_ms - newest) // 86_400_000
    detail = f"its newest price change is of {when(newest)[:10]}, {age_days} days ago"
    if age_days > PRICES_OLD_DAYS:
        fix = "Upgrade runrails, or run: pip install -U genai-prices && runrails prices refresh"
        yield Finding("price age", "note", detail, fix)
    else:
        yield Finding("price age", "ok", detail)


def check_adapters(found: Iterable[EntryPoint]) -> Iterator[Finding]:
    """Every adapter whose framework is installed can be attached; without one, `with guard.run():` sees no calls."""
    points = sorted(found, key=lambda point: point.name)
    if not points:
        fix = "Install the distribution (pip install runrails), or pass the callback yourself."
        yield Finding(
            "adapters", "note", "None registered: `with guard.run():` guards only what is given a callback.", fix
        )
    for point in points:
        if find_spec(point.name) is None:
            yield Finding("adapters", "ok", f"{point.name} is not installed; nothing to attach")
            continue
        try:
            attach: object = point.load()
        except Exception as error:  # noqa: BLE001 -- whatever a broken framework raises, the row must say so
            fix = "Install its extra again, for instance: pip install --force-reinstall 'runrails[langchain]'"
            yield Finding("adapters", "problem", f"{point.value} cannot be loaded: {type(error).__name__}.", fix)
            continue
        if callable(attach):
            yield Finding("adapters", "ok", f"{point.name}: {point.value} attaches")
        else:
            yield Finding("adapters", "problem", f"{point.value} is no function.", "Install runrails again.")


def check_clock(*, now_ms: int) -> Iterator[Finding]:
    """Months and expiry go by the clock, so a wrong one spends the wrong month's money."""
    if now_ms < CLOCK_FLOOR_MS:
        yield Finding("clock", "problem", f"It says {when(now_ms)}, which is in the past.", "Set the clock (NTP).")
    else:
        yield Finding("clock", "ok", f"{when(now_ms)} UTC")


def _needed(requirements: Iterable[str]) -> Iterator[str]:
    """Names of the packages that are required whatever the extras."""
    for requirement in requirements:
        if "extra ==" not in requirement:
            found = re.match(r"[A-Za-z0-9._-]+", requirement)
            if found is not None:
                yield found.group()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
