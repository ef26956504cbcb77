"""What each format says, read right."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from model import Post
from tests.support.sites import Site, scrape_feed

NAMESPACES = (
    'xmlns:atom="http://www.w3.org/2005/Atom" xmlns:content="http://purl.org/rss/1.0/modules/content/"'
    ' xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:media="http://search.yahoo.com/mrss/"'
    ' xmlns:itunes="http://www.itunes.com/dtds/podcast-1.0.dtd"'
)
NOON = datetime(2024, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


def read(site: Site, document: str) -> list[Post]:
    site.answer("/feeds/feed", document.encode())
    return scrape_feed(site.url("/feeds/feed")).posts


def rss(site: Site, items: str, head: str = "", root: str = NAMESPACES) -> list[Post]:
    return read(site, f'<rss version="2.0" {root}><channel><title>c</title>{head}{items}</channel></rss>')


def item(site: Site, inside: str, **options: str) -> Post:
    (post,) = rss(site, f"<item>{inside}</item>", **options)
    return post


def atom(site: Site, entries: str, head: str = "", root: str = "") -> list[Post]:
    return read(site, f'<feed xmlns="http://www.w3.org/2005/Atom" {root}><title>c</title>{head}{entries}</feed>')


def entry(site: Site, inside: str, **options: str) -> Post:
    (post,) = atom(site, f"<entry><id>1</id>{inside}</entry>", **options)
    return post


def json_item(site: Site, found: dict[str, Any], **head: Any) -> Post:
    (post,) = read(site, json.dumps({"version": "https://jsonfeed.org/version/1.1", "items": [found], **head}))
    return post


def test_an_rss_item_is_read_whole(site: Site) -> None:
    post = item(
        site,
        """<title>Tom &amp;amp; Jerry</title><link> https://example.org/1 </link>
        <guid isPermaLink="false">tag:1</guid><pubDate>Wed, 31 Jan 2024 13:00:00 +0100</pubDate>
        <dc:creator>Ann</dc:creator><description>short</description>
        <content:encoded><![CDATA[<p>Long &amp; <b>bold</b></p><p>two</p>]]></content:encoded>
        <enclosure url="/a.mp3" type="audio/mpeg" length="1"/>""",
        head="<link>https://example.org/</link>",
    )
    assert post == Post(
        native_id="tag:1",
        url="https://example.org/1",
        title="Tom & Jerry",
        text="Long & bold\ntwo",
        html="<p>Long &amp; <b>bold</b></p><p>two</p>",
        author="Ann",
        published_at=NOON,
        media=("https://example.org/a.mp3",),
    )


def test_an_atom_entry_is_read_whole(site: Site) -> None:
    (post,) = atom(
        site,
        """<entry><id>urn:1</id><title type="html">Tom &amp;amp; Jerry</title>
        <link rel="self" href="https://example.org/1.atom"/><link rel="alternate" href="https://example.org/1"/>
        <link rel="enclosure" href="https://example.org/a.mp3"/><author><name>Ann</name></author>
        <published>2024-01-31T12:00:00Z</published><updated>2024-02-01T12:00:00Z</updated>
        <summary>short</summary><content type="html">&lt;p&gt;Long &amp;amp; &lt;b&gt;bold&lt;/b&gt;&lt;/p&gt;</content>
        </entry>""",
    )
    assert post == Post(
        native_id="urn:1",
        url="https://example.org/1",
        title="Tom & Jerry",
        text="Long & bold",
        html="<p>Long &amp; <b>bold</b></p>",
        author="Ann",
        published_at=NOON,
        media=("https://example.org/a.mp3",),
    )


def test_a_json_item_is_read_whole(site: Site) -> None:
    found = {
        "id": "1",
        "url": "https://example.org/1",
        "title": "Tom & Jerry",
        "content_html": "<p>Long &amp; <b>bold</b></p>",
        "authors": [{"name": "Ann"}, {"name": "Bob"}],
        "date_published": "2024-01-31T13:00:00+01:00",
        "attachments": [{"url": "https://example.org/a.mp3", "mime_type": "audio/mpeg"}],
    }
    assert json_item(site, found) == Post(
        native_id="1",
        url="https://example.org/1",
        title="Tom & Jerry",
        text="Long & bold",
        html="<p>Long &amp; <b>bold</b></p>",
        author="Ann, Bob",
        published_at=NOON,
        media=("https://example.org/a.mp3",),
    )


@pytest.mark.parametrize("version", ["0.91", "0.92", "2.0", ""])
def test_every_rss_without_a_namespace_is_read(site: Site, version: str) -> None:
    posts = read(
        site, f'<rss version="{version}"><channel><title>c</title><item><link>http://h/1</link></item></channel></rss>'
    )
    assert [post.url for post in posts] == ["http://h/1"]


@pytest.mark.parametrize("space", ["http://purl.org/rss/1.0/", "http://my.netscape.com/rdf/simple/0.9/"])
def test_rdf_feeds_are_read(site: Site, space: str) -> None:
    (post,) = read(
        site,
        f"""<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns="{space}" {NAMESPACES}>
        <channel rdf:about="http://h/"><title>c</title><link>http://h/</link></channel>
        <item rdf:about="http://h/1"><title>One</title><link>/1</link><dc:date>2024-01-31T12:00:00Z</dc:date></item>
        </rdf:RDF>""",
    )
    assert (post.native_id, post.url, post.title, post.published_at) == ("http://h/1", "http://h/1", "One", NOON)


def test_atom_03_is_read(site: Site) -> None:
    (post,) = read(
        site,
        """<feed version="0.3" xmlns="http://purl.org/atom/ns#"><title>c</title><entry><id>1</id>
        <title mode="escaped" type="text/html">a &amp;amp; b</title><link rel="alternate" href="http://h/1"/>
        <issued>2024-01-31T12:00:00Z</issued><content type="text/html" mode="escaped">&lt;i&gt;x&lt;/i&gt;</content>
        </entry></feed>""",
    )
    assert (post.title, post.url, post.published_at, post.html) == ("a & b", "http://h/1", NOON, "<i>x</i>")


def test_json_feed_10_has_one_author_and_the_feeds_author_stands_in(site: Site) -> None:
    assert json_item(site, {"id": 1, "author": {"name": "Ann"}}, author={"name": "Feed"}).author == "Ann"
    assert json_item(site, {"id": 1, "content_text": "x"}, author={"name": "Feed"}).author == "Feed"


def test_json_ids_that_are_numbers_are_text(site: Site) -> None:
    assert json_item(site, {"id": 12}).native_id == "12"


def test_json_values_of_the_wrong_type_cost_their_field_alone(site: Site) -> None:
    found = {"id": "1", "title": ["x"], "url": {"a": 1}, "authors": "Ann", "attachments": [1, {"url": 2}]}
    assert json_item(site, found | {"content_text": "kept"}) == Post(native_id="1", text="kept")


@pytest.mark.parametrize(
    ("inside", "title"),
    [
        ("<media:title>no</media:title><title>yes</title>", "yes"),
        ("<title>a <b>bold</b> word</title>", "a bold word"),
        ("<title>a<!-- comment -->b</title>", "ab"),
        ("<title><![CDATA[a & b]]></title>", "a & b"),
        ("<title><![CDATA[caf&eacute; <em>x</em>]]></title>", "café x"),
        ("<title>a &amp;#8217; b</title>", "a \u2019 b"),
        ("<title>2 &lt; 3 &amp; 4 &gt; 1</title>", "2 < 3 & 4 > 1"),
        ("<title>the &lt;b&gt; tag</title>", "the <b> tag"),
        ("<title>\n  a\n  b\t</title>", "a b"),
        ("<title></title><dc:title>second</dc:title>", "second"),
    ],
)
def test_titles_are_plain_text(site: Site, inside: str, title: str) -> None:
    assert item(site, f"<guid>1</guid>{inside}").title == title


@pytest.mark.parametrize(
    ("inside", "title"),
    [
        ("<title>the &lt;b&gt;b&lt;/b&gt; tag</title>", "the <b>b</b> tag"),
        ('<title type="html">the &lt;b&gt;b&lt;/b&gt; tag</title>', "the b tag"),
        ('<title type="xhtml"><div xmlns="http://www.w3.org/1999/xhtml">a <b>b</b> c</div></title>', "a b c"),
        ('<title type="text">AT&amp;amp;T</title>', "AT&amp;T"),
    ],
)
def test_atom_says_what_a_title_is(site: Site, inside: str, title: str) -> None:
    assert entry(site, inside).title == title


@pytest.mark.parametrize(
    ("content", "html", "text"),
    [
        ('type="text">a &lt;b&gt; c', "", "a <b> c"),
        ('type="html">a &lt;b&gt;c&lt;/b&gt;', "a <b>c</b>", "a c"),
        (
            'type="xhtml"><div xmlns="http://www.w3.org/1999/xhtml">a &lt; <b>c</b><br/></div>',
            "a &lt; <b>c</b><br/>",
            "a < c",
        ),
        ('type="xhtml"><x:div xmlns:x="http://www.w3.org/1999/xhtml"><x:p>a</x:p></x:div>', "<p>a</p>", "a"),
        ('type="image/png">iVBORw0KGgo=', "", ""),
    ],
)
def test_atom_content_is_what_its_type_says(site: Site, content: str, html: str, text: str) -> None:
    post = entry(site, f"<content {content}</content>")
    assert (post.html, post.text) == (html, text)


def test_markup_that_was_not_escaped_is_kept_as_markup(site: Site) -> None:
    post = item(site, "<guid>1</guid><description>one <p>two &amp; <i>three</i></p> four</description>")
    assert post.html == "one <p>two &amp; <i>three</i></p> four"
    assert post.text == "one\ntwo & three\nfour"


def test_an_atom_entry_without_content_has_its_summary(site: Site) -> None:
    assert entry(site, '<content src="http://h/x"/><summary>short</summary>').text == "short"


@pytest.mark.parametrize(
    ("inside", "url"),
    [
        ("<link>http://h/1</link>", "http://h/1"),
        ('<atom:link rel="self" href="http://h/self"/><link>http://h/1</link>', "http://h/1"),
        ('<atom:link href="http://h/1"/>', "http://h/1"),
        ("<guid>http://h/1</guid>", "http://h/1"),
        ('<guid isPermaLink="false">http://h/1</guid><title>x</title>', ""),
        ("<guid>1</guid>", ""),
        ("<link>javascript:alert(1)</link><title>x</title>", ""),
        ("<link> java\nscript:alert(1)</link><title>x</title>", ""),
        ("<link>data:text/html,x</link><title>x</title>", ""),
        ("<link>mailto:a@example.org</link><title>x</title>", ""),
        ("<link>http://[bad</link><title>x</title>", ""),
        ("<link>http:///nohost</link><title>x</title>", "http://site.example/nohost"),
        ("<link>//h/1</link>", "http://h/1"),
        ("<link>HTTP://h/a b?q=\u00e4&lt;</link>", "http://h/a%20b?q=%C3%A4%3C"),
        ("<link>http://h/?a=1&amp;b=2#c</link>", "http://h/?a=1&b=2#c"),
        (f"<link>http://h/{'x' * 3000}</link><title>x</title>", ""),
    ],
)
def test_links_are_web_addresses_or_nothing(site: Site, inside: str, url: str) -> None:
    assert item(site, inside, head="<link>http://site.example/</link>").url == url


def test_relative_links_of_rss_are_relative_to_the_feeds_link(site: Site) -> None:
    assert item(site, "<link>p/1</link>", head="<link>https://example.org/blog/</link>").url == (
        "https://example.org/blog/p/1"
    )


def test_without_a_feeds_link_they_are_relative_to_the_answer(site: Site) -> None:
    assert item(site, "<link>p/1</link>").url == site.url("/feeds/p/1")


def test_xml_base_goes_before_everything_and_nests(site: Site) -> None:
    inside = '<link xml:base="deep/" href="1"/><link rel="enclosure" href="a.mp3"/>'
    post = entry(site, inside, root='xml:base="https://example.org/x/"', head='<link href="https://other.example/"/>')
    assert (post.url, post.media) == ("https://example.org/x/deep/1", ("https://example.org/x/a.mp3",))


def test_relative_links_of_atom_are_relative_to_the_answer_after_redirects(site: Site) -> None:
    site.answer("/old", status=301, Location="/new/feed")
    site.answer(
        "/new/feed",
        b'<feed xmlns="http://www.w3.org/2005/Atom"><entry><id>1</id><link href="../p/1"/></entry></feed>',
    )
    (post,) = scrape_feed(site.url("/old")).posts
    assert post.url == site.url("/p/1")


def test_an_html_alternate_goes_before_another(site: Site) -> None:
    links = '<link type="application/json" href="http://h/j"/><link type="text/html" href="http://h/1"/>'
    assert entry(site, links).url == "http://h/1"


@pytest.mark.parametrize(
    ("inside", "author"),
    [
        ("<author>ann@example.org (Ann Example)</author>", "Ann Example"),
        ("<author>Ann Example &lt;ann@example.org&gt;</author>", "Ann Example"),
        ("<author>ann@example.org</author>", "ann@example.org"),
        ("<dc:creator>Ann</dc:creator><dc:creator>Bob</dc:creator><dc:creator>Ann</dc:creator>", "Ann, Bob"),
        ("<itunes:author>Ann</itunes:author>", "Ann"),
        ("<atom:author><atom:name>Ann</atom:name></atom:author>", "Ann"),
        (f"<author>{'x' * 100_000}</author>", "x" * 500),
    ],
)
def test_authors_of_rss(site: Site, inside: str, author: str) -> None:
    assert item(site, f"<guid>1</guid>{inside}").author == author


@pytest.mark.parametrize(
    ("inside", "author"),
    [
        ("<author><name>Ann</name></author><author><name>Bob</name></author>", "Ann, Bob"),
        ("<author><email>a@example.org</email></author>", "a@example.org"),
        ("<source><author><name>Ann</name></author></source>", "Ann"),
        ("", "Feed"),
    ],
)
def test_authors_of_atom_with_the_feeds_as_the_last_resort(site: Site, inside: str, author: str) -> None:
    assert entry(site, inside, head="<author><name>Feed</name></author>").author == author


def test_media_are_enclosures_and_contents_each_once_in_order(site: Site) -> None:
    post = item(
        site,
        """<guid>1</guid><enclosure url="http://h/a"/><enclosure url="javascript:x"/><enclosure/>
        <media:group><media:content url="http://h/b"/><media:content url="http://h/a"/></media:group>
        <media:content url="http://h/c"/><media:thumbnail url="http://h/t"/>""",
    )
    assert post.media == ("http://h/a", "http://h/c", "http://h/b")


def test_a_thumbnail_stands_in_where_there_is_nothing_else(site: Site) -> None:
    assert item(site, '<guid>1</guid><media:thumbnail url="http://h/t"/>').media == ("http://h/t",)


def test_there_is_an_end_to_the_media_of_one_item(site: Site) -> None:
    enclosures = "".join(f'<enclosure url="http://h/{n}"/>' for n in range(1000))
    assert len(item(site, f"<guid>1</guid>{enclosures}").media) == 50


def test_a_video_channels_description_is_the_text(site: Site) -> None:
    group = "<media:group><media:description>one\ntwo &lt;3</media:description></media:group>"
    assert entry(site, group, root=NAMESPACES).text == "one\ntwo <3"


@pytest.mark.parametrize(
    "inside", ["<published>2024-01-31T12:00:00Z</published>", "<updated>2024-01-31T12:00:00Z</updated>"]
)
def test_atom_without_a_published_date_has_its_update(site: Site, inside: str) -> None:
    assert entry(site, inside).published_at == NOON


def test_a_date_from_nowhere_is_no_date_and_the_next_best_is_taken(site: Site) -> None:
    post = item(site, "<guid>1</guid><pubDate>soon</pubDate><dc:date>2024-01-31T12:00:00Z</dc:date>")
    assert post.published_at == NOON
    assert item(site, "<guid>2012</guid><pubDate>0000-00-00</pubDate>").published_at is None


def test_an_item_with_nothing_in_it_is_no_post(site: Site) -> None:
    assert rss(site, "<item/><item><category>x</category></item><item><title>t</title></item>")[0].title == "t"
    assert len(rss(site, "<item/><item><title>t</title></item>")) == 1
