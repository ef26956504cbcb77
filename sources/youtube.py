"""YouTube: a channel or a playlist, from its Atom feed, which has the last fifteen videos.

A channel that is named by a handle is looked up once, in its page; who it is is remembered. The feed is asked at most
once an hour. Source: developers.google.com/youtube (push notifications, which name the feed).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, parse_qs, quote

from errors import ScrapeFailed, Unusable
from model import Post, Profile, Remember, Target, Window
from sources.source import Account, Source, is_at, is_at_base, segments

if TYPE_CHECKING:
    from sources.http import Http

#: Least time between two polls (seconds).
_HOUR_S = 3600.0
_CHANNEL = re.compile(r"UC[A-Za-z0-9_\-]{22}", re.ASCII)
_PLAYLIST = re.compile(r"(?:playlist/|list=)?((?:PL|UU|FL|OL)[A-Za-z0-9_\-]{10,60})", re.ASCII)
#: A handle; letters of any script, since YouTube has those.
_HANDLE = re.compile(r"@[\w·](?:[\w.\-·]{0,98}[\w·])?")
_NAMED = re.compile(r"(c|user)/([\w.\-]{1,100})")
#: Parts of a channel's page that are the same channel.
_TABS = frozenset(
    "about channels community featured live playlists podcasts posts releases shorts store streams videos".split()
)
_LINK = re.compile(r"<(?:link|meta)\s[^<>]{1,1000}>", re.IGNORECASE)
_SAYS_ID = re.compile(r'(?:/channel/|channel_id=|content=")(UC[A-Za-z0-9_\-]{22})(?=["\'?&/])', re.ASCII)
_OWN_ID = re.compile(r'rel="?(?:canonical|alternate)|itemprop="?(?:identifier|channelId)', re.IGNORECASE)


def _account(handle: str, base: str) -> Account:
    if _CHANNEL.fullmatch(handle):
        return Account(handle=handle, url=f"{base}/feeds/videos.xml?channel_id={handle}")
    playlist = _PLAYLIST.fullmatch(handle)
    if playlist is not None:
        return Account(handle=f"playlist/{playlist[1]}", url=f"{base}/feeds/videos.xml?playlist_id={playlist[1]}")
    name = unicodedata.normalize("NFKC", handle).lower()
    if _HANDLE.fullmatch(name) or _NAMED.fullmatch(name):
        return Account(handle=name, url=f"{base}/{_path(name)}")
    hint = "Such as youtube:@veritasium, or the id of a channel (UC and 22 characters) or of a playlist (PL...)."
    raise Unusable(f"{handle[:80]!r} is not a YouTube channel or playlist", hint=hint)


def _recognise(parts: SplitResult, base: str) -> Account | None:
    if not (is_at(parts, "youtube.com") or is_at_base(parts, base)):
        return None
    pieces = segments(parts)
    if pieces == ["playlist"]:
        handle = f"list={parse_qs(parts.query).get('list', [''])[0]}"
    else:
        if len(pieces) > 1 and pieces[-1] in _TABS and (pieces[0][:1] == "@" or len(pieces) == 3):
            pieces.pop()
        handle = "/".join(pieces[1:] if pieces[:1] == ["channel"] else pieces)
        is_one = _CHANNEL if pieces[:1] == ["channel"] else _NAMED if len(pieces) == 2 else _HANDLE
        if not is_one.fullmatch(unicodedata.normalize("NFKC", handle)):
            return None
    try:
        return _account(handle, base)
    except Unusable:
        return None


def _path(handle: str) -> str:
    return quote(handle, safe="@/")


SOURCE = Source(
    name="youtube",
    description="Videos of a YouTube channel or playlist.",
    examples=("youtube:@veritasium", "https://www.youtube.com/@veritasium", "youtube:UCHnyfMqiRRG1u-2MsSQLbXA"),
    base="https://www.youtube.com",
    account=_account,
    recognise=_recognise,
)


def scrape(target: Target, http: Http) -> Iterator[Post | Profile | Remember | Window]:
    """Find out which channel it is, where only a handle says so, and follow its feed.

    Raises:
        ScrapeFailed: There is no such channel, or its page does not say which one it is.
    """
    from sources.feeds import follow_account

    absent = f"YouTube has no channel or playlist {target.handle}"
    address, own = target.url, {}
    if "/feeds/videos.xml?" not in address:
        channel = target.remember.get("channel", "")
        if not _CHANNEL.fullmatch(channel):
            channel = _channel(target, http, absent)
        own = {"channel": channel}
        address = f"{_base(target)}/feeds/videos.xml?channel_id={channel}"
    for found in follow_account(target, http, absent=absent, address=address, is_api=True):
        yield Remember(values={**found.values, **own}) if isinstance(found, Remember) else found
    http.fresh_for(_HOUR_S)


def _base(target: Target) -> str:
    """What stands before the path of the channel; where that is another by now, the host alone."""
    base = target.url.removesuffix(f"/{_path(target.handle)}")
    return base if base != target.url else "/".join(base.split("/")[:3])


def _channel(target: Target, http: Http, absent: str) -> str:
    """The id of the channel that a page belongs to; other channels are linked from it too."""
    from sources.http import BadStatus
    from sources.paging import NoAccount

    try:
        page = http.get(target.url, headers={"Accept": "text/html, */*;q=0.5"}).text
    except BadStatus as exc:
        if exc.status == 404:
            raise NoAccount(absent, status=404) from exc
        raise
    for tag in _LINK.finditer(page):
        found = _SAYS_ID.search(tag[0]) if _OWN_ID.search(tag[0]) else None
        if found is not None:
            return found[1]
    raise ScrapeFailed("the channel's page does not say which channel it is; give the channel's id (UC...) instead")
