"""A real server: nginx with a static blog as pelican writes it, and a feed for each of its authors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import Daemon
from tests.support.nginx import Nginx
from tests.support.pelican import Article, Blog
from tests.support.sweeps import refresh_all
from tests.support.waiting import wait_until

#: Authors; the last one is written Çelik, and pelican makes this of it in addresses.
NAMES = ["ann", "bob", "celik"]
FEED = "/feeds/ann.atom.xml"
#: Addresses that lead to Ann's feed: one says for ever, the other says for now.
MOVES = f"location = /old.xml {{ return 301 {FEED}; }} location = /other.xml {{ return 302 {FEED}; }}"


def written(author: str, day: int, **more: Any) -> Article:
    """An article that says who wrote it when."""
    name = "Çelik" if author == "celik" else author.title()
    words = f"Words of <em>{name}</em>, day {day}: Grüße &amp; more."
    how: dict[str, Any] = {"slug": f"{author}-{day}", "title": f"Day {day} & more", "body": f"<p>{words}</p>"}
    return Article(**how | {"author": name, "day": day} | more)


def three_days() -> list[Article]:
    """Three articles by each author."""
    return [written(name, day) for name in NAMES for day in (1, 2, 3)]


@pytest.fixture
def nginx(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Nginx]:
    """A server; a parameter of the fixture is lines of its configuration."""
    with Nginx(tmp_path / "nginx", server=getattr(request, "param", "")) as server:
        yield server


@pytest.fixture
def blog(nginx: Nginx) -> Blog:
    """The blog that the server has, as it is in the beginning."""
    blog = Blog(nginx.site, nginx.url(""))
    blog.build(three_days())
    return blog


@pytest.fixture
def daemon(tmp_path: Path, nginx: Nginx) -> Iterator[Daemon]:
    with Daemon(tmp_path / "data") as daemon:
        yield daemon


def add(daemon: Daemon, url: str) -> int:
    """Add a target whose first run completes; returns its id."""
    target = int(daemon.add(url)["user"]["id"])
    assert daemon.wait_state(target, "COMPLETED", "FAILED")["error"] is None
    return target


def came_to(daemon: Daemon, target: int) -> tuple[int, int, int]:
    """Posts that the last run of a target saw, and of these the new and the edited ones."""
    last = daemon.runs(target)[0]
    assert last["state"] == "COMPLETED", last["error"]
    return last["posts_seen"], last["posts_new"], last["posts_edited"]


def posts(daemon: Daemon, target: int) -> dict[str, Any]:
    """The posts of a target by the end of their address."""
    found = daemon.get(f"/api/targets/{target}/posts", params={"limit": 100})["posts"]
    return {post["post_url"].rpartition("/")[2].removesuffix(".html"): post for post in found}


@pytest.mark.parametrize("kind", ["atom", "rss"])
def test_a_feed_is_read_once_and_then_only_when_it_has_changed(
    daemon: Daemon, nginx: Nginx, blog: Blog, kind: str
) -> None:
    path = {name: f"/feeds/{name}.{kind}.xml" for name in NAMES}
    ids = {name: add(daemon, nginx.url(path[name])) for name in NAMES}
    assert {name: came_to(daemon, ids[name]) for name in NAMES} == dict.fromkeys(NAMES, (3, 3, 0))
    for _ in range(2):
        refresh_all(daemon)
    assert {name: came_to(daemon, ids[name]) for name in NAMES} == dict.fromkeys(NAMES, (0, 0, 0))
    assert {name: nginx.statuses(path[name]) for name in NAMES} == dict.fromkeys(NAMES, [200, 304, 304])

    blog.build([*three_days(), written("ann", 4)])
    for _ in range(2):
        refresh_all(daemon)
    assert {name: nginx.statuses(path[name])[3:] for name in NAMES} == dict.fromkeys(NAMES, [200, 304])
    found = {name: daemon.runs(ids[name])[1] for name in NAMES}
    assert {name: (run["posts_new"], run["posts_edited"]) for name, run in found.items()} == {
        "ann": (1, 0),
        "bob": (0, 0),  # a build writes every file, and the same words are no edit
        "celik": (0, 0),
    }
    assert list(posts(daemon, ids["ann"])) == ["ann-4", "ann-3", "ann-2", "ann-1"]


def test_what_it_keeps_is_what_the_author_wrote(daemon: Daemon, nginx: Nginx, blog: Blog) -> None:
    post = posts(daemon, add(daemon, nginx.url("/feeds/celik.atom.xml")))["celik-3"]
    assert post["title"] == "Day 3 & more"
    assert post["post_text"] == "Words of Çelik, day 3: Grüße & more."
    assert post["author_name"] == "Çelik"
    assert post["published_at"] == "2026-01-03T09:20:00.000+00:00"
    assert post["source_display_name"] == "Small Talk - Çelik"


def test_it_asks_for_gzip_and_sends_back_the_validators_it_was_given(daemon: Daemon, nginx: Nginx, blog: Blog) -> None:
    target = add(daemon, nginx.url(FEED))
    refresh_all(daemon)
    first, second = nginx.asked(FEED)
    assert first.encoding == "gzip"
    assert first.etag.startswith('W/"')  # nginx: what it compresses is not byte for byte the same
    assert (first.asked_etag, first.asked_since) == ("", "")
    assert second.status == 304
    assert (second.asked_etag, bool(second.asked_since)) == (first.etag, True)
    assert second.agent.startswith("gleand/")
    assert came_to(daemon, target) == (0, 0, 0)


@pytest.mark.parametrize("kind", ["atom", "rss"])
def test_an_edited_article_is_a_version(daemon: Daemon, nginx: Nginx, blog: Blog, kind: str) -> None:
    target = add(daemon, nginx.url(f"/feeds/ann.{kind}.xml"))
    edited = written("ann", 2, title="Day two", body="<p>Other words.</p>", edited_min=90)
    blog.build([edited if one.slug == edited.slug else one for one in three_days()])
    refresh_all(daemon)
    assert came_to(daemon, target) == (3, 0, 1)
    found = posts(daemon, target)
    assert {slug: post["version"] for slug, post in found.items()} == {"ann-3": 1, "ann-2": 2, "ann-1": 1}
    assert (found["ann-2"]["title"], found["ann-2"]["post_text"]) == ("Day two", "Other words.")


def test_an_article_that_is_removed_has_vanished_until_it_is_back(daemon: Daemon, nginx: Nginx, blog: Blog) -> None:
    target = add(daemon, nginx.url(FEED))
    blog.build([one for one in three_days() if one.slug != "ann-2"])
    refresh_all(daemon)
    assert [slug for slug, post in posts(daemon, target).items() if post["vanished_at"]] == ["ann-2"]
    blog.build(three_days())
    refresh_all(daemon)
    assert came_to(daemon, target) == (3, 0, 0)
    assert [slug for slug, post in posts(daemon, target).items() if post["vanished_at"]] == []


def test_what_falls_off_the_end_of_a_feed_has_not_vanished(daemon: Daemon, nginx: Nginx) -> None:
    blog = Blog(nginx.site, nginx.url(""), feed_items=3)
    blog.build(three_days())
    target = add(daemon, nginx.url(FEED))
    blog.build([*three_days(), written("ann", 4)])
    refresh_all(daemon)
    assert came_to(daemon, target) == (3, 1, 0)
    assert {slug: post["vanished_at"] for slug, post in posts(daemon, target).items()} == {
        "ann-4": None,
        "ann-3": None,
        "ann-2": None,
        "ann-1": None,
    }


@pytest.mark.parametrize("nginx", ["expires 1h;"], indirect=True)
def test_nothing_is_asked_for_within_max_age_but_by_force(daemon: Daemon, nginx: Nginx, blog: Blog) -> None:
    target = add(daemon, nginx.url(FEED))
    for _ in range(2):
        refresh_all(daemon)
    assert len(daemon.runs(target)) == 3
    assert came_to(daemon, target) == (0, 0, 0)
    assert nginx.statuses(FEED) == [200]
    answer = daemon.pull(target, "start", force=True, reason="I know that it has changed")
    assert answer.status_code in (200, 202), answer.text
    wait_until(lambda: nginx.statuses(FEED) == [200, 304], within_s=15)


@pytest.mark.parametrize("nginx", ["expires 3s;"], indirect=True)
def test_it_is_asked_for_again_once_max_age_is_over(daemon: Daemon, nginx: Nginx, blog: Blog) -> None:
    target = add(daemon, nginx.url(FEED))

    def asked_again() -> bool:
        refresh_all(daemon)
        return len(nginx.asked(FEED)) > 1

    wait_until(asked_again, within_s=30, every_s=0.2)
    first, second = nginx.asked(FEED)
    assert second.status == 304
    assert second.at - first.at >= 3
    assert len(daemon.runs(target)) > 2


@pytest.mark.parametrize("nginx", [MOVES], indirect=True)
def test_an_address_that_has_moved_for_ever_three_times_is_asked_no_more(
    daemon: Daemon, nginx: Nginx, blog: Blog
) -> None:
    old = nginx.url("/old.xml")
    target = add(daemon, old)
    for runs in (2, 3):
        assert daemon.get(f"/api/targets/{target}")["url"] == old
        refresh_all(daemon)
        assert nginx.statuses("/old.xml") == [301] * runs
    view = daemon.get(f"/api/targets/{target}")
    assert (view["url"], view["handle"]) == (nginx.url(FEED), old)
    refresh_all(daemon)
    assert nginx.statuses("/old.xml") == [301, 301, 301]
    assert nginx.statuses(FEED) == [200, 304, 304, 304]
    assert len(posts(daemon, target)) == 3


@pytest.mark.parametrize("nginx", [MOVES], indirect=True)
def test_an_address_that_leads_elsewhere_for_now_is_kept(daemon: Daemon, nginx: Nginx, blog: Blog) -> None:
    target = add(daemon, nginx.url("/other.xml"))
    for _ in range(3):
        refresh_all(daemon)
    assert nginx.statuses("/other.xml") == [302] * 4
    assert nginx.statuses(FEED) == [200, 304, 304, 304]
    assert daemon.get(f"/api/targets/{target}")["url"] == nginx.url("/other.xml")


@pytest.mark.parametrize("nginx", [f"{MOVES} location = {FEED} {{ expires 1h; }}"], indirect=True)
def test_a_run_that_asks_nothing_does_not_forget_that_the_address_has_moved(
    daemon: Daemon, nginx: Nginx, blog: Blog
) -> None:
    target = add(daemon, nginx.url("/old.xml"))
    for runs in (2, 3):
        refresh_all(daemon)  # within max-age: nothing is asked
        assert daemon.pull(target, "start", force=True, reason="ask").status_code in (200, 202)
        wait_until(lambda: len(nginx.asked("/old.xml")) == runs, within_s=15)  # noqa: B023 (read at once)
        daemon.wait_state(target, "COMPLETED", "FAILED")
    assert daemon.get(f"/api/targets/{target}")["url"] == nginx.url(FEED)


def test_an_author_who_is_not_there_fails_and_the_others_go_on(daemon: Daemon, nginx: Nginx, blog: Blog) -> None:
    ann = add(daemon, nginx.url(FEED))
    nobody = int(daemon.add(nginx.url("/feeds/nobody.atom.xml"))["user"]["id"])
    assert daemon.wait_state(nobody, "COMPLETED", "FAILED")["error"] == "the server answered with status 404"
    refresh_all(daemon)
    status = daemon.status()
    assert (status["state"], status["total_users"], status["failed_users"]) == ("COMPLETED", 2, 1)
    assert came_to(daemon, ann) == (0, 0, 0)

    blog.build([*three_days(), replace(written("ann", 5), author="Nobody")])
    refresh_all(daemon)
    assert came_to(daemon, nobody) == (1, 1, 0)


def test_a_feed_that_robots_txt_disallows_is_not_asked_for(tmp_path: Path, nginx: Nginx, blog: Blog) -> None:
    (nginx.site / "robots.txt").write_text("User-agent: *\nDisallow: /feeds/bob.atom.xml\n", encoding="utf-8")
    with Daemon(tmp_path / "data", respect_robots=True) as daemon:
        ann = add(daemon, nginx.url(FEED))
        bob = int(daemon.add(nginx.url("/feeds/bob.atom.xml"))["user"]["id"])
        said = daemon.wait_state(bob, "COMPLETED", "FAILED")["error"]
        assert said == f"the robots.txt of 127.0.0.1:{nginx.port} does not allow this address"
        refresh_all(daemon)
        assert came_to(daemon, ann) == (0, 0, 0)
        assert nginx.statuses("/feeds/bob.atom.xml") == []
        assert nginx.statuses(FEED) == [200, 304]
        assert nginx.statuses("/robots.txt") == [200]  # for all of the host's targets and runs


def test_the_front_page_leads_to_the_feed_of_all(daemon: Daemon, nginx: Nginx, blog: Blog) -> None:
    target = add(daemon, nginx.url("/"))
    view = daemon.get(f"/api/targets/{target}")
    assert (view["handle"], view["url"]) == (nginx.url("/"), nginx.url("/feeds/all.atom.xml"))
    assert view["post_count"] == 9
    refresh_all(daemon)
    assert nginx.statuses("/") == [200]
    assert nginx.statuses("/feeds/all.atom.xml") == [200, 304]
