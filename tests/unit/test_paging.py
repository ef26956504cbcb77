"""Walking pages: where it ends, and what of it is remembered."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from requests.structures import CaseInsensitiveDict

from errors import ScrapeFailed
from model import FetchLimits, Post, Remember, Target
from sources.http import Answer
from sources.paging import MAX_PAGES_ASKED, Page, Walk, is_recent, stamp, walk
from tests.support.services import Canned

FIRST = "https://h.example/0"


def post(native_id: str) -> Post:
    return Post(native_id=native_id, published_at=datetime(2026, 1, 1, tzinfo=UTC))


def answer(url: str) -> Answer:
    return Answer(status=200, url=url, headers=CaseInsensitiveDict({"ETag": '"v1"'}), body=b"")


def run(read: Any, *, limits: FetchLimits | None = None, **target: Any) -> tuple[Walk, Canned]:
    http = Canned({"": None})
    http.limits = limits or http.limits
    given = Target(id=1, source="x", handle="x", url=FIRST, **target)
    return walk(given, http, answer(FIRST), read), http


def endless(page: Answer) -> Page:
    """A page of two posts, and another behind it."""
    number = int(page.url.rpartition("/")[2])
    return Page(posts=[post(f"{number}a"), post(f"{number}b")], older=f"https://h.example/{number + 1}")


def test_no_range_leads_past_so_many_pages() -> None:
    found, _ = run(endless, range=10**6)
    assert len(found.posts) == 2 * MAX_PAGES_ASKED


def test_no_more_is_asked_for_than_a_run_may_give() -> None:
    found, _ = run(endless, limits=FetchLimits(max_posts=5), range=1000)
    assert len(found.posts) == 6


def test_a_post_that_is_on_two_pages_is_given_once() -> None:
    found, _ = run(lambda page: Page(posts=[post("1"), post("1")], older=f"{page.url}0"), range=2)
    assert [one.native_id for one in found.posts] == ["1"]


def test_pages_that_lead_in_a_circle_end() -> None:
    found, _ = run(lambda page: Page(posts=[post(page.url)], older=FIRST), range=50)
    assert len(found.posts) == 1


def test_what_cannot_be_read_behind_the_first_page_is_no_window() -> None:
    def read(page: Answer) -> Page:
        return Page(posts=[post("1")], older="https://h.example/1") if page.url == FIRST else Page(posts=[], unread=3)

    found, _ = run(read, range=50)
    assert (found.is_unbroken, found.is_complete) == (False, True)


def test_an_older_page_of_another_shape_leaves_the_first_a_window() -> None:
    def read(page: Answer) -> Page:
        if page.url != FIRST:
            raise ScrapeFailed("no")
        return Page(posts=[post("1")], older="https://h.example/1")

    found, _ = run(read, range=50)
    assert (found.is_unbroken, found.is_complete, len(found.posts)) == (True, False, 1)


def test_the_marks_are_few_and_short() -> None:
    long = [post(f"{number}{'x' * 900}") for number in range(100)]
    found, _ = run(lambda page: Page(posts=long))
    target = Target(id=1, source="x", handle="x", url=FIRST)
    remember = list(found.results(target, answer(FIRST), {"own": "y"}))[-1]
    assert isinstance(remember, Remember)
    assert remember.values["seen"].split("\n") == [one.native_id for one in long[:4]]
    assert {**remember.values, "seen": ""} == {
        **{"own": "y", "seen": "", "url": FIRST},
        **{"etag": '"v1"', "last_modified": ""},
    }


def test_a_stamp_is_recent_until_it_is_not() -> None:
    assert is_recent(stamp(), days=1)
    assert not is_recent((datetime.now(UTC) - timedelta(days=2)).isoformat(), days=1)


@pytest.mark.parametrize("text", ["", "x", "2026-01-01", "2026-01-01T00:00:00", "2999-01-01T00:00:00+00:00", "\ud800"])
def test_what_is_no_stamp_is_not_recent(text: str) -> None:
    assert not is_recent(text, days=1)
