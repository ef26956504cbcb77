"""Services with an API, played by a Site: pages of posts in the shapes that each documents, all of them made up.

A post is a number: the higher, the newer. `play(site, [[5, 4], [3]])` answers with two pages; what an adapter makes of
a number is `SERVICES[name].native_id(number)`.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from requests.structures import CaseInsensitiveDict

from model import FetchLimits, Post, Profile, Remember, Target, Window
from sources.http import Answer, Http
from sources.registry import Identity, Registry
from tests.support.sites import Progress, Reply, Scraped, Site, open_http

_START = datetime(2026, 1, 1, tzinfo=UTC)
Pages = Sequence[Sequence[int]]


def published(number: int) -> datetime:
    return _START + timedelta(hours=number)


def iso(number: int) -> str:
    return published(number).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def unix(number: int) -> int:
    return int(published(number).timestamp())


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """How a Site plays one."""

    #: Handle of the account that is played.
    handle: str
    #: Path of the first page of posts.
    first: str
    #: Installs the answers: the pages, and headers of the first.
    play: Callable[[Site, Pages, Mapping[str, str]], None]
    native_id: Callable[[int], str]


def registry(name: str, base: str) -> Registry:
    return Registry(own={}, bases={name: base}, enabled=(name,))


def resolve(text: str) -> Identity:
    """With no base of one's own, and all sources on."""
    return Registry(own={}, bases={}, enabled=()).resolve(text)


def scrape(
    site: Site, name: str, handle: str = "", *, wanted: int | None = None, remember: Mapping[str, str] | None = None
) -> Scraped:
    """Run a source on an account that a site plays, as a worker would; `wanted` is the target's range."""
    handle = handle or SERVICES[name].handle
    who = registry(name, site.url("")).resolve(handle, source=name)
    target = Target(id=1, source=name, handle=who.handle, url=who.url, range=wanted, remember=dict(remember or {}))
    with open_http(remember=target.remember) as http:
        return sorted_out(importlib.import_module(f"sources.{name}").scrape(target, http))


def sorted_out(results: Iterator[Post | Profile | Remember | Window]) -> Scraped:
    found = list(results)
    return Scraped(
        posts=[one for one in found if isinstance(one, Post)],
        profile=next((one for one in found if isinstance(one, Profile)), None),
        remember=next((one.values for one in found if isinstance(one, Remember)), None),
        found=found,
    )


def answer_json(site: Site, path: str, document: Any, **headers: str) -> None:
    body = json.dumps(document).encode()
    named = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    site.answer_with(path, lambda _: Reply(body=body, headers=named))


def _named(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("-", "_"): value for name, value in headers.items()}


def status(number: int) -> dict[str, Any]:
    """A status of Mastodon's."""
    account = {"id": "9", "username": "alice", "acct": "alice", "display_name": "Alice A."}
    return {
        "id": str(number),
        "created_at": iso(number),
        "in_reply_to_id": None,
        "in_reply_to_account_id": None,
        "spoiler_text": "",
        "uri": f"https://m.example/users/alice/statuses/{number}",
        "url": f"https://m.example/@alice/{number}",
        "edited_at": None,
        "content": f"<p>post {number}</p>",
        "reblog": None,
        "account": account,
        "media_attachments": [],
        "poll": None,
    }


STATUSES = "/api/v1/accounts/9/statuses?limit=40"


def _mastodon(site: Site, pages: Pages, headers: Mapping[str, str]) -> None:
    answer_json(site, "/api/v1/accounts/lookup?acct=alice", status(0)["account"])
    path, first = STATUSES, _named(headers)
    for index, page in enumerate(pages):
        is_last = index == len(pages) - 1
        link = {} if is_last else {"Link": f'<{site.url("/other")}>; rel="next", <{site.url("/x")}>; rel="prev"'}
        answer_json(site, path, [status(n) for n in page], **link, **first)
        path, first = f"{STATUSES}&max_id={page[-1] if page else 0}", {}


def activity(number: int) -> dict[str, Any]:
    """A note in an outbox."""
    note = f"https://w.example/notes/{number}"
    return {
        "id": f"{note}/activity",
        "type": "Create",
        "actor": "https://w.example/alice",
        "published": iso(number),
        "object": {
            "id": note,
            "type": "Note",
            "attributedTo": "https://w.example/alice",
            "published": iso(number),
            "summary": None,
            "inReplyTo": None,
            "url": f"https://w.example/@alice/{number}",
            "content": f"<p>post {number}</p>",
            "attachment": [],
        },
    }


