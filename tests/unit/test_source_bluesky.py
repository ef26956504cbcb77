"""Bluesky: posts, replies, reposts, and what they show below their text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from model import Post, Profile
from sources.paging import NoAccount
from tests.support.services import SERVICES, answer_json, feed_item, iso, published, scrape
from tests.support.sites import Site

FEED = SERVICES["bluesky"].first
REASON = {
    "$type": "app.bsky.feed.defs#reasonRepost",
    "by": {"did": "did:plc:alice", "handle": "Alice.example", "displayName": "Alice A."},
    "indexedAt": iso(9),
}


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


def one(site: Site, post: dict[str, Any] | None = None, **item: Any) -> Post:
    base = feed_item(5)
    answer_json(site, FEED, {"feed": [base | {"post": base["post"] | (post or {})} | item]})
    (found,) = scrape(site, "bluesky").posts
    return found


def record(**more: Any) -> dict[str, Any]:
    return {"record": feed_item(5)["post"]["record"] | more}


def test_a_post_is_taken_as_it_is(site: Site) -> None:
    assert one(site) == Post(
        native_id="at://did:plc:alice/app.bsky.feed.post/5",
        url="https://bsky.app/profile/did:plc:alice/post/5",
        text="post 5",
        author="alice.example",
        published_at=published(5),
    )


def test_a_repost_has_an_identity_and_a_time_of_its_own(site: Site) -> None:
    author = {"did": "did:plc:bob", "handle": "bob.example"}
    uri = {"uri": "at://did:plc:bob/app.bsky.feed.post/5", "author": author}
    post = one(site, uri, reason=REASON | {"uri": "at://did:plc:alice/app.bsky.feed.repost/1"})
    assert (post.native_id, post.kind) == ("at://did:plc:alice/app.bsky.feed.repost/1", "repost")
    assert (post.author, post.published_at) == ("bob.example", published(9))
    assert post.url == "https://bsky.app/profile/did:plc:bob/post/5"


def test_ones_own_post_and_its_repost_are_two(site: Site) -> None:
    answer_json(site, FEED, {"feed": [feed_item(5) | {"reason": REASON}, feed_item(5)]})
    ids = [post.native_id for post in scrape(site, "bluesky").posts]
    assert ids == ["repost:at://did:plc:alice/app.bsky.feed.post/5", "at://did:plc:alice/app.bsky.feed.post/5"]


def test_the_account_is_named_also_by_what_it_reposts(site: Site) -> None:
    other = feed_item(5)["post"] | {"author": {"did": "did:plc:bob", "handle": "bob.example", "displayName": "Bob"}}
    answer_json(site, FEED, {"feed": [{"post": other, "reason": REASON}]})
    assert scrape(site, "bluesky").profile == Profile(display_name="Alice A.")


@pytest.mark.parametrize(("did", "kind"), [("did:plc:bob", "comment"), ("did:plc:alice", "post")])
def test_a_reply_is_a_comment_unless_it_goes_on_with_a_thread_of_ones_own(site: Site, did: str, kind: str) -> None:
    assert one(site, record(reply={"parent": {"uri": f"at://{did}/app.bsky.feed.post/1"}})).kind == kind


def test_images_are_media(site: Site) -> None:
    images = [
        {"fullsize": "https://cdn.example/1.jpg", "thumb": "https://cdn.example/t.jpg"},
        {"thumb": "https://cdn.example/2"},
    ]
    found = one(site, {"embed": {"$type": "app.bsky.embed.images#view", "images": images}})
    assert found.media == ("https://cdn.example/1.jpg", "https://cdn.example/2")


def test_a_video_is_media(site: Site) -> None:
    assert one(site, {"embed": {"playlist": "https://v.example/p.m3u8"}}).media == ("https://v.example/p.m3u8",)


def test_a_card_and_a_quote_are_told_below_the_text(site: Site) -> None:
    quoted = {"record": {"record": {"uri": "at://did:plc:bob/app.bsky.feed.post/1"}}}
    media = {"media": {"external": {"uri": "https://x.example/long"}}}
    found = one(site, {"embed": quoted | media})
    assert found.text == "post 5\nhttps://x.example/long\nhttps://bsky.app/profile/did:plc:bob/post/1"


def test_a_card_whose_address_is_in_the_text_is_not_told_twice(site: Site) -> None:
    card = {"embed": {"external": {"uri": "https://x.example/"}}}
    assert one(site, card | record(text="see https://x.example/ !")).text == "see https://x.example/ !"


@pytest.mark.parametrize(("made", "seen", "is_at"), [(9, 5, 5), (2, 5, 2)])
def test_a_post_is_not_newer_than_when_it_was_seen(site: Site, made: int, seen: int, is_at: int) -> None:
    assert one(site, record(createdAt=iso(made)) | {"indexedAt": iso(seen)}).published_at == published(is_at)


def test_an_account_that_is_not_there_fails_the_run_and_says_so(site: Site) -> None:
    site.answer(FEED, b'{"error":"InvalidRequest","message":"Profile not found"}', status=400)
    with pytest.raises(NoAccount, match=r"Bluesky has no account alice\.example"):
        scrape(site, "bluesky")
