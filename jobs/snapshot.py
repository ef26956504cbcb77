"""The board: what status calls are answered from, in memory, without a lock or a query.

The writer publishes after each commit, the pool a few times a second for beats. A page is made when somebody asks
and kept until the next publication. Targets are on the board while somebody asked for them lately.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from errors import NotFound, StoreUnavailable
from fsm.states import State
from jobs import views
from jobs.views import View
from store import queries
from store import schema as s

if TYPE_CHECKING:
    from jobs.core import Core

log = logging.getLogger(__name__)
#: Targets kept on the board that nobody waits for (count).
HELD = 4096
#: Least time between two publications of beats (seconds).
BEAT_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One answer, ready to send."""

    #: JSON in UTF-8.
    body: bytes
    #: Weak; heartbeat times do not change it.
    etag: str


@dataclass(slots=True)
class _Held:
    """A target on the board."""

    row: Any = None  # Any: a row of `targets`
    last_run: View | None = None
    pins: int = 0
    #: Grows with every commit that touched it: what was read before that is not put up.
    seq: int = 0
    #: Version of the board it was made at, and the page.
    made: tuple[int, Page] | None = None


def make_page(view: View) -> Page:
    """Render a status."""
    calm = {k: v for k, v in view.items() if k not in views.HEARTBEATS}
    digest = hashlib.blake2b(json.dumps(calm).encode(), digest_size=9).hexdigest()
    return Page(body=json.dumps(view).encode(), etag=f'W/"{digest}"')


