"""A client of the web app before gleand, which knows only what that one had, works unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.daemon import Daemon
from tests.support.feeds import RSS, Gate, rss
from tests.support.settings import scrapers
from tests.support.sites import Site
from tests.support.waiting import wait_until

USER = set(
    "username display_name initials added_at last_scraped post_count id source url state error next_due_at".split()
)
POST = set(
    "post_number post_text post_url author_name source_username source_display_name source_initials"
    " published_at title".split()
)
STATUS = set(
    "running state progress error current_user total_users completed_users started_at last_heartbeat"
    " sweep_id failed_users timed_out_users deadline_at last_progress_at stalled next_due_at counts last_run".split()
)
STATES = {"IDLE", "RUNNING", "COMPLETED", "FAILED", "TIMEOUT"}


class OldClient:
    """The page of the old web app, as a script: it reads old fields only and ignores whatever else comes."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.session = requests.Session()
        self.session.trust_env = False

    def ask(self, method: str, path: str, body: Any = None, **how: Any) -> tuple[int, dict[str, Any]]:
        answer = self.session.request(method, self.url + path, json=body, timeout=30, **how)
        assert answer.headers["Content-Type"] == "application/json"
        view = answer.json()
        assert isinstance(view, dict)
        return answer.status_code, view

    def add(self, username: str, **more: Any) -> dict[str, Any]:
        code, view = self.ask("POST", "/api/users/add", {"username": username, "range": 60} | more)
        assert code == 200, view
        assert view["status"] == "running"
        assert view["message"]
        return dict(view["user"])

    def refresh_all(self) -> int:
        code, view = self.ask("POST", "/api/users/refresh-all", {"range": 60})
        assert (code, view["status"]) == (200, "running")
        assert view["message"]
        return int(view["total_users"])

    def status(self) -> dict[str, Any]:
        """One poll; what an old page needs of every answer is checked."""
        code, view = self.ask("GET", "/api/scrape-status")
        assert code == 200
        assert set(view) == STATUS
        assert view["running"] is (view["state"] == "RUNNING")
        assert view["state"] in STATES
        assert isinstance(view["progress"], str)
        for text in (view["progress"], view["error"] or ""):
            assert not set("<>&") & set(text)
        return view

    def last(self) -> dict[str, Any]:
        """Poll until it is over; the last answer."""
        view = wait_until(lambda: None if (v := self.status())["running"] else v, within_s=20)
        assert view is not None
        return view

    def feed(self, **query: Any) -> dict[str, Any]:
        code, view = self.ask("GET", "/api/feed", params=query)
        assert code == 200
        assert {"posts", "total_posts", "total_users", "filtered_by", "next_cursor"} <= set(view)
        assert all(set(post) >= POST for post in view["posts"])
        return view

    def users(self) -> list[dict[str, Any]]:
        code, view = self.ask("GET", "/api/users")
        assert code == 200
        assert view["count"] == len(view["users"])
        assert all(set(user) == USER for user in view["users"])
        return list(view["users"])

    def remove(self, username: str) -> int:
        code, view = self.ask("POST", "/api/users/remove", {"username": username})
        assert view["message" if code == 200 else "error"]
        return code


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    home = tmp_path_factory.mktemp("older") / "data"
    settings = {"host_concurrency": 20, "stop_grace_s": 1, "default_schedule": "manual", "read_timeout_s": 60}
    with Daemon(home, **settings, **scrapers()) as daemon:
        yield daemon


@pytest.fixture
def daemon(shared: Daemon) -> Iterator[Daemon]:
    """Nothing tracked and nothing going on, before and after."""
    yield shared
    assert shared.call("POST", "/api/scrape-status/reset", {"force": True}).status_code == 200
    for target in shared.get("/api/targets?limit=200")["targets"]:
        assert shared.call("DELETE", f"/api/targets/{target['id']}").status_code == 200


@pytest.fixture
def client(daemon: Daemon) -> OldClient:
    return OldClient(daemon.url)


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


def error(client: OldClient, method: str, path: str, body: Any = None, **how: Any) -> tuple[int, str]:
    """Code and word of a refusal, which has a sentence too."""
    code, view = client.ask(method, path, body, **how)
    assert code >= 400
    assert view["error"].strip()
    return code, view["code"]


