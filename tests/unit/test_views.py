"""What clients see of posts: markup without what runs, tracks by itself or leaves the page."""

from __future__ import annotations

import pytest

from jobs.views import sanitised

PAGE = "https://example.org/posts/1"


@pytest.mark.parametrize(
    ("markup", "shown"),
    [
        ("", ""),
        ("<p>hello <b>you</b></p>", "<p>hello <b>you</b></p>"),
        ("<p onclick=x()>a<script>x()</script></p>", "<p>a</p>"),
        ('<p style="position:fixed">a</p><style>p{}</style>', "<p>a</p>"),
        ('<a href="javascript:x()">a</a>', '<a rel="noopener noreferrer">a</a>'),
        ('<img src="data:image/png;base64,xx">', "<img>"),
        ('<iframe src="https://example.net"></iframe>b', "b"),
        ('<img src="a.png" onerror="x()">', '<img src="https://example.org/posts/a.png">'),
        ('<a href="/about">a</a>', '<a href="https://example.org/about" rel="noopener noreferrer">a</a>'),
        ("<form action=/x><input name=a></form>", ""),
    ],
)
def test_markup_is_sanitised_and_its_addresses_are_absolute(markup: str, shown: str) -> None:
    assert sanitised(markup, PAGE) == shown


def test_markup_of_a_post_without_an_address_is_sanitised_too() -> None:
    assert sanitised("<b onclick=x()>a</b>", "") == "<b>a</b>"


@pytest.mark.parametrize("markup", ["<", "<<<>>>", "&#x0;", "<p" * 5000, "<svg><script>x</script></svg>"])
def test_nothing_that_a_site_can_send_breaks_it(markup: str) -> None:
    assert "script" not in sanitised(markup, PAGE)


@pytest.mark.parametrize(
    "url", ["http://[::1", "http://", "https://exa mple/", "http://a:99999/", "https://x" + "y" * 5000]
)
def test_an_address_that_is_none_is_no_base(url: str) -> None:
    assert sanitised('<a href="b">a</a>', url)
