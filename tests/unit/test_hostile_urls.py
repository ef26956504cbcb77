"""Addresses that want into the private network, in every spelling and by every way: refused, and not connected to."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from errors import ScrapeFailed
from sources import addresses
from tests.support.manners import FakeDaemon, polite
from tests.support.sites import Site, open_http

#: What a person is told.
CLEAR = (
    r"the address \S+ is private; set allow_private_networks|only http and https addresses can be scraped"
    r"|must not contain a user name|has a bad host or port|must not contain spaces|the address has no host"
    r"|characters that cannot be printed|the name of \S+ cannot be resolved"
)
#: The trap listens on 127.0.0.2 and ::1, at {port}.
PRIVATE = [
    "http://127.0.0.2:{port}/",
    "http://127.0.0.2.:{port}/",
    "http://127.2:{port}/",
    "http://127.0.2:{port}/",
    "http://2130706434:{port}/",
    "http://0x7f000002:{port}/",
    "http://0x7f.0x0.0x0.0x2:{port}/",
    "http://0177.0.0.02:{port}/",
    "http://017700000002:{port}/",
    "http://127.0.0.0x2:{port}/",
    "https://127.0.0.2:{port}/",
    "http://[::1]:{port}/",
    "http://[0:0:0:0:0:0:0:1]:{port}/",
    "http://[::ffff:127.0.0.2]:{port}/",
    "http://[::ffff:7f00:2]:{port}/",
    "http://[::127.0.0.2]:{port}/",
    "http://[64:ff9b::7f00:2]:{port}/",
    "http://[64:ff9b:1::7f00:2]:{port}/",
    "http://[2002:7f00:2::]:{port}/",
    "http://[2001:0:7f00:2::]:{port}/",
    "http://[fe80::1]:{port}/",
    "http://[fc00::1]:{port}/",
    "http://[::]:{port}/",
    "http://0:{port}/",
    "http://0.0.0.0:{port}/",
    "http://10.0.0.1:{port}/",
    "http://172.16.0.1:{port}/",
    "http://192.168.0.1:{port}/",
    "http://169.254.169.254/latest/meta-data/",
    "http://100.64.0.1:{port}/",
    "http://255.255.255.255:{port}/",
    "http://224.0.0.1:{port}/",
    "http://①②⑦.⓪.⓪.②:{port}/",
    "http://１２７.0.0.2:{port}/",
    "http://127。0。0。2:{port}/",
    "http://trap.example:{port}/",
    "http://trap.example.:{port}/",
    "http://TRAP.example:{port}/",
    "http://trap6.example:{port}/",
]
UNUSABLE = [
    "http://[fe80::1%25lo]:{port}/",
    "http://[::1%lo]:{port}/",
    "http://127.0.0.2..:{port}/",
    "http://127.0.0.2:{port}\\@public.example/",
    "http://public.example:80@127.0.0.2:{port}/",
    "http://@127.0.0.2:{port}/",
    "http://user:pw@127.0.0.2:{port}/",
    "http://127.0.0.2%00.public.example:{port}/",
    "http://127.0.0.2%2f.public.example:{port}/",
    "http://127.0.0.2 .public.example:{port}/",
    "http://127.0.0.2:{port}\r\nHost: public.example/",
    "http://127.0.0.2:{port}:80/",
    "http://[127.0.0.2]:{port}/",
    "http:///127.0.0.2:{port}/",
    "//127.0.0.2:{port}/",
    "file:///etc/passwd",
    "ftp://127.0.0.2:{port}/",
    "gopher://127.0.0.2:{port}/_GET",
    "data:text/html,x",
    "javascript:alert(1)",
    "ldap://127.0.0.2:{port}/",
    "unix:///run/docker.sock",
    "jar:http://127.0.0.2:{port}/!/",
]
#: Parts of an address that lead nowhere else: what is before them counts.
TAILS = ["http://127.0.0.2:{port}/#@public.example/", "http://127.0.0.2:{port}/?@public.example/"]


class Trap:
    """Listens on private addresses; whoever connects is seen."""

    def __init__(self) -> None:
        self._listeners: list[socket.socket] = []
        self.port, self.has_ipv6 = 0, True
        for family, address in ((socket.AF_INET, "127.0.0.2"), (socket.AF_INET6, "::1")):
            try:
                listener = socket.socket(family)
                listener.bind((address, self.port))
            except OSError:  # a machine without IPv6
                assert family is socket.AF_INET6
                self.has_ipv6 = False
                continue
            listener.listen()
            listener.setblocking(False)
            self.port = listener.getsockname()[1]
            self._listeners.append(listener)

    def caught(self) -> int:
        """How many connections there were."""
        caught = 0
        for listener in self._listeners:
            try:
                listener.accept()[0].close()
                caught += 1
            except BlockingIOError:
                continue
        return caught

    def close(self) -> None:
        for listener in self._listeners:
            listener.close()


class Names:
    """In place of name resolution: nothing leaves the machine."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.known = {"trap.example": ["127.0.0.2"], "trap6.example": ["::1"], "localhost": ["127.0.0.2"]}
        self.asked: list[str] = []
        self._real = socket.getaddrinfo
        monkeypatch.setattr("sources.addresses.socket.getaddrinfo", self)

    def __call__(self, host: str, port: int, family: int = 0, kind: int = 0, *_: Any) -> list[Any]:
        self.asked.append(host)
        known = self.known.get(host.rstrip(".").lower(), [host])
        address = known.pop(0) if len(known) > 1 else known[0]
        return self._real(address, port, 0, kind, 0, socket.AI_NUMERICHOST)


