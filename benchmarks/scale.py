"""What targets cost that only wait: start-up, memory and CPU with none, with a hundred and with many.

Targets are put into the database directly, due in a year. What it prints is of this machine at this moment.
"""

from __future__ import annotations

import argparse
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import requests

from benchmarks.common import begin, cpu_s, free_port, gleand, rss_mb, table

YEAR_S = 365 * 86400.0


def fill(home: Path, count: int) -> None:
    """Make a database with that many idle targets."""
    with gleand(home):
        pass
    columns = "source, handle, url, host, schedule, state, added_at, due_at"
    with sqlite3.connect(home / "data" / "gleand.db") as conn:
        now = time.time()
        rows = (
            (
                "feed",
                f"http://a.example/{n}",
                f"http://a.example/{n}",
                "a.example:80",
                "every 1d",
                "IDLE",
                now,
                now + YEAR_S,
            )
            for n in range(count)
        )
        conn.executemany(f"INSERT INTO targets ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
    conn.close()


def measure(count: int, idle_s: float) -> dict[str, Any]:
    """Start over a database of that many, watch it idle, then time single requests that fail at once."""
    with tempfile.TemporaryDirectory(prefix="gleand-bench-") as name:
        home = Path(name)
        fill(home, count)
        with gleand(home) as daemon, requests.Session() as http:
            time.sleep(2.0)  # the nursery has loaded
            used = cpu_s(daemon.pid)
            time.sleep(idle_s)
            used = cpu_s(daemon.pid) - used
            memory = rss_mb(daemon.pid)
            claims = _claims(http, daemon.url)
    return {
        "targets": count,
        "first answer s": daemon.first_answer_s,
        "idle CPU %": 100 * used / idle_s,
        "RSS MB": memory,
        "asked to ended ms": claims,
    }


def _claims(http: requests.Session, url: str) -> float:
    """Median time from asking for a target to the end of its run, whose address refuses (milliseconds)."""
    took = []
    port = free_port()
    for n in range(20):
        began = time.monotonic()
        answer = http.post(f"{url}/api/users/add", json={"username": f"http://127.0.0.1:{port}/{n}"}, timeout=10).json()
        etag, status = "", {"running": True}
        while status["running"]:
            path = f"{url}/api/scrape-status"
            how = {"sweep_id": answer["sweep_id"], "wait": 5}
            response = http.get(path, params=how, headers={"If-None-Match": etag}, timeout=10)
            etag = response.headers["ETag"]
            status = response.json() if response.status_code == 200 else status
        took.append(time.monotonic() - began)
    return 1000 * median(took)


def bare_start() -> float:
    """How long an interpreter alone takes to start (seconds), for comparison."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return round(time.monotonic() - began, 2)


def main() -> None:
    """Read the arguments, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", type=int, nargs="*", default=[0, 100, 100_000])
    parser.add_argument("--idle-s", type=float, default=10.0)
    args = parser.parse_args()
    begin(__doc__)
    print("an interpreter alone starts in", bare_start(), "s\n")
    table([measure(count, args.idle_s) for count in args.targets])


if __name__ == "__main__":
    main()
