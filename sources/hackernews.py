"""Hacker News accounts, by Algolia's search: stories and comments, one request for a hundred of them.

Source: hn.algolia.com/api. An account's name is case-sensitive there as it is on the site.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, parse_qs

from model import Post, Profile, Remember, Target, Window
from sources.paging import Page, fetch, walk
from sources.places import is_at_other_base
from sources.records import Record, identity, listed, make_post, named, number, read_posts, several, text, time
from sources.source import Account, Source, is_at, matched, segments

if TYPE_CHECKING:
    from sources.http import Answer, Http

_NAME = re.compile(r"[A-Za-z0-9_-]{1,40}", re.ASCII)
_API = "https://hn.algolia.com/api/v1"
_ACCEPT = {"Accept": "application/json"}


def _account(handle: str, base: str) -> Account:
    name = matched(handle, _NAME, what="the name of a Hacker News account", example="hackernews:pg")[0]
    tags = f"author_{name},(story,comment,poll,job)"
    return Account(handle=name, url=f"{base}/search_by_date?tags={tags}&hitsPerPage=100")


def _recognise(parts: SplitResult, base: str) -> Account | None:
    if not (is_at(parts, "news.ycombinator.com") or is_at_other_base(parts, base, _API)) or segments(parts) != ["user"]:
        return None
    name = parse_qs(parts.query).get("id", [""])[0]
    return _account(name, base) if _NAME.fullmatch(name) else None


SOURCE = Source(
    name="hackernews",
    description="A Hacker News account: stories and comments.",
    examples=("hackernews:pg", "https://news.ycombinator.com/user?id=pg"),
    base=_API,
    account=_account,
    recognise=_recognise,
)


def scrape(target: Target, http: Http) -> Iterator[Post | Profile | Remember | Window]:
    """Read what the account wrote from the newest back.

    Raises:
        ScrapeFailed: There is no such account, or the answer is not one of the search.
    """
    answer = fetch(http, target.url, headers=_ACCEPT, absent={})
    if answer.not_modified:
        return

    def read(page: Answer) -> Page:
        hits = listed(page.json(), "hits")
        posts, unread = read_posts(hits, _post, http.on_progress)
        return Page(posts=posts, unread=unread, older=_older(target.url, hits))

    walked = walk(target, http, answer, read, headers=_ACCEPT)
    if not walked.posts and not target.remember:
        _look_up(target, http)
    yield named(target.handle)
    yield from walked.results(target, answer)


def _older(url: str, hits: list[object]) -> str:
    """By time, not by page: nothing slips from one page to the next, and there is no end after a thousand."""
    times = [at for hit in hits if (at := number(hit, "created_at_i")) is not None]
    return f"{url}&numericFilters=created_at_i%3C%3D{times[-1]}" if times and len(hits) >= 100 else ""


def _look_up(target: Target, http: Http) -> None:
    """An account without a post, and no account, look the same to the search."""
    url = f"{target.url.partition('/search_by_date?')[0]}/users/{target.handle}"
    absent = {404: f"Hacker News has no account {target.handle}"}
    fetch(http, url, headers=_ACCEPT, absent=absent, conditional=False)


def _post(hit: Record) -> Post | None:
    native_id = identity(hit, "objectID")
    is_comment = bool(text(hit, "comment_text")) or "comment" in several(hit, "_tags")
    story = text(hit, "story_text") or text(hit, "text")
    address = text(hit, "url")
    return make_post(
        native_id,
        f"https://news.ycombinator.com/item?id={native_id}",
        title="" if is_comment else text(hit, "title"),
        markup=text(hit, "comment_text") if is_comment else story,
        plain_text=address,
        author=text(hit, "author"),
        published_at=time(hit, "created_at_i") or time(hit, "created_at"),
        kind="comment" if is_comment else "post",
    )
