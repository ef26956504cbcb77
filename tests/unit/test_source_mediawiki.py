"""MediaWiki: edits, and the errors that come with status 200."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from errors import ScrapeFailed
from model import Post, Profile
from sources.paging import NoAccount
from tests.support.services import CONTRIBUTIONS, answer_json, edit, published, scrape
from tests.support.sites import Site


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


def play(site: Site, edits: list[Any], *users: Any) -> None:
    answer_json(site, CONTRIBUTIONS, {"query": {"usercontribs": edits, "users": list(users)}})


def test_an_edit_is_taken_as_it_is(site: Site) -> None:
    play(site, [edit(5) | {"comment": "/* Early life */  fixed & <b>"}], {"name": "Alice A"})
    found = scrape(site, "mediawiki")
    assert found.posts == [
        Post(
            native_id="5",
            url=site.url("/index.php?diff=5"),
            title="Page 5",
            text="/* Early life */ fixed & <b>",
            author="Alice A",
            published_at=published(5),
            kind="edit",
        )
    ]
    assert found.profile == Profile(display_name="Alice A")


@pytest.mark.parametrize(("change", "text"), [(12, "+12 bytes"), (-3, "-3 bytes"), (0, "+0 bytes"), (None, "")])
def test_an_edit_without_a_comment_is_told_by_its_size(site: Site, change: Any, text: str) -> None:
    play(site, [edit(5) | {"comment": "", "sizediff": change}])
    assert scrape(site, "mediawiki").posts[0].text == text


def test_an_edit_whose_comment_was_hidden_is_kept(site: Site) -> None:
    hidden = {key: value for key, value in edit(5).items() if key not in ("comment", "user")}
    play(site, [hidden | {"commenthidden": True, "userhidden": True}, edit(4)])
    assert [post.native_id for post in scrape(site, "mediawiki").posts] == ["5", "4"]


@pytest.mark.parametrize("state", [{"missing": True}, {"invalid": True}])
def test_a_user_who_is_not_there_fails_the_run_and_says_so(site: Site, state: Any) -> None:
    play(site, [], {"name": "Alice A"} | state)
    with pytest.raises(NoAccount, match=r"w\.example has no user Alice_A"):
        scrape(site, "mediawiki")


def test_a_user_who_is_missing_but_has_edits_is_read(site: Site) -> None:
    play(site, [edit(5)], {"name": "Alice A", "missing": True})
    assert len(scrape(site, "mediawiki").posts) == 1


def test_an_address_without_edits_is_no_missing_user(site: Site) -> None:
    path = CONTRIBUTIONS.replace("Alice_A", "192.0.2.1")
    answer_json(site, path, {"query": {"usercontribs": [], "users": [{"name": "192.0.2.1", "invalid": True}]}})
    assert scrape(site, "mediawiki", "192.0.2.1@w.example").profile == Profile(display_name="192.0.2.1")


@pytest.mark.parametrize(("headers", "wait"), [({"Retry_After": "17"}, 17), ({}, 5), ({"Retry_After": "soon"}, 5)])
@pytest.mark.parametrize("code", ["maxlag", "ratelimited"])
def test_a_wiki_that_lags_is_left_alone_for_as_long_as_it_says(
    site: Site, code: str, headers: dict[str, str], wait: float
) -> None:
    answer_json(site, CONTRIBUTIONS, {"error": {"code": code, "info": "SECRET", "lag": 6.1}}, **headers)
    with pytest.raises(ScrapeFailed, match="the wiki is busy and asks to wait") as caught:
        scrape(site, "mediawiki")
    assert caught.value.retry_after_s == wait


@pytest.mark.parametrize(
    ("error", "why"),
    [
        ({"code": "baduser", "info": "SECRET"}, "takes no such name for a user"),
        ({"code": "readapidenied"}, "shows nothing to strangers"),
        ({"code": "internal_api_error"}, "refused the request"),
        ({}, "refused the request"),
        ("SECRET", "refused the request"),
    ],
)
def test_another_error_fails_the_run_in_our_own_words(site: Site, error: Any, why: str) -> None:
    answer_json(site, CONTRIBUTIONS, {"error": error})
    with pytest.raises(ScrapeFailed, match=why) as caught:
        scrape(site, "mediawiki")
    assert "SECRET" not in caught.value.message


def test_a_wiki_whose_api_is_elsewhere_fails_the_run_and_says_so(site: Site) -> None:
    with pytest.raises(ScrapeFailed, match=r"w\.example has no API where it was looked for"):
        scrape(site, "mediawiki")