# -- the whole passage -----------------------------------------------------------------------------------------------


def test_an_old_client_adds_polls_reads_refreshes_and_removes(client: OldClient, site: Site) -> None:
    site.answer("/ann", rss("two", "one", name="Ann Lee"), Content_Type=RSS)
    site.answer("/bob", rss("three", name="Bob"), Content_Type=RSS)

    user = client.add(site.url("/ann"))
    assert set(user) == USER
    assert user["username"] == site.url("/ann")
    ended = client.last()
    assert (ended["state"], ended["error"], ended["completed_users"], ended["total_users"]) == ("COMPLETED", None, 1, 1)
    client.add(site.url("/bob"))
    client.last()

    ann, bob = client.users()
    assert (ann["display_name"], ann["initials"], ann["post_count"], ann["state"]) == ("Ann Lee", "AL", 2, "COMPLETED")
    assert datetime.fromisoformat(ann["last_scraped"]).utcoffset() == datetime.now(UTC).utcoffset()
    assert bob["post_count"] == 1

    feed = client.feed()
    assert [post["title"] for post in feed["posts"]] == ["three", "two", "one"]
    assert (feed["total_posts"], feed["total_users"], feed["filtered_by"]) == (3, 2, None)
    post = client.feed(username=ann["username"])["posts"][0]
    assert post["source_username"] == site.url("/ann")
    assert (post["source_display_name"], post["source_initials"]) == ("Ann Lee", "AL")
    assert (post["post_text"], post["post_url"]) == ("text of two", "https://a.example/two")
    assert datetime.fromisoformat(post["published_at"]) == datetime(2026, 3, 2, 12, tzinfo=UTC)

    site.answer("/bob", rss("four", "three", name="Bob"), Content_Type=RSS)
    assert client.refresh_all() == 2
    ended = client.last()
    assert (ended["state"], ended["completed_users"], ended["total_users"]) == ("COMPLETED", 2, 2)
    assert [post["title"] for post in client.feed(limit=1)["posts"]] == ["four"]

    assert client.remove(bob["username"]) == 200
    assert client.remove(bob["username"]) == 404
    assert [user["username"] for user in client.users()] == [ann["username"]]
    assert [post["title"] for post in client.feed()["posts"]] == ["two", "one"]


def test_the_status_of_a_scrape_in_progress_names_who_and_until_when(client: OldClient, site: Site) -> None:
    gate = Gate(site, "/slow", rss("one"))
    client.add(gate.url)
    assert gate.asked.wait(10)
    status = wait_until(lambda: (view := client.status())["current_user"] and view)
    assert status["running"]
    assert (status["state"], status["total_users"], status["completed_users"]) == ("RUNNING", 1, 0)
    assert status["current_user"] == gate.url
    assert gate.url in status["progress"]
    started, beat, deadline = (
        datetime.fromisoformat(status[n]) for n in ("started_at", "last_heartbeat", "deadline_at")
    )
    assert started <= beat <= deadline
    gate.open()
    assert client.last()["state"] == "COMPLETED"


def test_before_anything_was_asked_for_the_status_is_idle_and_whole(client: OldClient) -> None:
    status = client.status()
    assert (status["running"], status["state"], status["error"], status["progress"]) == (False, "IDLE", None, "Idle")
    assert set(status["counts"]) == STATES


@pytest.mark.parametrize(
    ("source", "state", "words"),
    [
        ("raises", "FAILED", "1 failed, of 1: the scraper reported an error"),
        ("killed", "FAILED", "SIGKILL"),
        ("exits", "FAILED", "1 failed, of 1"),
    ],
)
def test_what_went_wrong_is_said_in_our_own_words(client: OldClient, source: str, state: str, words: str) -> None:
    client.add(f"{source}:x")
    ended = client.last()
    assert (ended["state"], ended["failed_users"]) == (state, 1)
    assert words in ended["error"]
    assert "such luck" not in ended["error"] + ended["progress"]


