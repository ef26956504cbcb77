"""Following a feed: RSS, Atom and JSON Feed, or a page that links to one. For every source that reads feeds.

A document is fetched once and read whole: `range` bounds paging, and a feed has no pages. What is remembered are the
validators of the document that the posts came from, and only of one that was whole: a server that sends half a feed
must not be told next time that we have it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from errors import ScrapeFailed, Unusable
from model import Post, Profile, Remember, Window
from sources import json_feed, xml_feed
from sources.documents import Kind, kind_of, linked_feed, text_of
from sources.http import Http
from sources.items import Feed, posts
from sources.urls import normalise_url


def follow(address: str, http: Http) -> Iterator[Post | Profile | Remember | Window]:
    """Fetch a feed and give its title, its posts and, last, its validators; nothing where it has not changed.

    An address that turns out to be a page is exchanged for that of the feed it links to, and the profile says so.

    Raises:
        ScrapeFailed: There is no answer, it is no feed, or nothing in it can be read.
    """
    moved_to = ""
    answer = http.get(address, conditional=True)
    if answer.not_modified:
        return
    text = text_of(answer)
    if kind_of(text) is Kind.PAGE:
        moved_to = _feed_of(text, answer.url)
        answer = http.get(moved_to, conditional=True)
        if answer.not_modified:
            yield Profile(url=moved_to)
            return
        text = text_of(answer)
    feed = _read(text, answer.url)
    found, unread = posts(feed, http.on_progress)
    if unread and not found:
        raise ScrapeFailed("the feed is broken, and no item in it can be read")
    yield Profile(display_name=feed.title, url=moved_to)
    yield from found
    if feed.is_whole and not unread and newest_first(found):
        yield Window()
    yield Remember(values=answer.validators() if feed.is_whole else {})


def newest_first(found: Sequence[Post]) -> bool:
    """Whether every post has a time, and none is newer than the one before: nothing was picked out or pinned."""
    times = [post.published_at for post in found if post.published_at is not None]
    return len(times) == len(found) and all(a >= b for a, b in pairwise(times))


def _feed_of(page: str, url: str) -> str:
    found = linked_feed(page, url)
    if not found:
        raise ScrapeFailed("the address leads to a web page that links to no feed")
    try:
        return normalise_url(found)
    except Unusable as exc:
        raise ScrapeFailed(f"the page links to a feed that cannot be fetched: {exc.message}") from exc


def _read(text: str, url: str) -> Feed:
    kind = kind_of(text)
    if kind is Kind.JSON:
        return json_feed.read(text, url)
    if kind is Kind.FEED:
        return xml_feed.read(text, url)
    raise ScrapeFailed(
        {
            Kind.EMPTY: "the answer is empty",
            Kind.PAGE: "what the page links to as its feed is a web page again",
            Kind.XML: "the answer is XML, but it is not a feed",
            Kind.OTHER: "the answer is not a feed",
        }[kind]
    )
