"""ActivityPub: the way to an outbox, and the shapes that servers give to what is in it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from errors import ScrapeFailed
from model import Post, Profile
from sources.paging import NoAccount
from tests.support.services import SERVICES, activity, answer_json, iso, published, scrape
from tests.support.sites import Site

FINGER = "/.well-known/webfinger?resource=acct:alice@w.example"
PAGE = SERVICES["activitypub"].first


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        SERVICES["activitypub"].play(site, [[2, 1]], {})
        yield site


def page(site: Site, *items: Any, **more: Any) -> None:
    answer_json(site, PAGE, {"type": "OrderedCollectionPage", "orderedItems": list(items)} | more)


def one(site: Site, **changes: Any) -> Post:
    made = activity(5)
    page(site, made | {"object": made["object"] | changes})
    (post,) = scrape(site, "activitypub").posts
    return post


def paths(site: Site) -> list[str]:
    return [asked.path for asked in site.asked]


def test_the_way_leads_over_the_actor_and_is_remembered(site: Site) -> None:
    first = scrape(site, "activitypub")
    assert paths(site) == [FINGER, "/actor", "/outbox", PAGE]
    assert all("activity+json" in asked.headers["accept"] for asked in site.asked[1:])
    again = scrape(site, "activitypub", remember=first.remember)
    assert paths(site)[4:] == [PAGE]
    assert again.profile == first.profile == Profile(display_name="Alice A.")


def test_the_way_is_looked_for_anew_after_a_week(site: Site) -> None:
    first = scrape(site, "activitypub").remember
    assert first is not None
    old = (datetime.now(UTC) - timedelta(days=8)).isoformat()
    scrape(site, "activitypub", remember={**first, "found_at": old})
    assert paths(site)[4:] == [FINGER, "/actor", "/outbox", PAGE]


def test_the_way_is_looked_for_anew_when_it_leads_nowhere(site: Site) -> None:
    first = scrape(site, "activitypub").remember
    assert first is not None
    found = scrape(site, "activitypub", remember={**first, "first": site.url("/gone")})
    assert paths(site)[4:] == ["/gone", FINGER, "/actor", "/outbox", PAGE]
    assert found.remember is not None and found.remember["first"] == site.url(PAGE)


def test_an_actor_can_be_given_by_its_address(site: Site) -> None:
    found = scrape(site, "activitypub", "w.example/actor")
    assert paths(site)[0] == "/actor" and len(found.posts) == 2


@pytest.mark.parametrize(
    "first", [{"id": "/outbox?page=0"}, "/outbox?page=0", {"href": "/outbox?page=0", "type": "Link"}]
)
def test_the_first_page_may_be_named_in_several_ways(site: Site, first: Any) -> None:
    answer_json(site, "/outbox", {"type": "OrderedCollection", "first": first})
    assert len(scrape(site, "activitypub").posts) == 2


@pytest.mark.parametrize("key", ["orderedItems", "items"])
def test_an_outbox_may_be_without_pages_or_have_the_first_inside(site: Site, key: str) -> None:
    answer_json(site, "/outbox", {"type": "OrderedCollection", key: [activity(7)]})
    assert [post.text for post in scrape(site, "activitypub").posts] == ["post 7"]
    inside = {"type": "OrderedCollectionPage", "id": site.url("/outbox?page=9"), key: [activity(8)]}
    answer_json(site, "/outbox", {"type": "OrderedCollection", "first": inside | {"next": PAGE}})
    found = scrape(site, "activitypub", wanted=3)
    assert [post.text for post in found.posts] == ["post 8", "post 2", "post 1"]


def test_a_note_is_taken_as_it_is(site: Site) -> None:
    assert one(site, content="<p>Hi</p>") == Post(
        native_id="https://w.example/notes/5",
        url="https://w.example/@alice/5",
        text="Hi",
        html="<p>Hi</p>",
        author="alice@w.example",
        published_at=published(5),
    )


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://w.example/p", "https://w.example/p"),
        ({"type": "Link", "href": "https://w.example/p"}, "https://w.example/p"),
        (
            [
                {"type": "Link", "mediaType": "video/mp4", "href": "https://w.example/v"},
                {"type": "Link", "mediaType": "text/html", "href": "https://w.example/p"},
            ],
            "https://w.example/p",
        ),
        (None, "https://w.example/notes/5"),
        ([], "https://w.example/notes/5"),
    ],
)
def test_the_page_of_a_thing_is_found(site: Site, url: Any, expected: str) -> None:
    assert one(site, url=url).url == expected


def test_the_name_of_an_article_and_the_warning_of_a_note_are_titles(site: Site) -> None:
    assert one(site, type="Article", name="An essay", summary="It is about").title == "An essay"
    assert one(site, summary="<p>Spiders</p>").title == "Spiders"
    assert one(site, type="Video", summary="It is about").title == ""


def test_attachments_are_media(site: Site) -> None:
    attachment = [
        {"type": "Document", "url": "https://w.example/1.png"},
        {"type": "Image", "url": [{"type": "Link", "href": "https://w.example/2.png"}]},
        {"type": "Link", "href": "https://w.example/3"},
        {"type": "PropertyValue", "name": "x", "value": "y"},
        "https://w.example/4",
    ]
    assert one(site, attachment=attachment).media == tuple(
        f"https://w.example/{n}" for n in ("1.png", "2.png", "3", "4")
    )
    assert one(site, attachment={"url": "https://w.example/1"}).media == ("https://w.example/1",)


def test_content_in_languages_is_read(site: Site) -> None:
    assert one(site, content=None, contentMap={"de": "<p>Hallo</p>", "en": "<p>Hello</p>"}).text == "Hallo"


def test_a_reply_is_a_comment_unless_it_goes_on_with_a_thread_of_ones_own(site: Site) -> None:
    assert one(site, inReplyTo="https://other.example/1").kind == "comment"
    assert one(site, inReplyTo={"id": "https://other.example/1"}).kind == "comment"
    assert one(site, inReplyTo=site.url("/actor/notes/1")).kind == "post"


def test_an_announce_is_a_repost(site: Site) -> None:
    shared = {
        "id": "https://o.example/1",
        "type": "Note",
        "content": "<p>theirs</p>",
        "attributedTo": "https://o.example/b",
    }
    announce = {"id": "https://w.example/a/9", "type": "Announce", "published": iso(9)}
    page(
        site, announce | {"object": shared}, announce | {"id": "https://w.example/a/8", "object": "https://o.example/2"}
    )
    first, second = scrape(site, "activitypub").posts
    assert (first.native_id, first.kind, first.published_at) == ("https://w.example/a/9", "repost", published(9))
    assert (first.url, first.text, first.author) == ("https://o.example/1", "theirs", "https://o.example/b")
    assert (second.url, second.text, second.kind) == ("https://o.example/2", "", "repost")


def test_a_create_that_only_names_its_object_is_its_address(site: Site) -> None:
    page(site, activity(5) | {"object": "https://w.example/notes/5"})
    (post,) = scrape(site, "activitypub").posts
    assert (post.native_id, post.url, post.published_at) == (*["https://w.example/notes/5"] * 2, published(5))


def test_a_thing_without_an_activity_around_it_is_a_post(site: Site) -> None:
    page(site, activity(5)["object"])
    assert [post.text for post in scrape(site, "activitypub").posts] == ["post 5"]


@pytest.mark.parametrize("kind", ["Like", "Follow", "Delete", "Update", "Add", "Undo"])
def test_what_is_no_post_is_passed_over(site: Site, kind: str) -> None:
    page(site, {"id": "https://w.example/x", "type": kind, "object": activity(4)["object"]}, activity(3))
    assert [post.text for post in scrape(site, "activitypub").posts] == ["post 3"]


def test_a_thing_that_is_gone_is_passed_over(site: Site) -> None:
    page(site, activity(5) | {"object": {"id": "https://w.example/notes/5", "type": "Tombstone"}}, activity(3))
    assert [post.text for post in scrape(site, "activitypub").posts] == ["post 3"]


def test_a_next_page_at_another_host_is_not_asked_for(site: Site) -> None:
    page(site, activity(5), next="http://127.0.0.1:9/x")
    assert len(scrape(site, "activitypub", wanted=9).posts) == 1


@pytest.mark.parametrize(("path", "status"), [(FINGER, 404), ("/actor", 410), ("/outbox", 404), (PAGE, 404)])
def test_an_account_that_is_not_there_fails_the_run_and_says_so(site: Site, path: str, status: int) -> None:
    site.answer(path, status=status)
    with pytest.raises(NoAccount, match="there is no such account"):
        scrape(site, "activitypub")


@pytest.mark.parametrize(("path", "status"), [("/actor", 401), (PAGE, 403)])
def test_an_outbox_for_those_who_sign_is_said_to_be_so(site: Site, path: str, status: int) -> None:
    site.answer(path, status=status)
    with pytest.raises(ScrapeFailed, match="only to those who sign their requests"):
        scrape(site, "activitypub")


@pytest.mark.parametrize(
    "links", [None, [], [{"rel": "self"}], [{"rel": "self", "type": "application/activity+json", "href": "x"}]]
)
def test_a_server_that_names_no_actor_fails_the_run(site: Site, links: Any) -> None:
    answer_json(site, FINGER, {"links": links})
    with pytest.raises(ScrapeFailed, match="names no actor"):
        scrape(site, "activitypub")


def test_an_actor_without_an_outbox_fails_the_run(site: Site) -> None:
    answer_json(site, "/actor", {"id": "x", "type": "Person"})
    with pytest.raises(ScrapeFailed, match="no actor with an outbox"):
        scrape(site, "activitypub")
