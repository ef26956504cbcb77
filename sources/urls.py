"""Addresses: the one spelling of each, and the host it is asked at. Standard library and errors only."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import SplitResult, quote, urlsplit, urlunsplit

from errors import Unusable

#: Longest handle or address, before and after normalisation (characters).
MAX_CHARS = 2000
_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[a-z0-9_](?:[a-z0-9_\-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_\-]*[a-z0-9_])?)*")
#: What may stay as it is in a path or query; `%` because escapes are kept.
_SAFE = "/:@!$&'()*+,;=~%-._?[]|^`{}"


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
    check_text(text)
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


def check_text(text: str) -> None:
    """Refuse what cannot name anything: nothing, too much, or what cannot be printed. Raises Unusable."""
    if not text:
        raise Unusable("the target is empty", hint="Give the address of a feed, or source:handle.")
    if len(text) > MAX_CHARS:
        raise Unusable(f"the target is longer than {MAX_CHARS} characters")
    if not text.isprintable():
        raise Unusable("the target contains characters that cannot be printed")
