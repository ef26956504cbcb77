"""GitHub: events in words, limits that are kept to, the feed behind the API, and releases."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from model import Post, Profile, Window
from sources.http import BadStatus
from sources.paging import NoAccount
from tests.support.services import EVENTS, answer_json, event, published, scrape
from tests.support.sites import Site

ATOM = '<feed xmlns="http://www.w3.org/2005/Atom"><title>{}</title>{}</feed>'
ENTRY = "<entry><id>{}</id><title>{}</title><link href='https://github.com/o/r'/><updated>2026-03-0{}T00:00:00Z</updated></entry>"


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


def one(site: Site, kind: str, payload: Any) -> Post:
    told = event(5) | {"type": kind, "payload": payload, "repo": {"name": "o/r"}}
    answer_json(site, EVENTS, [told])
    (post,) = scrape(site, "github").posts
    return post


PR = {"number": 6, "title": "Fix it", "html_url": "https://github.com/o/r/pull/6", "body": "Because"}
ISSUE = {"number": 5, "title": "It broke", "html_url": "https://github.com/o/r/issues/5", "body": "How"}
COMMENT = {"body": "Me too", "html_url": "https://github.com/o/r/issues/5#c1"}
COMMITS = [{"message": "Fix a\n\nLong"}, {"message": "Fix b"}]

TOLD: list[tuple[str, Any, str, str, str]] = [
    (
        *("PushEvent", {"ref": "refs/heads/main", "size": 2, "commits": COMMITS, "before": "aa", "head": "bb"}),
        *("pushed 2 commits to o/r (main)\nFix a\nFix b", "/o/r/compare/aa...bb", "post"),
    ),
    ("PushEvent", {"size": 3}, "pushed 3 commits to o/r", "/o/r", "post"),
    ("PushEvent", {"size": 1}, "pushed 1 commit to o/r", "/o/r", "post"),
    (
        *("PushEvent", {"ref": "refs/heads/a/b", "before": "aa", "head": "bb", "push_id": 1}),
        *("pushed to o/r (a/b)", "/o/r/compare/aa...bb", "post"),
    ),
    ("CreateEvent", {"ref_type": "branch", "ref": "a/b"}, "created the branch a/b in o/r", "/o/r/tree/a/b", "post"),
    ("CreateEvent", {"ref_type": "tag", "ref": "v1"}, "created the tag v1 in o/r", "/o/r/tree/v1", "post"),
    (
        "CreateEvent",
        {"ref_type": "repository", "ref": None, "description": "D"},
        "created the repository o/r\nD",
        "/o/r",
        "post",
    ),
    ("DeleteEvent", {"ref_type": "branch", "ref": "x"}, "deleted the branch x in o/r", "/o/r", "post"),
    (
        *("ForkEvent", {"forkee": {"full_name": "x/r", "html_url": "https://github.com/x/r"}}),
        *("forked o/r to x/r", "https://github.com/x/r", "post"),
    ),
    ("WatchEvent", {"action": "started"}, "starred o/r", "/o/r", "post"),
    (
        *("IssuesEvent", {"action": "opened", "issue": ISSUE}),
        *("opened issue #5 in o/r: It broke\nHow", "https://github.com/o/r/issues/5", "post"),
    ),
    (
        *("IssuesEvent", {"action": "closed", "issue": ISSUE}),
        *("closed issue #5 in o/r: It broke", "https://github.com/o/r/issues/5", "post"),
    ),
    (
        *("IssueCommentEvent", {"action": "created", "issue": ISSUE, "comment": COMMENT}),
        *("commented on issue #5 in o/r: It broke\nMe too", "https://github.com/o/r/issues/5#c1", "comment"),
    ),
    (
        *("PullRequestEvent", {"action": "closed", "number": 6, "pull_request": PR | {"merged": True}}),
        *("merged pull request #6 in o/r: Fix it", "https://github.com/o/r/pull/6", "post"),
    ),
    ("PullRequestEvent", {"action": "opened", "number": 6}, "opened pull request #6 in o/r", "/o/r/pull/6", "post"),
    (
        *("PullRequestReviewEvent", {"pull_request": {"number": 6}, "review": {"state": "approved", "body": "Good"}}),
        *("approved pull request #6 in o/r\nGood", "/o/r/pull/6", "comment"),
    ),
    (
        *("PullRequestReviewCommentEvent", {"pull_request": {"number": 6}, "comment": {"body": "Why"}}),
        *("commented on pull request #6 in o/r\nWhy", "/o/r/pull/6", "comment"),
    ),
    (
        "CommitCommentEvent",
        {"comment": COMMENT},
        "commented on a commit in o/r\nMe too",
        COMMENT["html_url"],
        "comment",
    ),
    (
        *("ReleaseEvent", {"action": "published", "release": {"tag_name": "v1", "name": "One", "body": "New"}}),
        *("published the release v1 of o/r: One\nNew", "/o/r/releases/tag/v1", "release"),
    ),
    ("PublicEvent", {}, "made o/r public", "/o/r", "post"),
    (
        "MemberEvent",
        {"action": "added", "member": {"login": "bob"}},
        "added bob as a collaborator of o/r",
        "/o/r",
        "post",
    ),
    (
        *(
            "GollumEvent",
            {"pages": [{"title": "Home", "html_url": "https://github.com/o/r/wiki/Home"}, {"title": "A"}]},
        ),
        *("edited the wiki of o/r: Home, A", "https://github.com/o/r/wiki/Home", "edit"),
    ),
    (
        "DiscussionEvent",
        {"action": "created", "discussion": {"number": 7, "title": "Why"}},
        "created discussion #7 in o/r: Why",
        "/o/r/discussions/7",
        "post",
    ),
    ("SponsorshipEvent", {}, "sponsorship in o/r", "/o/r", "post"),
    ("PushEvent", None, "pushed to o/r", "/o/r", "post"),
    ("IssuesEvent", [], "changed an issue in o/r", "/o/r", "post"),
]


@pytest.mark.parametrize(("kind", "payload", "text", "url", "as_kind"), TOLD)
def test_an_event_is_told_in_words(site: Site, kind: str, payload: Any, text: str, url: str, as_kind: str) -> None:
    post = one(site, kind, payload)
    assert (post.text, post.kind) == (text, as_kind)
    assert post.url == (site.url(url) if url.startswith("/") else url)
    assert (post.native_id, post.author, post.published_at, post.title) == ("5", "alice", published(5), "")


def test_the_name_of_the_user_is_as_github_writes_it(site: Site) -> None:
    answer_json(site, EVENTS, [event(5)])
    assert scrape(site, "github").profile == Profile(display_name="Alice")


def test_a_next_page_at_another_host_is_not_asked_for(site: Site) -> None:
    answer_json(site, EVENTS, [event(5)], Link='<http://127.0.0.1:9/x>; rel="next"')
    found = scrape(site, "github", wanted=10)
    assert len(found.posts) == 1 and found.remember is not None and "etag" in found.remember


@pytest.mark.parametrize("link", ["<x>; rel=next", '<http://[::1>; rel="next"', "rel=next", '<mailto:x>; rel="next"'])
def test_a_link_that_leads_nowhere_is_the_end(site: Site, link: str) -> None:
    answer_json(site, EVENTS, [event(5)], Link=link)
    assert len(scrape(site, "github", wanted=10).posts) == 1


@pytest.mark.parametrize("status", [403, 429])
def test_a_limit_that_is_used_up_is_kept_to_and_not_side_stepped(site: Site, status: int) -> None:
    reset = str(int(time.time()) + 600)
    site.answer(EVENTS, b"{}", status=status, X_RateLimit_Remaining="0", X_RateLimit_Reset=reset)
    site.answer("/alice.atom", ATOM.format("x", "").encode())
    with pytest.raises(BadStatus) as caught:
        scrape(site, "github")
    assert caught.value.retry_after_s is not None and 500 < caught.value.retry_after_s <= 600
    assert len(site.asked) == 1


def test_a_user_the_api_does_not_know_is_read_by_the_feed(site: Site) -> None:
    entries = ENTRY.format("tag:github.com,2008:PushEvent/12", "alice pushed", 2)
    site.answer("/alice.atom", ATOM.format("GitHub Public Timeline Feed", entries).encode())
    found = scrape(site, "github")
    assert [post.native_id for post in found.posts] == ["12"], "as the API would number it"
    assert found.profile == Profile(display_name="alice")
    assert not any(isinstance(one, Window) for one in found.found)


def test_a_user_who_is_nowhere_fails_the_run_and_says_so(site: Site) -> None:
    with pytest.raises(NoAccount, match="GitHub has no user alice"):
        scrape(site, "github")


def test_a_repository_is_its_releases(site: Site) -> None:
    entries = ENTRY.format("tag:github.com,2008:Repository/1/v2", "v2", 2) + ENTRY.format("tag:x/v1", "v1", 1)
    site.answer("/o/r/releases.atom", ATOM.format("Release notes from r", entries).encode(), ETag='"v1"')
    found = scrape(site, "github", "O/r")
    assert [(post.title, post.kind) for post in found.posts] == [("v2", "release"), ("v1", "release")]
    assert found.profile == Profile(display_name="o/r")
    assert any(isinstance(one, Window) for one in found.found)
    assert found.remember is not None and found.remember["etag"] == '"v1"'


def test_a_repository_that_is_not_there_fails_the_run_and_says_so(site: Site) -> None:
    with pytest.raises(NoAccount, match="GitHub has no repository o/r"):
        scrape(site, "github", "o/r")
