"""Well-formed XML as feeds use it: a hardened parser, and elements found by short names.

The parser expands the entities that a document declares, within libxml2's limit of amplification, and loads nothing
from outside. It is strict: what is not well-formed belongs to `sources.broken`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from html import escape

from lxml import etree

from sources.texts import link, one_line

#: Children of an element by short name (`title`, `dc:creator`), in their order.
Fields = dict[str, list[etree._Element]]

#: Namespaces by what stands for them in a short name; a format's own elements have nothing before them.
_PREFIXES = {
    "": "",
    "http://purl.org/rss/1.0/": "",
    "http://purl.org/net/rss1.1#": "",
    "http://my.netscape.com/rdf/simple/0.9/": "",
    "http://channel.netscape.com/rdf/simple/0.9/": "",
    "http://backend.userland.com/rss": "",
    "http://backend.userland.com/rss2": "",
    "http://blogs.law.harvard.edu/tech/rss": "",
    "http://www.w3.org/2005/Atom": "atom:",
    "https://www.w3.org/2005/Atom": "atom:",
    "http://purl.org/atom/ns#": "atom:",
    "http://purl.org/dc/elements/1.1/": "dc:",
    "http://purl.org/dc/terms/": "dcterms:",
    "http://purl.org/rss/1.0/modules/content/": "content:",
    "http://purl.org/rss/1.0/modules/syndication/": "sy:",
    "http://search.yahoo.com/mrss/": "media:",
    "http://search.yahoo.com/mrss": "media:",
    "http://www.itunes.com/dtds/podcast-1.0.dtd": "itunes:",
    "http://www.w3.org/1999/xhtml": "xhtml:",
}

#: Prefixes that feeds use without declaring them.
USUAL_PREFIXES = {
    "atom": "http://www.w3.org/2005/Atom",
    "content": "http://purl.org/rss/1.0/modules/content/",
    "dc": "http://purl.org/dc/elements/1.1/",
    "itunes": "http://www.itunes.com/dtds/podcast-1.0.dtd",
    "media": "http://search.yahoo.com/mrss/",
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "sy": "http://purl.org/rss/1.0/modules/syndication/",
}
_DECLARATION = re.compile(r' xmlns(?::[^=\s]+)?="[^"]*"')


class Document:
    """A parsed feed: its root, its address, and what its root's namespace is called."""

    def __init__(self, text: str, url: str) -> None:
        """Parse.

        Raises:
            etree.XMLSyntaxError: It is not well-formed, or its entities grow past all measure.
        """
        parser = etree.XMLParser(
            encoding="utf-8",
            resolve_entities="internal",
            no_network=True,
            load_dtd=False,
            remove_comments=True,
            remove_pis=True,
            collect_ids=False,
        )
        self.root = etree.fromstring(text.encode(), parser, base_url=url)
        self.url = url
        #: What relative addresses are relative to where no xml:base says otherwise.
        self.base = url
        self.space, self.kind = split(self.root.tag)
        self._own = "atom:" if self.kind == "feed" else ""
        self._has_bases = "xml:base" in text

    def fields(self, element: etree._Element) -> Fields:
        """Children by short name."""
        found: Fields = {}
        for child in element:
            if isinstance(child.tag, str):
                found.setdefault(_short(child.tag, self.space, self._own), []).append(child)
        return found

    def children(self, element: etree._Element, name: str) -> list[etree._Element]:
        """Children with that local name, in any namespace and case."""
        return [child for child in element if isinstance(child.tag, str) and split(child.tag)[1] == name]

    def link(self, href: str | None, element: etree._Element) -> str:
        """An address that stands in or on an element, made absolute; empty if it is not http(s)."""
        if not href:
            return ""
        base = self.base
        if self._has_bases and element.base and element.base != self.url:
            base = element.base
        return link(href, base)


@lru_cache(maxsize=4096)
def split(tag: str) -> tuple[str, str]:
    """Namespace and local name, the latter in lower case."""
    space, _, name = tag.rpartition("}")
    return space[1:], name.lower()


@lru_cache(maxsize=4096)
def _short(tag: str, own_space: str, own: str) -> str:
    space, name = split(tag)
    if space == own_space:
        return own + name
    return _PREFIXES.get(space, f"{{{space}}}") + name


def text_of(fields: Fields, *names: str) -> str:
    """The first text there is under one of the names, in the order of the names; as it stands in the document."""
    for name in names:
        for element in fields.get(name, ()):
            text = "".join(element.itertext()) if len(element) else element.text
            if text and not text.isspace():
                return str(text)
    return ""


def all_lines(fields: Fields, *names: str) -> list[str]:
    """Every text under the first of the names that has any, each one line."""
    for name in names:
        found = [one_line(text_of({name: [element]}, name)) for element in fields.get(name, ())]
        if any(found):
            return [text for text in found if text]
    return []


def inner(element: etree._Element) -> str:
    """What stands between an element's tags: its text, or its markup where it has elements in it."""
    return serialised(element) if len(element) else element.text or ""


def serialised(element: etree._Element) -> str:
    """What stands between an element's tags as markup, without namespaces."""
    for below in element.iterdescendants():
        if isinstance(below.tag, str):
            below.tag = below.tag.rpartition("}")[2]
    etree.cleanup_namespaces(element)
    parts = [escape(element.text or "", quote=False)]
    for child in element:
        start, end, rest = etree.tostring(child, encoding="unicode").partition(">")
        parts += (_DECLARATION.sub("", start), end, rest)
    return "".join(parts)
