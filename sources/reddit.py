"""Reddit: what a user submitted, or what is new in a subreddit, from their Atom feeds. Off by default.

Without a login few requests are answered, and a hurried client gets 429 for long.
Source: reddit.com/wiki/rss, and its user agreement on automated access.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import SplitResult

from model import Post, Profile, Remember, Target, Window
from sources.places import is_feed
from sources.source import Account, Source, is_at, is_at_base, matched, segments

if TYPE_CHECKING:
    from sources.http import Http

_HANDLE = re.compile(r"/?(?:([uU]|user)/([A-Za-z0-9_\-]{3,20})|[rR]/([A-Za-z0-9][A-Za-z0-9_]{1,20}))/?", re.ASCII)
_HOSTS = ("reddit.com", "old.reddit.com", "new.reddit.com", "np.reddit.com", "sh.reddit.com")
#: Parts of a profile or a subreddit that are the same account.
_TABS = frozenset({"submitted", "overview", "posts", "new", "hot"})
#: Posts asked for (count): usually, and at most when `range` says so.
_USUAL, _MOST = 25, 100


def _account(handle: str, base: str) -> Account:
    example = "reddit:u/spez or reddit:r/python"
    found = matched(handle, _HANDLE, what="u/ and a user, or r/ and a subreddit", example=example)
    if found[1]:
        name = found[2].lower()
        return Account(handle=f"u/{name}", url=f"{base}/user/{name}/submitted/.rss?limit={_USUAL}")
    name = found[3].lower()
    return Account(handle=f"r/{name}", url=f"{base}/r/{name}/new/.rss?limit={_USUAL}")


def _recognise(parts: SplitResult, base: str) -> Account | None:
    if not (is_at(parts, *_HOSTS) or is_at_base(parts, base)) or is_feed(parts):
        return None
    pieces = segments(parts)
    if len(pieces) == 3 and pieces[2] in _TABS:
        del pieces[2]
    handle = "/".join(pieces)
    return _account(handle, base) if len(pieces) == 2 and _HANDLE.fullmatch(handle) else None


SOURCE = Source(
    name="reddit",
    description="What a Reddit user submitted, or what is new in a subreddit.",
    examples=("reddit:u/spez", "reddit:r/python", "https://www.reddit.com/r/python/"),
    base="https://www.reddit.com",
    account=_account,
    recognise=_recognise,
    off="its terms restrict automated access",
)


def scrape(target: Target, http: Http) -> Iterator[Post | Profile | Remember | Window]:
    """Follow the feed; see feeds.follow."""
    from sources.feeds import follow_account

    wanted = min(max(target.range or 0, _USUAL), _MOST)
    address = re.sub(r"limit=\d+", f"limit={wanted}", target.url)
    yield from follow_account(target, http, absent=f"Reddit has no {target.handle}", address=address)
