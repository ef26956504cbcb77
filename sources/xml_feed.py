"""Feeds in XML, well-formed or not.

What is not well-formed is repaired where that is safe, else cut into its items, each of which is read alone. So damage
stays where it is: an item that is well-formed by itself is read as always, and only the others go to the tolerant
parser, which is slow and guesses. An item without an end, the last one of a document that was cut short, is left out:
its guid may be half a guid.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import entities, escape
from typing import TYPE_CHECKING

from lxml import etree

from errors import ScrapeFailed
from sources import atom, rss
from sources.items import Feed, Item
from sources.xml import USUAL_PREFIXES, Document

if TYPE_CHECKING:
    from sources import tolerant

#: Where the root is looked for, and where the last end tag is (characters).
_HEAD_CHARS = 64 * 1024
_TAIL_CHARS = 2000
_ROOT = re.compile(r"<((?:[\w.\-]+:)?(rss|feed|RDF))(\s[^<>]*)?>", re.IGNORECASE)
_ROOT_END = re.compile(r"</(?:[\w.\-]+:)?(?:rss|feed|RDF)\s*>", re.IGNORECASE)
_SKIPPED = {"<![CDATA[": "]]>", "<!--": "-->", "<?": "?>"}
_REFERENCE = re.compile(r"(<!\[CDATA\[|<!--|<\?)|&(?:(#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});)?")
_ITEM = re.compile(r"(<!\[CDATA\[|<!--|<\?)|<(/?)((?:[\w.\-]+:)?(?:item|entry))(?=[\s/>])[^<>]*?(/?)>", re.IGNORECASE)


def read(text: str, url: str) -> Feed:
    """Read a document that begins like a feed; its items are read as they are asked for.

    Raises:
        ScrapeFailed: It is no feed, or it is broken and there is no item with an end in it.
    """
    if "<!DOCTYPE" not in text[:_HEAD_CHARS]:  # it may promise entities that are defined elsewhere
        try:
            return _read(Document(text, url))
        except etree.XMLSyntaxError:
            pass
    text = _repaired(text)
    try:
        return _read(Document(text, url))
    except etree.XMLSyntaxError:
        return _read_pieces(text, url)


def _read(document: Document) -> Feed:
    if document.kind not in ("rss", "rdf", "feed"):
        raise ScrapeFailed("the answer is XML, but it is not a feed")
    return atom.read(document) if document.kind == "feed" else rss.read(document)


def _repaired(text: str) -> str:
    """Write out HTML's entities, escape ampersands that refer to nothing, declare the usual prefixes.

    What stands before the root goes if it is no XML. CDATA, comments and instructions stay as they are.
    """
    root = _ROOT.search(text, 0, _HEAD_CHARS)
    if root is not None:
        declared = root[3] or ""
        missing = [
            f' xmlns:{prefix}="{space}"'
            for prefix, space in USUAL_PREFIXES.items()
            if f"xmlns:{prefix}" not in declared and f"<{prefix}:" in text
        ]
        before = text[: root.start()] if text.startswith("<") else ""
        text = f"{before}<{root[1]}{declared}{''.join(missing)}>{text[root.end() :]}"
    own = "<!ENTITY" in text
    parts: list[str] = []
    done = 0
    for start, end, reference in _references(text):
        parts += (text[done:start], _resolved(reference, own=own))
        done = end
    return "".join((*parts, text[done:]))


def _references(text: str) -> Iterator[tuple[int, int, str]]:
    """Every ampersand outside CDATA: where it starts, where what it refers to ends, and what that is."""
    at = 0
    while match := _REFERENCE.search(text, at):
        at = _skip(text, match) if match[1] else match.end()
        if not match[1]:
            yield match.start(), match.end(), match[2] or ""


def _skip(text: str, match: re.Match[str]) -> int:
    """Where a CDATA section, comment or instruction ends; one that does not end before the next begins is no such."""
    following = text.find(match[1], match.end())
    end = text.find(_SKIPPED[match[1]], match.end(), following if following >= 0 else len(text))
    return match.end() if end < 0 else end + len(_SKIPPED[match[1]])


def _resolved(reference: str, *, own: bool) -> str:
    """How a reference is written in XML. `own`: the document declares entities, an unknown one may be among them."""
    if reference.startswith("#"):
        code = int(reference[2:], 16) if reference[1] in "xX" else int(reference[1:])
        is_allowed = code in (9, 10, 13) or 32 <= code < 0xD800 or 0xE000 <= code < 0xFFFE or 0xFFFF < code < 0x110000
        return f"&#{code};" if is_allowed else ""
    if reference in ("amp", "lt", "gt", "quot", "apos"):
        return f"&{reference};"
    known = entities.html5.get(f"{reference};")
    if known is not None:
        return escape(known)
    return f"&{reference};" if own and reference else f"&amp;{reference}{';' if reference else ''}"


def _read_pieces(text: str, url: str) -> Feed:
    from sources import tolerant

    root = _ROOT.search(text, 0, _HEAD_CHARS)
    if root is None:
        raise ScrapeFailed("the answer is not a feed")
    first, pieces = _pieces(text, root.end())
    if not pieces:
        raise ScrapeFailed("the feed is broken or was cut short, and no whole item is in it")
    tail = text[-_TAIL_CHARS:]
    head = tolerant.head(text[root.start() : first], url)
    wrapping = _wrapping(root, head)
    items = (_read_piece(piece, wrapping, url) for piece in pieces)
    return Feed(title=head.title, items=items, is_whole=_ROOT_END.search(tail) is not None)


def _wrapping(root: re.Match[str], head: tolerant.Head) -> tuple[str, str]:
    """What makes a document of one item: the root and the part of the head that items are read with."""
    author = f"<author><name>{escape(head.author)}</name></author>" if head.author else ""
    channel = f"<channel><link>{escape(head.link)}</link>"
    return {
        "feed": (f"{root[0]}{author}", f"</{root[1]}>"),
        "rss": (f"{root[0]}{channel}", f"</channel></{root[1]}>"),
        "rdf": (f"{root[0]}{channel}</channel>", f"</{root[1]}>"),
    }[root[2].lower()]


def _pieces(text: str, at: int) -> tuple[int, list[str]]:
    """Where the first item begins, and the items that have an end: their own, the next one's start, the root's end."""
    name = ""
    first = start = -1
    pieces: list[str] = []
    while match := _ITEM.search(text, at):
        at = _skip(text, match) if match[1] else match.end()
        if match[1] or match[4] or (name and match[3] != name):
            continue
        name = match[3]
        if start >= 0:
            pieces.append(text[start : match.start()] + f"</{name}>")
        start = -1 if match[2] else match.start()
        first = start if first < 0 else first
    last = _ROOT_END.search(text, max(start, len(text) - _TAIL_CHARS)) if start >= 0 else None
    if last is not None:
        pieces.append(text[start : last.start()] + f"</{name}>")
    return first, pieces


def _read_piece(piece: str, wrapping: tuple[str, str], url: str) -> Item | None:
    from sources import tolerant

    document = piece.join(wrapping)
    try:
        return next(iter(_read(Document(document, url)).items), None)
    except etree.XMLSyntaxError:
        return tolerant.item(document, url)
