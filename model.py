"""The values that cross rooms. No behaviour, no I/O; everything here can be written as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

#: Longest wait that a host is granted (seconds).
MAX_WAIT_S = 7 * 86400.0
#: Longest time that an answer is taken as still right (seconds).
MAX_FRESH_S = 86400.0
#: How much is kept of the rules of a robots.txt (characters, ASCII): RFC 9309 wants at least 500 KiB to be read.
MAX_ROBOTS_CHARS = 500 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a source is asked to scrape."""

    #: Row id; never reused. Negative: of a preview, which has no row.
    id: int
    #: Name of the adapter.
    source: str
    #: Normalised account name, or the normalised URL of a feed.
    handle: str
    #: Address to fetch, where there is one.
    url: str
    #: Most posts wanted by whoever asked (count); None: the source's own window.
    range: int | None = None
    #: What the source handed back last time (validators, cursors).
    remember: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """One item found by a source."""

    #: The source's own identity of the item; unique within a target.
    native_id: str
    #: Where a person can read it.
    url: str = ""
    title: str = ""
    #: Plain text.
    text: str = ""
    #: Markup as it was found; not sanitised.
    html: str = ""
    author: str = ""
    #: Aware UTC, or None where the source does not say.
    published_at: datetime | None = None
    kind: str = "post"
    #: Addresses of attached media.
    media: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Who the target is."""

    display_name: str = ""
    #: The address the target is to be scraped at from now on (a feed found on a page).
    url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remember:
    """What to hand back to the source next time; stored only when the posts are."""

    values: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What a source says when its posts of this run are all there are, from the newest back to the oldest of them.

    A known post that is newer than that oldest one, and not among them, has vanished.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchLimits:
    """What a worker's HTTP session is bound by."""

    connect_timeout_s: float = 10.0
    read_timeout_s: float = 30.0
    #: Per response, after decompression (bytes).
    body_limit_bytes: int = 10 * 1024 * 1024
    max_redirects: int = 10
    max_posts: int = 5000
    allow_private_networks: bool = False
    #: Networks that may be connected to though they are private, such as `10.0.0.0/8`.
    allowed_networks: tuple[str, ...] = ()
    user_agent: str = "gleand"
    respect_robots: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What the pool sends to a worker: one run of one target."""

    run_id: int
    token: int
    target: Target
    #: From the hand-over to the deadline (seconds).
    timeout_s: float
    #: Longest time without progress (seconds).
    stall_timeout_s: float
    limits: FetchLimits
    #: `module:function` of a user's own scraper, and the directory it is found in.
    scraper: str | None = None
    scraper_path: str | None = None
    #: What the settings say of the source: a page's selectors, a program and its arguments. JSON values.
    options: Mapping[str, Any] = field(default_factory=dict)  # Any: the shape is the source's own
    #: What is known of the robots.txt of the target's host: status, text, age_s.
    robots: Mapping[str, Any] | None = None  # Any: JSON values
    #: For how long what is remembered is known to be right (seconds).
    fresh_s: float = 0.0
    #: It may ask its target's host once without asking the daemon for a turn.
    has_turn: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a run ended, as the worker told it."""

    ok: bool
    #: One sentence for a person; None when ok.
    error: str | None = None
    #: The sentence is our own, without a word of a site's or of somebody else's scraper.
    error_is_ours: bool = False
    posts: tuple[Post, ...] = ()
    remember: Mapping[str, str] | None = None
    profile: Profile | None = None
    #: More was found than `max_posts_per_run`.
    truncated: bool = False
    #: Posts whose text was too long, and is cut (count).
    cut: int = 0
    #: The source said that its posts are a Window.
    contiguous: bool = False
    #: How long to wait at least before the next run (seconds).
    retry_after_s: float | None = None
    #: That is what the target's host wants, and only the scraper heard it.
    untold: bool = False
    #: There was no turn for the run at a host it was led to: no fault of its target's.
    no_turn: bool = False
    #: There will be nothing new for this long (seconds).
    fresh_s: float = 0.0
    #: Whether any server answered, and whether the run failed because none did.
    reached: bool = False
    unreachable: bool = False
    #: Status that the run failed with, where a server gave one.
    status: int | None = None
    #: Where the target's address leads by permanent redirects alone; empty when it does not.
    moved_to: str = ""


def json_ready(value: Any) -> Any:  # Any: the shape of JSON has no closed type
    """Turn a value made of model classes into plain JSON types."""
    from dataclasses import fields, is_dataclass

    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: json_ready(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(k): json_ready(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_ready(v) for v in value]
    return value
