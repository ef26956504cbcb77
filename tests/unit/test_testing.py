"""The kit for authors of scrapers: recorded answers in, checked posts out, no network."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from errors import ScrapeFailed
from gleand.testing import NotRecorded, NotStorable, Recorded, a_target, replay
from model import FetchLimits, Post, Profile, Remember, Target, Window
from sources import feed
from sources.http import BadStatus, Http

ROOT = Path(__file__).resolve().parents[2]
URL = "https://example.org/api/ann"


def api(target: Target, http: Http) -> Iterator[Post | Remember]:
    for one in http.get(f"https://example.org/api/{target.handle}").json():
        yield Post(native_id=str(one["id"]), title=one["title"])


def giving(*found: object) -> Any:
    return lambda target, http: list(found)


# -- answers ---------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_a_scraper_runs_against_recorded_answers() -> None:
    found = replay(api, "ann", {URL: Recorded(body=[{"id": 1, "title": "One"}])})
    assert found.posts == [Post(native_id="1", title="One")]
    assert [asked.url for asked in found.asked] == [URL]
    assert found.asked[0].headers["user-agent"] == FetchLimits().user_agent
    assert (found.profile, found.remember, found.is_window) == (None, None, False)
    assert found.notes[0] == "status 200"


def test_everything_a_scraper_gives_is_sorted() -> None:
    scrape = giving(Post(native_id="1"), Profile(display_name="Ann"), Window(), Remember(values={"a": "b"}))
    found = replay(scrape, "ann", {})
    assert (len(found.posts), found.profile, found.is_window) == (1, Profile(display_name="Ann"), True)
    assert found.remember == {"a": "b"}


@pytest.mark.parametrize("body", [b'[{"id": 1, "title": "\xc3\xa4"}]', '[{"id": 1, "title": "ä"}]'])
def test_a_body_may_be_bytes_or_text(body: bytes | str) -> None:
    assert replay(api, "ann", {URL: Recorded(body=body)}).posts[0].title == "ä"


def test_addresses_are_compared_in_one_spelling() -> None:
    assert replay(api, "ann", {"HTTPS://Example.org:443/api/ann#x": Recorded(body=[])}).posts == []


def test_the_feed_source_runs_with_a_feed_redirects_and_validators() -> None:
    url, real = "https://example.org/feed", "https://example.org/real"
    rss = "<rss><channel><title>T</title><ttl>60</ttl><item><guid>1</guid></item></channel></rss>"
    recordings = {
        url: Recorded(status=301, headers={"Location": "/real"}),
        real: [Recorded(body=rss, headers={"ETag": '"v"'}), Recorded(status=304)],
    }
    first = replay(feed.scrape, a_target(url, url=url), recordings)
    assert (first.posts[0].native_id, first.fresh_s) == ("1", 3600)
    recordings[real] = Recorded(status=304)
    again = replay(feed.scrape, a_target(url, url=url, remember=first.remember), recordings)
    assert (again.posts, again.asked[-1].headers["if-none-match"]) == ([], '"v"')


def test_a_page_source_is_proved_by_its_table() -> None:
    table = {"url": "https://example.org/{handle}", "item": "li", "title": "a", "link": "a@href"}
    found = replay(table, "ann", {"https://example.org/ann": Recorded(body="<ul><li><a href=/1>One</a></ul>")})
    assert [(post.title, post.url) for post in found.posts] == [("One", "https://example.org/1")]


def test_answers_in_a_list_are_given_one_after_the_other() -> None:
    def twice(target: Target, http: Http) -> Iterator[Post]:
        for _ in range(2):
            yield Post(native_id=http.get(URL).text)

    found = replay(twice, "ann", {URL: [Recorded(body="a"), Recorded(body="b")]})
    assert [post.native_id for post in found.posts] == ["a", "b"]
    with pytest.raises(NotRecorded, match=f"{URL} more often than the 1 times that are recorded"):
        replay(twice, "ann", {URL: [Recorded(body="a")]})


def test_an_address_that_is_not_recorded_is_refused_with_those_that_are() -> None:
    with pytest.raises(NotRecorded, match="https://example.org/api/bob, which is not recorded; recorded are https://"):
        replay(api, "bob", {URL: Recorded()})


def test_a_refusal_is_told_though_the_scraper_swallowed_it() -> None:
    def careless(target: Target, http: Http) -> None:
        try:
            http.get("https://example.org/other")
        except BaseException:  # noqa: BLE001, S110 - the point of it
            pass

    with pytest.raises(NotRecorded, match="other"):
        replay(careless, "ann", {})


def test_errors_of_http_are_what_they_are_in_a_worker() -> None:
    with pytest.raises(BadStatus) as caught:
        replay(api, "ann", {URL: Recorded(status=429, headers={"Retry-After": "7"})})
    assert (caught.value.status, caught.value.retry_after_s) == (429, 7)
    with pytest.raises(ScrapeFailed, match="larger than the limit of 10 bytes"):
        replay(api, "ann", {URL: Recorded(body=b"x" * 20)}, limits=FetchLimits(body_limit_bytes=10))
    with pytest.raises(ScrapeFailed, match="the answer is not JSON"):
        replay(api, "ann", {URL: Recorded(body=b"<html>")})


@pytest.mark.parametrize("found", [None, [], Post(native_id="1"), iter([Post(native_id="1")])])
def test_a_scraper_may_give_what_it_may_give_in_a_worker(found: Any) -> None:
    assert len(replay(lambda target, http: found, "ann", {}).posts) == bool(found)


# -- what cannot be kept ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("post", "why"),
    [
        (Post(native_id=""), "a post has no native_id"),
        (Post(native_id=7), "the post 7 has a native_id that is a int, not a text"),  # type: ignore[arg-type]
        (Post(native_id="1", title=None), "the post '1' has a title that is a NoneType"),  # type: ignore[arg-type]
        (Post(native_id="1", url="x" * 9000), "has a url of more than 8192 characters, which would be cut"),
        (Post(native_id="1", published_at=datetime(2026, 1, 1)), "has a published_at without a time zone"),
        (Post(native_id="1", published_at=datetime(1, 1, 1, tzinfo=UTC)), "in the year 1, which would be left out"),
        (Post(native_id="1", published_at="2026-01-01"), "published_at that is a str"),  # type: ignore[arg-type]
        (Post(native_id="1", media="https://x.example/"), "media that are not a tuple"),  # type: ignore[arg-type]
        (Post(native_id="1", media=(1,)), "media that are not a tuple of addresses"),  # type: ignore[arg-type]
        (Post(native_id="1", media=("x",) * 101), "has more than 100 media"),
        (Post(native_id="1", text="a\0b"), "has characters in its text that cannot be stored"),
        (Post(native_id="1", title="\ud800"), "has characters in its title that cannot be stored"),
        (Post(native_id="1", media=("\udfff",)), "has characters in its media that cannot be stored"),
        (Post(native_id="1", kind="a very long kind of post"), "has a kind of more than 16 characters"),
    ],
)
def test_a_post_that_cannot_be_kept_as_it_is_is_refused(post: Post, why: str) -> None:
    with pytest.raises(NotStorable, match=why):
        replay(giving(post), "ann", {})


@pytest.mark.parametrize(
    ("found", "why"),
    [
        ("text", "the scraper gave a str, not a Post"),
        ({"id": 1}, "the scraper gave a dict, not a Post"),
        (Remember(values={"a": 1}), "has a value of 'a' that is a int"),  # type: ignore[dict-item]
        (Remember(values=[]), "is a list, not a dict"),  # type: ignore[arg-type]
        (Remember(values={"a": "x" * 70_000}), "more than 65536 characters"),
        (Profile(display_name=None), "has a display_name that is a NoneType"),  # type: ignore[arg-type]
    ],
)
def test_anything_else_that_cannot_be_kept_is_refused(found: object, why: str) -> None:
    with pytest.raises(NotStorable, match=why):
        replay(giving(found), "ann", {})


def test_two_posts_with_one_identity_are_refused() -> None:
    with pytest.raises(NotStorable, match="two posts have the native_id '1'"):
        replay(giving(Post(native_id="1", title="a"), Post(native_id="1", title="b")), "ann", {})


def test_a_post_with_everything_is_kept() -> None:
    post = Post(
        native_id="1",
        url="https://e.org/",
        title="ä \U0001f600",
        published_at=datetime(2026, 1, 1, tzinfo=UTC),
        media=("https://e.org/a.png",),
    )
    assert replay(giving(post), "ann", {}).posts == [post]


# -- where it runs ---------------------------------------------------------------------------------------------------

SCRIPT = """
import sys
from gleand.testing import Recorded, replay
import model, errors
from model import Post


