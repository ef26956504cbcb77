"""JSON that may be anything: a getter for each type gives that type, and nothing in place of what is none.

No getter raises, whatever stands where. Light: what reads markup (`texts`) is imported when a post is made of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from errors import ScrapeFailed
from model import Post, Profile
from sources.dates import moment

#: A JSON object. Any: its values are whatever the server sent.
Record = dict[str, Any]
#: Longest identity and author's name (characters), and most media of one post (count).
MAX_ID_CHARS = 1000
MAX_AUTHOR_CHARS = 500
MAX_MEDIA = 50
#: How often a long reading says that it goes on (items).
PROGRESS_ITEMS = 100
#: Instants before this one (1900) and after that (2200) are a programmer's zero or infinity (seconds since 1970).
_TIMES = (-2_208_988_800, 7_258_118_400)


def at(found: object, *path: str) -> object:
    """What lies at a path of keys; None where there is nothing, or no object on the way."""
    for key in path:
        if not isinstance(found, dict):
            return None
        found = found.get(key)
    return found


def record(found: object, *path: str) -> Record:
    """The object there; an empty one for anything else."""
    value = at(found, *path)
    return value if isinstance(value, dict) else {}


def several(found: object, *path: str) -> list[object]:
    """The elements of the list there; one object or text alone counts as a list of it."""
    value = at(found, *path)
    if isinstance(value, list):
        return value
    return [value] if isinstance(value, (dict, str)) else []


def text(found: object, *path: str) -> str:
    """The string there; an empty one for anything else."""
    value = at(found, *path)
    return value if isinstance(value, str) else ""


def number(found: object, *path: str) -> int | None:
    """The whole number there, if it is one that a service would count with."""
    value = at(found, *path)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return int(value) if value == int(value) and abs(value) < 2**63 else None


def is_true(found: object, *path: str) -> bool:
    """Whether `true` stands there, and nothing that merely counts as it."""
    return at(found, *path) is True


def identity(found: object, *path: str) -> str:
    """The id there, a string or a whole number, as a string without whitespace; empty for anything else."""
    counted = number(found, *path)
    value = str(counted) if counted is not None else text(found, *path).strip()
    fits = len(value) <= MAX_ID_CHARS and value.isprintable() and not any(c.isspace() for c in value)
    return value if fits else ""


def time(found: object, *path: str) -> datetime | None:
    """The instant there, in aware UTC: a text that names one, or seconds since 1970."""
    seconds = number(found, *path)
    if seconds is None:
        return moment(text(found, *path))
    is_one = _TIMES[0] < seconds < _TIMES[1] and seconds != 0
    return datetime.fromtimestamp(seconds, UTC) if is_one else None


def listed(found: object, *path: str) -> list[object]:
    """The list there. Raises ScrapeFailed where there is none: the answer has another shape than it should."""
    value = at(found, *path)
    if not isinstance(value, list):
        raise ScrapeFailed("the answer is JSON, but not of the shape that was asked for")
    return value


def make_post(
    native_id: str,
    url: str,
    *,
    title: str = "",
    markup: str = "",
    plain_text: str = "",
    author: str = "",
    published_at: datetime | None = None,
    kind: str = "post",
    media: Iterable[str] = (),
) -> Post | None:
    """Make a post of what a record says, cleaned the way a feed's is; None without an id.

    Args:
        native_id: As `identity` gives it.
        url: Absolute; what is no http(s) address is left out, as it is from `media`.
        title: Plain text.
        markup: HTML; the text is what a person reads in it.
        plain_text: The text where there is no markup.
    """
    from sources.texts import clean, lines, link, one_line, plain

    if not native_id:
        return None
    return Post(
        native_id=native_id,
        url=link(url, ""),
        title=one_line(title),
        text=plain(markup) if markup else lines(plain_text),
        html=clean(markup),
        author=one_line(author)[:MAX_AUTHOR_CHARS],
        published_at=published_at,
        kind=kind,
        media=tuple(dict.fromkeys(found for one in media if (found := link(one, ""))))[:MAX_MEDIA],
    )


def named(name: str) -> Profile:
    """Who the account is, by what it calls itself."""
    from sources.texts import one_line

    return Profile(display_name=one_line(name)[:MAX_AUTHOR_CHARS])


def read_posts(
    found: Iterable[object], read: Callable[[Record], Post | None], on_progress: Callable[[str], None]
) -> tuple[list[Post], int]:
    """Read each record by itself; gives the posts in their order, and how many records could not be read."""
    posts: list[Post] = []
    unread = 0
    for count, one in enumerate(found, 1):
        post = read(one) if isinstance(one, dict) else None
        if post is None:
            unread += 1
        else:
            posts.append(post)
        if count % PROGRESS_ITEMS == 0:
            on_progress(f"read {count} items")
    return posts, unread
