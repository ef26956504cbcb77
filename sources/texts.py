"""Text as it may be stored: cleaned of what breaks JSON or a database, freed of markup, made into addresses.

Everything here takes any string a server can send and never raises on it.
"""

from __future__ import annotations

import html
import re
from urllib.parse import quote, urljoin, urlsplit

from lxml import etree

#: Longest address kept (characters); a longer one is no address.
MAX_URL_CHARS = 2000
#: Stands for a line break while the text of a page is put together.
_BREAK = "\u2028"
_UNFIT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
#: C1 controls are what Windows-1252 became in careless hands.
_REPLACED = {code: bytes([code]).decode("cp1252", "ignore") for code in range(0x7F, 0xA0)}
_REPLACED |= {code: "" for code in (*range(0x09), 0x0B, *range(0x0E, 0x20), 0x7F, 0xFFFE, 0xFFFF)}
_REPLACED |= {0x0C: " ", 0x0D: "\n"} | {code: "\ufffd" for code in range(0xD800, 0xE000)}
#: Nested deeper than this, elements are dropped by the parser, with all that is in them.
_MAX_DEPTH = 2048
_TAG = re.compile(r"<[A-Za-z/!]")
_ANY_TAG = re.compile(r"<[^<>]*>")
#: A closing tag or a line break of the sort that people put into titles.
_MARKED_UP = re.compile(
    r"</(?:a|abbr|b|big|cite|code|del|em|font|h[1-6]|i|ins|p|q|s|small|span|strong|sub|sup|u)>|<br ?/?>"
)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#x[0-9a-f]{1,6}|[a-z][a-z0-9]{1,31});", re.IGNORECASE)
_BLOCKS = (
    *("address", "article", "aside", "blockquote", "br", "dd", "details", "div", "dl", "dt", "fieldset", "figcaption"),
    *("figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li", "main", "nav", "ol", "p"),
    *("pre", "section", "summary", "table", "tr", "ul"),
)
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")
#: An absolute address of the plainest kind.
_ADDRESS = re.compile(r"https?://[a-z0-9][a-z0-9.\-]*(?::\d+)?(?:/[A-Za-z0-9_~%\-./]*(?:\?[A-Za-z0-9_~%\-./=&+]+)?)?")
_UNREAD = ("head", "script", "style", "template")
_HTML = etree.HTMLParser(
    encoding="utf-8", remove_comments=True, remove_pis=True, no_network=True, huge_tree=True, collect_ids=False
)


def clean(text: str) -> str:
    """Take out control characters and lone surrogates; line ends become a newline."""
    if _UNFIT.search(text) is None:
        return text
    return text.replace("\r\n", "\n").translate(_REPLACED)


def one_line(text: str) -> str:
    """Clean text with every run of whitespace made one space."""
    return " ".join(clean(text).split())


def lines(text: str) -> str:
    """Clean text, line by line: whitespace runs become one space, empty lines go."""
    kept = (" ".join(line.split()) for line in clean(text).replace(_BREAK, "\n").split("\n"))
    return "\n".join(line for line in kept if line)


def is_markup(text: str) -> bool:
    """Whether what may be plain text was written as HTML: known entities, or tags that are closed."""
    return _ENTITY.search(text) is not None or _MARKED_UP.search(text.lower()) is not None


def plain(markup: str) -> str:
    """Read HTML as a person would: no tags, entities decoded, a line per block.

    Text without a single tag keeps its line breaks. Scripts and styles are left out, images leave nothing.
    """
    if _TAG.search(markup) is None:
        return lines(html.unescape(markup))
    markup = clean(markup)
    try:
        root = etree.fromstring(markup.encode(), _HTML)
    except etree.XMLSyntaxError:
        root = None
    text = "" if root is None else _read(root)
    if not text and markup.count("<") > _MAX_DEPTH:
        return lines(html.unescape(_ANY_TAG.sub(" ", markup)))
    return text


def _read(root: etree._Element) -> str:
    etree.strip_elements(root, *_UNREAD, with_tail=False)
    for element in root.iter("pre", "textarea"):
        _keep_line_breaks(element)
    for element in root.iter(*_BLOCKS):
        element.text = _BREAK + (element.text or "")
        element.tail = _BREAK + (element.tail or "")
    for element in root.iter("td", "th"):
        element.tail = " " + (element.tail or "")
    return lines("".join(root.itertext()).replace("\n", " "))


def _keep_line_breaks(pre: etree._Element) -> None:
    for element in pre.iter():
        if element.text:
            element.text = element.text.replace("\n", _BREAK)
        if element.tail and element is not pre:
            element.tail = element.tail.replace("\n", _BREAK)


def link(href: str, base: str) -> str:
    """Make an http(s) address of what a document says, relative to `base`; empty if there is none.

    What may not stand in an address is escaped; nothing else is rewritten.
    """
    if _ADDRESS.fullmatch(href) and len(href) <= MAX_URL_CHARS:  # most are: nothing below would change it
        return href
    href = _CONTROLS.sub("", href).strip()
    if not href:
        return ""
    try:
        url = urljoin(base, clean(href))
        parts = urlsplit(url)
        is_web = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        return ""
    url = parts.scheme + quote(url[len(parts.scheme) :], safe=":/?#[]@!$&'()*+,;=%-._~|^`{}")
    return url if is_web and len(url) <= MAX_URL_CHARS else ""
