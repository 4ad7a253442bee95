"""Months in a fixed time zone."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from runrails.periods import check_period, check_zone, day_of, month_of, month_start_ms, next_month


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1_000)


@pytest.mark.parametrize("bad", [-1, 253_370_764_800_000, 10**18])
def test_a_moment_out_of_range_is_refused(bad: int) -> None:
    """Microseconds given for milliseconds do not become a month in the far future."""
    with pytest.raises(ValueError, match="milliseconds since the epoch"):
        month_of(bad)


@pytest.mark.parametrize(
    "bad", ["", "2026", "2026-13", "2026-00", "2026-1", "26-01", "2026-01-01", "2026/01", "1969-12", "٢٠٢٦-٠١"]
)
def test_a_malformed_period_is_refused(bad: str) -> None:
    """One way to write a month."""
    with pytest.raises(ValueError, match="2026-11"):
        check_period(bad)


@pytest.mark.parametrize(
    "bad",
    ["", "Mars/Olympus", "../../etc/passwd", "/etc/localtime", "Europe/", "UTC\n", "a" * 300, "Europe/Berlin\x00"],
)
def test_an_unknown_zone_is_refused_with_a_hint(bad: str) -> None:
    """The answer says how zones are written and shows no path."""
    with pytest.raises(ValueError, match="unknown time zone; write it as the IANA") as caught:
        check_zone(bad)
    assert "passwd" not in str(caught.value)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Asia/Kathmandu", "America/Argentina/Ushuaia", "Etc/GMT+12"])
def test_known_zones_are_given_back(zone: str) -> None:
    """Names of the IANA database."""
    assert zone == check_zone(zone)


def test_months_of_utc_agree_with_the_calendar() -> None:
    """Integer arithmetic and datetime agree at every edge of 400 years, leap years included."""
    for year in range(1970, 2370):
        for month in range(1, 13):
            start = _ms(datetime(year, month, 1, tzinfo=UTC))
            name = f"{year:04d}-{month:02d}"
            assert name == month_of(start)
            assert start == month_start_ms(name)
            if start:
                assert name > month_of(start - 1)


def test_the_month_turns_at_local_midnight() -> None:
    """The same millisecond lies in different months in Tokyo and Los Angeles."""
    moment = _ms(datetime(2026, 11, 30, 20, 0, tzinfo=UTC))
    assert ["2026-11", "2026-12", "2026-11"] == [
        month_of(moment, zone) for zone in ("UTC", "Asia/Tokyo", "America/Los_Angeles")
    ]


@pytest.mark.parametrize(
    "zone", ["Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Pacific/Apia", "Africa/Cairo", "America/Havana"]
)
def test_start_and_month_fit_together_in_every_zone(zone: str) -> None:
    """A month holds its first millisecond and not the one before, daylight saving or not."""
    info = ZoneInfo(zone)
    for year in range(2005, 2031):
        for month in range(1, 13):
            name = f"{year:04d}-{month:02d}"
            start = month_start_ms(name, zone)
            assert name == month_of(start, zone)
            assert name == f"{datetime.fromtimestamp(start // 1000, tz=info):%Y-%m}"
            assert name > month_of(start - 1, zone)
            assert next_month(month_of(start - 1, zone)) == name


def test_a_month_whose_first_midnight_comes_twice_begins_at_the_first() -> None:
    """Clocks of Newfoundland went back at 00:01; in the hour lived through again no call is of the month before."""
    zone, midnight = "America/St_Johns", datetime(2009, 11, 1, 2, 30, tzinfo=UTC)
    start = _ms(midnight)
    for seed in (start - 1, start, start + 40 * 86_400_000):
        for minutes in range(0, 130, 5):
            month_of(seed, zone)
            assert "11" == month_of(start + minutes * 60_000, zone)[-2:]
            assert "10" == month_of(start - 1 - minutes * 60_000, zone)[-2:]
    assert month_start_ms(f"{midnight.year}-11", zone) == start


def test_asking_back_and_forth_gives_the_same_answers() -> None:
    """The remembered month is only used for moments inside it."""
    november, december = (
        _ms(datetime(2026, 11, 30, 23, 59, 59, 999_000, tzinfo=UTC)),
        _ms(datetime(2026, 12, 1, tzinfo=UTC)),
    )
    answers = [month_of(moment) for moment in (november, december, november, december, december - 1)]
    assert ["2026-11", "2026-12", "2026-11", "2026-12", "2026-11"] == answers


def test_the_month_after() -> None:
    """December leads into the next year."""
    assert ["2026-12", "2027-01"] == [next_month("2026-11"), next_month("2026-12")]


def test_the_first_hours_of_the_epoch_are_another_year_in_the_west() -> None:
    """Moment 0 has a month in every zone, as a clock that starts there needs."""
    assert ["1970-01", "1969-12", "1970-01"] == [
        month_of(0, zone) for zone in ("UTC", "America/St_Johns", "Asia/Tokyo")
    ]


def test_days_are_those_of_the_calendar() -> None:
    """Every day of leap years, of plain ones and of those of the century rule, at its first and last millisecond."""
    for year in (1970, 1999, 2000, 2024, 2026, 2100, 2400):
        for number in range(366):
            first = _ms(datetime(year, 1, 1, tzinfo=UTC)) + number * 86_400_000
            expected = datetime.fromtimestamp(first // 1_000, tz=UTC).strftime("%Y-%m-%d")
            assert [expected] * 2 == [day_of(first), day_of(first + 86_399_999)]
