"""The peer's client: does what is asked on standard input, a line of JSON each, and answers with one.

Runs in the peers' own environment; instants are readings of the monotonic clock, which all processes share.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import redis
from celery.result import AsyncResult

from benchmarks.celery_app import STAGED, app, scrape, visit

Reply = dict[str, Any]  # Any: JSON values
_REDIS = redis.Redis.from_url(os.environ["BENCH_REDIS"])


def stage(urls: list[str]) -> Reply:
    """Send a scrape of each into a queue that nobody reads yet."""
    began = time.monotonic()
    for url in urls:
        scrape.apply_async((url,), queue=STAGED)
    return {"took_s": time.monotonic() - began}


def release() -> Reply:
    """Give the whole queue to the workers, at once."""
    began = time.monotonic()
    _REDIS.rename(STAGED, app.conf.task_default_queue)
    return {"began": began}


def send(url: str, limit_s: float | None = None) -> Reply:
    """Ask for one visit, under a hard limit."""
    began = time.monotonic()
    return {"id": visit.apply_async((url,), time_limit=limit_s).id, "began": began}


def wait(id: str, within_s: float) -> Reply:
    """Wait until the outcome is visible through the result backend."""
    result = AsyncResult(id, app=app)
    found = result.get(timeout=within_s, propagate=False)
    return {"at": time.monotonic(), "state": result.state, "error": type(found).__name__}


def main() -> None:
    """Serve until standard input ends."""
    verbs = {verb.__name__: verb for verb in (stage, release, send, wait)}
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(verbs[asked.pop("do")](**asked)), flush=True)


if __name__ == "__main__":
    main()
