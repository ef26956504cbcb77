"""Bytes become the right text, whatever was declared, and the text is fit to be stored."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from model import Post, json_ready
from sources.charsets import codec, decode
from tests.support.sites import Site, scrape_feed


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


def rss(title: str, declaration: str = "") -> str:
    return (
        f"{declaration}<rss><channel><title>c</title><item><guid>1</guid><title>{title}</title></item></channel></rss>"
    )


def title_of(site: Site, body: bytes, content_type: str = "application/rss+xml") -> str:
    site.answer("/feed", body, Content_Type=content_type)
    (post,) = scrape_feed(site.url()).posts
    return post.title


@pytest.mark.parametrize(
    ("charset", "title"),
    [
        ("utf-8", "Grüße, 世界"),
        ("utf-16", "Grüße, 世界"),
        ("iso-8859-1", "Grüße"),
        ("iso-8859-2", "Žluťoučký"),
        ("windows-1251", "Привет"),
        ("koi8-r", "Привет"),
        ("gb2312", "你好"),
        ("big5", "你好"),
        ("shift_jis", "こんにちは"),
        ("euc-jp", "こんにちは"),
        ("iso-2022-jp", "こんにちは"),
    ],
)
@pytest.mark.parametrize("place", ["header", "declaration"])
def test_a_declared_charset_is_used(site: Site, charset: str, title: str, place: str) -> None:
    declaration = f'<?xml version="1.0" encoding="{charset}"?>' if place == "declaration" else ""
    content_type = f"text/xml; charset={charset}" if place == "header" else "text/xml"
    assert title_of(site, rss(title, declaration).encode(charset), content_type) == title


@pytest.mark.parametrize("charset", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_byte_order_mark_decides_and_utf_16_is_known_without_one(site: Site, charset: str) -> None:
    body = rss("Grüße", '<?xml version="1.0" encoding="iso-8859-1"?>').encode(charset)
    assert title_of(site, body, "text/xml; charset=windows-1251") == "Grüße"


@pytest.mark.parametrize(
    ("actual", "header", "declared"),
    [
        ("utf-8", "iso-8859-1", None),
        ("utf-8", None, "iso-8859-1"),
        ("utf-8", "windows-1252", "us-ascii"),
        ("utf-8", "gbk", "utf-8"),
        ("utf-8", "utf-16", None),
        ("utf-8", None, "utf-16"),
        ("utf-8", "no-such-charset", "x-unknown"),
        ("utf-8", "punycode", "unicode_escape"),
        ("windows-1252", "utf-8", "utf-8"),
        ("windows-1252", None, None),
        ("windows-1252", "us-ascii", None),
        ("koi8-r", "iso-8859-1", "koi8-r"),
    ],
)
def test_a_wrong_charset_does_no_harm(site: Site, actual: str, header: str | None, declared: str | None) -> None:
    title = "Привет, мир" if actual == "koi8-r" else "Grüße \u2013 größer"
    declaration = f'<?xml version="1.0" encoding="{declared}"?>' if declared else ""
    content_type = f"text/xml; charset={header}" if header else "text/xml"
    assert title_of(site, rss(title, declaration).encode(actual), content_type) == title


def test_one_bad_byte_in_utf_8_costs_one_character(site: Site) -> None:
    assert title_of(site, rss("Grüße aus Köln X").encode().replace(b"X", b"\xff")) == "Grüße aus Köln \ufffd"


def test_a_character_cut_at_the_end_of_the_document_is_no_other_charset(site: Site) -> None:
    whole = "<rss><channel><item><title>ä</title></item><item><title>ä"
    site.answer("/feed", whole.encode()[:-1])
    assert [post.title for post in scrape_feed(site.url()).posts] == ["ä"]


@pytest.mark.parametrize(
    "name", ["hex", "rot13", "punycode", "idna", "unicode_escape", "undefined", "", "\0", "x" * 9999]
)
def test_what_is_no_charset_is_not_used(name: str) -> None:
    assert codec(name) is None
    assert decode(b"abc", name) == "abc"


@pytest.mark.parametrize(
    ("written", "title"),
    [
        ("a&nbsp;b", "a b"),
        ("caf&eacute; &mdash; &hellip;", "café \u2014 \u2026"),
        ("R&D", "R&D"),
        ("a & b", "a & b"),
        ("&unknown; &#8364; &#x20AC;", "&unknown; € €"),
        ("a&#0;b&#x1F;c&#xD800;d&#9999999;", "abcd"),
        ("it&#146;s &#150; fine", "it\u2019s \u2013 fine"),
        ("a\0b\x08c\x1fd", "abcd"),
        ("<![CDATA[R&D &amp;amp; &eacute;]]>", "R&D &amp; é"),
        ("&lt;script&gt;", "<script>"),
    ],
)
def test_entities_are_what_the_author_meant(site: Site, written: str, title: str) -> None:
    assert title_of(site, rss(written).encode()) == title


def test_the_links_of_careless_documents_keep_their_parameters(site: Site) -> None:
    site.answer("/feed", b"<rss><channel><item><link>http://h/?a=1&b=2&copy=3</link></item></channel></rss>")
    (post,) = scrape_feed(site.url()).posts
    assert post.url == "http://h/?a=1&b=2&copy=3"


def test_entities_that_the_document_declares_are_expanded(site: Site) -> None:
    doctype = '<!DOCTYPE rss [<!ENTITY me "Ann &#38;#38; Bob">]>'
    assert title_of(site, rss("by &me;", doctype).encode()) == "by Ann & Bob"


def test_the_doctype_of_rss_091_is_not_fetched_and_its_entities_are_known(site: Site) -> None:
    doctype = f'<!DOCTYPE rss PUBLIC "-//Netscape Communications//DTD RSS 0.91//EN" "{site.url("/rss.dtd")}">'
    assert title_of(site, rss("caf&eacute;", doctype).encode()) == "café"
    assert [asked.path for asked in site.asked] == ["/feed"]


@pytest.mark.parametrize("kind", ["file", "address"])
def test_nothing_is_read_from_outside_the_document(site: Site, kind: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret", encoding="utf-8")
    site.answer("/secret", b"secret")
    outside = (tmp_path / "secret").as_uri() if kind == "file" else site.url("/secret")
    doctype = f'<!DOCTYPE rss [<!ENTITY a SYSTEM "{outside}">]>'
    assert title_of(site, rss("[&a;]", doctype).encode()) == "[&a;]"
    assert [asked.path for asked in site.asked] == ["/feed"]


@pytest.mark.parametrize("place", ["<title>&l9;</title>", '<title>x</title><link href="&l9;"/>'])
def test_a_billion_laughs_are_not_laughed(site: Site, place: str) -> None:
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    doctype = f'<!DOCTYPE rss [<!ENTITY l0 "lol">{laughs}]>'
    site.answer("/feed", f"{doctype}<rss><channel><item><guid>1</guid>{place}</item></channel></rss>".encode())
    (post,) = scrape_feed(site.url()).posts
    assert len(post.title) < 100


ROUGH = "a\ud800b\0c\x1b[31md\udfff\ufffe"


@pytest.mark.parametrize("field", ["id", "title", "content_html", "content_text", "url", "author"])
def test_every_text_can_be_stored(site: Site, field: str) -> None:
    item = {"id": "1", "url": "http://h/1", field: ROUGH} | ({"author": {"name": ROUGH}} if field == "author" else {})
    site.answer("/feed", json.dumps({"title": ROUGH, "items": [item]}).encode())
    found = scrape_feed(site.url())
    assert found.profile is not None
    assert found.profile.display_name == "a\ufffdbc[31md\ufffd"
    (post,) = found.posts
    assert storable(post) == storable(Post(**json.loads(json.dumps(json_ready(post)))))


def storable(post: Post) -> tuple[str, ...]:
    texts = (post.native_id, post.url, post.title, post.text, post.html, post.author)
    assert not any(c in text for text in texts for c in "\0\x1b\ud800\udfff")
    with sqlite3.connect(":memory:") as connection:
        (kept,) = connection.execute("SELECT ?, ?, ?, ?, ?, ?", texts).fetchall()
    connection.close()
    assert kept == texts
    return texts
