"""What all sources with an API have in common: pages, what is remembered, and what becomes of bad answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from errors import ScrapeFailed
from model import Post, Profile, Remember, Window
from sources.http import BadStatus
from sources.paging import MAX_PAGES
from tests.support.services import SERVICES, published, scrape
from tests.support.sites import Asked, Reply, Scraped, Site

ALL = sorted(SERVICES)
#: Their pages are counted, so that a window is of one page at most.
NUMBERED = ("devto", "github")
every = pytest.mark.parametrize("name", ALL)


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


def play(site: Site, name: str, *pages: list[int], **headers: str) -> None:
    SERVICES[name].play(site, pages, {key.replace("_", "-"): value for key, value in headers.items()})


def numbers(name: str, found: Scraped) -> list[int]:
    by_id = {SERVICES[name].native_id(n): n for n in range(1000)}
    return [by_id[post.native_id] for post in found.posts]


def paths(site: Site) -> list[str]:
    """What was asked for since the first page of posts, which comes after who the account is."""
    return [asked.path for asked in site.asked]


def spoil(site: Site, name: str, change: Any) -> None:
    """Change the first page of posts: `change` is given its document."""
    reply = site.reply_to(Asked(path=SERVICES[name].first, headers={}))
    site.asked.pop()
    assert isinstance(reply.body, bytes)
    body = json.dumps(change(json.loads(reply.body))).encode()
    site.answer_with(SERVICES[name].first, lambda _: Reply(body=body, headers=reply.headers))


def items(document: Any) -> list[Any]:
    """The list of posts in a page of any of them."""
    if isinstance(document, list):
        return document
    found = document.get("query", document)
    return next(found[key] for key in ("items", "feed", "hits", "orderedItems", "usercontribs") if key in found)


@every
def test_the_first_run_reads_one_page_and_gives_who_what_and_what_to_remember(site: Site, name: str) -> None:
    play(site, name, [5, 4, 3], [2, 1])
    found = scrape(site, name)
    assert numbers(name, found) == [5, 4, 3]
    kinds = [type(one) for one in found.found]
    window = [] if name == "github" else [Window]
    assert kinds == [Profile, Post, Post, Post, *window, Remember]
    assert found.profile is not None and found.profile.display_name and not found.profile.url


@every
def test_a_post_has_an_id_a_page_a_time_and_a_text_of_its_own(site: Site, name: str) -> None:
    play(site, name, [5, 4])
    posts = scrape(site, name).posts
    for number, post in zip((5, 4), posts, strict=True):
        assert post.native_id == SERVICES[name].native_id(number)
        assert post.url.startswith(("https://", site.url("")))
        assert post.published_at == published(number) and post.published_at.tzinfo is not None
        assert str(number) in post.text and "<" not in post.text
        assert post.author


@every
def test_the_first_run_reads_as_many_pages_as_range_needs(site: Site, name: str) -> None:
    play(site, name, [9, 8], [7, 6], [5, 4], [3])
    assert numbers(name, scrape(site, name, wanted=5)) == [9, 8, 7, 6, 5, 4]
    assert numbers(name, scrape(site, name, wanted=2)) == [9, 8]
    assert numbers(name, scrape(site, name, wanted=100)) == [9, 8, 7, 6, 5, 4, 3]


@every
def test_a_later_run_goes_on_until_it_meets_what_is_known(site: Site, name: str) -> None:
    play(site, name, [3, 2, 1])
    first = scrape(site, name)
    play(site, name, [9, 8], [7, 6], [5, 4], [3, 2], [1])
    found = scrape(site, name, remember=first.remember)
    assert numbers(name, found) == [9, 8, 7, 6, 5, 4, 3, 2]


@every
def test_a_later_run_that_meets_what_is_known_at_once_reads_one_page(site: Site, name: str) -> None:
    play(site, name, [3, 2, 1])
    first = scrape(site, name, wanted=50)
    play(site, name, [4, 3], [2, 1])
    asked = len(site.asked)
    found = scrape(site, name, remember=first.remember, wanted=50)
    assert numbers(name, found) == [4, 3]
    assert paths(site)[asked:][-1] == SERVICES[name].first


@every
def test_what_is_known_is_met_also_when_its_newest_is_gone(site: Site, name: str) -> None:
    play(site, name, [3, 2, 1])
    first = scrape(site, name)
    play(site, name, [9, 8], [7, 2], [1])
    assert numbers(name, scrape(site, name, remember=first.remember)) == [9, 8, 7, 2]


@every
def test_a_later_run_goes_no_further_than_range_beyond_the_first_page(site: Site, name: str) -> None:
    play(site, name, [1])
    first = scrape(site, name)
    play(site, name, [20, 19], [18, 17], [16, 15], [14, 13], [12, 11])
    assert numbers(name, scrape(site, name, remember=first.remember, wanted=3)) == [20, 19, 18, 17, 16, 15]


@every
def test_a_later_run_without_range_ends_after_so_many_pages(site: Site, name: str) -> None:
    play(site, name, [1])
    first = scrape(site, name)
    play(site, name, *([n] for n in range(40, 10, -1)))
    found = scrape(site, name, remember=first.remember)
    assert numbers(name, found) == list(range(40, 40 - MAX_PAGES, -1))
    play(site, name, [42, 41, 40], [39])
    assert numbers(name, scrape(site, name, remember=found.remember)) == [42, 41, 40]


@every
def test_several_pages_are_a_window_unless_they_are_counted(site: Site, name: str) -> None:
    play(site, name, [5, 4], [3, 2])
    found = scrape(site, name, wanted=4)
    assert any(isinstance(one, Window) for one in found.found) == (name not in NUMBERED)


@every
def test_a_page_that_leads_to_itself_is_read_once(site: Site, name: str) -> None:
    play(site, name, [5, 4], [5, 4], [5, 4])
    assert numbers(name, scrape(site, name, wanted=50)) == [5, 4]


@every
def test_an_unchanged_first_page_gives_nothing_and_is_asked_for_alone(site: Site, name: str) -> None:
    play(site, name, [2, 1], ETag='"v1"')
    first = scrape(site, name)
    page = SERVICES[name].first

    def reply(asked: Asked) -> Reply:
        return Reply(status=304 if asked.headers.get("if-none-match") == '"v1"' else 500)

    site.answer_with(page, reply)
    asked = len(site.asked)
    assert scrape(site, name, remember=first.remember).found == []
    assert paths(site)[asked:] == [page]


@every
def test_an_edited_post_keeps_its_identity(site: Site, name: str) -> None:
    play(site, name, [2, 1])
    before = scrape(site, name).posts

    def edited(document: Any) -> Any:
        text = json.dumps(document).replace("post 2", "post 2, edited").replace("o/r2", "o/other")
        return json.loads(text)

    spoil(site, name, edited)
    after = scrape(site, name).posts
    assert [post.native_id for post in after] == [post.native_id for post in before]
    assert (after[0].text != before[0].text, after[1].text == before[1].text) == (True, True)


@every
def test_a_deleted_post_is_missing_from_the_window(site: Site, name: str) -> None:
    play(site, name, [3, 2, 1])
    first = scrape(site, name)
    play(site, name, [3, 1])
    found = scrape(site, name, remember=first.remember)
    assert numbers(name, found) == [3, 1]
    assert any(isinstance(one, Window) for one in found.found) == (name != "github")


@every
@pytest.mark.parametrize("broken", [None, 7, [], {}, "x"])
def test_one_broken_item_loses_none_of_the_others_and_the_window(site: Site, name: str, broken: Any) -> None:
    play(site, name, [3, 2, 1])

    def change(document: Any) -> Any:
        items(document)[1] = broken
        return document

    spoil(site, name, change)
    found = scrape(site, name)
    assert numbers(name, found) == [3, 1]
    is_window = any(isinstance(one, Window) for one in found.found)
    assert not is_window


@every
def test_posts_out_of_order_are_no_window(site: Site, name: str) -> None:
    play(site, name, [1, 3, 2])
    found = scrape(site, name)
    assert numbers(name, found) == [1, 3, 2]
    assert not any(isinstance(one, Window) for one in found.found)


@every
def test_items_of_which_none_can_be_read_fail_the_run(site: Site, name: str) -> None:
    play(site, name, [2, 1])

    def change(document: Any) -> Any:
        items(document)[:] = [None, 1]
        return document

    spoil(site, name, change)
    with pytest.raises(ScrapeFailed, match="no item in the answer can be read"):
        scrape(site, name)


@every
def test_an_older_page_that_fails_loses_nothing_of_the_first_and_is_tried_again(site: Site, name: str) -> None:
    play(site, name, [2, 1], ETag='"v1"')
    first = scrape(site, name)
    play(site, name, [9, 8], [7, 6], [5, 2], ETag='"v2"')
    asked = len(site.asked)
    scrape(site, name, remember=first.remember)
    second = paths(site)[asked:][paths(site)[asked:].index(SERVICES[name].first) + 1]
    site.answer(second, status=503)
    found = scrape(site, name, remember=first.remember)
    assert numbers(name, found) == [9, 8]
    assert found.remember is not None and first.remember is not None
    assert (found.remember.get("etag"), found.remember["seen"]) == (None, first.remember["seen"])
    play(site, name, [9, 8], [7, 6], [5, 2], ETag='"v2"')
    assert numbers(name, scrape(site, name, remember=found.remember)) == [9, 8, 7, 6, 5, 2]


@every
def test_an_account_without_posts_gives_none_and_keeps_what_it_knew(site: Site, name: str) -> None:
    play(site, name, [2, 1])
    first = scrape(site, name)
    play(site, name, [])
    found = scrape(site, name, remember=first.remember)
    assert first.remember is not None and found.remember is not None
    assert [type(one) for one in found.found] == [Profile, Remember]
    assert found.remember["seen"] == first.remember["seen"]


@every
def test_too_many_requests_fails_the_run_and_says_how_long_to_wait(site: Site, name: str) -> None:
    play(site, name, [1])
    site.answer(SERVICES[name].first, status=429, Retry_After="77")
    with pytest.raises(BadStatus) as caught:
        scrape(site, name)
    assert (caught.value.status, caught.value.retry_after_s) == (429, 77)


@every
@pytest.mark.parametrize("status", [500, 502, 503])
def test_an_error_of_the_servers_fails_the_run(site: Site, name: str, status: int) -> None:
    play(site, name, [1])
    site.answer(SERVICES[name].first, status=status)
    with pytest.raises(BadStatus, match=f"status {status}"):
        scrape(site, name)


@every
def test_an_answer_that_is_cut_short_fails_the_run(site: Site, name: str) -> None:
    play(site, name, [1])
    site.answer(SERVICES[name].first, b'{"items": [', Content_Length="5000")
    with pytest.raises(ScrapeFailed, match="cut short"):
        scrape(site, name)


@every
@pytest.mark.parametrize("body", [b"", b"<html>hello</html>", b'{"items": [{"id": 1', b"[" * 100_000, b"\xff\xfe"])
def test_an_answer_that_is_not_json_fails_the_run_in_our_own_words(site: Site, name: str, body: bytes) -> None:
    play(site, name, [1])
    site.answer(SERVICES[name].first, body)
    with pytest.raises(ScrapeFailed, match="the answer is not JSON"):
        scrape(site, name)


@every
@pytest.mark.parametrize("document", [None, 1, "x", {}, {"feed": {}}, {"query": [], "hits": 1, "items": None}])
def test_an_answer_of_another_shape_fails_the_run_in_our_own_words(site: Site, name: str, document: Any) -> None:
    play(site, name, [1])
    site.answer(SERVICES[name].first, json.dumps(document).encode())
    with pytest.raises(ScrapeFailed, match="not of the shape|is no page of an outbox"):
        scrape(site, name)


@every
def test_what_is_remembered_is_small_text(site: Site, name: str) -> None:
    play(site, name, list(range(99, 0, -1)))
    remember = scrape(site, name).remember
    assert remember is not None
    assert all(isinstance(value, str) for value in remember.values())
    assert sum(map(len, remember.values())) < 2000
