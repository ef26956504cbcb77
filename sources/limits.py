"""What the headers of an answer ask of us: how long to leave the host alone, how long there is nothing new.

Pure: no request, no clock of its own. Headers are looked up without regard to case; whatever cannot be read is passed
over. Sources: RFC 9110 (Retry-After), RFC 9111 (Cache-Control, Age, Expires), draft-ietf-httpapi-ratelimit-headers,
docs.github.com (X-RateLimit-Reset as a time, X-Poll-Interval), docs.joinmastodon.org (X-RateLimit-Reset as a date).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from model import MAX_FRESH_S, MAX_WAIT_S

#: How long a host that says "too many" without saying until when is left alone (seconds).
UNSAID_S = 60.0
#: A number of this size is a time since 1970, in seconds or milliseconds, not a number of seconds from now.
_EPOCH, _EPOCH_MS = 1e9, 1e11
_LEFT = ("X-RateLimit-Remaining", "RateLimit-Remaining", "X-Rate-Limit-Remaining")
_RESET = ("X-RateLimit-Reset", "RateLimit-Reset", "X-Rate-Limit-Reset")
_ITEM = re.compile(r";\s*([rt])\s*=\s*(\d{1,12})(?=\s*(?:[;,]|$))")
_MAX_AGE = re.compile(r"(?:^|[,\s])max-age\s*=\s*\"?(\d{1,12})", re.IGNORECASE)
_NO_CACHE = re.compile(r"(?:^|[,\s])no-(?:cache|store)(?:$|[,\s])", re.IGNORECASE)


def retry_after_s(value: str | None, *, now: datetime) -> float | None:
    """Read Retry-After: seconds or an HTTP date. None for anything else; a date that has passed is 0."""
    text = (value or "").strip()
    if text.isascii() and text.isdecimal():
        return min(float(text[:20]), MAX_WAIT_S)
    at = _date(text)
    return None if at is None else min(max((at - now).total_seconds(), 0.0), MAX_WAIT_S)


def asked_wait(status: int, headers: Mapping[str, str], *, now: datetime) -> tuple[float, str] | None:
    """How long the host is to be left alone (seconds), and why; None when it does not ask for that.

    Args:
        status: Of the answer. 429 and 503 ask for a wait, the former also without saying how long.
        headers: With keys in any case (requests' own mapping, or another that ignores case).
    """
    wait = retry_after_s(headers.get("Retry-After"), now=now) if status in (403, 429, 503) else None
    if wait is not None:
        return wait, "the host asked to wait (Retry-After)"
    spent = _spent(headers, now)
    if spent is not None:
        return spent, "the host's rate limit is used up"
    return (UNSAID_S, "the host said too many requests (429)") if status == 429 else None


def fresh_s(headers: Mapping[str, str], *, now: datetime) -> float:
    """How long there will be nothing new at the address (seconds); 0 when nothing is said."""
    longest = 0.0
    poll = headers.get("X-Poll-Interval", "").strip()
    if poll.isascii() and poll.isdecimal():
        longest = float(poll[:12])
    rules = headers.get("Cache-Control", "")
    found = _MAX_AGE.search(rules)
    if _NO_CACHE.search(rules):
        pass
    elif found:
        age = headers.get("Age", "").strip()
        spent = float(age[:12]) if age.isascii() and age.isdecimal() else 0.0
        longest = max(longest, float(found[1]) - spent)
    else:
        until, since = _date(headers.get("Expires", "")), _date(headers.get("Date", "")) or now
        if until is not None:
            longest = max(longest, (until - since).total_seconds())
    return min(max(longest, 0.0), MAX_FRESH_S)


def _spent(headers: Mapping[str, str], now: datetime) -> float | None:
    """Until the limit starts anew, where nothing of it is left."""
    policies = [dict(_ITEM.findall(policy)) for policy in headers.get("RateLimit", "").split(",")]
    waits = [float(policy["t"]) for policy in policies if policy.get("r") == "0" and "t" in policy]
    if waits:
        return min(max(waits), MAX_WAIT_S)
    left = next((headers[name].strip() for name in _LEFT if name in headers), "")
    if not re.fullmatch(r"0(\.0*)?", left):
        return None
    reset = next((headers[name].strip() for name in _RESET if name in headers), "")
    if re.fullmatch(r"\d{1,15}(\.\d*)?", reset):
        seconds = float(reset)
        seconds = seconds / 1000 if seconds > _EPOCH_MS else seconds
        wait = seconds - now.timestamp() if seconds > _EPOCH else seconds
    else:
        at = _date(reset)
        wait = UNSAID_S if at is None else (at - now).total_seconds()
    return min(max(wait, 0.0), MAX_WAIT_S)


def _date(text: str) -> datetime | None:
    """An HTTP date, or ISO 8601 as Mastodon writes it."""
    text = text.strip()[:100]
    for read in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            at = read(text)
            return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
        except (TypeError, ValueError, OverflowError, IndexError):
            continue
    return None
