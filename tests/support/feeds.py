"""Feeds for sites that a test runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from tests.support.sites import Asked, Reply, Site

RSS = "application/rss+xml"


def rss(*titles: str, name: str = "A feed") -> bytes:
    """An RSS document whose items, newest first, have these titles; each is its own guid."""
    items = "".join(
        f"<item><guid>{title}</guid><title>{title}</title><link>https://a.example/{title}</link>"
        f"<pubDate>Mon, 02 Mar 2026 12:00:00 GMT</pubDate><description>text of {title}</description></item>"
        for title in titles
    )
    head = f"<title>{name}</title><link>https://a.example/</link><description>d</description>"
    return f'<?xml version="1.0"?><rss version="2.0"><channel>{head}{items}</channel></rss>'.encode()


class Gate:
    """Answers a path only when it is opened; with `begun` the answer begins at once, and its end waits."""

    def __init__(self, site: Site, path: str, body: bytes, *, begun: bool = False) -> None:
        self.url = site.url(path)
        #: Set when the first request has come.
        self.asked = threading.Event()
        self._open, self._site = threading.Event(), site
        site.answer_with(path, self._begin(body) if begun else self._reply(body))

    def open(self) -> None:
        """Answer, also what waits already."""
        self._open.set()

    def _wait(self) -> None:
        self.asked.set()
        while not self._open.wait(0.05) and not self._site.closing.is_set():
            continue

    def _reply(self, body: bytes) -> Callable[[Asked], Reply]:
        def reply(_: Asked) -> Reply:
            self._wait()
            return Reply(body=body, headers={"Content-Type": RSS})

        return reply

    def _begin(self, body: bytes) -> Callable[[Asked], Reply]:
        def pieces() -> Iterator[bytes]:
            yield body[:20]
            self._wait()
            yield body[20:]

        return lambda _: Reply(body=pieces(), headers={"Content-Type": RSS})
