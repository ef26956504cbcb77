"""How late things are, ours and Celery's in turn: the first byte asked of a site, a time-out, the death of a worker.

- asked: from the request to the daemon, before the client library is called, to its first byte at the site.
- time-out: from the instant at which the limit had passed since that first byte to the outcome being visible, over
  HTTP here and through the result backend there, and to the end of the worker's connection, that is of the worker. The
  limit counts from the hand-over in both, which is a little earlier; ours is shown from its `deadline_at` too.
- kill -9: from the signal to the process that scrapes to the outcome being visible.
- asked after: the next request after one of these, whose worker has to be replaced, to its first byte.

Both have as many workers, and Celery's other settings as they come. A site of ours answers, or never does. The very
first scrape of each is shown apart: our daemon forks a worker when the first order comes. What it prints is of this
machine at this moment.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any, Protocol
from urllib.parse import urlsplit

from benchmarks.common import Served, begin, descendants, gleand, owner_of, table
from benchmarks.peers import Celery, celery
from benchmarks.site import WITHIN_S, Site

#: Of runs that should end by themselves (seconds).
ENOUGH_S = 60.0
#: Measured lateness by what was measured and whose it is (seconds), in the order of the rounds.
Seen = dict[tuple[str, str], list[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """An outcome as a client sees it."""

    outcome: str
    #: When it was visible.
    at: float
    #: How much later than the deadline that the daemon told, to the millisecond; None where it tells none (seconds).
    late_s: float | None = None


class Scraper(Protocol):
    """One of the two that are compared. Instants are readings of the monotonic clock."""

    def start(self, url: str, limit_s: float) -> float:
        """Ask for a scrape; returns when."""
        ...

    def ended(self) -> Ended:
        """Wait for the outcome of the last one."""
        ...

    @property
    def pid(self) -> int:
        """The process whose descendants scrape."""
        ...


class Ours:
    """A target for each address, started by its transition, watched with `?wait=`."""

    def __init__(self, daemon: Served) -> None:
        self.pid = daemon.pid
        self._conn = http.client.HTTPConnection(urlsplit(daemon.url).netloc, timeout=WITHIN_S)
        self._ids: dict[str, int] = {}
        self._path = self._tag = ""
        self._earlier: int | None = None

    def start(self, url: str, limit_s: float) -> float:
        """Ask for a scrape. A target that is not known is added first, which does not count."""
        if url not in self._ids:
            body = {"target": url, "start": False, "timeout_s": limit_s}
            self._ids[url] = self._call("POST", "/api/targets", body)["id"]
        self._path = f"/api/targets/{self._ids[url]}"
        self._earlier = self._call("GET", f"{self._path}/status")["run_id"]
        began = time.monotonic()
        self._call("POST", f"{self._path}/transitions", {"trigger": "start"})
        return began

    def ended(self) -> Ended:
        """Wait for the end of a run that was not there before."""
        status = self._call("GET", f"{self._path}/status")
        while status["run_id"] == self._earlier or status["state"] == "RUNNING":
            status = self._call("GET", f"{self._path}/status?wait=20") or status
        at, now = time.monotonic(), time.time()
        late = now - datetime.fromisoformat(status["deadline_at"]).timestamp()
        return Ended(outcome=str(status["state"]), at=at, late_s=late)

    def _call(self, method: str, path: str, body: object = None) -> dict[str, Any]:  # Any: JSON values
        """Call with the tag of the last status where a change is waited for; empty where there was none."""
        headers = {"If-None-Match": self._tag} if "?wait=" in path else {}
        data = json.dumps(body) if body is not None else None
        self._conn.request(method, path, data, headers | {"Content-Type": "application/json"})
        answer = self._conn.getresponse()
        text = answer.read()
        if answer.status >= 400:
            raise SystemExit(f"{method} {path} was answered with {answer.status}: {text.decode()}")
        self._tag = answer.headers.get("ETag", "")
        found: dict[str, Any] = json.loads(text or b"{}")
        return found


class Peers:
    """A task for each scrape."""

    def __init__(self, peer: Celery) -> None:
        self._peer = peer
        self.pid = peer.pid
        self._id = ""

    def start(self, url: str, limit_s: float) -> float:
        """Send a task."""
        sent = self._peer.ask("send", url=url, limit_s=limit_s)
        self._id = sent["id"]
        return float(sent["began"])

    def ended(self) -> Ended:
        """Wait for the task's result."""
        found = self._peer.ask("wait", id=self._id, within_s=WITHIN_S)
        return Ended(outcome=found["error"] if found["state"] == "FAILURE" else found["state"], at=found["at"])


