"""Bytes to text, with what was declared as one witness among several: servers and documents are wrong about it."""

from __future__ import annotations

import codecs
import re

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    (b"<\0", "utf-16-le"),
    (b"\0<", "utf-16-be"),
)
_DECLARED = re.compile(rb"""<\?xml[^>]{0,200}?encoding\s{0,9}=\s{0,9}["']([A-Za-z0-9._:\-]{1,40})["']""")
#: Codecs of real texts; others that the library has are slow on purpose-made input, or decode no charset at all.
_REAL = re.compile(r"ascii|big5|cp\d|euc|gb|hz|iso|johab|koi8|kz|mac|ptcp|shift|tis|utf-8|utf-16|utf-32")
_MULTIBYTE = re.compile(r"big5|cp932|cp949|cp950|euc|gb|hz|iso2022|johab|shift|utf-16|utf-32")


def codec(name: str | None) -> str | None:
    """The library's name of a charset, None for one that is not known; Latin-1 and ASCII are read as Windows-1252."""
    try:
        found = codecs.lookup(name or "").name
    except (LookupError, ValueError):
        return None
    if found in ("iso8859-1", "ascii"):
        return "cp1252"
    return found if _REAL.match(found) else None


def decode(body: bytes, charset: str | None) -> str:
    """Decode a document; U+FFFD stands for what cannot be decoded.

    A byte order mark decides. Bytes that are UTF-8 are UTF-8, unless nothing is declared but another multi-byte charset
    that fits. Then the header, then the XML declaration; Latin-1 comes last, being what servers say unasked.

    Args:
        body: All of it.
        charset: What the header says, if anything.
    """
    for mark, name in _MARKS:
        if body.startswith(mark):
            return body.decode(name, "replace").removeprefix("\ufeff")
    match = _DECLARED.search(body, 0, 1024)
    names = [found for name in (charset, match[1].decode() if match else None) if (found := codec(name))]
    if b"\0" not in body[:1000]:
        names = [name for name in names if not name.startswith(("utf-16", "utf-32"))]
    names.sort(key=lambda name: name == "cp1252")
    fitting = [text for name in names if (text := _strict(body, name)) is not None]
    if fitting and all(_MULTIBYTE.match(name) for name in names):
        return fitting[0]
    text = _strict(body, "utf-8")
    if text is not None:
        return text
    return fitting[0] if fitting else _damaged(body)


def _strict(body: bytes, name: str) -> str | None:
    try:
        return body.decode(name)
    except ValueError:
        return None


def _damaged(body: bytes) -> str:
    """A few bad bytes in UTF-8, such as a character that was cut, are no other charset."""
    text = body.decode("utf-8", "replace")
    bad, good = text.rstrip("\ufffd").count("\ufffd"), len(re.findall("[^\x00-\x7f\ufffd]", text))
    return text if bad * 2 <= good else body.decode("cp1252", "replace")
