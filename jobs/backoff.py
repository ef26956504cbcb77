"""When a target that failed is tried again: exponential, jittered, capped; it never gives up. Pure but for the dice."""

from __future__ import annotations

import random
from dataclasses import dataclass

from jobs.network import RETRY_S
from model import Outcome

#: After the first failure (seconds); doubled with each further one.
FIRST_S = 60.0
#: Failures in a row from which on a target that is not found (404) is looked for once a day only (count).
GONE_TIMES = 3
DAY_S = 86400.0
#: Longest time that a target is paused for because its site does not let us in (seconds).
PAUSE_MOST_S = 7 * DAY_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """What follows a failure."""

    #: Failures in a row, as they are counted from here on.
    attempt: int
    #: From now (seconds).
    wait_s: float
    #: It may come before the next regular turn.
    sooner: bool = False
    #: Why the target is paused until then; empty: it is not.
    pause_why: str = ""


def after_failure(
    attempt: int, outcome: Outcome | None, *, cap_s: float, network_is_down: bool, spread: float | None = None
) -> Retry:
    """Decide when a target that failed is tried again.

    Args:
        attempt: Failures in a row before this one.
        outcome: What the worker told; None: its process ended, or was ended, without a word.
        cap_s: The longest wait of the exponential backoff.
        spread: 0 to 1, where in the jitter; None: at random.
    """
    status = None if outcome is None else outcome.status
    asked = None if outcome is None else outcome.retry_after_s
    if outcome is not None and outcome.unreachable and network_is_down:
        return Retry(attempt=attempt, wait_s=_jittered(RETRY_S, spread), sooner=True)
    if outcome is not None and outcome.no_turn:
        return Retry(attempt=attempt, wait_s=_jittered(asked or RETRY_S, spread), sooner=True)
    wait = max(backoff_s(attempt + 1, cap_s=cap_s, spread=spread), asked or 0.0)
    if status == 410 or (status == 404 and attempt + 1 >= GONE_TIMES):
        wait = max(wait, _jittered(DAY_S, spread))
    elif status in (401, 403) and asked is None:  # else it is a rate limit
        wait = max(wait, min(DAY_S * 2 ** min(attempt, 10), PAUSE_MOST_S))
        return Retry(attempt=attempt + 1, wait_s=wait, pause_why=f"the site does not let us in (status {status})")
    return Retry(attempt=attempt + 1, wait_s=wait)


def backoff_s(failures: int, *, cap_s: float, spread: float | None = None) -> float:
    """Seconds to wait after that many failures in a row."""
    return _jittered(min(FIRST_S * 2 ** min(failures - 1, 16), cap_s), spread)


def _jittered(seconds: float, spread: float | None) -> float:
    part = random.random() if spread is None else spread
    return seconds * (0.75 + 0.5 * part)
