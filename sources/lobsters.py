"""Lobsters: the stories that a user submitted, from their RSS feed.

Source: github.com/lobsters/lobsters (config/routes.rb, the pattern of user names). It is a small host.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import SplitResult

from model import Post, Profile, Remember, Target, Window
from sources.source import Account, Source, is_at, is_at_base, matched, segments

if TYPE_CHECKING:
    from sources.http import Http

_NAME = re.compile(r"~?([A-Za-z0-9][A-Za-z0-9_\-]{0,24})", re.ASCII)
_PATH = re.compile(r"~([^/]+)(?:/stories)?|(?:u|newest)/([^/]+)")


def _account(handle: str, base: str) -> Account:
    name = matched(handle, _NAME, what="the name of a Lobsters user", example="lobsters:pushcx")[1].lower()
    return Account(handle=name, url=f"{base}/~{name}/stories.rss")


def _recognise(parts: SplitResult, base: str) -> Account | None:
    if not (is_at(parts, "lobste.rs") or is_at_base(parts, base)):
        return None
    found = _PATH.fullmatch("/".join(segments(parts)))
    name = (found[1] or found[2]) if found else ""
    return _account(name, base) if _NAME.fullmatch(name) and name[0] != "~" else None


SOURCE = Source(
    name="lobsters",
    description="Stories that a user submitted to Lobsters.",
    examples=("lobsters:pushcx", "https://lobste.rs/~pushcx"),
    base="https://lobste.rs",
    account=_account,
    recognise=_recognise,
)


def scrape(target: Target, http: Http) -> Iterator[Post | Profile | Remember | Window]:
    """Follow the feed of the user's stories; see feeds.follow."""
    from sources.feeds import follow_account

    yield from follow_account(target, http, absent=f"Lobsters has no user {target.handle}")
