"""A Scrapy spider that knows nothing of gleand, run in a worker."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.pools import Bench, open_bench
from tests.support.programs import alive
from tests.support.sites import Asked, Reply, Site
from tests.support.waiting import wait_until

SPIDER = """
import scrapy


class PostsSpider(scrapy.Spider):
    name = "posts"

    def __init__(self, user=None, start=None, **kwargs):
        super().__init__(**kwargs)
        self.start_urls = [f"{start}/users/{user}"]

    def parse(self, response):
        for post in response.css("article"):
            yield {
                "title": post.css("h2::text").get(),
                "link": response.urljoin(post.css("a::attr(href)").get()),
                "date": post.css("time::attr(datetime)").get(),
                "content": post.css("div.body").get(),
                "tags": post.css("li::text").getall(),
            }
        next_page = response.css("a.next::attr(href)").get()
        if next_page:
            yield response.follow(next_page, self.parse)
"""


def need_scrapy() -> str:
    """The scrapy command: that of $SCRAPY, of this interpreter, or of the path. Without one: skipped, in CI failed."""
    beside = str(Path(sys.executable).parent)
    found = os.environ.get("SCRAPY") or shutil.which("scrapy", path=beside) or shutil.which("scrapy")
    if not found:
        assert not os.environ.get("CI"), "Scrapy is missing: .ci/run installs it and sets SCRAPY"
        pytest.skip("Scrapy is not installed (pip install scrapy in any environment, and SCRAPY=.../bin/scrapy)")
    return found


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "spider.py").write_text(SPIDER, encoding="utf-8")
    argv = [need_scrapy(), "runspider", "spider.py", "-a", "user={handle}", "-o", "-:jsonlines"]
    return {"kind": "command", "argv": argv, "cwd": str(tmp_path)}


@pytest.fixture
def bench() -> Iterator[Bench]:
    with open_bench(memory_bytes=2**30) as bench:
        yield bench


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


def article(n: int) -> str:
    time = f'<time datetime="2026-01-{n:02}T10:00:00Z"></time>'
    return f'<article><h2>Post {n}</h2><a href="/p/{n}">x</a>{time}<div class="body"><p>text {n}</p></div></article>'


def play(site: Site) -> None:
    pages = {"": article(9) + article(8) + '<a class="next" href="?p=2">older</a>', "?p=2": article(7)}
    for query, body in pages.items():
        site.answer(f"/users/ann{query}", f"<html><body>{body}</body></html>".encode(), Content_Type="text/html")


def aimed(options: dict[str, Any], site: Site) -> dict[str, Any]:
    return options | {"argv": [*options["argv"], "-a", f"start={site.url('')}"]}


def test_its_items_are_posts(bench: Bench, site: Site, options: dict[str, Any]) -> None:
    play(site)
    order = bench.give("x", "ann", scraper=None, scraper_path=None, options=aimed(options, site))
    outcome = wait_until(lambda: bench.heard.outcomes.get(order.token), within_s=30)
    assert (outcome.ok, outcome.error) == (True, None)
    assert [post.title for post in outcome.posts] == ["Post 9", "Post 8", "Post 7"]
    first = outcome.posts[0]
    assert (first.native_id, first.url) == (site.url("/p/9"), site.url("/p/9"))
    assert (first.text, first.html) == ("text 9", '<div class="body"><p>text 9</p></div>')
    assert first.published_at == datetime(2026, 1, 9, 10, tzinfo=UTC)


def test_a_spider_that_does_not_start_fails_with_its_last_words(bench: Bench, options: dict[str, Any]) -> None:
    argv = [*options["argv"][:2], "no_such_spider.py"]
    order = bench.give("x", "ann", scraper=None, scraper_path=None, options=options | {"argv": argv})
    outcome = wait_until(lambda: bench.heard.outcomes.get(order.token), within_s=30)
    assert outcome.error is not None
    assert outcome.error.startswith("the program ended with exit code 2: ")
    assert "File not found: no_such_spider.py" in outcome.error


def test_a_spider_that_hangs_is_killed_at_the_deadline(bench: Bench, site: Site, options: dict[str, Any]) -> None:
    def hang(_: Asked) -> Reply:
        site.closing.wait()
        return Reply()

    site.answer_with("/users/ann", hang)
    marker = f"start={site.url('')}"
    order = bench.give("x", "ann", scraper=None, scraper_path=None, options=aimed(options, site), timeout_s=3.0)
    wait_until(lambda: any(asked.path == "/users/ann" for asked in site.asked), within_s=30)
    assert alive(marker)
    wait_until(lambda: bench.heard.overdues.get(order.token) == "deadline", within_s=10)
    bench.pool.revoke(order.token)
    wait_until(lambda: alive(marker) == [], within_s=10)
