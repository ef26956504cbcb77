"""Reads items out of JSON by JSONPath (RFC 9535): `item` from the root, each field from its item.

The `$` may be left out: `title` is `$.title`. Where a path finds a list, its elements are meant.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from errors import ScrapeFailed
from sources.http import Answer
from sources.page_items import Builder, Found, Leaf
from sources.page_options import PageOptions
from sources.texts import link

#: Where an address stands in an object that describes a picture.
_ADDRESSES = ("url", "href", "src", "link")
#: Most values of one field in one item that are looked at (count).
_MAX_VALUES = 100
#: A larger number was never meant as one.
_MAX_NUMBER, _NUMBER_CHARS = 10**18, 40


class Path:
    """One JSONPath, ready to be used."""

    def __init__(self, name: str, text: str) -> None:
        """Compile. Raises ScrapeFailed, naming the setting."""
        import jsonpath

        try:
            self._path = jsonpath.compile(text)
        except jsonpath.JSONPathError as exc:
            raise ScrapeFailed(f"{name} is {text[:80]!r}, which is no JSONPath: {_first_line(exc)}") from exc
        self._error = jsonpath.JSONPathError
        self._name, self._text = name, text

    def all(self, value: Any) -> list[Any]:  # Any: JSON values
        """What it finds, lists taken apart. Raises ScrapeFailed where it cannot be evaluated."""
        try:
            found = self._path.findall(value)
        except (self._error, RecursionError) as exc:
            raise ScrapeFailed(f"{self._name} is {self._text[:80]!r}, which cannot be evaluated") from exc
        return [each for one in found for each in (one if isinstance(one, list) else [one])]

    def texts(self, value: Any) -> Iterator[str]:  # Any: JSON values
        """Those of what it finds that are texts or numbers."""
        for one in self.all(value)[:_MAX_VALUES]:
            found = text_of(one)
            if found.strip():
                yield found


def text_of(value: object) -> str:
    """A text or a number as a text; an object gives its address, anything else nothing."""
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if not math.isfinite(value):
            return ""
        return str(int(value)) if value == int(value) and abs(value) < _MAX_NUMBER else str(value)[:_NUMBER_CHARS]
    if isinstance(value, dict):
        return next((found for name in _ADDRESSES if isinstance(found := value.get(name), str)), "")
    return ""


def _first_line(exc: Exception) -> str:
    return str(exc).partition("\n")[0][:120]


class JsonReader:
    """Reads answers as one source's settings say."""

    def __init__(self, options: PageOptions, say: Callable[[str], None]) -> None:
        """Compile every path. Raises ScrapeFailed, naming the one that cannot be."""
        self._item = Path("item", options.item)
        self._next = Path("next", options.next) if options.next else None
        self._paths = {name: Path(name, text) for name, text in options.fields.items()}
        self._builder = Builder(options, say)

    def read(self, answer: Answer) -> Leaf:
        """Find the items of an answer. Raises ScrapeFailed for one that is no JSON."""
        root = answer.json()
        older = self._next.texts(root) if self._next else iter(())
        return Leaf(
            items=[
                self._builder.item(self._found(one), n, answer.url) for n, one in enumerate(self._item.all(root), 1)
            ],
            older=next((found for text in older if (found := link(text, answer.url))), ""),
        )

    def _found(self, item: Any) -> Found:  # Any: JSON values
        def first(name: str) -> str:
            return next(self._texts(name, item), "")

        return Found(
            title=first("title"),
            link=first("link"),
            date=first("date"),
            author=first("author"),
            content=first("content"),
            id=first("id"),
            media=tuple(self._texts("media", item)),
        )

    def _texts(self, name: str, item: Any) -> Iterator[str]:  # Any: JSON values
        path = self._paths.get(name)
        return path.texts(item) if path and isinstance(item, (dict, list)) else iter(())
