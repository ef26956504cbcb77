"""Scrapes a second, ours and Celery's in turn: feeds never seen before on a local nginx, each scraped once.

Ours stores ten posts and the outcome of each durably (synchronous FULL), as always. Celery does the same fetch and
runs the same parser and stores nothing: its tasks wait in Redis (which keeps nothing on disk) before the clock starts,
and their results are ignored. The processes of both have scraped some other feeds before. What it prints is of this
machine at this moment: quote ratios.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import requests

from benchmarks.common import LOOK_S, add_targets, begin, below_cpu_s, cpu_s, feeds, gleand, over_rounds, table
from benchmarks.peers import ALONE, celery

#: Longest time one round may take (seconds).
ROUND_S = 120.0
#: Feeds that are scraped before the clock starts, and not counted, so that the processes of both are there (count).
WARM = 40


def figures(count: int, took_s: float, daemon_s: float, workers_s: float, broker_s: float) -> dict[str, float]:
    """What a round showed, for each scrape."""
    return {
        "scrapes/s": count / took_s,
        "daemon ms": 1000 * daemon_s / count,
        "workers ms": 1000 * workers_s / count,
        "broker ms": 1000 * broker_s / count,
    }


def _refresh_all(http: requests.Session, url: str) -> None:
    """Scrape every target, and wait for the end."""
    began = time.monotonic()
    http.post(f"{url}/api/users/refresh-all", json={}, timeout=30).raise_for_status()
    while http.get(f"{url}/api/scrape-status", timeout=10).json()["running"]:
        time.sleep(0.02)
        if time.monotonic() - began > ROUND_S:
            raise SystemExit(f"the round took longer than {ROUND_S:g} s")


def ours(warm: list[str], addresses: list[str], workers: int) -> dict[str, float]:
    """Warm up, forget that, add the targets, refresh all, wait for the end."""
    with tempfile.TemporaryDirectory(prefix="gleand-bench-") as name, requests.Session() as http:
        http.trust_env = False
        with gleand(Path(name), workers=workers) as daemon:
            add_targets(daemon.url, warm)
            _refresh_all(http, daemon.url)
            for target in http.get(f"{daemon.url}/api/targets", params={"limit": 200}, timeout=10).json()["targets"]:
                http.delete(f"{daemon.url}/api/targets/{target['id']}", timeout=30).raise_for_status()
            add_targets(daemon.url, addresses)
            time.sleep(10 * LOOK_S)
            cpu, below = cpu_s(daemon.pid), below_cpu_s(daemon.pid)
            began = time.monotonic()
            _refresh_all(http, daemon.url)
            took = time.monotonic() - began
            cpu, below = cpu_s(daemon.pid) - cpu, below_cpu_s(daemon.pid) - below
            status = http.get(f"{daemon.url}/api/scrape-status", timeout=10).json()
            posts = http.get(f"{daemon.url}/api/feed", params={"limit": 1}, timeout=10).json()["total_posts"]
    if (status["completed_users"], posts) != (len(addresses), 10 * len(addresses)):
        raise SystemExit(f"only {status['completed_users']} scrapes of {len(addresses)} completed, with {posts} posts")
    return figures(len(addresses), took, cpu, below, 0.0)


def peer(warm: list[str], addresses: list[str], workers: int, prefetch: int) -> tuple[dict[str, float], float]:
    """Queue everything, warm up, let the workers at it, wait for the end; gives how long the queueing took too."""
    with tempfile.TemporaryDirectory(prefix="gleand-bench-") as name:
        with celery(Path(name), workers=workers, prefetch=prefetch, flags=ALONE) as peer:
            peer.ask("stage", urls=warm)
            peer.ask("release")
            peer.wait_done(len(warm), within_s=30)
            queueing = peer.ask("stage", urls=addresses)["took_s"]
            time.sleep(10 * LOOK_S)
            before = cpu_s(peer.pid), below_cpu_s(peer.pid), cpu_s(peer.redis_pid)
            began = peer.ask("release")["began"]
            took = peer.wait_done(len(warm) + len(addresses), within_s=ROUND_S) - began
            after = cpu_s(peer.pid), below_cpu_s(peer.pid), cpu_s(peer.redis_pid)
    daemon, children, broker = (b - a for a, b in zip(before, after, strict=True))
    return figures(len(addresses), took, daemon, children, broker), float(queueing)


def main() -> None:
    """Read the arguments, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", type=int, default=1000)
    parser.add_argument("--workers", type=int, nargs="+", default=[8, 16], help="ours; several are measured in turn")
    parser.add_argument("--peer-workers", type=int, default=2)
    parser.add_argument("--peer-prefetch", type=int, default=64, help="tasks taken ahead for each of its workers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-peer", action="store_true", help="measure ours alone")
    args = parser.parse_args()
    begin(__doc__)
    seen: dict[str, list[dict[str, float]]] = {}
    with (
        tempfile.TemporaryDirectory(prefix="gleand-bench-") as name,
        feeds(Path(name) / "site", WARM + args.targets) as urls,
    ):
        warm, urls = urls[:WARM], urls[WARM:]
        for number in range(args.rounds):
            for workers in args.workers:
                seen.setdefault(f"gleand, {workers} workers", []).append(ours(warm, urls, workers))
            if not args.no_peer:
                found, queueing = peer(warm, urls, args.peer_workers, args.peer_prefetch)
                seen.setdefault(f"Celery, {args.peer_workers} processes", []).append(found)
                print(f"round {number + 1}: its client took {queueing:.2f} s to queue them (not counted)", flush=True)
    for name, rounds in seen.items():
        print(name, "- scrapes/s of each round:", *(f"{each['scrapes/s']:.0f}" for each in rounds))
    print("\nMedians of the rounds; CPU for each scrape:\n")
    rows = {name: over_rounds(rounds) for name, rounds in seen.items()}
    base = next((row["scrapes/s"] for name, row in rows.items() if name.startswith("Celery")), None)
    table([{"": name} | row | {"ratio": row["scrapes/s"] / base if base else "-"} for name, row in rows.items()])


if __name__ == "__main__":
    main()
