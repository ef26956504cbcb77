"""The wall clock was set, or may have been while nobody watched: nothing waits for the time that was.

Durations are not touched by it: deadlines, and the pauses of hosts in memory, are by the monotonic clock.
"""

from __future__ import annotations

from datetime import datetime, timedelta, tzinfo
from functools import partial

from sqlalchemy import Float, and_, not_, or_, select, type_coerce, update

from jobs import schedules
from jobs.backoff import PAUSE_MOST_S
from jobs.core import Core
from model import MAX_FRESH_S, MAX_WAIT_S
from store import schema as s
from store.writer import Tx

_T, _H = s.targets.c, s.hosts.c
_FAILING = or_(_T.attempt > 0, _T.interrupted > 0)


def set_right(core: Core, tx: Tx, *, jump_s: float, zone: tzinfo) -> None:
    """Let no target, and no host, wait for longer than it may.

    Args:
        jump_s: How far the clock was set just now (seconds). What sites asked for goes back with it, but not forward:
            a machine that slept looks the same.
        zone: In which crontab lines are read.
    """
    now = core.clock.now()
    if jump_s < 0:
        _back(core, tx, jump_s, now)
    _turns(core, tx, now, zone)
    _requests(tx, now)
    _bounds(tx, now)


def _turns(core: Core, tx: Tx, now: datetime, zone: tzinfo) -> None:
    """A next turn is at most one interval away, or the longest that a failing target waits."""
    plans = select(_T.schedule, _FAILING.label("failing")).where(_T.due_at > now).distinct()
    for plan in tx.conn.execute(plans).all():
        latest = schedules.latest(plan.schedule, failing=bool(plan.failing), now=now, zone=zone)
        same = and_(_T.schedule == plan.schedule, _FAILING if plan.failing else not_(_FAILING))
        far = update(s.targets).where(same, _T.due_at > latest).values(due_at=latest).returning(_T.id)
        tx.after(partial(core.board.touch, *tx.conn.execute(far).scalars().all()))


def _requests(tx: Tx, now: datetime) -> None:
    """What was asked for was asked for by now; what is deferred is looked at anew."""
    tx.conn.execute(update(s.targets).where(_T.requested_at > now).values(requested_at=now))
    tx.conn.execute(update(s.targets).where(_T.deferred_until > now).values(deferred_until=None))


def _back(core: Core, tx: Tx, jump_s: float, now: datetime) -> None:
    """What counts from when it was set goes back with the clock."""
    waits = and_(_FAILING, _T.due_at > now)
    sooner = update(s.targets).where(waits).values(due_at=type_coerce(_T.due_at, Float) + jump_s).returning(_T.id)
    tx.after(partial(core.board.touch, *tx.conn.execute(sooner).scalars().all()))
    own = _T.paused_why.is_not(None)  # an operator's pause ends when the operator said
    tx.conn.execute(update(s.targets).where(own).values(paused_until=type_coerce(_T.paused_until, Float) + jump_s))
    fresh = _T.fresh_until.is_not(None)
    tx.conn.execute(update(s.targets).where(fresh).values(fresh_until=type_coerce(_T.fresh_until, Float) + jump_s))
    tx.conn.execute(update(s.hosts).values(next_allowed_at=type_coerce(_H.next_allowed_at, Float) + jump_s))


def _bounds(tx: Tx, now: datetime) -> None:
    """What lies further away than anything that is ever set is of a time that was."""
    longest = now + timedelta(seconds=PAUSE_MOST_S)
    own = and_(_T.paused_why.is_not(None), _T.paused_until > longest)
    tx.conn.execute(update(s.targets).where(own).values(paused_until=longest))
    fresh = _T.fresh_until > now + timedelta(seconds=MAX_FRESH_S)
    tx.conn.execute(update(s.targets).where(fresh).values(fresh_until=None))
    asked = _H.next_allowed_at > now + timedelta(seconds=MAX_WAIT_S)
    tx.conn.execute(update(s.hosts).where(asked).values(next_allowed_at=now))
