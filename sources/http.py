"""The HTTP session a source works with: one per run, bounded in time, size and reach.

Nothing here retries: a retry is a later run. Connections may outlive a run (session.py). manners.py says when a host
may be asked, and waits for that. DNS and TLS can take longer than any limit said here; only the pool, which kills the
worker at the deadline, bounds them. For the same reason a run that is too long is not failed from here: the budget ends
a little after the deadline.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message
from typing import Any
from urllib.parse import urljoin

import requests
import urllib3
from requests.adapters import BaseAdapter
from requests.structures import CaseInsensitiveDict

from errors import ScrapeFailed, Unusable
from model import MAX_FRESH_S, FetchLimits
from sources.bodies import TooLarge, inflater
from sources.charsets import codec
from sources.failures import is_network, reason
from sources.limits import asked_wait, fresh_s
from sources.manners import Manners, NoRobots
from sources.session import Session, connections
from sources.urls import host_of, normalise_url

#: How long after the deadline we would end a run ourselves (seconds); the pool is there first.
GRACE_S = 5.0
_CHUNK_BYTES = 64 * 1024
_MAX_VALIDATOR_CHARS = 1000
#: What is remembered of how long an answer is right (seconds).
_MAX_AGE = "max_age"
#: How much is read of an answer that is an error (bytes).
_ERROR_BYTES = 16 * 1024
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_FOR_EVER = frozenset({301, 308})
#: How much of a robots.txt is read (bytes), and how many redirects lead to it (count): at least so many, says RFC 9309.
_ROBOTS_BYTES = 500 * 1024
_ROBOTS_REDIRECTS = 5
#: Headers of the caller's that go along when a redirect leads to another host.
_HARMLESS = frozenset({"accept", "accept-language"})


class Unreachable(ScrapeFailed):
    """Nobody answered: the name, the way or the network failed. It may be our own."""


class BadStatus(ScrapeFailed):
    """The server answered, and the answer is not what was asked for."""

    def __init__(self, status: int, *, retry_after_s: float | None = None, body: bytes = b"") -> None:
        """`body`: the beginning of the answer, of an interface that says there what is wrong."""
        super().__init__(f"the server answered with status {status}", retry_after_s=retry_after_s)
        self.status, self.body = status, body


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One response, read to its end."""

    status: int
    #: Where the body came from, after redirects.
    url: str
    #: Names in any case.
    headers: Mapping[str, str]
    #: Decompressed; at most `body_limit_bytes`.
    body: bytes
    #: From Content-Type, lower case; None where it is not said. Not checked to exist.
    charset: str | None = None
    #: The server says that what we remember is still right; there is no body.
    not_modified: bool = False

    @property
    def text(self) -> str:
        """The body in its declared charset, else UTF-8; what does not fit becomes U+FFFD."""
        return self.body.decode(codec(self.charset) or "utf-8", "replace")

    def json(self) -> Any:  # Any: whatever the server sent
        """The body as JSON. Raises ScrapeFailed when it is none."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as exc:
            raise ScrapeFailed("the answer is not JSON") from exc

    def validators(self) -> dict[str, str]:
        """What to remember for a conditional request: url, etag, last_modified, as they came; max_age in seconds."""
        found = {"etag": self.headers.get("ETag", ""), "last_modified": self.headers.get("Last-Modified", "")}
        kept = {name: value for name, value in found.items() if len(value) <= _MAX_VALIDATOR_CHARS}
        age_s = fresh_s(self.headers, now=datetime.now(UTC))
        return {"url": self.url} | kept | ({_MAX_AGE: f"{age_s:.0f}"} if age_s >= 1 else {})


class Http:
    """Fetches for one run. Cookies live as long as this object; credentials and proxies are never used."""

    def __init__(
        self,
        limits: FetchLimits,
        *,
        deadline: float,
        on_progress: Callable[[str], None],
        remember: Mapping[str, str],
        manners: Manners | None = None,
        fresh_s: float = 0.0,
        adapter: BaseAdapter | None = None,
    ) -> None:
        """Nothing is opened yet.

        Args:
            deadline: A reading of the monotonic clock.
            remember: Holds url, etag and last_modified, if any; the url is the one of the answer that gave the
                validators, after redirects.
            manners: When a host may be asked; None: whenever we like.
            fresh_s: For how long what is remembered is known to be right (seconds): it is not asked for.
            adapter: What requests are sent by, which `close` leaves open; None: connections of our own.
        """
        self.limits = limits
        #: For how long there will be nothing new on the target (seconds).
        self.fresh_s = 0.0
        #: Whether any server answered.
        self.reached = False
        #: Where the first address that was asked for leads by permanent redirects alone; empty when it does not.
        self.moved_to: str | None = None
        self._manners = manners
        self._known_fresh_s, self._is_spared = fresh_s, False
        self.on_progress = on_progress
        self.remember = remember
        self._deadline = deadline
        self._own = connections(limits) if adapter is None else None
        self._session = Session(user_agent=limits.user_agent, adapter=adapter or self._own or connections(limits))

    def get(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        conditional: bool = False,
        is_api: bool = False,
    ) -> Answer:
        """Fetch an http(s) address, redirects included.

        Args:
            url: Without user name and password.
            headers: Sent besides the usual ones; Authorization is never sent, and of the rest only Accept and
                Accept-Language reach another host.
            conditional: Send the validators remembered to exactly the address that gave them, be it after a redirect;
                the answer may then be `not_modified`.
            is_api: The address is a documented interface for programs, with rules of its own: robots.txt, which is for
                those who find their way by links, is not asked.

        Raises:
            ScrapeFailed: There is no 2xx answer that fits the limits; BadStatus where there is another one.
        """
        url = _address(url)
        asked = dict(headers or {})
        asked = {k: v for k, v in asked.items() if k.lower() not in ("authorization", "proxy-authorization")}
        if conditional and self._known_fresh_s > 0 and self.remember.get("url"):
            return self._spared()
        return self._follow(url, asked, conditional=conditional, is_api=is_api)

    def _follow(self, url: str, asked: dict[str, str], *, conditional: bool, is_api: bool) -> Answer:
        """Ask, and go where the answer leads; every step waits for its turn."""
        for_ever, first = True, url
        for _ in range(self.limits.max_redirects + 1):
            validators = self._validators(url) if conditional else {}
            if self._manners is not None:
                self._manners.wait_for_turn(url, None if is_api else self._robots)
            response = self._send(url, asked | validators)
            try:
                self._heed(response, url)
                if response.status_code not in _REDIRECTS:
                    if self.moved_to is None:
                        self.moved_to = url if for_ever and url != first else ""
                    if conditional:
                        self.fresh_for(self._fresh_s(response))
                    return self._answer(response, url, allow_304=bool(validators), is_api=is_api)
                for_ever = for_ever and response.status_code in _FOR_EVER
                target = _redirect_target(response, url)
            finally:
                response.close()
            if host_of(target) != host_of(url):
                asked = {k: v for k, v in asked.items() if k.lower() in _HARMLESS}
            url = target
        raise ScrapeFailed(f"there were more than {self.limits.max_redirects} redirects")

    def leave_alone(self, url: str, seconds: float, why: str) -> None:
        """Tell the daemon that a host asked to be left alone for so long, where its answer says so in its own words."""
        if self._manners is not None and seconds > 0:
            self._manners.told(host_of(url), seconds, why)

    def fresh_for(self, seconds: float) -> None:
        """Tell the daemon that there will be nothing new on this target for so long; the longest counts.

        Where the site was spared a request, what it said the last time is all that is known: this changes nothing.
        """
        if not self._is_spared:
            self.fresh_s = max(self.fresh_s, min(seconds, MAX_FRESH_S))

    def _spared(self) -> Answer:
        """What is remembered needs no request."""
        self.fresh_s, self._is_spared = max(self.fresh_s, self._known_fresh_s), True
        headers: CaseInsensitiveDict[str] = CaseInsensitiveDict()
        return Answer(status=304, url=self.remember["url"], headers=headers, body=b"", not_modified=True)

    def _fresh_s(self, response: requests.Response) -> float:
        """How long an answer is right; one that says "not modified" and no more is right as long as the last one."""
        says = any(name in response.headers for name in ("Cache-Control", "Expires", "X-Poll-Interval"))
        before = self.remember.get(_MAX_AGE, "")
        if response.status_code == 304 and not says and before.isascii() and before.isdecimal():
            return float(before)
        return fresh_s(response.headers, now=datetime.now(UTC))

    def _heed(self, response: requests.Response, url: str) -> None:
        """Whatever else becomes of an answer: what it asks of us is told at once."""
        self.reached = True
        wait = asked_wait(response.status_code, response.headers, now=datetime.now(UTC))
        if wait is not None:
            self.leave_alone(url, *wait)

    def _robots(self, url: str) -> tuple[int, str]:
        """Fetch a robots.txt: its status, and as much of it as has to be read. Raises NoRobots, ScrapeFailed."""
        assert self._manners is not None
        for _ in range(_ROBOTS_REDIRECTS + 1):
            response = self._send(url, {"Accept": "text/plain, */*;q=0.5"})
            try:
                self._heed(response, url)
                if response.status_code not in _REDIRECTS:
                    return response.status_code, self._robots_text(response)
                target = _redirect_target(response, url)
            except ScrapeFailed:
                return 404, ""  # it leads to where we do not go: as good as none
            finally:
                response.close()
            self._manners.wait_for_turn(target, None)
            url = target
        return 404, ""  # as good as none, says RFC 9309

    def _robots_text(self, response: requests.Response) -> str:
        """The first part of a robots.txt, as far as it is whole lines. Raises NoRobots."""
        if not 200 <= response.status_code < 300:
            return ""
        try:
            body = b"".join(self._decoded(response, limit=_ROBOTS_BYTES, cut=True))
        except ScrapeFailed as exc:
            raise NoRobots(exc.message) from exc
        text = body.decode("utf-8-sig", "replace")
        return text if len(body) < _ROBOTS_BYTES else text.rpartition("\n")[0]

    def close(self) -> None:
        """Let go of the connections, if they are our own."""
        if self._own is not None:
            self._own.close()

    def _validators(self, url: str) -> dict[str, str]:
        known = self.remember
        if known.get("url") != url:
            return {}
        found = {"If-None-Match": known.get("etag", ""), "If-Modified-Since": known.get("last_modified", "")}
        return {name: value for name, value in found.items() if value and value.isascii() and value.isprintable()}

    def _send(self, url: str, headers: Mapping[str, str]) -> requests.Response:
        limits = self.limits
        left_s = max(0.1, self._remaining_s())
        try:
            timeout_s = (min(limits.connect_timeout_s, left_s), min(limits.read_timeout_s, left_s))
            return self._session.get(url, headers, timeout_s=timeout_s)
        except (requests.RequestException, urllib3.exceptions.HTTPError, UnicodeError, ValueError) as exc:
            kind = Unreachable if is_network(exc) else ScrapeFailed
            raise kind(reason(exc, host_of(url), limits)) from exc

    def _remaining_s(self) -> float:
        """Until the budget ends, which is GRACE_S after the deadline."""
        left = self._deadline + GRACE_S - time.monotonic()
        if left <= 0:
            raise ScrapeFailed("the time for this run was used up")
        return left

    def _answer(self, response: requests.Response, url: str, *, allow_304: bool, is_api: bool) -> Answer:
        status = response.status_code
        self.on_progress(f"status {status}")
        headers = CaseInsensitiveDict(response.headers)
        if status == 304 and allow_304:
            return Answer(status=304, url=url, headers=headers, body=b"", not_modified=True)
        if not 200 <= status < 300 or status == 206:  # nobody asked for a part
            wait = asked_wait(status, headers, now=datetime.now(UTC))
            said = self._said(response) if is_api else b""
            raise BadStatus(status, retry_after_s=None if wait is None else wait[0], body=said)
        body = b"".join(self._decoded(response, limit=self.limits.body_limit_bytes))
        return Answer(status=status, url=url, headers=headers, body=body, charset=_charset(headers))

    def _said(self, response: requests.Response) -> bytes:
        """The beginning of a body that says what is wrong; nothing of one that cannot be read."""
        try:
            return b"".join(self._decoded(response, limit=_ERROR_BYTES, cut=True))[:_ERROR_BYTES]
        except ScrapeFailed:
            return b""

    def _decoded(self, response: requests.Response, *, limit: int, cut: bool = False) -> Iterator[bytes]:
        """Pieces of the body; one over the limit is an error, or cut off there."""
        inflate = inflater(response.headers.get("Content-Encoding", ""), limit)
        too_big = TooLarge(f"the answer is larger than the limit of {limit} bytes")
        if (response.raw.length_remaining or 0) > limit and not cut:  # what Content-Length promises
            raise too_big
        received = 0
        for chunk in self._chunks(response):
            received += len(chunk)
            over = max(0, received - limit)
            if over and not cut:
                raise too_big
            self.on_progress(f"received {received} bytes")
            piece = chunk[: len(chunk) - over]
            try:
                yield from inflate.feed(piece) if inflate else (piece,)
            except TooLarge:
                if not cut:
                    raise
                return
            if over:
                return
        if inflate and received:
            inflate.finish()

    def _chunks(self, response: requests.Response) -> Iterator[bytes]:
        """Pieces as they arrive, so that a drip shows as progress."""
        try:
            while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=False):
                yield chunk
                self._remaining_s()
        except (urllib3.exceptions.HTTPError, OSError) as exc:
            raise ScrapeFailed(reason(exc, host_of(response.url), self.limits)) from exc


def _address(url: str) -> str:
    try:
        return normalise_url(url)
    except Unusable as exc:
        raise ScrapeFailed(exc.message) from exc


def _redirect_target(response: requests.Response, url: str) -> str:
    location = response.headers.get("Location", "").strip()
    if not location:
        raise ScrapeFailed("the server redirects without saying where to")
    try:
        location = location.encode("latin-1").decode("utf-8")
    except UnicodeError:
        pass  # latin-1 after all
    try:
        target = normalise_url(urljoin(url, location.replace(" ", "%20")))
    except (Unusable, ValueError) as exc:
        reason = exc.message if isinstance(exc, Unusable) else "the address has a bad host or port"
        raise ScrapeFailed(f"the server redirects to where we do not go: {reason}") from exc
    return target


def _charset(headers: Mapping[str, str]) -> str | None:
    message = Message()
    message["Content-Type"] = "".join(c for c in headers.get("Content-Type", "")[:500] if c.isprintable())
    try:
        found = message.get_content_charset()
    except (LookupError, ValueError, TypeError):  # made up to break the library's parser
        return None
    return found if found and found.isascii() else None
