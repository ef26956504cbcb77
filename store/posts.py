"""Keeping posts: once by native id, an edit becomes a version. Runs inside the transaction that ends the run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, insert, select, update

from model import Post
from store.schema import post_versions, posts

_CHUNK = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What keeping came to (counts)."""

    seen: int
    new: int
    edited: int


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
    """Store what a run found; never removes anything.

    Args:
        conn: Inside a transaction.
        found: As the source gave them, newest first; stored oldest first so that ids grow with time.
    """
    unique = {post.native_id: post for post in reversed(found)}
    new = edited = 0
    ids = list(unique)
    for start in range(0, len(ids), _CHUNK):
        part = ids[start : start + _CHUNK]
        known = {
            row.native_id: row
            for row in conn.execute(select(posts).where(posts.c.target_id == target_id, posts.c.native_id.in_(part)))
        }
        fresh = [unique[i] for i in part if i not in known]
        if fresh:
            base = {"target_id": target_id, "first_seen_at": now, "last_seen_at": now}
            conn.execute(insert(posts), [dict(base, native_id=p.native_id, **_columns(p)) for p in fresh])
        new += len(fresh)
        for native_id, row in known.items():
            post = unique[native_id]
            if row.content_hash == content_hash(post):
                continue
            old = {c: getattr(row, c) for c in ("version", "title", "text", "html", "url")}
            conn.execute(insert(post_versions).values(post_id=row.id, replaced_at=now, **old))
            values = dict(_columns(post), version=row.version + 1, last_seen_at=now)
            conn.execute(update(posts).where(posts.c.id == row.id).values(values))
            edited += 1
    return Kept(seen=len(unique), new=new, edited=edited)
