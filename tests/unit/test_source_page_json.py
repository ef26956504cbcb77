"""Pages without a feed, in JSON: paths, lists, numbers, and what is no JSON."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from errors import ScrapeFailed
from model import Post, Profile
from tests.support.pages import scrape
from tests.support.services import JUNK
from tests.support.sites import Site

HERE = "/authors/ann"
OPTIONS = {
    "kind": "page",
    "format": "json",
    "item": "$.posts[*]",
    "title": "name",
    "link": "$.links.html",
    "date": "created",
    "author": "user.name",
    "content": "body",
    "id": "id",
    "media": "images[*].url",
    "next": "$.paging.next",
}


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


def item(number: int) -> dict[str, Any]:
    return {
        "id": number,
        "name": f"Title {number}",
        "links": {"html": f"/posts/{number}"},
        "created": 1767348000,
        "user": {"name": "Ann"},
        "body": f"<p>text {number}</p>",
        "images": [{"url": "a.png"}, {"url": "/b.png"}],
    }


def answer(site: Site, *items: Any, path: str = HERE, next_page: object = None, **headers: str) -> None:
    site.answer(path, json.dumps({"posts": items, "paging": {"next": next_page}}).encode(), **headers)


def test_an_item_is_read_field_by_field(site: Site) -> None:
    answer(site, item(7))
    found = scrape(site, OPTIONS).scraped
    assert found.posts == [
        Post(
            native_id="7",
            url=site.url("/posts/7"),
            title="Title 7",
            text="text 7",
            html="<p>text 7</p>",
            author="Ann",
            published_at=datetime(2026, 1, 2, 10, tzinfo=UTC),
            media=(site.url("/authors/a.png"), site.url("/b.png")),
        )
    ]
    assert found.profile == Profile()


@pytest.mark.parametrize("path", ["$.posts[*]", "$.posts", "posts", "posts[*]", "$..posts[?@.id]", "$['posts'][0:5]"])
def test_a_path_to_a_list_and_one_to_its_elements_are_the_same(site: Site, path: str) -> None:
    answer(site, item(2), item(1))
    assert scrape(site, OPTIONS | {"item": path}).ids == ["2", "1"]


def test_an_answer_that_is_a_list(site: Site) -> None:
    site.answer(HERE, json.dumps([item(2), item(1)]).encode())
    assert scrape(site, OPTIONS | {"item": "$[*]"}).ids == ["2", "1"]
    assert scrape(site, OPTIONS | {"item": "$"}).ids == ["2", "1"]


def test_plain_text_stays_plain(site: Site) -> None:
    answer(site, item(1) | {"body": "1 < 2\n\nand  so on"})
    (post,) = scrape(site, OPTIONS).scraped.posts
    assert (post.text, post.html) == ("1 < 2\nand so on", "")


@pytest.mark.parametrize(
    ("created", "expected"),
    [
        ("2026-01-02T10:00:00Z", datetime(2026, 1, 2, 10, tzinfo=UTC)),
        (1767348000, datetime(2026, 1, 2, 10, tzinfo=UTC)),
        (1767348000.5, datetime(2026, 1, 2, 10, 0, 0, 500_000, tzinfo=UTC)),
        (1767348000123, datetime(2026, 1, 2, 10, 0, 0, 123_000, tzinfo=UTC)),
        ("1767348000", datetime(2026, 1, 2, 10, tzinfo=UTC)),
        *((0, None), (True, None), (10**30, None), ("", None), (None, None), ([], None)),
    ],
)
def test_dates(site: Site, created: object, expected: datetime | None) -> None:
    answer(site, item(1) | {"created": created})
    assert scrape(site, OPTIONS).scraped.posts[0].published_at == expected


@pytest.mark.parametrize(
    ("images", "media"),
    [(["/a", {"href": "/b"}, {"x": 1}, None, 3], ["/a", "/b"]), ("/a", ["/a"]), ({"src": "/a"}, ["/a"]), (None, [])],
)
def test_media_may_be_texts_or_objects(site: Site, images: object, media: list[str]) -> None:
    answer(site, item(1) | {"images": images})
    (post,) = scrape(site, OPTIONS | {"media": "images"}).scraped.posts
    assert [one for one in post.media if not one.endswith("/3")] == [site.url(path) for path in media]


def test_pages_are_followed(site: Site) -> None:
    answer(site, item(3), next_page="?page=2")
    answer(site, item(2), path=f"{HERE}?page=2", next_page=site.url("/more"))
    answer(site, item(1), path="/more")
    assert scrape(site, OPTIONS).ids == ["3", "2", "1"]
    assert site.asked[0].headers["accept"].startswith("application/json")


def test_items_that_are_none_are_counted_and_lose_no_others(site: Site) -> None:
    answer(site, item(2), None, 7, "x", {}, item(1))
    run = scrape(site, OPTIONS)
    assert run.ids == ["2", "1"]
    assert "4 items could not be read" in run.progress


def test_an_answer_without_an_item_fails_and_names_the_path(site: Site) -> None:
    answer(site)
    with pytest.raises(ScrapeFailed, match=r"the answer has no item that matches '\$.posts\[\*\]'"):
        scrape(site, OPTIONS)


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"posts": [', b"[" * 100_000])
def test_what_is_no_json_fails(site: Site, body: bytes) -> None:
    site.answer(HERE, body)
    with pytest.raises(ScrapeFailed, match="the answer is not JSON"):
        scrape(site, OPTIONS)


@pytest.mark.parametrize(("name", "path"), [("item", "$.["), ("title", "a b"), ("next", "$['x"), ("date", "@.x")])
def test_a_path_that_cannot_be_parsed_is_named(site: Site, name: str, path: str) -> None:
    with pytest.raises(ScrapeFailed, match=f"{name} is .*, which is no JSONPath: ") as caught:
        scrape(site, OPTIONS | {name: path})
    assert "\n" not in caught.value.message


def test_a_document_deeper_than_any_recursion_is_an_error_and_no_crash(site: Site) -> None:
    site.answer(HERE, b'{"a":' * 900 + b"1" + b"}" * 900)
    with pytest.raises(ScrapeFailed):
        scrape(site, OPTIONS | {"item": "$..posts[*]"})


def test_whatever_stands_where_it_is_read_or_fails_in_our_own_words(site: Site) -> None:
    rng = random.Random(3)
    for _ in range(600):
        one = {key: rng.choice((value, rng.choice(JUNK))) for key, value in item(1).items()}
        answer(site, rng.choice((one, rng.choice(JUNK))), one, next_page=rng.choice((None, rng.choice(JUNK))))
        try:
            for post in scrape(site, OPTIONS).scraped.posts:
                assert post.native_id and all(address.startswith("http") for address in post.media)
        except ScrapeFailed as exc:
            assert "\n" not in exc.message
