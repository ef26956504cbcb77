"""However an account is written, it is one target; what is not an account's address is left to the feed source."""

from __future__ import annotations

import subprocess
import sys

import pytest

from errors import Unusable
from sources.registry import BUILT_IN, Registry
from tests.support.services import SERVICES, registry, resolve

API = "https://public.api.bsky.app/xrpc/app.bsky.feed.getAuthorFeed"

#: Source, handle, address that is fetched first (its beginning), and the spellings.
SAME: list[tuple[str, str, str, list[str]]] = [
    (
        *("mastodon", "alice.b@mastodon.social", "https://mastodon.social/@alice.b"),
        [
            *("@Alice.b@Mastodon.Social", "mastodon:alice.b@mastodon.social", "mastodon:@ALICE.B@mastodon.social"),
            *("https://mastodon.social/@alice.b", "https://mastodon.social/@Alice.B/?x=1#top"),
            *("https://mastodon.social/users/alice.b", "https://MASTODON.social:443/web/@alice.b"),
            *("https://other.example/@alice.b@mastodon.social", "mastodon:https://mastodon.social/@alice.b"),
        ],
    ),
    (
        *("mastodon", "alice@xn--bcher-kva.example", "https://xn--bcher-kva.example/@alice"),
        ["@alice@bücher.example", "https://bücher.example/@alice"],
    ),
    (
        *("mastodon", "alice@m.example:8443", "https://m.example:8443/@alice"),
        ["@alice@m.example:8443", "https://m.example:8443/@alice"],
    ),
    ("mastodon", "alice@127.0.0.1:8080", "http://127.0.0.1:8080/@alice", ["http://127.0.0.1:8080/@alice"]),
    (
        *("activitypub", "alice@write.example", "https://write.example/.well-known/webfinger?resource=acct:alice@"),
        ["activitypub:alice@write.example", "activitypub:@Alice@WRITE.example"],
    ),
    (
        *("activitypub", "write.example/u/Alice", "https://write.example/u/Alice"),
        ["activitypub:https://write.example/u/Alice#main-key", "activitypub:Write.example/u/Alice"],
    ),
    (
        *("activitypub", "127.0.0.1:80/u/alice", "https://127.0.0.1:80/u/alice"),
        ["activitypub:127.0.0.1:80/u/alice"],
    ),
    ("activitypub", "w.example:81/u?a=b", "http://w.example:81/u?a=b", ["activitypub:http://w.example:81/u?a=b"]),
    (
        *("bluesky", "alice.bsky.social", f"{API}?actor=alice.bsky.social&"),
        [
            *("@alice.bsky.social", "bluesky:Alice.BSKY.social", "bluesky:@alice.bsky.social"),
            *("https://bsky.app/profile/alice.bsky.social", "https://www.bsky.app/profile/@Alice.bsky.social/?a#b"),
        ],
    ),
    (
        *("bluesky", "did:plc:ab2345cd", f"{API}?actor=did%3Aplc%3Aab2345cd&"),
        ["bluesky:did:plc:ab2345cd", "https://bsky.app/profile/did:plc:ab2345cd"],
    ),
    (
        *("github", "torvalds", "https://api.github.com/users/torvalds/events/public"),
        ["github:Torvalds", "https://github.com/torvalds/", "http://www.github.com/Torvalds?tab=repositories#x"],
    ),
    (
        *("github", "o-o/r.x_y-z", "https://github.com/o-o/r.x_y-z/releases.atom"),
        [
            *("github:O-o/R.x_y-z", "https://github.com/o-o/r.x_y-z", "https://github.com/o-o/r.x_y-z.git"),
            "https://github.com/O-O/r.x_y-z/releases?page=2",
        ],
    ),
    (
        *("hackernews", "Pg_-1", "https://hn.algolia.com/api/v1/search_by_date?tags=author_Pg_-1,"),
        [
            "hackernews:Pg_-1",
            "https://news.ycombinator.com/user?id=Pg_-1",
            "https://news.ycombinator.com/user/?id=Pg_-1#a",
        ],
    ),
    (
        *("stackexchange", "22@stackoverflow", "https://api.stackexchange.com/2.3/users/22/posts?site=stackoverflow&"),
        [
            *("stackexchange:22@stackoverflow", "stackexchange:022@StackOverflow.com"),
            *("https://stackoverflow.com/users/22", "https://www.stackoverflow.com/users/22/some-name/?tab=answers"),
        ],
    ),
    (
        *("stackexchange", "22@unix", "https://api.stackexchange.com/2.3/users/22/posts?site=unix&"),
        [
            "stackexchange:22@unix",
            "https://unix.stackexchange.com/users/22/x",
            "stackexchange:22@unix.stackexchange.com",
        ],
    ),
    (
        *(
            "stackexchange",
            "22@mathoverflow.net",
            "https://api.stackexchange.com/2.3/users/22/posts?site=mathoverflow.net&",
        ),
        ["stackexchange:22@mathoverflow", "https://mathoverflow.net/users/22"],
    ),
    (
        *(
            "stackexchange",
            "22@pt.stackoverflow",
            "https://api.stackexchange.com/2.3/users/22/posts?site=pt.stackoverflow&",
        ),
        ["https://pt.stackoverflow.com/users/22/x"],
    ),
    (
        *(
            "stackexchange",
            "22@meta.superuser",
            "https://api.stackexchange.com/2.3/users/22/posts?site=meta.superuser&",
        ),
        ["https://meta.superuser.com/users/22/x"],
    ),
    (
        *("devto", "ben_h", "https://dev.to/api/articles?username=ben_h&"),
        ["devto:Ben_H", "devto:@ben_h", "https://dev.to/ben_h", "https://www.dev.to/Ben_h/?x#y"],
    ),
    (
        *("mediawiki", "Jimbo_Wales@en.wikipedia.org", "https://en.wikipedia.org/w/api.php?action=query&"),
        [
            *("mediawiki:Jimbo_Wales@en.wikipedia.org", "mediawiki:jimbo__Wales_@EN.wikipedia.org"),
            *(
                "https://en.wikipedia.org/wiki/User:Jimbo_Wales",
                "https://en.wikipedia.org/wiki/user:jimbo%20Wales#Talk",
            ),
            *(
                "https://en.m.wikipedia.org/wiki/Special:Contributions/Jimbo_Wales",
                "mediawiki:jimbo_Wales@en.m.wikipedia.org",
            ),
            "https://en.wikipedia.org/w/index.php?title=User:Jimbo_Wales",
            "https://en.wikipedia.org/w/index.php?title=Special:Contributions/Jimbo_Wales",
            "https://en.wikipedia.org/w/index.php?title=Special:Contributions&target=Jimbo+Wales&limit=500",
            "https://en.wikipedia.org/wiki/Special:Contributions?target=Jimbo_Wales",
        ],
    ),
    (
        *("mediawiki", "Jürgen@de.wikipedia.org", "https://de.wikipedia.org/w/api.php?"),
        [
            "https://de.wikipedia.org/wiki/Benutzer:J%C3%BCrgen",
            "https://de.wikipedia.org/wiki/Spezial:Beitr%C3%A4ge/j%C3%BCrgen",
        ],
    ),
    (
        *("mediawiki", "2001:DB8:0:0:0:0:0:1@www.wikidata.org", "https://www.wikidata.org/w/api.php?"),
        ["https://m.wikidata.org/wiki/Special:Contributions/2001:db8::1", "mediawiki:2001:0db8::1@wikidata.org"],
    ),
    (
        *("mediawiki", "Ann@wiki.example", "https://wiki.example/w/api.php?"),
        ["mediawiki:https://wiki.example/wiki/User:Ann", "mediawiki:https://wiki.example/index.php/User:ann"],
    ),
]


