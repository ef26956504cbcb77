"""Who a target is: what a person typed becomes a source, a handle, an address and a host.

Standard library and errors only: the daemon asks here, and no request is made. Whether the address leads anywhere is
found out by the first scrape.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, quote, urlsplit, urlunsplit

from errors import Unusable

#: Longest handle or address, before and after normalisation (characters).
MAX_CHARS = 2000
#: Name of the built-in source.
FEED = "feed"
_PORTS = {"http": 80, "https": 443}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*):")
_HOST = re.compile(r"[a-z0-9_](?:[a-z0-9_\-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_\-]*[a-z0-9_])?)*")
#: Schemes that are never a handle, whatever the source.
_OTHER_SCHEMES = frozenset({"about", "blob", "data", "file", "ftp", "ftps", "gopher", "javascript", "mailto", "ssh"})
#: What may stay as it is in a path or query; `%` because escapes are kept.
_SAFE = "/:@!$&'()*+,;=~%-._?[]|^`{}"


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


def resolve(
    text: str, *, source: str | None, default_source: str, handle_url: str | None, scripts: Mapping[str, str]
) -> Identity:
    """Read what names a target: an http(s) URL, `source:handle`, or a bare handle of the default source.

    Args:
        text: At most MAX_CHARS characters, taken as it is: surrounding whitespace is refused, not stripped.
        source: The source named beside the text; the text is then its handle and no prefix is looked for.
        default_source: Source of a bare handle.
        handle_url: Address with `{handle}` in it, for handles of the default source.
        scripts: Scrapers of the user's own, name to `module:function`; only the names are read.

    Raises:
        Unusable: The text cannot be a target; the message says why, the hint what would work.
    """
    known = sorted({FEED, *scripts})
    _check_text(text)
    if source is not None and source not in known:
        raise _unknown(source, known)
    if source is None:
        source, text = _split_prefix(text, default_source, known)
        if source not in known:
            raise _unknown(source, known)
    if is_http(text):
        url = normalise_url(text)
        return Identity(source=source, handle=url, url=url, host=host_of(url))
    _check_handle(text, is_feed=source == FEED)
    template = handle_url if source == default_source else None
    if template:
        url = _fill(template, text)
        return Identity(source=source, handle=text, url=url, host=host_of(url))
    if source == FEED:
        raise Unusable(f"{text!r} is not the address of a feed", hint="Give the address of a feed, or set handle_url.")
    return Identity(source=source, handle=text, url="", host="")


def names(scripts: Mapping[str, str] | None = None) -> list[dict[str, str]]:
    """The sources there are, for people and pickers: name, description, example."""
    built_in = {
        "name": FEED,
        "description": "An RSS, Atom or JSON feed, or a page that links to one.",
        "example": "https://example.org/feed.xml",
    }
    own = [
        {"name": name, "description": "A scraper of your own.", "example": f"{name}:handle"}
        for name in sorted(scripts or {})
    ]
    return [built_in, *own]


def is_http(text: str) -> bool:
    """Whether the text claims to be an http or https address."""
    return text[:8].lower().startswith(("http:", "https:"))


def normalise_url(text: str) -> str:
    """Give the one spelling of an http(s) address: lower-case scheme and host, no default port, no fragment.

    Names outside ASCII become IDNA 2003, as the standard library knows it. Path and query keep their case, order and
    escapes; only characters that may not stand there are escaped.

    Raises:
        Unusable: Another scheme, no host, a bad port, a user name or password, whitespace or markup in it.
    """
    _check_text(text)
    if re.search(r'[\s<>"\\]', text):
        raise Unusable("an address must not contain spaces, quotes, backslashes or angle brackets")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as exc:
        raise Unusable("the address has a bad host or port") from exc
    if parts.scheme not in _PORTS:
        raise Unusable("only http and https addresses can be scraped")
    if "@" in parts.netloc:
        raise Unusable("an address must not contain a user name or password")
    host = _host(parts)
    if port == 0:
        raise Unusable("the address has a bad host or port")
    netloc = host if port in (None, _PORTS[parts.scheme]) else f"{host}:{port}"
    path = quote(parts.path or "/", safe=_SAFE.replace("?", ""))
    url = urlunsplit((parts.scheme, netloc, path, quote(parts.query, safe=_SAFE), ""))
    if len(url) > MAX_CHARS:
        raise Unusable(f"the address is longer than {MAX_CHARS} characters")
    return url


def host_of(url: str) -> str:
    """`name:port` of a normalised address; the port is always there."""
    parts = urlsplit(url)
    name = parts.hostname or ""
    return f"{f'[{name}]' if ':' in name else name}:{parts.port or _PORTS[parts.scheme]}"


def _host(parts: SplitResult) -> str:
    name = parts.hostname or ""
    if not name:
        raise Unusable("the address has no host")
    if ":" in name:
        try:
            return f"[{ipaddress.IPv6Address(name)}]" if "%" not in name else _bad_host()
        except ValueError:
            return _bad_host()
    try:
        ascii_name = name.encode("idna").decode("ascii").lower().removesuffix(".")
    except UnicodeError:
        return _bad_host()
    if len(ascii_name) > 253 or not _HOST.fullmatch(ascii_name):
        return _bad_host()
    return ascii_name


def _bad_host() -> str:
    raise Unusable("the address has a bad host or port")


def _check_text(text: str) -> None:
    if not text:
        raise Unusable("the target is empty", hint="Give the address of a feed, or source:handle.")
    if len(text) > MAX_CHARS:
        raise Unusable(f"the target is longer than {MAX_CHARS} characters")
    if not text.isprintable():
        raise Unusable("the target contains characters that cannot be printed")


def _check_handle(handle: str, *, is_feed: bool) -> None:
    if not handle:
        raise Unusable("the handle is empty", hint="Give source:handle.")
    if any(c in '<>"&' or c.isspace() for c in handle):
        raise Unusable('a handle must not contain spaces or any of < > " &')
    scheme = _SCHEME.match(handle)
    if scheme and (is_feed or "://" in handle or scheme[1].lower() in _OTHER_SCHEMES):
        raise Unusable("only http and https addresses can be scraped")


def _split_prefix(text: str, default_source: str, known: list[str]) -> tuple[str, str]:
    if is_http(text):
        return FEED, text
    prefix, colon, rest = text.partition(":")
    if not colon:
        return default_source, text
    if prefix in known:
        return prefix, rest
    if "://" in text or prefix.lower() in _OTHER_SCHEMES:
        raise Unusable("only http and https addresses can be scraped")
    raise _unknown(prefix, known)


def _fill(template: str, handle: str) -> str:
    if handle.strip(".") == "":
        raise Unusable("a handle must not consist of dots alone")
    try:
        return normalise_url(template.replace("{handle}", quote(handle, safe="")))
    except Unusable as exc:
        raise Unusable(f"{handle!r} in handle_url makes no usable address: {exc.message}") from exc


def _unknown(source: str, known: list[str]) -> Unusable:
    return Unusable(f"there is no source {source!r}", hint=f"The known sources are: {', '.join(known)}.")
