"""Any JSON value in place of any part of an answer: a source gives clean posts, or says why not, and never raises else.

Not random: each part of one rich answer of each source is replaced by each piece of junk in turn.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from typing import Any

import pytest

from errors import ScrapeFailed
from model import Post, Target, json_ready
from sources.github_events import TELLERS
from tests.support import services
from tests.support.services import Canned, registry, spoiled

_ACCOUNT = {"id": "9", "username": "alice", "acct": "alice", "display_name": "Alice A."}
_BOOST = services.status(4) | {
    "reblog": services.status(3) | {"account": _ACCOUNT | {"acct": "bob@other.example"}, "spoiler_text": "careful"},
}
_REPLY = services.status(5) | {
    "in_reply_to_id": "1",
    "in_reply_to_account_id": "7",
    "media_attachments": [{"url": "https://m.example/1.png", "remote_url": None}],
    "poll": {"options": [{"title": "yes"}]},
}
_NOTE = services.activity(5)
_NOTE["object"] |= {
    "summary": "careful",
    "inReplyTo": "https://other.example/1",
    "url": [{"type": "Link", "mediaType": "text/html", "href": "https://w.example/5"}],
    "contentMap": {"en": "<p>post 5</p>"},
    "attachment": [
        {"type": "Image", "url": "https://w.example/1.png"},
        {"type": "Link", "href": "https://w.example/2"},
    ],
}
_ANNOUNCE = {
    "id": "https://w.example/a/1",
    "type": "Announce",
    "published": "2026-01-01T00:00:00Z",
    "object": {"id": "https://o.example/1", "type": "Note", "attributedTo": "https://o.example/bob", "content": "<p>x"},
}
_SHARED = {"id": "https://w.example/a/2", "type": "Announce", "object": "https://o.example/1"}
_SKEET = services.feed_item(5)
_SKEET["post"]["record"]["reply"] = {"parent": {"uri": "at://did:plc:bob/app.bsky.feed.post/1"}}
_SKEET["post"]["embed"] = {
    "record": {"record": {"uri": "at://did:plc:bob/app.bsky.feed.post/2"}},
    "media": {"images": [{"fullsize": "https://cdn.example/1.jpg"}], "external": {"uri": "https://x.example/"}},
}
_RESKEET = services.feed_item(4) | {
    "reason": {
        "$type": "app.bsky.feed.defs#reasonRepost",
        "uri": "at://did:plc:alice/app.bsky.feed.repost/1",
        "by": {"did": "did:plc:alice", "handle": "alice.example", "displayName": "Alice A."},
        "indexedAt": "2026-01-01T00:00:00Z",
    }
}
_PAYLOAD = {
    "action": "closed",
    "ref": "refs/heads/main",
    "ref_type": "branch",
    "size": 2,
    "commits": [{"message": "Fix it\n\nReally"}],
    "before": "aa",
    "head": "bb",
    "number": 5,
    "issue": {"number": 5, "title": "It broke", "html_url": "https://github.com/o/r/issues/5", "body": "x"},
    "pull_request": {"number": 6, "title": "Fix", "merged": True, "merged_at": None},
    "discussion": {"number": 7, "title": "Why"},
    "comment": {"body": "yes", "html_url": "https://github.com/o/r/issues/5#1"},
    "review": {"state": "approved", "body": "good"},
    "release": {"tag_name": "v1", "name": "One", "body": "new", "html_url": None},
    "forkee": {"full_name": "x/r", "html_url": "https://github.com/x/r"},
    "member": {"login": "bob"},
    "pages": [{"title": "Home", "html_url": "https://github.com/o/r/wiki"}],
}
_EVENT = services.event(5)
_STORY = services.hit(4) | {"comment_text": None, "title": "A story", "url": "https://x.example/", "_tags": ["story"]}
_QUESTION = services.answered(4) | {"post_type": "question", "title": "How &amp; why"}

#: Name of the source, what is spoiled: a part of an address, and the answer there; and the other answers.
CASES: dict[str, tuple[str, str, Any, Mapping[str, Any]]] = {
    "mastodon statuses": ("mastodon", "/statuses", [_REPLY, _BOOST], {"/lookup": _ACCOUNT}),
    "mastodon account": ("mastodon", "/lookup", _ACCOUNT, {"/statuses": [services.status(1)]}),
    "activitypub page": (
        *("activitypub", "/page", {"type": "OrderedCollectionPage", "orderedItems": [_NOTE, _ANNOUNCE, _SHARED]}),
        {
            "/.well-known/webfinger": {
                "links": [{"rel": "self", "type": "application/activity+json", "href": "https://h.example/actor"}]
            },
            "/actor": {"id": "https://h.example/actor", "name": "A", "outbox": "https://h.example/outbox"},
            "/outbox": {"type": "OrderedCollection", "first": "https://h.example/page"},
        },
    ),
    "activitypub way": (
        *(
            "activitypub",
            "/actor",
            {"id": "https://h.example/actor", "name": "A", "outbox": "https://h.example/outbox"},
        ),
        {
            "/": {"links": [{"rel": "self", "type": "application/activity+json", "href": "https://h.example/actor"}]},
            "/outbox": {"type": "OrderedCollection", "first": {"orderedItems": [_NOTE], "next": "https://h.example/"}},
        },
    ),
    "activitypub outbox": (
        *("activitypub", "/outbox", {"type": "OrderedCollection", "first": {"orderedItems": [_NOTE], "next": "x"}}),
        {"/": {"id": "https://h.example/actor", "name": "A", "outbox": "https://h.example/outbox"}},
    ),
    "activitypub finger": (
        *("activitypub", "/.well-known/webfinger"),
        {"links": [{"rel": "self", "type": "application/activity+json", "href": "https://h.example/actor"}]},
        {"/": {"outbox": {"id": "https://h.example/"}, "type": "OrderedCollection", "orderedItems": [_NOTE]}},
    ),
    "bluesky": ("bluesky", "/", {"feed": [_SKEET, _RESKEET], "cursor": "c"}, {}),
    "devto": ("devto", "/", [services.article(2) | {"organization": {"username": "alice", "name": "O"}}], {}),
    "devto user": ("devto", "/api/users", {"name": "Alice"}, {"/api/articles": []}),
    "hackernews": ("hackernews", "/", {"hits": [services.hit(5), _STORY]}, {}),
    "mediawiki": (
        *("mediawiki", "/"),
        {
            "query": {"usercontribs": [services.edit(2)], "users": [{"name": "Alice A"}]},
            "continue": {"uccontinue": "1", "continue": "-||"},
        },
        {},
    ),
    "mediawiki error": ("mediawiki", "/", {"error": {"code": "maxlag", "lag": 6.2}}, {}),
    "stackexchange": (
        *("stackexchange", "/"),
        {"items": [services.answered(5), _QUESTION], "has_more": True, "backoff": 10, "quota_remaining": 0},
        {},
    ),
} | {
    f"github {kind}": ("github", "/", [_EVENT | {"type": kind, "payload": _PAYLOAD}], {})
    for kind in (*TELLERS, "SponsorshipEvent")
}


@pytest.mark.parametrize("case", sorted(CASES))
def test_no_value_in_place_of_any_part_raises_anything_else(case: str) -> None:
    name, part, document, others = CASES[case]
    who = registry(name, "https://h.example").resolve(
        "h.example/actor" if case == "activitypub outbox" else services.SERVICES[name].handle, source=name
    )
    scrape = importlib.import_module(f"sources.{name}").scrape
    target = Target(id=1, source=name, handle=who.handle, url=who.url, range=500)
    http = Canned({})
    given = failed = 0
    for count, junk in enumerate([document, *spoiled(document)]):
        http.documents = {**others, part: junk}
        try:
            found = list(scrape(target, http))
        except ScrapeFailed as exc:
            failed += 1
            assert count or "error" in case, "the answer as it should be was not read"
            assert exc.message.isprintable() and "\ud800" not in exc.message
            continue
        given += 1
        for one in found:
            check(one)
    assert given + failed > 50


def check(found: Any) -> None:
    """What a source gave can be stored, and sent on as JSON."""
    json.dumps(json_ready(found), ensure_ascii=False, allow_nan=False).encode()
    if isinstance(found, Post):
        texts = (found.native_id, found.url, found.title, found.text, found.html, found.author, found.kind)
        assert all(isinstance(one, str) and "\0" not in one for one in (*texts, *found.media))
        assert found.native_id and len(found.native_id) <= 1100
        assert all(one.startswith(("http://", "https://")) for one in (*found.media, *filter(None, [found.url])))
        assert found.published_at is None or found.published_at.utcoffset() is not None
