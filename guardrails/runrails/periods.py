"""
Calendar months in a fixed time zone, written like ``2026-11``.

The period is part of an account's key, so there is no reset: the next month is another account. UTC, the default, is
worked out with integers alone; only other zones load `zoneinfo`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

__all__ = ["check_period", "check_zone", "day_of", "month_of", "month_start_ms", "newest", "next_month"]

_DAY_MS = 86_400_000
_PERIOD = r"([0-9]{4})-(0[1-9]|1[0-2])"
_ZONE = r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+){0,2}"
_YEAR_MIN, _YEAR_MAX = 1970, 9998
_NOW_MS_MAX = 253_370_764_800_000  # 9999-01-01 UTC
_ZONES_MAX = 64
newest: dict[str, tuple[int, int, str]] = {}
"""Per zone the month asked for last, as (first ms, first ms of the next month, name)."""


def month_of(now_ms: int, zone: str = "UTC") -> str:
    """
    The month that this moment falls in, by the wall clock of `zone`.

    Raises:
        ValueError: The moment is before 1970 or after 9998, or the zone is unknown.
    """
    known = newest.get(zone)
    if known is not None and known[0] <= now_ms < known[1]:
        return known[2]
    if not 0 <= now_ms < _NOW_MS_MAX:
        raise ValueError("now_ms must be milliseconds since the epoch, from 1970 to 9998.")
    period = _month_of_utc(now_ms) if zone == "UTC" else _month_of_zone(now_ms, zone)
    if period < "1970":  # The first hours of 1970 in UTC are still 1969 in the west; nothing else asks for that month.
        return period
    if len(newest) >= _ZONES_MAX:
        newest.clear()
    following = next_month(period)
    begins_ms = month_start_ms(following, zone)
    if now_ms >= begins_ms:  # the clock was put back over that midnight, but no month begins twice
        period, following = following, next_month(following)
    newest[zone] = (month_start_ms(period, zone), month_start_ms(following, zone), period)
    return period


def day_of(now_ms: int) -> str:
    """The day in UTC that this moment, not before 1970, falls in: ``2026-11-18``."""
    return "{:04d}-{:02d}-{:02d}".format(*_date_of_utc(now_ms))


def month_start_ms(period: str, zone: str = "UTC") -> int:
    """
    The first millisecond of the month, since the epoch.

    Raises:
        ValueError: The period is no month, or the zone is unknown.
    """
    year, month = _split(period)
    if zone == "UTC":
        return _days_from_civil(year, month) * _DAY_MS
    from datetime import datetime

    # fold=0: where midnight comes twice the month begins at the first of them; where it is skipped, at the jump.
    return round(datetime(year, month, 1, tzinfo=_zone_info(zone)).timestamp()) * 1_000


def next_month(period: str) -> str:
    """The month after: ``2026-12`` gives ``2027-01``."""
    year, month = _split(period)
    return f"{year + 1:04d}-01" if month == 12 else f"{year:04d}-{month + 1:02d}"


def check_period(period: str) -> str:
    """
    Return `period` if it is a month like ``2026-11``.

    Raises:
        ValueError: It is something else.
    """
    _split(period)
    return period


def check_zone(name: str) -> str:
    """
    Return `name` if it is a time zone of the IANA database.

    Raises:
        ValueError: There is no such zone; the message says how names look.
    """
    if name != "UTC":
        _zone_info(name)
    return name


def _month_of_utc(now_ms: int) -> str:
    year, month, _ = _date_of_utc(now_ms)
    return f"{year:04d}-{month:02d}"


def _date_of_utc(now_ms: int) -> tuple[int, int, int]:
    # Days to civil date over eras of 400 years that begin on 1 March, so that the leap day is the last day of a year.
    days = now_ms // _DAY_MS + 719_468
    era, day_of_era = divmod(days, 146_097)
    year_of_era = (day_of_era - day_of_era // 1_460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    march_month = (5 * day_of_year + 2) // 153
    month = march_month + 3 if march_month < 10 else march_month - 9
    year = era * 400 + year_of_era + (month <= 2)
    return year, month, day_of_year - (153 * march_month + 2) // 5 + 1


def _days_from_civil(year: int, month: int) -> int:
    march_year = year - (month <= 2)
    era, year_of_era = divmod(march_year, 400)
    march_month = month - 3 if month > 2 else month + 9
    day_of_year = (153 * march_month + 2) // 5
    return era * 146_097 + year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year - 719_468


def _month_of_zone(now_ms: int, zone: str) -> str:
    from datetime import datetime

    local = datetime.fromtimestamp(now_ms // 1_000, tz=_zone_info(zone))
    return f"{local.year:04d}-{local.month:02d}"


def _split(period: str) -> tuple[int, int]:
    match = re.fullmatch(_PERIOD, period)
    if match is None or not _YEAR_MIN <= int(match[1]) <= _YEAR_MAX + 1:
        raise ValueError('a period is a month written like "2026-11".')
    return int(match[1]), int(match[2])


def _zone_info(name: str) -> ZoneInfo:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    if re.fullmatch(_ZONE, name):
        try:
            return ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            pass  # answered below with a hint instead of a path of the machine
    raise ValueError('unknown time zone; write it as the IANA database does, like "UTC" or "Europe/Berlin".')
