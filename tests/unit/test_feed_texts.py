"""Dates, plain text and addresses out of what people write."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from sources.dates import moment
from sources.texts import clean, link, plain

MORNING = datetime(2024, 1, 31, 10, tzinfo=UTC)
MIDNIGHT = datetime(2024, 1, 31, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        *("Wed, 31 Jan 2024 10:00:00 GMT", "Wed, 31 Jan 2024 11:00:00 +0100", "31 Jan 24 05:00 EST"),
        *("31 Jan 2024 10:00:00", "Wed, 31 January 2024 10:00:00 Z", "Wed Jan 31 10:00:00 2024"),
        *("Jan 31, 2024 10:00 am", "January 31st, 2024, 10:00", "Wed, Jan 31 2024 10:00:00 GMT"),
        *("31 Jan 2024 11:00:00 CET", "Mon, 31 Jan 2024 10:00:00 GMT", "  Wed,  31 Jan 2024\n10:00:00 GMT "),
        *("2024-01-31T10:00:00Z", "2024-01-31t10:00:00z", "2024-01-31T15:30:00+05:30", "2024-01-31T11:00:00+0100"),
        *("2024-01-31T11:00:00+01", "2024-01-31T10:00:00", "2024-01-31 10:00", "2024-01-31 10:00:00 UTC"),
        *("2024-01-31T10:00:00.000000000Z", "20240131T100000Z", "2024/1/31 10:00", "2024.01.31 10:00:00"),
    ],
)
def test_one_instant_in_many_spellings(text: str) -> None:
    assert moment(text) == MORNING


@pytest.mark.parametrize("text", ["2024-01-31", "20240131", "31 Jan 2024", "January 31, 2024", "2024-01-30T24:00:00Z"])
def test_a_day_is_its_midnight_in_utc(text: str) -> None:
    assert moment(text) == MIDNIGHT


def test_every_instant_is_aware_and_utc() -> None:
    at = moment("2024-01-31T10:00:00-08:00")
    assert at is not None
    assert at.tzinfo is UTC
    assert at.hour == 18


def test_a_leap_second_is_the_second_after() -> None:
    assert moment("Sat, 31 Dec 2016 23:59:60 GMT") == datetime(2017, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "Thu", "10", "soon", "yesterday", "1700000000", "tag:example.org,2012:1", "12:00", "2024-13-01"),
        *("2024-02-30", "0000-00-00 00:00:00", "0000-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "99999-01-01T00:00:00Z"),
        *("Mon, 01 Jan 0000 00:00:00 GMT", "Mon, 01 Jan 0001 00:00:00 +0000", "Thu, 01 Jan 99999 00:00:00 GMT"),
        *("1970-01-01T00:00:00Z", "Thu, 01 Jan 1970 00:00:00 +0000", "9999-12-31T23:59:59Z", "2024-01-31T25:00:00Z"),
        *("Wed, 31 Jan 2024 10:00:00 +9999", "2024-01-31T10:00:00+99:99", "Wed, 31 Foo 2024 10:00:00 GMT"),
        *("9" * 5000, "31 Jan 2024 " + "x" * 10_000, "\u0662\u0660\u0662\u0664-01-31", "\0", "2024-01-31T10:61:00Z"),
    ],
)
def test_what_names_no_day_is_no_date(text: str) -> None:
    assert moment(text) is None


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("a\nb", "a\nb"),
        ("a &amp; b &lt;c&gt; &nbsp;d", "a & b <c> d"),
        ("<p>a\nb</p><p>c</p>", "a b\nc"),
        ("a<br>b<br/>c", "a\nb\nc"),
        ("<ul><li>a<li>b</ul>", "a\nb"),
        ("<table><tr><td>a</td><td>b</td></tr><tr><td>c</td></tr></table>", "a b\nc"),
        ("<pre>a\n  b\n\nc</pre>", "a\nb\nc"),
        ("a<script>alert('x')</script><style>p{}</style>b", "ab"),
        ("a<!-- b -->c<img src=x onerror=alert(1)>", "ac"),
        ("<b>un<i>closed", "unclosed"),
        ("3 < 4 and 5 > 2", "3 < 4 and 5 > 2"),
        ("<p>3 < 4</p>", "3 < 4"),
        ("&amp;lt;b&amp;gt;", "&lt;b&gt;"),
        ("<p>&amp;lt;b&amp;gt;</p>", "&lt;b&gt;"),
        ("<!-- only -->", ""),
        ("<p> \n </p>", ""),
        ("<html><head><title>no</title></head><body>yes</body></html>", "yes"),
        ("<p>a\0b\ud800c</p>", "ab\ufffdc"),
        ("<p>&#150; &#x92;</p>", "\u2013 \u2019"),
    ],
)
def test_markup_becomes_what_a_person_would_read(markup: str, text: str) -> None:
    assert plain(markup) == text


@pytest.mark.parametrize("depth", [300, 5_000, 200_000])
def test_markup_nested_without_measure_keeps_its_text(depth: int) -> None:
    assert "deep" in plain("<div>" * depth + "deep" + "</div>" * depth)


def test_clean_text_is_left_alone() -> None:
    text = "tab\tand\nnewline, \u00e4 \U0001f600"
    assert clean(text) is text


@pytest.mark.parametrize(
    ("href", "url"),
    [
        ("c", "http://h/a/c"),
        ("/c?d=e#f", "http://h/c?d=e#f"),
        ("?q", "http://h/a/b?q"),
        ("HTTPS://X/y", "https://X/y"),
        ("http://h/%7Eann/100%", "http://h/%7Eann/100%"),
        ("http://[::1]:8000/x", "http://[::1]:8000/x"),
        ("ht\ntp://h/x", "http://h/x"),
        ("", ""),
        ("   ", ""),
        ("vbscript:x", ""),
        ("JaVaScRiPt:x", ""),
        ("\x01javascript:x", ""),
        ("file:///etc/passwd", ""),
        ("ftp://h/", ""),
        ("tag:h,2024:1", ""),
        ("http://[", ""),
    ],
)
def test_an_address_is_absolute_and_of_the_web_or_empty(href: str, url: str) -> None:
    assert link(href, "http://h/a/b") == url
