"""What a feed says, before it becomes posts: one value for every format, and the identity of an item.

The identity of an item is its guid, else its link, else a hash of title, date and text. A feed that gives one guid to
several items is not believed: there the link joins the guid, or the hash where there is no link either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from model import Post
from sources.texts import clean, one_line

#: Longest identity and author's name (characters).
MAX_ID_CHARS = 1000
MAX_AUTHOR_CHARS = 500
#: Most media addresses of one item (count).
MAX_MEDIA = 50
#: How often a long reading says that it goes on (items).
PROGRESS_ITEMS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One item, as its format's reader understood it."""

    #: guid, atom:id or JSON id; empty without one.
    guid: str
    #: Absolute http(s) address, or empty.
    link: str
    #: Plain text.
    title: str
    #: Markup as found; empty where the feed gives plain text.
    html: str
    #: Plain text.
    text: str
    author: str
    published_at: datetime | None
    media: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """One document."""

    #: Plain text; empty where it is not said.
    title: str
    #: In the order of the document; None for one that could not be read.
    items: Iterable[Item | None]
    #: The document goes on to its end: its validators may be believed.
    is_whole: bool = True
    #: Address of the document with the items before these (RFC 5005), or empty.
    older: str = ""
    #: How long there will be nothing new, by the feed's own word (seconds); 0 where it says nothing.
    fresh_s: float = 0.0


def posts(feed: Feed, on_progress: Callable[[str], None]) -> tuple[list[Post], int]:
    """Give the posts of a feed, each once, in its order, and how many items could not be read.

    The whole feed is read before the first post is known: whether a guid is an identity depends on all the others.
    """
    items: list[Item] = []
    unread = 0
    for count, item in enumerate(feed.items, 1):
        if item is None:
            unread += 1
        elif item.guid or item.link or item.title or item.text or item.media:
            items.append(item)
        if count % PROGRESS_ITEMS == 0:
            on_progress(f"read {count} items")
    found: dict[str, Post] = {}
    for native_id, item in _identified(items):
        if native_id not in found:
            found[native_id] = _post(native_id, item)
    return list(found.values()), unread


def post_of(item: Item) -> Post:
    """The post of an item that is believed by itself: its guid, else its link, else a hash is its identity."""
    return _post(_bounded(item.guid or item.link) or _fingerprint(item), item)


def _identified(items: list[Item]) -> Iterator[tuple[str, Item]]:
    """The guid, else the link, else a hash; where that names several items, what tells them apart is added."""
    named: dict[str, set[str]] = {}
    for item in items:
        name = item.guid or item.link
        if name:
            named.setdefault(name, set()).add(_distinction(item))
    for item in items:
        name = item.guid or item.link
        if not name:
            yield _fingerprint(item), item
        elif len(named[name]) == 1:
            yield _bounded(name), item
        else:
            yield _bounded(f"{name} {_distinction(item)}"), item


def _distinction(item: Item) -> str:
    return item.link if item.guid and item.link else _fingerprint(item)


def _fingerprint(item: Item) -> str:
    at = item.published_at.isoformat() if item.published_at else ""
    parts = (item.title, at, item.text) if item.title or item.text else (*item.media, at)
    return "sha256:" + sha256("\0".join(parts).encode()).hexdigest()


def _bounded(native_id: str) -> str:
    if len(native_id) <= MAX_ID_CHARS:
        return native_id
    return f"{native_id[:200]} sha256:{sha256(native_id.encode()).hexdigest()}"


def _post(native_id: str, item: Item) -> Post:
    return Post(
        native_id=native_id,
        url=item.link,
        title=item.title,
        text=item.text,
        html=clean(item.html),
        author=one_line(item.author)[:MAX_AUTHOR_CHARS],
        published_at=item.published_at,
        media=tuple(dict.fromkeys(item.media))[:MAX_MEDIA],
    )
