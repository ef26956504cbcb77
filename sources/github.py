"""GitHub: what a user does in public, by the events API; what a repository releases, by its feed.

Sixty requests an hour and address without a token; an answer that nothing has changed is free. Events come minutes to
hours late, at most 300 of the last 90 days. Source: docs.github.com (REST API endpoints for events, GitHub event
types, rate limits).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import SplitResult

from errors import Unusable
from model import Post, Profile, Remember, Target, Window
from sources.github_events import make_event
from sources.paging import NoAccount, Page, walk
from sources.places import is_at_other_base, is_feed
from sources.records import listed, named, read_posts, text
from sources.source import Account, Source, is_at, matched, segments
from sources.urls import host_of

if TYPE_CHECKING:
    from sources.http import Answer, Http

_USER = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,98}[A-Za-z0-9])?", re.ASCII)
_EITHER = re.compile(rf"({_USER.pattern})(?:/([A-Za-z0-9._-]{{1,100}}))?", re.ASCII)
#: First pieces of paths that are the site's own.
_PAGES = frozenset(
    """about account apps blog business careers codespaces collections contact copilot customer-stories dashboard
    education enterprise enterprises events explore features github-copilot home issues join login logout marketplace
    mobile models new news nonprofit notifications open-source organizations orgs partners premium-support pricing
    pulls readme resources search security sessions settings signup site solutions sponsors stars team topics trending
    users watching why-github wiki""".split()
)
_API, _SITE = "https://api.github.com", "https://github.com"
_NEXT = re.compile(r'<([^<>]{1,1000})>\s*;[^,]{0,200}?rel="?next"?')
_EVENT_ID = re.compile(r"/(\d{1,30})$")
_ACCEPT = {"Accept": "application/vnd.github+json"}


def _account(handle: str, base: str) -> Account:
    found = matched(handle, _EITHER, what="a GitHub user, or owner/repository", example="github:torvalds")
    user, repo = found[1].lower(), (found[2] or "").lower().removesuffix(".git")
    if not found[2]:
        return Account(handle=user, url=f"{base}/users/{user}/events/public?per_page=100")
    if not repo.strip("."):
        raise Unusable(f"{handle[:80]!r} is not the name of a repository", hint="Such as github:python/cpython.")
    return Account(handle=f"{user}/{repo}", url=f"{_site(base)}/{user}/{repo}/releases.atom")


def _site(base: str) -> str:
    """Where people read what the API at this base tells."""
    return _SITE if base == _API else base


def _recognise(parts: SplitResult, base: str) -> Account | None:
    is_theirs = is_at(parts, "github.com") or is_at_other_base(parts, base, _API)
    if not is_theirs or is_feed(parts):
        return None
    pieces = segments(parts)
    if len(pieces) == 3 and pieces[2] == "releases":
        del pieces[2]
    if len(pieces) not in (1, 2) or pieces[0].lower() in _PAGES or not _EITHER.fullmatch("/".join(pieces)):
        return None
    try:
        return _account("/".join(pieces), base)
    except Unusable:
        return None


SOURCE = Source(
    name="github",
    description="What a GitHub user does in public, or the releases of a repository.",
    examples=("github:torvalds", "https://github.com/torvalds", "github:python/cpython"),
    base=_API,
    account=_account,
    recognise=_recognise,
)


def scrape(target: Target, http: Http) -> Iterator[Post | Profile | Remember | Window]:
    """Read a user's events from the newest back, or the releases of a repository.

    Events never make a window: they come late, and out of their order.

    Raises:
        ScrapeFailed: There is no such user or repository, or the answer is not of GitHub's.
    """
    if "/" in target.handle:
        yield from _releases(target, http)
        return
    site = _site(target.url.partition("/user")[0])
    answer = _events(target, http)
    if answer is None:
        yield from _by_feed(target, http, site)
        return
    if answer.not_modified:
        return
    names: list[str] = []

    def read(page: Answer) -> Page:
        events = listed(page.json())
        posts, unread = read_posts(events, lambda event: make_event(event, site), http.on_progress)
        names.extend(text(event, "actor", "display_login") or text(event, "actor", "login") for event in events)
        return Page(posts=posts, unread=unread, older=_older(page) if events else "")

    walked = walk(target, http, answer, read, headers=_ACCEPT, is_numbered=True)
    yield named(next(filter(None, names), target.handle))
    yield from replace(walked, is_unbroken=False).results(target, answer)


def _events(target: Target, http: Http) -> Answer | None:
    """The first page; None where the API knows no such user. A limit that is used up is no reason to go elsewhere."""
    from sources.http import BadStatus

    try:
        return http.get(target.url, headers=_ACCEPT, conditional=True, is_api=True)
    except BadStatus as exc:
        if exc.status == 404:
            return None
        raise


def _older(page: Answer) -> str:
    """The page that the answer calls the next, if it is at the same host."""
    found = _NEXT.search(page.headers.get("Link", "")[:4000])
    try:
        return found[1] if found and host_of(found[1]) == host_of(page.url) else ""
    except (KeyError, ValueError):
        return ""


def _by_feed(target: Target, http: Http, site: str) -> Iterator[Post | Profile | Remember | Window]:
    """Follow the user's feed; an event has the identity that the API gives it."""
    for found in _follow(f"{site}/{target.handle}.atom", target, http, f"GitHub has no user {target.handle}"):
        if isinstance(found, Post):
            event = _EVENT_ID.search(found.native_id)
            yield replace(found, native_id=event[1]) if event else found
        elif isinstance(found, Profile):
            yield Profile(display_name=target.handle)
        elif isinstance(found, Remember):
            yield found


def _releases(target: Target, http: Http) -> Iterator[Post | Profile | Remember | Window]:
    absent = f"GitHub has no repository {target.handle}, or it is not public"
    for found in _follow(target.url, target, http, absent):
        if isinstance(found, Post):
            yield replace(found, kind="release")
        elif isinstance(found, Profile):
            yield Profile(display_name=target.handle)
        else:
            yield found


def _follow(url: str, target: Target, http: Http, absent: str) -> Iterator[Post | Profile | Remember | Window]:
    from sources.feeds import follow
    from sources.http import BadStatus

    try:
        yield from follow(url, http, wanted=target.range, is_api=True)
    except BadStatus as exc:
        if exc.status == 404:
            raise NoAccount(absent, status=exc.status) from exc
        raise
