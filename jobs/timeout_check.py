"""The 30-second net: catches what the pool missed. The rule itself is the service's."""

from __future__ import annotations

import logging

from errors import StoreUnavailable
from jobs.runs import Runs

log = logging.getLogger(__name__)


def check_once(runs: Runs) -> list[int]:
    """One round; returns the targets it moved. A store that refuses is tried again at the next round."""
    try:
        moved = runs.check_timeouts()
    except StoreUnavailable as exc:
        log.warning("timeout_check_postponed error=%s", exc)
        return []
    if moved:
        log.warning("timeout_check_moved targets=%s", moved)
        runs.kick()
    return moved
