"""Within the time that a site has nothing new, a session asks for nothing, and learns nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from model import FetchLimits, Target
from sources.arxiv import scrape as arxiv
from sources.feeds import follow
from sources.http import Http
from tests.support.feeds import RSS, rss
from tests.support.sites import Progress, Site


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


@contextmanager
def session(remember: Mapping[str, str], *, fresh_s: float) -> Iterator[Http]:
    limits = FetchLimits(allow_private_networks=True)
    http = Http(limits, deadline=time.monotonic() + 30, on_progress=Progress(), remember=remember, fresh_s=fresh_s)
    yield http
    http.close()


def test_what_is_fresh_is_not_asked_for(site: Site) -> None:
    with session({"url": site.url()}, fresh_s=100) as http:
        answer = http.get(site.url(), conditional=True)
        assert (answer.not_modified, answer.url, http.fresh_s, http.reached) == (True, site.url(), 100, False)
        assert http.moved_to is None
    assert site.asked == []


@pytest.mark.parametrize("remember", [{}, {"etag": '"1"'}])
def test_without_what_is_remembered_it_is_asked_for(site: Site, remember: dict[str, str]) -> None:
    site.answer("/feed", b"here", Cache_Control="max-age=5")
    with session(remember, fresh_s=100) as http:
        assert http.get(site.url(), conditional=True).body == b"here"
        assert (http.fresh_s, http.reached) == (5, True)


def test_what_is_not_conditional_is_asked_for(site: Site) -> None:
    site.answer("/feed", b"here")
    with session({"url": site.url()}, fresh_s=100) as http:
        assert http.get(site.url()).body == b"here"


def test_a_ttl_does_not_begin_anew_each_time_that_nothing_was_asked(site: Site) -> None:
    """Or a feed that is refreshed often would never be asked for again."""
    with session({"url": site.url(), "fresh_s": "3600"}, fresh_s=10) as http:
        assert list(follow(site.url(), http)) == []
        assert http.fresh_s == 10


def test_nor_does_a_sources_own_pause(site: Site) -> None:
    target = Target(id=1, source="arxiv", handle="au:hinton_g", url=site.url())
    with session({"url": site.url()}, fresh_s=10) as http:
        assert list(arxiv(target, http)) == []
        assert http.fresh_s == 10
    assert site.asked == []


def test_a_ttl_begins_anew_when_the_site_says_that_nothing_has_changed(site: Site) -> None:
    site.answer("/feed", status=304)
    with session({"url": site.url(), "fresh_s": "3600", "etag": '"1"'}, fresh_s=0) as http:
        assert list(follow(site.url(), http)) == []
        assert http.fresh_s == 3600


@pytest.mark.parametrize(
    ("says", "seconds"), [({}, 3600), ({"Cache_Control": "max-age=60"}, 60), ({"Cache_Control": "no-cache"}, 0)]
)
def test_an_answer_that_is_not_modified_is_right_as_long_as_the_last_unless_it_says(
    site: Site, says: dict[str, str], seconds: float
) -> None:
    site.answer("/feed", status=304, **says)
    with session({"url": site.url(), "max_age": "3600", "etag": '"1"'}, fresh_s=0) as http:
        http.get(site.url(), conditional=True)
        assert http.fresh_s == seconds


def test_how_long_an_answer_is_right_is_remembered_with_its_validators(site: Site) -> None:
    site.answer("/feed", rss("one"), Content_Type=RSS, Cache_Control="max-age=60", ETag='"1"')
    with session({}, fresh_s=0) as http:
        assert http.get(site.url()).validators() == {
            "url": site.url(),
            "etag": '"1"',
            "last_modified": "",
            "max_age": "60",
        }