@pytest.mark.parametrize(
    ("source", "handle", "url", "text"),
    [(source, handle, url, text) for source, handle, url, texts in SAME for text in texts],
)
def test_every_spelling_of_an_account_is_the_same_target(source: str, handle: str, url: str, text: str) -> None:
    found = resolve(text)
    assert (found.source, found.handle) == (source, handle)
    assert found.url.startswith(url)
    assert resolve(f"{source}:{handle}").handle == handle, "the handle is itself a spelling"


@pytest.mark.parametrize(
    "url",
    [
        *(
            "https://mastodon.social/@alice.rss",
            "https://mastodon.social/@alice.json",
            "https://mastodon.social/@alice/1",
        ),
        *("https://mastodon.social/@alice/with_replies", "https://mastodon.social/about", "https://mastodon.social/"),
        *(
            "https://forum.example/users/123",
            "https://m.example/@",
            "https://m.example/users/",
            "https://m.example/@a b",
        ),
        *("https://medium.com/@alice", "https://alice.medium.com/@alice", "https://www.tiktok.com/@alice"),
        *("https://www.tiktok.com/@alice", "https://www.threads.net/@alice", "https://dev.to/@alice"),
        *("https://bsky.app/profile/alice.bsky.social/rss", "https://bsky.app/profile/alice.bsky.social/post/3k"),
        *(
            "https://bsky.app/profile/alice",
            "https://bsky.app/",
            "https://bsky.app/search?q=x",
            "https://bsky.app/profile",
        ),
        *("https://github.com/torvalds.atom", "https://github.com/o/r/releases.atom", "https://github.com/o/r/issues"),
        *(
            "https://github.com/",
            "https://github.com/features",
            "https://github.com/Sponsors/x",
            "https://github.com/-x",
        ),
        *("https://github.com/o/..%2f..", "https://gist.github.com/torvalds", "https://github.com:8443/torvalds"),
        *(
            "https://github.com/o/r/commits/main.atom",
            "https://github.com/o/r/releases/tag/v1",
            "https://api.github.com/x",
        ),
        *(
            "https://news.ycombinator.com/item?id=1",
            "https://news.ycombinator.com/rss",
            "https://news.ycombinator.com/",
        ),
        *(
            "https://news.ycombinator.com/user",
            "https://news.ycombinator.com/user?id=a/b",
            "https://hnrss.org/user?id=pg",
        ),
        *(
            "https://stackoverflow.com/feeds/user/22",
            "https://stackoverflow.com/users",
            "https://stackoverflow.com/q/1",
        ),
        *(
            "https://stackoverflow.com/users/edit/22",
            "https://stackoverflow.com/users/22/x/y",
            "https://so.example/users/22/x",
        ),
        *(
            "https://stackexchange.com/users/22/x",
            "https://api.stackexchange.com/users/22",
            "https://xsuperuser.com/users/1/x",
        ),
        *(
            "https://dev.to/ben/an-article",
            "https://dev.to/feed/ben",
            "https://dev.to/t",
            "https://dev.to/",
            "https://dev.to/feed",
        ),
        *("https://dev.to/rss", "https://dev.to/search?q=x", "https://dev.to/a.xml", "https://meta.dev.to/ben"),
        *(
            "https://en.wikipedia.org/wiki/Cat",
            "https://en.wikipedia.org/wiki/User:A/B",
            "https://en.wikipedia.org/wiki/User:",
        ),
        *(
            "https://en.wikipedia.org/wiki/User_talk:A",
            "https://www.wikipedia.org/wiki/User:A",
            "https://en.wikipedia.org/",
        ),
        "https://en.wikipedia.org/w/index.php?title=Special:Contributions/A&feed=atom",
        "https://en.wikipedia.org/w/index.php?title=User:A&action=history",
        "https://en.wikipedia.org/w/api.php?action=feedcontributions&user=A",
        *(
            "https://wiki.example/wiki/User:A",
            "https://wiki.example/wiki/Special:Contributions/A",
            "https://w.example/u/alice",
        ),
    ],
)
def test_what_is_not_the_address_of_an_account_is_left_to_the_feed_source(url: str) -> None:
    try:
        found = resolve(url)
    except Unusable:  # not even an address
        return
    assert found.source == "feed"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        *(
            (f"mastodon:{handle}", "is not an account of the form user@host")
            for handle in ("alice", "a@b@c", "@", "a/b@c")
        ),
        ("mastodon:alice@a..b", "bad host"),
        ("mastodon:alice@host:99999", "bad host"),
        ("mastodon:alice@host/path", "is not the name of a host"),
        ("mastodon:https://medium.com/@alice", "the address is not one of mastodon's"),
        ("activitypub:alice", "is not an account of the form user@host, or an actor's address"),
        ("activitypub:https://write.example", "the address is not one of activitypub's"),
        *(
            (f"bluesky:{handle}", "is not a Bluesky handle or DID")
            for handle in ("alice", "a..b", "-a.b", "did:plc", "a.b/c")
        ),
        *((f"github:{handle}", "is not a GitHub user, or owner/repository") for handle in ("-a", "a/b/c", "ä")),
        ("github:a/..", "is not the name of a repository"),
        *((f"hackernews:{handle}", "is not the name of a Hacker News account") for handle in ("a.b", "x" * 41, "a/b")),
        *(
            (f"stackexchange:{handle}", "is not a user of the form ID@site")
            for handle in ("22", "x@unix", "22@", "22@a/b")
        ),
        *((f"devto:{handle}", "is not the name of a dev.to account") for handle in ("a-b", "a.b", "x" * 31)),
        *(
            (f"mediawiki:{handle}", "is not a user of the form Name@host")
            for handle in ("Ann", "A/B@w.example", "A#B@w")
        ),
        ("mediawiki:_@w.example", "cannot be the name of a user"),
        ("mediawiki:https://en.wikipedia.org/wiki/Cat", "the address is not one of mediawiki's"),
    ],
)
def test_what_is_no_account_is_refused_and_says_what_it_should_be(text: str, why: str) -> None:
    with pytest.raises(Unusable, match=why):
        resolve(text)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        *(
            ("bluesky", "/profile/alice.example"),
            ("devto", "/alice"),
            ("github", "/alice"),
            ("github", "/o/r/releases"),
        ),
        *(
            ("hackernews", "/user?id=alice"),
            ("mediawiki", "/wiki/User:Alice_A"),
            ("mediawiki", "/index.php/User:Alice_A"),
        ),
        *(("stackexchange", "/users/12/alice"), ("mastodon", "/@alice")),
    ],
)
def test_an_address_at_another_base_is_recognised_and_fetched_there(name: str, path: str) -> None:
    base = "http://127.0.0.1:8123"
    found = registry(name, base).resolve(base + path)
    assert (found.source, found.host) == (name, "127.0.0.1:8123")
    assert registry(name, base).resolve(found.handle, source=name) == found


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_base_may_lie_below_a_path(name: str) -> None:
    found = registry(name, "http://127.0.0.1:8123/there").resolve(SERVICES[name].handle, source=name)
    assert found.url.startswith("http://127.0.0.1:8123/there/")


@pytest.mark.parametrize("source", BUILT_IN.values(), ids=lambda source: source.name)
def test_the_examples_of_a_source_are_its_own_and_are_one_host(source: object) -> None:
    from sources.source import Source

    assert isinstance(source, Source)
    everything = Registry(own={}, bases={}, enabled=tuple(BUILT_IN))
    for example in source.examples:
        assert everything.resolve(example).source == source.name


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_source_loads_nothing_heavy_until_it_scrapes(name: str) -> None:
    heavy = {"requests", "urllib3", "lxml", "feedparser"}
    code = f"import sys, sources.{name}; sys.exit(bool({heavy!r} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