def _activitypub(site: Site, pages: Pages, headers: Mapping[str, str]) -> None:
    finger = [{"rel": "self", "type": "application/activity+json", "href": site.url("/actor")}]
    answer_json(site, "/.well-known/webfinger?resource=acct:alice@w.example", {"links": finger})
    actor = {"id": site.url("/actor"), "type": "Person", "name": "Alice A.", "outbox": site.url("/outbox")}
    answer_json(site, "/actor", actor | {"preferredUsername": "alice"})
    answer_json(site, "/outbox", {"type": "OrderedCollection", "totalItems": 3, "first": site.url("/outbox?page=0")})
    first = _named(headers)
    for index, page in enumerate(pages):
        document = {"type": "OrderedCollectionPage", "orderedItems": [activity(n) for n in page]}
        if index < len(pages) - 1:
            document["next"] = site.url(f"/outbox?page={index + 1}")
        answer_json(site, f"/outbox?page={index}", document, **first)
        first = {}


def feed_item(number: int) -> dict[str, Any]:
    """An item of a Bluesky author's feed."""
    return {
        "post": {
            "uri": f"at://did:plc:alice/app.bsky.feed.post/{number}",
            "cid": f"cid{number}",
            "author": {"did": "did:plc:alice", "handle": "alice.example", "displayName": "Alice A."},
            "record": {"$type": "app.bsky.feed.post", "text": f"post {number}", "createdAt": iso(number)},
            "indexedAt": iso(number),
        }
    }


_AUTHOR_FEED = "/xrpc/app.bsky.feed.getAuthorFeed?actor=alice.example&limit=100&filter=posts_with_replies"


def _bluesky(site: Site, pages: Pages, headers: Mapping[str, str]) -> None:
    first = _named(headers)
    for index, page in enumerate(pages):
        document: dict[str, Any] = {"feed": [feed_item(n) for n in page]}
        if index < len(pages) - 1:
            document["cursor"] = f"c {index + 1}"
        answer_json(site, _AUTHOR_FEED + (f"&cursor=c%20{index}" if index else ""), document, **first)
        first = {}


def event(number: int) -> dict[str, Any]:
    """An event of GitHub's."""
    return {
        "id": str(number),
        "type": "WatchEvent",
        "actor": {"id": 1, "login": "alice", "display_login": "Alice"},
        "repo": {"id": 2, "name": f"o/r{number}", "url": "https://api.github.com/repos/o/r"},
        "payload": {"action": "started"},
        "public": True,
        "created_at": iso(number),
    }


EVENTS = "/users/alice/events/public?per_page=100"


def _github(site: Site, pages: Pages, headers: Mapping[str, str]) -> None:
    first = _named(headers)
    for index, page in enumerate(pages):
        is_last = index == len(pages) - 1
        next_page = site.url(f"/user/1/events/public?page={index + 2}")
        link = {} if is_last else {"Link": f'<{site.url("/p")}>; rel="prev", <{next_page}>; rel="next"'}
        path = f"/user/1/events/public?page={index + 1}" if index else EVENTS
        answer_json(site, path, [event(n) for n in page], **link, **first)
        first = {}


def hit(number: int) -> dict[str, Any]:
    """A comment as Algolia finds it."""
    return {
        "objectID": str(number),
        "author": "alice",
        "created_at": iso(number),
        "created_at_i": unix(number),
        "comment_text": f"<p>post {number}",
        "story_id": 1,
        "parent_id": 1,
        "title": None,
        "url": None,
        "_tags": ["comment", "author_alice", "story_1"],
    }


HITS = "/search_by_date?tags=author_alice,(story,comment,poll,job)&hitsPerPage=100"


def _padded(page: Sequence[int], size: int) -> list[int]:
    """A full page: the service says there is more by nothing else, so the numbers are repeated."""
    return [*page, *([page[-1]] * (size - len(page)))]


def _hackernews(site: Site, pages: Pages, headers: Mapping[str, str]) -> None:
    path, first = HITS, _named(headers)
    for index, page in enumerate(pages):
        numbers = page if index == len(pages) - 1 else _padded(page, 100)
        document = {"hits": [hit(n) for n in numbers], "nbHits": 3, "page": 0, "nbPages": 1, "hitsPerPage": 100}
        answer_json(site, path, document, **first)
        path, first = f"{HITS}&numericFilters=created_at_i%3C%3D{unix(page[-1]) if page else 0}", {}


def answered(number: int) -> dict[str, Any]:
    """An answer on a site of Stack Exchange."""
    return {
        "owner": {
            "user_id": 12,
            "user_type": "registered",
            "display_name": "Alice &amp; A.",
            "link": "https://x.example",
        },
        "score": 1,
        "creation_date": unix(number),
        "last_activity_date": unix(number),
        "post_type": "answer",
        "post_id": number,
        "link": f"https://stackoverflow.com/a/{number}",
        "body": f"<p>post {number}</p>",
    }


QUESTIONS = "/users/12/posts?site=stackoverflow&order=desc&sort=creation&pagesize=100&filter=withbody"


def _stackexchange(site: Site, pages: Pages, headers: Mapping[str, str]) -> None:
    path, first = QUESTIONS, _named(headers)
    for index, page in enumerate(pages):
        document = {"items": [answered(n) for n in page], "quota_max": 300, "quota_remaining": 250}
        answer_json(site, path, document | {"has_more": index < len(pages) - 1}, **first)
        path, first = f"{QUESTIONS}&todate={unix(page[-1]) if page else 0}", {}


