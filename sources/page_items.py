"""What a page says of an item, as texts, and what becomes of them. The same for HTML and JSON."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from sources.dates import is_plausible, moment
from sources.items import Item
from sources.page_options import PageOptions
from sources.texts import is_markup, lines, link, one_line, plain

#: Milliseconds since 1970 begin where seconds would be after the year 5000.
_MILLISECONDS = 1e11


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What was found in an item; empty where nothing was."""

    title: str = ""
    link: str = ""
    date: str = ""
    author: str = ""
    #: Markup or plain text, as it was found.
    content: str = ""
    #: The content is markup whatever it looks like.
    is_html: bool = False
    id: str = ""
    media: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """One page, read."""

    #: In the order of the page; None for one that could not be read.
    items: list[Item | None]
    #: What the page calls itself.
    title: str = ""
    #: Absolute address of the next page, or empty.
    older: str = ""


class Builder:
    """Makes items of what was found, and says why one was left out or has no time."""

    def __init__(self, options: PageOptions, say: Callable[[str], None]) -> None:
        self._options, self._say = options, say
        self._zone = ZoneInfo(options.timezone)

    def item(self, found: Found, number: int, base: str) -> Item | None:
        """The item, or None where nothing that makes one was found.

        Args:
            found: The texts.
            number: Which item of the page it is, from 1; for messages.
            base: What relative addresses are relative to.
        """
        title, native_id = one_line(found.title), one_line(found.id)
        address = link(found.link, base)
        is_html = found.is_html or is_markup(found.content)
        text = plain(found.content) if is_html else lines(found.content)
        media = tuple(each for one in found.media if (each := link(one, base)))
        if not (title or native_id or address or text or media):
            names = [name for name in ("title", "link", "content", "id", "media") if name in self._options.fields]
            self._say(f"item {number} was left out: it has no {', no '.join(names)}")
            return None
        at = self._time(found.date)
        if found.date.strip() and at is None:
            self._say(f"item {number} has a date that cannot be read")
        return Item(
            guid=native_id,
            link=address,
            title=title,
            html=found.content if is_html else "",
            text=text,
            author=one_line(found.author),
            published_at=at,
            media=media,
        )

    def _time(self, text: str) -> datetime | None:
        text = " ".join(text.split())
        if self._options.date_format:
            return _by_format(text, self._options.date_format, self._zone)
        return unix_time(text) or moment(text, zone=self._zone)


def _by_format(text: str, date_format: str, zone: ZoneInfo) -> datetime | None:
    try:
        at = datetime.strptime(text, date_format)
        at = (at if at.tzinfo else at.replace(tzinfo=zone)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return at if is_plausible(at) else None


def unix_time(text: str) -> datetime | None:
    """The instant that so many seconds, or milliseconds, since 1970 are; a short number is no such."""
    try:
        seconds = float(text) if len(text) >= 9 and text.isascii() and text[:1].isdigit() else 0.0
        at = datetime.fromtimestamp(seconds / 1000 if seconds >= _MILLISECONDS else seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return at if is_plausible(at) else None
