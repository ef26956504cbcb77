"""Mercurial: the changesets of a repository that hgweb shows, from its Atom log.

A repository is known by the address of its Atom log; that of its RSS log is another spelling of it.
Source: Mercurial's `help -T hgweb` (web commands, their paths and queries).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from errors import Unusable
from model import Post, Profile, Remember, Target, Window
from sources.source import Account, Source
from sources.urls import is_http, normalise_url

if TYPE_CHECKING:
    from sources.http import Http

#: Changesets asked for at most (count); hgweb gives ten by itself.
_MOST = 500
_LOG = re.compile(r"(.*)/(?:atom|rss)-log(/[^?#]*)?")


def _account(handle: str, base: str) -> Account:
    if "." not in handle.partition("/")[0] and ":" not in handle:
        hint = "Give the address of its atom-log, such as https://www.mercurial-scm.org/repo/hg/atom-log."
        raise Unusable(f"{handle[:80]!r} is not the address of a repository", hint=hint)
    return _read_address(urlsplit(normalise_url(f"https://{handle}")), base)


def _recognise(parts: SplitResult, base: str) -> Account | None:
    return _read_address(parts, base) if _LOG.fullmatch(parts.path.rstrip("/")) else None


def _read_address(parts: SplitResult, base: str) -> Account:
    """Any address that was said to be one of hgweb's: of the repository, or of one of its logs."""
    url = _log(f"{parts.scheme}://{parts.netloc}{parts.path}")
    return Account(handle=url, url=url)


def _log(url: str) -> str:
    """The address of the Atom log, of the whole repository or of a branch or file in it."""
    found = _LOG.fullmatch(url.rstrip("/"))
    return f"{found[1]}/atom-log{found[2] or ''}" if found else f"{url.rstrip('/')}/atom-log"


SOURCE = Source(
    name="mercurial",
    description="Changesets of a Mercurial repository that hgweb shows.",
    examples=("https://www.mercurial-scm.org/repo/hg/atom-log", "mercurial:www.mercurial-scm.org/repo/hg"),
    account=_account,
    recognise=_recognise,
    read_address=_read_address,
)


def scrape(target: Target, http: Http) -> Iterator[Post | Profile | Remember | Window]:
    """Follow the Atom log; see feeds.follow."""
    from sources.feeds import follow_account

    url = target.url
    if target.range is not None and is_http(url) and "?" not in url:
        url += f"?revcount={min(target.range, _MOST)}"
    yield from follow_account(target, http, absent="there is no such repository", address=url)
