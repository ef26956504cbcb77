"""Actors of the fediverse by their outbox, for servers that have no other interface: WriteFreely, WordPress, Lemmy.

An account is found by WebFinger, or is given as the address of its actor. The way to the first page of the outbox is
remembered for a week, so that most runs are one request. Sources: the W3C's ActivityPub and Activity Streams 2.0,
RFC 7033.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urljoin

from errors import ScrapeFailed, Unusable
from model import Post, Profile, Remember, Target, Window
from sources.paging import Page, fetch, is_recent, stamp, walk
from sources.places import at_host, host_in
from sources.records import Record, at, identity, make_post, named, read_posts, record, several, text, time
from sources.source import Account, Source, escaped, matched
from sources.urls import host_of, is_http, normalise_url

if TYPE_CHECKING:
    from sources.http import Answer, Http

_HANDLE = re.compile(r"@?([A-Za-z0-9_.~!$'()*+,;=-]{1,200})@([^@\s/]+)", re.ASCII)
_ACTOR = re.compile(r"([^@\s/]+\.[^@\s/]+|[^@\s/]+:\d+|localhost)(/\S+)", re.ASCII)
#: How long the way to the outbox is believed (days).
_WAY_DAYS = 7.0
_ACCEPT = {"Accept": "application/activity+json"}
_FINGER = {"Accept": "application/jrd+json, application/json"}
_TYPES = ("application/activity+json", "application/ld+json")
#: What is a post, by itself or as the object of a Create.
_POSTS = frozenset({"Article", "Audio", "Document", "Event", "Image", "Note", "Page", "Question", "Video"})
_HIDDEN = "the server shows its outbox only to those who sign their requests"
_GONE = "there is no such account, or its server does not publish it"
_ABSENT = {401: _HIDDEN, 403: _HIDDEN, 404: _GONE, 410: _GONE}


def _account(handle: str, base: str) -> Account:
    actor = _ACTOR.fullmatch(handle)
    if actor is not None:
        return _actor(actor[1], actor[2], base)
    example = "activitypub:alice@write.example"
    found = matched(handle, _HANDLE, what="an account of the form user@host, or an actor's address", example=example)
    host = host_in(found[2])
    acct = f"{found[1].lower()}@{host}"
    url = f"{at_host(base, host)}/.well-known/webfinger?resource=acct:{escaped(acct).replace('%40', '@')}"
    return Account(handle=acct, url=url)


def _actor(host: str, path: str, base: str, scheme: str = "https") -> Account:
    host = host_in(host)
    url = normalise_url(at_host(base, host, scheme) + path)
    return Account(handle=host + normalise_url(f"https://{host}{path}").partition(host)[2], url=url)


def _recognise(parts: SplitResult, base: str) -> Account | None:
    return None  # any address could be an actor's: it has to be said


def _read_address(parts: SplitResult, base: str) -> Account | None:
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    try:
        return _actor(parts.netloc, path, base, parts.scheme) if path.strip("/") else None
    except Unusable:
        return None


SOURCE = Source(
    name="activitypub",
    description="An actor of the fediverse, by its outbox: for servers that speak no other interface.",
    examples=("activitypub:alice@write.example", "activitypub:https://write.example/api/collections/alice"),
    base="https://{host}",
    account=_account,
    recognise=_recognise,
    read_address=_read_address,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """How to get to the posts."""

    #: Address of the page of the outbox that has the newest.
    first: str
    actor: str
    name: str


def scrape(target: Target, http: Http) -> Iterator[Post | Profile | Remember | Window]:
    """Read the outbox from the newest back.

    Raises:
        ScrapeFailed: There is no such account, its outbox is not for strangers, or what was answered is no outbox.
    """
    way, found_at = _remembered(target), target.remember.get("found_at", "")
    answer = None if way is None else _known_way(way.first, http)
    if way is None or answer is None:
        way, found_at = _find(target, http), stamp()
        answer = fetch(http, way.first, headers=_ACCEPT, absent=_ABSENT)
    if answer.not_modified:
        return
    own = _Outbox(way.actor, target.handle, http)
    walked = walk(target, http, answer, own.read, headers=_ACCEPT)
    yield named(way.name)
    yield from walked.results(
        target, answer, {"first": way.first, "actor": way.actor, "name": way.name, "found_at": found_at}
    )


def _remembered(target: Target) -> _Way | None:
    known = target.remember
    if not known.get("first") or not is_recent(known.get("found_at", ""), days=_WAY_DAYS):
        return None
    return _Way(first=known["first"], actor=known.get("actor", ""), name=known.get("name", ""))


def _known_way(first: str, http: Http) -> Answer | None:
    """The first page; None where it is no longer there."""
    from sources.http import BadStatus

    try:
        return http.get(first, headers=_ACCEPT, conditional=True, is_api=True)
    except BadStatus as exc:
        if exc.status in (404, 410):
            return None
        raise


def _find(target: Target, http: Http) -> _Way:
    """From the account to its actor, to its outbox, to the page that has the newest."""
    url = target.url
    if "@" in target.handle and "/" not in target.handle:
        finger = fetch(http, url, headers=_FINGER, absent=_ABSENT, conditional=False).json()
        links = [link for link in several(finger, "links") if text(link, "rel") == "self"]
        url = next((text(link, "href") for link in links if text(link, "type").startswith(_TYPES)), "")
        if not is_http(url):
            raise ScrapeFailed("the account's server names no actor for it")
    answer = fetch(http, url, headers=_ACCEPT, absent=_ABSENT, conditional=False)
    actor = answer.json()
    outbox = _reference(at(actor, "outbox"), answer.url)
    if not outbox:
        raise ScrapeFailed("what is at the account's address is no actor with an outbox")
    answer = fetch(http, outbox, headers=_ACCEPT, absent=_ABSENT, conditional=False)
    first = at(answer.json(), "first")
    is_apart = bool(_reference(first, answer.url)) and not _elements(first)
    return _Way(
        first=_reference(first, answer.url) if is_apart else answer.url,
        actor=identity(actor, "id") or url,
        name=named(text(actor, "name") or text(actor, "preferredUsername") or target.handle).display_name,
    )


def _reference(value: object, base: str) -> str:
    """The address that a property holds, as a string or as an object with an id; empty without one."""
    found = value if isinstance(value, str) else identity(value, "id") or text(value, "href")
    try:
        return normalise_url(urljoin(base, found)) if found else ""
    except (Unusable, ValueError):
        return ""


def _elements(page: object) -> list[object]:
    return several(page, "orderedItems") or several(page, "items")


class _Outbox:
    """Reads the pages of one actor's outbox."""

    def __init__(self, actor: str, handle: str, http: Http) -> None:
        self._actor, self._handle, self._http = actor, handle, http

    def read(self, answer: Answer) -> Page:
        page = answer.json()
        if not text(page, "type").startswith(("OrderedCollection", "Collection")):
            raise ScrapeFailed("the answer is no page of an outbox")
        if not _elements(page) and record(page, "first"):  # a collection with its first page inside
            page = record(page, "first")
        items = [item for item in _elements(page) if not isinstance(item, dict) or _is_post(item)]
        posts, unread = read_posts(items, self._post, self._http.on_progress)
        older = _reference(at(page, "next"), answer.url)
        is_theirs = bool(older) and host_of(older) == host_of(answer.url)
        return Page(posts=posts, unread=unread, older=older if is_theirs else "")

    def _post(self, activity: Record) -> Post | None:
        if text(activity, "type") == "Announce":
            return self._repost(activity)
        made = at(activity, "object")
        thing = {"id": made} if isinstance(made, str) else record(activity, "object") or activity
        return self._own({"published": text(activity, "published"), **thing})

    def _own(self, thing: Record) -> Post | None:
        answered = identity(thing, "inReplyTo") or identity(thing, "inReplyTo", "id")
        is_comment = bool(answered) and not (self._actor and answered.startswith(f"{self._actor}/"))
        return _thing(thing, identity(thing, "id"), author=self._handle, kind="comment" if is_comment else "post")

    def _repost(self, activity: Record) -> Post | None:
        shared = record(activity, "object")
        announced = text(activity, "object") or text(shared, "id")
        author = text(shared, "attributedTo") or text(shared, "attributedTo", "id")
        shown = {**shared, "id": announced, "published": text(activity, "published")}
        return _thing(shown, identity(activity, "id"), author=author, kind="repost")


