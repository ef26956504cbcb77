"""Accounts that are followed by their feeds: what is asked for, what is made of it, and how often."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest

from errors import ScrapeFailed
from model import Profile, Remember
from sources.load import Found
from sources.paging import NoAccount
from tests.support.services import registry, sorted_out
from tests.support.sites import Asked, Progress, Reply, Scraped, Site, open_http

CHANNEL = "UCHnyfMqiRRG1u-2MsSQLbXA"
FEED = f"/feeds/videos.xml?channel_id={CHANNEL}"
ARXIV = "/api/query?search_query=au:hinton_g&sortBy=submittedDate&sortOrder=descending&start=0&max_results={}"
HANDLES = {
    "gitlab": ("ann", "/ann.atom"),
    "youtube": (CHANNEL, FEED),
    "lobsters": ("ann", "/~ann/stories.rss"),
    "arxiv": ("au:hinton_g", ARXIV.format(50)),
    "gitea": ("ann@codeberg.org", "/ann.rss"),
    "reddit": ("u/ann", "/user/ann/submitted/.rss?limit=25"),
}


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a run gave, and what it told the daemon."""

    scraped: Scraped
    fresh_s: float
    progress: list[str]


def run(
    site: Site, name: str, handle: str, *, wanted: int | None = None, remember: Mapping[str, str] | None = None
) -> Run:
    import importlib

    from model import Target

    base = "" if name == "mercurial" else site.url("")
    who = registry(name, base).resolve(handle, source=name)
    target = Target(id=1, source=name, handle=who.handle, url=who.url, range=wanted, remember=dict(remember or {}))
    progress = Progress()
    with open_http(remember=target.remember, progress=progress) as http:
        found: Iterator[Found] = importlib.import_module(f"sources.{name}").scrape(target, http)
        return Run(scraped=sorted_out(found), fresh_s=http.fresh_s, progress=progress)


def atom(*ids: str, head: str = "", title: str = "Ann") -> bytes:
    entries = "".join(
        f"<entry><id>{one}</id><title>title of {n}</title><published>2026-01-{31 - n:02}T10:00:00Z</published>"
        f'<link href="https://x.example/{n}"/><summary>text {n}</summary></entry>'
        for n, one in enumerate(ids)
    )
    return f'<feed xmlns="http://www.w3.org/2005/Atom"><title>{title}</title>{head}{entries}</feed>'.encode()


@pytest.mark.parametrize("name", HANDLES)
def test_the_feed_of_the_account_is_asked_for_once(site: Site, name: str) -> None:
    handle, path = HANDLES[name]
    site.answer(path, atom("a:2", "a:1"), ETag='"v1"')
    found = run(site, name, handle).scraped
    assert [post.native_id for post in found.posts] == ["a:2", "a:1"]
    assert found.profile is not None and found.profile.display_name
    assert [asked.path for asked in site.asked] == [path]


@pytest.mark.parametrize("name", HANDLES)
def test_an_unchanged_feed_gives_nothing(site: Site, name: str) -> None:
    handle, path = HANDLES[name]

    def reply(asked: Asked) -> Reply:
        is_known = asked.headers.get("if-none-match") == '"v1"'
        return Reply(status=304) if is_known else Reply(body=atom("a:1"), headers={"ETag": '"v1"'})

    site.answer_with(path, reply)
    first = run(site, name, handle).scraped
    assert run(site, name, handle, remember=first.remember).scraped.found == []


@pytest.mark.parametrize("name", HANDLES)
@pytest.mark.parametrize("status", [404, 410])
def test_an_account_that_is_not_there_is_named(site: Site, name: str, status: int) -> None:
    handle, path = HANDLES[name]
    site.answer(path, status=status)
    if name == "arxiv":  # a search that finds nobody is an empty feed
        with pytest.raises(ScrapeFailed, match=f"status {status}"):
            run(site, name, handle)
        return
    with pytest.raises(NoAccount, match=handle.partition("@")[0]) as caught:
        run(site, name, handle)
    assert caught.value.status == status


@pytest.mark.parametrize("name", HANDLES)
def test_a_page_in_place_of_the_feed_leads_to_no_other_feed(site: Site, name: str) -> None:
    handle, path = HANDLES[name]
    site.answer(path, status=302, Location="/login")
    site.answer("/login", b'<html><link rel="alternate" type="application/rss+xml" href="/news.rss"></html>')
    site.answer("/news.rss", atom("a:1"))
    with pytest.raises(ScrapeFailed, match="the service answered with a web page instead of the account's feed"):
        run(site, name, handle)


