"""The feed source from the request to what is remembered."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from errors import ScrapeFailed
from model import Post, Profile, Remember
from tests.support.sites import Asked, Progress, Reply, Site, scrape_feed

ITEM = "<item><guid>{0}</guid><title>Post {0}</title><link>https://example.org/{0}</link></item>"
RSS = '<?xml version="1.0"?><rss version="2.0"><channel><title>A blog</title>{}</channel></rss>'
ATOM = '<feed xmlns="http://www.w3.org/2005/Atom"><title>Atomic</title><entry><id>urn:1</id></entry></feed>'
JSON = '{"version": "https://jsonfeed.org/version/1.1", "title": "Jay", "items": [{"id": "1", "content_text": "x"}]}'


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


def rss(*guids: object) -> bytes:
    return RSS.format("".join(ITEM.format(guid) for guid in guids)).encode()


def test_profile_comes_first_posts_in_their_order_and_what_to_remember_last(site: Site) -> None:
    site.answer("/feed", rss(2, 1))
    found = scrape_feed(site.url()).found
    assert [type(one) for one in found] == [Profile, Post, Post, Remember]
    assert [one.native_id for one in found if isinstance(one, Post)] == ["2", "1"]


def test_the_title_of_the_feed_is_the_display_name_and_its_address_stays(site: Site) -> None:
    site.answer("/feed", rss(1))
    assert scrape_feed(site.url()).profile == Profile(display_name="A blog", url="")


def test_the_validators_of_the_answer_are_remembered_as_they_came(site: Site) -> None:
    site.answer("/feed", rss(1), ETag='W/"a b"', Last_Modified="Wed, 31 Jan 2024 10:00:00 GMT")
    remember = {"url": site.url(), "etag": 'W/"a b"', "last_modified": "Wed, 31 Jan 2024 10:00:00 GMT"}
    assert scrape_feed(site.url()).remember == remember


def test_an_answer_without_validators_clears_the_old_ones(site: Site) -> None:
    site.answer("/feed", rss(1))
    found = scrape_feed(site.url(), remember={"url": site.url(), "etag": '"old"'})
    assert found.remember == {"url": site.url(), "etag": "", "last_modified": ""}


def test_what_was_remembered_is_sent_and_an_unchanged_feed_gives_nothing(site: Site) -> None:
    def reply(asked: Asked) -> Reply:
        if asked.headers.get("if-none-match") == '"v1"':
            return Reply(status=304)
        return Reply(body=rss(1), headers={"ETag": '"v1"'})

    site.answer_with("/feed", reply)
    first = scrape_feed(site.url())
    again = scrape_feed(site.url(), remember=first.remember)
    assert (len(first.posts), again.found) == (1, [])


def test_behind_a_redirect_an_unchanged_feed_gives_nothing_either(site: Site) -> None:
    site.answer("/feed", status=302, Location="/real")
    site.answer_with(
        "/real",
        lambda asked: Reply(
            status=304 if asked.headers.get("if-none-match") else 200, body=rss(1), headers={"ETag": '"v1"'}
        ),
    )
    first = scrape_feed(site.url())
    assert scrape_feed(site.url(), remember=first.remember).found == []


def test_half_a_feed_gives_its_whole_items_and_no_validators(site: Site) -> None:
    site.answer("/feed", rss(1, 2, 3)[:-60], ETag='"v1"')
    found = scrape_feed(site.url())
    assert [post.native_id for post in found.posts] == ["1", "2"]
    assert found.remember == {}


@pytest.mark.parametrize(("document", "title"), [(ATOM, "Atomic"), (JSON, "Jay")])
def test_the_content_type_does_not_decide_what_a_document_is(site: Site, document: str, title: str) -> None:
    site.answer("/feed", document.encode(), Content_Type="text/html")
    found = scrape_feed(site.url())
    assert found.profile is not None
    assert (found.profile.display_name, len(found.posts)) == (title, 1)


@pytest.mark.parametrize(
    "link",
    [
        '<link rel="alternate" type="application/rss+xml" href="/feed">',
        "<LINK REL='Alternate home' TYPE='application/atom+xml; charset=utf-8' HREF=feed>",
        '<link rel="alternate" type="application/feed+json" href="http://127.0.0.1:{port}/feed"/>',
        '<link rel="alternate" type="text/xml" href="/feed">',
        '<base href="/feeds/"><link rel="alternate" type="application/rss+xml" href="../feed">',
        '<link rel="alternate" type="application/json" href="/wp-json/1">'
        '<link rel="alternate" type="application/rss+xml" href="/feed">',
        '<link rel="alternate" type="application/rss+xml" href="/feed">'
        '<link rel="alternate" type="application/rss+xml" href="/comments">',
        '<link rel="stylesheet" type="text/css" href="/a"><link rel="alternate" hreflang="de" href="/de">'
        '<link rel="alternate" type="application/rss+xml" href="javascript:alert(1)">'
        '<link rel="alternate" type="application/rss+xml" href="/feed">',
    ],
)
def test_a_page_is_exchanged_for_the_first_feed_it_links_to(site: Site, link: str) -> None:
    page = f"<!DOCTYPE html>\n<html><head><title>x</title>{link.format(port=site.port)}</head><body>hi</body></html>"
    site.answer("/", page.encode(), Content_Type="text/html")
    site.answer("/feed", rss(1), ETag='"feed"')
    found = scrape_feed(site.url("/"))
    assert found.profile == Profile(display_name="A blog", url=site.url("/feed"))
    assert found.remember is not None
    assert (found.remember["url"], found.remember["etag"]) == (site.url("/feed"), '"feed"')
    assert [asked.path for asked in site.asked] == ["/", "/feed"]


def test_a_page_without_a_head_of_its_own_is_searched_too(site: Site) -> None:
    page = '<?xml version="1.0"?><!-- x --><html xmlns="http://www.w3.org/1999/xhtml"><link rel="alternate"'
    site.answer("/", f'{page} type="application/rss+xml" href="/feed"/></html>'.encode())
    site.answer("/feed", rss(1))
    assert len(scrape_feed(site.url("/")).posts) == 1


def test_a_page_whose_feed_has_not_changed_gives_its_address_and_nothing_else(site: Site) -> None:
    site.answer("/", b'<html><link rel="alternate" type="application/rss+xml" href="/feed"></html>')
    site.answer("/feed", status=304)
    found = scrape_feed(site.url("/"), remember={"url": site.url("/feed"), "etag": '"v1"'})
    assert found.found == [Profile(url=site.url("/feed"))]


def test_only_one_hop_is_made(site: Site) -> None:
    site.answer("/", b'<html><link rel="alternate" type="application/rss+xml" href="/2"></html>')
    site.answer("/2", b'<html><link rel="alternate" type="application/rss+xml" href="/feed"></html>')
    with pytest.raises(ScrapeFailed, match="links to as its feed is a web page again"):
        scrape_feed(site.url("/"))
    assert [asked.path for asked in site.asked] == ["/", "/2"]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "the answer is empty"),
        (b" \n\t", "the answer is empty"),
        (b"hello", "the answer is not a feed"),
        (b"\x89PNG\r\n\x1a\n\0\0\0", "the answer is not a feed"),
        (b"<html><body>no feed</body></html>", "a web page that links to no feed"),
        (b"<!doctype html>x", "a web page that links to no feed"),
        (b'<?xml version="1.0"?><opml><body/></opml>', "XML, but it is not a feed"),
        (b'<?xml version="1.0"?><rss></rss>', "XML, but it is not a feed"),
        (b'<RDF xmlns="http://www.w3.org/1999/02/22-rdf-syntax-ns#"/>', "XML, but it is not a feed"),
        (b'<?xml version="1.0"?><rss><channel><title>x</tit', "no whole item"),
        (b"<rss><channel><item><title>x", "no whole item"),
        (b'{"a": 1}', "JSON, but it is not a feed"),
        (b"[1, 2]", "JSON, but it is not a feed"),
        (b'{"items": [{"id": "1"', "broken or was cut short"),
        (b"[" * 100_000, "broken or was cut short"),
        (b'{"items": [1, "x", null]}', "no item in it can be read"),
    ],
)
def test_what_is_no_feed_fails_and_says_why_in_our_own_words(site: Site, body: bytes, why: str) -> None:
    site.answer("/feed", body)
    with pytest.raises(ScrapeFailed, match=why) as caught:
        scrape_feed(site.url())
    assert "<" not in caught.value.message


@pytest.mark.parametrize(
    "document",
    [
        RSS.format(""),
        '<feed xmlns="http://www.w3.org/2005/Atom"><title>A blog</title></feed>',
        '{"version": "https://jsonfeed.org/version/1", "title": "A blog", "items": []}',
    ],
)
def test_a_feed_without_items_is_a_feed(site: Site, document: str) -> None:
    site.answer("/feed", document.encode())
    found = scrape_feed(site.url())
    assert (found.posts, found.profile) == ([], Profile(display_name="A blog"))
    assert found.remember is not None


def test_fifty_thousand_items_are_read_and_the_run_is_seen_to_move(site: Site) -> None:
    site.answer("/feed", rss(*range(50_000)))
    progress = Progress()
    found = scrape_feed(site.url(), progress=progress)
    assert len(found.posts) == 50_000
    assert sum(text.startswith("read ") for text in progress) == 500


def test_fifty_thousand_items_that_are_cut_short_lose_the_last_alone(site: Site) -> None:
    site.answer("/feed", rss(*range(50_000))[:-40])
    assert len(scrape_feed(site.url()).posts) == 49_999


def test_range_drops_no_item_of_a_document(site: Site) -> None:
    from model import Target
    from sources.feed import scrape
    from tests.support.sites import open_http

    site.answer("/feed", rss(1, 2, 3))
    target = Target(id=1, source="feed", handle="x", url=site.url(), range=1)
    with open_http() as http:
        assert sum(isinstance(one, Post) for one in scrape(target, http)) == 3
