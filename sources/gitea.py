"""Gitea and Forgejo (Codeberg and others): what a user or organisation does in public, from its RSS feed.

The feed says of itself that it was made just now, so its body differs each time and nothing in it can be remembered.
Source: docs.gitea.com ("RSS feeds"), models/user/user.go (names, and those that are reserved).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import SplitResult

from errors import Unusable
from model import Post, Profile, Remember, Target, Window
from sources.places import at_host, host_in, is_feed
from sources.source import Account, Source, is_at, is_at_base, matched, segments

if TYPE_CHECKING:
    from sources.http import Http

_USER = r"[A-Za-z0-9](?:[-._]?[A-Za-z0-9])*[-._]?"
_NAME = re.compile(_USER, re.ASCII)
_HANDLE = re.compile(rf"@?({_USER})@([^@\s]+)", re.ASCII)
#: Sites that are known to run one.
_SITES = ("codeberg.org", "gitea.com")
#: First pieces of paths that are the site's own.
_PAGES = frozenset(
    """about admin api assets attachments avatar avatars captcha commits debug devtest error explore favicon.ico
    ghost help imprint install issues less login manifest.json metrics milestones new notifications org plugins
    privacy pulls raw repo repo-avatars robots.txt search serviceworker.js ssh_info stars swagger.v1.json template user
    v2""".split()
)
_SUFFIXES = (".keys", ".gpg", ".rss", ".atom", ".png")


def _account(handle: str, base: str) -> Account:
    example = "gitea:forgejo@codeberg.org"
    found = matched(handle, _HANDLE, what="an account of the form user@host", example=example)
    return _at(found[1], found[2], base)


def _at(user: str, host: str, base: str, scheme: str = "https") -> Account:
    user, host = user.lower(), host_in(host)
    return Account(handle=f"{user}@{host}", url=f"{at_host(base, host, scheme)}/{user}.rss")


def _recognise(parts: SplitResult, base: str) -> Account | None:
    return _read_address(parts, base) if is_at(parts, *_SITES) or is_at_base(parts, base) else None


def _read_address(parts: SplitResult, base: str) -> Account | None:
    """The address of a profile, at whatever host was said to run it."""
    pieces = segments(parts)
    if len(pieces) != 1 or not _NAME.fullmatch(pieces[0]) or is_feed(parts):
        return None
    if pieces[0].lower() in _PAGES or pieces[0].lower().endswith(_SUFFIXES):
        return None
    host = (parts.hostname or "").removeprefix("www.").removeprefix("m.") if is_at(parts, *_SITES) else parts.netloc
    try:
        return _at(pieces[0], host, base, "https" if is_at(parts, *_SITES) else parts.scheme)
    except Unusable:
        return None


SOURCE = Source(
    name="gitea",
    description="What a user or organisation on Codeberg, or another Gitea or Forgejo, does in public.",
    examples=("gitea:forgejo@codeberg.org", "https://codeberg.org/forgejo"),
    base="https://{host}",
    account=_account,
    recognise=_recognise,
    read_address=_read_address,
)


def scrape(target: Target, http: Http) -> Iterator[Post | Profile | Remember | Window]:
    """Follow the activity feed; see feeds.follow."""
    from sources.feeds import follow_account

    user, _, host = target.handle.partition("@")
    yield from follow_account(target, http, absent=f"{host} has no account {user}, or it is private")
