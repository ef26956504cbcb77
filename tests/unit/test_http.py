"""What the HTTP session sends, follows and understands."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from errors import ScrapeFailed
from model import MAX_WAIT_S
from sources.http import BadStatus
from sources.limits import UNSAID_S
from tests.support.sites import Asked, Progress, Reply, Site, open_http


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


def test_a_body_is_read_to_its_end(site: Site) -> None:
    site.answer("/feed", b"hello", Content_Type="text/plain; charset=UTF-8")
    with open_http() as http:
        answer = http.get(site.url())
    assert (answer.status, answer.body, answer.charset, answer.url) == (200, b"hello", "utf-8", site.url())


def test_the_user_agent_is_ours_and_no_credentials_are_sent(site: Site) -> None:
    site.answer("/feed", b"x")
    with open_http(user_agent="gleand/1 (+mailto:a@example.org)") as http:
        http.get(site.url(), headers={"Authorization": "Bearer secret"})
    assert site.asked[0].headers["user-agent"] == "gleand/1 (+mailto:a@example.org)"
    assert "authorization" not in site.asked[0].headers


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(b"hello")),
        ("x-gzip", gzip.compress(b"hel") + gzip.compress(b"lo")),
        ("gzip", gzip.compress(b"hello") + b"\0" * 40),
        ("deflate", zlib.compress(b"hello")),
        ("deflate", zlib.compress(b"hello", wbits=-15)),
        ("identity", b"hello"),
    ],
    ids=["gzip", "members", "padded", "zlib", "raw", "identity"],
)
def test_compressed_bodies_are_decompressed(site: Site, encoding: str, body: bytes) -> None:
    site.answer("/feed", body, Content_Encoding=encoding)
    with open_http() as http:
        assert http.get(site.url()).body == b"hello"


def test_a_chunked_body_is_put_together(site: Site) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    site.send("/feed", head, b"3\r\nabc\r\n", b"2\r\nde\r\n0\r\n\r\n")
    with open_http() as http:
        assert http.get(site.url()).body == b"abcde"


def test_every_piece_that_arrives_is_progress(site: Site) -> None:
    site.answer("/feed", [b"x" * 50_000] * 10)
    progress = Progress()
    with open_http(progress=progress) as http:
        http.get(site.url())
    assert progress[0] == "status 200"
    assert progress[-1] == "received 500000 bytes"
    assert len(progress) > 2


def test_redirects_are_followed_and_the_last_address_is_told(site: Site) -> None:
    site.answer("/feed", status=301, Location="/a")
    site.answer("/a", status=302, Location=site.url("/b"))
    site.answer("/b", b"here")
    with open_http() as http:
        answer = http.get(site.url())
    assert (answer.body, answer.url) == (b"here", site.url("/b"))


def test_headers_of_the_callers_do_not_reach_another_host(site: Site) -> None:
    with Site() as other:
        other.answer("/b", b"here")
        site.answer("/feed", status=302, Location=other.url("/b"))
        with open_http() as http:
            http.get(site.url(), headers={"X-Key": "secret", "Accept-Language": "de"})
        assert site.asked[0].headers["x-key"] == "secret"
        assert "x-key" not in other.asked[0].headers
        assert other.asked[0].headers["accept-language"] == "de"


@pytest.mark.parametrize(
    ("location", "why"),
    [
        ("file:///etc/passwd", "only http and https"),
        ("http://user:pw@127.0.0.1/", "user name or password"),
        ("http://[::1/", "bad host or port"),
        ("", "without saying where"),
    ],
)
def test_a_redirect_to_where_we_do_not_go_fails(site: Site, location: str, why: str) -> None:
    site.answer("/feed", status=302, Location=location)
    with open_http() as http, pytest.raises(ScrapeFailed, match=why):
        http.get(site.url())


def test_validators_are_sent_to_the_address_that_gave_them_and_304_has_no_body(site: Site) -> None:
    site.answer("/feed", status=304)
    with open_http(remember={"url": site.url(), "etag": '"v1"', "last_modified": "yesterday"}) as http:
        answer = http.get(site.url(), conditional=True)
    assert (answer.not_modified, answer.body) == (True, b"")
    assert site.asked[0].headers["if-none-match"] == '"v1"'
    assert site.asked[0].headers["if-modified-since"] == "yesterday"


def test_validators_of_an_address_behind_a_redirect_are_sent_there_and_not_before(site: Site) -> None:
    site.answer("/feed", status=302, Location="/real")
    site.answer("/real", status=304)
    with open_http(remember={"url": site.url("/real"), "etag": '"v1"'}) as http:
        assert http.get(site.url(), conditional=True).not_modified
    assert "if-none-match" not in site.asked[0].headers
    assert site.asked[1].headers["if-none-match"] == '"v1"'


def test_validators_are_not_sent_unasked_or_elsewhere(site: Site) -> None:
    site.answer("/feed", b"x")
    with open_http(remember={"url": site.url("/other"), "etag": '"v1"'}) as http:
        http.get(site.url(), conditional=True)
    with open_http(remember={"url": site.url(), "etag": '"v1"'}) as http:
        http.get(site.url())
    assert all("if-none-match" not in asked.headers for asked in site.asked)


def test_a_remembered_validator_cannot_smuggle_a_header_in(site: Site) -> None:
    site.answer("/feed", b"x")
    with open_http(remember={"url": site.url(), "etag": '"a"\r\nX-Evil: 1'}) as http:
        http.get(site.url(), conditional=True)
    assert "x-evil" not in site.asked[0].headers


@pytest.mark.parametrize("status", [204 + 2, 304, 400, 404, 410, 500, 503])
def test_other_statuses_fail_and_say_which(site: Site, status: int) -> None:
    site.answer("/feed", b"<b>sorry</b>", status=status)
    with open_http() as http, pytest.raises(BadStatus, match=f"the server answered with status {status}") as caught:
        http.get(site.url())
    assert caught.value.status == status
    assert caught.value.retry_after_s is None


@pytest.mark.parametrize(
    ("value", "wait_s"),
    [
        ("120", 120.0),
        ("0", 0.0),
        ("9" * 400, MAX_WAIT_S),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("-5", None),
        ("soon", None),
        ("1.5", None),
        ("Fri, 99 Xxx 99999 99:99:99 GMT", None),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_handed_on(site: Site, status: int, value: str, wait_s: float | None) -> None:
    site.answer("/feed", status=status, Retry_After=value)
    with open_http() as http, pytest.raises(BadStatus) as caught:
        http.get(site.url())
    said_nothing = UNSAID_S if status == 429 else None
    assert caught.value.retry_after_s == (said_nothing if wait_s is None else wait_s)


def test_retry_after_as_a_date_is_the_time_until_then(site: Site) -> None:
    at = datetime.now(UTC) + timedelta(hours=1)
    site.answer("/feed", status=429, Retry_After=format_datetime(at, usegmt=True))
    with open_http() as http, pytest.raises(BadStatus) as caught:
        http.get(site.url())
    assert caught.value.retry_after_s == pytest.approx(3600, abs=30)


def test_retry_after_of_another_status_is_not_believed(site: Site) -> None:
    site.answer("/feed", status=404, Retry_After="99999")
    with open_http() as http, pytest.raises(BadStatus) as caught:
        http.get(site.url())
    assert caught.value.retry_after_s is None


@pytest.mark.parametrize(
    ("content_type", "text"),
    [
        ("text/plain; charset=iso-8859-1", "\xe9"),
        ("text/plain; charset=koi8-r", "И"),
        ("text/plain", "\ufffd"),
        ("text/plain; charset=no-such", "\ufffd"),
        ("text/plain; charset=hex", "\ufffd"),
        ("text/plain; charset=punycode", "\ufffd"),
        ("text/plain; charset*=x'y", "\ufffd"),
        ("text/plain; charset*0*=utf-8''%zz; charset*1=\udcff", "\ufffd"),
    ],
)
def test_the_text_of_an_answer_never_raises(site: Site, content_type: str, text: str) -> None:
    value = content_type.encode("utf-8", "surrogateescape")
    site.send("/feed", b"HTTP/1.1 200 OK\r\nContent-Type: " + value + b"\r\n\r\n\xe9")
    with open_http() as http:
        assert http.get(site.url()).text == text


def test_a_reply_may_depend_on_what_was_asked(site: Site) -> None:
    def reply(asked: Asked) -> Reply:
        return Reply(status=304) if asked.headers.get("if-none-match") == '"v1"' else Reply(body=b"new")

    site.answer_with("/feed", reply)
    with open_http(remember={"url": site.url(), "etag": '"v1"'}) as http:
        assert http.get(site.url(), conditional=True).not_modified
        assert http.get(site.url()).body == b"new"
