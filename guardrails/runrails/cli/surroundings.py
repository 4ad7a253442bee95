"""What `runrails doctor` looks at around runrails: unfit versions of SDKs, and settings whose other half is missing."""

from __future__ import annotations

import os
import re
from importlib.metadata import PackageNotFoundError, requires, version
from typing import TYPE_CHECKING, NamedTuple

from runrails.autoguard.variables import is_wanted
from runrails.cli.finding import Finding
from runrails.projectfile import find_project_file, project_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

__all__ = ["check_extras", "check_halves", "check_project", "too_old_or_new"]

_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?\s*([^;]*?)\s*;.*extra == ['\"]([A-Za-z0-9_-]+)['\"]")
_NOT_OURS = frozenset({"all", "dev", "demo", "docs"})
"""Extras that collect others."""


class _Half(NamedTuple):
    """Variables that say nothing without others."""

    names: tuple[str, ...]
    needs: tuple[str, ...]
    why: str


_HALVES = (
    _Half(
        ("RUNRAILS_JWT_KEYS", "RUNRAILS_JWT_JWKS_URL"), ("RUNRAILS_JWT_ISSUER", "RUNRAILS_JWT_AUDIENCE"),
        "tokens are checked only against an issuer and an audience",
    ),
    _Half(("RUNRAILS_VAULT",), ("RUNRAILS_MASTER_KEYS",), "no key in the vault can be opened"),
    _Half(("AWS_ACCESS_KEY_ID",), ("AWS_SECRET_ACCESS_KEY",), "AWS refuses requests that are not signed"),
    _Half(("AWS_SECRET_ACCESS_KEY",), ("AWS_ACCESS_KEY_ID",), "AWS refuses requests that are not signed"),
)  # fmt: skip
_HOW = (
    "RUNRAILS_KEY", "RUNRAILS_ORG", "RUNRAILS_RUN_NAME", "RUNRAILS_RUN_ID", "RUNRAILS_TAGS", "RUNRAILS_MODE",
    "RUNRAILS_ZONE", "RUNRAILS_MODEL_PRICES", "RUNRAILS_POLL_TOOLS", "RUNRAILS_LOOPS", "RUNRAILS_STOP_CODE",
    "RUNRAILS_STOP_GRACE", "RUNRAILS_SUMMARY", "RUNRAILS_SUMMARY_FILE",
)  # fmt: skip
"""How a program is guarded; whether it is, others say."""


def check_halves(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Settings of which one half is there."""
    for half in _HALVES:
        said = [name for name in half.names if environment.get(name)]
        missing = [name for name in half.needs if not environment.get(name)]
        if said and missing:
            detail = f"{' and '.join(said)} without {' and '.join(missing)}: {half.why}."
            yield Finding("settings", "problem", detail, f"Set {' and '.join(missing)}, or unset {said[0]}.")
    how = [name for name in _HOW if environment.get(name)]
    if how and not is_wanted(environment):
        detail = f"{', '.join(how)}: said how programs are guarded, but not that any is."
        fix = "Start them with `runrails run -- …`, or set a budget, for instance RUNRAILS_RUN_BUDGET=2.00."
        yield Finding("settings", "note", detail, fix)


def check_extras(
    requirements: Iterable[str] | None = None, installed: Callable[[str], str | None] | None = None
) -> Iterator[Finding]:
    """SDKs that are installed in a version which their extra does not take."""
    installed = installed or _installed
    try:
        listed = requires("runrails") or [] if requirements is None else requirements
    except PackageNotFoundError:
        return  # a source tree, of which another row tells
    for requirement in sorted(set(listed)):
        found = _REQUIREMENT.match(requirement)
        if found is None or found[3] in _NOT_OURS:
            continue
        name, wanted, extra = found.groups()
        have = installed(name)
        if have is not None and too_old_or_new(have, wanted):
            detail = f"{name} {have} is installed; the extra `{extra}` needs {wanted}."
            yield Finding("packages", "problem", detail, f"pip install 'runrails[{extra}]'")


def too_old_or_new(have: str, wanted: str) -> bool:
    """Whether a version is outside of bounds like `>=2,<4`. What cannot be read is let through."""
    return any(not _fits(have, clause.strip()) for clause in wanted.split(",") if clause.strip())


def check_project() -> Iterator[Finding]:
    """The limits and the store that the project's file names, and who may change it."""
    path = find_project_file()
    if path is None:
        return
    said = project_settings()
    limits = "no limits" if said.limits is None else "limits"
    store = "no store" if said.store is None else "a store"
    yield Finding("project file", "ok", f"{path}: {limits}, {store}")
    if os.name == "posix" and os.stat(path).st_mode & 0o022:  # noqa: PTH116 -- a str it is
        fix = f"chmod go-w {path}"
        yield Finding("project file", "note", "Other users of this machine can change its limits and prices.", fix)


def _fits(have: str, clause: str) -> bool:
    found = re.fullmatch(r"(>=|<=|==|!=|<|>)\s*([0-9][0-9.]*)(?:\.\*)?", clause)
    if found is None:
        return True
    mine, bound = _numbers(have), _numbers(found[2])
    length = max(len(mine), len(bound))
    mine, bound = mine + (0,) * (length - len(mine)), bound + (0,) * (length - len(bound))
    return {
        ">=": mine >= bound, "<=": mine <= bound, "==": mine == bound, "!=": mine != bound, "<": mine < bound,
        ">": mine > bound,
    }[found[1]]  # fmt: skip


def _numbers(text: str) -> tuple[int, ...]:
    found = re.match(r"[0-9]+(?:\.[0-9]+)*", text)
    return () if found is None else tuple(int(part) for part in found[0].split("."))


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
