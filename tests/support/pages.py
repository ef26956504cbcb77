"""Page sources on sites that a test runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from model import FetchLimits, Order, Target
from sources.load import load
from tests.support.services import sorted_out
from tests.support.sites import Progress, Scraped, Site, open_http

OPTIONS: dict[str, Any] = {
    "kind": "page",
    "item": "article.post",
    "title": "h2 a",
    "link": "h2 a@href",
    "date": "time@datetime",
    "author": ".byline",
    "content": "div.body",
    "id": "@data-id",
    "media": "img@src",
    "next": "a.next@href",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a run gave, and what it said."""

    scraped: Scraped
    progress: list[str]

    @property
    def ids(self) -> list[str]:
        return [post.native_id for post in self.scraped.posts]


def scrape(
    site: Site,
    options: Mapping[str, Any] = OPTIONS,
    *,
    path: str = "/authors/ann",
    wanted: int | None = None,
    remember: Mapping[str, str] | None = None,
    **limits: Any,
) -> Run:
    """Run a page source, as a worker would."""
    table = {"url": site.url("/authors/{handle}")} | dict(options)
    target = Target(id=1, source="x", handle="ann", url=site.url(path), range=wanted, remember=dict(remember or {}))
    order = Order(
        run_id=1, token=1, target=target, timeout_s=10, stall_timeout_s=10, limits=FetchLimits(), options=table
    )
    progress = Progress()
    with open_http(remember=target.remember, progress=progress, **limits) as http:
        return Run(scraped=sorted_out(load(order)(target, http)), progress=progress)


def article(number: object, **parts: str) -> str:
    """An item that OPTIONS reads; `parts` replace its pieces."""
    given = {
        "heading": f'<h2><a href="/posts/{number}">Title <b>{number}</b> &amp; more</a></h2>',
        "time": '<time datetime="2026-01-02T10:00:00+01:00">yesterday</time>',
        "byline": '<span class="byline">Ann <i>Author</i></span>',
        "body": f'<div class="body"><p>text {number}</p><p>second</p><script>x()</script></div>',
        "image": f'<img src="../img/{number}.png">',
    } | parts
    return f'<article class="post" data-id="id-{number}">{"".join(given.values())}</article>'


def page(*articles: str, next_page: str = "", title: str = "Posts of Ann") -> bytes:
    """A page with these items."""
    link = f'<a class="next" href="{next_page}">older</a>' if next_page else ""
    head = f"<head><meta charset=utf-8><title>{title}</title></head>"
    return f"<!DOCTYPE html><html>{head}<body><main>{''.join(articles)}</main>{link}</body></html>".encode()
