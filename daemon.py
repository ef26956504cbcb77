"""The service: wires every part, owns signals and exit codes. Heavy imports stay inside `run`.

A little over the budget of lines: what belongs to the process as a whole (systemd, signals, log) has no other room.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from concurrent.futures import Future
    from wsgiref.types import WSGIApplication

#: Stopped as asked.
EXIT_OK = 0
#: Settings, or a database, that cannot work; a restart would not help.
EXIT_CONFIG = 78
#: Another daemon holds the database, or the port is taken.
EXIT_BUSY = 75
#: A second signal, or a part that could not be stopped.
EXIT_HARD = 70

log = logging.getLogger("gleand")


class Supervisor:
    """systemd, when we are its child: what it is told (sd_notify), and the socket it may have opened for us.

    Source: sd_notify(3), sd_listen_fds(3).
    """

    #: The first descriptor that is passed.
    FIRST_FD = 3

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        """Take what concerns us out of the environment: it is not for the workers."""
        self._address = environ.pop("NOTIFY_SOCKET", "")
        mine = environ.pop("LISTEN_PID", "") == str(os.getpid())
        passed = environ.pop("LISTEN_FDS", "")
        environ.pop("LISTEN_FDNAMES", None)
        self._passed = int(passed) if mine and passed.isdigit() else 0
        for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
            environ.pop(name, None)

    def listener(self) -> socket.socket | None:
        """The listening socket that was passed, if one was."""
        if not self._passed:
            return None
        os.set_inheritable(self.FIRST_FD, False)
        return socket.socket(fileno=self.FIRST_FD)

    def tell(self, *lines: str) -> None:
        """Send assignments such as `READY=1`; nothing where nobody asked."""
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.sendto("\n".join(lines).encode(), address)
        except OSError as exc:
            log.warning('supervisor_not_told error="%s"', exc)

    def extend(self, seconds: float) -> None:
        """Ask for more time to start or stop."""
        self.tell(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")


class Signals:
    """SIGTERM and SIGINT ask for the end, SIGHUP for the settings to be read again; a second SIGTERM ends at once.

    The handler takes no lock: it may run while the main thread holds one.
    """

    def __init__(self) -> None:
        """Install the handlers."""
        self.stop = self.reload = False
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._came)

    def _came(self, number: int, _frame: object) -> None:
        if number == signal.SIGHUP:
            self.reload = True
        elif self.stop:
            os._exit(EXIT_HARD)  # asked twice: now; workers die with us
        else:
            self.stop = True
        with contextlib.suppress(BlockingIOError):  # it is awake already
            os.write(self._write, b"x")

    def wait(self, timeout_s: float) -> bool:
        """Wait for a signal, at most this long; whether the end was asked for."""
        if not self.stop and select.select([self._read], [], [], timeout_s)[0]:
            os.read(self._read, 4096)
        return self.stop


class Daemon:
    """Everything, built in the order it starts and stopped in reverse."""

    def __init__(self, settings: Any, supervisor: Supervisor) -> None:  # Any: config.Settings, imported late
        from concurrent.futures import Future

        from clock import SystemClock
        from jobs.core import Core
        from jobs.housekeeping import tidy
        from jobs.pool import Pool
        from jobs.scheduler import Clockwork
        from jobs.scrape import ClaimRound
        from jobs.service import Service
        from server import HttpServer
        from sources.plugins import entry_points
        from store.engine import open_engine
        from store.writer import Writer

        self.settings = settings
        self.supervisor = supervisor
        #: The API behind the door; loaded by one thread, this one, while the port is open already.
        self.flask: Future[WSGIApplication] = Future()
        #: Why the store could not be opened, when that was said last.
        self._not_ready = ""
        self.engine = open_engine(settings.db_url)
        self.writer = Writer(self.engine, on_commit=lambda: self.core.board.publish())
        self.core = Core(engine=self.engine, writer=self.writer, clock=SystemClock(), settings=settings)
        self.core.plugins = entry_points()
        self.service = Service(self.core)
        self.pool = Pool(
            workers=settings.workers,
            stop_grace_s=settings.stop_grace_s,
            max_scrapes=settings.worker_max_scrapes,
            memory_bytes=int(settings.worker_memory_bytes),
            clock=self.core.clock,
            listener=self.service.previews,
        )
        self.core.pool = self.pool
        self.claims = ClaimRound(self.service.round, wait_s=self.service.claims.choice.take_wait_s)
        self.service.runs.kick = self.claims.kick
        self.clockwork = Clockwork(
            scrape=self.claims.kick,
            timeout_check=self.service.timeout_check.once,
            housekeeping=lambda: tidy(self.core),
            check_interval_s=settings.check_interval_s,
        )
        self.http = HttpServer(self.flask, self.service, settings, listener=supervisor.listener())
        self._name_loops()

    def _name_loops(self) -> None:
        """Whose ticks health looks at."""
        self.service.ticks.update(
            writer=self.writer.tick_age,
            pool=self.pool.tick_age,
            claims=self.claims.tick_age,
            scheduler=self.clockwork.tick_age,
            http=self.http.tick_age,
        )

    def start(self) -> None:
        """Start everything; the port opens after recovery, unless the store refuses: then it answers 503.

        Raises:
            CannotListen: The port is taken, or the address is not ours; nothing was scraped.
            DatabaseUnusable: Trying again would not help.
        """
        from errors import CannotListen

        st = self.settings
        self.supervisor.extend(120.0)
        self.writer.start()
        self.pool.start()
        self._try_store()
        try:
            self.http.start()
        except OSError as exc:
            raise CannotListen(f"cannot listen on {st.host}:{st.port}: {exc.strerror or exc}") from exc
        from api import create_app  # only now: the door can do without it for the 70 ms that it takes

        self.flask.set_result(create_app(self.service, st))
        self.claims.start()
        self.clockwork.start()
        log.info("daemon_ready host=%s port=%s", self.settings.host, self.http.port)
        self.supervisor.tell("READY=1", "STATUS=ready")

    def _try_store(self) -> None:
        """Bring the database to the current schema and recover; what refuses is said once, and tried again."""
        from errors import StoreUnavailable
        from store.engine import migrate

        try:
            migrate(self.engine)
            recovered = self.service.boot()
        except StoreUnavailable as exc:
            if str(exc) != self._not_ready:
                log.error('store_not_ready error="%s"', exc)
            self._not_ready = str(exc)
            return
        if recovered:
            log.warning("runs_recovered count=%d", recovered)
        log.info("store_ready boot=%d", self.core.boot_id)

    def stop(self) -> None:
        """Stop claims, drain within bounds, end what still runs, close; any number of times, also half started."""
        from errors import StoreUnavailable

        st = self.settings
        self.core.draining = True
        self.supervisor.tell("STOPPING=1", "STATUS=draining: runs under way may end")
        self.supervisor.extend(st.drain_timeout_s + st.stop_grace_s + 30.0)
        self.clockwork.stop()
        self.claims.stop()
        if not self.pool.wait_idle(self.settings.drain_timeout_s):
            log.warning("drain_ended_early timeout_s=%g", self.settings.drain_timeout_s)
        try:
            self.service.end_boot()
        except Exception as exc:  # noqa: BLE001 - whatever it is: workers must end, and the next start recovers it
            log.error('shutdown_not_stored error="%s"', exc, exc_info=not isinstance(exc, StoreUnavailable))
        self.pool.stop(self.settings.stop_grace_s + 3.0)
        self.flask.cancel()  # when the start did not come to it: a call that waits for it would wait for ever
        self.http.stop(3.0)
        self.writer.stop()
        self.engine.dispose()

    def watch(self, signals: Signals, again: Callable[[], Any]) -> None:
        """The main loop, once a second until told to stop: health, the wall clock, a store to be tried again."""
        last = time.time() - time.monotonic()
        while not signals.wait(1.0):
            self._tell_health()
            if signals.reload:
                signals.reload = False
                self._reload(again)
            now = time.time() - time.monotonic()
            if abs(now - last) > 2.0:
                log.warning("clock_jumped seconds=%.1f", now - last)
                self.clockwork.reschedule_now()
                self.service.clamp_due(now - last)
                self.claims.kick()
            last = now
            if not self.core.ready:
                self._try_store()

    def _tell_health(self) -> None:
        """The watchdog is fed only while every loop goes round."""
        health, good = self.service.health()
        if not good:
            log.error("loops_stuck ages=%s", health["loops"])
            self.supervisor.tell(f"STATUS=stuck: {health['loops']}")
            return
        ready, _ = self.service.ready()
        counts = self.core.board.counts()
        text = f"{counts['RUNNING']} running of {sum(counts.values())} targets"
        self.supervisor.tell("WATCHDOG=1", f"STATUS={ready['status']}: {text}")

    def _reload(self, again: Callable[[], Any]) -> None:  # Any: config.Settings
        """Take over what can change while running; the rest is named in the log and waits for a restart."""
        from config import KINDS, RELOADABLE
        from errors import GleandError

        try:
            settings, changes = again(), {}
            for name in KINDS:
                if getattr(settings, name) != getattr(self.settings, name):
                    if name in RELOADABLE:
                        changes[name] = getattr(settings, name)
                    else:
                        log.warning("setting_needs_a_restart name=%s", name)
            self.settings = self.core.settings = dataclasses.replace(self.settings, **changes)
        except GleandError as exc:  # the file is wrong, or what changes does not go with what waits for a restart
            log.error('settings_not_reloaded error="%s"', exc.message)
            return
        logging.getLogger().setLevel(str(self.settings.log_level).upper())
        log.info("settings_reloaded changed=%s", ",".join(changes) or "nothing")
        self.claims.kick()


def run(settings: Any, again: Callable[[], Any]) -> int:  # Any: config.Settings, imported late
    """Run the daemon until a signal ends it; returns the exit code.

    Args:
        again: Reads the settings anew, for SIGHUP. Raises GleandError.
    """
    gc.disable()  # what is made at the start stays: looking through it for garbage takes 35 ms
    from errors import CannotListen, GleandError
    from jobs.process import own_what_follows
    from sources.checks import check_sources
    from store.engine import DatabaseHeld, DatabaseUnusable, lock_database

    wrong = check_sources(settings)
    if wrong:
        return _complain("; ".join(text for _, text in wrong), EXIT_CONFIG)
    supervisor = Supervisor(os.environ)
    _prepare_process(settings)
    signals = Signals()
    try:
        if settings.db_url.startswith("sqlite"):
            Path(settings.data_dir).mkdir(parents=True, exist_ok=True)
        lock = lock_database(settings.db_url)
    except (DatabaseHeld, DatabaseUnusable) as exc:
        return _complain(exc.message, EXIT_BUSY if isinstance(exc, DatabaseHeld) else EXIT_CONFIG)
    except OSError as exc:
        return _complain(f"the directory {settings.data_dir} cannot be used: {exc.strerror}", EXIT_CONFIG)
    if lock is not None:
        left = own_what_follows(lock.name if isinstance(lock.name, str) else settings.db_url)
        if left:
            log.warning("leftovers_killed count=%d", left)
    daemon = Daemon(settings, supervisor)
    try:
        daemon.start()
        gc.freeze()  # nor ever again: a full collection would take 25 ms, in which nobody is answered
        gc.set_threshold(10_000, 20, 50)  # and seldom: a full collection beside a thousand waiters takes 25 ms
        gc.enable()
        daemon.watch(signals, again)
    except CannotListen as exc:
        return _complain(exc.message, EXIT_BUSY)
    except DatabaseUnusable as exc:
        return _complain(exc.message, EXIT_CONFIG)
    except GleandError as exc:
        return _complain(exc.message, EXIT_HARD)
    finally:
        daemon.stop()
        if lock is not None:
            lock.close()
    _leave(EXIT_OK)
    return EXIT_OK


def _prepare_process(settings: Any) -> None:  # Any: config.Settings
    """Logging, and what belongs to the whole process."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JournalFormatter() if _is_journal(sys.stderr, os.environ.get("JOURNAL_STREAM", "")) else PlainFormatter()
    )
    logging.basicConfig(level=str(settings.log_level).upper(), handlers=[handler])
    for name in [n for n in os.environ if n.startswith("GLEAND_")]:
        del os.environ[name]  # secrets do not reach a worker
    sys.setswitchinterval(0.001)  # a thread that computes must not make the door wait
    os.umask(0o077)
    _share_arenas()
    _allow_many_connections()