@pytest.fixture
def trap() -> Iterator[Trap]:
    trap = Trap()
    yield trap
    assert trap.caught() == 0
    trap.close()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """127.0.0.1 passes for a public address, everything else is what it is."""
    real = addresses.is_public
    monkeypatch.setattr("sources.addresses.is_public", lambda address: address == "127.0.0.1" or real(address))
    return Names(monkeypatch)


@pytest.fixture
def site(names: Names) -> Iterator[Site]:
    with Site() as site:
        names.known["public.example"] = ["127.0.0.1"]
        yield site


def test_the_trap_would_notice(names: Names) -> None:
    trap = Trap()
    with open_http(allow_private_networks=True, read_timeout_s=0.05) as http:
        with pytest.raises(ScrapeFailed, match="sent nothing"):
            http.get(f"http://127.0.0.2:{trap.port}/")
    assert trap.caught() == 1
    trap.close()


@pytest.mark.parametrize("url", [*PRIVATE, *UNUSABLE, *TAILS])
def test_it_is_refused_with_one_clear_error(trap: Trap, names: Names, url: str) -> None:
    with open_http(allow_private_networks=False) as http, pytest.raises(ScrapeFailed, match=CLEAR):
        http.get(url.format(port=trap.port))


@pytest.mark.parametrize("url", [*PRIVATE, *UNUSABLE[:8], *UNUSABLE[15:], *TAILS])
def test_it_is_refused_behind_redirects_too(trap: Trap, site: Site, url: str) -> None:
    target = url.format(port=trap.port)
    site.answer("/1", status=301, Location="/2")
    site.answer("/2", status=302, Location=f"http://public.example:{site.port}/3")
    site.send("/3", b"HTTP/1.1 307 Away\r\nLocation: " + target.encode() + b"\r\n\r\n")
    with open_http(allow_private_networks=False) as http, pytest.raises(ScrapeFailed, match=CLEAR):
        http.get(site.url("/1"))
    assert [asked.path for asked in site.asked] == ["/1", "/2", "/3"]


@pytest.mark.parametrize("url", PRIVATE[::6])
def test_a_robots_txt_leads_nowhere_either(trap: Trap, site: Site, url: str) -> None:
    target = url.format(port=trap.port)
    site.send("/robots.txt", b"HTTP/1.1 302 Away\r\nLocation: " + target.encode() + b"\r\n\r\n")
    with polite(FakeDaemon(), site.host, allow_private_networks=False) as http:
        with pytest.raises(ScrapeFailed, match="is private"):
            http.get(site.url())
    assert [asked.path for asked in site.asked] == ["/robots.txt"]


