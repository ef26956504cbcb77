"""Whatever is at an address: an RSS, Atom or JSON feed, or a page that links to one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import SplitResult

from errors import Unusable
from model import Post, Profile, Remember, Target, Window
from sources.source import Account, Source

if TYPE_CHECKING:
    from sources.http import Http


def _account(handle: str, base: str) -> Account:
    raise Unusable(f"{handle!r} is not the address of a feed")


def _recognise(parts: SplitResult, base: str) -> Account | None:
    return None  # what no other source knows is left to this one


SOURCE = Source(
    name="feed",
    description="An RSS, Atom or JSON feed, or a page that links to one.",
    examples=("https://example.org/feed.xml",),
    account=_account,
    recognise=_recognise,
)


def scrape(target: Target, http: Http) -> Iterator[Post | Profile | Remember | Window]:
    """Fetch what is at the target's address; see feeds.follow."""
    from sources.feeds import follow

    yield from follow(target.url, http, wanted=target.range)
