"""The event stream of a real daemon: what a run looks like from outside, and that nothing is lost over a restart."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.daemon import Daemon
from tests.support.settings import scrapers
from tests.support.waiting import wait_until


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with Daemon(tmp_path / "data", default_schedule="manual", workers=2, **scrapers()) as it:
        yield it


class Stream:
    """Reads events one by one."""

    def __init__(self, response: requests.Response) -> None:
        self._lines = response.iter_lines(chunk_size=1)
        self.last_id = ""
        self.begun = self._block()

    def _block(self) -> dict[str, str]:
        fields: dict[str, str] = {}
        for line in self._lines:
            if not line and fields:
                self.last_id = fields.get("id", self.last_id)
                return fields
            name, _, value = line.decode().partition(": ")
            if name and not line.startswith(b":"):
                fields[name] = value
        raise EOFError

    def event(self) -> dict[str, Any]:
        """The next one: the journal entry, `name` added."""
        block = self._block()
        entry: dict[str, Any] = json.loads(block["data"])
        assert block["id"] == str(entry["id"])
        return entry | {"name": block["event"]}

    def until(self, trigger: str) -> list[dict[str, Any]]:
        """Events up to the first of this trigger."""
        found = [self.event()]
        while found[-1]["trigger"] != trigger:
            found.append(self.event())
        return found


@contextmanager
def following(daemon: Daemon, last_id: str | None = None) -> Iterator[Stream]:
    headers = {} if last_id is None else {"Last-Event-ID": last_id}
    with requests.get(f"{daemon.url}/api/events", headers=headers, stream=True, timeout=30) as response:
        assert response.status_code == 200
        yield Stream(response)


def steps(events: list[dict[str, Any]]) -> list[tuple[str, str, str | None]]:
    return [(event["trigger"], event["from"], event["to"]) for event in events]


RUN = [("start", "IDLE", "RUNNING"), ("complete", "RUNNING", "COMPLETED")]


def test_a_run_is_told_step_by_step_as_the_journal_has_it(daemon: Daemon) -> None:
    with following(daemon) as first, following(daemon) as second:
        target = daemon.add("good:a")["user"]["id"]
        events = first.until("complete")
        assert steps(events) == RUN
        assert second.until("complete") == events
        assert {event["name"] for event in events} == {"transition"}
        told = [{k: v for k, v in event.items() if k != "name"} for event in events]
        assert told == daemon.journal(target)[::-1]


def test_the_status_says_what_an_event_told(daemon: Daemon) -> None:
    with following(daemon) as stream:
        target = daemon.add("good:a")["user"]["id"]
        assert stream.until("complete")[-1]["to"] == "COMPLETED"
        daemon.wait_state(target, "COMPLETED", within_s=1)


def test_a_refusal_is_told_once(daemon: Daemon) -> None:
    target = daemon.add("sleeps:a")["user"]["id"]
    daemon.wait_state(target, "RUNNING")
    with following(daemon) as stream:
        for _ in range(3):
            assert daemon.pull(target, "reset").status_code == 409
        refusal = stream.event()
        assert (refusal["name"], refusal["trigger"], refusal["to"]) == ("refusal", "reset", None)
        assert refusal["refused_by"]
        assert daemon.pull(target, "reset", force=True, reason="enough").status_code in (200, 202)
        assert stream.event()["name"] == "transition"


def test_a_heartbeat_is_no_event(daemon: Daemon) -> None:
    target = daemon.add("sleeps:a")["user"]["id"]
    daemon.wait_state(target, "RUNNING")
    with following(daemon) as stream:
        before = daemon.status(target)["last_heartbeat"]
        wait_until(lambda: daemon.status(target)["last_heartbeat"] != before, within_s=15)
        daemon.pull(target, "reset", force=True, reason="enough")
        assert stream.event()["trigger"] == "reset"


@pytest.mark.parametrize("hard", [True, False])
def test_a_client_that_comes_back_after_a_restart_has_lost_nothing(daemon: Daemon, hard: bool) -> None:
    with following(daemon) as stream:
        target = daemon.add("sleeps:a")["user"]["id"]
        daemon.wait_state(target, "RUNNING")
        assert stream.event()["trigger"] == "start"
        last = stream.last_id
        if hard:
            daemon.kill()
        else:
            daemon.pull(target, "reset", force=True, reason="enough")
            daemon.stop()
    daemon.start()
    with following(daemon, last) as stream:
        assert stream.begun["id"] == last
        event = stream.event()
        assert event["trigger"] == ("interrupt" if hard else "reset")
        assert event["target_id"] == target


def test_a_stop_ends_a_stream_as_a_whole_answer(daemon: Daemon) -> None:
    with following(daemon) as stream:
        daemon.process.terminate()  # type: ignore[union-attr]  # started by the fixture
        with pytest.raises(EOFError):  # not a broken connection
            stream.event()
        assert daemon.process.wait(20) == 0  # type: ignore[union-attr]
    assert "Exception in ASGI" not in daemon.log


def test_a_refresh_of_many_targets_comes_through_in_order(daemon: Daemon) -> None:
    daemon.add("good:first")
    with following(daemon, "0") as stream:
        stream.until("complete")
        for n in range(40):
            daemon.create(f"good:{n}")
        assert daemon.call("POST", "/api/users/refresh-all").status_code == 200
        events = [stream.event() for _ in range(82)]
        ids = [event["id"] for event in events]
        assert ids == sorted(set(ids))
        assert sum(event["to"] == "COMPLETED" for event in events) == 41