# -- names that turn -------------------------------------------------------------------------------------------------


def test_a_name_that_turns_after_it_was_checked_is_connected_to_where_it_was_checked(
    trap: Trap, names: Names, site: Site
) -> None:
    names.known["turns.example"] = ["127.0.0.1", "127.0.0.2"]
    site.answer("/feed", b"here")
    with open_http(allow_private_networks=False) as http:
        assert http.get(f"http://turns.example:{site.port}/feed").body == b"here"
        assert names.asked == ["turns.example"]
        with pytest.raises(ScrapeFailed, match=r"127\.0\.0\.2 is private"):
            http.get(f"http://turns.example:{trap.port}/feed")


def test_a_name_that_turns_between_two_redirects_is_refused(trap: Trap, names: Names, site: Site) -> None:
    names.known["turns.example"] = ["127.0.0.1", "127.0.0.2"]
    site.answer("/feed", status=302, Location=f"http://turns.example:{trap.port}/")
    with open_http(allow_private_networks=False) as http, pytest.raises(ScrapeFailed, match="is private"):
        http.get(f"http://turns.example:{site.port}/feed")
    assert names.asked == ["turns.example", "turns.example"]


# -- what may be reached ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "[::ffff:127.0.0.1]"])
def test_a_network_that_is_allowed_is_reached_in_any_spelling_and_no_other(trap: Trap, host: str) -> None:
    if "::" in host and not trap.has_ipv6:
        pytest.skip("this machine has no IPv6")
    with Site() as site, open_http(allow_private_networks=False, allowed_networks=("127.0.0.1/32",)) as http:
        site.answer("/feed", b"here")
        assert http.get(f"http://{host}:{site.port}/feed").body == b"here"
        site.answer("/away", status=302, Location=f"http://127.0.0.2:{trap.port}/")
        with pytest.raises(ScrapeFailed, match="127.0.0.2 is private"):
            http.get(f"http://{host}:{site.port}/away")


# -- cookies and credentials -----------------------------------------------------------------------------------------


def test_cookies_stay_with_the_host_that_set_them(names: Names) -> None:
    """Neither another port nor a name beside it gets them, whatever they say they are for."""
    names.known |= {"a.public.example": ["127.0.0.1"], "b.public.example": ["127.0.0.1"]}
    with Site() as one, Site() as other, open_http(allow_private_networks=False) as http:
        for site in (one, other):
            site.answer("/feed", b"here")
        cookie = "s=secret; Domain=public.example; Path=/"
        one.answer("/set", status=302, Location=f"http://b.public.example:{one.port}/feed", Set_Cookie=cookie)
        http.get(f"http://a.public.example:{one.port}/set")
        for url in (f"http://a.public.example:{other.port}/feed", f"http://b.public.example:{one.port}/feed"):
            http.get(url)
        http.get(f"http://a.public.example:{one.port}/feed")
        sent = [asked.headers.get("cookie") for asked in (*other.asked, *one.asked)]
        assert sent == [None, None, None, None, "s=secret"]


def test_headers_and_cookies_of_the_caller_do_not_cross_hosts_nor_come_back(site: Site) -> None:
    with Site() as other, open_http() as http:
        site.answer("/feed", status=302, Location=other.url("/over"))
        other.answer("/over", status=302, Location=site.url("/back"))
        site.answer("/back", b"here")
        http.get(site.url(), headers={"X-Key": "secret", "Cookie": "a=b", "Authorization": "Bearer x"})
        secrets = [
            {name for name in ("x-key", "cookie", "authorization") if name in asked.headers}
            for asked in (*site.asked, *other.asked)
        ]
        assert secrets == [{"x-key", "cookie"}, set(), set()]
