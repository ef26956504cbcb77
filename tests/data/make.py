"""Make the database that this release leaves behind: a few rows of every table, in every state.

`python -m tests.data.make` writes tests/data/gleand-VERSION.db. A file of a version that was released is never made
again: it is what people have.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from datetime import timedelta
from pathlib import Path

from gleand import __version__
from model import Outcome, Post, Profile
from tests.support.fake_pool import START, House

HERE = Path(__file__).resolve().parent


def make(path: Path) -> None:
    """Live through a day with the real service, and copy what it left."""
    with tempfile.TemporaryDirectory() as home:
        with House(Path(home), size=9) as house:
            _live(house)
        with sqlite3.connect(Path(home) / "gleand.db") as db:
            db.execute("PRAGMA journal_mode=DELETE")
            db.execute("VACUUM")
        db.close()
        shutil.copy(Path(home) / "gleand.db", path)


def _live(house: House) -> None:
    """COMPLETED with an edited post, FAILED, TIMEOUT, IDLE and paused, RUNNING; a refusal, a waiting host, sweeps."""
    first = house.add("good:a")
    house.round()
    house.finish("a", Post(native_id="1", title="hello from a", url="https://a.example/1", text="text"))
    house.add("good:a")
    house.round()
    order = house.order("a")
    del house.pool.running[order.token]
    remember = {"etag": 'W/"1"'}
    found = (
        Post(native_id="2", title="ünïcødé \N{PILE OF POO}", published_at=START, media=("https://a.example/2.png",)),
        Post(native_id="1", title="hello from a, edited", url="https://a.example/1", text="text"),
    )
    profile = Profile(display_name="Alice")
    house.service.runs.finished(order, Outcome(ok=True, posts=found, remember=remember, profile=profile))
    house.flush()
    house.add("other:b", schedule="0 6 * * mon")
    house.round()
    house.fail("b", "no luck", retry_after_s=60)
    house.add("third:c")
    house.round()
    house.overdue("c")
    paused = house.track("good:d", schedule="manual", timeout_s=5.0)
    house.service.patch(paused, {"paused_until": START + timedelta(days=9)})
    house.add("waits:e")
    house.round()
    try:
        house.ask("waits:e", again=True)
    except Exception as exc:  # noqa: BLE001 - the refusal is what is wanted; any other error shows in the test
        assert "progress" in str(exc)
    house.block("a.example", 3600)
    house.service.refresh_all()
    assert first == 1


if __name__ == "__main__":
    make(HERE / f"gleand-{__version__}.db")
