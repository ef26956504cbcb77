"""The service: wires every part, owns signals and exit codes. Heavy imports stay inside `run`."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
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
        from api import create_app
        from clock import SystemClock
        from jobs.core import Core
        from jobs.housekeeping import tidy
        from jobs.pool import Pool
        from jobs.scheduler import Clockwork
        from jobs.scrape import ClaimRound
        from jobs.service import Service
        from server import HttpServer
        from store.engine import open_engine
        from store.writer import Writer

        self.settings = settings
        self.engine = open_engine(settings.db_url)
        self.writer = Writer(self.engine, on_commit=lambda: self.core.board.publish())
        self.core = Core(engine=self.engine, writer=self.writer, clock=SystemClock(), settings=settings)
        self.service = Service(self.core)
        self.pool = Pool(
            workers=settings.workers,
            stop_grace_s=settings.stop_grace_s,
            max_scrapes=settings.worker_max_scrapes,
            memory_bytes=int(settings.worker_memory_bytes),
            clock=self.core.clock,
            listener=self.service.runs,
        )
        self.core.pool = self.pool
        self.claims = ClaimRound(self.service.round)
        self.service.runs.kick = self.claims.kick
        self.clockwork = Clockwork(
            scrape=self.claims.kick,
            timeout_check=self.service.timeout_check.once,
            housekeeping=lambda: tidy(self.core),
            check_interval_s=settings.check_interval_s,
        )
        self.http = HttpServer(create_app(self.service, settings), self.service, settings)
        self.service.ticks.update(
            writer=self.writer.tick_age,
            pool=self.pool.tick_age,
            claims=self.claims.tick_age,
            scheduler=self.clockwork.tick_age,
            http=self.http.tick_age,
        )

    def start(self) -> None:
        """Start everything; the port opens last, after recovery, unless the store refuses: then it answers 503.

        Raises:
            OSError: The port cannot be listened on.
            GleandError: The database cannot be used, and trying again would not help.
        """
        from errors import StoreUnavailable

        self.writer.start()
        self.pool.start()
        try:
            self._open_store()
        except StoreUnavailable as exc:
            log.error("store_not_ready error=%s", exc)
        self.claims.start()
        self.clockwork.start()
        self.http.start()
        log.info("daemon_ready host=%s port=%s", self.settings.host, self.http.port)

    def _open_store(self) -> None:
        """Bring the database to the current schema and recover. Raises StoreUnavailable: call again."""
        from store.engine import migrate

        migrate(self.engine)
        recovered = self.service.boot()
        log.info("store_ready boot=%d recovered=%d", self.core.boot_id, recovered)

    def stop(self) -> None:
        """Stop claims, drain within bounds, end what still runs, close; any number of times, also half started."""
        from errors import StoreUnavailable

        self.core.draining = True
        self.clockwork.stop()
        self.claims.stop()
        if not self.pool.wait_idle(self.settings.drain_timeout_s):
            log.warning("drain_ended_early timeout_s=%g", self.settings.drain_timeout_s)
        try:
            self.service.end_boot()
        except StoreUnavailable as exc:
            log.error("shutdown_not_stored error=%s", exc)  # the next start recovers it
        self.pool.stop(self.settings.stop_grace_s + 3.0)
        self.http.stop(3.0)
        self.writer.stop()
        self.engine.dispose()

    def watch(self, stop: threading.Event) -> None:
        """The main loop, once a second until told to stop: has the clock jumped, is the store to be tried again."""
        from errors import StoreUnavailable

        last = time.time() - time.monotonic()
        while not stop.wait(1.0):
            now = time.time() - time.monotonic()
            if abs(now - last) > 2.0:
                log.warning("clock_jumped seconds=%.1f", now - last)
                self.clockwork.reschedule_now()
                self.service.clamp_due()
                self.claims.kick()
            last = now
            if not self.core.ready:
                try:
                    self._open_store()
                except StoreUnavailable as exc:
                    log.warning("store_not_ready error=%s", exc)


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
    sys.setswitchinterval(0.001)  # a thread that computes must not make the door wait
    os.umask(0o077)
    _allow_many_connections()
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
        daemon.watch(stop)
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
    _leave(EXIT_OK)
    return EXIT_OK


def _leave(code: int) -> None:
    """End now when a thread is still at work: the interpreter would wait for it without a limit."""
    alive = [t.name for t in threading.enumerate() if t is not threading.main_thread() and not t.daemon]
    if alive:
        log.warning("threads_left names=%s", alive)
        logging.shutdown()
        sys.stderr.flush()
        os._exit(code)


def _allow_many_connections() -> None:
    """A thousand waiting clients do not fit into the usual soft limit of 1,024 descriptors."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else min(65_536, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def main() -> int:
    """`python daemon.py` is `gleand serve`."""
    sys.argv[1:1] = ["serve"]
    import cli

    return int(cli.main() or 0)


if __name__ == "__main__":
    sys.exit(main())
