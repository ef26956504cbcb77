"""Walks the pages of an API from the newest back, and says what is to be remembered of the walk.

The first run of a target reads the first page, or as many as `range` needs. A later one goes on until it meets a post
of the last time, so that old and new overlap: at most `range` posts beyond the first page, or MAX_PAGES pages.

When an older page cannot be had, what was found so far is given, and the marks of the last time stay: the next run
walks the same way again, and nothing in between is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from errors import ScrapeFailed
from model import Post, Remember, Target, Window

if TYPE_CHECKING:
    from sources.http import Answer, BadStatus, Http

#: Most pages of one run (count), and most where `range` asks for posts.
MAX_PAGES = 10
MAX_PAGES_ASKED = 100
#: Ids of the newest posts that are remembered: count, and characters of all together.
_MARKS = 20
_MARKS_CHARS = 4000
_SEEN = "seen"


class NoAccount(ScrapeFailed):
    """The service knows no such account, or shows nothing of it to strangers."""

    def __init__(self, message: str, *, status: int | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        #: What the server answered with, where that said it.
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One answer, read."""

    #: In the order of the answer, which is to be newest first.
    posts: list[Post]
    #: Items that could not be read (count).
    unread: int = 0
    #: Address of the page that follows; empty at the end.
    older: str = ""
    #: The service wants no further request now.
    is_to_rest: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """What the pages of one run came to."""

    #: Each once, newest first.
    posts: list[Post]
    #: The posts are all there are from the newest back to the oldest of them.
    is_unbroken: bool
    #: Every page that was wanted was read.
    is_complete: bool

    def results(
        self, target: Target, answer: Answer, own: Mapping[str, str] | None = None
    ) -> Iterator[Post | Window | Remember]:
        """Give the posts, the window if they are one, and what to remember.

        Args:
            target: As it was asked for.
            answer: That of the first page, whose validators are remembered.
            own: What the adapter remembers besides.
        """
        yield from self.posts
        if self.posts and self.is_unbroken:
            yield Window()
        seen = _joined(self.posts) if self.is_complete and self.posts else target.remember.get(_SEEN, "")
        validators = answer.validators() if self.is_complete else {}
        yield Remember(values={**(own or {}), **({_SEEN: seen} if seen else {}), **validators})


def walk(
    target: Target,
    http: Http,
    answer: Answer,
    read: Callable[[Answer], Page],
    *,
    headers: Mapping[str, str] | None = None,
    is_numbered: bool = False,
) -> Walk:
    """Read the first page and those behind it that are wanted.

    Args:
        target: Its `range` and what it remembers say how far.
        http: Older pages are asked for with `headers`.
        answer: The first page.
        read: Reads any page; raises ScrapeFailed for what is none.
        is_numbered: Pages are counted, not marked by what is on them: between two requests a post can slip from one
            to the next unseen, so several pages never make a window.

    Raises:
        ScrapeFailed: The first page is of a wrong shape, or nothing on it can be read.
    """
    page = read(answer)
    if page.unread and not page.posts:
        raise ScrapeFailed("no item in the answer can be read")
    course = _Course(target, http.limits.max_posts, page)
    visited = {answer.url}
    while page.older and page.older not in visited and course.wants_more():
        if page.is_to_rest:
            return course.walk(is_complete=False, is_numbered=is_numbered)
        visited.add(page.older)
        try:
            page = read(http.get(page.older, headers=headers, is_api=True))
        except ScrapeFailed:
            http.on_progress("an older page could not be had")
            return course.walk(is_complete=False, is_numbered=is_numbered)
        course.add(page)
    return course.walk(is_complete=True, is_numbered=is_numbered)


class _Course:
    """How far a walk has come."""

    def __init__(self, target: Target, max_posts: int, first: Page) -> None:
        self._range = target.range
        self._max_posts = max_posts
        self._known = set(target.remember.get(_SEEN, "").split("\n")) - {""}
        self._found: dict[str, Post] = {}
        self._pages = self._unread = 0
        self._has_met = False
        self.add(first)
        self._first = len(self._found)

    def add(self, page: Page) -> None:
        self._pages += 1
        self._unread += page.unread
        for post in page.posts:
            self._found.setdefault(post.native_id, post)
            self._has_met = self._has_met or post.native_id in self._known

    def wants_more(self) -> bool:
        found = len(self._found)
        if found >= self._max_posts or self._has_met:
            return False
        if self._range is None:
            return bool(self._known) and self._pages < MAX_PAGES
        beyond = found - self._first if self._known else found
        return beyond < self._range and self._pages < MAX_PAGES_ASKED

    def walk(self, *, is_complete: bool, is_numbered: bool) -> Walk:
        from sources.feeds import newest_first

        posts = list(self._found.values())
        is_unbroken = not self._unread and newest_first(posts) and not (is_numbered and self._pages > 1)
        return Walk(posts=posts, is_unbroken=is_unbroken, is_complete=is_complete)


def fetch(
    http: Http,
    url: str,
    *,
    absent: Mapping[int, str],
    headers: Mapping[str, str] | None = None,
    conditional: bool = True,
) -> Answer:
    """Ask an API. Raises NoAccount with a sentence of `absent` for a status that is named there."""
    from sources.http import BadStatus

    try:
        return http.get(url, headers=headers, conditional=conditional, is_api=True)
    except BadStatus as exc:
        if exc.status in absent and not is_limit(exc):
            raise NoAccount(absent[exc.status], status=exc.status, retry_after_s=exc.retry_after_s) from exc
        raise


def is_limit(refusal: BadStatus) -> bool:
    """Whether a status says to come back later, not that there is nothing here."""
    return refusal.status in (429, 503) or (refusal.status == 403 and refusal.retry_after_s is not None)


def stamp() -> str:
    """Now, to be remembered."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def is_recent(stamped: str, *, days: float) -> bool:
    """Whether a remembered instant lies in the last days, and not in the future."""
    try:
        age = datetime.now(UTC) - datetime.fromisoformat(stamped)
    except (ValueError, TypeError):
        return False
    return timedelta(0) <= age < timedelta(days=days)


def _joined(posts: list[Post]) -> str:
    """The ids of the newest posts, a line each."""
    kept: list[str] = []
    left = _MARKS_CHARS
    for post in posts[:_MARKS]:
        left -= len(post.native_id) + 1
        if left < 0 and kept:
            break
        kept.append(post.native_id)
    return "\n".join(kept)
