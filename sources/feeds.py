"""Following a feed: RSS, Atom and JSON Feed, or a page that links to one. For every source that reads feeds.

A document is fetched once and read whole: `range` bounds paging, which few feeds have (RFC 5005). What is remembered
are the validators of the document that the posts came from, and only of one that was whole: a server that sends half a
feed must not be told next time that we have it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from errors import ScrapeFailed, Unusable
from model import Post, Profile, Remember, Target, Window
from sources import json_feed, xml_feed
from sources.documents import Kind, kind_of, linked_feed, text_of
from sources.http import Answer, BadStatus, Http
from sources.items import Feed, posts
from sources.paging import NoAccount
from sources.urls import host_of, normalise_url

#: Most documents of one feed that are read (count).
MAX_PAGES = 50
#: What is remembered of the feed's own word on when it will have something new (seconds).
_FRESH = "fresh_s"


def follow(
    address: str, http: Http, *, wanted: int | None = None, is_api: bool = False, may_be_page: bool = True
) -> Iterator[Post | Profile | Remember | Window]:
    """Fetch a feed and give its title, its posts and, last, its validators; nothing where it has not changed.

    An address that turns out to be a page is exchanged for that of the feed it links to, and the profile says so. How
    long the feed says that it will have nothing new is handed on.

    Args:
        address: Of the feed, or of a page.
        http: Of the run.
        wanted: How many posts are asked for (`range`): where the first document has fewer, those it names as older are
            read too.
        is_api: The feed is a documented interface; see Http.get.
        may_be_page: A page is not an error.

    Raises:
        ScrapeFailed: There is no answer, it is no feed, or nothing in it can be read.
    """
    answer, moved_to = _fetch(address, http, is_api=is_api, may_be_page=may_be_page)
    if answer.not_modified:
        _stay_away(http)
        if moved_to:
            yield Profile(url=moved_to)
        return
    feed = _read(text_of(answer), answer.url)
    found, unread = posts(feed, http.on_progress)
    if unread and not found:
        raise ScrapeFailed("the feed is broken, and no item in it can be read")
    yield Profile(display_name=feed.title, url=moved_to)
    yield from found
    older = _Older(http, answer.url, feed.older, found)
    if wanted is not None:
        yield from older.posts(wanted)
    if feed.is_whole and not unread and not older.pages and newest_first(found):
        yield Window()
    yield Remember(values=_remembered(feed, answer, http) if feed.is_whole and older.is_complete else {})


def _fetch(address: str, http: Http, *, is_api: bool, may_be_page: bool) -> tuple[Answer, str]:
    """The feed's document, and its address where that is another than was given."""
    answer = http.get(address, conditional=True, is_api=is_api)
    if answer.not_modified:
        return answer, ""
    text = text_of(answer)
    if kind_of(text) is not Kind.PAGE:
        return answer, ""
    if not may_be_page:
        raise ScrapeFailed("the service answered with a web page instead of the account's feed")
    moved_to = _feed_of(text, answer.url)
    return http.get(moved_to, conditional=True), moved_to


def _remembered(feed: Feed, answer: Answer, http: Http) -> dict[str, str]:
    """The validators, and what the feed said of when to come back, which is told the daemon too."""
    http.fresh_for(feed.fresh_s)
    return answer.validators() | ({_FRESH: f"{feed.fresh_s:.0f}"} if feed.fresh_s else {})


def follow_account(
    target: Target, http: Http, *, absent: str, address: str = "", is_api: bool = False
) -> Iterator[Post | Profile | Remember | Window]:
    """Follow the feed of an account, at the target's address or another; a page, such as that of a login, is none.

    Raises:
        NoAccount: There is nothing at the address; `absent` says what that means.
        ScrapeFailed: See follow.
    """
    try:
        yield from follow(address or target.url, http, wanted=target.range, is_api=is_api, may_be_page=False)
    except BadStatus as exc:
        if exc.status in (404, 410):
            raise NoAccount(absent, status=exc.status) from exc
        raise


def newest_first(found: Sequence[Post]) -> bool:
    """Whether every post has a time, and none is newer than the one before: nothing was picked out or pinned."""
    times = [post.published_at for post in found if post.published_at is not None]
    return len(times) == len(found) and all(a >= b for a, b in pairwise(times))


class _Older:
    """The documents behind the first one, as far as they are wanted; on the feed's own host only."""

    def __init__(self, http: Http, url: str, older: str, found: Sequence[Post]) -> None:
        self._http, self._url, self._older = http, url, older
        self._seen = {post.native_id for post in found}
        #: How many were read.
        self.pages = 0
        #: None failed; one that did is asked for again next time, so the first must be given whole then.
        self.is_complete = True

    def posts(self, wanted: int) -> Iterator[Post]:
        """Posts that were not on a document before; a document that fails ends it, and says so as progress."""
        visited = {self._url}
        while (address := self._next()) and len(self._seen) < wanted and self.pages < MAX_PAGES - 1:
            if address in visited:
                return
            visited.add(address)
            try:
                found = self._read(address)
            except ScrapeFailed:
                self.is_complete = False
                self._http.on_progress("an older page of the feed could not be had")
                return
            new = [post for post in found if post.native_id not in self._seen]
            self._seen.update(post.native_id for post in new)
            yield from new

    def _next(self) -> str:
        try:
            address = normalise_url(self._older)
        except Unusable:
            return ""
        return address if host_of(address) == host_of(self._url) else ""

    def _read(self, address: str) -> list[Post]:
        answer = self._http.get(address)
        feed = _read(text_of(answer), answer.url)
        found, _ = posts(feed, self._http.on_progress)
        self.pages += 1
        self._older = feed.older
        return found


def _stay_away(http: Http) -> None:
    """What the feed said when it was read last still holds."""
    said = http.remember.get(_FRESH, "")
    http.fresh_for(float(said) if said.isascii() and said.isdecimal() else 0.0)


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
