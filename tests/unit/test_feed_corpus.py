"""Documents of the kinds that are out there: however they are read, the posts are the same and none is lost."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from model import Post
from sources import tolerant, xml_feed
from sources.items import Item, posts
from tests.support.sites import Progress

URL = "https://feeds.example/feed.xml"
WORDPRESS = """<?xml version="1.0" encoding="UTF-8"?><rss version="2.0"
 xmlns:content="http://purl.org/rss/1.0/modules/content/" xmlns:wfw="http://wellformedweb.org/CommentAPI/"
 xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:atom="http://www.w3.org/2005/Atom"
 xmlns:slash="http://purl.org/rss/1.0/modules/slash/">
<channel><title>A blog &#8211; news</title><atom:link href="https://blog.example/feed/" rel="self"/>
<link>https://blog.example</link><description>Daily</description><generator>x</generator>
<item><title>Zo&#235; &#038; I</title><link>https://blog.example/1/</link><comments>https://blog.example/1/#c</comments>
<dc:creator><![CDATA[Ann]]></dc:creator><pubDate>Wed, 31 Jan 2024 10:00:00 +0000</pubDate>
<category><![CDATA[News]]></category><guid isPermaLink="false">https://blog.example/?p=1</guid>
<description><![CDATA[Short &#8230; <a href="https://blog.example/1/">more</a>]]></description>
<content:encoded><![CDATA[<p>One &amp; two</p>
<ul><li>a</li><li>b</li></ul>]]></content:encoded><slash:comments>3</slash:comments></item>
<item><title>Second</title><link>https://blog.example/2/</link><guid isPermaLink="false">https://blog.example/?p=2</guid>
<pubDate>Thu, 01 Feb 2024 23:30:00 -0500</pubDate><description><![CDATA[Text]]></description></item>
</channel></rss>"""
PODCAST = """<?xml version="1.0"?><rss version="2.0" xmlns:itunes="http://www.itunes.com/dtds/podcast-1.0.dtd">
<channel><title>Pod</title><link>https://pod.example/</link><itunes:author>Host</itunes:author>
<item><title>Episode 1</title><guid isPermaLink="false">ep-1</guid><link>https://pod.example/1</link>
<enclosure url="https://cdn.example/1.mp3?a=1&amp;b=2" length="1000" type="audio/mpeg"/>
<description>All &lt;b&gt;about&lt;/b&gt; it</description><pubDate>Mon, 05 Feb 2024 05:00:00 GMT</pubDate></item>
</channel></rss>"""
MASTODON = """<?xml version="1.0" encoding="UTF-8"?><rss version="2.0" xmlns:media="http://search.yahoo.com/mrss/">
<channel><title>Ann</title><link>https://social.example/@ann</link>
<item><guid isPermaLink="true">https://social.example/@ann/1</guid><link>https://social.example/@ann/1</link>
<pubDate>Wed, 31 Jan 2024 10:00:00 +0000</pubDate><description>&lt;p&gt;Hello &lt;br /&gt;world&lt;/p&gt;</description>
<media:content url="https://cdn.example/a.png" type="image/png" medium="image"/></item></channel></rss>"""
RSS_091 = """<?xml version="1.0"?><rss version="0.91"><channel><title>Old</title><link>http://old.example/</link>
<item><title>One</title><link>http://old.example/1</link><description>plain
text</description></item><item><title>Two</title><link>http://old.example/2</link></item></channel></rss>"""
RSS_10 = """<?xml version="1.0"?><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"
 xmlns="http://purl.org/rss/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/">
<channel rdf:about="http://rdf.example/"><title>RDF</title><link>http://rdf.example/</link><items/></channel>
<item rdf:about="http://rdf.example/1"><title>One</title><link>http://rdf.example/1</link>
<description>first</description><dc:creator>Ann</dc:creator><dc:date>2024-01-31T10:00:00+01:00</dc:date></item>
<item rdf:about="http://rdf.example/2"><title>Two</title><link>http://rdf.example/2</link></item></rdf:RDF>"""
ATOM = """<?xml version="1.0" encoding="utf-8"?><feed xmlns="http://www.w3.org/2005/Atom">
<title type="text">Releases</title><link rel="self" href="https://code.example/a.atom"/>
<link rel="alternate" type="text/html" href="https://code.example/a"/><id>tag:code.example,2008:a</id>
<entry><id>tag:code.example,2008:a/v2</id><updated>2024-01-31T10:00:00Z</updated>
<link rel="alternate" type="text/html" href="https://code.example/a/v2"/><title>v2 &amp; more</title>
<content type="html">&lt;p&gt;Fixes &amp;lt;3&lt;/p&gt;</content><author><name>ann</name></author></entry>
<entry><id>tag:code.example,2008:a/v1</id><published>2023-01-31T10:00:00.5+02:00</published>
<updated>2024-01-31T10:00:00Z</updated><link href="https://code.example/a/v1"/>
<title type="html">v1 &amp;mdash; x</title>
<summary>first</summary><author><name>ann</name></author><author><name>bob</name></author></entry></feed>"""
ATOM_XHTML = """<?xml version="1.0"?><feed xmlns="http://www.w3.org/2005/Atom" xmlns:h="http://www.w3.org/1999/xhtml"
 xml:base="https://x.example/"><title>X</title><id>x</id><entry><id>urn:uuid:1</id><title>One</title>
<link href="https://x.example/1"/><updated>2024-01-31T10:00:00Z</updated><author><name>Ann</name></author>
<content type="xhtml"><div xmlns="http://www.w3.org/1999/xhtml"><p>a &lt; b</p><p>c</p></div></content>
</entry></feed>"""
ATOM_03 = """<?xml version="1.0"?><feed version="0.3" xmlns="http://purl.org/atom/ns#"><title>Old atom</title>
<entry><id>tag:1</id>
<title>One</title><link rel="alternate" type="text/html" href="http://a3.example/1"/>
<issued>2004-01-31T10:00:00Z</issued><modified>2004-01-31T11:00:00Z</modified><author><name>Ann</name></author>
<content type="text/html" mode="escaped">&lt;p&gt;x&lt;/p&gt;</content></entry></feed>"""
HGWEB = """<?xml version="1.0" encoding="utf-8"?><feed xmlns="http://www.w3.org/2005/Atom">
 <id>http://127.0.0.1/alice/</id><link rel="self" href="http://127.0.0.1/alice/atom-log"/>
 <link rel="alternate" href="http://127.0.0.1/alice/"/><title>alice Changelog</title>
 <updated>2024-01-31T10:00:00+00:00</updated><entry><title>[default] first</title>
 <id>http://127.0.0.1/alice/#changeset-1f</id><link href="http://127.0.0.1/alice/rev/1f"/>
 <author><name>Alice</name><email>&#97;&#108;</email></author><updated>2024-01-31T10:00:00+00:00</updated>
 <published>2024-01-31T10:00:00+00:00</published><content type="xhtml">
 <table xmlns="http://www.w3.org/1999/xhtml"><tr><th>changeset</th><td>1f</td></tr></table></content></entry></feed>"""
CORPUS = {
    "wordpress": (WORDPRESS, 2),
    "podcast": (PODCAST, 1),
    "mastodon": (MASTODON, 1),
    "rss 0.91": (RSS_091, 2),
    "rss 1.0": (RSS_10, 2),
    "atom": (ATOM, 2),
    "atom xhtml": (ATOM_XHTML, 1),
    "atom 0.3": (ATOM_03, 1),
    "hgweb": (HGWEB, 1),
}
each_document = pytest.mark.parametrize(("document", "count"), CORPUS.values(), ids=CORPUS.keys())


def read(document: str) -> list[Post]:
    return posts(xml_feed.read(document, URL), Progress())[0]


def comparable(item: Item | Post) -> Item | Post:
    """The tolerant parser reformats XHTML; what is said stays the same."""
    return replace(item, html=re.sub(r"\s|xmlns=\"[^\"]*\"", "", item.html))


@each_document
def test_the_strict_and_the_tolerant_reader_give_equal_items(document: str, count: int) -> None:
    strict = [item for item in xml_feed.read(document, URL).items if item is not None]
    pieces = re.split(r"(<(?:item|entry)\b.*?</(?:item|entry)>)", document[document.index("?>") + 2 :], flags=re.DOTALL)
    tolerantly = [tolerant.item(pieces[0] + piece + pieces[-1], URL) for piece in pieces[1::2]]
    assert len(strict) == len(tolerantly) == count
    assert [comparable(item) for item in tolerantly if item] == [comparable(item) for item in strict]


@each_document
def test_cut_into_its_items_a_document_gives_the_same_posts(document: str, count: int) -> None:
    broken = document.replace("</title>", "</title><odd>", 1)
    assert read(broken) == read(document)
    assert len(read(document)) == count


@each_document
def test_nothing_that_the_documents_say_is_lost(document: str, count: int) -> None:
    for post in read(document):
        assert post.native_id and post.url
        assert post.title or post.text
        assert post.published_at is not None or "published" not in document
        assert "<" not in post.text.replace("<3", "").replace("< b", "")
