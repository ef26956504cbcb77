"""When a target is due again: intervals with jitter, crontab lines as crontab(5) has them, `manual`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from errors import Unusable
from jobs import schedules

ROOT = Path(__file__).resolve().parents[2]
#: A Monday.
NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")


def fires(line: str, *, after: datetime = NOW, zone: ZoneInfo | None = None, times: int = 1) -> list[str]:
    """The next times, in the zone of the line."""
    found = []
    for _ in range(times):
        at = schedules.next_time(schedules.check(line, now=after), after=after, zone=zone or UTC)
        assert at is not None and at > after
        after = at
        found.append(f"{at.astimezone(zone or UTC):%a %d %b %H:%M}")
    return found


# -- every N ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "seconds"), [("every 5s", 5), ("every 15m", 900), ("every 2 h", 7200), ("every 1d", 86400)]
)
def test_an_interval_is_jittered_by_a_tenth_around_itself(line: str, seconds: int) -> None:
    least, most = (schedules.next_time(line, after=NOW, spread=spread) for spread in (0.0, 1.0))
    assert least == NOW + timedelta(seconds=seconds * 0.95)
    assert most == NOW + timedelta(seconds=seconds * 1.05)


def test_two_targets_of_one_interval_drift_apart() -> None:
    assert len({schedules.next_time("every 15m", after=NOW) for _ in range(50)}) == 50


@pytest.mark.parametrize("line", ["every 0s", "every 367d", "every 999999d"])
def test_an_interval_out_of_range_is_refused(line: str) -> None:
    with pytest.raises(Unusable, match="out of range"):
        schedules.check(line, now=NOW)


def test_a_schedule_is_stored_without_needless_spaces() -> None:
    assert schedules.check("  0   6 * *  1 ", now=NOW) == "0 6 * * 1"


def test_manual_never_fires_by_itself() -> None:
    assert schedules.next_time(schedules.check("manual", now=NOW), after=NOW) is None


# -- crontab ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "next_times"),
    [
        ("*/20 * * * *", ["Mon 02 Mar 12:20", "Mon 02 Mar 12:40", "Mon 02 Mar 13:00"]),
        ("5,50 9-10 * * *", ["Tue 03 Mar 09:05", "Tue 03 Mar 09:50", "Tue 03 Mar 10:05"]),
        ("0 6 * * 1", ["Mon 09 Mar 06:00", "Mon 16 Mar 06:00"]),
        ("0 6 * * 0", ["Sun 08 Mar 06:00", "Sun 15 Mar 06:00"]),
        ("0 6 * * 7", ["Sun 08 Mar 06:00", "Sun 15 Mar 06:00"]),
        ("0 6 * * 0-1", ["Sun 08 Mar 06:00", "Mon 09 Mar 06:00", "Sun 15 Mar 06:00"]),
        ("0 6 * * 5-7", ["Fri 06 Mar 06:00", "Sat 07 Mar 06:00", "Sun 08 Mar 06:00", "Fri 13 Mar 06:00"]),
        ("0 6 * * 6,0", ["Sat 07 Mar 06:00", "Sun 08 Mar 06:00", "Sat 14 Mar 06:00"]),
        ("0 6 * * Sat-Sun", ["Sat 07 Mar 06:00", "Sun 08 Mar 06:00", "Sat 14 Mar 06:00"]),
        ("0 6 * * mon-fri", ["Tue 03 Mar 06:00", "Wed 04 Mar 06:00", "Thu 05 Mar 06:00", "Fri 06 Mar 06:00"]),
        ("0 6 * * */2", ["Tue 03 Mar 06:00", "Thu 05 Mar 06:00", "Sat 07 Mar 06:00", "Sun 08 Mar 06:00"]),
        ("0 6 * * 1-5/2", ["Wed 04 Mar 06:00", "Fri 06 Mar 06:00", "Mon 09 Mar 06:00"]),
        ("0 0 1 jan,JUL *", ["Wed 01 Jul 00:00", "Fri 01 Jan 00:00"]),
        ("0 0 31 * *", ["Tue 31 Mar 00:00", "Sun 31 May 00:00"]),
    ],
)
def test_a_crontab_line_fires_when_crontab_would(line: str, next_times: list[str]) -> None:
    assert fires(line, times=len(next_times)) == next_times


def test_a_day_and_a_weekday_together_mean_either_of_them() -> None:
    expected = ["Fri 06 Mar 00:00", "Fri 13 Mar 00:00", "Sun 15 Mar 00:00", "Fri 20 Mar 00:00"]
    assert fires("0 0 15 * 5", times=4) == expected


@pytest.mark.parametrize("line", ["0 0 */10 * 6", "0 0 1,11,21,31 * */6"])
def test_a_day_or_weekday_field_that_starts_with_a_star_restricts_the_other(line: str) -> None:
    assert fires(line, times=2) == ["Sat 21 Mar 00:00", "Sat 11 Apr 00:00"]


def test_a_line_that_only_leap_years_know_fires() -> None:
    assert schedules.next_time("0 0 29 2 *", after=NOW) == datetime(2028, 2, 29, tzinfo=UTC)


@pytest.mark.parametrize("line", ["0 0 30 2 *", "0 0 31 2,4,6,9,11 *"])
def test_a_line_that_never_fires_is_refused_soon(line: str) -> None:
    began = time.monotonic()
    with pytest.raises(Unusable, match="never fires"):
        schedules.check(line, now=NOW)
    assert time.monotonic() - began < 3


@pytest.mark.parametrize(
    "line",
    [
        "",
        "hourly",
        "every",
        "every 5",
        "every 5w",
        "every -5m",
        "every 1.5h",
        "Every 5m",
        "* * * *",
        "* * * * * *",
        "60 * * * *",
        "0 24 * * *",
        "0 0 0 * *",
        "0 0 32 * *",
        "0 0 * 13 *",
        "0 0 * * 8",
        "0 0 * * -1",
        "0 0 * * 1-",
        "0 0 * * someday",
        "*/0 * * * *",
        "0 0 * * */0",
        "*/99999999999 * * * *",
        "5-1 * * * *",
        "a b c d e",
    ],
)
def test_a_line_that_cannot_be_read_is_refused_with_what_could(line: str) -> None:
    with pytest.raises(Unusable, match="cannot be read") as refusal:
        schedules.check(line, now=NOW)
    assert "every 15m" in str(refusal.value.hint)


def test_a_run_that_ends_in_the_last_second_before_a_time_does_not_miss_it() -> None:
    just_before = datetime(2026, 3, 2, 12, 59, 59, 500_000, tzinfo=UTC)
    assert schedules.next_time("0 * * * *", after=just_before) == datetime(2026, 3, 2, 13, tzinfo=UTC)


def test_a_time_does_not_fire_twice() -> None:
    on_it = datetime(2026, 3, 2, 13, tzinfo=UTC)
    assert schedules.next_time("0 * * * *", after=on_it) == on_it + timedelta(hours=1)


def test_many_missed_times_are_one() -> None:
    long_after = NOW + timedelta(days=3, seconds=10)
    assert schedules.next_time("* * * * *", after=long_after) == NOW + timedelta(days=3, minutes=1)
    due = schedules.next_time("every 1m", after=long_after, spread=0.5)
    assert due == long_after + timedelta(minutes=1)


# -- time zones ------------------------------------------------------------------------------------------------------


def test_a_line_is_read_in_its_time_zone() -> None:
    at = schedules.next_time("0 6 * * *", after=NOW, zone=ZoneInfo("Asia/Tokyo"))
    assert at == datetime(2026, 3, 2, 21, tzinfo=UTC)


def test_six_in_the_morning_stays_six_when_summer_begins_and_ends() -> None:
    for day, utc_hours in (
        (datetime(2026, 3, 28, 12, tzinfo=UTC), [4, 4]),
        (datetime(2026, 10, 23, 12, tzinfo=UTC), [4, 5]),
    ):
        first = schedules.next_time("0 6 * * *", after=day, zone=BERLIN)
        assert first is not None
        second = schedules.next_time("0 6 * * *", after=first, zone=BERLIN)
        assert second is not None
        assert [first.hour, second.hour] == utc_hours
        assert all(at.astimezone(BERLIN).hour == 6 for at in (first, second))


def test_a_time_that_the_clock_leaps_over_fires_once_that_day() -> None:
    found = fires("30 2 * * *", after=datetime(2026, 3, 28, 12, tzinfo=UTC), zone=BERLIN, times=2)
    assert found == ["Sun 29 Mar 03:30", "Mon 30 Mar 02:30"]


@pytest.mark.parametrize("line", ["*/15 * * * *", "* * * * *", "0 * * * *", "30 2 * * *", "7 2 25 * 0"])
@pytest.mark.parametrize("change", [datetime(2026, 3, 29, 1, tzinfo=UTC), datetime(2026, 10, 25, 1, tzinfo=UTC)])
def test_no_time_lies_in_the_past_while_the_hours_change(line: str, change: datetime) -> None:
    for minutes in range(-150, 150):
        for after in (change + timedelta(minutes=minutes, seconds=s, microseconds=s) for s in (0, 1, 59)):
            at = schedules.next_time(line, after=after, zone=BERLIN)
            assert at is not None and at > after


def test_every_quarter_of_an_hour_means_so_in_the_hour_that_comes_twice() -> None:
    after = datetime(2026, 10, 24, 23, 50, tzinfo=UTC)
    for _ in range(12):
        at = schedules.next_time("*/15 * * * *", after=after, zone=BERLIN)
        assert at is not None and at - after <= timedelta(minutes=15)
        after = at


def hours_of_local_zone(name: str) -> str:
    """Noon of a winter's and a summer's day, UTC, in the local zone of a process with this TZ."""
    code = "from datetime import UTC, datetime as d; from jobs.schedules import zone_of; z = zone_of('local')\n"
    code += "print(*(d(2026, m, 1, 12, tzinfo=UTC).astimezone(z).hour for m in (1, 7)))"
    env = {name: value for name, value in os.environ.items() if name != "TZ"} | {"TZ": name}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_the_local_zone_knows_summer_and_winter() -> None:
    assert hours_of_local_zone("Europe/Berlin") == "13 14"


def test_a_local_zone_without_a_name_is_still_one() -> None:
    assert hours_of_local_zone("XYZ-3") == "15 15"


# -- limits ----------------------------------------------------------------------------------------------


def test_after_a_jump_of_the_clock_nothing_is_due_later_than_its_next_turn() -> None:
    assert schedules.latest("every 15m", failing=False, now=NOW) == NOW + timedelta(seconds=945)
    assert schedules.latest("0 13 * * *", failing=False, now=NOW) == NOW + timedelta(hours=1)
    assert schedules.latest("manual", failing=False, now=NOW) == NOW
    assert schedules.latest("every 15m", failing=True, now=NOW) == NOW + timedelta(hours=30)
