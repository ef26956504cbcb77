"""What a program prints of an item, under whatever usual name, and what becomes of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from sources.dates import moment
from sources.items import MAX_MEDIA, Item
from sources.page_items import unix_time
from sources.page_json import text_of
from sources.texts import is_markup, lines, link, one_line, plain

#: Names that programs have for our fields, the likeliest first.
NAMES: Mapping[str, tuple[str, ...]] = {
    "id": ("id", "native_id", "guid", "_id", "uid", "key"),
    "url": ("url", "link", "href", "permalink", "uri"),
    "title": ("title", "headline", "name", "subject"),
    "text": ("text", "content_text"),
    "html": ("html", "content_html"),
    "author": ("author", "authors", "by", "byline", "creator", "user", "username"),
    "published_at": (
        *("published_at", "published", "date", "pub_date", "pubDate", "date_published", "created_at", "created"),
        *("datetime", "timestamp", "time", "posted_at"),
    ),
    "media": ("media", "image", "images", "image_urls", "file_urls", "thumbnail", "video", "attachments"),
    "kind": ("kind",),
}
#: Names for a text that may be markup or not.
_BODIES = ("content", "body", "description", "summary", "excerpt")
_KINDS = frozenset({"post", "repost", "comment", "release", "edit"})
_PLAIN_KIND = "post"


def item_of(record: Mapping[str, Any], fields: Mapping[str, str], base: str) -> tuple[Item, str] | None:
    """An item and its kind; None where nothing in the record makes one.

    Args:
        record: What was printed.
        fields: By field of ours, the program's own name for it, in place of the usual ones.
        base: What relative addresses are relative to; empty where there is nothing.
    """

    def texts(name: str) -> list[str]:
        names = (fields[name],) if name in fields else NAMES[name]
        return next((found for one in names if (found := list(_texts(record.get(one))))), [])

    def first(name: str) -> str:
        return next(iter(texts(name)), "")

    html, text = _body(record, "\n".join(texts("html")), "\n".join(texts("text")))
    item = Item(
        guid=one_line(first("id")),
        link=link(first("url"), base),
        title=one_line(first("title")),
        html=html,
        text=text,
        author=", ".join(filter(None, map(one_line, texts("author")))),
        published_at=_time(first("published_at")),
        media=tuple(found for one in texts("media")[:MAX_MEDIA] if (found := link(one, base))),
    )
    kind = first("kind").strip().lower()
    if not (item.guid or item.link or item.title or item.text or item.media):
        return None
    return item, kind if kind in _KINDS else _PLAIN_KIND


def _body(record: Mapping[str, Any], html: str, text: str) -> tuple[str, str]:
    if not html and not text:
        body = next((found for one in _BODIES if (found := "\n".join(_texts(record.get(one))))), "")
        html, text = (body, "") if is_markup(body) else ("", body)
    return html, lines(text) if text.strip() else plain(html)


def _texts(value: object) -> Iterator[str]:
    """What a value says: itself, or each part of a list; an object is known by its name or its address."""
    for one in value if isinstance(value, list) else [value]:
        found = text_of(one) or (_name(one) if isinstance(one, dict) else "")
        if found.strip():
            yield found


def _name(record: Mapping[str, Any]) -> str:
    return next((found for one in ("name", "username", "text") if isinstance(found := record.get(one), str)), "")


def _time(text: str) -> datetime | None:
    text = " ".join(text.split())
    return unix_time(text) or moment(text)
