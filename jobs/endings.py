"""How runs end, in the transaction: state, posts, run row, journal, next turn, host and sweeps.

Every ending goes through `Endings.end_all`, whoever says so; a batch costs a few statements, however many are in it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, tzinfo

from errors import LostRace, Refused, Unusable
from fsm.machine import Step, fire
from fsm.states import State, Trigger
from jobs import backoff, schedules, sweeps
from jobs.core import Core
from jobs.views import View, iso
from model import Outcome
from sources.urls import host_of, is_http, normalise_url
from store import queries
from store.driver import run_many
from store.posts import Find, Kept, keep_all
from store.queries import TargetRow, Values
from store.writer import Tx

log = logging.getLogger(__name__)

#: Permanent redirects to the same address in a row that change a target's own (count).
MOVED_TIMES = 3
#: Why a host is to be left alone, where the scraper is one of the user's own.
ASKED_TO_WAIT = "the host asked to wait (Retry-After)"
#: Columns of a target that belong to its last run; a reset clears them.
RUN_COLUMNS = ("started_at", "deadline_at", "last_heartbeat", "last_progress_at", "error", "reason", "progress")
#: Columns that an ending writes; those it does not change are written as they are, so that one statement fits all.
_WRITTEN = (
    *RUN_COLUMNS,
    "attempt",
    "interrupted",
    "requested_at",
    "request_rank",
    "last_scraped",
    "post_count",
    "remember",
    "display_name",
    "url",
    "host",
    "fresh_until",
    "moved_to",
    "moved_times",
    "paused_until",
    "paused_why",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a run is to end, and who says so."""

    trigger: Trigger
    actor: str
    #: Shown to clients.
    error: str | None = None
    #: Shown where old clients put it into HTML; None: `error`.
    public_error: str | None = None
    #: One word, or an operator's sentence.
    reason: str | None = None
    #: What the caller came with; None: an operator.
    token: int | None = None
    force: bool = False
    outcome: Outcome | None = None
    #: The caller measured it by its own monotonic clock.
    overdue: bool = False


@dataclass(frozen=True, slots=True)
class _Taken:
    """An ending that the lifecycle permits."""

    row: TargetRow
    how: Ending
    step: Step
    duration_s: float | None


