"""Mastodon accounts, and those of servers that speak its API (GoToSocial, Pleroma, Akkoma, snac).

By the API of the account's own server; where that shows nothing to strangers, by the account's RSS feed, which has
neither boosts nor replies. Source: docs.joinmastodon.org (accounts/lookup, accounts/:id/statuses, Status).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import SplitResult

from errors import ScrapeFailed, Unusable
from model import Post, Profile, Remember, Target, Window
from sources.paging import NoAccount, Page, Walk, is_limit, is_recent, stamp, walk
from sources.places import at_host, host_in, is_feed
from sources.records import Record, identity, listed, make_post, named, read_posts, record, several, text, time
from sources.source import Account, Source, escaped, matched, segments

if TYPE_CHECKING:
    from sources.http import Answer, Http

_USER = r"[A-Za-z0-9_]+(?:[.-]+[A-Za-z0-9_]+)*"
_HANDLE = re.compile(rf"@?({_USER})@([^@\s]+)", re.ASCII)
_PATH = re.compile(rf"(?:web/)?@({_USER})(?:@([^@/]+))?|users/({_USER})", re.ASCII)
#: The id at the end of a post's address, which the RSS feed has for a guid.
_STATUS = re.compile(r"/(?:@[^/]+|users/[^/]+/statuses)/(\d{1,30})")
#: Sites where `/@name` is an account of another kind.
_OTHERS = (
    *("500px.com", "behance.net", "bsky.app", "dev.to", "facebook.com", "flipboard.com", "github.com", "gitlab.com"),
    *("hackernoon.com", "hashnode.com", "instagram.com", "kick.com", "linkedin.com", "medium.com", "npmjs.com"),
    *("observablehq.com", "odysee.com", "paragraph.xyz", "pinterest.com", "producthunt.com", "reddit.com"),
    *("snapchat.com", "stackoverflow.com", "stackexchange.com", "substack.com", "t.me", "threads.com", "threads.net"),
    *("tiktok.com", "twitter.com", "unsplash.com", "vimeo.com", "x.com", "youtube.com"),
)
_REFUSED = frozenset({401, 403, 404, 410, 422})
#: How long a server that refused its API is asked by the feed alone (days).
_REFUSED_DAYS = 1.0
#: Statuses of one page (count); the most that the API gives.
_LIMIT = 40
_ACCEPT = {"Accept": "application/json"}


def _account(handle: str, base: str) -> Account:
    example = "mastodon:alice@mastodon.social"
    found = matched(handle, _HANDLE, what="an account of the form user@host", example=example)
    return _at(found[1], found[2], base)


def _at(user: str, host: str, base: str, scheme: str = "https") -> Account:
    user, host = user.lower(), host_in(host)
    return Account(handle=f"{user}@{host}", url=f"{at_host(base, host, scheme)}/@{user}")


def _recognise(parts: SplitResult, base: str) -> Account | None:
    found = _PATH.fullmatch("/".join(segments(parts)))
    name = parts.hostname or ""
    if found is None or is_feed(parts) or any(name == other or name.endswith(f".{other}") for other in _OTHERS):
        return None
    user, elsewhere = found[1] or found[3], found[2]
    if found[3] and user.isdigit():  # a user's number, as forums have it
        return None
    try:
        return _at(user, elsewhere, base) if elsewhere else _at(user, parts.netloc, base, parts.scheme)
    except Unusable:
        return None


SOURCE = Source(
    name="mastodon",
    description="An account on a Mastodon server, or on one that speaks its API: posts, replies and boosts.",
    examples=("@alice@mastodon.social", "https://mastodon.social/@alice"),
    base="https://{host}",
    account=_account,
    recognise=_recognise,
)


def scrape(target: Target, http: Http) -> Iterator[Post | Profile | Remember | Window]:
    """Read the account by the API, else by its RSS feed.

    Raises:
        ScrapeFailed: There is no such account, or what the server says of it cannot be read.
    """
    refused_at = target.remember.get("api_refused_at", "")
    if not is_recent(refused_at, days=_REFUSED_DAYS):
        statuses = _Statuses(target, http)
        answer = statuses.first()
        if answer is not None:
            if not answer.not_modified:
                yield from statuses.results(answer)
            return
        refused_at = stamp()
    yield from _by_feed(target, http, refused_at)


class _Statuses:
    """One account's statuses, by the API."""

    def __init__(self, target: Target, http: Http) -> None:
        self._target, self._http = target, http
        self._user, _, self._host = target.handle.partition("@")
        self._api = f"{target.url.partition('/api/v1/')[0].removesuffix(f'/@{self._user}')}/api/v1/accounts"
        self._id = target.remember.get("account", "")
        self._name = ""

    def first(self) -> Answer | None:
        """The first page; None where the API does not serve strangers. A remembered account may have gone: who it
        is now is asked again."""
        if self._id:
            answer = self._get(self._url(), conditional=True)
            if answer is not None:
                return answer
        found = self._get(f"{self._api}/lookup?acct={escaped(self._user)}")
        if found is None:
            return None
        account = found.json()
        self._id, self._name = identity(account, "id"), _display_name(account)
        if not self._id:
            raise ScrapeFailed("the server's answer does not say which account it is")
        return self._get(self._url(), conditional=True)

    def results(self, answer: Answer) -> Iterator[Post | Profile | Remember | Window]:
        walked: Walk = walk(self._target, self._http, answer, self._read, headers=_ACCEPT)
        yield named(self._name)
        yield from walked.results(self._target, answer, {"account": self._id})

    def _url(self) -> str:
        return f"{self._api}/{escaped(self._id)}/statuses?limit={_LIMIT}"

    def _get(self, url: str, *, conditional: bool = False) -> Answer | None:
        from sources.http import BadStatus

        try:
            return self._http.get(url, headers=_ACCEPT, conditional=conditional, is_api=True)
        except BadStatus as exc:
            if exc.status in _REFUSED and not is_limit(exc):
                return None
            raise

    def _read(self, answer: Answer) -> Page:
        items = listed(answer.json())
        posts, unread = read_posts(items, self._post, self._http.on_progress)
        for item in items:
            self._name = self._name or _display_name(record(item, "account"))
        last = next((found for item in reversed(items) if (found := identity(item, "id"))), "")
        links = answer.headers.get("Link")
        goes_on = bool(last) and ('rel="next"' in links if links else len(items) >= _LIMIT)
        return Page(posts=posts, unread=unread, older=f"{self._url()}&max_id={escaped(last)}" if goes_on else "")

    def _post(self, status: Record) -> Post | None:
        boosted = record(status, "reblog")
        shown = boosted or status
        poll = [text(option, "title") for option in several(shown, "poll", "options")]
        return make_post(
            identity(status, "id"),
            text(shown, "url") or text(shown, "uri"),
            title=text(shown, "spoiler_text"),
            markup=text(shown, "content") + "".join(f"<p>{_escape(one)}</p>" for one in poll if one),
            author=self._author(shown),
            published_at=time(status, "created_at"),
            kind="repost" if boosted else "comment" if _is_reply(status) else "post",
            media=[text(one, "url") or text(one, "remote_url") for one in several(shown, "media_attachments")],
        )

    def _author(self, status: Record) -> str:
        """user@host; who is at home on the server is named there without it."""
        name = text(status, "account", "acct")
        return name if "@" in name or not name else f"{name}@{self._host}"


