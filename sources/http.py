"""The HTTP session a source works with: one per run, bounded in time, size and reach.

Nothing here retries or sleeps: a retry is a later run. DNS and TLS can take longer than any limit said here; only the
pool, which kills the worker at the deadline, bounds them. For the same reason a run that is too long is not failed
from here: the budget ends a little after the deadline.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message
from email.utils import parsedate_to_datetime
from http.client import IncompleteRead
from typing import Any
from urllib.parse import urljoin

import requests
import urllib3
from requests.structures import CaseInsensitiveDict

from errors import ScrapeFailed, Unusable
from model import FetchLimits
from sources.addresses import Adapter
from sources.charsets import codec
from sources.urls import host_of, normalise_url

#: Longest wait a host can ask for (seconds).
MAX_RETRY_AFTER_S = 7 * 86400.0
#: How long after the deadline we would end a run ourselves (seconds); the pool is there first.
GRACE_S = 5.0
_CHUNK_BYTES = 64 * 1024
_MAX_VALIDATOR_CHARS = 1000
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_ACCEPT = "application/atom+xml, application/rss+xml, application/feed+json, application/xml;q=0.9, */*;q=0.8"
#: Headers of the caller's that go along when a redirect leads to another host.
_HARMLESS = frozenset({"accept", "accept-language"})


class BadStatus(ScrapeFailed):
    """The server answered, and the answer is not what was asked for."""

    def __init__(self, status: int, *, retry_after_s: float | None = None) -> None:
        super().__init__(f"the server answered with status {status}", retry_after_s=retry_after_s)
        self.status = status


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
        """What to remember for a conditional request: url, etag, last_modified. Opaque: quotes and all, as they came."""
        found = {"etag": self.headers.get("ETag", ""), "last_modified": self.headers.get("Last-Modified", "")}
        return {"url": self.url} | {name: value for name, value in found.items() if len(value) <= _MAX_VALIDATOR_CHARS}


class _Session(requests.Session):
    """Leaves redirects to us. The library would read the body of one to its end, however long, just to say where it
    leads."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        return None


class Http:
    """Fetches for one run. Cookies live as long as this object; credentials and proxies are never used."""

    def __init__(
        self,
        limits: FetchLimits,
        *,
        deadline: float,
        on_progress: Callable[[str], None],
        remember: Mapping[str, str],
    ) -> None:
        """`deadline` is a reading of the monotonic clock; `remember` holds url, etag and last_modified, if any.

        The url there is the one of the answer that gave the validators, after redirects.
        """
        self.limits = limits
        self.on_progress = on_progress
        self.remember = remember
        self._deadline = deadline
        self._session = _Session()
        self._session.trust_env = False
        self._session.headers = CaseInsensitiveDict(
            {"User-Agent": limits.user_agent, "Accept": _ACCEPT, "Accept-Encoding": "gzip, deflate"}
        )
        adapter = Adapter(allow_private=limits.allow_private_networks)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)

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
        for _ in range(self.limits.max_redirects + 1):
            validators = self._validators(url) if conditional else {}
            response = self._send(url, asked | validators)
            try:
                if response.status_code not in _REDIRECTS:
                    return self._answer(response, url, allow_304=bool(validators))
                target = _redirect_target(response, url)
            finally:
                response.close()
            if host_of(target) != host_of(url):
                asked = {k: v for k, v in asked.items() if k.lower() in _HARMLESS}
            url = target
        raise ScrapeFailed(f"there were more than {self.limits.max_redirects} redirects")

    def leave_alone(self, url: str, seconds: float, why: str) -> None:
        """Tell the daemon that a host asked to be left alone for so long, where its answer says so in its own words."""

    def fresh_for(self, seconds: float) -> None:
        """Tell the daemon that there will be nothing new on this target for so long; the longest counts."""

    def close(self) -> None:
        """Let go of the connections."""
        self._session.close()

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
            return self._session.get(
                url,
                headers=dict(headers),
                stream=True,
                allow_redirects=False,
                timeout=(min(limits.connect_timeout_s, left_s), min(limits.read_timeout_s, left_s)),
            )
        except (requests.RequestException, urllib3.exceptions.HTTPError, UnicodeError, ValueError) as exc:
            raise ScrapeFailed(_reason(exc, host_of(url), limits)) from exc

    def _remaining_s(self) -> float:
        """Until the budget ends, which is GRACE_S after the deadline."""
        left = self._deadline + GRACE_S - time.monotonic()
        if left <= 0:
            raise ScrapeFailed("the time for this run was used up")
        return left

    def _answer(self, response: requests.Response, url: str, *, allow_304: bool) -> Answer:
        status = response.status_code
        self.on_progress(f"status {status}")
        headers = CaseInsensitiveDict(response.headers)
        if status == 304 and allow_304:
            return Answer(status=304, url=url, headers=headers, body=b"", not_modified=True)
        if not 200 <= status < 300 or status == 206:  # nobody asked for a part
            wait = _retry_after_s(headers.get("Retry-After")) if status in (429, 503) else None
            raise BadStatus(status, retry_after_s=wait)
        body = b"".join(self._decoded(response, headers.get("Content-Encoding", "")))
        return Answer(status=status, url=url, headers=headers, body=body, charset=_charset(headers))

    def _decoded(self, response: requests.Response, encoding: str) -> Iterator[bytes]:
        limit = self.limits.body_limit_bytes
        inflate = _inflater(encoding, limit)
        too_big = ScrapeFailed(f"the answer is larger than the limit of {limit} bytes")
        if (response.raw.length_remaining or 0) > limit:  # what Content-Length promises
            raise too_big
        received = 0
        for chunk in self._chunks(response):
            received += len(chunk)
            if received > limit:
                raise too_big
            self.on_progress(f"received {received} bytes")
            yield from inflate.feed(chunk) if inflate else (chunk,)
        if inflate and received:
            inflate.finish()

    def _chunks(self, response: requests.Response) -> Iterator[bytes]:
        """Pieces as they arrive, so that a drip shows as progress."""
        try:
            while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=False):
                yield chunk
                self._remaining_s()
        except (urllib3.exceptions.HTTPError, OSError) as exc:
            raise ScrapeFailed(_reason(exc, host_of(response.url), self.limits)) from exc


