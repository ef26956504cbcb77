"""The Mercurial source against hgweb itself."""

from __future__ import annotations

from pathlib import Path

from tests.support.mercurial import Hgweb
from tests.support.services import resolve, sorted_out
from tests.support.sites import Scraped, open_http


def scrape(url: str, *, wanted: int | None = None) -> Scraped:
    from model import Target
    from sources.mercurial import scrape

    who = resolve(url)
    target = Target(id=1, source="mercurial", handle=who.handle, url=who.url, range=wanted)
    with open_http() as http:
        return sorted_out(scrape(target, http))


def test_a_repository_is_one_account_whichever_log_names_it_and_range_asks_for_more(tmp_path: Path) -> None:
    with Hgweb(tmp_path / "repos", ["alice"]) as hgweb:
        for n in range(2, 14):
            hgweb.commit("alice", f"commit {n}")
        found = scrape(hgweb.feed("alice", "rss-log"))
        assert [post.title.split()[-1] for post in found.posts] == [str(n) for n in range(13, 3, -1)]
        assert {post.native_id for post in found.posts} == {
            post.native_id for post in scrape(hgweb.feed("alice", "atom-log")).posts
        }
        more = scrape(hgweb.feed("alice"), wanted=40)
        assert len(more.posts) == 13
        assert all(post.author.startswith("Ann Author") and post.published_at and post.url for post in more.posts)
