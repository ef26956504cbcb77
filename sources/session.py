"""How the requests of a run are sent: headers and cookies are the run's own, connections are its worker's.

Leaner than `requests.Session`, whose merging of settings takes as long as a request to a server nearby. Redirects are
left to http.py: the library would read the body of one to its end, however long, just to say where it leads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import requests
import urllib3
from requests.adapters import BaseAdapter
from requests.cookies import RequestsCookieJar, extract_cookies_to_jar
from requests.structures import CaseInsensitiveDict

from model import FetchLimits
from sources.addresses import Adapter
from sources.urls import host_of

#: An address that is sent as it is: nothing in it can be spelled in another way.
_PLAIN = re.compile(
    r"https?://[a-z0-9][a-z0-9.\-]*(?::\d+)?((?:/(?!\.)[A-Za-z0-9_~\-.]*)+(?:\?[A-Za-z0-9_~\-.=&+,:/]+)?)"
)
_ACCEPT = "application/atom+xml, application/rss+xml, application/feed+json, application/xml;q=0.9, */*;q=0.8"


class Session:
    """One run's. Cookies live as long as it does, each host's apart; credentials and proxies are never used."""

    def __init__(self, *, user_agent: str, adapter: BaseAdapter) -> None:
        self._headers = _usual(user_agent)
        self._adapter = adapter
        #: By host with its port, which a jar of the library's does not look at, nor at names below a common one.
        self._cookies: dict[str, RequestsCookieJar] = {}

    def get(self, url: str, headers: Mapping[str, str], *, timeout_s: tuple[float, float]) -> requests.Response:
        """Ask for an address that urls.normalise_url gave; the body is not read.

        Args:
            headers: Besides the usual ones, or in their place.
            timeout_s: For the connection, and for each wait for bytes.

        Raises:
            requests.RequestException, urllib3.exceptions.HTTPError, UnicodeError, ValueError: There is no answer.
        """
        request = requests.PreparedRequest()
        request.method = "GET"
        request.headers = self._headers.copy()
        if headers:
            request.prepare_headers({**self._headers, **headers})
        if _PLAIN.fullmatch(url):
            request.url = url
        else:
            request.prepare_url(url, None)
        if self._cookies and (jar := self._cookies.get(host_of(url))) is not None:
            request.prepare_cookies(jar)
        response = self._adapter.send(request, stream=True, timeout=timeout_s)
        if "Set-Cookie" in response.headers:
            jar = self._cookies.setdefault(host_of(url), RequestsCookieJar())
            extract_cookies_to_jar(jar, request, response.raw)  # type: ignore[no-untyped-call]  # the library's
        return response


class Connections(Adapter):
    """Sends over a connection that is still open, where there is one; closed servers are noticed."""

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = True,
        timeout: Any = None,  # Any: as in requests
        verify: Any = True,  # Any: as in requests
        cert: Any = None,  # Any: as in requests
        proxies: Any = None,  # Any: as in requests
    ) -> requests.Response:
        """Called by Session. Raises urllib3's own errors."""
        assert request.url is not None
        pool: Any = self.get_connection_with_tls_context(request, verify)  # Any: its types leave out the count below
        self.cert_verify(pool, request.url, verify, cert)  # type: ignore[no-untyped-call]  # the library's
        opened = pool.num_connections
        plain = _PLAIN.fullmatch(request.url)
        path = plain[1] if plain else request.path_url
        try:
            raw = self._open(pool, path, request, timeout)
        except urllib3.exceptions.ProtocolError as exc:
            if pool.num_connections != opened or not any(isinstance(arg, ConnectionError) for arg in exc.args):
                raise
            raw = self._open(
                pool, path, request, timeout
            )  # it was kept, and closed before it heard us: RFC 9110, 9.2.2
        return _Response(request, raw)

    def close(self) -> None:
        """Close what is open; the library would leave that to the garbage collector."""
        pools = self.poolmanager.pools
        for key in pools.keys():  # noqa: SIM118 - it cannot be iterated
            pools[key].close()
        super().close()

    def _open(self, pool: Any, path: str, request: requests.PreparedRequest, timeout: Any) -> Any:  # Any: urllib3's
        connect_s, read_s = timeout
        return pool.urlopen(
            "GET",
            path,
            headers=request.headers,
            redirect=False,
            assert_same_host=False,
            preload_content=False,
            decode_content=False,
            retries=self.max_retries,
            timeout=urllib3.Timeout(connect=connect_s, read=read_s),
        )


class _Response(requests.Response):
    """Without a jar of its own for cookies."""

    def __init__(self, request: requests.PreparedRequest, raw: Any) -> None:  # Any: urllib3's response
        self._content: Any = False  # Any: as in requests
        self._content_consumed = False
        self.status_code, self.reason, self.raw = raw.status, raw.reason, raw
        self.headers = CaseInsensitiveDict(raw.headers.items())
        self.request = request
        self.url = request.url or ""


@lru_cache(maxsize=8)
def _usual(user_agent: str) -> CaseInsensitiveDict[str]:
    request = requests.PreparedRequest()
    request.prepare_headers({"User-Agent": user_agent, "Accept": _ACCEPT, "Accept-Encoding": "gzip, deflate"})
    return request.headers


def connections(limits: FetchLimits) -> Connections:
    """New ones, to the hosts that the limits allow."""
    return Connections(allow_private=limits.allow_private_networks, allowed=limits.allowed_networks)


#: What this process keeps from run to run: one at most.
_kept: dict[FetchLimits, Connections] = {}


def kept_connections(limits: FetchLimits) -> Connections:
    """Those of the run before, if it had the same limits."""
    if limits not in _kept:
        let_go()
        _kept[limits] = connections(limits)
    return _kept[limits]


def let_go() -> None:
    """Close what is kept."""
    while _kept:
        _kept.popitem()[1].close()
