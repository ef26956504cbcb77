"""dev.to: articles as the API lists them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from model import Post, Profile
from sources.paging import NoAccount
from tests.support.services import ARTICLES, answer_json, article, published, scrape
from tests.support.sites import Site

FIRST = f"{ARTICLES}1"


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


def test_an_article_is_taken_as_it_is(site: Site) -> None:
    answer_json(site, FIRST, [article(5) | {"public_reactions_count": 7}])
    assert scrape(site, "devto").posts == [
        Post(
            native_id="5",
            url="https://dev.to/alice/title-5",
            title="Title 5",
            text="post 5",
            author="alice",
            published_at=published(5),
            media=("https://media.example/5.png",),
        )
    ]


def test_what_changes_by_itself_is_no_edit(site: Site) -> None:
    answer_json(site, FIRST, [article(5) | {"public_reactions_count": 7, "readable_publish_date": "today"}])
    before = scrape(site, "devto").posts
    answer_json(site, FIRST, [article(5) | {"public_reactions_count": 8, "readable_publish_date": "Jan 1"}])
    assert scrape(site, "devto").posts == before


def test_an_organisation_is_named_by_its_own_name(site: Site) -> None:
    by = {"user": {"username": "bob", "name": "Bob"}, "organization": {"username": "Alice", "name": "Alice Inc."}}
    answer_json(site, FIRST, [article(5) | by])
    found = scrape(site, "devto")
    assert (found.profile, found.posts[0].author) == (Profile(display_name="Alice Inc."), "bob")


def test_an_account_without_articles_is_looked_up_once(site: Site) -> None:
    answer_json(site, FIRST, [])
    answer_json(site, "/api/users/by_username?url=alice", {"username": "alice", "name": "Alice A."})
    first = scrape(site, "devto")
    assert (first.profile, first.posts) == (Profile(display_name="Alice A."), [])
    scrape(site, "devto", remember=first.remember)
    assert len(site.asked) == 3


@pytest.mark.parametrize("path", [FIRST, "/api/users/by_username?url=alice"])
def test_an_account_that_is_not_there_fails_the_run_and_says_so(site: Site, path: str) -> None:
    answer_json(site, FIRST, [])
    site.answer(path, status=404)
    with pytest.raises(NoAccount, match=r"dev\.to has no account alice"):
        scrape(site, "devto")
