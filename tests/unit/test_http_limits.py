"""What servers do to a client, and how the session ends it."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator

import pytest

from errors import ScrapeFailed
from sources.http import GRACE_S
from tests.support.sites import Reply, Site, open_http

OK = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


def endless(site: Site, piece: bytes) -> Iterator[bytes]:
    while not site.closing.is_set():
        yield piece


def fails(site: Site, match: str, path: str = "/feed", **options: object) -> None:
    with open_http(**options) as http, pytest.raises(ScrapeFailed, match=match) as caught:
        http.get(site.url(path))
    assert "<" not in caught.value.message


def test_a_body_longer_than_the_limit_fails(site: Site) -> None:
    site.answer_with("/feed", lambda _: Reply(body=endless(site, b"x" * 10_000)))
    fails(site, "larger than the limit of 100000 bytes", body_limit_bytes=100_000)


def test_a_body_of_exactly_the_limit_is_taken(site: Site) -> None:
    site.answer("/feed", b"x" * 1000)
    with open_http(body_limit_bytes=1000) as http:
        assert len(http.get(site.url()).body) == 1000


@pytest.mark.parametrize("length", ["1001", "0001001", "1001, 1001", "9" * 100])
def test_a_body_announced_as_too_long_is_not_waited_for(site: Site, length: str) -> None:
    def wait(*_: object) -> Iterator[bytes]:
        yield OK + b"Content-Length: " + length.encode() + b"\r\n\r\n"
        site.closing.wait(10)

    site.answer_with("/feed", lambda _: Reply(body=wait(), raw=True))
    fails(site, "larger than the limit of 1000 bytes", body_limit_bytes=1000, read_timeout_s=3.0)


@pytest.mark.parametrize("length", ["abc", "-5", "٣", "1e3", "", "9" * 5000])
def test_a_length_that_is_no_number_is_ignored(site: Site, length: str) -> None:
    site.send("/feed", OK + b"Content-Length: " + length.encode() + b"\r\n\r\nbody")
    with open_http() as http:
        assert http.get(site.url()).body == b"body"


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_bomb_is_stopped_at_the_limit(site: Site, encoding: str) -> None:
    zeros = b"\0" * 50_000_000
    body = gzip.compress(zeros) if encoding == "gzip" else zlib.compress(zeros)
    site.answer("/feed", body, Content_Encoding=encoding)
    fails(site, "limit of 1000000 bytes, decompressed", body_limit_bytes=1_000_000)


def test_a_bomb_of_many_members_is_stopped_at_the_limit(site: Site) -> None:
    site.answer("/feed", gzip.compress(b"\0" * 100_000) * 100, Content_Encoding="gzip")
    fails(site, "limit of 1000000 bytes, decompressed", body_limit_bytes=1_000_000)


def test_the_body_of_a_redirect_is_not_read(site: Site) -> None:
    site.answer_with(
        "/feed", lambda _: Reply(status=302, headers={"Location": "/b"}, body=endless(site, b"x" * 10_000))
    )
    site.answer("/b", b"here")
    with open_http(body_limit_bytes=1000) as http:
        assert http.get(site.url()).body == b"here"


def test_a_bomb_in_a_redirect_is_not_inflated(site: Site) -> None:
    site.answer("/feed", b"not gzip at all", status=302, Location="/b", Content_Encoding="gzip")
    site.answer("/b", b"here")
    with open_http() as http:
        assert http.get(site.url()).body == b"here"


def test_redirects_end_at_the_limit(site: Site) -> None:
    site.answer("/feed", status=302, Location="/feed")
    fails(site, "more than 3 redirects", max_redirects=3)
    assert len(site.asked) == 4


def test_as_many_redirects_as_allowed_are_followed(site: Site) -> None:
    for step in range(3):
        site.answer(f"/{step}", status=302, Location=f"/{step + 1}")
    site.answer("/3", b"here")
    with open_http(max_redirects=3) as http:
        assert http.get(site.url("/0")).body == b"here"


@pytest.mark.parametrize(
    "response",
    [
        OK + b"Content-Length: 100\r\n\r\nshort",
        OK + b"Transfer-Encoding: chunked\r\n\r\nff\r\nshort",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n",
        OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b"x" * 1000)[:-12],
        OK + b"Content-Encoding: deflate\r\n\r\n" + zlib.compress(b"x" * 1000)[:-6],
    ],
    ids=["length", "in a chunk", "between chunks", "gzip", "deflate"],
)
def test_a_body_that_ends_too_early_fails(site: Site, response: bytes) -> None:
    site.send("/feed", response)
    fails(site, "cut short")


@pytest.mark.parametrize(
    ("response", "why"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not HTTP"),
        (b"\0\xff" * 500, "not HTTP"),
        (b"", "not HTTP"),
        (b"HTTP/1.1 abc\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 " + b"x" * 200_000, "not HTTP"),
        (OK + b"X: y\r\n" * 5000 + b"\r\n", "not HTTP"),
        (OK + b"X: " + b"y" * 200_000 + b"\r\n\r\n", "not HTTP"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", "cut short|not HTTP"),
        (OK + b"Content-Encoding: gzip\r\n\r\nnot gzip", "not compressed the way it says"),
        (OK + b"Content-Encoding: br\r\n\r\nxx", "not asked for"),
        (OK + b"Content-Encoding: gzip, gzip\r\n\r\nxx", "not asked for"),
    ],
)
def test_what_is_no_answer_fails_in_a_sentence_of_ours(site: Site, response: bytes, why: str) -> None:
    site.send("/feed", response)
    fails(site, why)


def test_a_server_that_never_answers_is_given_up(site: Site) -> None:
    def wait(*_: object) -> Reply:
        site.closing.wait(10)
        return Reply()

    site.answer_with("/feed", wait)
    fails(site, "sent nothing for 0.2 s", read_timeout_s=0.2)


def test_a_server_that_stops_in_the_middle_is_given_up(site: Site) -> None:
    def half() -> Iterator[bytes]:
        yield b"half"
        site.closing.wait(10)

    site.answer_with("/feed", lambda _: Reply(body=half()))
    fails(site, "sent nothing for 0.2 s", read_timeout_s=0.2)


def test_a_body_without_end_is_ended_with_the_budget(site: Site) -> None:
    site.answer_with("/feed", lambda _: Reply(body=endless(site, b"x")))
    fails(site, "time for this run was used up", budget_s=0.3 - GRACE_S)


def test_no_request_is_made_when_the_budget_is_gone(site: Site) -> None:
    site.answer("/feed", b"x")
    fails(site, "time for this run was used up", budget_s=-GRACE_S - 1)
    assert site.asked == []


def test_a_refused_connection_names_the_host() -> None:
    with Site() as site:
        port = site.port
    with open_http() as http, pytest.raises(ScrapeFailed, match=f"127.0.0.1:{port} refused the connection"):
        http.get(f"http://127.0.0.1:{port}/")


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://h/", "http://", "http://u:p@h/", "", "http://h/a b"])
def test_an_address_that_is_not_http_is_not_asked(url: str) -> None:
    with open_http() as http, pytest.raises(ScrapeFailed):
        http.get(url)


def test_tls_with_a_server_that_speaks_none_fails_in_a_sentence(site: Site) -> None:
    with open_http(read_timeout_s=2.0, connect_timeout_s=2.0) as http, pytest.raises(ScrapeFailed, match="secure|HTTP"):
        http.get(site.url().replace("http:", "https:"))
