"""JSON Feed 1.0 and 1.1: from text to items. Relative addresses are relative to the home page, else the document."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from errors import ScrapeFailed
from sources.dates import moment
from sources.items import Feed, Item
from sources.texts import lines, link, one_line, plain


def read(text: str, url: str) -> Feed:
    """Read a document; its items are read as they are asked for.

    Raises:
        ScrapeFailed: It is not JSON, was cut short, or is no feed.
    """
    try:
        found = json.loads(text, strict=False)
    except (ValueError, RecursionError) as exc:
        raise ScrapeFailed("the answer looks like JSON, but it is broken or was cut short") from exc
    items = found.get("items") if isinstance(found, dict) else None
    if not isinstance(items, list):
        raise ScrapeFailed("the answer is JSON, but it is not a feed")
    base = link(_text(found.get("home_page_url")), url) or url
    older = link(_text(found.get("next_url")), url)
    return Feed(title=one_line(_text(found.get("title"))), items=_items(items, base, _authors(found)), older=older)


def _items(items: list[Any], base: str, authors: str) -> Iterator[Item | None]:  # Any: JSON values
    for item in items:
        try:
            yield _item(item, base, authors) if isinstance(item, dict) else None
        except (ValueError, TypeError, LookupError):
            yield None


def _item(item: dict[str, Any], base: str, authors: str) -> Item:  # Any: JSON values
    own_id = item.get("id")
    is_number = isinstance(own_id, (int, float)) and not isinstance(own_id, bool)
    html, text = _text(item.get("content_html")), _text(item.get("content_text")) or _text(item.get("summary"))
    dates = (moment(_text(item.get(name))) for name in ("date_published", "date_modified"))
    attachments = item.get("attachments")
    media = [one.get("url") for one in attachments if isinstance(one, dict)] if isinstance(attachments, list) else []
    media = media or [item.get("image"), item.get("banner_image")]
    return Item(
        guid=str(own_id) if is_number else one_line(_text(own_id)),
        link=link(_text(item.get("url")), base) or link(_text(item.get("external_url")), base),
        title=one_line(_text(item.get("title"))),
        html=html,
        text=plain(html) if html else lines(text),
        author=_authors(item) or authors,
        published_at=next((at for at in dates if at), None),
        media=tuple(address for one in media if (address := link(_text(one), base))),
    )


def _text(value: object) -> str:
    """What is no string says nothing."""
    return value if isinstance(value, str) else ""


def _authors(found: dict[str, Any]) -> str:  # Any: JSON values
    several = found.get("authors")
    people = several if isinstance(several, list) and several else [found.get("author")]
    names = [_text(one.get("name")) or _text(one.get("url")) for one in people if isinstance(one, dict)]
    return ", ".join(dict.fromkeys(filter(None, map(one_line, names))))
