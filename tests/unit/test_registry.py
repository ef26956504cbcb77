"""What a person typed becomes one identity, or a sentence that says why not."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from errors import Unusable
from sources.registry import BUILT_IN, Identity, Registry
from sources.urls import MAX_CHARS, host_of, is_http, normalise_url


def registry(default: str = "feed", handle_url: str | None = None, **more: Any) -> Registry:
    given: dict[str, Any] = {"own": {"mine": ""}, "bases": {}, "enabled": ()}
    return Registry(default_source=default, handle_url=handle_url, **(given | more))


def identity(text: str, source: str | None = None, default: str = "feed", handle_url: str | None = None) -> Identity:
    return registry(default, handle_url).resolve(text, source=source)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("HTTPS://Example.ORG", "https://example.org/"),
        ("http://example.org:80/a", "http://example.org/a"),
        ("https://example.org:443/a#part", "https://example.org/a"),
        ("https://example.org:8443/A?B=c&d", "https://example.org:8443/A?B=c&d"),
        ("http://example.org./", "http://example.org/"),
        ("http://bücher.example/ä", "http://xn--bcher-kva.example/%C3%A4"),
        ("http://[0:0::1]:8080/", "http://[::1]:8080/"),
        ("http://example.org/%7Eann/%zz", "http://example.org/%7Eann/%zz"),
        ("http://my_host.example/", "http://my_host.example/"),
    ],
)
def test_one_address_has_one_spelling(text: str, url: str) -> None:
    assert normalise_url(text) == url
    assert normalise_url(url) == url


@pytest.mark.parametrize(
    "text",
    [
        *(
            "file:///etc/passwd",
            "ftp://example.org/",
            "javascript:alert(1)",
            "data:text/html,x",
            "http://",
            "http:///x",
        ),
        *("http://user:pw@example.org/", "http://user@example.org/", "http://example.org:0/", "http://example.org:x/"),
        *("http://example.org:99999/", "http://[::1", "http://[fe80::1%25eth0]/", "http://a..b/", "http://-a/"),
        *("http://ex ample.org/", "http://example.org/<b>", 'http://example.org/"', "http://example.org\\x", ""),
        *("http://example.org/\n", "http://example.org/\0", "http://%41.example/", f"http://{'a' * 64}.example/"),
        *(f"http://example.org/{'x' * MAX_CHARS}", "http://example.org/\u202e", "example.org"),
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(Unusable):
        normalise_url(text)


def test_an_address_that_grows_too_long_when_escaped_is_refused() -> None:
    with pytest.raises(Unusable, match="longer than"):
        normalise_url("http://example.org/" + "ä" * 1000)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://example.org/", "example.org:80"),
        ("https://example.org/", "example.org:443"),
        ("https://example.org:8443/", "example.org:8443"),
        ("http://[::1]/", "[::1]:80"),
    ],
)
def test_a_host_is_name_and_port(url: str, host: str) -> None:
    assert host_of(url) == host


def test_an_address_is_a_feed_by_its_address() -> None:
    url = "https://example.org/feed"
    expected = Identity(source="feed", handle=url, url=url, host="example.org:443")
    assert identity("https://EXAMPLE.org/feed") == identity("feed:https://example.org/feed") == expected


def test_an_address_without_a_source_is_a_feed_whatever_the_default() -> None:
    assert identity("https://example.org/feed", default="mine").source == "feed"


@pytest.mark.parametrize(("text", "source"), [("mine:ann", None), ("ann", "mine")])
def test_a_handle_of_a_scraper_of_ones_own(text: str, source: str | None) -> None:
    assert identity(text, source) == Identity(source="mine", handle="ann", url="", host="")


def test_a_bare_handle_belongs_to_the_default_source() -> None:
    assert identity("ann", default="mine").source == "mine"


def test_handle_url_makes_a_handle_an_address() -> None:
    found = identity("an n".replace(" ", "/"), handle_url="https://example.org/{handle}.rss")
    assert (found.handle, found.url, found.host) == ("an/n", "https://example.org/an%2Fn.rss", "example.org:443")


@pytest.mark.parametrize(
    ("text", "source", "why"),
    [
        ("ann", None, "is not the address of a feed"),
        ("", None, "is empty"),
        ("mine:", None, "the handle is empty"),
        ("other:ann", None, "there is no source 'other'"),
        ("ann", "other", "there is no source 'other'"),
        ("x" * 10_000, None, f"longer than {MAX_CHARS}"),
        ("a\0b", None, "cannot be printed"),
        ("a\nb", "mine", "cannot be printed"),
        ("a b", "mine", "must not contain spaces"),
        ("<b>", "mine", "must not contain spaces or any of"),
        ("file:///etc/passwd", None, "only http and https"),
        ("file:///etc/passwd", "mine", "only http and https"),
        ("javascript:alert(1)", "feed", "only http and https"),
    ],
)
def test_what_is_no_target_is_refused_and_says_why(text: str, source: str | None, why: str) -> None:
    with pytest.raises(Unusable, match=why):
        identity(text, source)


def test_a_default_source_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(Unusable, match="there is no source 'gone'") as caught:
        identity("ann", default="gone")
    assert caught.value.hint == f"The known sources are: {', '.join(sorted([*BUILT_IN, 'mine']))}."


@pytest.mark.parametrize("handle", [".", "..", "..."])
def test_a_handle_of_dots_does_not_climb_out_of_handle_url(handle: str) -> None:
    with pytest.raises(Unusable, match="dots alone"):
        identity(handle, handle_url="https://example.org/users/{handle}/feed")


def test_a_handle_url_that_makes_no_address_is_named() -> None:
    with pytest.raises(Unusable, match="in handle_url makes no usable address"):
        identity("ann", handle_url="gopher://{handle}")


def test_the_sources_are_listed_with_ones_own() -> None:
    listed = [source["name"] for source in registry().names()]
    assert listed == [*BUILT_IN, "mine"]
    assert {"feed"} <= set(BUILT_IN)


@pytest.mark.parametrize(("text", "is_one"), [("http://x", True), ("HTTPS:x", True), ("httpx://", False), ("x", False)])
def test_what_claims_to_be_an_address(text: str, is_one: bool) -> None:
    assert is_http(text) is is_one


def test_the_registry_loads_nothing_heavy() -> None:
    code = "import sys, sources.registry; sys.exit(bool({'requests', 'lxml', 'feedparser'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
