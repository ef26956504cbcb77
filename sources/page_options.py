"""What the settings say of a page without a feed: `[pages.NAME]`. Light: the daemon checks it, a worker reads it.

Whether a selector can be parsed is found out in a worker, where the parsers are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from errors import Unusable
from sources.urls import is_http, normalise_url

#: What an item is read for.
FIELDS = ("title", "link", "date", "author", "content", "id", "media")
FORMATS = ("html", "json")
_TEXTS = ("url", "item", "next", "date_format", "timezone", *FIELDS)
_KEYS = ("kind", "format", *_TEXTS)
#: An item of which none of these is found is none.
_NEEDED = ("title", "link", "content", "id", "media")
_MAX_CHARS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class PageOptions:
    """One source of this kind, as it was set."""

    #: Address, with `{handle}` in it where there are several accounts.
    url: str
    #: What finds the items: CSS or XPath, or a JSONPath.
    item: str
    is_json: bool = False
    #: By field, what finds it in an item.
    fields: Mapping[str, str] = field(default_factory=dict)
    #: What finds the address of the next page; empty where there is one page only.
    next: str = ""
    #: As strptime takes it; empty: whatever names a day.
    date_format: str = ""
    #: Of times that do not say how far from UTC they are.
    timezone: str = "UTC"


def check_page(table: Mapping[str, Any]) -> list[str]:  # Any: TOML values
    """What is wrong with a table, a sentence each; nothing where it can work."""
    return list(_problems(table))


def read_page(table: Mapping[str, Any]) -> PageOptions:  # Any: JSON values
    """Take a table that was checked. Raises Unusable for one that was not and cannot work."""
    problems = check_page(table)
    if problems:
        raise Unusable(f"the settings of this page {problems[0]}")
    return PageOptions(
        url=table["url"],
        item=table["item"],
        is_json=table.get("format") == "json",
        fields={name: table[name] for name in FIELDS if name in table},
        next=table.get("next", ""),
        date_format=table.get("date_format", ""),
        timezone=table.get("timezone", "UTC"),
    )


def _problems(table: Mapping[str, Any]) -> Iterator[str]:  # Any: TOML values
    for key in table:
        if key not in _KEYS:
            yield f"has {str(key)[:40]!r}, which is none of {', '.join(_KEYS[1:])}"
    texts = {key: table[key] for key in _TEXTS if key in table}
    for key, value in texts.items():
        if not isinstance(value, str) or not value.strip() or len(value) > _MAX_CHARS:
            yield f"should give {key} as a text of at most {_MAX_CHARS} characters"
    if table.get("format", "html") not in FORMATS:
        yield f"should give format as one of {', '.join(FORMATS)}"
    for key in ("url", "item"):
        if key not in table:
            yield f"should give {key}"
    if not any(key in table for key in _NEEDED):
        yield f"should give at least one of {', '.join(_NEEDED)}"
    yield from _bad_url(table.get("url"))
    yield from _bad_time(table.get("date_format"), table.get("timezone"))


def _bad_url(url: object) -> Iterator[str]:
    if not isinstance(url, str) or not url.strip():
        return
    if not is_http(url):
        yield "should give url as an http:// or https:// address"
        return
    bare = url.replace("{handle}", "x")
    if bare.count("{") or bare.count("}") or url.count("{handle}") > 1:
        yield "should have {handle} once in url, or not at all, and no other braces"
        return
    try:
        normalise_url(bare)
    except Unusable as exc:
        yield f"has a url that cannot be fetched: {exc.message}"


def _bad_time(date_format: object, timezone: object) -> Iterator[str]:
    if isinstance(date_format, str) and not re.search(r"%[dejUWVuwxcs]", date_format):
        yield "should have a date_format that names a day, such as %d.%m.%Y"
    if not isinstance(timezone, str) or not timezone.strip():
        return
    try:
        ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        yield f"has the timezone {timezone[:40]!r}, which is none such as Europe/Berlin"
