"""Sources that are written down, not built in: pages, programs, and scrapers that packages bring."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import Daemon
from tests.support.pages import article, page
from tests.support.sites import Site

CONFIG = """
[pages.authors]
url = "{site}/authors/{{handle}}"
item = "article.post"
title = "h2 a"
link = "h2 a@href"
date = "time@datetime"
content = "div.body"

[commands.printer]
argv = ["{python}", "-c", "import json, sys; print(json.dumps({{'id': 1, 'name': sys.argv[1]}}))", "{{handle}}"]
fields = {{title = "name"}}

[commands.broken]
argv = ["{python}", "-c", "import sys; sys.exit('<b>no</b>')"]
"""


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


@pytest.fixture
def daemon(tmp_path: Path, site: Site) -> Iterator[Daemon]:
    config = tmp_path / "gleand.toml"
    config.write_text(CONFIG.format(site=site.url(""), python=sys.executable), encoding="utf-8")
    with Daemon(tmp_path / "data", env={"GLEAND_CONFIG": str(config)}, respect_robots=False) as daemon:
        yield daemon


def test_a_page_without_a_feed_becomes_posts(daemon: Daemon, site: Site) -> None:
    site.answer("/authors/ann", page(article(2), article(1)))
    target = daemon.add("authors:ann")["user"]["id"]
    assert daemon.wait_state(target, "COMPLETED", "FAILED")["error"] is None
    titles = [post["title"] for post in daemon.get("/api/posts", params={"target": target})["posts"]]
    assert sorted(titles) == ["Title 1 & more", "Title 2 & more"]


def test_a_page_that_was_redesigned_fails_and_says_so(daemon: Daemon, site: Site) -> None:
    site.answer("/authors/ann", b"<main>new</main>")
    target = daemon.add("authors:ann")["user"]["id"]
    error = daemon.wait_state(target, "COMPLETED", "FAILED")["error"]
    assert "the page has no item that matches 'article.post'" in str(error)


def test_a_program_becomes_posts(daemon: Daemon) -> None:
    target = daemon.add("printer:ann")["user"]["id"]
    assert daemon.wait_state(target, "COMPLETED", "FAILED")["error"] is None
    (post,) = daemon.get("/api/posts", params={"target": target})["posts"]
    assert post["title"] == "ann"


def test_a_program_that_fails_fails_its_run(daemon: Daemon) -> None:
    target = daemon.add("broken:ann")["user"]["id"]
    error = daemon.wait_state(target, "COMPLETED", "FAILED")["error"]
    assert "the program ended with exit code 1" in str(error)
