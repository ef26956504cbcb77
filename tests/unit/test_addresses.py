"""Private addresses are refused, on the address that would really be connected to."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from errors import ScrapeFailed
from sources.addresses import MAX_ATTEMPTS, AddressRefused, connect, is_in, is_public
from tests.support.sites import Site, open_http


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *("10.0.0.1", "127.0.0.1", "127.8.9.1", "0.0.0.0", "169.254.169.254", "172.16.0.1", "192.168.1.1"),
        *("100.64.0.1", "192.0.0.8", "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"),
        *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fec0::1", "ff02::1", "2001:db8::1", "3fff::1"),
        *(
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::7f00:1",
            "2002:7f00:1::",
            "2001:0:7f00:1::",
        ),
    ],
)
def test_everything_else_is_not(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "0"])
def test_loopback_is_refused_however_it_is_spelt(site: Site, host: str) -> None:
    site.answer("/feed", b"x")
    with open_http(allow_private_networks=False) as http:
        with pytest.raises(AddressRefused, match="is private; set allow_private_networks to scrape it"):
            http.get(f"http://{host}:{site.port}/feed")
    assert site.asked == []


def test_tls_to_loopback_is_refused_too(site: Site) -> None:
    with open_http(allow_private_networks=False) as http, pytest.raises(AddressRefused):
        http.get(f"https://127.0.0.1:{site.port}/feed")


def test_loopback_is_reached_when_allowed(site: Site) -> None:
    site.answer("/feed", b"x")
    with open_http(allow_private_networks=True) as http:
        assert http.get(site.url()).body == b"x"


def test_a_name_that_does_not_resolve_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_such_name(*_: Any) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr("sources.addresses.socket.getaddrinfo", no_such_name)
    with open_http(allow_private_networks=False) as http, pytest.raises(ScrapeFailed, match="cannot be resolved"):
        http.get("http://no-such-name.invalid/")


class Wanted:
    """What urllib3 hands to `connect`."""

    networks = ()
    timeout = 2.0
    socket_options: tuple[tuple[int, int, int], ...] = ()

    def __init__(self, port: int) -> None:
        self._dns_host = "name.example"
        self.host = "name.example"
        self.port = port


def resolving_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[str]:
    """Names resolve to these addresses; gives the list of those that a connection is tried to."""
    tried: list[str] = []

    def found(host: str, port: int, *_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    class Socket:
        def __init__(self, *_: int) -> None: ...
        def setsockopt(self, *_: int) -> None: ...
        def settimeout(self, _: float) -> None: ...
        def close(self) -> None: ...
        def connect(self, address: tuple[str, int]) -> None:
            tried.append(address[0])
            if address[0].endswith(".9"):
                raise ConnectionRefusedError
            if address[0].endswith(".7"):
                raise TimeoutError

    monkeypatch.setattr("sources.addresses.socket.getaddrinfo", found)
    monkeypatch.setattr("sources.addresses.socket.socket", Socket)
    return tried


def test_of_a_name_with_both_only_the_public_address_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = resolving_to(monkeypatch, "127.0.0.1", "8.8.8.8")
    connect(Wanted(80))  # type: ignore[arg-type]
    assert tried == ["8.8.8.8"]


def test_the_next_address_is_tried_when_one_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = resolving_to(monkeypatch, "8.8.8.9", "8.8.8.8")
    connect(Wanted(80))  # type: ignore[arg-type]
    assert tried == ["8.8.8.9", "8.8.8.8"]


def test_a_name_with_a_thousand_addresses_is_not_tried_a_thousand_times(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = resolving_to(monkeypatch, *(f"8.8.{n}.9" for n in range(200)))
    with pytest.raises(Exception, match="no address could be connected to"):
        connect(Wanted(80))  # type: ignore[arg-type]
    assert len(tried) == MAX_ATTEMPTS


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("8.8.8.9", "name.example:80 refused the connection"),
        ("8.8.8.7", "connecting to name.example:80 took longer than 10 s"),
    ],
)
def test_why_there_is_no_connection_is_said(monkeypatch: pytest.MonkeyPatch, address: str, why: str) -> None:
    resolving_to(monkeypatch, address)
    with open_http(allow_private_networks=False) as http, pytest.raises(ScrapeFailed, match=why):
        http.get("http://name.example/")


@pytest.mark.parametrize(
    ("address", "network", "may"),
    [
        ("10.1.2.3", "10.0.0.0/8", True),
        ("10.1.2.3", "10.1.2.4/32", False),
        ("::ffff:10.1.2.3", "10.0.0.0/8", True),
        ("fd00::1", "fd00::/8", True),
        ("fe80::1%eth0", "fe80::/10", True),
        ("fd00::1", "10.0.0.0/8", False),
    ],
)
def test_which_addresses_are_in_a_network(address: str, network: str, may: bool) -> None:
    assert is_in(address, (ipaddress.ip_network(network),)) is may


def test_a_private_network_may_be_allowed_by_itself(site: Site) -> None:
    site.answer("/feed", b"x")
    with open_http(allow_private_networks=False, allowed_networks=("127.0.0.0/8",)) as http:
        assert http.get(site.url()).body == b"x"
    with open_http(allow_private_networks=False, allowed_networks=("10.0.0.0/8",)) as http:
        with pytest.raises(AddressRefused, match="127.0.0.1 is private"):
            http.get(site.url())


def test_a_redirect_into_the_private_network_is_refused(monkeypatch: pytest.MonkeyPatch, site: Site) -> None:
    site.answer("/feed", status=302, Location=f"http://10.0.0.1:{site.port}/secret")
    # The first host passes for public in this test; nothing else does.
    monkeypatch.setattr("sources.addresses.is_public", lambda address: address == "127.0.0.1")
    with open_http(allow_private_networks=False) as http, pytest.raises(AddressRefused, match="10.0.0.1 is private"):
        http.get(site.url())
    assert [asked.path for asked in site.asked] == ["/feed"]
