"""Pages without a feed: a source that is written down in the settings, not programmed.

The first page is asked for conditionally. Behind it pages are read until one ends in an item of the last time, `range`
is reached, or there are no more; a page that fails ends the walk without losing what was found, and then what is
remembered stays as it was, so the next run walks the same way again. Items never make a window: a selector may miss
one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from typing import Any, Protocol
from urllib.parse import quote

from errors import ScrapeFailed, Unusable
from model import Post, Profile, Remember, Target, Window
from sources.http import Answer, Http
from sources.items import MAX_AUTHOR_CHARS, Feed, posts
from sources.page_items import Leaf
from sources.page_options import PageOptions, read_page
from sources.urls import normalise_url

#: Most pages of one run (count), and most where `range` asks for posts.
MAX_PAGES = 10
MAX_PAGES_ASKED = 100
#: How many posts are remembered (count), each by so much of a hash (characters).
_MARKS, _MARK_CHARS = 500, 16
_SEEN = "seen"
_ACCEPT = {
    False: {"Accept": "text/html, application/xhtml+xml;q=0.9, */*;q=0.5"},
    True: {"Accept": "application/json, */*;q=0.5"},
}
_Found = Post | Profile | Remember | Window


class Reader(Protocol):
    """Finds items in an answer."""

    def read(self, answer: Answer) -> Leaf:
        """Raises ScrapeFailed."""


def bind(table: Mapping[str, Any]) -> Callable[[Target, Http], Iterator[_Found]]:  # Any: JSON values
    """Give the function that scrapes by this table. Raises ScrapeFailed for one that cannot work."""
    try:
        options = read_page(table)
    except Unusable as exc:
        raise ScrapeFailed(exc.message) from exc

    def scrape(target: Target, http: Http) -> Iterator[_Found]:
        return _Walk(target, http, options).results()

    return scrape


def reader(options: PageOptions, say: Callable[[str], None]) -> Reader:
    """What reads such pages. Raises ScrapeFailed for a selector that cannot be parsed."""
    if options.is_json:
        from sources.page_json import JsonReader

        return JsonReader(options, say)
    from sources.page_html import HtmlReader

    return HtmlReader(options, say)


class _Walk:
    """One run."""

    def __init__(self, target: Target, http: Http, options: PageOptions) -> None:
        self._target, self._http, self._options = target, http, options
        self._reader = reader(options, http.on_progress)
        self._known = set(target.remember.get(_SEEN, "").split())
        self._found: dict[str, Post] = {}
        self._unread = 0

    def results(self) -> Iterator[_Found]:
        url = self._target.url or self._options.url.replace("{handle}", quote(self._target.handle, safe=""))
        answer = self._get(url, conditional=True)
        if answer.not_modified:
            return
        leaf = self._reader.read(answer)
        if not leaf.items:
            what = "answer" if self._options.is_json else "page"
            raise ScrapeFailed(f"the {what} has no item that matches {self._options.item[:80]!r}")
        first = self._add(leaf)
        if not self._found:
            raise ScrapeFailed(f"none of the {self._unread} items can be read: no field of any of them matches")
        is_complete = self._go_on(leaf, {answer.url}, self._has_met(first))
        if self._unread:
            self._http.on_progress(f"{self._unread} items could not be read")
        yield Profile(display_name=leaf.title[:MAX_AUTHOR_CHARS])
        yield from self._found.values()
        seen = " ".join(_mark(post) for post in first[:_MARKS]) if is_complete else self._target.remember.get(_SEEN, "")
        validators = answer.validators() if is_complete and not self._unread else {}
        yield Remember(values={**({_SEEN: seen} if seen else {}), **validators})

    def _go_on(self, leaf: Leaf, visited: set[str], has_met: bool) -> bool:
        """Read the pages behind the first. Returns whether every page that was wanted was read."""
        wanted, most = self._target.range, MAX_PAGES if self._target.range is None else MAX_PAGES_ASKED
        while leaf.older and not has_met and len(visited) < most:
            found = len(self._found)
            if leaf.older in visited or found >= (wanted or self._http.limits.max_posts):
                break
            visited.add(leaf.older)
            try:
                leaf = self._reader.read(self._get(leaf.older))
            except ScrapeFailed:
                self._http.on_progress(f"page {len(visited)} could not be had")
                return False
            has_met = self._has_met(self._add(leaf))
            if len(self._found) == found:
                break
        return True

    def _get(self, url: str, *, conditional: bool = False) -> Answer:
        try:
            url = normalise_url(url)
        except Unusable as exc:
            raise ScrapeFailed(f"the page cannot be fetched: {exc.message}") from exc
        return self._http.get(url, headers=_ACCEPT[self._options.is_json], conditional=conditional)

    def _add(self, leaf: Leaf) -> list[Post]:
        """The posts of one page; what identifies an item depends on the others of its page only."""
        found, unread = posts(Feed(title="", items=leaf.items), self._http.on_progress)
        self._unread += unread
        for post in found:
            self._found.setdefault(post.native_id, post)
        return found

    def _has_met(self, found: list[Post]) -> bool:
        """Whether a page ends in what is known, or is half of it; one known item alone may be pinned to the top."""
        known = [_mark(post) in self._known for post in found]
        return bool(known) and (known[-1] or 2 * sum(known) >= len(known))


def _mark(post: Post) -> str:
    return sha256(post.native_id.encode("utf-8", "replace")).hexdigest()[:_MARK_CHARS]
