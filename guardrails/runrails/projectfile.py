"""
What a project says of its limits and its store: more tables of `runrails.toml`, which has its prices too.

    [limits]                # as `Limits` in code
    run = "2.00"            # dollars; "none" for no limit
    month = "50.00"
    steps = 300

    [limits.rates]          # also key_rates, org_rates
    requests_per_minute = 60

    [loops]                 # as `LoopPolicy` in code
    enabled = true
    hint_at = 3

    [store]
    url = "sqlite:///ledger.db"

Code wins over the environment, which wins over the file. A mistake anywhere in these tables, an unknown key above all,
refuses the file: whoever wrote a limit down believes that it holds. So does a table whose name is nearly one of these,
and a limit outside of its table.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import TYPE_CHECKING, TypeVar, cast

from runrails.limits import Limits
from runrails.loops.policy import LoopPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runrails.pricing.project import ProjectText

__all__ = [
    "LIMIT_KEYS", "LOOP_KEYS", "NO_LIMIT", "PROJECT_FILE", "RATE_KEYS", "RATE_TABLES", "TABLES",
    "ProjectSettings", "find_project_file", "parse_settings", "project_settings", "written_limits",
]  # fmt: skip

PROJECT_FILE = "runrails.toml"
NO_LIMIT = "none"
MONEY_KEYS = ("run", "month", "key_month", "org_month", "byok_month")
COUNT_KEYS = ("steps", "model_calls", "tool_calls", "tokens", "seconds")
LIMIT_KEYS = (*MONEY_KEYS, *COUNT_KEYS, "uncapped", "wrap_up", "hold_wait_ms", "hold_ttl_ms")
RATE_TABLES = ("rates", "key_rates", "org_rates")
RATE_KEYS = ("requests_per_minute", "tokens_per_minute", "requests_burst", "tokens_burst")
TABLES = ("limits", "loops", "store", "prices", "aliases", "contract")
"""All that the file may have of ours."""
_NEAR = 0.75
LOOP_KEYS = ("enabled", *(each.name for each in fields(LoopPolicy)))
_T = TypeVar("_T")
_ADVICE = "Correct it, or take it out; `runrails init` writes a file with every key there is."


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectSettings:
    """What the file says; None where it says nothing."""

    limits: Limits | None = None
    store: str | None = None


NOTHING = ProjectSettings()


def find_project_file() -> str | None:
    """`RUNRAILS_PRICES`, else `runrails.toml` in the working directory if there is one."""
    named = os.environ.get("RUNRAILS_PRICES")
    if named:
        return named
    return PROJECT_FILE if os.path.isfile(PROJECT_FILE) else None  # noqa: PTH113 -- pathlib costs 3 ms to load


def project_settings() -> ProjectSettings:
    """
    What this project's file says; nothing where there is none.

    Raises:
        ConfigError: It cannot be read, or something in its tables is malformed.
    """
    path = find_project_file()
    if path is None:
        return NOTHING
    from runrails.pricing.project import read_file

    return parse_settings(read_file(path), name=path)


def parse_settings(content: bytes, *, name: str = PROJECT_FILE) -> ProjectSettings:
    """The tables `limits`, `loops` and `store` of a project file. Raises ConfigError with file, line and key."""
    from runrails.pricing.project import ProjectText

    text = ProjectText(content, name)
    data = text.read()
    _check_tables(text, data)
    limits, loops, store = (_table(text, data.get(key), (key,)) for key in ("limits", "loops", "store"))
    _check_keys(text, store or {}, ("url",), ("store",))
    url = (store or {}).get("url")
    if url is not None and not isinstance(url, str):
        text.refuse("must be text.", advice=_ADVICE, path=("store", "url"))
    return ProjectSettings(limits=_limits(text, limits, loops), store=url or None)


def written_limits() -> dict[str, str]:
    """The limits of the project's file as the texts that environment variables and options take, by key."""
    limits = project_settings().limits
    if limits is None:
        return {}
    usual, told = Limits(), dict[str, str]()
    for key in (*MONEY_KEYS, *COUNT_KEYS):
        value = getattr(limits, key)
        if value != getattr(usual, key):
            told[key] = NO_LIMIT if value is None else str(value)
    if limits.loops is None:
        told["loops"] = "off"
    for key in RATE_KEYS[:2]:
        if limits.rates is not None and getattr(limits.rates, key) is not None:
            told[key] = str(getattr(limits.rates, key))
    return told


def _limits(
    text: ProjectText, limits: Mapping[str, object] | None, loops: Mapping[str, object] | None
) -> Limits | None:
    if limits is None and loops is None:
        return None
    limits, loops = limits or {}, loops or {}
    _check_keys(text, limits, (*LIMIT_KEYS, *RATE_TABLES), ("limits",))
    _check_keys(text, loops, LOOP_KEYS, ("loops",))
    given: dict[str, object] = {key: value for key, value in limits.items() if key not in RATE_TABLES}
    for key in (*MONEY_KEYS, *COUNT_KEYS):
        if given.get(key) == NO_LIMIT:
            given[key] = None
        elif key in MONEY_KEYS and isinstance(given.get(key), Decimal):
            given[key] = str(given[key])
    for key in RATE_TABLES:
        table = _table(text, limits.get(key), ("limits", key))
        if table is not None:
            from runrails.rates.limiter import Rates

            _check_keys(text, table, RATE_KEYS, ("limits", key))
            given[key] = _made(text, Rates, table, ("limits", key))
    on = loops.get("enabled", True)
    if not isinstance(on, bool):
        text.refuse("must be true or false.", advice=_ADVICE, path=("loops", "enabled"))
    policy = _made(text, LoopPolicy, {key: loops[key] for key in loops if key != "enabled"}, ("loops",))
    return _made(text, Limits, {**given, "loops": policy if on else None}, ("limits",))


def _made(text: ProjectText, kind: Callable[..., _T], given: Mapping[str, object], path: tuple[str, ...]) -> _T:
    try:
        return kind(**given)
    except (TypeError, ValueError) as error:
        # The class names its field, as in `Limits(steps=…)`; that is the key which is wrong.
        wrong = next((key for key in given if f"{key}=" in str(error)), None)
        text.refuse(str(error), advice=_ADVICE, path=path if wrong is None else (*path, wrong))


def _table(text: ProjectText, value: object, path: tuple[str, ...]) -> Mapping[str, object] | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        text.refuse("must be a table.", advice=_ADVICE, path=path)
    return cast("Mapping[str, object]", value)


def _check_tables(text: ProjectText, data: Mapping[str, object]) -> None:
    """Tables of other programs are none of our business; what is meant for us and would be passed over is."""
    for name in data:
        if name in TABLES:
            continue
        if name in (*LIMIT_KEYS, *RATE_TABLES):
            text.refuse("belongs into the table [limits].", advice=_ADVICE, path=(name,))
        near = _nearest(name)
        if near is not None:
            text.refuse(f"is nobody's table; [{near}] is one.", advice=_ADVICE, path=(name,))


def _nearest(name: str) -> str | None:
    from difflib import get_close_matches

    return next(iter(get_close_matches(name.lower(), TABLES, n=1, cutoff=_NEAR)), None)


def _check_keys(text: ProjectText, table: Mapping[str, object], known: tuple[str, ...], path: tuple[str, ...]) -> None:
    for key in table:
        if key not in known:
            text.refuse(f"is not known here; there are {', '.join(known)}.", advice=_ADVICE, path=(*path, key))
