"""A status that is read while it changes shows what it has become."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from sqlalchemy import event

from tests.support.fake_pool import House


def test_a_run_that_ends_while_its_status_is_read_is_not_running_for_ever(tmp_path: Path) -> None:
    with House(tmp_path) as house:
        target = house.add("good:a")
        assert house.round() == ["a"]
        me, ended = threading.get_ident(), threading.Event()

        def end(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
            if threading.get_ident() == me and "FROM runs" in statement and not ended.is_set():
                ended.set()  # the row was read, and says RUNNING
                house.finish("a")

        event.listen(house.engine, "after_cursor_execute", end)
        try:
            shown = house.service.board.pin(target)
        finally:
            event.remove(house.engine, "after_cursor_execute", end)
        assert ended.is_set()
        assert b'"state": "COMPLETED"' in shown.body
        later = house.service.board.target(target)
        assert later is not None and b'"state": "COMPLETED"' in later.body
