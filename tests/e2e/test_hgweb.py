"""A real server: hgweb with three repositories as three accounts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.daemon import Daemon
from tests.support.mercurial import Hgweb
from tests.support.waiting import wait_until

NAMES = ["alice", "bob", "carol"]


@pytest.mark.parametrize("kind", ["atom-log", "rss-log"])
def test_each_commit_is_one_new_post_of_its_account(tmp_path: Path, kind: str) -> None:
    with Hgweb(tmp_path / "repos", NAMES) as hgweb, Daemon(tmp_path / "data") as daemon:
        ids = {name: daemon.add(hgweb.feed(name, kind))["user"]["id"] for name in NAMES}
        for target in ids.values():
            assert daemon.wait_state(target, "COMPLETED", "FAILED")["error"] is None
        before = {name: daemon.get("/api/feed", params={"username": hgweb.feed(name, kind)}) for name in NAMES}
        assert {name: feed["total_posts"] for name, feed in before.items()} == dict.fromkeys(NAMES, 1)
        assert "first commit" in before["alice"]["posts"][0]["title"]
        assert "Ann Author" in before["alice"]["posts"][0]["author_name"]

        hgweb.commit("alice", "Grüße & <more>")
        hgweb.commit("bob", "second")
        hgweb.commit("carol", "second")
        sweep = daemon.call("POST", "/api/users/refresh-all").json()["sweep_id"]
        wait_until(lambda: not daemon.get("/api/scrape-status", params={"sweep_id": sweep})["running"], within_s=20)
        for name, target in ids.items():
            feed = daemon.get("/api/feed", params={"username": hgweb.feed(name, kind)})
            assert feed["total_posts"] == 2, name
            (last,) = daemon.get(f"/api/targets/{target}/runs", params={"limit": 1})["runs"]
            assert last["posts_new"] == 1  # the older one is edited: hgweb marks the newest of a branch
        newest = daemon.get("/api/feed", params={"username": hgweb.feed("alice", kind)})["posts"][0]
        assert newest["title"].endswith("Grüße & <more>")


def test_a_page_leads_to_its_feed(tmp_path: Path) -> None:
    with Hgweb(tmp_path / "repos", ["alice"]) as hgweb, Daemon(tmp_path / "data") as daemon:
        target = daemon.add(f"http://127.0.0.1:{hgweb.port}/alice")["user"]["id"]
        assert daemon.wait_state(target, "COMPLETED", "FAILED")["error"] is None
        view = daemon.get(f"/api/targets/{target}")
        assert view["post_count"] == 1
        assert view["url"].endswith(("/alice/atom-log", "/alice/rss-log"))
        assert view["handle"] == f"http://127.0.0.1:{hgweb.port}/alice"


def test_a_repository_is_one_target_and_range_reads_more_than_the_ten_it_shows(tmp_path: Path) -> None:
    with Hgweb(tmp_path / "repos", ["alice"]) as hgweb, Daemon(tmp_path / "data") as daemon:
        for number in range(2, 13):
            hgweb.commit("alice", f"commit {number}")
        added = daemon.add(f"mercurial:http://127.0.0.1:{hgweb.port}/alice", range=20)["user"]
        assert (added["source"], added["username"]) == ("mercurial", hgweb.feed("alice"))
        assert daemon.wait_state(added["id"], "COMPLETED", "FAILED")["error"] is None
        assert len(daemon.posts(added["id"])) == 12
        for kind in ("atom-log", "rss-log"):
            answer = daemon.call("POST", "/api/targets", {"target": hgweb.feed("alice", kind), "start": False})
            assert answer.status_code == 409, answer.text
