"""Status answers a second: ours and Scrapyd's idle, at few and many kept connections; ours while it scrapes.

Idle: `GET /api/scrape-status` against `daemonstatus.json`, in turn, wrk in a closed loop. While the load of
`benchmarks.throughput` runs: the same with 64 connections, which on two cores is saturation, and a paced client, which
is what a crowd of dashboards looks like. What it prints is of this machine at this moment: quote ratios.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import requests

from benchmarks.common import add_targets, begin, feeds, gleand, over_rounds, table
from benchmarks.peers import scrapyd
from benchmarks.polling import closed_loop, paced

OURS, PEER = "/api/scrape-status", "/daemonstatus.json"
#: More targets a second than are scraped, so that the load outlasts the polling.
TARGETS_PER_S = 700
Figures = dict[str, float]
Poll = Callable[[str], Figures]


def idle(args: argparse.Namespace) -> None:
    """Both daemons stand idle; each is polled in turn."""
    closed: dict[tuple[int, str], list[Figures]] = {}
    slow: dict[str, list[Figures]] = {}
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gleand-bench-")))
        urls = {"gleand": stack.enter_context(gleand(home / "gleand")).url + OURS}
        if not args.no_peer:
            urls["Scrapyd"] = stack.enter_context(scrapyd(home / "scrapyd")).url + PEER
        time.sleep(2.0)  # what loads in the background has loaded
        for _ in range(args.rounds):
            for connections in args.connections:
                for name, url in urls.items():
                    found = closed_loop(url, connections, args.seconds)
                    closed.setdefault((connections, name), []).append(found)
            for name, url in urls.items():
                slow.setdefault(name, []).append(paced(url, 64, args.seconds, hz=args.hz))
    print(f"Idle, closed loop: medians of {args.rounds} rounds of {args.seconds:g} s\n")
    rows = {key: over_rounds(rounds) for key, rounds in closed.items()}
    base = {at: row["answers/s"] for (at, name), row in rows.items() if name == "Scrapyd"}
    ratio = {at: rows[at, "gleand"]["answers/s"] / value for at, value in base.items()}
    table(
        [
            {"connections": at, "": n} | row | {"ratio": ratio.get(at, "-") if n == "gleand" else ""}
            for (at, n), row in rows.items()
        ]
    )
    print(f"\nIdle, 64 connections at {args.hz:g} Hz each:\n")
    table([{"": name} | over_rounds(rounds) for name, rounds in slow.items()])


def loaded(args: argparse.Namespace) -> None:
    """Ours while it scrapes."""
    polls: dict[str, Poll] = {
        "closed loop": lambda url: closed_loop(url, 64, args.seconds),
        f"{args.hz:g} Hz each": lambda url: paced(url, 64, args.seconds, hz=args.hz),
        "nobody asks": lambda _: _nothing(args.seconds),
    }
    seen: dict[str, list[Figures]] = {}
    with tempfile.TemporaryDirectory(prefix="gleand-bench-") as name:
        with feeds(Path(name) / "site", int(TARGETS_PER_S * args.seconds)) as addresses:
            for _ in range(args.rounds):
                for how, poll in polls.items():
                    seen.setdefault(how, []).append(_while_scraping(addresses, args.workers, poll))
    print(f"\ngleand with {args.workers} workers that scrape all the time, polled on 64 connections:\n")
    rows = {how: over_rounds(rounds) for how, rounds in seen.items()}
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    table([{"": how} | {name: row.get(name, "") for name in names} for how, row in rows.items()])


def _nothing(seconds: float) -> Figures:
    time.sleep(seconds)
    return {}


def _while_scraping(addresses: list[str], workers: int, poll: Poll) -> Figures:
    """Poll a daemon that has all these to scrape; says how many it did meanwhile."""
    with tempfile.TemporaryDirectory(prefix="gleand-bench-") as name, requests.Session() as http:
        http.trust_env = False
        with gleand(Path(name), workers=workers) as daemon:
            add_targets(daemon.url, addresses)
            http.post(f"{daemon.url}/api/users/refresh-all", json={}, timeout=30).raise_for_status()
            time.sleep(0.5)
            before, began = http.get(daemon.url + OURS, timeout=10).json(), time.monotonic()
            found = poll(daemon.url + OURS)
            after, took = http.get(daemon.url + OURS, timeout=10).json(), time.monotonic() - began
    if not after["running"]:
        raise SystemExit("the scraping ended before the polling; TARGETS_PER_S is too small for this machine")
    return found | {"scrapes/s": (after["completed_users"] - before["completed_users"]) / took}


def main() -> None:
    """Read the arguments, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16, 64, 512])
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--hz", type=float, default=10.0, help="polls a second on each connection of the paced client")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--no-peer", action="store_true", help="measure ours alone")
    args = parser.parse_args()
    begin(__doc__)
    idle(args)
    loaded(args)


if __name__ == "__main__":
    main()
