"""The claim: due targets are given to free workers. One round is a plain function; one thread runs it when kicked.

APScheduler's `scrape` job kicks once a second and is the net; whoever frees a worker or asks for a target kicks at
once.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from errors import GleandError, Refused, StoreUnavailable
from fsm.machine import fire
from fsm.states import State, Trigger
from jobs.choice import Choice, is_fresh
from jobs.core import Core, Live
from jobs.robots import known
from model import MAX_FRESH_S, FetchLimits, Order, Target
from store import queries
from store.driver import run_many
from store.queries import TargetRow, Values
from store.writer import Tx

log = logging.getLogger(__name__)
#: Least time between two rounds that nobody asked for (seconds).
LEAST_S = 0.001


def make_order(
    core: Core,
    target: Target,
    *,
    token: int,
    timeout_s: float,
    robots: Values | None = None,
    fresh_s: float = 0.0,
) -> Order:
    """What a worker is told: the target, and what the settings say of its source and of the session."""
    st = core.settings
    limits = FetchLimits(
        connect_timeout_s=st.connect_timeout_s,
        read_timeout_s=st.read_timeout_s,
        body_limit_bytes=int(st.body_limit_bytes),
        max_redirects=st.max_redirects,
        max_posts=st.max_posts_per_run,
        allow_private_networks=st.allow_private_networks,
        allowed_networks=tuple(st.allowed_networks),
        user_agent=st.user_agent + (f" (+{st.contact})" if st.contact else ""),
        respect_robots=st.respect_robots,
    )
    return Order(
        run_id=token,
        token=token,
        target=target,
        timeout_s=timeout_s,
        stall_timeout_s=min(float(st.stall_timeout_s), timeout_s),
        limits=limits,
        robots=robots,
        fresh_s=fresh_s,
        options=st.options_of(target.source),
        scraper=st.scrapers.get(target.source) or core.plugins.get(target.source),
        scraper_path=str(Path(st.scraper_path).resolve()) if st.scraper_path else None,
    )


class Claims:
    """Claims what is due, in batches: a batch costs a few statements, however many targets are in it."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._likely = True
        self.choice = Choice(core)

    def claim(self) -> int:
        """One round: reserve free workers, claim that many targets, hand over after the commit. Returns how many."""
        pool = self._core.pool
        if pool is None or not self._core.ready or self._core.draining:
            return 0
        slots = pool.reserve(max(0, pool.free() - self._left_to_previews()))
        begun: list[int] = []
        asked: Future[list[int]] | None = None
        try:
            if slots and (self._likely or self._anything_due()):
                asked = self._core.writer.submit(lambda tx: self._claim(tx, slots, begun))
                self._likely = bool(self._core.writer.wait(asked, timeout_s=30.0))
        finally:
            if asked is None or asked.done():
                self._release(slots, begun, asked)
            else:  # it has begun, and may still be stored
                asked.add_done_callback(partial(self._release, slots, begun))
        return 0 if asked is None else len(asked.result())

    def _left_to_previews(self) -> int:
        """Places that are not for runs now; a worker that is the only one is for whoever comes first."""
        return len(self._core.awaited) if self._core.settings.workers > 1 else 0

    def _release(self, slots: list[int], begun: list[int], asked: Future[list[int]] | None) -> None:
        """Give back what was not handed over; all of it when the claim was not stored."""
        assert self._core.pool is not None
        stored = asked is not None and not asked.cancelled() and asked.exception() is None
        used = asked.result() if asked is not None and stored else []
        for slot in slots:
            if slot not in used:
                self._core.pool.release(slot)
        if not stored:
            self._let_go(begun)

    def _let_go(self, begun: list[int]) -> None:
        """What a claim took of the hosts' places was for nothing."""
        while begun:
            self._core.hosts.gone(begun.pop())

    def _anything_due(self) -> bool:
        """A read before the write: an idle daemon commits nothing."""
        try:
            with self._core.engine.connect() as conn:
                return bool(queries.waiting(conn, now=self._core.clock.now(), skip=self._skip(), limit=1))
        except SQLAlchemyError as exc:
            raise StoreUnavailable("the database could not be read") from exc

    def _skip(self) -> set[int]:
        """Targets whose last run is not over for us yet, and those that are being removed."""
        return {live.order.target.id for live in list(self._core.live.values())} | set(self._core.removing)

    def _claim(self, tx: Tx, slots: list[int], begun: list[int]) -> list[int]:
        """Claim for as many places as can be; returns those that are used. `begun` gets tokens that took a host."""
        self._let_go(begun)  # of an attempt that was undone
        now = self._core.clock.now()
        ids = self.choice.choose(tx, len(slots), now=now, skip=self._skip())
        rows = {row.id: row for row in tx.conn.execute(queries.TARGETS, {"b_ids": ids})} if ids else {}
        started = self._start(tx, [rows[one] for one in ids if one in rows], now) if ids else []
        for live in started:
            if live.host:
                has_turn = self._core.hosts.begin(live.host, live.order.token)
                live.order = replace(live.order, has_turn=has_turn)
                begun.append(live.order.token)
        pairs = list(zip(slots, started, strict=False))
        tx.after(lambda: self._hand_over(pairs))
        return [slot for slot, _ in pairs]

    # -- starting ------------------------------------------------------------------------------------------------

    def _start(self, tx: Tx, rows: list[TargetRow], now: datetime) -> list[Live]:
        """Move targets to RUNNING: the same step for each, and each statement once for all."""
        core, first = self._core, queries.take_tokens(tx.conn, 2 * len(rows))  # one to start with, one to revoke it
        moves: list[tuple[TargetRow, Values]] = []
        runs, journal, lives = [], [], []
        waiting: dict[int, set[int]] = {}
        for sweep_id, target_id in tx.conn.execute(queries.SWEEPS_OF, {"b_ids": [row.id for row in rows]}):
            waiting.setdefault(target_id, set()).add(sweep_id)
        robots = self._robots(tx, rows, now)
        for number, row in enumerate(rows):
            try:
                step = fire(State(row.state), Trigger.START, core.facts(row), force=row.request_forced)
            except Refused:
                continue  # paused, or its old worker came back to life, since the query
            token = first + 2 * number
            live = self._live(row, token, now, waiting.get(row.id, set()), robots.get(row.host))
            moves.append((row, self._columns(row, token, live)))
            runs.append(self._run(row, token, live))
            asked = row.requested_at is not None
            entry = core.entry(row, Trigger.START, to=step.dest, actor="request" if asked else "schedule", run_id=token)
            journal.append(entry | {"token": token, "forced": row.request_forced})
            lives.append(live)
            core.moved(tx, [row.id], step)
        if not moves:
            return []
        if not queries.step(tx.conn, [row for row, _ in moves], [new for _, new in moves]):
            raise Refused("somebody else moved a target meanwhile", refused_by="holds_token")
        run_many(tx.conn, queries.ADD_RUN, runs)
        run_many(tx.conn, queries.ADD_JOURNAL, journal)
        return lives

    def _robots(self, tx: Tx, rows: list[TargetRow], now: datetime) -> dict[str, Values]:
        """What is known of the robots.txt of their hosts."""
        if not self._core.settings.respect_robots:
            return {}
        found = tx.conn.execute(queries.ROBOTS_OF, {"b_hosts": list({row.host for row in rows if row.host})})
        return {row.host: text for row in found if (text := known(row, now)) is not None}

    def _live(self, row: TargetRow, token: int, now: datetime, sweeps: set[int], robots: Values | None) -> Live:
        core = self._core
        timeout_s = float(row.timeout_s or core.settings.scrape_timeout_s)
        target = Target(
            id=row.id, source=row.source, handle=row.handle, url=row.url, range=row.range, remember=row.remember or {}
        )
        order = make_order(
            core, target, token=token, timeout_s=timeout_s, robots=robots, fresh_s=self._fresh_s(row, now)
        )
        mono = core.clock.monotonic()
        return Live(
            order=order,
            host="" if order.fresh_s else row.host,  # it asks for nothing, or for a turn as any other does
            started=mono,
            progressed=mono,
            beat_at=now,
            progress_at=now,
            deadline_at=now + timedelta(seconds=timeout_s),
            sweeps=sweeps,
        )

    def _fresh_s(self, row: TargetRow, now: datetime) -> float:
        """For how long the site has said there is nothing new; an operator's force asks it all the same."""
        return min((row.fresh_until - now).total_seconds(), MAX_FRESH_S) if is_fresh(row, now) else 0.0

    def _columns(self, row: TargetRow, token: int, live: Live) -> Values:
        return {
            "state": State.RUNNING.value,
            "token": token,
            "run_id": token,
            "boot_id": self._core.boot_id,
            "requested_at": None,
            "request_forced": False,
            "due_at": None,
            "deferred_until": None,
            "asked": row.requested_at is not None,
            "started_at": live.beat_at,
            "deadline_at": live.deadline_at,
            "last_heartbeat": live.beat_at,
            "last_progress_at": live.progress_at,
            "error": None,
            "reason": None,
            "progress": "starting",
        }

    def _run(self, row: TargetRow, token: int, live: Live) -> Values:
        return {
            "id": token,
            "target_id": row.id,
            "token": token,
            "boot_id": self._core.boot_id,
            "state": State.RUNNING.value,
            "started_at": live.beat_at,
            "deadline_at": live.deadline_at,
        }

    def _hand_over(self, pairs: list[tuple[int, Live]]) -> None:
        """Effect: the deadline counts from here."""
        core, mono = self._core, self._core.clock.monotonic()
        assert core.pool is not None
        for slot, live in pairs:
            live.started = live.progressed = mono
            core.live[live.order.token] = live
            core.pool.hand_over(slot, live.order)
            log.info("run_started target=%d run_id=%d", live.order.target.id, live.order.run_id)


class ClaimRound:
    """Runs `once` whenever kicked, and four times a second, on a thread of its own; coalesces kicks."""

    def __init__(self, once: Callable[[], object], *, wait_s: Callable[[], float] = lambda: math.inf) -> None:
        """`wait_s`: how soon the next round has something to do (seconds), asked after each."""
        self._once, self._wait_s = once, wait_s
        self._dirty = threading.Event()
        self._stopped = False
        self._tick = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="claims", daemon=True)

    def start(self) -> None:
        """Start; once."""
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Stop; any number of times, also before start."""
        self._stopped = True
        self._dirty.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def kick(self) -> None:
        """Ask for a round; returns at once."""
        self._dirty.set()

    def tick_age(self) -> float:
        """Seconds since the loop last went round."""
        return time.monotonic() - self._tick

    def _run(self) -> None:
        while not self._stopped:
            self._dirty.wait(min(0.25, max(LEAST_S, self._wait_s())))
            self._dirty.clear()
            self._tick = time.monotonic()
            if self._stopped:
                return
            try:
                self._once()
            except GleandError as exc:
                log.warning('claim_refused error="%s"', exc)
            except Exception:  # noqa: BLE001 - top of the loop
                log.exception("claim_failed")
