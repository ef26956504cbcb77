"""A static blog in the shape in which pelican (4.12) writes one: a page for each article, a feed for each author.

Every build writes every file anew, changed or not, as pelican does.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from xml.sax.saxutils import escape

#: Of the times in its feeds.
_ZONE = timezone(timedelta(hours=1))
_SITE = "Small Talk"


def _slug(name: str) -> str:
    """A name as it is in an address: letters without their accents."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower())


@dataclass(frozen=True, slots=True, kw_only=True)
class Article:
    """What a file in pelican's `content` says."""

    slug: str
    title: str
    #: Markup.
    body: str
    author: str
    #: Day of January 2026.
    day: int
    #: Minutes from its publication to its last edit.
    edited_min: int = 0

    @property
    def published_at(self) -> datetime:
        """When it was published."""
        return datetime(2026, 1, self.day, 10, 20, tzinfo=_ZONE)

    @property
    def updated_at(self) -> datetime:
        """When it was edited last."""
        return self.published_at + timedelta(minutes=self.edited_min)


class Blog:
    """Writes the site into a directory that a server has as its root."""

    def __init__(self, site: Path, url: str, *, feed_items: int = 100) -> None:
        """`feed_items`: most articles in a feed (FEED_MAX_ITEMS)."""
        self.site, self.url, self.feed_items = site, url, feed_items
        self._builds = 0

    def build(self, articles: Sequence[Article]) -> None:
        """Write every page and feed; what was there of an article that is gone goes too."""
        newest = sorted(articles, key=lambda one: one.published_at, reverse=True)
        files = {f"{one.slug}.html": self._page(one.title, one.body) for one in newest}
        links = "".join(f'<li><a href="{self.url}/{one.slug}.html">{escape(one.title)}</a></li>' for one in newest)
        files["index.html"] = self._page(_SITE, f"<ul>{links}</ul>")
        files["feeds/all.atom.xml"] = self._atom("all", _SITE, newest)
        for author in {one.author for one in newest}:
            theirs = [one for one in newest if one.author == author]
            slug = _slug(author)
            files[f"feeds/{slug}.atom.xml"] = self._atom(slug, f"{_SITE} - {author}", theirs)
            files[f"feeds/{slug}.rss.xml"] = self._rss(slug, f"{_SITE} - {author}", theirs)
        for old in self.site.glob("*.html"):
            old.unlink()
        self._builds += 1
        # A server knows a file by its time, in whole seconds, and its size: two builds within a second are one to it.
        built = (datetime(2026, 2, 1, tzinfo=UTC) + timedelta(minutes=self._builds)).timestamp()
        for name, text in files.items():
            path = self.site / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            os.utime(path, (built, built))

    def _page(self, title: str, body: str) -> str:
        feed = f'href="{self.url}/feeds/all.atom.xml" type="application/atom+xml" rel="alternate"'
        head = f'<meta charset="utf-8" /><title>{escape(title)}</title><link {feed} title="{_SITE} Atom Feed" />'
        return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>{body}</body></html>\n'

    def _id(self, one: Article) -> str:
        return f"tag:127.0.0.1,{one.published_at:%Y-%m-%d}:/{one.slug}.html"

    def _atom(self, slug: str, title: str, articles: Sequence[Article]) -> str:
        entries = "".join(
            f'<entry><title>{escape(one.title)}</title><link href="{self.url}/{one.slug}.html" rel="alternate"/>'
            f"<published>{one.published_at.isoformat()}</published><updated>{one.updated_at.isoformat()}</updated>"
            f"<author><name>{escape(one.author)}</name></author><id>{self._id(one)}</id>"
            f'<content type="html">{escape(one.body)}</content><category term="misc"/></entry>'
            for one in articles[: self.feed_items]
        )
        links = f'<link href="{self.url}/" rel="alternate"/><link href="{self.url}/feeds/{slug}.atom.xml" rel="self"/>'
        updated = max(one.updated_at for one in articles).isoformat()
        head = f"<title>{escape(title)}</title>{links}<id>{self.url}/</id><updated>{updated}</updated>"
        feed = f'<feed xmlns="http://www.w3.org/2005/Atom">{head}{entries}</feed>'
        return f'<?xml version="1.0" encoding="utf-8"?>\n{feed}'

    def _rss(self, slug: str, title: str, articles: Sequence[Article]) -> str:
        items = "".join(
            f"<item><title>{escape(one.title)}</title><link>{self.url}/{one.slug}.html</link>"
            f"<description>{escape(one.body)}</description>"
            f'<dc:creator xmlns:dc="http://purl.org/dc/elements/1.1/">{escape(one.author)}</dc:creator>'
            f"<pubDate>{format_datetime(one.published_at)}</pubDate><guid>{self._id(one)}</guid>"
            "<category>misc</category></item>"
            for one in articles[: self.feed_items]
        )
        updated = format_datetime(max(one.updated_at for one in articles))
        itself = f'<atom:link href="{self.url}/feeds/{slug}.rss.xml" rel="self"/>'
        head = f"<title>{escape(title)}</title><link>{self.url}/</link><description/>{itself}"
        channel = f"<channel>{head}<lastBuildDate>{updated}</lastBuildDate>{items}</channel>"
        rss = f'<rss version="2.0" xmlns:atom="http://www.w3.org/2005/Atom">{channel}</rss>'
        return f'<?xml version="1.0" encoding="utf-8"?>\n{rss}'