def _is_post(activity: Record) -> bool:
    """Whether an element of an outbox is to be a post; what is liked, followed or deleted is none."""
    kind = text(activity, "type")
    if kind == "Create":
        return text(activity, "object", "type") in _POSTS or not text(activity, "object", "type")
    return kind == "Announce" or kind in _POSTS or not kind


def _thing(thing: Record, native_id: str, *, author: str, kind: str) -> Post | None:
    attached = [_link(one) for one in several(thing, "attachment")] + [_link(one) for one in several(thing, "image")]
    return make_post(
        native_id,
        _page(thing) or identity(thing, "id"),
        title=text(thing, "name") or (_warning(thing) if text(thing, "type") in ("Note", "Question") else ""),
        markup=text(thing, "content") or next(filter(None, map(_string, record(thing, "contentMap").values())), ""),
        author=author,
        published_at=time(thing, "published"),
        kind=kind,
        media=attached,
    )


def _warning(note: Record) -> str:
    """What stands before a note until it is opened; of other things the summary is a summary."""
    from sources.texts import plain

    return plain(text(note, "summary"))


def _string(value: object) -> str:
    return value if isinstance(value, str) else ""


def _link(value: object) -> str:
    """The address of an attachment: a string, a Link, or an object whose `url` is one of these."""
    if isinstance(value, str):
        return value
    return text(value, "href") or text(value, "url") or next(filter(None, map(_link, _inner(value))), "")


def _inner(value: object) -> list[object]:
    """The links in `url`, one step down and no further."""
    return [text(one, "href") if isinstance(one, dict) else one for one in several(value, "url")]


def _page(thing: Record) -> str:
    """Where a person reads it: the HTML among its addresses, else the first."""
    links = several(thing, "url")
    pages = [text(one, "href") for one in links if text(one, "mediaType").startswith("text/html")]
    return next(filter(None, [*pages, *map(_link, links)]), "")