@pytest.mark.parametrize("name", HANDLES)
def test_a_refusal_for_now_says_how_long_it_holds(site: Site, name: str) -> None:
    handle, path = HANDLES[name]
    site.answer(path, status=429, Retry_After="90")
    with pytest.raises(ScrapeFailed) as caught:
        run(site, name, handle)
    assert caught.value.retry_after_s == 90


@pytest.mark.parametrize(("name", "fresh_s"), [("youtube", 3600.0), ("arxiv", 86400.0), ("gitlab", 0.0)])
def test_a_service_is_left_alone_as_long_as_it_has_nothing_new(site: Site, name: str, fresh_s: float) -> None:
    handle, path = HANDLES[name]
    site.answer(path, atom("a:1"), ETag='"v1"')
    first = run(site, name, handle)
    site.answer(path, status=304)
    assert (first.fresh_s, run(site, name, handle, remember=first.scraped.remember).fresh_s) == (fresh_s, fresh_s)


# -- YouTube ---------------------------------------------------------------------------------------------------------

OTHER = "UCother_other_other_othe"
VIDEO = (
    '<feed xmlns="http://www.w3.org/2005/Atom" xmlns:yt="http://www.youtube.com/xml/schemas/2015"'
    ' xmlns:media="http://search.yahoo.com/mrss/"><link rel="self" href="http://www.youtube.com/feeds/videos.xml"/>'
    "<id>yt:channel:x</id><yt:channelId>x</yt:channelId><title>Ann's channel</title><author><name>Ann</name></author>"
    "<published>2010-07-21T07:18:02+00:00</published><entry><id>yt:video:abc</id><yt:videoId>abc</yt:videoId>"
    '<title>A video</title><link rel="alternate" href="https://www.youtube.com/watch?v=abc"/>'
    "<author><name>Ann</name><uri>https://www.youtube.com/channel/x</uri></author>"
    "<published>2026-01-02T15:00:00+00:00</published><updated>2026-01-03T15:00:00+00:00</updated><media:group>"
    '<media:title>A video</media:title><media:content url="https://www.youtube.com/v/abc" type="x"/>'
    '<media:thumbnail url="https://i.example/abc.jpg"/><media:description>First line\nsecond</media:description>'
    '<media:community><media:statistics views="{}"/></media:community></media:group></entry></feed>'
)


def page(link: str) -> bytes:
    others = f'<a href="/channel/{OTHER}">x</a><script>{{"channelId":"{OTHER}"}}</script>'
    return f"<!DOCTYPE html><html><head><link rel='icon' href='/x'>{link}</head><body>{others}</body></html>".encode()


def test_a_video_is_read_as_the_feed_has_it_and_being_watched_is_no_edit(site: Site) -> None:
    site.answer(FEED, VIDEO.format(1).encode())
    (post,) = run(site, "youtube", CHANNEL).scraped.posts
    assert (post.native_id, post.url) == ("yt:video:abc", "https://www.youtube.com/watch?v=abc")
    assert (post.title, post.text, post.author) == ("A video", "First line\nsecond", "Ann")
    assert post.published_at is not None and post.published_at.day == 2
    site.answer(FEED, VIDEO.format(2).encode())
    assert run(site, "youtube", CHANNEL).scraped.posts == [post]


@pytest.mark.parametrize(
    "link",
    [
        f'<link rel="canonical" href="https://www.youtube.com/channel/{CHANNEL}">',
        f"<link href='https://www.youtube.com/channel/{CHANNEL}' rel='canonical'>".replace("'", '"'),
        f'<link rel="alternate" type="application/rss+xml" title="RSS"'
        f' href="https://www.youtube.com/feeds/videos.xml?channel_id={CHANNEL}">',
        f'<meta itemprop="identifier" content="{CHANNEL}">',
        f'<META itemprop="channelId" content="{CHANNEL}">',
    ],
)
@pytest.mark.parametrize("handle", ["@ann", "c/ann", "user/ann"])
def test_a_handle_is_looked_up_in_the_channels_page_once(site: Site, link: str, handle: str) -> None:
    site.answer(f"/{handle}", page(link))
    site.answer(FEED, atom("yt:video:1"), ETag='"v"')
    first = run(site, "youtube", handle).scraped
    assert first.remember is not None
    assert (first.remember["channel"], first.remember["etag"]) == (CHANNEL, '"v"')
    again = run(site, "youtube", handle, remember=first.remember).scraped
    assert len(first.posts) == len(again.posts) == 1
    assert [asked.path for asked in site.asked] == [f"/{handle}", FEED, FEED]


