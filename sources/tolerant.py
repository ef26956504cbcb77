"""The tolerant parser, for what is not XML: feedparser, asked for one item at a time.

It is never given an address, so it fetches nothing; it sanitises nothing, since what is kept is what was found.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from html import unescape
from typing import Any

import feedparser

from sources.dates import moment
from sources.items import Item
from sources.rss import person, text_title
from sources.texts import lines, link, one_line, plain

_ITEM = re.compile(r"<(?:[\w.\-]+:)?(?:item|entry)[\s>]", re.IGNORECASE)
_ID = re.compile(r"<(guid|(?:atom:)?id)((?:\s[^<>]*)?)>(?:\s*<!\[CDATA\[)?([^<]*)</\1\s*>", re.IGNORECASE)
_DATES = ("published", "created", "updated")


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What items are read with."""

    title: str
    #: Absolute address of the site, or of the feed.
    link: str
    author: str


def head(document: str, url: str) -> Head:
    """Read what stands before the first item."""
    found = _parse(document, url).get("feed", {})
    return Head(
        title=text_title(_string(found, "title")),
        link=link(_string(found, "link"), url) or url,
        author=one_line(_string(found, "author")),
    )


def item(document: str, url: str) -> Item | None:
    """Read a document with one item in it; None if none is found.

    The parser takes an id for a relative address and makes it absolute, so the id is read here: an item has the same
    identity whoever reads it.
    """
    match = _own_id(document)
    guid = one_line(unescape(match[3].strip().removesuffix("]]>"))) if match else ""
    if match and match[1].lower() == "guid" and not guid.startswith(("http://", "https://")):
        document = f'{document[: match.start(2)]} isPermaLink="false"{document[match.end(2) :]}'  # nor is it a link
    entries = _parse(document, url).get("entries")
    if not entries:
        return None
    found = item_of(entries[0], url)
    return replace(found, guid=guid) if match else found


def _own_id(document: str) -> re.Match[str] | None:
    """The id of the item, not that of its feed or of the feed it was taken from."""
    start = _ITEM.search(document)
    at = start.end() if start else 0
    source = document.find("<source", at)
    if source >= 0:
        before = _ID.search(document, at, source)
        return before or _ID.search(document, max(at, document.find("</source>", source)))
    return _ID.search(document, at)


def item_of(entry: Any, url: str) -> Item:  # Any: feedparser has no types
    """An item of the parser's as one of ours."""
    html, text = _body(entry)
    people = [_string(author, "name") or _string(author, "email") for author in _dicts(entry, "authors")]
    people = [name for name in people if name] or [_string(entry, "author")]
    is_html = "html" in _string(dict.get(entry, "title_detail") or {}, "type")
    title = _string(entry, "title")
    return Item(
        guid=one_line(_string(entry, "id")),
        link=link(_string(entry, "link"), url),
        title=one_line(plain(title)) if is_html else text_title(title),
        html=html,
        text=text,
        author=", ".join(dict.fromkeys(person(one_line(name)) for name in people)),
        published_at=next((at for name in _DATES if (at := moment(_string(entry, name)))), None),
        media=tuple(address for found in _media(entry) if (address := link(found, url))),
    )


def _parse(document: str, url: str) -> Any:  # Any: feedparser has no types
    headers = {"content-type": "application/xml; charset=utf-8", "content-location": url}
    stream = io.BytesIO(f'<?xml version="1.0" encoding="utf-8"?>{document}'.encode())
    return feedparser.parse(stream, response_headers=headers, resolve_relative_uris=False, sanitize_html=False)


def _string(found: Any, name: str) -> str:  # Any: feedparser has no types
    value = dict.get(found, name)  # its own `get` answers for other names too
    return value if isinstance(value, str) else ""


def _dicts(found: Any, name: str) -> list[Any]:  # Any: feedparser has no types
    return [each for each in dict.get(found, name) or () if isinstance(each, dict)]


def _body(entry: Any) -> tuple[str, str]:  # Any: feedparser has no types
    details = [*_dicts(entry, "content"), dict.get(entry, "summary_detail") or {}]
    for detail in details:
        value = _string(detail, "value")
        if value.strip():
            return (value, plain(value)) if "html" in _string(detail, "type") else ("", lines(value))
    return "", ""


def _media(entry: Any) -> Iterator[str]:  # Any: feedparser has no types
    for enclosure in _dicts(entry, "links"):
        if _string(enclosure, "rel") == "enclosure":
            yield _string(enclosure, "href")
    for found in _dicts(entry, "media_content") or _dicts(entry, "media_thumbnail"):
        yield _string(found, "url")