class Endings:
    """See the module."""

    def __init__(self, core: Core) -> None:
        self._core = core
        #: Called when something ended.
        self.kick: Callable[[], None] = lambda: None

    def end(self, tx: Tx, row: TargetRow, how: Ending) -> State:
        """End one run.

        Raises:
            Refused: The lifecycle, or a faster writer, said no; nothing was changed.
        """
        (answer,) = self.end_all(tx, [(row, how)])
        if isinstance(answer, Refused):
            raise answer
        return answer

    def end_all(self, tx: Tx, pairs: Sequence[tuple[TargetRow, Ending]]) -> list[State | Refused]:
        """End runs of different targets, which are RUNNING.

        Returns:
            For each the state it went to, or why the lifecycle said no.

        Raises:
            LostRace: Somebody else moved one of them meanwhile; the operation is to be undone.
        """
        answers: list[State | Refused] = []
        taken: list[_Taken] = []
        for row, how in pairs:
            try:
                one = self._fire(row, how)
            except Refused as exc:
                answers.append(exc)
            else:
                answers.append(one.step.dest)
                taken.append(one)
        if taken:
            self._write(tx, taken, self._core.clock.now())
        return answers

    def abandon(self, tx: Tx, target_id: int, how: Ending) -> None:
        """End a run with as little as possible, when all that belongs to an ending cannot be stored.

        Left out: posts, the next regular turn (it is due in backoff_cap_s), the host.
        """
        core, now = self._core, self._core.clock.now()
        row = core.row(tx, target_id)
        later = now + timedelta(seconds=float(core.settings.backoff_cap_s))
        values = {"error": how.error, "reason": how.reason, "progress": None, "asked": False, "due_at": later}
        facts = replace(core.facts(row, claimed_token=row.token), overdue=True, owner_gone=True)
        step = core.move(tx, row, how.trigger, facts, actor=how.actor, reason=how.error, values=values)
        ended = {"state": step.dest.value, "ended_at": now, "error": how.error, "reason": how.reason}
        tx.conn.execute(queries.SET_RUN, {"b_id": row.run_id} | ended)
        sweeps.member_done(core, tx, row.id, step.dest, how.public_error or how.error)
        tx.after(lambda: core.stop_worker(row.token))

    def _fire(self, row: TargetRow, how: Ending) -> _Taken:
        core = self._core
        facts = core.facts(row, claimed_token=how.token)
        if how.overdue:
            facts = replace(facts, overdue=True)
        step = fire(State(row.state), how.trigger, facts, force=how.force)
        live = core.live.get(row.token)
        duration_s = None if live is None else round(core.clock.monotonic() - live.started, 3)
        return _Taken(row, how, step, duration_s)

    def _write(self, tx: Tx, taken: Sequence[_Taken], now: datetime) -> None:
        core = self._core
        finds = [_find(one.row.id, one.how.outcome) for one in taken if _completes(one) and one.how.outcome]
        kept = dict(zip((find.target_id for find in finds), keep_all(tx.conn, finds, now=now), strict=True))
        moves = [self._columns(one, kept.get(one.row.id), now) for one in taken]
        if not queries.step(tx.conn, [one.row for one in taken], moves):
            raise LostRace("somebody else closed this run first", refused_by="holds_token")
        runs = [_run(one, kept.get(one.row.id), now) for one in taken]
        own = [{"b_id": one.row.run_id} | run for one, run in zip(taken, runs, strict=True)]
        run_many(tx.conn, queries.SET_RUN, own)
        run_many(tx.conn, queries.ADD_JOURNAL, [self._entry(one) for one in taken])
        done = {
            one.row.id: (one.step.dest, one.how.public_error or one.how.error)
            for one in taken
            if one.how.trigger is not Trigger.INTERRUPT
        }
        sweeps.members_done(core, tx, done)
        self._hosts_wait(tx, taken, now)
        tx.after(lambda: self._ended(taken, runs))

    def _entry(self, one: _Taken) -> Values:
        row, how = one.row, one.how
        return self._core.entry(
            row,
            how.trigger,
            to=one.step.dest,
            actor=how.actor,
            reason=how.reason or how.error,
            forced=how.force,
            run_id=row.run_id,
        )

    def _ended(self, taken: Sequence[_Taken], runs: Sequence[View]) -> None:
        """Effect: nothing of these runs is alive for us any more."""
        core = self._core
        for one, run in zip(taken, runs, strict=True):
            row = one.row
            core.board.moved([row.id], one.step.source.value, one.step.dest.value)
            if "stop_worker" in one.step.effects:
                core.stop_worker(row.token)
            core.live.pop(row.token, None)
            times = {"started_at": iso(row.started_at), "deadline_at": iso(row.deadline_at)}
            ids = {"id": row.run_id, "target_id": row.id, "token": row.token}
            core.board.run_ended(ids | run | times | {"ended_at": iso(run["ended_at"])})
            why = f' error="{run["error"]}"' if run["error"] else ""
            log.info("run_ended target=%d run_id=%s state=%s%s", row.id, row.run_id, run["state"], why)
        self.kick()

    def _columns(self, one: _Taken, kept: Kept | None, now: datetime) -> Values:
        row, how, live = one.row, one.how, self._core.live.get(one.row.token)
        values: Values = {name: getattr(row, name) for name in _WRITTEN}
        values |= {"state": one.step.dest.value, "error": how.error, "reason": how.reason}
        values |= {"progress": None, "asked": False}
        values["token"] = row.token + ("revoke_token" in one.step.effects)
        if live is not None:
            values |= {"last_heartbeat": live.beat_at, "last_progress_at": live.progress_at}
        if how.trigger is Trigger.RESET:
            values |= dict.fromkeys(RUN_COLUMNS)
        if kept is not None and how.outcome is not None:
            values |= {"last_scraped": now, "post_count": row.post_count + kept.new} | _learnt(row, how.outcome, now)
        return values | self._next_turn(row, how, now)

    def _next_turn(self, row: TargetRow, how: Ending, now: datetime) -> Values:
        regular = self.next_time(row.schedule, now)
        if how.trigger is Trigger.INTERRUPT:
            wait = (
                0.0
                if row.interrupted < 1
                else backoff.backoff_s(row.interrupted, cap_s=float(self._core.settings.backoff_cap_s))
            )
            values: Values = {"due_at": now + timedelta(seconds=wait), "interrupted": row.interrupted + 1}
            # What a client asked for goes on the queue again, so that asking twice stays refused.
            return values | ({"requested_at": now, "request_rank": 0} if row.asked and not wait else {})
        if how.trigger in (Trigger.COMPLETE, Trigger.RESET):
            fresh_s = 0.0 if how.outcome is None else how.outcome.fresh_s
            due = None if regular is None else max(regular, now + timedelta(seconds=fresh_s))
            return {"due_at": due, "attempt": 0, "interrupted": 0}
        failed = backoff.after_failure(
            row.attempt,
            how.outcome,
            cap_s=float(self._core.settings.backoff_cap_s),
            network_is_down=self._core.network.is_down,
        )
        values = {"attempt": failed.attempt, "interrupted": 0}
        due = None if regular is None else now + timedelta(seconds=failed.wait_s)
        values["due_at"] = due if due is None or regular is None or failed.sooner else max(regular, due)
        return values | _pause(row, failed, values["due_at"], now)

    def next_time(self, schedule: str, after: datetime) -> datetime | None:
        """When a schedule fires next, in the time zone of the settings."""
        return schedules.next_time(schedule, after=after, zone=self.zone())

    def zone(self) -> tzinfo:
        """The time zone crontab lines are read in."""
        return schedules.zone_of(self._core.settings.timezone)

    def _hosts_wait(self, tx: Tx, taken: Sequence[_Taken], now: datetime) -> None:
        """Keep what a scraper of the user's own was told; a session of ours told it at once (runs.said)."""
        for one in taken:
            outcome = one.how.outcome
            if outcome is not None and outcome.untold and outcome.retry_after_s and one.row.host:
                self.host_asked(tx, one.row.host, outcome.retry_after_s, ASKED_TO_WAIT, now)

    def host_asked(self, tx: Tx, host: str, seconds: float, why: str, now: datetime) -> None:
        """A host asked to be left alone for so long."""
        self._core.hosts.block(host, seconds, why)
        queries.block_host(tx.conn, host, until=now + timedelta(seconds=seconds), reason=why)
        sweeps.give_up_on_hosts(self._core, tx)


