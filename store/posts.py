"""Keeping posts: once by native id, an edit becomes a version. Runs inside the transaction that ends the run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, bindparam, insert, select, update

from model import Post
from store.driver import run_many
from store.schema import UtcTime, post_versions, posts

_CHUNK = 500
#: A post that is seen again is marked as seen, but not more often than this: a write for each would be too many.
_SEEN_AGAIN = timedelta(days=1)
_P = posts.c
_KNOWN = select(_P.id, _P.native_id, _P.content_hash, _P.last_seen_at, _P.vanished_at).where(
    _P.target_id == bindparam("b_target"), _P.native_id.in_(bindparam("b_ids", expanding=True))
)
_SEEN = update(posts).where(_P.id.in_(bindparam("b_ids", expanding=True)))
_VANISHED = (
    update(posts)
    .where(
        _P.target_id == bindparam("b_target"),
        _P.published_at > bindparam("b_oldest", type_=UtcTime()),
        _P.vanished_at.is_(None),
        _P.id.not_in(bindparam("b_ids", expanding=True)),
    )
    .values(vanished_at=bindparam("b_now", type_=UtcTime()))
)
_ADD = insert(posts)
_OLD = select(_P.version, _P.title, _P.text, _P.html, _P.url).where(_P.id == bindparam("b_id"))
_ADD_VERSION = insert(post_versions)
_EDIT = update(posts).where(_P.id == bindparam("b_id"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What keeping came to (counts)."""

    seen: int
    new: int
    edited: int
    vanished: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Find:
    """What a run found."""

    target_id: int
    #: As the source gave them, newest first.
    posts: Sequence[Post]
    #: They are all there are, back to the oldest of them: one that is known and missing has vanished.
    contiguous: bool = False


def content_hash(post: Post) -> str:
    """What counts as the content of a post: a change of it makes a version."""
    parts = (post.title, post.text, post.html, post.url)
    return hashlib.sha256("\x00".join(parts).encode("utf-8", "replace")).hexdigest()


def _columns(post: Post) -> dict[str, object]:
    return {
        "url": post.url,
        "title": post.title,
        "text": post.text,
        "html": post.html,
        "author": post.author,
        "published_at": post.published_at,
        "kind": post.kind,
        "media": list(post.media),
        "content_hash": content_hash(post),
    }


def keep(conn: Connection, target_id: int, found: Sequence[Post], *, now: datetime) -> Kept:
    """Store what a run found; see keep_all."""
    return keep_all(conn, [Find(target_id=target_id, posts=found)], now=now)[0]


def keep_all(conn: Connection, finds: Sequence[Find], *, now: datetime) -> list[Kept]:
    """Store what runs found; never removes anything.

    Args:
        conn: Inside a transaction.
        finds: Of different targets. Posts are stored oldest first so that ids grow with time; of two with one native
            id the first counts.

    Returns:
        What it came to, in the order of `finds`.
    """
    kept: list[Kept] = []
    fresh: list[dict[str, object]] = []
    for find in finds:
        target_id, here = find.target_id, []
        unique = {post.native_id: post for post in reversed(find.posts)}
        ids, new, edited = list(unique), 0, 0
        base: dict[str, object] = {"target_id": target_id, "first_seen_at": now, "last_seen_at": now}
        for start in range(0, len(ids), _CHUNK):
            part = ids[start : start + _CHUNK]
            known = {row.native_id: row for row in conn.execute(_KNOWN, {"b_target": target_id, "b_ids": part})}
            fresh += [base | {"native_id": i} | _columns(unique[i]) for i in part if i not in known]
            new += len(part) - len(known)
            for native_id, row in known.items():
                columns = _columns(unique[native_id])
                if row.content_hash != columns["content_hash"]:
                    _edit(conn, row.id, columns, now)
                    edited += 1
            back = [r.id for r in known.values() if r.vanished_at is not None or now - r.last_seen_at >= _SEEN_AGAIN]
            if back:
                conn.execute(_SEEN, {"b_ids": back, "last_seen_at": now, "vanished_at": None})
            here += [row.id for row in known.values()]
        vanished = _mark_vanished(conn, find, here, now)
        kept.append(Kept(seen=len(unique), new=new, edited=edited, vanished=vanished))
    for start in range(0, len(fresh), _CHUNK):
        run_many(conn, _ADD, fresh[start : start + _CHUNK])
    return kept


def _mark_vanished(conn: Connection, find: Find, here: Sequence[int], now: datetime) -> int:
    """Mark what is newer than the oldest that was found, and was not among it; returns how many."""
    times = [post.published_at for post in find.posts if post.published_at is not None]
    if not find.contiguous or not times:
        return 0
    values = {"b_target": find.target_id, "b_oldest": min(times), "b_ids": list(here), "b_now": now}
    return conn.execute(_VANISHED, values).rowcount


def _edit(conn: Connection, post_id: int, columns: dict[str, object], now: datetime) -> None:
    old = conn.execute(_OLD, {"b_id": post_id}).one()
    conn.execute(_ADD_VERSION, dict(old._mapping) | {"post_id": post_id, "replaced_at": now})
    conn.execute(_EDIT, columns | {"b_id": post_id, "version": old.version + 1, "last_seen_at": now})