class PlainFormatter(logging.Formatter):
    """A line for each fact, as `key=value`."""

    def __init__(self) -> None:
        super().__init__("ts=%(asctime)s level=%(levelname)s logger=%(name)s %(message)s")


class JournalFormatter(logging.Formatter):
    """The same for systemd's journal, which knows the time and reads the level from a number before each line.

    Source: sd-daemon(3).
    """

    PRIORITIES = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))

    def __init__(self) -> None:
        super().__init__("logger=%(name)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Every line of a traceback has its number too."""
        number = next((n for level, n in self.PRIORITIES if record.levelno >= level), 7)
        return "\n".join(f"<{number}>{line}" for line in super().format(record).splitlines())


def _is_journal(stream: TextIO, told: str) -> bool:
    """Whether a stream is the one that systemd connected to its journal: `JOURNAL_STREAM` has its device and inode."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return told == f"{found.st_dev}:{found.st_ino}"


def _complain(message: str, code: int) -> int:
    print(f"gleand: {message}", file=sys.stderr)
    return code


def _leave(code: int) -> None:
    """End now when a thread is still at work: the interpreter would wait for it without a limit."""
    alive = [t.name for t in threading.enumerate() if t is not threading.main_thread() and not t.daemon]
    if alive:
        log.warning("threads_left names=%s", alive)
        logging.shutdown()
        sys.stderr.flush()
        os._exit(code)


def _share_arenas() -> None:
    """Two of glibc's arenas for all threads, of which one at a time allocates anyway: 5 MB less after some work."""
    import ctypes

    with contextlib.suppress(AttributeError):  # another C library has none
        ctypes.CDLL(None).mallopt(-8, 2)  # M_ARENA_MAX


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
