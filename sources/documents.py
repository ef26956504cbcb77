"""What an answer is: its bytes as text, whether that is a feed or a page, and which feed a page links to."""

from __future__ import annotations

import re
from enum import Enum

from lxml import etree

from sources.charsets import decode
from sources.http import Answer
from sources.texts import link

#: How far a feed's first tag is looked for (characters).
_HEAD_CHARS = 64 * 1024
#: How much of a page is searched for links (characters).
_PAGE_CHARS = 1024 * 1024
_UNFIT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_PROLOG = re.compile(
    r"(?:\s|<\?.*?\?>|<!--.*?-->|<!doctype(?:[^\[>]*\[.*?\]\s*>|[^\[>]*>))*+", re.DOTALL | re.IGNORECASE
)
_TAG = re.compile(r"<(?:[\w.\-]+:)?([\w.\-]+)[\s/>]")
_ROOT = re.compile(r"<(?:[\w.\-]+:)?(?:rss|feed|RDF)(?:\s[^<>]*)?>", re.IGNORECASE)
_PAGE = re.compile(r"<(?:!doctype html|html|head|body|title|meta)[\s>]", re.IGNORECASE)
_FEED_TYPES = ("application/rss+xml", "application/atom+xml", "application/feed+json", "application/rdf+xml")
#: Types that a feed may have, and other things too.
_VAGUE_TYPES = ("application/xml", "text/xml", "application/json")


class Kind(Enum):
    """What a text is, by its beginning."""

    EMPTY = "empty"
    JSON = "json"
    FEED = "feed"
    PAGE = "page"
    XML = "xml"
    OTHER = "other"


def text_of(answer: Answer) -> str:
    """Decode an answer, without the whitespace before and the control characters in it."""
    return _UNFIT.sub("", decode(answer.body, answer.charset)).lstrip("\ufeff \t\r\n")


def kind_of(text: str) -> Kind:
    """Tell a feed from a page by the first tag."""
    if not text or text.isspace():
        return Kind.EMPTY
    if text[0] in "{[":
        return Kind.JSON
    head = text[:_HEAD_CHARS]
    prolog = _PROLOG.match(head)
    start = prolog.end() if prolog else 0
    tag = _TAG.match(head, start)
    name = tag[1].lower() if tag else ""
    if name in ("rss", "feed", "rdf"):
        return Kind.FEED
    root, page = _ROOT.search(head), _PAGE.search(head)
    if root is not None and (page is None or root.start() < page.start()):
        return Kind.FEED
    if page is not None:
        return Kind.PAGE
    return Kind.XML if tag and text.startswith("<?xml") else Kind.OTHER


def linked_feed(page: str, url: str) -> str:
    """The first feed that a page links to by `rel=alternate`; empty if there is none."""
    parser = etree.HTMLParser(encoding="utf-8", no_network=True, collect_ids=False)
    try:
        root = etree.fromstring(page[:_PAGE_CHARS].encode(), parser)
    except etree.XMLSyntaxError:
        return ""
    if root is None:
        return ""
    base = next((found for each in root.iter("base") if (found := link(each.get("href", ""), url))), url)
    by_type: dict[bool, str] = {}
    for element in root.iter("link", "a"):
        kind = element.get("type", "").partition(";")[0].strip().lower()
        if "alternate" not in element.get("rel", "").lower().split() or kind not in _FEED_TYPES + _VAGUE_TYPES:
            continue
        address = link(element.get("href", ""), base)
        if address and address != url:
            by_type.setdefault(kind in _FEED_TYPES, address)
    return by_type.get(True) or by_type.get(False, "")
