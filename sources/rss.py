"""RSS 0.9x, 1.0 and 2.0: from a parsed document to items."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lxml import etree

from errors import ScrapeFailed
from sources.dates import moment
from sources.heads import fresh_s, older
from sources.items import MAX_AUTHOR_CHARS, Feed, Item
from sources.texts import is_markup, lines, link, one_line, plain
from sources.xml import Document, Fields, all_lines, inner, serialised, text_of

_ABOUT = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}about"
_DATES = (
    *("pubdate", "dc:date", "atom:published", "dcterms:issued", "dcterms:created"),
    *("published", "date", "atom:updated", "dcterms:modified", "updated"),
)
_BODIES = (
    *("content:encoded", "xhtml:body", "xhtml:div", "description", "content", "atom:content"),
    *("summary", "atom:summary", "itunes:summary", "dc:description", "media:description"),
)
#: Bodies that are plain text by their format's word.
_PLAIN_BODIES = frozenset({"itunes:summary", "dc:description", "media:description"})
_MAIL_AND_NAME = re.compile(r"\S+@\S+\s+\((.+)\)|(.+?)\s*<\S+@\S+>")


def read(document: Document) -> Feed:
    """Read a feed whose root is `rss` or `rdf:RDF`; its items are read as they are asked for.

    Raises:
        ScrapeFailed: It has neither a channel nor an item.
    """
    root = document.root
    channels = document.children(root, "channel")
    parents = [*channels, root]
    if not channels and not document.children(root, "item"):
        raise ScrapeFailed("the answer is XML, but it is not a feed")
    head = document.fields(parents[0])
    document.base = link(text_of(head, "link"), document.url) or document.url
    title = text_title(text_of(head, "title", "dc:title", "atom:title"))
    return Feed(
        title=title,
        items=(item for parent in parents for item in _items(document, parent)),
        older=older(document, head),
        fresh_s=fresh_s(head),
    )


def text_title(title: str) -> str:
    """A title as plain text: the format does not say whether it is markup, so what looks like markup is."""
    return one_line(plain(title)) if is_markup(title) else one_line(title)


def person(author: str) -> str:
    """The name out of `mail (name)` or `name <mail>`, else all of it."""
    author = author[:MAX_AUTHOR_CHARS]
    match = _MAIL_AND_NAME.fullmatch(author)
    return (match[1] or match[2]).strip() if match else author


def media_in(document: Document, fields: Fields) -> Iterator[str]:
    """Addresses of media:content, grouped or not; of thumbnails only where there is nothing else."""
    groups = [fields, *(document.fields(group) for group in fields.get("media:group", ()))]
    contents = [element for group in groups for element in group.get("media:content", ())]
    thumbnails = [element for group in groups for element in group.get("media:thumbnail", ())]
    for element in contents or thumbnails:
        yield document.link(element.get("url"), element)


def _items(document: Document, parent: etree._Element) -> Iterator[Item | None]:
    for element in document.children(parent, "item"):
        try:
            yield _item(document, element)
        except (ValueError, TypeError, LookupError, etree.LxmlError):
            yield None


def _item(document: Document, element: etree._Element) -> Item:
    fields = document.fields(element)
    html, text = _body(fields)
    guid = one_line(text_of(fields, "guid", "atom:id") or element.get(_ABOUT) or text_of(fields, "dc:identifier"))
    return Item(
        guid=guid,
        link=_link(document, fields),
        title=text_title(text_of(fields, "title", "dc:title", "atom:title", "media:title")),
        html=html,
        text=text,
        author=_author(document, fields),
        published_at=next((at for name in _DATES if (at := moment(text_of(fields, name)))), None),
        media=tuple(address for address in _media(document, fields) if address),
    )


def _body(fields: Fields) -> tuple[str, str]:
    for name in _BODIES:
        for element in fields.get(name, ()):
            found = serialised(element) if name.startswith("xhtml:") else inner(element)
            if found and not found.isspace():
                if name in _PLAIN_BODIES and not is_markup(found):
                    return "", lines(found)
                return found, plain(found)
    return "", ""


def _link(document: Document, fields: Fields) -> str:
    for element in (*fields.get("link", ()), *fields.get("atom:link", ())):
        if element.get("rel", "alternate") == "alternate":
            found = document.link(element.text, element) or document.link(element.get("href"), element)
            if found:
                return found
    for guid in fields.get("guid", ()):
        address = (guid.text or "").strip()
        if guid.get("isPermaLink", "true").lower() != "false" and address.startswith(("http://", "https://")):
            return document.link(address, guid)
    return ""


def _author(document: Document, fields: Fields) -> str:
    people = [all_lines(document.fields(element), "atom:name", "name") for element in fields.get("atom:author", ())]
    names = all_lines(fields, "dc:creator", "author", "itunes:author") or [name for found in people for name in found]
    return ", ".join(dict.fromkeys(person(name) for name in names))


def _media(document: Document, fields: Fields) -> Iterator[str]:
    for enclosure in fields.get("enclosure", ()):
        yield document.link(enclosure.get("url"), enclosure)
    for element in fields.get("atom:link", ()):
        if element.get("rel") == "enclosure":
            yield document.link(element.get("href"), element)
    yield from media_in(document, fields)