def asked(scraper: Scraper, what: tuple[str, str], site: Site, seen: Seen) -> None:
    """One scrape that succeeds."""
    began = scraper.start(f"{site.url}/feed", ENOUGH_S)
    seen.setdefault(what, []).append(site.wait_asked()[0] - began)
    _expect(scraper, "COMPLETED", "SUCCESS")


def timed_out(scraper: Scraper, name: str, site: Site, seen: Seen, limit_s: float) -> None:
    """One scrape that hangs until its limit, and the next."""
    scraper.start(f"{site.url}/hang/late", limit_s)
    due = site.wait_asked()[0] + limit_s
    ended = _expect(scraper, "TIMEOUT", "TimeLimitExceeded")
    seen.setdefault(("time-out visible", name), []).append(ended.at - due)
    if ended.late_s is not None:
        seen.setdefault(("time-out visible, from deadline_at", name), []).append(ended.late_s)
    seen.setdefault(("time-out, worker gone", name), []).append(site.wait_left() - due)
    asked(scraper, ("asked after a time-out", name), site, seen)


def killed(scraper: Scraper, name: str, site: Site, seen: Seen) -> None:
    """One scrape that hangs, and whose worker is killed, and the next."""
    scraper.start(f"{site.url}/hang/killed", ENOUGH_S)
    worker = owner_of(site.wait_asked()[1], descendants(scraper.pid))
    began = time.monotonic()
    os.kill(worker, signal.SIGKILL)
    ended = _expect(scraper, "FAILED", "WorkerLostError")
    seen.setdefault(("kill -9 visible", name), []).append(ended.at - began)
    site.wait_left()
    asked(scraper, ("asked after a kill", name), site, seen)


def _expect(scraper: Scraper, *outcomes: str) -> Ended:
    ended = scraper.ended()
    if ended.outcome not in outcomes:
        raise SystemExit(f"a scrape ended as {ended.outcome}, not as {' or '.join(outcomes)}")
    return ended


def show(seen: Seen, first: Seen) -> None:
    """Medians and maxima, in milliseconds."""
    rows = []
    for (what, name), values in seen.items():
        row = {"": what, "whose": name, "rounds": len(values)}
        row |= {"median ms": 1000 * median(values), "max ms": 1000 * max(values)}
        alone = first.get((what, name))
        rows.append(row | {"the first ms": 1000 * alone[0] if alone else ""})
    table(rows)


def main() -> None:
    """Read the arguments, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50, help="of scrapes that succeed")
    parser.add_argument("--bad-rounds", type=int, default=5, help="of time-outs, and of kills")
    parser.add_argument("--limit-s", type=float, default=1.0, help="of scrapes that hang")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--lost-wait-s", type=float, default=10.0, help="Celery's worker_lost_wait; 10 is its default")
    parser.add_argument("--no-peer", action="store_true", help="measure ours alone")
    args = parser.parse_args()
    begin(__doc__)
    seen: Seen = {}
    first: Seen = {}
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gleand-bench-")))
        site = stack.enter_context(Site())
        both: dict[str, Scraper] = {"gleand": Ours(stack.enter_context(gleand(home / "gleand", workers=args.workers)))}
        if not args.no_peer:
            peer = stack.enter_context(celery(home / "celery", workers=args.workers, lost_wait_s=args.lost_wait_s))
            both["Celery"] = Peers(peer)
        time.sleep(2.0)  # what loads in the background has loaded
        for number in range(args.rounds + 1):
            for name, scraper in both.items():
                asked(scraper, ("asked", name), site, seen if number else first)
        for _ in range(args.bad_rounds):
            for name, scraper in both.items():
                timed_out(scraper, name, site, seen, args.limit_s)
        for _ in range(args.bad_rounds):
            for name, scraper in both.items():
                killed(scraper, name, site, seen)
    show(seen, first)


if __name__ == "__main__":
    main()
