"""GitLab: the public activity of a user or group, from its Atom feed. The events API would need a token.

Source: docs.gitlab.com (user profile: "Access the activity feed", reserved names).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import SplitResult

from model import Post, Profile, Remember, Target, Window
from sources.places import is_feed
from sources.source import Account, Source, is_at, is_at_base, matched, segments

if TYPE_CHECKING:
    from sources.http import Http

_NAME = re.compile(
    r"(?!.*\.(?:git|atom)$)[A-Za-z0-9_](?:[A-Za-z0-9_.\-]{0,253}[A-Za-z0-9_\-])?", re.ASCII | re.IGNORECASE
)
#: First pieces of paths that are the site's own.
_PAGES = frozenset(
    """- .well-known abuse_reports admin api assets autocomplete ci dashboard explore files groups health_check help
    import invites jobs jwt login logout notification_settings oauth pricing profile projects public robots.txt s
    search sent_notifications sitemap snippets u unsubscribes uploads users v2 verify""".split()
)


def _account(handle: str, base: str) -> Account:
    name = matched(handle.removeprefix("@"), _NAME, what="a GitLab user or group", example="gitlab:torvalds")[0].lower()
    return Account(handle=name, url=f"{base}/{name}.atom")


def _recognise(parts: SplitResult, base: str) -> Account | None:
    if not (is_at(parts, "gitlab.com") or is_at_base(parts, base)) or is_feed(parts):
        return None
    pieces = segments(parts)
    if len(pieces) != 1 or not _NAME.fullmatch(pieces[0]) or pieces[0].lower() in _PAGES:
        return None
    return _account(pieces[0], base)


SOURCE = Source(
    name="gitlab",
    description="What a GitLab user or group does in public.",
    examples=("gitlab:torvalds", "https://gitlab.com/torvalds"),
    base="https://gitlab.com",
    account=_account,
    recognise=_recognise,
)


def scrape(target: Target, http: Http) -> Iterator[Post | Profile | Remember | Window]:
    """Follow the activity feed; see feeds.follow."""
    from sources.feeds import follow_account

    yield from follow_account(target, http, absent=f"GitLab has no account {target.handle}, or it is private")
