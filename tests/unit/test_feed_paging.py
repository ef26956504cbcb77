"""What the head of a feed says: when there will be something new, and where older items are."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from model import Post, Target, Window
from sources.feed import scrape
from sources.feeds import MAX_PAGES
from sources.load import Found
from tests.support.sites import Progress, Site, open_http

SY = 'xmlns:sy="http://purl.org/rss/1.0/modules/syndication/"'


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


class Run:
    """One run of the feed source."""

    def __init__(self, site: Site, *, wanted: int | None = None, remember: Mapping[str, str] | None = None) -> None:
        url = site.url()
        target = Target(id=1, source="feed", handle=url, url=url, range=wanted, remember=remember or {})
        self.progress = Progress()
        with open_http(remember=target.remember, progress=self.progress) as http:
            self.found: list[Found] = list(scrape(target, http))
            self.fresh_s = http.fresh_s
        self.ids = [one.native_id for one in self.found if isinstance(one, Post)]
        self.is_window = any(isinstance(one, Window) for one in self.found)

    @property
    def remember(self) -> Mapping[str, str]:
        values: Any = self.found[-1]
        return dict(values.values)


def atom(*ids: object, older: str = "", rel: str = "next") -> bytes:
    link = f'<link rel="{rel}" href="{older}"/>' if older else ""
    entries = "".join(f"<entry><id>{one}</id><updated>2026-01-01T00:00:00Z</updated></entry>" for one in ids)
    return f'<feed xmlns="http://www.w3.org/2005/Atom"><title>t</title>{link}{entries}</feed>'.encode()


def rss(head: str, attributes: str = SY) -> bytes:
    item = "<item><guid>1</guid><title>x</title></item>"
    return f'<rss version="2.0" {attributes}><channel><title>t</title>{head}{item}</channel></rss>'.encode()


# -- how long there is nothing new -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "seconds"),
    [
        ("<ttl>60</ttl>", 3600),
        ("<ttl> 30 </ttl>", 1800),
        ("<ttl>100000</ttl>", 86400),
        ("<ttl>0</ttl>", 0),
        ("<ttl>-5</ttl>", 0),
        ("<ttl>soon</ttl>", 0),
        ("<ttl/>", 0),
        ("<ttl>99999999999999999999</ttl>", 0),
        ("<sy:updatePeriod>hourly</sy:updatePeriod><sy:updateFrequency>2</sy:updateFrequency>", 1800),
        ("<sy:updatePeriod>\n\thourly\t</sy:updatePeriod><sy:updateFrequency>\n1 </sy:updateFrequency>", 3600),
        ("<sy:updatePeriod>Daily</sy:updatePeriod>", 86400),
        ("<sy:updatePeriod>yearly</sy:updatePeriod>", 86400),
        ("<sy:updateFrequency>24</sy:updateFrequency>", 3600),
        ("<sy:updatePeriod>hourly</sy:updatePeriod><sy:updateFrequency>0</sy:updateFrequency>", 3600),
        ("<sy:updatePeriod>never</sy:updatePeriod>", 0),
        ("<ttl>5</ttl><sy:updatePeriod>hourly</sy:updatePeriod>", 3600),
        ("", 0),
    ],
)
def test_a_feed_says_how_long_there_will_be_nothing_new(site: Site, head: str, seconds: int) -> None:
    site.answer("/feed", rss(head))
    assert Run(site).fresh_s == seconds


def test_the_syndication_module_is_known_in_rdf_and_in_atom_too(site: Site) -> None:
    period = "<sy:updatePeriod>hourly</sy:updatePeriod>"
    rdf = (
        f'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns="http://purl.org/rss/1.0/" {SY}>'
        f"<channel><title>t</title>{period}</channel><item><title>x</title></item></rdf:RDF>"
    )
    for document in (rdf, f'<feed xmlns="http://www.w3.org/2005/Atom" {SY}>{period}<entry><id>1</id></entry></feed>'):
        site.answer("/feed", document.encode())
        assert Run(site).fresh_s == 3600


def test_a_prefix_that_is_not_declared_is_known_all_the_same(site: Site) -> None:
    site.answer("/feed", rss("<sy:updatePeriod>hourly</sy:updatePeriod>", attributes=""))
    assert Run(site).fresh_s == 3600


def test_what_a_feed_said_still_holds_while_it_does_not_change(site: Site) -> None:
    site.answer("/feed", rss("<ttl>60</ttl>"), ETag='"v"')
    first = Run(site)
    assert first.remember["fresh_s"] == "3600"
    site.answer("/feed", status=304)
    again = Run(site, remember=first.remember)
    assert (again.found, again.fresh_s) == ([], 3600)


def test_the_longer_of_the_feeds_word_and_its_servers_counts(site: Site) -> None:
    site.answer("/feed", rss("<ttl>10</ttl>"), Cache_Control="max-age=7200")
    assert Run(site).fresh_s == 7200


# -- older documents -------------------------------------------------------------------------------------------------


def pages(site: Site, *documents: bytes) -> None:
    for n, document in enumerate(documents):
        site.answer(f"/feed{n or ''}", document, ETag=f'"{n}"')


@pytest.mark.parametrize("rel", ["next", "prev-archive", "http://www.iana.org/assignments/relation/next"])
def test_older_documents_are_read_as_far_as_range_asks(site: Site, rel: str) -> None:
    pages(site, atom(9, 8, older="/feed1", rel=rel), atom(7, 6, older="feed2", rel=rel), atom(5, 4, older="/feed3"))
    assert Run(site, wanted=3).ids == ["9", "8", "7", "6"]
    assert [asked.path for asked in site.asked] == ["/feed", "/feed1"]


def test_without_range_one_document_is_read(site: Site) -> None:
    pages(site, atom(9, 8, older="/feed1"), atom(7))
    assert Run(site).ids == ["9", "8"]


def test_a_range_that_the_first_document_satisfies_asks_for_no_other(site: Site) -> None:
    pages(site, atom(9, 8, older="/feed1"), atom(7))
    assert Run(site, wanted=2).ids == ["9", "8"]


def test_the_validators_are_those_of_the_first_document(site: Site) -> None:
    pages(site, atom(9, older="/feed1"), atom(7))
    assert Run(site, wanted=5).remember["etag"] == '"0"'


def test_an_item_on_two_documents_is_one_post(site: Site) -> None:
    pages(site, atom(9, 8, older="/feed1"), atom(8, 7))
    assert Run(site, wanted=5).ids == ["9", "8", "7"]


def test_several_documents_are_no_window(site: Site) -> None:
    pages(site, atom(9, 8, older="/feed1"), atom(7))
    assert (Run(site).is_window, Run(site, wanted=5).is_window) == (True, False)


@pytest.mark.parametrize("older", ["/feed", "/feed1"])
def test_documents_that_lead_in_a_circle_are_read_once(site: Site, older: str) -> None:
    pages(site, atom(9, older="/feed1"), atom(7, older=older))
    assert Run(site, wanted=50).ids == ["9", "7"]
    assert len(site.asked) == 2


def test_a_feed_without_end_ends(site: Site) -> None:
    pages(site, *(atom(n, older=f"/feed{n + 1}") for n in range(MAX_PAGES + 5)))
    assert len(Run(site, wanted=10_000).ids) == MAX_PAGES


@pytest.mark.parametrize(
    "older",
    ["https://elsewhere.example/feed1", "http://127.0.0.1:99999/", "javascript:x", "http://u:p@127.0.0.1/", "//["],
)
def test_older_documents_elsewhere_are_not_asked_for(site: Site, older: str) -> None:
    pages(site, atom(9, older=older))
    run = Run(site, wanted=50)
    assert (run.ids, run.remember["etag"]) == (["9"], '"0"')


@pytest.mark.parametrize("answer", [{"status": 503}, {"status": 404}, {"body": b"<html>no</html>"}, {"body": b""}])
def test_an_older_document_that_fails_loses_nothing_and_is_tried_again(site: Site, answer: dict[str, Any]) -> None:
    pages(site, atom(9, older="/feed1"))
    site.answer("/feed1", **answer)
    run = Run(site, wanted=50)
    assert (run.ids, run.remember) == (["9"], {})
    assert "an older page of the feed could not be had" in run.progress


def test_rss_and_json_feeds_are_paged_too(site: Site) -> None:
    link = '<atom:link xmlns:atom="http://www.w3.org/2005/Atom" rel="next" href="/feed1"/>'
    second = {"version": "https://jsonfeed.org/version/1.1", "items": [{"id": "7"}], "next_url": "/feed2"}
    pages(site, rss(link), json.dumps(second).encode(), atom(5))
    assert Run(site, wanted=50).ids == ["1", "7", "5"]
