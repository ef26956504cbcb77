"""Pages without a feed, in HTML: what is read of them, and how far."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from errors import ScrapeFailed
from model import Post, Profile, Remember
from sources.page import MAX_PAGES
from tests.support.pages import OPTIONS, article, page, scrape
from tests.support.sites import Asked, Reply, Site

HERE = "/authors/ann"


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


def with_options(**more: str | None) -> dict[str, Any]:
    return {key: value for key, value in (OPTIONS | more).items() if value is not None}


def only(**more: str) -> dict[str, Any]:
    return {"kind": "page", "item": "article", **more}


# -- what is read ----------------------------------------------------------------------------------------------------


def test_an_item_is_read_field_by_field(site: Site) -> None:
    site.answer(HERE, page(article(7)))
    found = scrape(site).scraped
    assert found.posts == [
        Post(
            native_id="id-7",
            url=site.url("/posts/7"),
            title="Title 7 & more",
            text="text 7\nsecond",
            html="<p>text 7</p><p>second</p><script>x()</script>",
            author="Ann Author",
            published_at=datetime(2026, 1, 2, 9, tzinfo=UTC),
            media=(site.url("/img/7.png"),),
        )
    ]
    assert found.profile == Profile(display_name="Posts of Ann")
    assert [type(one) for one in found.found] == [Profile, Post, Remember]


def test_the_handle_is_put_into_the_address_where_the_target_has_none(site: Site) -> None:
    site.answer("/authors/ann", page(article(1)))
    from model import Target
    from sources.page import bind
    from tests.support.sites import open_http

    function = bind(OPTIONS | {"url": site.url("/authors/{handle}")})
    with open_http() as http:
        found = list(function(Target(id=1, source="x", handle="ann", url=""), http))
    assert len(found) == 3


def test_without_an_id_the_link_is_the_identity_and_without_both_a_hash(site: Site) -> None:
    site.answer(HERE, page(article(1), article(2, heading="<h2>no link</h2>")))
    ids = scrape(site, with_options(id=None)).ids
    assert ids[0] == site.url("/posts/1")
    assert ids[1].startswith("sha256:")


def test_addresses_are_relative_to_where_the_page_came_from_or_to_its_base(site: Site) -> None:
    site.answer(HERE, status=302, Location="/deep/er/page")
    options = only(link="a@href", media="img@src")
    body = b"<article><a href='x'>t</a><img src='y.png'></article>"
    site.answer("/deep/er/page", body)
    assert scrape(site, options).scraped.posts[0].url == site.url("/deep/er/x")
    site.answer("/deep/er/page", b"<base href='/b/'>" + body)
    assert scrape(site, options).scraped.posts[0].media == (site.url("/b/y.png"),)


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("h2 a", "Title 1 & more"),
        ("h2 a@href", "/posts/1"),
        ("h3, h2", "Title 1 & more"),
        ("/h2/a", "Title 1 & more"),
        ("//b", "1"),
        ("//a/@href", "/posts/1"),
        ("(//p)[2]", "second"),
        ("xpath:./h2//b/text()", "1"),
        ("xpath:/html/head/title", "Posts of Ann"),
        ("xpath:string(.//time)", "yesterday"),
        ("xpath:count(.//p)", "2.0"),
        ("@data-id", "id-1"),
        ("span[class~='byline']@class", "byline"),
        ("a[href^='/posts']:not(.x)", "Title 1 & more"),
        ("article h2", "Title 1 & more"),
        ("h2 > a:first-child", "Title 1 & more"),
        ("time", "yesterday"),
    ],
)
def test_css_xpath_and_attributes(site: Site, selector: str, expected: str) -> None:
    site.answer(HERE, page(article(1), article(2)))
    assert scrape(site, only(title=selector, id="@data-id")).scraped.posts[0].title == expected


@pytest.mark.parametrize("item", ["article.post", "//article", "(//article)[position() < 3]", "xpath://main/article"])
def test_items_are_found_by_css_or_by_xpath(site: Site, item: str) -> None:
    site.answer(HERE, page(article(1), article(2)))
    assert scrape(site, with_options(item=item)).ids == ["id-1", "id-2"]


def test_an_address_is_taken_from_the_element_where_no_attribute_is_named(site: Site) -> None:
    site.answer(HERE, page(article(1)))
    (post,) = scrape(site, with_options(link="h2 a", media="img")).scraped.posts
    assert (post.url, post.media) == (site.url("/posts/1"), (site.url("/img/1.png"),))


def test_an_item_that_is_a_link_itself(site: Site) -> None:
    site.answer(HERE, b"<a class=p href=/1>One</a><a class=p href=/2>Two</a>")
    posts = scrape(site, only(item="a.p", title="a", link="@href")).scraped.posts
    assert [(post.title, post.url) for post in posts] == [("One", site.url("/1")), ("Two", site.url("/2"))]


@pytest.mark.parametrize(
    ("time", "options", "expected"),
    [
        ("<time datetime=2026-01-02T10:00:00Z>x</time>", {"date": "time"}, datetime(2026, 1, 2, 10, tzinfo=UTC)),
        ("<time>2 January 2026</time>", {"date": "time"}, datetime(2026, 1, 2, tzinfo=UTC)),
        ("<time>02.01.2026</time>", {"date": "time", "date_format": "%d.%m.%Y"}, datetime(2026, 1, 2, tzinfo=UTC)),
        (
            "<time>02.07.2026 10:00</time>",
            {"date": "time", "date_format": "%d.%m.%Y %H:%M", "timezone": "Europe/Berlin"},
            datetime(2026, 7, 2, 8, tzinfo=UTC),
        ),
        (
            "<time>2026-07-02 10:00 +0500</time>",
            {"date": "time", "date_format": "%Y-%m-%d %H:%M %z", "timezone": "Europe/Berlin"},
            datetime(2026, 7, 2, 5, tzinfo=UTC),
        ),
        (
            "<time>2026-07-02 10:00</time>",
            {"date": "time", "timezone": "Europe/Berlin"},
            datetime(2026, 7, 2, 8, tzinfo=UTC),
        ),
        ("<i data-t=1767348000>x</i>", {"date": "i@data-t"}, datetime(2026, 1, 2, 10, tzinfo=UTC)),
        ("<i data-t=1767348000000>x</i>", {"date": "i@data-t"}, datetime(2026, 1, 2, 10, tzinfo=UTC)),
        ("<time>1 January 1</time>", {"date": "time", "date_format": "%d %B %Y"}, None),
        ("<time></time>", {"date": "time"}, None),
    ],
)
def test_dates(site: Site, time: str, options: dict[str, str], expected: datetime | None) -> None:
    site.answer(HERE, page(article(1, time=time, byline="")))
    run = scrape(site, with_options(**options))
    assert run.scraped.posts[0].published_at == expected


def test_a_date_that_cannot_be_read_loses_no_item_and_is_said(site: Site) -> None:
    site.answer(HERE, page(article(1, time="<time>yesterday</time>"), article(2)))
    run = scrape(site, with_options(date="time"))
    assert [post.published_at is None for post in run.scraped.posts] == [True, False]
    assert "item 1 has a date that cannot be read" in run.progress


def test_an_item_of_which_nothing_is_found_is_left_out_and_it_is_said_why(site: Site) -> None:
    site.answer(HERE, page(article(1), '<article class="post"><p>advertisement</p></article>', article(3)))
    run = scrape(site)
    assert run.ids == ["id-1", "id-3"]
    assert "item 2 was left out: it has no title, no link, no content, no id, no media" in run.progress
    assert "1 items could not be read" in run.progress


@pytest.mark.parametrize("declared", [b"", b"<meta charset='windows-1251'>"])
def test_the_charset_that_a_page_declares_is_believed(site: Site, declared: bytes) -> None:
    charset = "windows-1251" if declared else "utf-8"
    body = declared + "<article><h2>Привет, мир</h2></article>".encode(charset)
    site.answer(HERE, body, Content_Type="text/html")
    assert scrape(site, only(title="h2")).scraped.posts[0].title == "Привет, мир"


def test_the_header_goes_before_the_pages_own_word(site: Site) -> None:
    body = b"<meta charset=utf-8>" + "<article><h2>naïve</h2></article>".encode("latin-1")
    site.answer(HERE, body, Content_Type="text/html; charset=iso-8859-1")
    assert scrape(site, only(title="h2")).scraped.posts[0].title == "naïve"


def test_content_without_markup_has_no_html_and_an_attribute_is_text(site: Site) -> None:
    site.answer(HERE, b"<article data-t='a &lt; b'><h2>x</h2></article>")
    (post,) = scrape(site, only(title="h2", content="@data-t")).scraped.posts
    assert (post.text, post.html) == ("a < b", "")


# -- what fails ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [page(), b"", b"\0\xff\xfe" * 50, b"%PDF-1.4 x", b"{}", b"<rss></rss>"])
def test_a_page_without_an_item_fails_and_names_the_selector(site: Site, body: bytes) -> None:
    site.answer(HERE, body)
    with pytest.raises(ScrapeFailed, match="the page has no item that matches 'article.post'"):
        scrape(site)


def test_a_page_of_which_no_item_can_be_read_fails(site: Site) -> None:
    site.answer(HERE, b"<article class=post></article><article class=post></article>")
    with pytest.raises(ScrapeFailed, match="none of the 2 items can be read: no field of any of them matches"):
        scrape(site)


@pytest.mark.parametrize(
    ("name", "selector"),
    [
        *(("item", "article["), ("item", "//article["), ("item", "a::before"), ("item", "xpath:foo:bar")),
        *(("title", "h2 >"), ("title", "h2@href@"), ("link", "a..b"), ("date", "(//a"), ("next", "a:unknown-thing")),
        ("title", "xpath:no-such-function()"),
    ],
)
def test_a_selector_that_cannot_be_used_is_named(site: Site, name: str, selector: str) -> None:
    site.answer(HERE, page(article(1)))
    with pytest.raises(ScrapeFailed, match=f"{name} is .*, which (is no selector|cannot be evaluated)") as caught:
        scrape(site, with_options(**{name: selector}))
    assert "\n" not in caught.value.message


def test_an_item_that_finds_attributes_is_an_error(site: Site) -> None:
    site.answer(HERE, page(article(1)))
    with pytest.raises(ScrapeFailed, match="item finds texts or attributes, not elements"):
        scrape(site, with_options(item="//article/@data-id"))


def test_a_table_that_cannot_work_fails_the_run(site: Site) -> None:
    with pytest.raises(ScrapeFailed, match="the settings of this page should give at least one of"):
        scrape(site, {"kind": "page", "item": "x"})


# -- how far ---------------------------------------------------------------------------------------------------------


def pages(site: Site, *documents: list[int], **headers: str) -> None:
    """Page after page; each leads to the next."""
    for n, numbers in enumerate(documents):
        following = f"?p={n + 1}" if n < len(documents) - 1 else ""
        body = page(*(article(number) for number in numbers), next_page=following)
        site.answer(f"{HERE}?p={n}" if n else HERE, body, **(headers if n == 0 else {}))


def numbers(run: Any) -> list[int]:
    return [int(native_id.removeprefix("id-")) for native_id in run.ids]


def test_the_first_run_reads_as_many_pages_as_range_needs(site: Site) -> None:
    pages(site, [9, 8], [7, 6], [5, 4])
    assert numbers(scrape(site, wanted=3)) == [9, 8, 7, 6]
    assert numbers(scrape(site, wanted=1)) == [9, 8]
    assert numbers(scrape(site, wanted=50)) == [9, 8, 7, 6, 5, 4]


def test_without_range_so_many_pages_are_read(site: Site) -> None:
    pages(site, *([n] for n in range(30, 0, -1)))
    assert len(scrape(site).ids) == MAX_PAGES
    assert len(scrape(site, wanted=25).ids) == 25


def test_a_later_run_goes_on_until_what_is_known(site: Site) -> None:
    pages(site, [3, 2], [1])
    first = scrape(site).scraped
    pages(site, [9, 8], [7, 6], [5, 4], [3, 2], [1])
    assert numbers(scrape(site, remember=first.remember)) == [9, 8, 7, 6, 5, 4, 3, 2]
    pages(site, [4, 3, 2], [1])
    asked = len(site.asked)
    assert numbers(scrape(site, remember=first.remember)) == [4, 3, 2]
    assert len(site.asked) == asked + 1


def test_an_item_pinned_to_the_top_does_not_end_the_walk(site: Site) -> None:
    pages(site, [1, 5, 4, 3], [2])
    first = scrape(site).scraped
    pages(site, [1, 9, 8, 7], [6, 5, 4, 3], [2])
    assert numbers(scrape(site, remember=first.remember)) == [1, 9, 8, 7, 6, 5, 4, 3]


@pytest.mark.parametrize("following", ["", "?p=1", "/authors/ann"])
def test_pages_in_a_circle_are_read_once(site: Site, following: str) -> None:
    site.answer(HERE, page(article(2), next_page="?p=1"))
    site.answer(f"{HERE}?p=1", page(article(1), next_page=following))
    assert numbers(scrape(site)) == [2, 1]


def test_a_next_page_that_has_nothing_new_ends_the_walk(site: Site) -> None:
    for n in range(50):
        site.answer(f"{HERE}?p={n}" if n else HERE, page(article(1), next_page=f"?p={n + 1}"))
    assert numbers(scrape(site)) == [1]
    assert len(site.asked) == 2


def test_a_last_page_without_items_is_the_end(site: Site) -> None:
    site.answer(HERE, page(article(2), next_page="?p=1"))
    site.answer(f"{HERE}?p=1", page())
    run = scrape(site)
    assert numbers(run) == [2]
    assert run.scraped.remember is not None and run.scraped.remember["url"]


@pytest.mark.parametrize("following", ["mailto:x", "javascript:go()", "//[", "https://u:p@127.0.0.1/"])
def test_a_next_page_that_is_no_address_ends_the_walk(site: Site, following: str) -> None:
    site.answer(HERE, page(article(2), next_page=following))
    assert numbers(scrape(site)) == [2]


def test_a_page_that_fails_loses_nothing_and_is_tried_again(site: Site) -> None:
    pages(site, [2, 1], ETag='"v1"')
    first = scrape(site).scraped
    pages(site, [9, 8], [7, 6], [5, 2], ETag='"v2"')
    site.answer(f"{HERE}?p=1", status=503)
    run = scrape(site, remember=first.remember)
    assert numbers(run) == [9, 8]
    assert "page 2 could not be had" in run.progress
    assert first.remember is not None and run.scraped.remember == {"seen": first.remember["seen"]}
    pages(site, [9, 8], [7, 6], [5, 2], ETag='"v2"')
    assert numbers(scrape(site, remember=run.scraped.remember)) == [9, 8, 7, 6, 5, 2]


def test_an_unchanged_page_gives_nothing(site: Site) -> None:
    def reply(asked: Asked) -> Reply:
        is_known = asked.headers.get("if-none-match") == '"v1"'
        return Reply(status=304) if is_known else Reply(body=page(article(1)), headers={"ETag": '"v1"'})

    site.answer_with(HERE, reply)
    first = scrape(site).scraped
    assert scrape(site, remember=first.remember).scraped.found == []


def test_items_beyond_what_a_run_may_give_are_not_fetched(site: Site) -> None:
    pages(site, *([n] for n in range(30, 0, -1)))
    assert len(scrape(site, wanted=None, max_posts=3).ids) == 3


def test_a_post_keeps_its_identity_and_changes_with_its_text(site: Site) -> None:
    site.answer(HERE, page(article(1)))
    (before,) = scrape(site).scraped.posts
    site.answer(HERE, page(article(1, body='<div class="body">edited</div>')))
    (after,) = scrape(site).scraped.posts
    assert (before.native_id, before.text != after.text) == (after.native_id, True)


def test_whatever_a_page_holds_it_is_read_or_fails_in_our_own_words(site: Site) -> None:
    rng = random.Random(2)
    whole = page(article(1), article(2, time="<time>x</time>"), next_page="?p=1").decode()
    junk = (
        "<",
        ">",
        "</article>",
        "\0",
        "<base href='//['>",
        "&#0;",
        "&#xD800;",
        "<![CDATA[",
        "<!--",
        "\ud7ff",
        "'",
        '"',
    )
    for _ in range(300):
        text = whole
        for _ in range(rng.randint(1, 8)):
            at = rng.randrange(len(text))
            text = text[:at] + rng.choice(junk) + text[at + rng.choice((0, 1, 30)) :]
        site.answer(HERE, text.encode("utf-8", "replace"))
        site.answer(f"{HERE}?p=1", page())
        try:
            for post in scrape(site).scraped.posts:
                assert post.native_id and post.url.startswith(("http", "")) and "\0" not in post.html + post.text
        except ScrapeFailed as exc:
            assert "\n" not in exc.message


def test_a_page_nested_without_end_is_no_crash(site: Site) -> None:
    site.answer(HERE, b"<article class=post><h2>x</h2>" + b"<div class=body>" * 100_000)
    assert scrape(site, with_options(id=None, title="h2")).scraped.posts[0].title == "x"
