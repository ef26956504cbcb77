"""Keeping posts: once, in order, with versions, in bounded time. Runs on every database; see tests/support/store.py."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, func, select

from model import Post
from store import schema as s
from store.posts import Kept, keep
from tests.support.store import add_target, at, open_store

ONE = Post(
    native_id="1",
    url="http://a.example/1",
    title="title",
    text="text",
    html="<p>text</p>",
    author="A. Author",
    published_at=datetime(2026, 2, 1, tzinfo=UTC),
    media=("http://a.example/1.png",),
)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with open_store(tmp_path_factory.mktemp("store")) as engine:
        yield engine


@pytest.fixture
def conn(engine: Engine) -> Iterator[Connection]:
    with engine.connect() as conn:
        yield conn
        conn.rollback()


@pytest.fixture
def target(conn: Connection) -> int:
    return add_target(conn)


def posts(conn: Connection, target: int) -> list[str]:
    """Native ids, oldest first."""
    mine = s.posts.c.target_id == target
    return list(conn.execute(select(s.posts.c.native_id).where(mine).order_by(s.posts.c.id)).scalars())


def test_a_post_is_kept_whole(conn: Connection, target: int) -> None:
    assert keep(conn, target, [ONE], now=at(0)) == Kept(seen=1, new=1, edited=0)
    kept = conn.execute(select(s.posts)).one()
    for name in ("native_id", "url", "title", "text", "html", "author", "published_at", "kind"):
        assert getattr(kept, name) == getattr(ONE, name)
    assert kept.media == list(ONE.media)
    assert (kept.version, kept.first_seen_at, kept.last_seen_at) == (1, at(0), at(0))


def test_newest_first_becomes_oldest_first(conn: Connection, target: int) -> None:
    keep(conn, target, [Post(native_id=i) for i in "cba"], now=at(0))
    keep(conn, target, [Post(native_id=i) for i in "edcba"], now=at(1))
    assert posts(conn, target) == list("abcde")


def test_what_is_known_is_not_kept_again(conn: Connection, target: int) -> None:
    keep(conn, target, [ONE], now=at(0))
    assert keep(conn, target, [ONE], now=at(9)) == Kept(seen=1, new=0, edited=0)
    assert posts(conn, target) == ["1"]


def test_targets_have_posts_of_their_own(conn: Connection, target: int) -> None:
    other = add_target(conn)
    assert keep(conn, target, [ONE], now=at(0)).new == 1
    assert keep(conn, other, [ONE], now=at(0)).new == 1


def test_of_two_with_one_id_the_first_counts(conn: Connection, target: int) -> None:
    found = [replace(ONE, title="newer"), Post(native_id="2"), replace(ONE, title="older")]
    assert keep(conn, target, found, now=at(0)) == Kept(seen=2, new=2, edited=0)
    assert conn.execute(select(s.posts.c.title).where(s.posts.c.native_id == "1")).scalar() == "newer"


@pytest.mark.parametrize("name", ["title", "text", "html", "url"])
def test_an_edit_becomes_a_version(conn: Connection, target: int, name: str) -> None:
    keep(conn, target, [ONE], now=at(0))
    edited = replace(ONE, **{name: "edited"})
    assert keep(conn, target, [edited], now=at(9)) == Kept(seen=1, new=0, edited=1)
    now, before = conn.execute(select(s.posts)).one(), conn.execute(select(s.post_versions)).one()
    assert (getattr(now, name), now.version, now.first_seen_at, now.last_seen_at) == ("edited", 2, at(0), at(9))
    assert (getattr(before, name), before.version, before.replaced_at) == (getattr(ONE, name), 1, at(9))
    assert before.post_id == now.id
    assert keep(conn, target, [edited], now=at(10)).edited == 0


def test_every_version_stays(conn: Connection, target: int) -> None:
    for n in range(5):
        keep(conn, target, [replace(ONE, title=f"title {n}")], now=at(n))
    versions = conn.execute(
        select(s.post_versions.c.version, s.post_versions.c.title).order_by(s.post_versions.c.version)
    )
    assert [tuple(v) for v in versions] == [(n + 1, f"title {n}") for n in range(4)]
    assert conn.execute(select(s.posts.c.version)).scalar() == 5


def test_what_is_not_content_makes_no_version(conn: Connection, target: int) -> None:
    keep(conn, target, [ONE], now=at(0))
    assert keep(conn, target, [replace(ONE, author="B", published_at=None, media=())], now=at(1)).edited == 0


def test_fields_are_told_apart_in_the_content(conn: Connection, target: int) -> None:
    keep(conn, target, [replace(ONE, title="ab", text="c")], now=at(0))
    assert keep(conn, target, [replace(ONE, title="a", text="bc")], now=at(1)).edited == 1


def test_a_post_that_disappears_from_its_feed_stays(conn: Connection, target: int) -> None:
    keep(conn, target, [ONE, Post(native_id="2")], now=at(0))
    keep(conn, target, [Post(native_id="2")], now=at(1))
    keep(conn, target, [], now=at(2))
    assert posts(conn, target) == ["2", "1"]


def test_ids_that_look_alike_are_different(conn: Connection, target: int) -> None:
    ids = ["a", "A", "a ", " a", "ä", "a\N{COMBINING DIAERESIS}", "", "'", "%", "x" * 2048]
    assert keep(conn, target, [Post(native_id=i) for i in ids], now=at(0)).new == len(ids)
    assert keep(conn, target, [Post(native_id=i) for i in ids], now=at(1)).new == 0


def test_more_than_one_piece_is_kept_in_order(conn: Connection, target: int) -> None:
    ids = [f"{n:05}" for n in range(1234)]
    keep(conn, target, [Post(native_id=i) for i in reversed(ids)], now=at(0))
    assert posts(conn, target) == ids


def test_fifty_thousand_posts_take_bounded_time(tmp_path: Path) -> None:
    found = [replace(ONE, native_id=f"http://a.example/{n}", title=f"post {n}") for n in range(50_000)]
    edited = [replace(post, title="edited") if n % 100 == 0 else post for n, post in enumerate(found)]
    with open_store(tmp_path) as engine:
        with engine.begin() as conn:
            target = add_target(conn)
        took = []
        for part, come in ((found, (50_000, 0)), (found, (0, 0)), (edited, (0, 500))):
            began = time.process_time()
            with engine.begin() as conn:
                kept = keep(conn, target, part, now=at(0))
            took.append(time.process_time() - began)
            assert (kept.seen, kept.new, kept.edited) == (50_000, *come)
        with engine.connect() as conn:
            assert conn.execute(select(func.count()).select_from(s.posts)).scalar() == 50_000
            assert conn.execute(select(func.count()).select_from(s.post_versions)).scalar() == 500
    print("new, seen again, 500 edited (seconds of CPU):", [round(t, 2) for t in took])
    assert max(took) < 5
