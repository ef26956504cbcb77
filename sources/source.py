"""What an adapter tells of itself, and how it reads what names an account.

Every module of an adapter has one `SOURCE` and a function `scrape(target, http)`. The daemon imports these modules to
know who a target is, so at module level they import the standard library, errors, model and this room's light modules
only (`urls`, `source`, `records`); what reads documents is imported inside `scrape`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import SplitResult, quote, unquote

from errors import Unusable


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Who a target is: two spellings of one account give equal handles."""

    #: Without `source:`; no whitespace and none of `< > " &`.
    handle: str
    #: The address that is fetched first; its host is the one the daemon waits for.
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """An adapter, as the daemon knows it."""

    name: str
    #: One sentence for pickers.
    description: str
    #: What a person may paste; the first is shown.
    examples: tuple[str, ...]
    #: Start of every address that is fetched, without a slash at its end; `source_bases` puts another in its place.
    #: `{host}` stands for the host that the account names.
    base: str = ""
    #: Reads what follows `name:`; takes the text and the base. Raises Unusable.
    account: Callable[[str, str], Account]
    #: Reads the address of a profile; takes its parts and the base. None: it is none of ours.
    recognise: Callable[[SplitResult, str], Account | None]
    #: Reads an address that was said to be of this source, where `recognise` would take others' for its own.
    read_address: Callable[[SplitResult, str], Account | None] | None = None
    #: Why it is off unless `enabled_sources` names it; empty for one that is on.
    off: str = ""


def matched(handle: str, pattern: re.Pattern[str], *, what: str, example: str) -> re.Match[str]:
    """Match a whole handle. Raises Unusable, which says `what` it should be, with an example."""
    found = pattern.fullmatch(handle)
    if found is None:
        raise Unusable(f"{handle[:80]!r} is not {what}", hint=f"Such as {example}.")
    return found


def segments(parts: SplitResult) -> list[str]:
    """The unescaped pieces of a path, without empty ones."""
    return [unquote(piece) for piece in parts.path.split("/") if piece]


def is_at(parts: SplitResult, *hosts: str) -> bool:
    """Whether an address is at one of these hosts, or at `www.` or `m.` of it, on the usual port."""
    name = (parts.hostname or "").removeprefix("www.").removeprefix("m.")
    return name in hosts and parts.port in (None, 80, 443)


def is_at_base(parts: SplitResult, base: str) -> bool:
    """Whether an address begins where the base does: the same host and port."""
    return bool(base) and f"{parts.scheme}://{parts.netloc}".lower() == "/".join(base.split("/")[:3]).lower()


def escaped(text: str) -> str:
    """A handle as one piece of a path or one value of a query."""
    return quote(text, safe="")
