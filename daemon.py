"""The service: wires every part, owns signals and exit codes. Heavy imports stay inside `run`."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: Stopped as asked.
EXIT_OK = 0
#: Settings that cannot work; a restart would not help.
EXIT_CONFIG = 78
#: Another daemon holds the database, or the port is taken.
EXIT_BUSY = 75
#: A second signal, or a part that could not be stopped.
EXIT_HARD = 70

log = logging.getLogger("gleand")


class Daemon:
    """Everything, built in the order it starts and stopped in reverse."""

    def __init__(self, settings: Any) -> None:  # Any: config.Settings, imported late
        from jobs.pool import Pool

        from clock import SystemClock
        from jobs.core import Core
        from jobs.housekeeping import tidy
        from jobs.scheduler import Clockwork
        from jobs.scrape import ClaimRound
        from jobs.service import Service
        from jobs.timeout_check import check_once
        from store.engine import open_engine
        from store.writer import Writer

        self.settings = settings
        self.engine = open_engine(settings.db_url)
        self._publish: Callable[[], None] = lambda: None
        self.writer = Writer(self.engine, on_commit=lambda: self._publish())
        self.core = Core(engine=self.engine, writer=self.writer, clock=SystemClock(), settings=settings)
        self.service = Service(self.core)
        self._publish = self.service.publish
        runs = self.service.runs
        self.pool = Pool(
            workers=settings.workers,
            stop_grace_s=settings.stop_grace_s,
            max_scrapes=settings.worker_max_scrapes,
            memory_bytes=settings.worker_memory_bytes,
            clock=self.core.clock,
            listener=runs,
        )
        self.core.pool = self.pool
        self.claims = ClaimRound(runs.claim, runs.drain_backlog)
        runs.kick = self.claims.kick
        self.clockwork = Clockwork(
            scrape=self.claims.kick,
            timeout_check=lambda: check_once(runs),
            housekeeping=lambda: tidy(self.core),
            check_interval_s=settings.check_interval_s,
        )
        self.http: Any = None  # Any: server.HttpServer, built once the store stands

    def start(self) -> None:
        """Start everything; the port opens last, after recovery."""
        from api import create_app
        from server import HttpServer

        from store.engine import migrate

        migrate(self.engine)
        self.writer.start()
        self._boot()
        self.pool.start()
        recovered = self.service.runs.recover()
        if recovered:
            log.warning("runs_recovered count=%d", recovered)
        self.core.dirty = True
        self.service.publish()
        self.claims.start()
        self.clockwork.start()
        self.http = HttpServer(create_app(self.service, self.settings), self.service, self.settings)
        self.http.start()
        self.service.ticks.update(
            writer=self.writer.tick_age,
            pool=self.pool.tick_age,
            claims=self.claims.tick_age,
            scheduler=self.clockwork.tick_age,
            http=self.http.tick_age,
        )
        log.info("daemon_ready host=%s port=%s", self.settings.host, self.http.port)

    def _boot(self) -> None:
        from sqlalchemy import func, insert, select

        from store import schema as s
        from store.writer import Tx

        def op(tx: Tx) -> int:
            stmt = insert(s.boots).values(started_at=self.core.clock.now()).returning(s.boots.c.id)
            for state, count in tx.conn.execute(select(s.targets.c.state, func.count()).group_by(s.targets.c.state)):
                self.core.counts[state] = count
            return int(tx.conn.execute(stmt).scalar_one())

        self.core.boot_id = self.writer.run(op)

    def stop(self) -> None:
        """Stop claims, drain within bounds, end what still runs, close."""
        from errors import StoreUnavailable

        self.core.draining = True
        self.clockwork.stop()
        self.claims.stop()
        until = time.monotonic() + self.settings.drain_timeout_s
        while self.pool.busy() and time.monotonic() < until:
            time.sleep(0.05)
        try:
            self.service.runs.drain_backlog()
            self.service.runs.interrupt_all()
        except StoreUnavailable as exc:
            log.error("shutdown_not_stored error=%s", exc)  # the next start recovers it
        self.pool.stop(self.settings.stop_grace_s + 3.0)
        if self.http is not None:
            self.http.stop(3.0)
        self.writer.stop()
        self.engine.dispose()

    def watch_clock(self, stop: threading.Event) -> None:
        """The main loop: until told to stop, look once a second whether the wall clock jumped."""
        last = time.time() - time.monotonic()
        while not stop.wait(1.0):
            now = time.time() - time.monotonic()
            if abs(now - last) > 2.0:
                log.warning("clock_jumped seconds=%.1f", now - last)
                self.clockwork.reschedule_now()
                self.service.runs.clamp_due()
            last = now


def run(settings: Any) -> int:  # Any: config.Settings, imported late
    """Run the daemon until a signal ends it; returns the exit code."""
    from errors import GleandError
    from store.engine import DatabaseHeld, lock_database

    logging.basicConfig(
        level=str(settings.log_level).upper(),
        format="ts=%(asctime)s level=%(levelname)s logger=%(name)s %(message)s",
        stream=sys.stderr,
    )
    for name in [n for n in os.environ if n.startswith("GLEAND_")]:
        del os.environ[name]  # secrets do not reach a worker
    os.umask(0o077)
    if settings.db_url.startswith("sqlite"):
        Path(settings.data_dir).mkdir(parents=True, exist_ok=True)
    stop = threading.Event()

    def on_signal(number: int, _frame: object) -> None:
        if stop.is_set():
            os._exit(EXIT_HARD)  # asked twice: now; workers die with us
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    try:
        lock = lock_database(settings.db_url)
    except DatabaseHeld as exc:
        print(f"gleand: {exc.message}", file=sys.stderr)
        return EXIT_BUSY
    daemon = Daemon(settings)
    try:
        daemon.start()
        daemon.watch_clock(stop)
    except OSError as exc:
        print(f"gleand: cannot listen on {settings.host}:{settings.port}: {exc.strerror or exc}", file=sys.stderr)
        return EXIT_BUSY
    except GleandError as exc:
        print(f"gleand: {exc.message}", file=sys.stderr)
        return EXIT_HARD
    finally:
        daemon.stop()
        if lock is not None:
            lock.close()
    return EXIT_OK


def main() -> int:
    """`python daemon.py` is `gleand serve`."""
    sys.argv[1:1] = ["serve"]
    import cli

    return int(cli.main() or 0)


if __name__ == "__main__":
    sys.exit(main())
