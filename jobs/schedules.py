"""When a target is due again. Trigger classes are APScheduler's; the words are ours."""

from __future__ import annotations

import random
import re
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import tzlocal
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.combining import OrTrigger
from apscheduler.triggers.cron import CronTrigger

from errors import Unusable

_EVERY = re.compile(r"every\s+(\d{1,6})\s*([smhd])")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_HINT = "use 'every 15m', a crontab line such as '0 6 * * 1', or 'manual'"
#: The longest that a failing target waits: a day in the slow lane, and its jitter (seconds).
FAILING_MOST_S = 1.25 * 86400.0


def _day_names(field: str) -> str:
    """Crontab counts days from Sunday = 0 (7 too), APScheduler from Monday: use names."""
    parts = []
    for part in field.lower().split(","):
        body, _, step = part.partition("/")
        if not step and not body.startswith("*") and "-" in body:
            first, last = (_day_number(x) for x in body.split("-", 1))
            parts += [_DAYS[d % 7] for d in range(first, (last if last >= first else last + 7) + 1)]
        elif step:
            first, last = (0, 6) if body == "*" else (_day_number(x) for x in (body + "-" + body).split("-")[:2])
            parts += [_DAYS[d % 7] for d in range(first, last + 1, int(step))]
        elif body == "*":
            return "*"
        else:
            parts.append(_DAYS[_day_number(body) % 7])
    return ",".join(dict.fromkeys(parts))


def _day_number(text: str) -> int:
    number = _DAYS.index(text) if text in _DAYS else int(text)
    if not 0 <= number <= 7:
        raise ValueError(f"{text} is no day of the week")
    return number


def _cron(line: str, zone: tzinfo) -> BaseTrigger:
    minute, hour, day, month, weekday = line.split()
    names = _day_names(weekday)

    def trigger(day: str, weekday: str) -> CronTrigger:
        return CronTrigger(minute=minute, hour=hour, day=day, month=month, day_of_week=weekday, timezone=zone)

    if not day.startswith("*") and not weekday.startswith("*"):  # crontab(5): either of the two
        return OrTrigger([trigger(day, "*"), trigger("*", names)])
    return trigger(day, names)


def zone_of(name: str) -> tzinfo:
    """A time zone by name; `local` is the machine's own, with its changes between winter and summer."""
    if name != "local":
        return ZoneInfo(name)
    try:
        return tzlocal.get_localzone()
    except (ZoneInfoNotFoundError, ValueError, OSError):  # a TZ that is no name: what it means now
        return datetime.now().astimezone().tzinfo or UTC


def interval_s(schedule: str) -> float | None:
    """Seconds between two runs of an `every` schedule; None for the others."""
    found = _EVERY.fullmatch(schedule.strip())
    return int(found[1]) * _UNIT_S[found[2]] if found else None


def check(schedule: str, *, now: datetime, zone: tzinfo = UTC) -> str:
    """Return the schedule in its stored form.

    Raises:
        Unusable: It cannot be read, or never fires.
    """
    text = " ".join(schedule.split())
    if text == "manual":
        return text
    seconds = interval_s(text)
    if seconds is not None:
        if not 1 <= seconds <= 366 * 86400:
            raise Unusable(f"the schedule '{text[:80]}' is out of range", hint=_HINT)
        return text
    try:
        if next_time(text, after=now, zone=zone, spread=0.0) is None:
            raise Unusable(f"the schedule '{text[:80]}' never fires", hint=_HINT)
    except (ValueError, IndexError, TypeError) as exc:
        raise Unusable(f"the schedule '{text[:80]}' cannot be read", hint=_HINT) from exc
    return text


def next_time(schedule: str, *, after: datetime, zone: tzinfo = UTC, spread: float | None = None) -> datetime | None:
    """Next time a schedule fires.

    Args:
        schedule: In its stored form.
        after: Aware UTC; times missed before it are coalesced into one.
        zone: In which crontab lines are read.
        spread: 0 to 1, where in the jitter of a tenth of the interval; None: at random.
    """
    if schedule == "manual":
        return None
    seconds = interval_s(schedule)
    if seconds is not None:
        part = random.random() if spread is None else spread
        return after + timedelta(seconds=seconds * (0.95 + 0.1 * part))
    # Added in UTC: arithmetic on local times forgets which of two equal hours it is in.
    fire = _cron(schedule, zone).get_next_fire_time(None, (after + timedelta(microseconds=1)).astimezone(zone))
    return None if fire is None else fire.astimezone(UTC)


def latest(schedule: str, *, failing: bool, now: datetime, zone: tzinfo = UTC) -> datetime:
    """The latest instant at which a target may be due: its next turn, or the longest that a failing one waits."""
    regular = next_time(schedule, after=now, zone=zone, spread=1.0) or now
    return max(regular, now + timedelta(seconds=FAILING_MOST_S if failing else 0.0))