def _find(target_id: int, outcome: Outcome) -> Find:
    whole = outcome.contiguous and not outcome.truncated
    return Find(target_id=target_id, posts=outcome.posts, contiguous=whole)


def _completes(one: _Taken) -> bool:
    return one.step.dest is State.COMPLETED


def _run(one: _Taken, kept: Kept | None, now: datetime) -> View:
    outcome = one.how.outcome if _completes(one) else None
    return {
        "state": one.step.dest.value,
        "ended_at": now,
        "duration_s": one.duration_s,
        "error": one.how.error,
        "reason": one.how.reason,
        "posts_seen": kept.seen if kept else 0,
        "posts_new": kept.new if kept else 0,
        "posts_edited": kept.edited if kept else 0,
        "truncated": outcome is not None and outcome.truncated,
        "gap": kept is not None and kept.new == kept.seen > 0 and one.row.post_count > 0,
    }


def _learnt(row: TargetRow, outcome: Outcome, now: datetime) -> Values:
    """What a completed run says about its target."""
    known = (row.remember if outcome.remember is None else outcome.remember) or {}
    is_fresh = outcome.fresh_s > 0 and known.get("url")  # what is not remembered has to be asked for
    fresh = now + timedelta(seconds=outcome.fresh_s) if is_fresh else None
    values: Values = {"fresh_until": fresh, "paused_why": None}
    if outcome.reached:  # a run within the site's max-age asks for nothing, and learns nothing of where it leads
        values |= _moving(row, outcome.moved_to)
    if outcome.remember is not None:
        values["remember"] = dict(outcome.remember)
    profile = outcome.profile
    if profile is not None and profile.display_name and not row.display_name:
        values["display_name"] = profile.display_name[:300]
    if profile is not None and profile.url:
        values |= _moved_to(profile.url)
    return values


def _pause(row: TargetRow, failed: backoff.Retry, due: datetime | None, now: datetime) -> Values:
    """What a failure changes of a target's pause: never one of an operator's that is in force."""
    is_paused = row.paused_until is not None and row.paused_until > now
    if failed.pause_why and not (is_paused and row.paused_why is None):
        return {"paused_until": due or now + timedelta(seconds=failed.wait_s), "paused_why": failed.pause_why}
    return {} if is_paused else {"paused_why": None}


def _moving(row: TargetRow, url: str) -> Values:
    """An address that leads elsewhere for ever is believed once it has said so MOVED_TIMES in a row."""
    if not url or not is_http(row.handle):  # of an account, the address is the source's to know
        return {"moved_to": None, "moved_times": 0}
    times = row.moved_times + 1 if url == row.moved_to else 1
    if times < MOVED_TIMES:
        return {"moved_to": url[:2048], "moved_times": times}
    log.info("target_moved target=%d", row.id)
    return {"moved_to": None, "moved_times": 0} | _moved_to(url)


def _moved_to(url: str) -> Values:
    """The address a target is scraped at from now on; what is not a usable one is ignored."""
    try:
        known = normalise_url(url)
    except Unusable:
        return {}
    return {"url": known, "host": host_of(known)}
