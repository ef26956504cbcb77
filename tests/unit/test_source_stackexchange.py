"""Stack Exchange: questions and answers, and the wishes that the API puts into its answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from errors import ScrapeFailed
from model import Post, Profile, Target, Window
from sources import stackexchange
from sources.paging import NoAccount
from tests.support.services import (
    QUESTIONS,
    SERVICES,
    Canned,
    answer_json,
    answered,
    published,
    registry,
    scrape,
    sorted_out,
    unix,
)
from tests.support.sites import Scraped, Site


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


def one(site: Site, **changes: Any) -> Post:
    answer_json(site, QUESTIONS, {"items": [answered(5) | changes], "has_more": False})
    (post,) = scrape(site, "stackexchange").posts
    return post


def test_an_answer_is_taken_as_it_is(site: Site) -> None:
    assert one(site, body="<p>Use <code>x</code></p>", title="How?") == Post(
        native_id="5",
        url="https://stackoverflow.com/a/5",
        text="Use x",
        html="<p>Use <code>x</code></p>",
        author="Alice & A.",
        published_at=published(5),
        kind="comment",
    )


def test_a_question_has_a_title(site: Site) -> None:
    post = one(site, post_type="question", title="Why is &#39;x&#39; &lt; y?")
    assert (post.title, post.kind) == ("Why is 'x' < y?", "post")


def test_the_user_is_named(site: Site) -> None:
    answer_json(site, QUESTIONS, {"items": [answered(5)]})
    assert scrape(site, "stackexchange").profile == Profile(display_name="Alice & A.")


class _Told(Canned):
    """Keeps what the daemon would be told."""

    told: list[tuple[str, float]]

    def leave_alone(self, url: str, seconds: float, why: str) -> None:
        self.told.append((url, seconds))


def run(document: Any, **target: Any) -> tuple[_Told, Scraped]:
    who = registry("stackexchange", "https://h.example").resolve(
        SERVICES["stackexchange"].handle, source="stackexchange"
    )
    http = _Told({"/": document})
    http.told = []
    asked = Target(id=1, source="stackexchange", handle=who.handle, url=who.url, **target)
    return http, sorted_out(stackexchange.scrape(asked, http))


def test_a_backoff_is_obeyed_and_ends_the_walk(site: Site) -> None:
    document = {"items": [answered(5)], "has_more": True, "backoff": 30, "quota_remaining": 9}
    http, found = run(document, range=50, remember={"seen": "1"})
    assert http.told == [(f"https://h.example{QUESTIONS}", 30.0)]
    assert [post.native_id for post in found.posts] == ["5"]
    assert found.remember == {"seen": "1"}, "the next run walks the same way again"
    assert any(isinstance(one, Window) for one in found.found)


def test_a_backoff_where_no_more_was_wanted_leaves_the_run_complete(site: Site) -> None:
    http, found = run({"items": [answered(5)], "has_more": True, "backoff": 30})
    assert len(http.told) == 1
    assert found.remember is not None and found.remember["seen"] == "5"


def test_a_quota_that_is_used_up_lasts_until_midnight(site: Site) -> None:
    http, found = run({"items": [answered(5)], "has_more": False, "quota_remaining": 0})
    ((_, seconds),) = http.told
    assert 0 < seconds <= 86400
    assert len(found.posts) == 1


@pytest.mark.parametrize("wishes", [{"backoff": 0}, {"backoff": "9"}, {"backoff": -1}, {"quota_remaining": None}, {}])
def test_no_wish_is_no_wish(site: Site, wishes: Any) -> None:
    http, _ = run({"items": [answered(5)], "has_more": False} | wishes)
    assert http.told == []


def test_older_pages_are_asked_for_by_time(site: Site) -> None:
    answer_json(site, QUESTIONS, {"items": [answered(5), answered(4)], "has_more": True})
    answer_json(site, f"{QUESTIONS}&todate={unix(4)}", {"items": [answered(4), answered(3)], "has_more": False})
    assert [post.native_id for post in scrape(site, "stackexchange", wanted=9).posts] == ["5", "4", "3"]


def test_a_user_without_posts_is_looked_up(site: Site) -> None:
    answer_json(site, QUESTIONS, {"items": [], "has_more": False})
    answer_json(site, "/users/12?site=stackoverflow", {"items": [{"display_name": "Alice"}]})
    assert scrape(site, "stackexchange").profile == Profile(display_name="Alice")


def test_a_user_who_is_not_there_fails_the_run_and_says_so(site: Site) -> None:
    answer_json(site, QUESTIONS, {"items": [], "has_more": False})
    answer_json(site, "/users/12?site=stackoverflow", {"items": []})
    with pytest.raises(NoAccount, match="stackoverflow has no user 12"):
        scrape(site, "stackexchange")


@pytest.mark.parametrize(
    ("words", "wait_s"), [("too many requests from this IP, more requests available in 4321 seconds", 4321), ("X", 600)]
)
def test_too_many_requests_are_told_from_a_site_that_is_not_there(site: Site, words: str, wait_s: float) -> None:
    site.answer(QUESTIONS, json.dumps({"error_id": 502, "error_message": words}).encode(), status=400)
    with pytest.raises(ScrapeFailed, match="^Stack Exchange had too many requests from here$") as caught:
        scrape(site, "stackexchange")
    assert caught.value.retry_after_s == wait_s


@pytest.mark.parametrize("body", [b'{"error_id": 400, "error_message": "SECRET"}', b"SECRET", b"[]", b""])
def test_a_site_that_is_not_there_is_named(site: Site, body: bytes) -> None:
    site.answer(QUESTIONS, body, status=400)
    with pytest.raises(NoAccount, match="^Stack Exchange has no site stackoverflow$"):
        scrape(site, "stackexchange")