class Board:
    """See the module. Written by the writer's and the pool's threads, read by any."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._lock = threading.Lock()
        self._watchers: list[Callable[[], None]] = []
        self._version = 0
        self._touched: set[int] = set()
        self._sweeps_touched = True
        #: Id of the sweep that ended last in this boot; 0: none did. The times of ends do not say it: clocks are set.
        self.last_sweep = 0
        self._targets: dict[int, _Held] = {}
        self._counts = dict.fromkeys((state.value for state in State), 0)
        self._sweeps: dict[int, Any] = {}  # Any: rows of `sweeps`
        self._last_run: View | None = None
        self._next_due: str | None = None
        self._pages: dict[int | None, tuple[int, Page]] = {}
        self._beat_at = 0.0
        self._beat_pending = False

    # -- what changed (effects of a commit, on the writer's thread) ----------------------------------------------

    def moved(self, ids: Sequence[int], source: str | None, dest: str | None) -> None:
        """Targets went from one state to another; None: they came, or went."""
        if source:
            self._counts[source] -= len(ids)
        if dest:
            self._counts[dest] += len(ids)
        self._touched.update(ids)

    def touch(self, *ids: int) -> None:
        """Something else of these targets changed."""
        self._touched.update(ids)

    def touch_sweeps(self) -> None:
        """A sweep changed."""
        self._sweeps_touched = True

    def sweep_ended(self, sweep_id: int) -> None:
        """A sweep has ended."""
        self.last_sweep, self._sweeps_touched = sweep_id, True

    def counts(self) -> dict[str, int]:
        """Targets per state."""
        return dict(self._counts)

    def held(self) -> list[int]:
        """Targets on the board."""
        return list(self._targets)

    def run_ended(self, run: View) -> None:
        """A run has ended."""
        self._last_run = run

    # -- publication ---------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Read what there is; before the first publication, or again. Raises SQLAlchemyError."""
        with self._core.engine.connect() as conn:
            self._read_sweeps(conn)
            for state, count in conn.execute(select(s.targets.c.state, func.count()).group_by(s.targets.c.state)):
                self._counts[state] = count
            run = conn.execute(queries.LAST_RUN).one_or_none()
            self._last_run = None if run is None else views.run(run)
        self._announce()

    def publish(self) -> None:
        """Called by the writer after each commit; its callers are answered after it."""
        touched, self._touched = self._touched, set()
        try:
            with self._core.engine.connect() as conn:
                if touched or self._sweeps_touched:
                    self._next_due = views.iso(conn.execute(queries.NEXT_DUE).scalar())
                if self._sweeps_touched:
                    self._read_sweeps(conn)
                self._refresh(conn, touched)
        except SQLAlchemyError:
            self._touched |= touched
            self._sweeps_touched = True
            log.exception("publish_failed")
        self._announce()

    def _read_sweeps(self, conn: Any) -> None:  # Any: a Connection
        last = list(conn.execute(queries.SWEEP, {"b_id": self.last_sweep}))
        rows = (last or list(conn.execute(queries.LAST_SWEEP))) + list(conn.execute(queries.ACTIVE_SWEEPS))
        self._sweeps = {row.id: row for row in rows}
        self._sweeps_touched = False

    def _refresh(self, conn: Any, touched: set[int]) -> None:  # Any: a Connection
        waited_for: list[tuple[int, _Held]] = []
        with self._lock:
            for target_id in touched & self._targets.keys():
                held = self._targets[target_id]
                held.seq += 1
                if held.pins:
                    waited_for.append((target_id, held))
                else:
                    del self._targets[target_id]
        for target_id, held in waited_for:
            self._read(conn, target_id, held)

    def _read(self, conn: Any, target_id: int, held: _Held) -> None:  # Any: a Connection
        while True:
            seq = held.seq
            row = conn.execute(queries.TARGET, {"b_id": target_id}).one_or_none()
            run = conn.execute(queries.LAST_RUN_OF, {"b_id": target_id}).one_or_none()
            with self._lock:
                if held.seq == seq:
                    held.row, held.last_run, held.made = row, None if run is None else views.run(run), None
                    return
            conn.rollback()  # it changed meanwhile, and this transaction would go on seeing what was before

    def beat(self, *, now: float, worth: bool = True) -> None:
        """A run moved, or a worker is gone; published at most every BEAT_S, the rest at the next call."""
        self._beat_pending = self._beat_pending or worth
        if self._beat_pending and now - self._beat_at >= BEAT_S:
            self._beat_pending, self._beat_at = False, now
            self._announce()

    def changed(self) -> None:
        """Something in memory changed that a client may wait for (a worker is gone); published at once."""
        self._announce()

    def _announce(self) -> None:
        self._version += 1
        for watcher in self._watchers:
            watcher()

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back after each publication, on another thread; returns what ends that."""
        with self._lock:
            self._watchers = [*self._watchers, callback]

        def end() -> None:
            with self._lock:
                self._watchers = [w for w in self._watchers if w is not callback]

        return end

    # -- reading -------------------------------------------------------------------------------------------------

    def status(self, sweep_id: int | None = None) -> Page | None:
        """STATUS of the sweep that counts, or of a certain one; None when that one is not on the board."""
        version = self._version
        known = self._pages.get(sweep_id)
        if known is not None and known[0] == version:
            return known[1]
        if sweep_id is not None and sweep_id not in self._sweeps:
            return None
        page = make_page(self.status_view(sweep_id))
        if len(self._pages) > 64:
            self._pages = {}
        self._pages[sweep_id] = (version, page)
        return page

    def status_view(self, sweep_id: int | None = None, row: Any = None) -> View:  # Any: a row of `sweeps`
        """STATUS as a value; `row` for a sweep that is not on the board."""
        sweeps = self._sweeps
        if row is None:
            active = [r for r in sweeps.values() if r.active]
            ended = [r for r in sweeps.values() if not r.active]
            chosen = [sweeps[sweep_id]] if sweep_id in sweeps else (active or ended)
            row = max(chosen, key=lambda r: r.id) if chosen else None
        now = self._core.clock.monotonic()
        lives = list(self._core.live.values())
        live = None
        if row is not None and row.active:
            mine = [one for one in lives if row.id in one.sweeps and not one.unsaved]
            live = min(mine, key=lambda one: one.started, default=None)
        view = views.sweep_status(row, live, now)
        if row is None and not self._core.ready:
            view |= {"progress": "Waiting for the database", "error": "the database is not ready yet"}
        counts = self.counts() if self._core.ready else {}  # until then they tell of an earlier boot
        return view | {"next_due_at": self._next_due, "counts": counts, "last_run": self._last_run}

    def target(self, target_id: int) -> Page | None:
        """The full status of a target, or None when it is not on the board."""
        held = self._targets.get(target_id)
        return None if held is None or held.row is None else self._page(held)

    def _page(self, held: _Held) -> Page:
        version, made = self._version, held.made
        if made is None or made[0] != version:
            row, last_run = held.row, held.last_run
            made = (version, make_page(views.target_status(self._core, row, last_run)))
            with self._lock:
                if held.row is row:
                    held.made = made
        return made[1]

    def show(self, target_id: int) -> View:
        """Put a target on the board and give its status; two indexed reads. Raises NotFound, StoreUnavailable."""
        held = self._pin(target_id)
        self.unpin(target_id)
        return views.target_status(self._core, held.row, held.last_run)

    def pin(self, target_id: int) -> Page:
        """Keep a target on the board, until as many `unpin`. Raises NotFound, StoreUnavailable."""
        return self._page(self._pin(target_id))

    def _pin(self, target_id: int) -> _Held:
        if not self._core.ready:
            raise StoreUnavailable("the database is not ready yet", hint="ask again in a few seconds")
        with self._lock:
            if len(self._targets) > HELD:
                self._targets = {k: v for k, v in self._targets.items() if v.pins}
            held = self._targets.setdefault(target_id, _Held())
            held.pins += 1
        try:
            with self._core.engine.connect() as conn:
                self._read(conn, target_id, held)
        except SQLAlchemyError as exc:
            self.unpin(target_id)
            raise StoreUnavailable("the database could not be read") from exc
        if held.row is None:
            self.unpin(target_id)
            raise NotFound(f"there is no target {target_id}")
        return held

    def unpin(self, target_id: int) -> None:
        """See pin."""
        with self._lock:
            held = self._targets.get(target_id)
            if held is not None:
                held.pins = max(0, held.pins - 1)
