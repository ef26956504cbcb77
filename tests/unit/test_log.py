"""The log: a line for each fact, and with systemd's journal a number for its level before each line."""

from __future__ import annotations

import io
import logging
import os
import sys
from pathlib import Path
from typing import TextIO, cast

import pytest

from daemon import JournalFormatter, PlainFormatter, _is_journal


def record(level: int, text: str, exc: Exception | None = None) -> logging.LogRecord:
    info = None if exc is None else (type(exc), exc, exc.__traceback__)
    return logging.LogRecord("jobs.pool", level, __file__, 1, text, (), info)


@pytest.mark.parametrize(
    ("level", "number"), [(logging.DEBUG, 7), (logging.INFO, 6), (logging.WARNING, 4), (logging.ERROR, 3), (50, 3)]
)
def test_the_journal_reads_the_level_from_a_number(level: int, number: int) -> None:
    assert JournalFormatter().format(record(level, "run_ended")) == f"<{number}>logger=jobs.pool run_ended"


def test_each_line_of_a_traceback_has_its_number() -> None:
    try:
        raise ValueError("no")
    except ValueError as exc:
        lines = JournalFormatter().format(record(logging.ERROR, "failed", exc)).splitlines()
    assert len(lines) > 3 and all(line.startswith("<3>") for line in lines)


def test_elsewhere_a_line_has_its_time_and_level() -> None:
    line = PlainFormatter().format(record(logging.INFO, "run_ended"))
    assert line.startswith("ts=2") and line.endswith(" level=INFO logger=jobs.pool run_ended")


def test_only_the_very_stream_that_systemd_made_is_its_journal(tmp_path: Path) -> None:
    with open(tmp_path / "log", "w", encoding="utf-8") as stream:
        found = os.fstat(stream.fileno())
        assert _is_journal(stream, f"{found.st_dev}:{found.st_ino}")
        assert not _is_journal(stream, f"{found.st_dev}:{found.st_ino + 1}")
        assert not _is_journal(stream, "")
    assert not _is_journal(cast(TextIO, io.StringIO()), "8:1")
    assert not _is_journal(sys.stderr, "")