class _Inflate:
    """Undoes gzip (any number of members) or deflate (zlib's or raw), never past the limit."""

    def __init__(self, wbits: int, limit: int) -> None:
        self._wbits = wbits
        self._limit = limit
        self._made = 0
        self._started = False
        self._stream = zlib.decompressobj(wbits)

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data:
            self._choose(data)
            try:
                out = self._stream.decompress(data, self._limit - self._made + 1)
            except zlib.error as exc:
                raise ScrapeFailed("the answer is not compressed the way it says it is") from exc
            self._made += len(out)
            if self._made > self._limit:
                raise ScrapeFailed(f"the answer is larger than the limit of {self._limit} bytes, decompressed")
            yield out
            data = self._stream.unconsumed_tail
            if self._stream.eof:
                data = self._stream.unused_data
                if self._wbits != 31 or not data.startswith(b"\x1f"):
                    return  # padding after the last member
                self._stream = zlib.decompressobj(self._wbits)

    def _choose(self, data: bytes) -> None:
        if not self._started and self._wbits == zlib.MAX_WBITS:
            if data[0] & 0x0F != 8:  # no zlib header: raw deflate, as some servers send it
                self._stream = zlib.decompressobj(-zlib.MAX_WBITS)
        self._started = True

    def finish(self) -> None:
        if not self._stream.eof:
            raise ScrapeFailed("the answer was cut short")


def _inflater(encoding: str, limit: int) -> _Inflate | None:
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return None
    if name in ("gzip", "x-gzip"):
        return _Inflate(31, limit)
    if name == "deflate":
        return _Inflate(zlib.MAX_WBITS, limit)
    raise ScrapeFailed("the answer is encoded in a way that was not asked for")


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


def _retry_after_s(value: str | None) -> float | None:
    """Seconds or an HTTP date; None for anything else."""
    text = (value or "").strip()
    if text.isascii() and text.isdecimal():
        return min(float(text[:20]), MAX_RETRY_AFTER_S)
    try:
        at = parsedate_to_datetime(text)
        wait = (at if at.tzinfo else at.replace(tzinfo=UTC)) - datetime.now(UTC)
    except (TypeError, ValueError, OverflowError, IndexError):
        return None
    return min(max(wait.total_seconds(), 0.0), MAX_RETRY_AFTER_S)


def _causes(exc: BaseException) -> Iterator[BaseException]:
    """The error, what it wraps and what it came from; at most twelve."""
    queue: list[object] = [exc]
    for _ in range(12):
        if not queue:
            return
        one = queue.pop(0)
        if isinstance(one, BaseException):
            yield one
            queue += [*one.args, getattr(one, "reason", None), one.__cause__]


def _reason(exc: BaseException, host: str, limits: FetchLimits) -> str:
    """One sentence without a word of the server's."""
    causes = tuple(_causes(exc))

    def any_is(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    if any_is(urllib3.exceptions.NameResolutionError):
        return f"the name of {host} cannot be resolved"
    if any_is(ConnectionRefusedError):
        return f"{host} refused the connection"
    if any_is(urllib3.exceptions.NewConnectionError):  # before the time-out, which it is a kind of
        return f"{host} cannot be reached"
    if any_is(requests.ConnectTimeout, urllib3.exceptions.ConnectTimeoutError):
        return f"connecting to {host} took longer than {limits.connect_timeout_s:g} s"
    if any_is(requests.ReadTimeout, urllib3.exceptions.ReadTimeoutError, TimeoutError):
        return f"{host} sent nothing for {limits.read_timeout_s:g} s"
    if any_is(requests.exceptions.SSLError, urllib3.exceptions.SSLError):
        return f"there is no secure connection to {host}: its certificate or its TLS is not acceptable"
    if any_is(IncompleteRead):
        return f"the answer of {host} was cut short"
    if any_is(requests.exceptions.InvalidURL, urllib3.exceptions.LocationValueError):
        return "the address has a bad host or port"
    return f"the connection to {host} broke, or what came over it is not HTTP"