def test_a_server_that_answers_with_markup_does_not_reach_the_status(client: OldClient, site: Site) -> None:
    site.answer("/x", b"<html><script>alert(1)</script>", status=500)
    client.add(site.url("/x"))
    ended = client.last()
    assert ended["state"] == "FAILED"
    assert "alert" not in ended["error"]


# -- add -------------------------------------------------------------------------------------------------------------


def test_adding_again_what_is_tracked_scrapes_it_again(client: OldClient) -> None:
    first = client.add("good:ann")
    client.last()
    again = client.add("good:ann")
    assert again["id"] == first["id"]
    assert client.last()["completed_users"] == 1
    assert len(client.users()) == 1


@pytest.mark.parametrize("spelling", ["HTTP://127.0.0.1:{port}/ann", "http://127.0.0.1:{port}/ann#top", "feed:{url}"])
def test_other_spellings_of_an_address_are_the_same_user(client: OldClient, site: Site, spelling: str) -> None:
    site.answer("/ann", rss("one"), Content_Type=RSS)
    name = spelling.format(port=site.port, url=site.url("/ann"))
    first = client.add(site.url("/ann"))
    client.last()
    assert client.add(name)["id"] == first["id"]
    client.last()
    assert client.feed(username=name)["total_posts"] == 1
    assert client.remove(name) == 200


def test_a_source_may_be_named_before_the_handle_or_beside_it(client: OldClient) -> None:
    assert client.add("good:ann")["source"] == "good"
    assert client.add("ben", source="good")["username"] == "ben"


@pytest.mark.parametrize(("given", "kept"), [(5, 5), ("5", 5), ("060", 60), (5.0, 5), (None, None)])
def test_a_range_is_a_number_or_one_in_quotes(client: OldClient, daemon: Daemon, given: Any, kept: int | None) -> None:
    user = client.add("good:ann", range=given)
    assert daemon.get(f"/api/targets/{user['id']}")["range"] == kept


@pytest.mark.parametrize("given", ["", "many", "1.5", 1.5, 0, "0", -1, 10**7, True, [5]])
def test_a_range_that_is_none_is_refused(client: OldClient, given: Any) -> None:
    code, _ = error(client, "POST", "/api/users/add", {"username": "good:ann", "range": given})
    assert code in (400, 422)
    assert client.users() == []


@pytest.mark.parametrize(
    "body", [{}, {"username": ""}, {"username": "  "}, {"username": None}, {"user": "good:ann"}, None]
)
def test_adding_nobody_is_refused_with_400(client: OldClient, body: Any) -> None:
    assert error(client, "POST", "/api/users/add", body) == (400, "bad_request")


def test_a_bare_handle_that_the_default_source_cannot_use_is_refused_with_a_hint(client: OldClient) -> None:
    code, view = client.ask("POST", "/api/users/add", {"username": "alice"})
    assert (code, view["code"]) == (422, "unusable")
    assert "address of a feed" in view["hint"]
    assert client.users() == []


def test_a_bare_handle_works_where_the_settings_say_how(tmp_path: Path, site: Site) -> None:
    site.answer("/alice.rss", rss("one"), Content_Type=RSS)
    with Daemon(tmp_path / "data", handle_url=f"{site.url('/')}{{handle}}.rss", workers=1) as daemon:
        client = OldClient(daemon.url)
        user = client.add("alice")
        assert (user["username"], user["url"]) == ("alice", site.url("/alice.rss"))
        assert client.last()["state"] == "COMPLETED"
        assert client.feed(username="alice")["total_posts"] == 1
        assert client.remove("alice") == 200


def test_adding_what_is_being_scraped_is_refused_as_already_running(client: OldClient) -> None:
    client.add("sleeps:x")
    assert error(client, "POST", "/api/users/add", {"username": "sleeps:x"}) == (409, "already_running")
    assert client.status()["running"]


def test_fields_and_parameters_that_are_not_known_are_passed_over(client: OldClient) -> None:
    client.add("good:ann", theme="dark", id=7)
    client.last()
    assert client.ask("GET", "/api/feed?_=1234&username=ann")[1]["total_posts"] == 1
    assert client.ask("GET", "/api/scrape-status?_=1234")[0] == 200


