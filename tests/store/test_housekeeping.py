"""Retention: what goes, what is kept for ever, and that no write waits long for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text

from jobs import housekeeping
from jobs.housekeeping import tidy
from model import Post
from store import queries
from tests.support.fake_pool import House

DAY_S = 86400.0


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with House(tmp_path, history_days=30, retention_days=90) as house:
        yield house


def days(house: House, n: float) -> None:
    house.clock.advance(n * DAY_S)


def scrape(house: House, name: str, *posts: Post) -> int:
    target = house.add(name)
    handle = house.status(target)["username"]
    assert handle in house.round()
    house.finish(handle, *posts)
    return target


def titles(house: House) -> list[str]:
    feed = house.service.feed(username=None, limit=100, cursor=None)
    return sorted(post["title"] for post in feed["posts"])


def test_history_goes_after_its_days_and_not_before(house: House) -> None:
    target = scrape(house, "good:a")
    scrape(house, "good:a")
    days(house, 29)
    assert tidy(house.core) == 0
    assert len(house.service.runs_of(target, limit=9, cursor=None)["runs"]) == 2
    days(house, 1.5)
    assert tidy(house.core) > 0
    assert len(house.service.runs_of(target, limit=9, cursor=None)["runs"]) == 1
    assert house.journal(target) == []
    assert house.count("sweeps") == 1
    assert house.count("sweep_members") == 1


def test_the_last_run_of_each_target_is_kept_for_ever(house: House) -> None:
    ended = [scrape(house, name) for name in ("good:a", "good:b")]
    going = house.add("waits:c")
    house.round()
    days(house, 1000)
    tidy(house.core)
    for target in ended:
        assert house.status(target)["last_run"]["state"] == "COMPLETED"
    assert house.shown()["last_run"] is not None
    assert house.count("runs") == 3
    assert house.status(going)["state"] == "RUNNING"


def test_the_last_ended_run_is_kept_while_a_newer_one_goes_on(house: House) -> None:
    target = scrape(house, "good:a")
    days(house, 40)
    house.add("good:a")
    house.round()
    tidy(house.core)
    assert house.status(target)["state"] == "RUNNING"
    assert house.status(target)["last_run"]["state"] == "COMPLETED"


def test_targets_are_kept_for_ever(house: House) -> None:
    target = house.track("good:a", schedule="manual")
    days(house, 5000)
    tidy(house.core)
    assert house.status(target)["state"] == "IDLE"


def test_the_sweep_that_ended_last_and_those_that_go_on_are_kept(house: House) -> None:
    house.add("waits:first")
    house.round()
    scrape(house, "good:a")
    scrape(house, "good:b")
    shown = house.shown()["sweep_id"]
    days(house, 40)
    tidy(house.core)
    assert house.shown()["sweep_id"] == shown
    assert house.count("sweeps") == 2
    house.finish("first")
    assert house.shown()["state"] == "COMPLETED"


def test_posts_go_once_their_source_has_not_shown_them_for_that_long(house: House) -> None:
    old, new = Post(native_id="old", title="old"), Post(native_id="new", title="new")
    target = scrape(house, "good:a", old)
    scrape(house, "good:a", Post(native_id="old", title="old, edited"))
    days(house, 10)
    scrape(house, "good:a", new)
    days(house, 85)
    scrape(house, "good:a", new)
    assert tidy(house.core) > 0
    assert titles(house) == ["new"]
    assert house.count("post_versions") == 0
    assert house.service.users()["users"][0]["post_count"] == 1
    assert house.status(target)["state"] == "COMPLETED"


def test_a_post_that_its_source_still_shows_stays_and_never_comes_back_as_new(house: House) -> None:
    posts = (Post(native_id="2", title="two"), Post(native_id="1", title="one"))
    target = scrape(house, "good:a", *posts)
    first = house.service.feed(username=None, limit=9, cursor=None)["posts"]
    for _ in range(5):
        days(house, 50)
        scrape(house, "good:a", *posts)
        tidy(house.core)
    assert house.service.feed(username=None, limit=9, cursor=None)["posts"] == first
    assert house.service.runs_of(target, limit=1, cursor=None)["runs"][0]["posts_new"] == 0


def test_the_posts_of_a_feed_that_stands_still_stay(house: House) -> None:
    """A server that answers 304 shows what it showed last."""
    scrape(house, "good:a", Post(native_id="1", title="one"))
    for _ in range(5):
        days(house, 50)
        house.add("good:a")
        house.round()
        order = house.order("a")
        del house.pool.running[order.token]
        from model import Outcome

        house.service.runs.finished(order, Outcome(ok=True))
        house.flush()
        tidy(house.core)
    assert titles(house) == ["one"]


@pytest.mark.parametrize("name", ["history_days", "retention_days"])
def test_zero_days_keep_for_ever(tmp_path: Path, name: str) -> None:
    with House(tmp_path, **{"history_days": 0, "retention_days": 0} | {name: 0}) as house:
        scrape(house, "good:a", Post(native_id="1", title="one"))
        scrape(house, "good:a", Post(native_id="2", title="two"))
        days(house, 10_000)
        assert tidy(house.core) == 0
        assert titles(house) == ["one", "two"]
        assert house.count("runs") == 2


def test_the_longest_time_there_can_be_is_not_too_long(tmp_path: Path) -> None:
    with House(tmp_path, history_days=10**9, retention_days=10**9) as house:
        scrape(house, "good:a")
        assert tidy(house.core) == 0


def test_a_store_that_refuses_postpones_it(house: House) -> None:
    scrape(house, "good:a")
    scrape(house, "good:a")
    days(house, 40)

    def refuse(*_: Any) -> None:
        raise OSError("the disk is full")

    event.listen(house.engine, "commit", refuse)
    assert tidy(house.core) == 0
    event.remove(house.engine, "commit", refuse)
    assert house.count("runs") == 2
    assert tidy(house.core) > 0


def test_nothing_is_deleted_before_the_start_or_during_the_stop(house: House) -> None:
    scrape(house, "good:a")
    days(house, 400)
    for name, value in (("ready", False), ("draining", True)):
        before = getattr(house.core, name)
        setattr(house.core, name, value)
        assert tidy(house.core) == 0
        setattr(house.core, name, before)
    assert tidy(house.core) > 0


def test_a_stop_does_not_wait_for_the_whole_of_it(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "PIECE", 10)
    fill_journal(house, 1000)
    days(house, 40)
    house.writer.submit(lambda tx: tx.after(lambda: setattr(house.core, "draining", True)))
    assert 0 <= tidy(house.core) <= 10


def fill_journal(house: House, rows: int) -> None:
    many = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})"
    columns = "target_id, label, at, trigger, from_state, to_state, actor"
    now = house.clock.now().timestamp()
    story = f"INSERT INTO journal ({columns}) {many} SELECT i, 'x', {now}, 'start', 'IDLE', 'RUNNING', 'x' FROM n"
    house.writer.run(lambda tx: tx.conn.execute(text(story)))


def test_it_goes_in_pieces_so_that_no_write_waits_long(house: House) -> None:
    """30,000 journal rows, and an old sweep of 30,000 members, while somebody writes all the time."""
    fill_journal(house, 30_000)
    now = house.clock.now().timestamp()
    many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000)"
    for statement in (
        f"INSERT INTO sweeps (id, kind, state, active, created_at, ended_at, total, open) "
        f"VALUES (1, 'refresh', 'COMPLETED', 0, {now}, {now}, 30000, 0)",
        f"INSERT INTO sweep_members (sweep_id, target_id, outcome) {many} SELECT 1, i, 'COMPLETED' FROM n",
    ):
        house.writer.run(lambda tx, one=statement: tx.conn.execute(text(one)))  # type: ignore[misc]
    days(house, 40)
    scrape(house, "good:a")
    waited: list[float] = []
    over = threading.Event()

    def writes() -> None:
        while not over.is_set():
            began = time.monotonic()
            house.writer.run(lambda tx: None)
            waited.append(time.monotonic() - began)

    deletes: list[int] = []

    def count(_conn: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("DELETE"):
            deletes.append(cursor.rowcount)

    event.listen(house.engine, "after_cursor_execute", count)
    thread = threading.Thread(target=writes)
    thread.start()
    assert tidy(house.core) >= 60_001
    over.set()
    thread.join()
    assert sum(deletes) >= 60_001 and max(deletes) <= 1000
    assert house.count("sweep_members") == 1
    waited.sort()
    print(f"longest waits of {len(waited)}: {[round(1000 * w) for w in waited[-3:]]} ms")
    assert waited[-3] < 0.1  # two may have met somebody else's load


def test_a_round_has_an_end_and_the_next_goes_on(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "ROUND", 300)
    fill_journal(house, 700)
    days(house, 40)
    assert [tidy(house.core) for _ in range(4)] == [300, 300, 100, 0]


def test_a_million_finished_runs_that_stay_cost_the_writer_nothing(house: House) -> None:
    """The last runs of many idle targets are looked at by a reader, not in a transaction that others wait for."""
    now = house.clock.now().timestamp()
    many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)"
    columns = "id, target_id, token, boot_id, state, started_at, deadline_at, ended_at"
    story = f"INSERT INTO runs ({columns}) {many} SELECT i, i, i, 1, 'COMPLETED', {now}, {now}, {now} FROM n"
    house.writer.run(lambda tx: tx.conn.execute(text(story)))
    days(house, 40)
    began: list[object] = []
    event.listen(house.engine, "begin", lambda conn: began.append(conn.get_execution_options().get("gleand_writer")))
    assert tidy(house.core) == 0
    assert not [one for one in began if one]


def test_hosts_that_want_nothing_any_more_go_and_those_that_do_stay(house: House) -> None:
    def robots(host: str) -> None:
        now = house.clock.now()
        house.writer.run(lambda tx: queries.keep_robots(tx.conn, host, at=now, status=200, text="x", crawl_delay_s=5))

    robots("old:80")
    robots("kept:80")
    house.block("past:80", 60)
    days(house, housekeeping.HOST_DAYS - 1)
    robots("kept:80")
    house.block("asks:80", 6 * DAY_S)
    assert tidy(house.core) == 0
    days(house, 1.5)
    assert tidy(house.core) == 2
    with house.engine.connect() as conn:
        assert sorted(conn.execute(text("SELECT host FROM hosts")).scalars()) == ["asks:80", "kept:80"]
