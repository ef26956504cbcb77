"""Scrapes a second, and the daemon's own CPU for each: targets with a feed each on a local nginx, scraped once.

Needs nginx (a dependency of the benchmark only). Every outcome is stored durably (synchronous FULL), as always.
What it prints is of this machine at this moment: compare within one run, and quote ratios.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import requests

from benchmarks.common import cpu_s, serve_feeds, start_daemon


def measure(count: int, workers: int) -> dict[str, Any]:
    """One round: add the targets, refresh all, wait for the end."""
    with tempfile.TemporaryDirectory(prefix="gleand-bench-") as name:
        home = Path(name)
        nginx, port = serve_feeds(home, count)
        daemon, url = start_daemon(home, workers=workers)
        try:
            with requests.Session() as http:
                for number in range(count):
                    body = {"target": f"http://127.0.0.1:{port}/{number}.xml", "start": False}
                    http.post(f"{url}/api/targets", json=body, timeout=10).raise_for_status()
                used, started = cpu_s(daemon.pid), time.monotonic()
                http.post(f"{url}/api/users/refresh-all", json={}, timeout=30).raise_for_status()
                while http.get(f"{url}/api/scrape-status", timeout=10).json()["running"]:
                    time.sleep(0.05)
                took, used = time.monotonic() - started, cpu_s(daemon.pid) - used
                status = http.get(f"{url}/api/scrape-status", timeout=10).json()
                posts = http.get(f"{url}/api/feed", params={"limit": 1}, timeout=10).json()["total_posts"]
        finally:
            for process in (daemon, nginx):
                process.terminate()
                process.wait(20)
    return {
        "completed": status["completed_users"],
        "posts": posts,
        "seconds": round(took, 2),
        "scrapes_per_s": round(count / took, 1),
        "daemon_cpu_ms_per_scrape": round(1000 * used / count, 3),
    }


def main() -> None:
    """Read the arguments, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    for number in range(args.rounds):
        print(f"round {number + 1}:", measure(args.targets, args.workers), flush=True)


if __name__ == "__main__":
    main()