def article(number: int) -> dict[str, Any]:
    """An article on dev.to, as lists have it."""
    return {
        "type_of": "article",
        "id": number,
        "title": f"Title {number}",
        "description": f"post {number}",
        "url": f"https://dev.to/alice/title-{number}",
        "published_at": iso(number),
        "published_timestamp": iso(number),
        "cover_image": f"https://media.example/{number}.png",
        "user": {"name": "Alice A.", "username": "alice"},
    }


ARTICLES = "/api/articles?username=alice&per_page=30&page="


def _devto(site: Site, pages: Pages, headers: Mapping[str, str]) -> None:
    first = _named(headers)
    for index, page in enumerate(pages):
        numbers = page if index == len(pages) - 1 else _padded(page, 30)
        answer_json(site, f"{ARTICLES}{index + 1}", [article(n) for n in numbers], **first)
        first = {}


def edit(number: int) -> dict[str, Any]:
    """An edit in a wiki."""
    return {
        "userid": 5,
        "user": "Alice A",
        "pageid": 7,
        "revid": number,
        "parentid": number - 1,
        "ns": 0,
        "title": f"Page {number}",
        "timestamp": iso(number),
        "comment": f"post {number}",
        "sizediff": 12,
    }


CONTRIBUTIONS = (
    "/api.php?action=query&list=usercontribs%7Cusers&ucuser=Alice_A&ususers=Alice_A&uclimit=50"
    "&ucprop=ids%7Ctitle%7Ctimestamp%7Ccomment%7Csizediff&format=json&formatversion=2&maxlag=5"
)


def _mediawiki(site: Site, pages: Pages, headers: Mapping[str, str]) -> None:
    path, first = CONTRIBUTIONS, _named(headers)
    for index, page in enumerate(pages):
        users = [{"userid": 5, "name": "Alice A"}]
        document: dict[str, Any] = {"query": {"usercontribs": [edit(n) for n in page], "users": users}}
        if index < len(pages) - 1:
            document["continue"] = {"uccontinue": f"2026|{index + 1}", "continue": "-||users"}
        answer_json(site, path, document, **first)
        path, first = f"{CONTRIBUTIONS}&uccontinue=2026%7C{index + 1}&continue=-%7C%7Cusers", {}


SERVICES: dict[str, Service] = {
    "activitypub": Service(
        handle="alice@w.example",
        first="/outbox?page=0",
        play=_activitypub,
        native_id=lambda n: f"https://w.example/notes/{n}",
    ),
    "bluesky": Service(
        handle="alice.example",
        first=_AUTHOR_FEED,
        play=_bluesky,
        native_id=lambda n: f"at://did:plc:alice/app.bsky.feed.post/{n}",
    ),
    "devto": Service(handle="alice", first=f"{ARTICLES}1", play=_devto, native_id=str),
    "github": Service(handle="alice", first=EVENTS, play=_github, native_id=str),
    "hackernews": Service(handle="alice", first=HITS, play=_hackernews, native_id=str),
    "mastodon": Service(handle="alice@m.example", first=STATUSES, play=_mastodon, native_id=str),
    "mediawiki": Service(handle="Alice_A@w.example", first=CONTRIBUTIONS, play=_mediawiki, native_id=str),
    "stackexchange": Service(handle="12@stackoverflow", first=QUESTIONS, play=_stackexchange, native_id=str),
}


class Canned(Http):
    """Answers every address from a table, by the longest part of it that is there; nothing goes over a network."""

    def __init__(self, documents: Mapping[str, Any], remember: Mapping[str, str] | None = None) -> None:
        super().__init__(FetchLimits(), deadline=0.0, on_progress=Progress(), remember=remember or {})
        self.documents = documents

    def get(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        conditional: bool = False,
        is_api: bool = False,
    ) -> Answer:
        part = max((key for key in self.documents if key in url), key=len)
        body = json.dumps(self.documents[part]).encode()
        return Answer(status=200, url=url, headers=CaseInsensitiveDict(), body=body)


#: What may stand where something else was meant.
JUNK: tuple[Any, ...] = (
    *(None, True, 0, -1, 1.5, float("inf"), float("nan"), 10**30, "", "x", "\ud800\0 y", "https://[", "javascript:x"),
    *("https://h.example/", "9" * 2000, [], [None], [[]], [{}], ["x"], [[{}], "https://h.example/"], {}, {"a": 1}),
    *({"id": [], "url": {}}, {"type": "Link", "href": {"href": 1}}),
)


def spoiled(document: Any) -> Iterator[Any]:
    """The document with one part of it, at any depth, replaced by each piece of junk, or left out."""
    yield from JUNK
    if isinstance(document, dict):
        for key, value in document.items():
            yield {name: one for name, one in document.items() if name != key}
            for junk in spoiled(value):
                yield {**document, key: junk}
    if isinstance(document, list):
        for index, value in enumerate(document):
            for junk in spoiled(value):
                yield [*document[:index], junk, *document[index + 1 :]]
