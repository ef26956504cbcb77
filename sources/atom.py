"""Atom 0.3 and 1.0: from a parsed document to items. Relative addresses are relative to xml:base, else the document."""

from __future__ import annotations

from collections.abc import Iterator

from lxml import etree

from sources.dates import moment
from sources.heads import fresh_s, older
from sources.items import Feed, Item
from sources.rss import media_in
from sources.texts import lines, one_line, plain
from sources.xml import Document, Fields, all_lines, serialised, text_of

_DATES = ("atom:published", "atom:issued", "dc:date", "atom:created", "atom:updated", "atom:modified")
_HTML = frozenset({"html", "text/html"})


def read(document: Document) -> Feed:
    """Read a feed whose root is `feed`; its entries are read as they are asked for."""
    head = document.fields(document.root)
    return Feed(
        title=_line(head, "atom:title"),
        items=_entries(document, _authors(document, head)),
        older=older(document, head),
        fresh_s=fresh_s(head),
    )


def _entries(document: Document, authors: str) -> Iterator[Item | None]:
    for element in document.children(document.root, "entry"):
        try:
            yield _entry(document, element, authors)
        except (ValueError, TypeError, LookupError, etree.LxmlError):
            yield None


def _entry(document: Document, element: etree._Element, authors: str) -> Item:
    fields = document.fields(element)
    html, text = _body(fields)
    sources = [document.fields(source) for source in fields.get("atom:source", ())]
    own = [_authors(document, each) for each in (fields, *sources)]
    return Item(
        guid=one_line(text_of(fields, "atom:id")),
        link=_link(document, fields),
        title=_line(fields, "atom:title", "media:title"),
        html=html,
        text=text,
        author=next(filter(None, (*own, authors)), ""),
        published_at=next((at for name in _DATES if (at := moment(text_of(fields, name)))), None),
        media=tuple(address for address in _media(document, fields) if address),
    )


def _construct(element: etree._Element) -> tuple[str, str]:
    """A text construct: markup (empty where it is plain) and plain text."""
    kind, mode = element.get("type", "text").strip().lower(), element.get("mode")
    if len(element):
        markup = serialised(_div(element))
        return markup, plain(markup)
    found = element.text or ""
    if kind in _HTML or (mode == "escaped" and "html" in kind):
        return found, plain(found)
    is_text = mode != "base64" and (kind.startswith("text") or "xhtml" in kind)
    return "", lines(found) if is_text else ""


def _div(element: etree._Element) -> etree._Element:
    """The div that wraps XHTML and is no part of it, else the element."""
    child = element[0]
    is_alone = len(element) == 1 and not (element.text or "").strip() and not (child.tail or "").strip()
    return child if is_alone and isinstance(child.tag, str) and child.tag.rpartition("}")[2] == "div" else element


def _body(fields: Fields) -> tuple[str, str]:
    for name in ("atom:content", "atom:summary", "media:description"):
        for element in fields.get(name, ()):
            html, text = _construct(element)
            if html.strip() or text:
                return html, text
    for group in fields.get("media:group", ()):
        for element in group:
            if isinstance(element.tag, str) and element.tag.endswith("}description") and element.text:
                return "", lines(element.text)
    return "", ""


def _line(fields: Fields, *names: str) -> str:
    for name in names:
        for element in fields.get(name, ()):
            title = one_line(_construct(element)[1])
            if title:
                return title
    return ""


def _link(document: Document, fields: Fields) -> str:
    found: list[tuple[bool, str]] = []
    for element in fields.get("atom:link", ()):
        address = document.link(element.get("href"), element)
        if address and element.get("rel", "alternate").lower().rpartition("/")[2] == "alternate":
            found.append(("html" not in element.get("type", "html"), address))
    if found:
        return min(found, key=lambda each: each[0])[1]
    contents = fields.get("atom:content", ())
    return next((document.link(each.get("src"), each) for each in contents if each.get("src")), "")


def _authors(document: Document, fields: Fields) -> str:
    names = []
    for element in fields.get("atom:author", ()):
        names += all_lines(document.fields(element), "atom:name", "atom:email", "atom:uri") or [
            one_line(element.text or "")
        ]
    names = names or all_lines(fields, "dc:creator")
    return ", ".join(dict.fromkeys(filter(None, names)))


def _media(document: Document, fields: Fields) -> Iterator[str]:
    for element in fields.get("atom:link", ()):
        if element.get("rel") == "enclosure":
            yield document.link(element.get("href"), element)
    yield from media_in(document, fields)
