"""A service with canned answers and a board to publish on; it keeps what it was asked."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from errors import NotFound
from jobs.events import Event

AT = "2026-01-02T03:04:05.000+00:00"
USER: dict[str, Any] = {
    "id": 7,
    "username": "https://a.example/feed",
    "display_name": "A",
    "initials": "A",
    "source": "feed",
    "url": "https://a.example/feed",
    "state": "IDLE",
    "error": None,
    "added_at": AT,
    "last_scraped": None,
    "next_due_at": AT,
    "post_count": 0,
}
TARGET = USER | {
    "handle": "https://a.example/feed",
    "schedule": "every 15m",
    "timeout_s": None,
    "range": None,
    "paused_until": None,
    "phase": "queued",
}
RUN: dict[str, Any] = {
    "id": 3,
    "target_id": 7,
    "token": 12,
    "state": "COMPLETED",
    "started_at": AT,
    "deadline_at": AT,
    "ended_at": AT,
    "duration_s": 0.5,
    "error": None,
    "reason": None,
    "posts_seen": 2,
    "posts_new": 2,
    "posts_edited": 0,
    "truncated": False,
}
ENTRY: dict[str, Any] = {
    "id": 1,
    "target_id": 7,
    "label": "feed:https://a.example/feed",
    "at": AT,
    "trigger": "start",
    "from": "IDLE",
    "to": None,
    "refused_by": "worker_gone",
    "actor": "api",
    "reason": None,
    "forced": False,
    "run_id": None,
    "token": 12,
    "times": 1,
}
POST: dict[str, Any] = {
    "id": 5,
    "post_number": 5,
    "post_text": "caf\u00e9 \U0001f600",
    "post_url": "https://a.example/5",
    "author_name": "A",
    "source_username": "https://a.example/feed",
    "source_display_name": "A",
    "source_initials": "A",
    "published_at": AT,
    "title": "five",
}
STATUS: dict[str, Any] = {
    "running": False,
    "state": "IDLE",
    "progress": "Idle",
    "error": None,
    "current_user": None,
    "total_users": 0,
    "completed_users": 0,
    "failed_users": 0,
    "timed_out_users": 0,
    "started_at": None,
    "last_heartbeat": None,
    "last_progress_at": None,
    "deadline_at": None,
    "stalled": False,
    "sweep_id": None,
    "next_due_at": None,
    "counts": {"IDLE": 1},
    "last_run": RUN,
}
TARGET_STATUS: dict[str, Any] = {
    "id": 7,
    "username": "https://a.example/feed",
    "source": "feed",
    "state": "IDLE",
    "phase": None,
    "token": 12,
    "run_id": None,
    "worker": "none",
    "started_at": None,
    "deadline_at": None,
    "last_heartbeat": None,
    "last_progress_at": None,
    "stalled": False,
    "progress": None,
    "error": None,
    "reason": None,
    "attempt": 0,
    "next_due_at": None,
    "paused_until": None,
    "requested_at": None,
    "unsaved": False,
    "last_run": None,
    "triggers": {"start": {"possible": True, "refused_by": None}},
}


def wait_until(condition: Callable[[], object], within_s: float = 5.0) -> None:
    """Look again and again until it holds; fails when it does not in time."""
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, f"this did not become true within {within_s:g} s: {condition}"
        threading.Event().wait(0.005)


@dataclass(frozen=True, slots=True)
class FakePage:
    body: bytes
    etag: str


class FakeBoard:
    """Pages by sweep (None: the newest) and by target."""

    def __init__(self) -> None:
        self.sweeps: dict[int | None, FakePage] = {}
        self.targets: dict[int, FakePage] = {}
        #: Targets that exist but are held only while pinned.
        self.cold: dict[int, FakePage] = {}
        self.pins: dict[int, int] = {}
        self.subscribers: list[Callable[[], None]] = []
        self.show(STATUS, "0")

    def show(self, view: dict[str, Any], tag: str, *, sweep: int | None = None, target: int | None = None) -> None:
        page = FakePage(json.dumps(view).encode(), f'W/"{tag}"')
        if target is None:
            self.sweeps[sweep] = page
        else:
            self.targets[target] = page
        self.announce()

    def announce(self) -> None:
        for callback in list(self.subscribers):
            callback()

    def status(self, sweep_id: int | None = None) -> FakePage | None:
        return self.sweeps.get(sweep_id)

    def target(self, target_id: int) -> FakePage | None:
        return self.targets.get(target_id)

    def pin(self, target_id: int) -> FakePage:
        if target_id in self.cold:
            self.targets[target_id] = self.cold[target_id]
        if target_id not in self.targets:
            raise NotFound(f"there is no target {target_id}")
        self.pins[target_id] = self.pins.get(target_id, 0) + 1
        return self.targets[target_id]

    def unpin(self, target_id: int) -> None:
        self.pins[target_id] -= 1

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        self.subscribers.append(callback)
        return lambda: self.subscribers.remove(callback)


class FakeService:
    """`answers` overrides what a verb gives: a value, an exception to raise, or a function to call."""

    def __init__(self) -> None:
        self.board = FakeBoard()
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.answers: dict[str, Any] = {}
        self.draining = False
        #: What `events` reads; an exception in `answers` comes first.
        self.happened: list[Event] = []
        #: Threads that are in `events` now, and the most there were.
        self.reading = self.most_reading = 0
        self._lock = threading.Lock()

    def _say(self, verb: str, default: Any, **asked: Any) -> Any:
        self.asked.append((verb, asked))
        value = self.answers.get(verb, default)
        if isinstance(value, Exception):
            raise value
        return value() if callable(value) else value

    def add(self, **asked: Any) -> Any:
        return self._say("add", {"user": USER, "target": TARGET, "sweep_id": 4, "created": True}, **asked)

    def preview(self, **asked: Any) -> Any:
        post = {"post_text": "t", "post_url": "https://a.example/1", "author_name": "A", "published_at": AT}
        post |= {"title": "T", "native_id": "1", "html": "", "kind": "post", "media": [], "source": "feed"}
        post |= {"source_username": "a", "source_display_name": "A", "source_initials": "A"}
        view = {"source": "feed", "handle": "a", "url": "", "outcome": "COMPLETED", "error": None, "duration_s": 0.1}
        view |= {"display_name": "A", "moved_to": None, "posts": [post], "posts_found": 1, "truncated": False}
        view |= {"notes": ["1 of 1 have no time"], "next": "to track it: gleand add a"}
        return self._say("preview", view, **asked)

    def remove(self, **asked: Any) -> Any:
        return self._say("remove", {"message": "Removed A"}, **asked)

    def refresh_all(self, **asked: Any) -> Any:
        return self._say("refresh_all", {"total_users": 3, "sweep_id": 5}, **asked)

    def reset_sweeps(self, **asked: Any) -> Any:
        return self._say("reset_sweeps", {"message": "Reset"}, **asked)

    def transition(self, target_id: int, **asked: Any) -> Any:
        return self._say("transition", (TARGET_STATUS, 200), id=target_id, **asked)

    def patch(self, target_id: int, changes: dict[str, Any]) -> Any:
        return self._say("patch", TARGET, id=target_id, changes=changes)

    def users(self, **asked: Any) -> Any:
        return self._say("users", {"users": [USER], "count": 1, "next_cursor": None}, **asked)

    def targets(self, **asked: Any) -> Any:
        return self._say("targets", {"targets": [TARGET], "next_cursor": "7"}, **asked)

    def target(self, target_id: int) -> Any:
        return self._say("target", TARGET, id=target_id)

    def target_status(self, target_id: int) -> Any:
        return self._say("target_status", TARGET_STATUS, id=target_id)

    def scrape_status(self, sweep_id: int | None = None) -> Any:
        return self._say("scrape_status", STATUS | {"sweep_id": sweep_id}, sweep_id=sweep_id)

    def feed(self, **asked: Any) -> Any:
        view = {"posts": [POST], "total_posts": 1, "total_users": 1, "filtered_by": None, "next_cursor": None}
        return self._say("feed", view, **asked)

    def posts(self, **asked: Any) -> Any:
        return self._say("posts", {"posts": [POST], "next_cursor": None}, **asked)

    def journal(self, target_id: int, **asked: Any) -> Any:
        return self._say("journal", {"journal": [ENTRY], "next_cursor": None}, id=target_id, **asked)

    def happen(self, count: int = 1, *, announce: bool = True, **fields: Any) -> None:
        """Journal the next entries, and announce them once."""
        for _ in range(count):
            entry = (
                ENTRY
                | {"id": self.happened[-1].id + 1 if self.happened else 1, "to": "RUNNING", "refused_by": None}
                | fields
            )
            name = "refusal" if entry["refused_by"] else "transition"
            self.happened = [*self.happened, Event(id=entry["id"], name=name, data=json.dumps(entry).encode())]
        if announce:
            self.board.announce()

    def events(self, *, after: int | None, limit: int) -> tuple[list[Event], int]:
        with self._lock:
            self.reading += 1
            self.most_reading = max(self.most_reading, self.reading)
        try:
            happened = self.happened
            newest = happened[-1].id if happened else 0
            rows = [] if after is None else [e for e in happened if e.id > after][:limit]
            found: tuple[list[Event], int] = self._say("events", (rows, newest), after=after, limit=limit)
            return found
        finally:
            with self._lock:
                self.reading -= 1

    def runs_of(self, target_id: int, **asked: Any) -> Any:
        return self._say("runs_of", {"runs": [RUN], "next_cursor": None}, id=target_id, **asked)

    def run(self, run_id: int) -> Any:
        return self._say("run", RUN | {"timeline": [ENTRY]}, id=run_id)

    def sweep(self, sweep_id: int) -> Any:
        members = [{"target_id": 7, "outcome": None, "error": None}]
        return self._say("sweep", STATUS | {"members": members}, id=sweep_id)

    def hosts(self, **asked: Any) -> Any:
        hosts = [{"host": "a.example:443", "next_allowed_at": AT, "reason": "delay"}]
        return self._say("hosts", {"hosts": hosts, "next_cursor": None}, **asked)

    def sources(self) -> Any:
        return self._say("sources", {"sources": [{"name": "feed", "description": "A feed.", "example": "https://"}]})

    def lifecycle_mmd(self) -> str:
        return str(self._say("lifecycle_mmd", "stateDiagram-v2\n"))

    def health(self) -> Any:
        return self._say("health", ({"status": "ok", "loops": {"http": 0.1}}, True))

    def ready(self) -> Any:
        return self._say("ready", ({"status": "ready", "reason": None}, True))