def scrape(target, http):
    yield Post(native_id=http.get("https://example.org/").text)


print(replay(scrape, "ann", {"https://example.org/": Recorded(body="7")}).posts[0].native_id, model.__file__)
"""


def python(code: str, *path: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environ, cwd=cwd, check=False
    )


def test_it_works_in_a_clone(tmp_path: Path) -> None:
    ran = python(SCRIPT, ROOT, cwd=tmp_path)
    assert ran.stdout.split() == ["7", str(ROOT / "model.py")], ran.stderr


def test_it_works_as_it_is_installed_and_beside_modules_with_our_names(tmp_path: Path) -> None:
    site, mine = tmp_path / "site", tmp_path / "mine"
    app = site / "gleand" / "app"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "gleand", site / "gleand", ignore=ignored)
    for room in ("sources", "jobs"):
        shutil.copytree(ROOT / room, app / room, ignore=ignored)
    for path in ROOT.glob("*.py"):
        shutil.copy(path, app / path.name)
    mine.mkdir()
    for name in ("model.py", "errors.py", "config.py", "sources.py"):
        (mine / name).write_text("raise RuntimeError('not this one')\n", encoding="utf-8")
    (mine / "api.py").write_text("HELLO = 1\n", encoding="utf-8")
    code = SCRIPT + "\nimport api; print(api.HELLO)"
    ran = python(code, mine, site, cwd=mine)
    assert ran.stdout.split() == ["7", str(app / "model.py"), "1"], ran.stderr


def test_a_foreign_module_that_came_before_ours_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("", encoding="utf-8")
    ran = python("import model, gleand.testing", tmp_path, ROOT, cwd=tmp_path)
    assert "ImportError: another module named 'model' was imported before gleand's own" in ran.stderr
