"""Who a target is: what a person typed becomes a source, a handle, an address and a host.

The daemon asks here, and no request is made. Whether the address leads anywhere is found out by the first scrape.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from errors import Unusable
from sources import (
    activitypub,
    arxiv,
    bluesky,
    devto,
    feed,
    gitea,
    github,
    gitlab,
    hackernews,
    lobsters,
    mastodon,
    mediawiki,
    mercurial,
    reddit,
    stackexchange,
    youtube,
)
from sources.source import Account, Source
from sources.urls import check_text, host_of, is_http, normalise_url

#: Name of the source of whatever is at an address.
FEED = "feed"
#: In the order in which they are asked whose an address is: who names its host before who takes any.
_BUILT_IN: tuple[Source, ...] = (
    feed.SOURCE,
    github.SOURCE,
    gitlab.SOURCE,
    youtube.SOURCE,
    lobsters.SOURCE,
    arxiv.SOURCE,
    gitea.SOURCE,
    reddit.SOURCE,
    mercurial.SOURCE,
    bluesky.SOURCE,
    hackernews.SOURCE,
    stackexchange.SOURCE,
    devto.SOURCE,
    mediawiki.SOURCE,
    mastodon.SOURCE,
    activitypub.SOURCE,
)
BUILT_IN: Mapping[str, Source] = {source.name: source for source in _BUILT_IN}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*):")
#: Schemes that are never a handle, whatever the source.
_OTHER_SCHEMES = frozenset({"about", "blob", "data", "file", "ftp", "ftps", "gopher", "javascript", "mailto", "ssh"})
_FEDIVERSE = re.compile(r"@[^@\s/:]+@[^@\s/]+")
_BLUESKY = re.compile(r"@[A-Za-z0-9-]+\.bsky\.social")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What a target is known by; two texts for the same target give equal identities."""

    #: Name of the adapter.
    source: str
    #: Account name, or the normalised URL.
    handle: str
    #: Address to fetch; empty where only the scraper knows.
    url: str
    #: `name:port` of the address, for the gate per host; empty without one.
    host: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """The sources of one daemon: those built in, and those of its settings."""

    #: Source of a bare handle.
    default_source: str = FEED
    #: Address with `{handle}` in it, for handles of the default source.
    handle_url: str | None = None
    #: Sources of the user's own: name to an address with `{handle}` in it, or to nothing.
    own: Mapping[str, str]
    #: Bases that stand in place of a built-in source's own, by name.
    bases: Mapping[str, str]
    #: Sources that are off by themselves, and are to be on.
    enabled: Collection[str]

    def names(self) -> list[dict[str, object]]:
        """The sources there are, for people and pickers."""
        built_in: list[dict[str, object]] = [
            {
                "name": source.name,
                "description": source.description,
                "example": source.examples[0],
                "examples": list(source.examples),
                "enabled": self._is_on(source),
                "why_off": None if self._is_on(source) else source.off,
            }
            for source in BUILT_IN.values()
        ]
        own: list[dict[str, object]] = [
            {
                "name": name,
                "description": "A source of your own.",
                "example": f"{name}:handle",
                "examples": [f"{name}:handle"],
                "enabled": True,
                "why_off": None,
            }
            for name in sorted(self.own)
        ]
        return built_in + own

    def resolve(self, text: str, *, source: str | None = None) -> Identity:
        """Read what names a target: an address, `source:handle`, `@user@host`, or a bare handle.

        Args:
            text: At most MAX_CHARS characters, taken as it is: surrounding whitespace is refused, not stripped.
            source: The source named beside the text; the text is then its handle and no prefix is looked for.

        Raises:
            Unusable: The text cannot be a target; the message says why, the hint what would work.
        """
        check_text(text)
        if source is None:
            if is_http(text):
                return self._recognised(text)
            source, text = self._split_prefix(text)
        if source not in BUILT_IN and source not in self.own:
            raise self._unknown(source)
        if source in self.own:
            return self._of_own(source, text)
        adapter = self._on(BUILT_IN[source])
        if source == FEED:
            return self._feed(text)
        if is_http(text):
            read = adapter.read_address or adapter.recognise
            account = read(urlsplit(normalise_url(text)), self._base(adapter))
            if account is None:
                hint = f"Such as {', '.join(adapter.examples)}."
                raise Unusable(f"the address is not one of {source}'s", hint=hint)
            return _identity(adapter, account)
        if self.handle_url and source == self.default_source:
            return _filled(source, text, self.handle_url, "handle_url")
        _check_handle(text)
        return _identity(adapter, adapter.account(text, self._base(adapter)))

    def _recognised(self, text: str) -> Identity:
        """An address by itself: of the first source that knows it, else a feed's."""
        url = normalise_url(text)
        parts = urlsplit(url)
        for adapter in BUILT_IN.values():
            account = adapter.recognise(parts, self._base(adapter))
            if account is not None:
                return _identity(self._on(adapter), account)
        return Identity(source=FEED, handle=url, url=url, host=host_of(url))

    def _of_own(self, source: str, text: str) -> Identity:
        if is_http(text):
            url = normalise_url(text)
            return Identity(source=source, handle=url, url=url, host=host_of(url))
        template = self.own[source] or (self.handle_url if source == self.default_source else None)
        if template:
            return _filled(source, text, template, "handle_url" if template == self.handle_url else "its address")
        _check_handle(text)
        return Identity(source=source, handle=text, url="", host="")

    def _feed(self, text: str) -> Identity:
        if is_http(text):
            url = normalise_url(text)
            return Identity(source=FEED, handle=url, url=url, host=host_of(url))
        _check_handle(text, is_feed=True)
        if self.handle_url and self.default_source == FEED:
            return _filled(FEED, text, self.handle_url, "handle_url")
        raise Unusable(
            f"{text!r} is not the address of a feed",
            hint="Give the address of a feed, source:handle, or set handle_url.",
        )

    def _split_prefix(self, text: str) -> tuple[str, str]:
        if _FEDIVERSE.fullmatch(text) and "mastodon" in BUILT_IN:
            return "mastodon", text
        if _BLUESKY.fullmatch(text) and "bluesky" in BUILT_IN:
            return "bluesky", text
        prefix, colon, rest = text.partition(":")
        if not colon:
            return self.default_source, text
        if prefix in self.own or prefix in BUILT_IN:
            return prefix, rest
        if "://" in text or prefix.lower() in _OTHER_SCHEMES:
            raise Unusable("only http and https addresses can be scraped")
        raise self._unknown(prefix)

    def _unknown(self, source: str) -> Unusable:
        known = sorted({*BUILT_IN, *self.own})
        return Unusable(f"there is no source {source!r}", hint=f"The known sources are: {', '.join(known)}.")

    def _base(self, source: Source) -> str:
        return self.bases.get(source.name, source.base)

    def _is_on(self, source: Source) -> bool:
        return not source.off or source.name in self.enabled

    def _on(self, source: Source) -> Source:
        if not self._is_on(source):
            hint = f"If you may, name {source.name} in enabled_sources."
            raise Unusable(f"the source {source.name} is off: {source.off}", hint=hint)
        return source


def _identity(source: Source, account: Account) -> Identity:
    if not is_http(account.handle):
        _check_handle(account.handle)
    url = normalise_url(account.url)
    return Identity(source=source.name, handle=account.handle, url=url, host=host_of(url))


def _check_handle(handle: str, *, is_feed: bool = False) -> None:
    if not handle:
        raise Unusable("the handle is empty", hint="Give source:handle.")
    if any(c in '<>"&' or c.isspace() for c in handle):
        raise Unusable('a handle must not contain spaces or any of < > " &')
    scheme = _SCHEME.match(handle)
    if scheme and (is_feed or "://" in handle or scheme[1].lower() in _OTHER_SCHEMES):
        raise Unusable("only http and https addresses can be scraped")


def _filled(source: str, handle: str, template: str, where: str) -> Identity:
    """Put a handle into an address; `where` it is set."""
    _check_handle(handle)
    if handle.strip(".") == "":
        raise Unusable("a handle must not consist of dots alone")
    try:
        url = normalise_url(template.replace("{handle}", quote(handle, safe="")))
    except Unusable as exc:
        raise Unusable(f"{handle!r} in {where} makes no usable address: {exc.message}") from exc
    return Identity(source=source, handle=handle, url=url, host=host_of(url))
