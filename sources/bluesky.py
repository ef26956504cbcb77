"""Bluesky accounts, by the public AppView: app.bsky.feed.getAuthorFeed, with replies and reposts.

Source: the lexicons of app.bsky.feed (defs, getAuthorFeed) and app.bsky.embed at docs.bsky.app.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, quote

from model import Post, Profile, Remember, Target, Window
from sources.paging import Page, fetch, walk
from sources.places import is_at_other_base, is_feed
from sources.records import Record, identity, listed, make_post, named, read_posts, record, several, text, time
from sources.source import Account, Source, escaped, is_at, matched, segments

if TYPE_CHECKING:
    from sources.http import Answer, Http

_NAME = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?", re.I | re.A)
_DID = re.compile(r"did:[a-z]{1,20}:[A-Za-z0-9._:%-]{1,500}", re.ASCII)
_EITHER = re.compile(f"(?i:{_NAME.pattern})|{_DID.pattern}", re.ASCII)
_API = "https://public.api.bsky.app"
_METHOD = "/xrpc/app.bsky.feed.getAuthorFeed"
_ACCEPT = {"Accept": "application/json"}


def _account(handle: str, base: str) -> Account:
    found = matched(
        handle.removeprefix("@"), _EITHER, what="a Bluesky handle or DID", example="bluesky:alice.bsky.social"
    )
    name = found[0] if found[0].startswith("did:") else found[0].lower()
    return Account(handle=name, url=f"{base}{_METHOD}?actor={escaped(name)}&limit=100&filter=posts_with_replies")


def _recognise(parts: SplitResult, base: str) -> Account | None:
    if is_feed(parts) or not (is_at(parts, "bsky.app") or is_at_other_base(parts, base, _API)):
        return None
    pieces = segments(parts)
    if len(pieces) != 2 or pieces[0] != "profile" or not _EITHER.fullmatch(pieces[1].removeprefix("@")):
        return None
    return _account(pieces[1], base)


SOURCE = Source(
    name="bluesky",
    description="A Bluesky account: posts, replies and reposts.",
    examples=("bluesky:alice.bsky.social", "https://bsky.app/profile/alice.bsky.social", "bluesky:did:plc:abc123"),
    base=_API,
    account=_account,
    recognise=_recognise,
)


def scrape(target: Target, http: Http) -> Iterator[Post | Profile | Remember | Window]:
    """Read the author's feed from the newest back.

    Raises:
        ScrapeFailed: There is no such account, or the answer is not a feed of Bluesky's.
    """
    absent = {400: f"Bluesky has no account {target.handle}, or shows nothing of it"}
    answer = fetch(http, target.url, headers=_ACCEPT, absent=absent)
    if answer.not_modified:
        return
    found: list[object] = []

    def read(page: Answer) -> Page:
        body = page.json()
        items = listed(body, "feed")
        found.extend(items)
        posts, unread = read_posts(items, _post, http.on_progress)
        cursor = text(body, "cursor")
        return Page(posts=posts, unread=unread, older=_older(target.url, cursor) if items else "")

    walked = walk(target, http, answer, read, headers=_ACCEPT)
    yield named(_name(found, target.handle))
    yield from walked.results(target, answer)


def _older(url: str, cursor: str) -> str:
    return f"{url}&cursor={escaped(cursor)}" if cursor and cursor.isprintable() and len(cursor) <= 500 else ""


def _name(found: list[object], handle: str) -> str:
    """The account's own name, from the first post that is its own."""
    for item in found:
        author = record(item, "post", "author")
        if handle in (text(author, "did"), text(author, "handle").lower()):
            return text(author, "displayName") or text(author, "handle")
        by = record(item, "reason", "by")
        if handle in (text(by, "did"), text(by, "handle").lower()):
            return text(by, "displayName") or text(by, "handle")
    return handle


def _post(item: Record) -> Post | None:
    post, reason = record(item, "post"), record(item, "reason")
    uri = identity(post, "uri")
    if not uri.startswith("at://") or not record(post, "record"):
        return None
    is_repost = text(reason, "$type").endswith("#reasonRepost")
    embed = record(post, "embed")
    said = text(post, "record", "text")
    return make_post(
        (identity(reason, "uri") or f"repost:{uri}") if is_repost else uri,
        _address(uri),
        plain_text="\n".join([said, *(link for link in _links(embed) if link not in said)]),
        author=text(post, "author", "handle"),
        published_at=time(reason, "indexedAt") if is_repost else _published(post),
        kind="repost" if is_repost else "comment" if _is_reply(uri, post) else "post",
        media=_media(embed),
    )


def _address(uri: str) -> str:
    """The page of `at://did/app.bsky.feed.post/key`; by the DID, since a handle may change and the post does not."""
    did, _, rest = uri.removeprefix("at://").partition("/")
    return f"https://bsky.app/profile/{quote(did, safe=':')}/post/{escaped(rest.rpartition('/')[2])}"


def _published(post: Record) -> datetime | None:
    """When it was made, as far as its author is believed: not after it was seen. The feed is in this order."""
    times = [found for found in (time(post, "record", "createdAt"), time(post, "indexedAt")) if found]
    return min(times, default=None)


def _is_reply(uri: str, post: Record) -> bool:
    """Whether it answers somebody else; who goes on with a thread of their own posts."""
    parent = text(post, "record", "reply", "parent", "uri")
    return bool(parent) and parent.split("/")[:3] != uri.split("/")[:3]


def _links(embed: Record) -> list[str]:
    """What a post shows below its text: the page of a card, the post it quotes."""
    card = text(embed, "external", "uri") or text(embed, "media", "external", "uri")
    quoted = identity(embed, "record", "uri") or identity(embed, "record", "record", "uri")
    is_post = quoted.startswith("at://") and "/app.bsky.feed.post/" in quoted
    return [*filter(None, [card]), *([_address(quoted)] if is_post else [])]


def _media(embed: Record) -> list[str]:
    media = record(embed, "media") or embed
    images = [text(image, "fullsize") or text(image, "thumb") for image in several(media, "images")]
    return [*images, text(media, "playlist")]
