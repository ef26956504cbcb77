"""A real server: MediaWiki with three users, whose edits are read in two ways, by Atom and by JSON.

Its packages are large, so CI does without, and these tests are skipped where it is missing. `make test-servers` is for
a machine that has it: there a missing server is a failure.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from tests.support.daemon import Daemon
from tests.support.mediawiki import MediaWiki
from tests.support.sweeps import refresh_all

USERS = ["Alice", "Bob Builder", "Çelik"]
#: How many edits the source asks for at once.
PAGE = 50


@pytest.fixture
def wiki(tmp_path: Path) -> Iterator[MediaWiki]:
    """A wiki in which each of the users has begun two pages and edited one."""
    with MediaWiki(tmp_path / "wiki") as wiki:
        for user in USERS:
            wiki.add_user(user)
            wiki.write(user, [f"Garten von {user}", f"{user}: Größe & Maß"], summary="begun, with <b> & 'quotes'")
            wiki.edit(user, f"Garten von {user}", f"Something else by {user}.")
        yield wiki


@pytest.fixture
def daemon(tmp_path: Path, wiki: MediaWiki) -> Iterator[Daemon]:
    with Daemon(tmp_path / "data", source_bases=f"mediawiki={wiki.url}") as daemon:
        yield daemon


def add(daemon: Daemon, name: str, **more: Any) -> int:
    """Add a target whose first run completes; returns its id."""
    target = int(daemon.add(name, **more)["user"]["id"])
    assert daemon.wait_state(target, "COMPLETED", "FAILED", within_s=30)["error"] is None
    return target


def add_both(daemon: Daemon, wiki: MediaWiki, user: str) -> tuple[int, int]:
    """Add the Atom feed of a user and the user; returns the ids."""
    by_atom = add(daemon, wiki.feed(user), source="feed")
    return by_atom, add(daemon, f"mediawiki:{user.replace(' ', '_')}@{wiki.host}")


def posts(daemon: Daemon, target: int) -> list[dict[str, Any]]:
    """All posts of a target, newest first."""
    found: list[dict[str, Any]] = []
    how: dict[str, Any] = {"limit": 100}
    while True:
        page = daemon.get(f"/api/targets/{target}/posts", params=how)
        found += page["posts"]
        if page["next_cursor"] is None:
            return found
        how["cursor"] = page["next_cursor"]


def edits(daemon: Daemon, target: int) -> list[tuple[str, str, str, str]]:
    """Of each edit its number, its title, time and author: what Atom and JSON both have."""
    return [
        (number_of(post["post_url"]), post["title"], post["published_at"], post["author_name"])
        for post in posts(daemon, target)
    ]


def number_of(link: str) -> str:
    """The edit that a link shows; the one of Atom names the page besides."""
    return parse_qs(urlsplit(link).query)["diff"][0]


def came_to(daemon: Daemon, target: int) -> tuple[int, int, int]:
    """Posts that the last run of a target saw, and of these the new and the edited ones."""
    last = daemon.runs(target)[0]
    assert last["state"] == "COMPLETED", last["error"]
    return last["posts_seen"], last["posts_new"], last["posts_edited"]


def pages_of(user: str, count: int, *, begin: int = 0) -> list[str]:
    """Titles for so many pages."""
    return [f"{user}, page {number}" for number in range(begin, begin + count)]


@pytest.mark.parametrize("user", USERS)
def test_atom_and_json_agree_on_who_edited_what_when(daemon: Daemon, wiki: MediaWiki, user: str) -> None:
    by_atom, by_json = add_both(daemon, wiki, user)
    assert edits(daemon, by_atom) == edits(daemon, by_json)
    numbers, titles, times, authors = zip(*edits(daemon, by_json), strict=True)
    assert list(numbers) == wiki.numbers(user)
    assert list(titles) == [f"Garten von {user}", f"{user}: Größe & Maß", f"Garten von {user}"]
    assert set(authors) == {user}
    assert sorted(times, reverse=True) == list(times)
    atom, json = posts(daemon, by_atom)[1], posts(daemon, by_json)[1]
    assert json["post_text"] == "begun, with <b> & 'quotes'"
    assert atom["post_text"].splitlines() == [f"{user}: {json['post_text']}", f"What {user} knows of {titles[1]}."]
    assert (atom["kind"], json["kind"]) == ("post", "edit")
    for post in (atom, json):
        page = requests.get(post["post_url"], timeout=30)
        assert (page.status_code, f"What {user} knows of" in page.text) == (200, True), post["post_url"]


def test_an_edit_is_one_new_post_of_its_author(daemon: Daemon, wiki: MediaWiki) -> None:
    ids = {user: add_both(daemon, wiki, user) for user in USERS}
    refresh_all(daemon)
    assert {came_to(daemon, target) for pair in ids.values() for target in pair} == {(3, 0, 0)}
    wiki.edit("Bob Builder", "Garten von Alice", "Bob was here.", summary="Grüße & <more>")
    refresh_all(daemon)
    came = {user: [came_to(daemon, target) for target in pair] for user, pair in ids.items()}
    assert came == {"Alice": [(3, 0, 0)] * 2, "Bob Builder": [(4, 1, 0)] * 2, "Çelik": [(3, 0, 0)] * 2}
    by_atom, by_json = ids["Bob Builder"]
    assert edits(daemon, by_atom) == edits(daemon, by_json)
    newest = posts(daemon, by_json)[0]
    assert (newest["title"], newest["post_text"]) == ("Garten von Alice", "Grüße & <more>")


def test_an_edit_of_a_page_that_is_deleted_has_vanished_from_both(daemon: Daemon, wiki: MediaWiki) -> None:
    pair = add_both(daemon, wiki, "Çelik")
    wiki.delete("Çelik: Größe & Maß")
    refresh_all(daemon)
    for target in pair:
        gone = [post["title"] for post in posts(daemon, target) if post["vanished_at"]]
        assert (gone, len(posts(daemon, target))) == (["Çelik: Größe & Maß"], 3)


@pytest.mark.parametrize("apart_min", [1, 0])
def test_a_walk_goes_back_page_by_page_to_what_it_knows(daemon: Daemon, wiki: MediaWiki, apart_min: int) -> None:
    wiki.add_user("Dora")
    wiki.write("Dora", pages_of("Dora", 60), apart_min=apart_min)
    by_atom, by_json = add_both(daemon, wiki, "Dora")
    assert came_to(daemon, by_json) == (PAGE, PAGE, 0)
    assert len(wiki.asked("usercontribs")) == 1

    wiki.write("Dora", pages_of("Dora", 70, begin=60), apart_min=apart_min)
    refresh_all(daemon)
    assert came_to(daemon, by_json) == (2 * PAGE, 70, 0)
    assert [("uccontinue" in url) for url in wiki.asked("usercontribs")] == [False, False, True]
    assert [number for number, *_ in edits(daemon, by_json)] == wiki.numbers("Dora")[: PAGE + 70]
    assert [daemon.runs(target)[0]["gap"] for target in (by_atom, by_json)] == [True, False]  # a feed has one page


@pytest.mark.parametrize("apart_min", [1, 0])
def test_a_range_reads_as_many_pages_as_it_needs(daemon: Daemon, wiki: MediaWiki, apart_min: int) -> None:
    wiki.add_user("Dora")
    wiki.write("Dora", pages_of("Dora", 130), apart_min=apart_min)
    target = add(daemon, f"mediawiki:Dora@{wiki.host}", range=120)
    assert came_to(daemon, target) == (130, 130, 0)
    assert len(wiki.asked("usercontribs")) == 3
    assert [number for number, *_ in edits(daemon, target)] == wiki.numbers("Dora")


def test_every_spelling_of_a_user_is_one_target(daemon: Daemon, wiki: MediaWiki) -> None:
    name, at = f"Bob_Builder@{wiki.host}", f"{wiki.url}/index.php"
    target = daemon.create(f"mediawiki:{name}")
    spellings = [f"mediawiki:bob_Builder@{wiki.host}", f"mediawiki:_Bob__Builder_@{wiki.host}"]
    spellings += [f"{at}/User:Bob_Builder", f"{at}?title=User:bob_Builder", f"{at}/Special:Contributions/Bob_Builder"]
    spellings += [f"{at}?title=Special:Contributions&target=Bob+Builder", f"mediawiki:{at}/User:Bob%20Builder"]
    for spelling in spellings:
        assert daemon.call("POST", "/api/targets", {"target": spelling, "start": False}).status_code == 409, spelling
    assert [(one["id"], one["handle"]) for one in daemon.get("/api/targets")["targets"]] == [(target, name)]


def test_a_user_who_is_not_there_fails_and_says_so(daemon: Daemon, wiki: MediaWiki) -> None:
    target = int(daemon.add(f"mediawiki:Nobody@{wiki.host}")["user"]["id"])
    status = daemon.wait_state(target, "COMPLETED", "FAILED")
    assert (status["state"], status["error"]) == ("FAILED", f"{wiki.host} has no user Nobody")


def test_the_page_of_a_users_edits_leads_to_the_feed_of_that_user(tmp_path: Path, wiki: MediaWiki) -> None:
    with Daemon(tmp_path / "data", respect_robots=True) as daemon:  # it knows of no wiki here
        target = add(daemon, f"{wiki.url}/index.php/Special:Contributions/Alice")
        view = daemon.get(f"/api/targets/{target}")
        assert (view["source"], view["url"]) == ("feed", wiki.feed("Alice"))
        assert [number for number, *_ in edits(daemon, target)] == wiki.numbers("Alice")