# -- refresh-all -----------------------------------------------------------------------------------------------------


def test_refreshing_when_nothing_is_tracked_is_refused_with_400(client: OldClient) -> None:
    assert error(client, "POST", "/api/users/refresh-all") == (400, "bad_request")
    assert not client.status()["running"]


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"data": b"", "headers": {"Content-Type": "application/json"}},
        {"data": b"{}", "headers": {"Content-Type": "application/json"}},
        {"data": b"", "headers": {"Content-Type": "application/x-www-form-urlencoded"}},
    ],
)
def test_an_empty_body_is_fine_for_refresh_all_and_reset(client: OldClient, how: dict[str, Any]) -> None:
    client.add("good:ann")
    client.last()
    assert client.ask("POST", "/api/users/refresh-all", **how)[0] == 200
    client.last()
    assert client.ask("POST", "/api/scrape-status/reset", **how)[0] == 200
    assert client.status()["state"] == "IDLE"


def test_a_second_refresh_all_is_refused_while_the_first_goes_on(client: OldClient) -> None:
    client.add("sleeps:x")
    assert client.refresh_all() == 1
    assert error(client, "POST", "/api/users/refresh-all") == (409, "already_running")


# -- remove and reset ------------------------------------------------------------------------------------------------


def test_removing_a_user_ends_its_scrape_first(client: OldClient, daemon: Daemon) -> None:
    before = daemon.workers()
    client.add("has_stubborn_grandchild:x")
    wait_until(lambda: any("# grandchild" in line for line in daemon.descendants().values()))
    assert client.remove("has_stubborn_grandchild:x") == 200
    assert set(daemon.descendants()) <= before
    assert not client.status()["running"]
    assert client.users() == []


@pytest.mark.parametrize("name", ["good:nobody", "nobody", "http://127.0.0.1/none", "<script>"])
def test_removing_somebody_who_is_not_tracked_is_404(client: OldClient, name: str) -> None:
    assert error(client, "POST", "/api/users/remove", {"username": name}) == (404, "not_found")


def test_a_reset_is_refused_while_a_scrape_goes_on_and_says_what_would_work(client: OldClient) -> None:
    client.add("sleeps:x")
    code, view = client.ask("POST", "/api/scrape-status/reset", {"force": False})
    assert code == 409
    assert "force" in view["hint"]
    assert view["refused_by"] == "overdue"
    assert client.status()["running"]


def test_a_forced_reset_leaves_idle_and_no_process(client: OldClient, daemon: Daemon) -> None:
    client.add("has_grandchild:x")
    wait_until(lambda: any("# grandchild" in line for line in daemon.descendants().values()))
    assert client.ask("POST", "/api/scrape-status/reset", {"force": True})[0] == 200
    assert not any("# grandchild" in line for line in daemon.descendants().values())
    status = client.status()
    assert (status["running"], status["state"], status["error"], status["progress"]) == (False, "IDLE", None, "Idle")
    assert client.add("has_grandchild:x")


# -- feed ------------------------------------------------------------------------------------------------------------


def test_the_feed_is_paged_newest_first_without_gap_or_repetition(client: OldClient, site: Site) -> None:
    titles = [str(n) for n in reversed(range(25))]
    site.answer("/ann", rss(*titles), Content_Type=RSS)
    client.add(site.url("/ann"))
    client.last()
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = client.feed(limit=10, **({"cursor": cursor} if cursor else {}))
        assert page["total_posts"] == 25
        seen += [post["title"] for post in page["posts"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == titles


def test_the_feed_of_somebody_unknown_is_empty(client: OldClient) -> None:
    feed = client.feed(username="nobody")
    assert (feed["posts"], feed["total_posts"], feed["filtered_by"]) == ([], 0, "nobody")


@pytest.mark.parametrize("query", [{"limit": 0}, {"limit": 1001}, {"limit": "ten"}, {"cursor": "x"}])
def test_a_page_that_cannot_be_is_refused(client: OldClient, query: dict[str, Any]) -> None:
    assert error(client, "GET", "/api/feed", params=query)[0] == 400
