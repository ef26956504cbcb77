"""Accounts that name the host they live at, and addresses that are no profile. Light: for the daemon."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

from errors import Unusable
from sources.source import is_at_base
from sources.urls import normalise_url

#: What an address ends with that is a feed, not a profile.
_FEEDS = (".rss", ".atom", ".xml", ".json", ".rdf", "/feed", "/rss", "/atom")


def is_feed(parts: SplitResult) -> bool:
    """Whether an address looks like that of a feed: it is left to the feed source."""
    return parts.path.rstrip("/").lower().endswith(_FEEDS)


def is_at_other_base(parts: SplitResult, base: str, usual: str) -> bool:
    """Whether an address is at a base that stands in the place of the usual one, where no people's pages are."""
    return base != usual and is_at_base(parts, base)


def host_in(text: str) -> str:
    """The one spelling of `host` or `host:port`. Raises Unusable."""
    if any(c in text for c in "/?#@"):
        raise Unusable(f"{text[:80]!r} is not the name of a host")
    return urlsplit(normalise_url(f"https://{text}/")).netloc


def at_host(base: str, host: str, scheme: str = "https") -> str:
    """The base of a host's addresses; an account that was named by a plain http address keeps to it."""
    if "{host}" not in base:
        return base
    url = base.replace("{host}", host)
    return f"http://{url.partition('://')[2]}" if scheme == "http" else url
