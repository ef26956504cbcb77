"""Which post an item is: its guid, else its link, else a hash, and what is done about guids that repeat."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from model import Post
from tests.support.sites import Site, scrape_feed


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


def rss(site: Site, items: str) -> list[Post]:
    site.answer("/feed", f"<rss><channel><title>c</title>{items}</channel></rss>".encode())
    return scrape_feed(site.url()).posts


def item(site: Site, inside: str) -> Post:
    (post,) = rss(site, f"<item>{inside}</item>")
    return post


def test_the_guid_is_the_identity_else_the_link_else_a_hash(site: Site) -> None:
    posts = rss(
        site,
        "<item><guid> g </guid><link>http://h/1</link></item><item><link>http://h/2</link></item>"
        "<item><title>t</title><description>d</description></item>",
    )
    assert [post.native_id for post in posts[:2]] == ["g", "http://h/2"]
    assert posts[2].native_id.startswith("sha256:")


def test_the_hash_depends_on_title_date_and_text_and_on_nothing_else(site: Site) -> None:
    same = "<title>t</title><description>d</description><pubDate>2024-01-31</pubDate>"
    ids = {
        item(site, same).native_id,
        item(site, f"{same}<category>x</category>").native_id,
        item(site, same.replace("<title>t", "<title>u")).native_id,
        item(site, same.replace("<description>d", "<description>e")).native_id,
        item(site, same.replace("31", "30")).native_id,
    }
    assert len(ids) == 4


def test_a_guid_that_repeats_with_another_link_is_guid_and_link_wherever_it_stands(site: Site) -> None:
    first, second = (f"<item><guid>g</guid><link>http://h/{n}</link></item>" for n in (1, 2))
    assert [post.native_id for post in rss(site, first + second)] == ["g http://h/1", "g http://h/2"]
    assert [post.native_id for post in rss(site, second + first)] == ["g http://h/2", "g http://h/1"]


def test_a_guid_that_repeats_without_links_loses_no_item(site: Site) -> None:
    items = "".join(f"<item><guid>g</guid><title>{n}</title></item>" for n in range(3))
    posts = rss(site, items)
    assert [post.title for post in posts] == ["0", "1", "2"]
    assert len({post.native_id for post in posts}) == 3


def test_items_without_a_guid_that_share_a_link_are_all_kept(site: Site) -> None:
    items = "".join(f"<item><link>http://h/</link><title>{n}</title></item>" for n in range(3))
    assert len(rss(site, items)) == 3


def test_total_duplicates_are_one_post(site: Site) -> None:
    same = "<item><guid>g</guid><link>http://h/1</link><title>t</title></item>"
    assert [post.native_id for post in rss(site, same * 3)] == ["g"]
    assert len(rss(site, "<item><title>t</title></item>" * 3)) == 1


def test_a_guid_without_measure_is_cut_and_still_its_own(site: Site) -> None:
    items = "".join(f"<item><guid>{'x' * 5000}{n}</guid></item>" for n in range(2))
    ids = [post.native_id for post in rss(site, items)]
    assert len(set(ids)) == 2
    assert max(map(len, ids)) < 1000
