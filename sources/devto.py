"""Authors and organisations on dev.to, or another Forem, by its API: their articles, with the description of each.

Source: developers.forem.com/api (articles, users). The list has no text of an article beyond its description.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import SplitResult

from model import Post, Profile, Remember, Target, Window
from sources.paging import Page, fetch, walk
from sources.places import is_feed
from sources.records import Record, identity, listed, make_post, named, read_posts, text, time
from sources.source import Account, Source, is_at, is_at_base, matched, segments

if TYPE_CHECKING:
    from sources.http import Answer, Http

_NAME = re.compile(r"[A-Za-z0-9_]{1,30}", re.ASCII)
#: First pieces of paths that are the site's own.
_PAGES = frozenset(
    """about admin api badge badges challenges code-of-conduct connect contact dashboard enter events feed forem
    forems guidelines help latest listings login magic_links new notifications pod podcasts privacy reactions
    readinglist robots rss search settings shop signout sitemap sponsors subforems survey t tags terms top users
    videos welcome""".split()
)
_PER_PAGE = 30
_PAGE = re.compile(r"&page=(\d+)$")
_ACCEPT = {"Accept": "application/json"}


def _account(handle: str, base: str) -> Account:
    name = matched(handle.removeprefix("@"), _NAME, what="the name of a dev.to account", example="devto:ben")[0].lower()
    return Account(handle=name, url=f"{base}/api/articles?username={name}&per_page={_PER_PAGE}&page=1")


def _recognise(parts: SplitResult, base: str) -> Account | None:
    if not (is_at(parts, "dev.to") or is_at_base(parts, base)) or is_feed(parts):
        return None
    pieces = segments(parts)
    if len(pieces) != 1 or not _NAME.fullmatch(pieces[0]) or pieces[0].lower() in _PAGES:
        return None
    return _account(pieces[0], base)


SOURCE = Source(
    name="devto",
    description="Articles of an author or an organisation on dev.to.",
    examples=("devto:ben", "https://dev.to/ben"),
    base="https://dev.to",
    account=_account,
    recognise=_recognise,
)


def scrape(target: Target, http: Http) -> Iterator[Post | Profile | Remember | Window]:
    """Read the articles from the newest back.

    Raises:
        ScrapeFailed: There is no such account, or the answer is not a list of articles.
    """
    absent = {404: f"dev.to has no account {target.handle}"}
    answer = fetch(http, target.url, headers=_ACCEPT, absent=absent)
    if answer.not_modified:
        return
    names: list[str] = []

    def read(page: Answer) -> Page:
        items = listed(page.json())
        posts, unread = read_posts(items, _article, http.on_progress)
        names.extend(_name(item, target.handle) for item in items)
        return Page(posts=posts, unread=unread, older=_older(page.url) if len(items) >= _PER_PAGE else "")

    walked = walk(target, http, answer, read, headers=_ACCEPT, is_numbered=True)
    name = next(filter(None, names), "")
    if not walked.posts and not target.remember:
        url = f"{target.url.partition('/api/articles?')[0]}/api/users/by_username?url={target.handle}"
        name = text(fetch(http, url, headers=_ACCEPT, absent=absent, conditional=False).json(), "name")
    yield named(name or target.handle)
    yield from walked.results(target, answer)


def _older(url: str) -> str:
    page = _PAGE.search(url)
    return f"{url[: page.start()]}&page={int(page[1]) + 1}" if page and len(page[1]) < 9 else ""


def _name(item: object, handle: str) -> str:
    """What the account calls itself; an organisation's articles are written by its members."""
    for path, key in (("user", "username"), ("organization", "username")):
        if text(item, path, key).lower() == handle:
            return text(item, path, "name")
    return ""


def _article(item: Record) -> Post | None:
    return make_post(
        identity(item, "id"),
        text(item, "url") or text(item, "canonical_url"),
        title=text(item, "title"),
        plain_text=text(item, "description"),
        author=text(item, "user", "username"),
        published_at=time(item, "published_at") or time(item, "published_timestamp"),
        media=[text(item, "cover_image")],
    )
