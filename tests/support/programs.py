"""Small programs that scrape, each good or bad in its own way, and runs of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from model import FetchLimits, Order, Target
from sources.load import load
from tests.support.pages import Run
from tests.support.services import sorted_out
from tests.support.sites import Progress, open_http


def python(code: str, *arguments: str) -> dict[str, Any]:
    """The options of a program in Python; `json`, `os`, `sys`, `time` and `subprocess` are there already."""
    head = "import json, os, subprocess, sys, time\ndef say(**one): print(json.dumps(one), flush=True)\n"
    return {"kind": "command", "argv": [sys.executable, "-c", head + code, *arguments]}


def order(options: dict[str, Any], *, handle: str = "ann", url: str = "", wanted: int | None = None) -> Order:
    target = Target(id=1, source="x", handle=handle, url=url, range=wanted)
    return Order(
        run_id=1, token=1, target=target, timeout_s=30, stall_timeout_s=30, limits=FetchLimits(), options=options
    )


def run(options: dict[str, Any], *, limits: dict[str, Any] | None = None, **more: Any) -> Run:
    """Run a program to its end, as a worker would."""
    one = order(options, **more)
    progress = Progress()
    with open_http(progress=progress, **(limits or {})) as http:
        return Run(scraped=sorted_out(load(one)(one.target, http)), progress=progress)


def alive(marker: str) -> list[int]:
    """Processes whose arguments hold the marker."""
    return list(_alive(marker.encode()))


def _alive(marker: bytes) -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                is_one = marker in (entry / "cmdline").read_bytes()
                is_dead = b"\nState:\tZ" in (entry / "status").read_bytes()
            except OSError:
                continue
            if is_one and not is_dead:
                yield int(entry.name)
