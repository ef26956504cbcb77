"""Reads items out of HTML by CSS selectors or XPath.

A selector is CSS, unless it begins with `/`, `(` or `xpath:`. `selector@attribute` takes an attribute of what matches.
In a field, XPath is relative to the item: `//a` means any `a` in it; what follows `xpath:` is taken as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from html import escape

from lxml import etree

from errors import ScrapeFailed
from sources.charsets import decode
from sources.http import Answer
from sources.page_items import Builder, Found, Leaf
from sources.page_options import PageOptions
from sources.texts import link, one_line, plain

_ATTRIBUTE = re.compile(r"(.*)@([A-Za-z_][\w:.\-]*)", re.DOTALL | re.ASCII)
_CHARSET = re.compile(
    rb"""<meta\s[^>]{0,300}?charset\s{0,9}=\s{0,9}["']?\s{0,9}([A-Za-z0-9._:\-]{1,40})""", re.IGNORECASE
)
#: Where an address stands on an element, when no attribute is named.
_ADDRESSES = ("href", "src", "content", "data-src")
#: Most matches of one field in one item that are looked at (count).
_MAX_MATCHES = 100


class Pick:
    """One selector, ready to be used."""

    def __init__(self, name: str, text: str, *, is_field: bool = True) -> None:
        """Compile. Raises ScrapeFailed, naming the setting."""
        self.attribute = ""
        path = _xpath_of(text, is_field=is_field)
        try:
            if path is None:
                selector, self.attribute = _split(text)
                path = _css(selector) if selector else "self::*"
            self._path = etree.XPath(path)
        except (etree.XPathSyntaxError, SyntaxError, ValueError) as exc:
            raise ScrapeFailed(f"{name} is {text[:80]!r}, which is no selector: {_first_line(exc)}") from exc
        self._name, self._text = name, text

    def all(self, element: etree._Element) -> list[str | etree._Element]:
        """Elements and texts, in the order of the document. Raises ScrapeFailed where it finds something else."""
        try:
            found = self._path(element)
        except etree.XPathError as exc:
            raise ScrapeFailed(f"{self._name} is {self._text[:80]!r}, which cannot be evaluated") from exc
        if isinstance(found, (bool, float)):
            found = [str(found)]
        elif isinstance(found, str):
            found = [found]
        matches = [one for one in found[:_MAX_MATCHES] if isinstance(one, (str, etree._Element))]
        if not self.attribute:
            return matches
        texts = (one if isinstance(one, str) else one.get(self.attribute) for one in matches)
        return [text for text in texts if text is not None]


def _xpath_of(text: str, *, is_field: bool) -> str | None:
    """What is written as XPath, made relative to the item; None for CSS."""
    if text.startswith("xpath:"):
        return text.removeprefix("xpath:")
    if text.startswith("/"):
        return f".{text}" if is_field else text
    if text.startswith("("):
        return re.sub(r"^(\(+)/", r"\1./", text) if is_field else text
    return None


def _split(text: str) -> tuple[str, str]:
    found = _ATTRIBUTE.fullmatch(text)
    return (found[1].strip(), found[2]) if found else (text, "")


def _css(selector: str) -> str:
    from cssselect import HTMLTranslator, SelectorError

    try:
        return HTMLTranslator().css_to_xpath(selector)
    except SelectorError as exc:
        raise ValueError(str(exc)) from exc


def _first_line(exc: Exception) -> str:
    return one_line(str(exc).partition("\n")[0])[:120] or "it cannot be parsed"


class HtmlReader:
    """Reads pages as one source's settings say."""

    def __init__(self, options: PageOptions, say: Callable[[str], None]) -> None:
        """Compile every selector. Raises ScrapeFailed, naming the one that cannot be."""
        self._item = Pick("item", options.item, is_field=False)
        self._next = Pick("next", options.next, is_field=False) if options.next else None
        self._picks = {name: Pick(name, text) for name, text in options.fields.items()}
        self._builder = Builder(options, say)

    def read(self, answer: Answer) -> Leaf:
        """Find the items of a page. Raises ScrapeFailed for a selector that finds no elements where it should."""
        root = _parse(answer)
        if root is None:
            return Leaf(items=[])
        base = next(
            (found for one in root.iter("base") if (found := link(one.get("href", ""), answer.url))), answer.url
        )
        elements = self._item.all(root)
        if any(isinstance(one, str) for one in elements):
            raise ScrapeFailed("item finds texts or attributes, not elements")
        return Leaf(
            items=[self._builder.item(self._found(one), n, base) for n, one in enumerate(elements, 1) if _is(one)],
            title=one_line(next((one.text or "" for one in root.iter("title")), "")),
            older=next((found for text in self._addresses(self._next, root) if (found := link(text, base))), ""),
        )

    def _found(self, item: str | etree._Element) -> Found:
        assert not isinstance(item, str)
        picks = self._picks
        found = Found(
            title=_text(picks.get("title"), item),
            link=next(self._addresses(picks.get("link"), item), ""),
            date=_time(picks.get("date"), item),
            author=_text(picks.get("author"), item),
            id=_text(picks.get("id"), item),
            media=tuple(self._addresses(picks.get("media"), item)),
        )
        content = next(iter(picks["content"].all(item)), "") if "content" in picks else ""
        if isinstance(content, str):
            return replace(found, content=content)
        return replace(found, content=_inner(content), is_html=True)

    def _addresses(self, pick: Pick | None, element: etree._Element) -> Iterator[str]:
        for one in pick.all(element) if pick else ():
            if isinstance(one, str):
                yield one
            else:
                yield next((found for name in _ADDRESSES if (found := one.get(name))), one.text or "")


def _is(found: str | etree._Element) -> bool:
    return not isinstance(found, str)


def _parse(answer: Answer) -> etree._Element | None:
    declared = _CHARSET.search(answer.body, 0, 4096)
    text = decode(answer.body, answer.charset or (declared[1].decode() if declared else None))
    parser = etree.HTMLParser(
        encoding="utf-8", no_network=True, huge_tree=True, collect_ids=False, remove_comments=True
    )
    try:
        return etree.fromstring(text.replace("\0", "").encode("utf-8", "replace"), parser)
    except etree.XMLSyntaxError:
        return None


def _text(pick: Pick | None, item: etree._Element) -> str:
    """The first match that says anything, as a person would read it."""
    for one in pick.all(item) if pick else ():
        found = one if isinstance(one, str) else plain(_inner(one))
        if found.strip():
            return found
    return ""


def _time(pick: Pick | None, item: etree._Element) -> str:
    """The first match; an element that says it for machines is believed before what it says for people."""
    for one in pick.all(item) if pick else ():
        found = one if isinstance(one, str) else one.get("datetime") or plain(_inner(one))
        if found.strip():
            return found
    return ""


def _inner(element: etree._Element) -> str:
    """What stands between an element's tags."""
    children = (str(etree.tostring(child, encoding="unicode", method="html")) for child in element)
    return escape(element.text or "", quote=False) + "".join(children)
