"""How a robots.txt is fetched: redirects, sizes, encodings and what servers make of it. Source: RFC 9309."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

import pytest

from errors import ScrapeFailed
from sources.manners import ROBOTS_RETRY_S, RobotsRefuse, RobotsUnreadable
from tests.support.manners import FakeDaemon, polite
from tests.support.sites import Site

NOTHING = b"User-agent: *\nDisallow: /\n"


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        site.answer("/feed", b"here")
        yield site


@pytest.fixture
def other() -> Iterator[Site]:
    with Site() as other:
        yield other


def paths(site: Site) -> list[str]:
    return [asked.path for asked in site.asked]


def is_allowed(site: Site) -> bool:
    with polite(FakeDaemon(), site.host) as http:
        try:
            return http.get(site.url()).body == b"here"
        except RobotsRefuse:
            return False


def test_nothing_but_robots_txt_is_asked_of_a_host_that_allows_nothing(site: Site) -> None:
    site.answer("/robots.txt", NOTHING)
    assert not is_allowed(site)
    assert paths(site) == ["/robots.txt"]


def test_it_is_asked_once_in_a_run(site: Site) -> None:
    site.answer("/robots.txt", b"User-agent: *\nDisallow: /private\n")
    site.answer("/more", b"more")
    daemon = FakeDaemon()
    with polite(daemon, site.host) as http:
        assert [http.get(site.url(path)).body for path in ("/feed", "/more", "/feed")] == [b"here", b"more", b"here"]
    assert paths(site) == ["/robots.txt", "/feed", "/more", "/feed"]
    assert [host for host, _ in daemon.asked] == [site.host] * 3  # each in a turn of its own


def test_an_interface_for_programs_does_not_ask(site: Site) -> None:
    site.answer("/robots.txt", NOTHING)
    with polite(FakeDaemon(), site.host) as http:
        assert http.get(site.url(), is_api=True).body == b"here"
    assert paths(site) == ["/feed"]


def test_it_is_asked_for_politely(site: Site) -> None:
    with polite(FakeDaemon(), site.host, agent="gleand/1 (+mailto:a@example.org)") as http:
        http.get(site.url())
    assert site.asked[0].headers["user-agent"] == "gleand/1 (+mailto:a@example.org)"
    assert "text/plain" in site.asked[0].headers["accept"]


# -- redirects -------------------------------------------------------------------------------------------------------


def test_a_redirect_to_another_path_is_followed(site: Site) -> None:
    site.answer("/robots.txt", status=301, Location="/files/robots")
    site.answer("/files/robots", NOTHING)
    assert not is_allowed(site)


def test_a_redirect_to_another_host_is_followed_in_a_turn_there_and_counts_for_the_first(
    site: Site, other: Site
) -> None:
    site.answer("/robots.txt", status=302, Location=other.url("/robots.txt"))
    other.answer("/robots.txt", NOTHING)
    daemon = FakeDaemon()
    with polite(daemon, site.host) as http, pytest.raises(RobotsRefuse, match=f"the robots.txt of {site.host}"):
        http.get(site.url())
    assert daemon.asked == [(other.host, [site.host])]
    assert set(daemon.known) == {site.host}
    assert paths(other) == ["/robots.txt"]


@pytest.mark.parametrize(("hops", "allowed"), [(5, False), (6, True)])
def test_five_redirects_are_followed_and_what_is_behind_more_is_none(site: Site, hops: int, allowed: bool) -> None:
    places = ["/robots.txt", *(f"/r{n}" for n in range(1, hops + 1))]
    for place, following in zip(places, places[1:], strict=False):
        site.answer(place, status=302, Location=following)
    site.answer(places[-1], NOTHING)
    assert is_allowed(site) is allowed


@pytest.mark.parametrize("location", ["", "about:blank", "ftp://a.example/robots.txt", "http://[::1/"])
def test_a_redirect_to_where_nobody_goes_is_none(site: Site, location: str) -> None:
    site.answer("/robots.txt", status=302, Location=location)
    assert is_allowed(site)


def test_a_redirect_of_the_feed_to_another_host_asks_that_hosts_robots_txt(site: Site, other: Site) -> None:
    site.answer("/moved", status=302, Location=other.url("/feed"))
    other.answer("/robots.txt", NOTHING)
    other.answer("/feed", b"here")
    with polite(FakeDaemon(), site.host) as http, pytest.raises(RobotsRefuse, match=f"the robots.txt of {other.host}"):
        http.get(site.url("/moved"))
    assert (paths(site), paths(other)) == (["/robots.txt", "/moved"], ["/robots.txt"])


# -- what comes ------------------------------------------------------------------------------------------------------


def padded(size: int) -> bytes:
    """Lines of comment, as many bytes."""
    line = b"#" + b"x" * 98 + b"\n"
    return line * (size // len(line)) + b"#" * (size % len(line) - 1) + b"\n"


@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize(("size", "allowed"), [(499 * 1024, False), (501 * 1024, True), (5_000_000, True)])
def test_five_hundred_kib_are_read_and_no_more(site: Site, size: int, allowed: bool, is_packed: bool) -> None:
    text = padded(size) + NOTHING
    if is_packed:
        site.answer("/robots.txt", gzip.compress(text), Content_Encoding="gzip")
    else:
        site.answer("/robots.txt", [text[at : at + 70_000] for at in range(0, len(text), 70_000)])
    assert is_allowed(site) is allowed


def test_a_rule_that_is_cut_in_two_is_left_out(site: Site) -> None:
    head = b"User-agent: *\n"
    rule = b"Disallow: /"
    text = head + padded(500 * 1024 - len(head) - len(rule)) + rule + b"private\n"
    site.answer("/robots.txt", text)
    assert is_allowed(site)


@pytest.mark.parametrize(
    "body", [bytes(range(256)) * 40, b"\xff" * 600_000, b"\x1f\x8b" * 9, b"\n" * 9999, b"\xef\xbb\xbf"]
)
def test_garbage_allows_everything(site: Site, body: bytes) -> None:
    site.answer("/robots.txt", body, Content_Type="text/plain; charset=utf-7")
    assert is_allowed(site)


@pytest.mark.parametrize(
    "junk", [b"\xff\xfe\n", b"\xef\xbb\xbf", b"\0\n", b"User-agent: caf\xe9\nDisallow: /caf\xe9\n\n"]
)
def test_garbage_before_a_rule_does_not_hide_it(site: Site, junk: bytes) -> None:
    site.answer("/robots.txt", junk + NOTHING)
    assert not is_allowed(site)


@pytest.mark.parametrize(
    ("head", "why"),
    [
        (b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello", "not compressed the way it says"),
        (b"Content-Length: 500\r\n\r\nUser-agent", "was cut short"),
        (b"Content-Encoding: br\r\n\r\nhello", "was not asked for"),
    ],
)
def test_an_answer_that_cannot_be_read_allows_nothing(site: Site, head: bytes, why: str) -> None:
    site.send("/robots.txt", b"HTTP/1.1 200 OK\r\n" + head)
    with polite(FakeDaemon(), site.host) as http, pytest.raises(RobotsUnreadable, match=why):
        http.get(site.url())
    assert paths(site) == ["/robots.txt"]


def test_what_is_not_http_allows_nothing(site: Site) -> None:
    site.send("/robots.txt", b"HELO\r\n\r\n")
    with polite(FakeDaemon(), site.host) as http, pytest.raises(ScrapeFailed, match="is not HTTP"):
        http.get(site.url())
    assert paths(site) == ["/robots.txt"]


def test_a_limit_is_told_for_the_host_and_nothing_is_fetched(site: Site) -> None:
    site.answer("/robots.txt", status=429, Retry_After="120")
    daemon = FakeDaemon()
    with polite(daemon, site.host) as http, pytest.raises(RobotsUnreadable, match="status 429") as caught:
        http.get(site.url())
    assert (daemon.waits, caught.value.retry_after_s) == (
        [(site.host, 120.0, "the host asked to wait (Retry-After)")],
        ROBOTS_RETRY_S,
    )
    assert paths(site) == ["/robots.txt"]


def test_when_nobody_answers_that_is_the_reason(site: Site) -> None:
    with Site() as gone:
        url, host = gone.url(), gone.host
    with polite(FakeDaemon(), host) as http, pytest.raises(ScrapeFailed, match="refused the connection") as caught:
        http.get(url)
    assert not isinstance(caught.value, RobotsUnreadable)
