"""APScheduler's three jobs on a small executor of their own. It is a clock: no scrape ever runs in its threads."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

log = logging.getLogger(__name__)


class Clockwork:
    """The scheduler; `misfire_grace_time=None` because a late check is better than none."""

    def __init__(
        self,
        *,
        scrape: Callable[[], object],
        timeout_check: Callable[[], object],
        housekeeping: Callable[[], object],
        check_interval_s: float,
    ) -> None:
        self._tick = time.monotonic()
        logging.getLogger("apscheduler").setLevel(logging.WARNING)
        self._scheduler = BackgroundScheduler(
            executors={"default": ThreadPoolExecutor(3)},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
            timezone=UTC,
        )
        add = self._scheduler.add_job
        add(self._ticking(scrape), "interval", seconds=1, id="scrape")
        add(timeout_check, "interval", seconds=check_interval_s, id="timeout-check")
        add(housekeeping, "interval", hours=1, id="housekeeping")

    def _ticking(self, job: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            self._tick = time.monotonic()
            job()

        return run

    def tick_age(self) -> float:
        """Seconds since the scrape job last ran: grows when the scheduler's thread has died."""
        return time.monotonic() - self._tick

    def start(self) -> None:
        """Start; once."""
        self._scheduler.start()

    def reschedule_now(self) -> None:
        """After a jump of the wall clock: APScheduler 3 would stand still for as long as it went back."""
        for job in self._scheduler.get_jobs():
            job.modify(next_run_time=datetime.now(UTC))
        self._scheduler.wakeup()

    def stop(self) -> None:
        """Stop; any number of times. Does not wait for a job."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
