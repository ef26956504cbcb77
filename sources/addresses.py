"""Which network addresses may be connected to, and the connections that obey.

The check stands between name resolution and connect: no packet reaches an address that is refused, whatever the
name said a moment earlier and whatever a redirect says.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util.connection import allowed_gai_family
from urllib3.util.retry import Retry

from errors import ScrapeFailed

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
#: Most addresses of one name that are tried (count); each may take the whole connect time-out.
MAX_ATTEMPTS = 4
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
#: Special by now, and not yet known to every library: protocol assignments, 6to4 relays, documentation.
_SPECIAL = tuple(map(ipaddress.ip_network, ("192.0.0.0/24", "192.88.99.0/24", "64:ff9b:1::/48", "3fff::/20")))


class AddressRefused(ScrapeFailed):
    """Every address of the name is private; `allow_private_networks` would permit it."""


def is_public(text: str) -> bool:
    """Whether an address belongs to the public internet, what it wraps (IPv4-mapped, 6to4, NAT64) included."""
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if address.is_site_local:
            return False
    if any(address in network for network in _SPECIAL):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def is_in(text: str, networks: Sequence[Network]) -> bool:
    """Whether an address, or the IPv4 address that it maps, is in one of these."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in networks)


def connect(conn: _CheckedHTTP | _CheckedHTTPS) -> socket.socket:
    """Resolve the name, then connect to its public addresses in turn; the first that answers wins.

    Raises:
        AddressRefused: No address of the name is public.
    """
    host = conn._dns_host.strip("[]")  # urllib3's name before the final dot is cut off
    try:
        found = socket.getaddrinfo(host, conn.port, allowed_gai_family(), socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as exc:
        raise NameResolutionError(host, conn, socket.gaierror(str(exc))) from exc
    public = [entry for entry in found if is_public(str(entry[4][0])) or is_in(str(entry[4][0]), conn.networks)]
    if not public:
        address = found[0][4][0] if found else host
        raise AddressRefused(
            f"the address {address} is private; set allow_private_networks to scrape it, or allowed_networks"
        )
    error: OSError | None = None
    for family, kind, protocol, _, sockaddr in public[:MAX_ATTEMPTS]:
        sock: socket.socket | None = None
        try:
            sock = socket.socket(family, kind, protocol)
            for option in conn.socket_options or ():
                sock.setsockopt(*option)
            if isinstance(conn.timeout, (int, float)):
                sock.settimeout(conn.timeout)
            sock.connect(sockaddr)
            return sock
        except OSError as exc:
            if sock is not None:
                sock.close()
            error = exc
    if isinstance(error, TimeoutError):
        raise ConnectTimeoutError(conn, "connecting took too long") from error
    raise NewConnectionError(conn, f"no address could be connected to: {error}") from error


class _CheckedHTTP(HTTPConnection):
    #: Networks that are allowed though they are private.
    networks: Sequence[Network] = ()

    def _new_conn(self) -> socket.socket:
        return connect(self)


class _CheckedHTTPS(HTTPSConnection):
    networks: Sequence[Network] = ()

    def _new_conn(self) -> socket.socket:
        return connect(self)


class _CheckedHTTPPool(HTTPConnectionPool):
    ConnectionCls = _CheckedHTTP


class _CheckedHTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _CheckedHTTPS


class Adapter(HTTPAdapter):
    """Never retries; connects only to public addresses unless told that private ones are fine."""

    def __init__(self, *, allow_private: bool, allowed: Sequence[str] = ()) -> None:
        self._allow_private = allow_private
        self._networks = tuple(map(ipaddress.ip_network, allowed))
        super().__init__(max_retries=Retry(0, read=False, redirect=False), pool_connections=4, pool_maxsize=2)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:  # Any: handed through to urllib3
        """Called by requests; puts our pools in."""
        super().init_poolmanager(*args, **kwargs)
        manager: PoolManager = self.poolmanager
        if not self._allow_private:
            own = {"networks": self._networks}
            manager.pool_classes_by_scheme = {
                "http": _pool(_CheckedHTTPPool, type("_HTTP", (_CheckedHTTP,), own)),
                "https": _pool(_CheckedHTTPSPool, type("_HTTPS", (_CheckedHTTPS,), own)),
            }


def _pool(kind: type, connection: type) -> type:
    return type(kind.__name__, (kind,), {"ConnectionCls": connection})
