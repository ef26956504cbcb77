"""Instants as feeds write them: RFC 3339 and its relatives, RFC 822, and what people make of either.

Nothing is guessed: a text that does not name a day is no date.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo
from email.utils import parsedate_tz

_MAX_CHARS = 80
#: Years somebody can have published in; what lies outside is a programmer's zero or infinity.
_YEARS = range(1900, 2200)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_S = 86400
_ISO = re.compile(
    r"(\d{4})(?:([-/.]?)(\d\d?)(?:\2(\d\d?))?)?(?:[T ]+(\d\d?):?(\d\d)(?::?(\d\d)(?:[.,]\d+)?)?)?"
    r" *(Z|UTC|GMT|UT|[+-]\d\d(?::?\d\d)?)?",
    re.ASCII | re.IGNORECASE,
)
_MONTHS = {name: number for number, name in enumerate("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), 1)}
#: RFC 822 as nearly all feeds write it; the library reads it too, ten times slower.
_USUAL = re.compile(
    r"(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), )?(\d\d?) (" + "|".join(_MONTHS) + r") ([12]\d{3})"
    r" (\d\d):(\d\d):(\d\d) (?:GMT|([+-])(\d\d)(\d\d))",
    re.ASCII,
)
#: The month first: `Jan 31, 2024 10:00 pm`, what stands after the year is taken up to the seconds.
_MONTH_FIRST = re.compile(r"(?:[a-z]{3,9},? +)?([a-z]{3,9})\.? +(\d\d?)(?:st|nd|rd|th)?,? +(\d{4}),?(.*)", re.I | re.A)
#: What says how far from UTC a time is: the last word of it.
_OFFSET = re.compile(r"[+-]\d{1,4}|(?!(?:AM|PM)$)[A-Z]{1,5}|[A-Z]{3}[+-]\d{1,4}")
#: A year that no one means, which the library would take for one of two digits.
_YEAR_0 = re.compile(r"(?<![+\-:\d])0\d{3}(?!\d)")
_ZONES = {"BST": 1, "CET": 1, "CEST": 2, "MET": 1, "MEST": 2, "EET": 2, "EEST": 3, "MSK": 3, "JST": 9, "KST": 9}


def moment(text: str, *, zone: tzinfo = UTC) -> datetime | None:
    """Give the instant in aware UTC, or None; a time without an offset is taken for one of the zone."""
    text = " ".join(text[: _MAX_CHARS + 1].split())
    if not text or len(text) > _MAX_CHARS:
        return None
    try:
        found = _usual(text) or _iso(text, zone) or _rfc822(text, zone)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return found if found is not None and is_plausible(found) else None


def is_plausible(at: datetime) -> bool:
    """Whether somebody can have published then."""
    return at.year in _YEARS and at != _EPOCH


def _usual(text: str) -> datetime | None:
    match = _USUAL.fullmatch(text)
    if match is None:
        return None
    day, month, year, hour, minute, second, sign, hours, minutes = match.groups()
    offset_s = (int(hours) * 3600 + int(minutes) * 60) * (-1 if sign == "-" else 1) if sign else 0
    return _build(int(year), _MONTHS[month], int(day), (hour, minute, second), offset_s, UTC)


def _iso(text: str, own: tzinfo) -> datetime | None:
    match = _ISO.fullmatch(text)
    if match is None:
        return None
    year, _, month, day, hour, minute, second, zone = match.groups()
    if (hour and not day) or (not match[2] and month and not day):
        return None
    offset_s = 0 if zone else None
    if zone and zone[0] in "+-":
        digits = zone[1:].replace(":", "").ljust(4, "0")
        offset_s = (int(digits[:2]) * 3600 + int(digits[2:]) * 60) * (-1 if zone[0] == "-" else 1)
    return _build(int(year), int(month or 1), int(day or 1), (hour, minute, second), offset_s, own)


def _rfc822(text: str, own: tzinfo) -> datetime | None:
    if _YEAR_0.search(text):
        return None
    first = _MONTH_FIRST.fullmatch(text)
    if first is not None:
        text = f"{first[2]} {first[1]} {first[3]} {first[4]}"
    if ":" not in text:
        text += " 00:00:00"
    found = parsedate_tz(text)
    if found is None:
        return None
    year, month, day, hour, minute, second = found[:6]
    zone = text.rpartition(" ")[2].upper()
    offset_s = _ZONES[zone] * 3600 if zone in _ZONES else found[9] or 0
    if zone == "PM" and hour < 12:
        hour += 12
    is_said = offset_s != 0 or _OFFSET.fullmatch(zone) is not None
    return _build(year, month, day, (hour, minute, second), offset_s if is_said else None, own)


def _build(
    year: int, month: int, day: int, clock: tuple[str | int | None, ...], offset_s: int | None, own: tzinfo
) -> datetime | None:
    hour, minute, second = (int(part or 0) for part in clock)
    if abs(offset_s or 0) >= _DAY_S or hour > 24 or minute > 59 or second > 60:
        return None
    at = datetime(year, month, day) + timedelta(hours=hour, minutes=minute, seconds=second - (offset_s or 0))
    return at.replace(tzinfo=UTC if offset_s is not None else own).astimezone(UTC)
