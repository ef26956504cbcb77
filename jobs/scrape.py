"""The claim: due targets are given to free workers. One round is a plain function; one thread runs it when kicked.

APScheduler's `scrape` job kicks once a second and is the net; whoever frees a worker or asks for a target kicks at
once.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from errors import GleandError, Refused, StoreUnavailable
from fsm.machine import fire
from fsm.states import State, Trigger
from jobs.core import Core, Live
from model import MAX_FRESH_S, FetchLimits, Order, Target
from store import queries
from store.queries import TargetRow, Values
from store.writer import Tx

log = logging.getLogger(__name__)
#: Waiting targets looked at beyond those that are wanted, at a time, and in one round (count).
LOOK_AHEAD, LOOK_MOST = 30, 1000
#: Waiting targets of a host that stay in sight while it is busy or will be free within SOON_S (count; seconds).
FRONT, SOON_S = 2, 1.0
#: Longest time that a target is deferred at once (seconds).
DEFER_MOST_S = 300.0
#: Hosts whose last deferral is remembered before old ones are forgotten (count).
TAILS = 10_000


class Claims:
    """Claims what is due, in batches: a batch costs a few statements, however many targets are in it."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._likely = True
        #: Whether the last round stopped before it had looked at all that waits.
        self.more = False
        #: When the last of those deferred comes, by host and lane (monotonic).
        self._tails: dict[tuple[str, int], float] = {}

    def _limits(self) -> FetchLimits:
        st = self._core.settings
        return FetchLimits(
            connect_timeout_s=st.connect_timeout_s,
            read_timeout_s=st.read_timeout_s,
            body_limit_bytes=int(st.body_limit_bytes),
            max_redirects=st.max_redirects,
            max_posts=st.max_posts_per_run,
            allow_private_networks=st.allow_private_networks,
            user_agent=st.user_agent + (f" (+{st.contact})" if st.contact else ""),
            respect_robots=st.respect_robots,
        )

    def claim(self) -> int:
        """One round: reserve free workers, claim that many targets, hand over after the commit. Returns how many."""
        pool = self._core.pool
        if pool is None or not self._core.ready or self._core.draining:
            return 0
        slots = pool.reserve(pool.free())
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
        ids = self._choose(tx, len(slots), now)
        rows = {row.id: row for row in tx.conn.execute(queries.TARGETS, {"b_ids": ids})} if ids else {}
        started = self._start(tx, [rows[one] for one in ids if one in rows], now) if ids else []
        for live in started:
            if live.host:
                self._core.hosts.begin(live.host, live.order.token)
                begun.append(live.order.token)
        pairs = list(zip(slots, started, strict=False))
        tx.after(lambda: self._hand_over(pairs))
        return [slot for slot, _ in pairs]

    # -- whose turn it is ----------------------------------------------------------------------------------------

    def _choose(self, tx: Tx, most: int, now: datetime) -> list[int]:
        """Ids of targets that may start, best first.

        Those whose host makes them wait are passed over; when there are many of a host, all but the first few are
        deferred, so that no later round looks at them again before their time.
        """
        chosen: list[int] = []
        taken: Counter[str] = Counter()
        skip, looked, self.more = self._skip(), 0, False
        while len(chosen) < most:
            rows = queries.waiting(tx.conn, now=now, skip=skip, limit=most - len(chosen) + LOOK_AHEAD)
            if looked >= LOOK_MOST and rows:
                self.more = True  # the rest in the next round: other writes must not wait for long
            if not rows or self.more:
                break
            passed: dict[tuple[str, int], list[int]] = {}
            for row in rows:
                if len(chosen) == most:
                    break
                looked += 1
                skip.add(row.id)
                if row.paused_until is not None and row.paused_until > now and not row.request_forced:
                    tx.conn.execute(queries.DEFER, {"b_id": row.id, "b_until": row.paused_until})
                elif row.host and self._core.hosts.wait_s(row.host, beside=taken[row.host]) > 0:
                    passed.setdefault((row.host, row.lane), []).append(row.id)
                elif self._core.worker_of(row.id) == "none":
                    chosen.append(row.id)
                    taken[row.host] += 1
            self._defer(tx, passed, taken, now)
        return chosen

    def _defer(self, tx: Tx, passed: dict[tuple[str, int], list[int]], taken: Counter[str], now: datetime) -> None:
        """Put off targets of hosts that make them wait, each to about when its host will have come to it."""
        hosts, mono, deferred = self._core.hosts, self._core.clock.monotonic(), []
        for key, ids in passed.items():
            wait, pace = hosts.wait_s(key[0], beside=taken[key[0]]), hosts.pace_s(key[0])
            soon = wait == math.inf or wait <= SOON_S
            tail = max(self._tails.get(key, 0.0), mono + (0.0 if wait == math.inf else wait))
            for number, target_id in enumerate(ids):
                if soon and number < FRONT:
                    continue
                until = min(tail, mono + DEFER_MOST_S)
                tail = min(tail + pace, mono + DEFER_MOST_S)
                deferred.append({"b_id": target_id, "b_until": now + timedelta(seconds=until - mono)})
            self._tails[key] = tail
        if deferred:
            tx.conn.execute(queries.DEFER, deferred)
        if len(self._tails) > TAILS:
            self._tails = {key: at for key, at in self._tails.items() if at > mono}

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
        tx.conn.execute(queries.ADD_RUN, runs)
        tx.conn.execute(queries.ADD_JOURNAL, journal)
        return lives

    def _robots(self, tx: Tx, rows: list[TargetRow], now: datetime) -> dict[str, Values]:
        """What is known of the robots.txt of their hosts."""
        if not self._core.settings.respect_robots:
            return {}
        found = tx.conn.execute(queries.ROBOTS_OF, {"b_hosts": list({row.host for row in rows if row.host})})
        return {
            row.host: {
                "status": row.robots_status,
                "text": row.robots_text,
                "age_s": max(0.0, (now - row.robots_at).total_seconds()),
            }
            for row in found
        }

    def _live(self, row: TargetRow, token: int, now: datetime, sweeps: set[int], robots: Values | None) -> Live:
        core, st = self._core, self._core.settings
        timeout_s = float(row.timeout_s or st.scrape_timeout_s)
        target = Target(
            id=row.id, source=row.source, handle=row.handle, url=row.url, range=row.range, remember=row.remember or {}
        )
        order = Order(
            run_id=token,
            token=token,
            target=target,
            timeout_s=timeout_s,
            stall_timeout_s=min(float(st.stall_timeout_s), timeout_s),
            limits=self._limits(),
            robots=robots,
            fresh_s=self._fresh_s(row, now),
            options=st.options_of(row.source),
            scraper=st.scrapers.get(row.source) or core.plugins.get(row.source),
            scraper_path=str(Path(st.scraper_path).resolve()) if st.scraper_path else None,
        )
        mono = core.clock.monotonic()
        return Live(
            order=order,
            host=row.host,
            started=mono,
            progressed=mono,
            beat_at=now,
            progress_at=now,
            deadline_at=now + timedelta(seconds=timeout_s),
            sweeps=sweeps,
        )

    def _fresh_s(self, row: TargetRow, now: datetime) -> float:
        """For how long the site has said there is nothing new; an operator's force asks it all the same."""
        if row.fresh_until is None or row.request_forced:
            return 0.0
        return float(max(0.0, min((row.fresh_until - now).total_seconds(), MAX_FRESH_S)))

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

    def __init__(self, once: Callable[[], object]) -> None:
        self._once = once
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
            self._dirty.wait(0.25)
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
