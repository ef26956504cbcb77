"""Feeds that are not well-formed: what is whole is kept, with the identity it always had."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from errors import ScrapeFailed
from model import Post
from sources import xml_feed
from sources.items import posts
from tests.support.sites import Progress, Site, scrape_feed

GOOD = (
    "<item><guid>{0}</guid><title>Post {0}</title><link>http://h/{0}</link><description>text {0}</description></item>"
)
BAD = "<item><guid>bad</guid><title>Bad</title><link>http://h/bad</link><description>{}</description></item>"
RSS = "<rss version='2.0'><channel><title>A blog</title><link>http://h/</link>{}</channel></rss>"
ATOM = """<?xml version="1.0"?><feed xmlns="http://www.w3.org/2005/Atom" xml:base="http://h/x/"><title>A blog</title>
<author><name>Ann</name></author>{}</feed>"""
ENTRY = '<entry><id>{0}</id><title>Post {0}</title><link href="{0}"/><content type="html">text {0}</content></entry>'


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


def read(document: str) -> list[Post]:
    return posts(xml_feed.read(document, "http://h/feed"), Progress())[0]


def ids(document: str) -> list[str]:
    return [post.native_id for post in read(document)]


@pytest.mark.parametrize(
    "damage",
    [
        "<p>one<br>two",
        "<b><i>crossed</b></i>",
        "a < b",
        "<unknown:tag>x</unknown:tag>",
        '<a href=x title="y>z',
        "<![CDATA[never closed",
        "<!-- never closed",
        "<? never closed",
        "</description></description>",
        "&;&#;&#x;&a b",
        "]]>",
    ],
)
def test_damage_in_one_item_costs_no_other(damage: str) -> None:
    document = RSS.format(GOOD.format(1) + BAD.format(damage) + GOOD.format(2))
    well = read(RSS.format(GOOD.format(1) + GOOD.format(2)))
    found = {post.native_id: post for post in read(document)}
    assert [found["1"], found["2"]] == well
    assert found["bad"].url == "http://h/bad"


def test_a_damaged_item_keeps_its_text() -> None:
    (post,) = read(RSS.format(BAD.format("<p>one<br>two <b>three")))
    assert post == Post(
        native_id="bad", url="http://h/bad", title="Bad", text="one\ntwo three", html="<p>one<br>two <b>three"
    )


@pytest.mark.parametrize("guid", ["1", " http://h/g ", "<![CDATA[tag:x]]>", "a&amp;b", "tag:x,2024:1"])
def test_an_item_keeps_its_identity_when_it_is_damaged(guid: str) -> None:
    item = f"<item><guid>{guid}</guid><title>t</title><description>%s</description></item>"
    (well,), (damaged,) = read(RSS.format(item % "x")), read(RSS.format(item % "<br>"))
    assert (damaged.native_id, damaged.url) == (well.native_id, well.url)


def test_an_entry_keeps_identity_link_and_author_when_it_is_damaged() -> None:
    well, damaged = ENTRY.format(1), ENTRY.format(1).replace("text 1", "<br>text 1")
    (post,), (hurt,) = read(ATOM.format(well)), read(ATOM.format(damaged))
    assert (
        (hurt.native_id, hurt.url, hurt.title)
        == (post.native_id, post.url, post.title)
        == ("1", "http://h/x/1", "Post 1")
    )
    assert post.author == "Ann"


@pytest.mark.parametrize("entry", ["<id>1</id>{}", "{}<id>1</id>"])
def test_the_id_of_an_entrys_source_is_not_its_own(entry: str) -> None:
    source = "<source><id>other</id><title>Other</title></source><title>t</title><br>"
    assert ids(ATOM.format(f"<entry>{entry.format(source)}</entry>")) == ["1"]


def test_whole_entries_beside_a_damaged_one_have_the_feeds_author_and_base() -> None:
    document = ATOM.format(ENTRY.format(1) + ENTRY.format(2).replace("text", "<br>"))
    assert read(document)[0] == read(ATOM.format(ENTRY.format(1)))[0]


@pytest.mark.parametrize("cut", range(1, 200, 7))
def test_wherever_a_document_is_cut_the_items_before_are_there_and_none_is_half(cut: int) -> None:
    whole = RSS.format("".join(GOOD.format(n) for n in range(5)))
    document = whole[: whole.index("<item>") + 2 * len(GOOD.format(0)) + cut]
    expected = read(whole)[: document.count("</item>")]
    assert read(document) == expected


def test_half_a_guid_is_no_guid(site: Site) -> None:
    site.answer("/feed", RSS.format(GOOD.format(1) + GOOD.format(12345)).encode().partition(b"345</guid>")[0])
    assert [post.native_id for post in scrape_feed(site.url()).posts] == ["1"]


def test_a_broken_feed_that_goes_on_to_its_end_may_be_remembered(site: Site) -> None:
    site.answer("/feed", RSS.format(BAD.format("<br>")).encode(), ETag='"v1"')
    found = scrape_feed(site.url())
    assert found.remember is not None
    assert found.remember["etag"] == '"v1"'
    assert found.profile is not None
    assert found.profile.display_name == "A blog"


def test_an_item_that_is_not_closed_ends_where_the_next_begins() -> None:
    document = RSS.format(GOOD.format(1).removesuffix("</item>") + GOOD.format(2) + GOOD.format(3))
    assert ids(document) == ["1", "2", "3"]


def test_the_last_item_may_end_with_the_feed() -> None:
    document = RSS.format(GOOD.format(1) + GOOD.format(2).removesuffix("</item>"))
    assert ids(document) == ["1", "2"]


def test_item_markup_that_is_quoted_makes_no_items() -> None:
    quoted = "<![CDATA[<item><guid>no</guid></item>]]><!-- <item><guid>no</guid></item> --><br>"
    assert ids(RSS.format(GOOD.format(1) + BAD.format(quoted) + GOOD.format(2))) == ["1", "bad", "2"]


@pytest.mark.parametrize("junk", ["Warning: x in y.php on line 3\n", "\n\n \t", "\ufeff", "<br />\n<b>Notice</b>: x\n"])
def test_what_stands_before_the_document_is_passed_over(site: Site, junk: str) -> None:
    site.answer("/feed", (junk + '<?xml version="1.0"?>' + RSS.format(GOOD.format(1))).encode())
    assert [post.native_id for post in scrape_feed(site.url()).posts] == ["1"]


def test_what_stands_after_it_as_well() -> None:
    assert ids(RSS.format(GOOD.format(1)) + "<script>x</script> & more") == ["1"]


def test_usual_prefixes_that_were_not_declared_are_understood() -> None:
    item = "<item><guid>1</guid><dc:creator>Ann</dc:creator><content:encoded>&lt;i>x&lt;/i></content:encoded></item>"
    (post,) = read(RSS.format(item))
    assert (post.author, post.html) == ("Ann", "<i>x</i>")


def test_rdf_that_is_broken_is_read_as_well() -> None:
    document = """<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns="http://purl.org/rss/1.0/">
    <channel rdf:about="http://h/"><title>A blog</title><link>http://h/</link></channel>
    <item rdf:about="http://h/1"><title>One</title><link>/1</link></item>
    <item rdf:about="http://h/2"><title>Two</title><link>/2</link><description><br></description></item></rdf:RDF>"""
    assert [(post.native_id, post.url) for post in read(document)] == [
        ("http://h/1", "http://h/1"),
        ("http://h/2", "http://h/2"),
    ]


def test_a_broken_feed_without_a_whole_item_fails(site: Site) -> None:
    site.answer("/feed", b"<rss><channel><title>x & y</title><item><guid>1</gu")
    with pytest.raises(ScrapeFailed, match="broken or was cut short, and no whole item is in it"):
        scrape_feed(site.url())


@pytest.mark.parametrize(
    "inside",
    ["<![CDATA[" * 50_000, "<!--" * 50_000, "<" * 50_000, "&" * 100_000, "<guid>" + " " * 100_000, "<item " * 20_000],
)
def test_hostile_markup_takes_no_more_than_its_share_of_time(inside: str) -> None:
    document = RSS.format(GOOD.format(1) + BAD.format(inside))
    assert ids(document)[0] == "1"


def test_each_piece_of_a_long_broken_feed_is_progress() -> None:
    progress = Progress()
    feed = xml_feed.read(RSS.format(BAD.format("<br>") + "".join(GOOD.format(n) for n in range(500))), "http://h/feed")
    posts(feed, progress)
    assert progress == [f"read {count} items" for count in range(100, 501, 100)]


def test_the_tolerant_parser_is_loaded_only_when_it_is_needed() -> None:
    import subprocess
    import sys

    code = "import sys, sources.feed; sys.exit('feedparser' in sys.modules or 'store' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_to_a_document_it_is_read_or_refused(seed: int) -> None:
    chance = random.Random(seed)
    odd = ["<", ">", "&", "]]>", "<![CDATA[", "<!--", "</item>", "<item>", "<entry>", "<x:y/>", "<?", '"', "&#xD800;"]
    for _ in range(50):
        document = chance.choice([RSS, ATOM]).format(GOOD.format(1) + ENTRY.format(2))
        for _ in range(chance.randint(1, 6)):
            at = chance.randrange(len(document))
            document = document[:at] + chance.choice([*odd, document[at : at + 40], ""]) + document[at + 5 :]
        try:
            found = read(document)
        except ScrapeFailed:
            continue
        assert all(post.native_id for post in found)