def _display_name(account: object) -> str:
    return text(account, "display_name").strip() or text(account, "username")


def _is_reply(status: Record) -> bool:
    """Whether it answers somebody else; who goes on with a thread of their own posts."""
    answered = identity(status, "in_reply_to_account_id")
    return bool(identity(status, "in_reply_to_id")) and answered != identity(status, "account", "id")


def _escape(plain: str) -> str:
    return plain.replace("&", "&amp;").replace("<", "&lt;")


def _by_feed(target: Target, http: Http, refused_at: str) -> Iterator[Post | Profile | Remember | Window]:
    """Follow the RSS feed. A post has the identity that the API gives it; there is no window, since boosts and
    replies that are known are not in the feed."""
    from sources.feeds import follow
    from sources.http import BadStatus

    user, _, host = target.handle.partition("@")
    try:
        for found in follow(f"{target.url}.rss", http, wanted=target.range, is_api=True):
            if isinstance(found, Post):
                status = _STATUS.search(found.native_id)
                yield replace(found, native_id=status[1]) if status else found
            elif isinstance(found, Profile):
                yield Profile(display_name=found.display_name)
            elif isinstance(found, Remember):
                yield Remember(values={**found.values, "api_refused_at": refused_at})
    except BadStatus as exc:
        if exc.status in (404, 410):
            text = f"{host} has no account {user}, or shows nothing of it to strangers"
            raise NoAccount(text, status=exc.status) from exc
        raise