def test_a_page_that_does_not_say_which_channel_it_is_fails_with_a_way_out(site: Site) -> None:
    site.answer("/@ann", page(f'<link rel="stylesheet" href="/channel/{OTHER}">'))
    with pytest.raises(ScrapeFailed, match="does not say which channel it is; give the channel's id"):
        run(site, "youtube", "@ann")


def test_a_handle_that_is_not_there_is_named(site: Site) -> None:
    with pytest.raises(NoAccount, match="YouTube has no channel or playlist @ann"):
        run(site, "youtube", "@ann")


def test_a_remembered_channel_that_is_none_is_looked_up_again(site: Site) -> None:
    site.answer("/@ann", page(f'<link rel="canonical" href="https://www.youtube.com/channel/{CHANNEL}">'))
    site.answer(FEED, atom("yt:video:1"))
    assert run(site, "youtube", "@ann", remember={"channel": "../x"}).scraped.posts


# -- arXiv -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own_id", "native_id"),
    [
        ("http://arxiv.org/abs/2401.00001v2", "2401.00001"),
        ("https://arxiv.org/abs/2401.00001v13", "2401.00001"),
        ("http://arxiv.org/abs/hep-th/9901001v1", "hep-th/9901001"),
        ("https://arxiv.org/abs/2401.00001", "2401.00001"),
    ],
)
def test_a_new_version_of_a_paper_is_the_same_post(site: Site, own_id: str, native_id: str) -> None:
    site.answer(ARXIV.format(50), atom(own_id, title="ArXiv Query: search_query=au:hinton_g"))
    found = run(site, "arxiv", "hinton_g").scraped
    assert [post.native_id for post in found.posts] == [native_id]
    assert found.profile == Profile(display_name="hinton_g")


def test_an_error_of_arxivs_is_no_post(site: Site) -> None:
    site.answer(ARXIV.format(50), atom("http://arxiv.org/api/errors#incorrect_id_format"))
    with pytest.raises(ScrapeFailed, match="arXiv does not take this query"):
        run(site, "arxiv", "hinton_g")


def test_an_author_of_nothing_is_an_empty_feed(site: Site) -> None:
    site.answer(ARXIV.format(50), atom())
    assert run(site, "arxiv", "hinton_g").scraped.posts == []


@pytest.mark.parametrize(("wanted", "asked"), [(10, 50), (200, 200), (10_000, 500)])
def test_range_asks_arxiv_for_more_in_one_request(site: Site, wanted: int, asked: int) -> None:
    site.answer(ARXIV.format(asked), atom("https://arxiv.org/abs/2401.00001v2"))
    assert len(run(site, "arxiv", "hinton_g", wanted=wanted).scraped.posts) == 1


# -- Reddit, Gitea, Mercurial ----------------------------------------------------------------------------------------


def test_range_asks_reddit_for_more_in_one_request(site: Site) -> None:
    site.answer("/r/python/new/.rss?limit=100", atom("t3_1"))
    assert [post.native_id for post in run(site, "reddit", "r/python", wanted=300).scraped.posts] == ["t3_1"]


def test_a_feed_of_giteas_that_differs_each_time_gives_the_same_posts(site: Site) -> None:
    made = iter(range(10))
    item = (
        "<item><guid>7: https://c.example/ann/r</guid><title>ann pushed</title><link>https://c.example/x</link></item>"
    )

    def reply(_: Asked) -> Reply:
        head = f"<title>Feed of ann</title><pubDate>Mon, 02 Mar 2026 12:00:0{next(made)} GMT</pubDate>"
        return Reply(body=f'<rss version="2.0"><channel>{head}{item}</channel></rss>'.encode())

    site.answer_with("/ann.rss", reply)
    first = run(site, "gitea", "ann@codeberg.org").scraped
    assert first.remember is not None and first.remember["etag"] == ""
    assert run(site, "gitea", "ann@codeberg.org", remember=first.remember).scraped.posts == first.posts


def test_range_asks_hgweb_for_more_changesets(site: Site) -> None:
    site.answer("/repo/atom-log?revcount=30", atom("x#changeset-1"))
    assert run(site, "mercurial", site.url("/repo/rss-log"), wanted=30).scraped.posts
    site.answer("/repo/atom-log", atom("x#changeset-1"))
    assert isinstance(run(site, "mercurial", site.url("/repo/rss-log")).scraped.found[-1], Remember)
