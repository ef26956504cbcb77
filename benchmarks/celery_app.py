"""The peer's tasks. Celery imports this in the peers' own environment, with the project's root on its path.

A feed is read by the very functions that our worker runs; the fetch is what a user of Celery would write, one session
for each process, kept. Nothing is stored.
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path

import requests
from celery import Celery
from celery.signals import worker_process_init

from sources import xml_feed
from sources.documents import Kind, kind_of, text_of
from sources.http import Answer
from sources.items import posts

#: Queue in which tasks wait until all of them are there.
STAGED = "staged"
app = Celery("benchmarks", broker=os.environ["BENCH_REDIS"], backend=os.environ["BENCH_REDIS"])
app.conf.update(
    task_serializer="json",
    result_serializer="json",
    accept_content=["json"],
    task_acks_late=False,
    worker_prefetch_multiplier=int(os.environ["BENCH_PREFETCH"]),
    worker_lost_wait=float(os.environ["BENCH_LOST_WAIT_S"]),
    worker_disable_rate_limits=True,
    worker_send_task_events=False,
    broker_connection_retry_on_startup=True,
)


class _Done:
    """A count of scrapes in a file that whoever measures reads: two microseconds, and no result to send."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(8))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 8)
        self._count = 0

    def add(self) -> None:
        self._count += 1
        struct.pack_into("Q", self._map, 0, self._count)


class _Process:
    """What each process of the pool makes for itself after its fork."""

    session: requests.Session
    done: _Done


def _begin(**_: object) -> None:
    _Process.session = requests.Session()
    _Process.session.trust_env = False
    _Process.done = _Done(Path(os.environ["BENCH_DONE"]) / str(os.getpid()))


worker_process_init.connect(_begin)


def _scrape(url: str) -> None:
    answer = _get(url)
    text = text_of(answer)
    assert kind_of(text) is Kind.FEED
    found, _ = posts(xml_feed.read(text, answer.url), lambda _: None)
    assert len(found) == 10
    _Process.done.add()


def _visit(url: str) -> None:
    _get(url)


def _get(url: str) -> Answer:
    response = _Process.session.get(url, timeout=(10, 30))
    response.raise_for_status()
    return Answer(status=response.status_code, url=url, headers=response.headers, body=response.content)


scrape = app.task(name="scrape", ignore_result=True)(_scrape)
#: For time limits and deaths: the outcome is looked for, and a death is told instead of tried again.
visit = app.task(name="visit", acks_late=True, reject_on_worker_lost=False)(_visit)
