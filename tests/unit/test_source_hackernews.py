"""Hacker News: stories and comments as the search gives them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from model import Post, Profile
from sources.paging import NoAccount
from tests.support.services import HITS, answer_json, hit, published, scrape
from tests.support.sites import Site


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


def one(site: Site, **changes: Any) -> Post:
    answer_json(site, HITS, {"hits": [hit(5) | changes]})
    (post,) = scrape(site, "hackernews").posts
    return post


def test_a_comment_is_taken_as_it_is(site: Site) -> None:
    assert one(site, comment_text="I think &#x27;so&#x27;<p>Or not", title=None) == Post(
        native_id="5",
        url="https://news.ycombinator.com/item?id=5",
        text="I think 'so'\nOr not",
        html="I think &#x27;so&#x27;<p>Or not",
        author="alice",
        published_at=published(5),
        kind="comment",
    )


def test_a_story_has_a_title_and_the_address_it_is_about(site: Site) -> None:
    post = one(site, comment_text=None, _tags=["story"], title="Show HN: X", url="https://x.example/")
    assert (post.title, post.text, post.kind) == ("Show HN: X", "https://x.example/", "post")


def test_a_question_has_its_own_text(site: Site) -> None:
    post = one(site, comment_text=None, _tags=["story", "ask_hn"], title="Ask HN: Why?", story_text="Because<p>I ask")
    assert (post.title, post.text) == ("Ask HN: Why?", "Because\nI ask")


def test_a_comment_has_no_title_of_its_own(site: Site) -> None:
    assert one(site, comment_text=None, title="The story", story_title="The story").title == ""


def test_a_time_may_be_a_text(site: Site) -> None:
    assert one(site, created_at_i=None).published_at == published(5)


def test_a_name_keeps_its_case(site: Site) -> None:
    path = HITS.replace("author_alice", "author_Alice")
    answer_json(site, path, {"hits": [hit(5)]})
    found = scrape(site, "hackernews", "Alice")
    assert found.profile == Profile(display_name="Alice") and len(found.posts) == 1


def test_an_account_without_posts_is_looked_up_once(site: Site) -> None:
    answer_json(site, HITS, {"hits": []})
    answer_json(site, "/users/alice", {"username": "alice"})
    first = scrape(site, "hackernews")
    assert first.posts == []
    scrape(site, "hackernews", remember=first.remember)
    assert [asked.path for asked in site.asked] == [HITS, "/users/alice", HITS]


def test_an_account_that_is_not_there_fails_the_run_and_says_so(site: Site) -> None:
    answer_json(site, HITS, {"hits": []})
    with pytest.raises(NoAccount, match="Hacker News has no account alice") as caught:
        scrape(site, "hackernews")
    assert caught.value.status == 404
