"""Mastodon: what a status becomes, how the account is found, and the RSS feed of a server that hides its API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from errors import ScrapeFailed
from model import Post, Profile, Target, Window
from sources.http import BadStatus
from sources.mastodon import scrape as scrape_mastodon
from sources.paging import NoAccount
from tests.support.services import STATUSES, answer_json, published, resolve, scrape, sorted_out, status
from tests.support.sites import Site, open_http

LOOKUP = "/api/v1/accounts/lookup?acct=alice"
ACCOUNT = {"id": "9", "username": "alice", "acct": "alice", "display_name": "Alice A. :blob:"}
ITEM = (
    "<item><guid isPermaLink='true'>{0}</guid><link>{0}</link><pubDate>Mon, 02 Mar 2026 12:00:00 GMT</pubDate>"
    "<description>&lt;p&gt;hello&lt;/p&gt;</description></item>"
)
RSS = "<rss version='2.0'><channel><title>Alice A.</title><link>https://m.example/@alice</link>{}</channel></rss>"


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        answer_json(site, LOOKUP, ACCOUNT)
        yield site


def one(site: Site, **changes: Any) -> Post:
    answer_json(site, STATUSES, [status(5) | changes])
    (post,) = scrape(site, "mastodon").posts
    return post


def rss(*addresses: str) -> bytes:
    return RSS.format("".join(ITEM.format(address) for address in addresses)).encode()


def test_a_status_becomes_a_post(site: Site) -> None:
    assert one(site, content='<p>Hi <a href="https://x.example/">x</a></p><p>two</p>') == Post(
        native_id="5",
        url="https://m.example/@alice/5",
        text="Hi x\ntwo",
        html='<p>Hi <a href="https://x.example/">x</a></p><p>two</p>',
        author="alice@m.example",
        published_at=published(5),
    )


def test_a_boost_is_a_repost_with_the_words_and_the_page_of_who_wrote_it(site: Site) -> None:
    other = ACCOUNT | {"id": "3", "acct": "bob@b.example"}
    boosted = status(3) | {"url": None, "uri": "https://b.example/3", "account": other, "content": "<p>mine</p>"}
    post = one(site, reblog=boosted, content="", url="https://m.example/users/alice/statuses/5/activity")
    assert (post.native_id, post.kind, post.published_at) == ("5", "repost", published(5))
    assert (post.url, post.author, post.text) == ("https://b.example/3", "bob@b.example", "mine")


def test_a_warning_stands_as_the_title(site: Site) -> None:
    assert one(site, spoiler_text="Spiders ").title == "Spiders"


def test_media_and_the_answers_of_a_poll_are_kept(site: Site) -> None:
    media = [
        {"url": "https://m.example/1.png"},
        {"url": None, "remote_url": "https://b.example/2.png"},
        {"url": "x"},
        3,
    ]
    post = one(site, media_attachments=media, poll={"options": [{"title": "a < b"}, {"title": "no"}, 7]})
    assert post.media == ("https://m.example/1.png", "https://b.example/2.png")
    assert post.text == "post 5\na < b\nno"


@pytest.mark.parametrize(("to", "kind"), [("7", "comment"), ("9", "post")])
def test_a_reply_is_a_comment_unless_it_goes_on_with_a_thread_of_ones_own(site: Site, to: str, kind: str) -> None:
    assert one(site, in_reply_to_id="4", in_reply_to_account_id=to).kind == kind


def test_the_account_is_looked_up_once(site: Site) -> None:
    answer_json(site, STATUSES, [status(5)])
    first = scrape(site, "mastodon")
    again = scrape(site, "mastodon", remember=first.remember)
    assert [asked.path for asked in site.asked] == [LOOKUP, STATUSES, STATUSES]
    assert again.profile == Profile(display_name="Alice A.")


def test_an_account_whose_number_is_gone_is_looked_up_anew(site: Site) -> None:
    answer_json(site, STATUSES, [status(5)])
    found = scrape(site, "mastodon", remember={"account": "8"})
    assert [post.native_id for post in found.posts] == ["5"]
    assert found.remember is not None and found.remember["account"] == "9"


def test_a_page_goes_on_where_nothing_is_said_and_it_is_full(site: Site) -> None:
    answer_json(site, STATUSES, [status(n) for n in range(80, 40, -1)])
    answer_json(site, f"{STATUSES}&max_id=41", [status(40)])
    assert len(scrape(site, "mastodon", wanted=60).posts) == 41


def test_a_profile_of_a_plain_http_address_is_scraped_there(site: Site) -> None:
    answer_json(site, STATUSES, [status(5)])
    who = resolve(site.url("/@Alice"))
    assert (who.handle, who.host) == (f"alice@127.0.0.1:{site.port}", f"127.0.0.1:{site.port}")
    target = Target(id=1, source="mastodon", handle=who.handle, url=who.url)
    with open_http() as http:
        assert len(sorted_out(scrape_mastodon(target, http)).posts) == 1


def test_an_answer_that_names_no_account_fails_the_run(site: Site) -> None:
    answer_json(site, LOOKUP, {"error": "<b>"})
    with pytest.raises(ScrapeFailed, match="does not say which account it is"):
        scrape(site, "mastodon")


@pytest.mark.parametrize("refusal", [401, 403, 404, 410, 422])
@pytest.mark.parametrize("path", [LOOKUP, STATUSES])
def test_a_server_that_refuses_its_api_is_read_by_its_feed(site: Site, refusal: int, path: str) -> None:
    site.answer(path, b'{"error": "no"}', status=refusal)
    site.answer("/@alice.rss", rss("https://m.example/@alice/12", "https://m.example/@alice/11"), ETag='"v1"')
    found = scrape(site, "mastodon")
    assert [post.native_id for post in found.posts] == ["12", "11"], "as the API would number them"
    assert found.profile == Profile(display_name="Alice A.")
    assert not any(isinstance(one, Window) for one in found.found), "boosts and replies are not in the feed"
    assert found.remember is not None and found.remember["etag"] == '"v1"'


def test_a_feed_of_other_software_keeps_its_own_identities(site: Site) -> None:
    site.answer(LOOKUP, status=404)
    site.answer("/@alice.rss", rss("https://m.example/notes/9xyz"))
    assert [post.native_id for post in scrape(site, "mastodon").posts] == ["https://m.example/notes/9xyz"]


def test_the_api_is_left_alone_for_a_day_after_it_refused(site: Site) -> None:
    site.answer(LOOKUP, status=401)
    site.answer("/@alice.rss", rss("https://m.example/@alice/12"))
    first = scrape(site, "mastodon").remember
    assert first is not None
    second = scrape(site, "mastodon", remember=first).remember
    assert second is not None and second["api_refused_at"] == first["api_refused_at"]
    long_ago = (datetime.now(UTC) - timedelta(days=2)).isoformat()
    scrape(site, "mastodon", remember={**first, "api_refused_at": long_ago})
    feed = "/@alice.rss"
    assert [asked.path for asked in site.asked] == [LOOKUP, feed, feed, LOOKUP, feed]


@pytest.mark.parametrize("stamp", ["", "soon", "2999-01-01T00:00:00+00:00", "2026-01-01"])
def test_what_was_remembered_badly_is_not_believed(site: Site, stamp: str) -> None:
    answer_json(site, STATUSES, [status(5)])
    assert len(scrape(site, "mastodon", remember={"api_refused_at": stamp}).posts) == 1


@pytest.mark.parametrize("refusal", [404, 410])
def test_an_account_that_is_nowhere_fails_the_run_and_says_so(site: Site, refusal: int) -> None:
    site.answer(LOOKUP, status=404)
    site.answer("/@alice.rss", status=refusal)
    with pytest.raises(NoAccount, match=r"m\.example has no account alice") as caught:
        scrape(site, "mastodon")
    assert caught.value.status == refusal


def test_a_feed_that_is_refused_too_fails_the_run_with_its_status(site: Site) -> None:
    site.answer(LOOKUP, status=401)
    site.answer("/@alice.rss", status=401)
    with pytest.raises(BadStatus, match="status 401"):
        scrape(site, "mastodon")


def test_a_limit_that_is_used_up_is_not_side_stepped_by_the_feed(site: Site) -> None:
    site.answer(STATUSES, status=403, Retry_After="60")
    site.answer("/@alice.rss", rss("https://m.example/@alice/12"))
    with pytest.raises(BadStatus) as caught:
        scrape(site, "mastodon")
    assert caught.value.retry_after_s == 60
    assert "/@alice.rss" not in [asked.path for asked in site.asked]


def test_what_a_server_says_of_itself_is_never_in_the_message(site: Site) -> None:
    site.answer(STATUSES, json.dumps({"error": "SECRET"}).encode())
    with pytest.raises(ScrapeFailed) as caught:
        scrape(site, "mastodon")
    assert "SECRET" not in caught.value.message
