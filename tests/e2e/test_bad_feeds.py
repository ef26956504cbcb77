"""Feeds as they come: COMPLETED with what is right or FAILED with why; never a lost daemon, never a lost older post."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import Daemon
from tests.support.sites import Asked, Reply, Site
from tests.support.waiting import wait_until

ITEM = (
    "<item><guid>{n}</guid><title>Post {n}</title><link>http://a.example/{n}</link><description>d</description></item>"
)
GOOD = "<rss version='2.0'><channel><title>Good</title>{}</channel></rss>".format(
    "".join(ITEM.format(n=n) for n in "123")
)


def rss(items: str) -> bytes:
    return f"<?xml version='1.0'?><rss version='2.0'><channel><title>t</title>{items}</channel></rss>".encode()


def endless() -> Iterator[bytes]:
    """200 MB."""
    yield b"<rss version='2.0'><channel>"
    for _ in range(200):
        yield b"<item><title>x</title></item>" + b" " * (1024 * 1024)


BAD: dict[str, tuple[Reply, str]] = {
    "not XML": (Reply(body=b"hello, this is not a feed"), "not a feed"),
    "0 bytes": (Reply(body=b""), "empty"),
    "200 MB": (Reply(body=endless()), "larger than the limit"),
    "gzip bomb": (
        Reply(body=gzip.compress(b" " * 64 * 1024 * 1024), headers={"Content-Encoding": "gzip"}),
        "larger than the limit",
    ),
    "cut short": (Reply(body=b"<rss", headers={"Content-Length": "5000"}), "cut short"),
    "status 500": (Reply(body=b"<h1>oops</h1>", status=500), "status 500"),
    "redirects for ever": (Reply(status=302, headers={"Location": "/feed"}), "redirects"),
}
RIGHT: dict[str, tuple[bytes, int]] = {
    "cut in the middle": (rss("".join(ITEM.format(n=n) for n in range(20)))[:-400], 16),
    "no guids": (rss("<item><title>a</title><link>http://a.example/1</link></item><item><title>b</title></item>"), 2),
    "duplicate guids": (rss(ITEM.format(n=1) + ITEM.format(n=1) + ITEM.format(n=2)), 2),
    "dates from nowhere": (rss(ITEM.format(n=1).replace("<desc", "<pubDate>Foo, 99 Bar 99999</pubDate><desc")), 1),
    "wrong charset": (b"<?xml version='1.0' encoding='us-ascii'?>" + GOOD.replace("Post", "Größe").encode(), 3),
}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with Daemon(tmp_path_factory.mktemp("feeds") / "data", workers=2, default_schedule="manual") as daemon:
        yield daemon


def scraped(daemon: Daemon, url: str) -> dict:
    """Ask for it and wait for the outcome."""
    answer = daemon.add(url)
    path, sweep = "/api/scrape-status", {"sweep_id": answer["sweep_id"]}
    wait_until(lambda: not daemon.get(path, params=sweep)["running"], within_s=30)
    return daemon.status(answer["user"]["id"])


@pytest.mark.parametrize("name", list(BAD))
def test_what_is_no_feed_fails_with_why_and_older_posts_stay(daemon: Daemon, name: str) -> None:
    reply, why = BAD[name]
    with Site() as site:
        site.answer("/feed", GOOD.encode())
        url = site.url("/feed")
        assert scraped(daemon, url)["state"] == "COMPLETED"
        site.answer_with("/feed", lambda _: reply)
        status = scraped(daemon, url)
    assert status["state"] == "FAILED"
    assert why in status["error"]
    assert daemon.get("/api/feed", params={"username": url})["total_posts"] == 3
    assert daemon.get("/healthz")["status"] == "ok"


@pytest.mark.parametrize("name", list(RIGHT))
def test_what_is_right_in_it_is_kept(daemon: Daemon, name: str) -> None:
    body, count = RIGHT[name]
    with Site() as site:
        site.answer("/feed", body)
        url = site.url("/feed")
        status = scraped(daemon, url)
    assert status["error"] is None
    assert status["state"] == "COMPLETED"
    assert status["last_run"]["posts_new"] == count


def test_fifty_thousand_items_are_kept_up_to_the_limit_and_marked(daemon: Daemon) -> None:
    with Site() as site:
        site.answer("/feed", rss("".join(ITEM.format(n=n) for n in range(50_000))))
        status = scraped(daemon, site.url("/feed"))
    assert status["state"] == "COMPLETED"
    assert status["last_run"]["posts_new"] == 5000
    assert status["last_run"]["truncated"] is True


def test_validators_come_back_only_after_the_posts_are_kept(daemon: Daemon) -> None:
    asked: list[Asked] = []

    def reply(one: Asked) -> Reply:
        asked.append(one)
        if one.headers.get("if-none-match") == '"v1"':
            return Reply(status=304)
        return Reply(body=GOOD.encode(), headers={"ETag": '"v1"', "Last-Modified": "Tue, 01 Sep 2026 10:00:00 GMT"})

    with Site() as site:
        site.answer_with("/feed", reply)
        assert scraped(daemon, site.url("/feed"))["last_run"]["posts_new"] == 3
        again = scraped(daemon, site.url("/feed"))
    assert "if-none-match" not in asked[0].headers
    assert asked[1].headers["if-modified-since"] == "Tue, 01 Sep 2026 10:00:00 GMT"
    assert (again["state"], again["last_run"]["posts_seen"]) == ("COMPLETED", 0)


def test_an_edit_becomes_a_version(daemon: Daemon) -> None:
    with Site() as site:
        site.answer("/feed", GOOD.encode())
        scraped(daemon, site.url("/feed"))
        site.answer("/feed", GOOD.replace("Post 2", "Post two").encode())
        status = scraped(daemon, site.url("/feed"))
        posts = daemon.get("/api/feed", params={"username": site.url("/feed")})["posts"]
    assert (status["last_run"]["posts_new"], status["last_run"]["posts_edited"]) == (0, 1)
    assert {post["title"]: post["version"] for post in posts} == {"Post 1": 1, "Post two": 2, "Post 3": 1}


def test_retry_after_is_waited_for_and_shown(daemon: Daemon) -> None:
    with Site() as site:
        site.answer("/feed", status=429, Retry_After="120")
        status = scraped(daemon, site.url("/feed"))
        (host,) = [h for h in daemon.get("/api/hosts")["hosts"] if h["host"] == f"127.0.0.1:{site.port}"]
    assert status["state"] == "FAILED"
    assert "status 429" in status["error"]
    assert "Retry-After" in host["reason"]


def test_a_private_address_is_refused_unless_allowed(tmp_path: Path) -> None:
    with Site() as site, Daemon(tmp_path / "data", allow_private_networks=False) as daemon:
        site.answer("/feed", GOOD.encode())
        status = scraped(daemon, site.url("/feed"))
        assert not site.asked
    assert status["state"] == "FAILED"
    assert "is private" in status["error"]
