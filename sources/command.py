"""Programs that scrape: anything that prints a JSON object a line, such as `scrapy runspider ... -o -:jsonlines`.

The program runs in the worker's own process group, so whatever ends the worker ends it and its children too. It is
given no shell, no input and a small environment. What it prints is read as it comes, bounded in lines and altogether;
an item, or a line `{"progress": "..."}`, is progress, and what goes to stderr is not. The run ends when the program
does; what it left behind in its environment's name is killed then.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from errors import ScrapeFailed, Unusable
from model import Post, Profile, Remember, Target, Window
from sources.command_items import item_of
from sources.command_options import CommandOptions, filled, read_command
from sources.http import Http
from sources.items import post_of
from sources.output import MAX_LINE_BYTES, Output
from sources.texts import one_line

#: What of the environment a program is given, besides what begins with SCRAPE_.
_PASSED = frozenset({"PATH", "HOME", "LANG"})
#: In the environment of a program and of all it starts: which of ours it is.
_MARK = "SCRAPE_PROGRAM"
#: From SIGTERM to SIGKILL for a program that is not wanted any more (seconds).
_GRACE_S = 1.0
_PROGRESS_CHARS = 200


def bind(table: Mapping[str, Any]) -> Callable[[Target, Http], Iterator[Post | Profile | Remember | Window]]:
    """Give the function that scrapes by this table. Raises ScrapeFailed for one that cannot work.

    Any: JSON values.
    """
    try:
        options = read_command(table)
    except Unusable as exc:
        raise ScrapeFailed(exc.message) from exc

    def scrape(target: Target, http: Http) -> Iterator[Post | Profile | Remember | Window]:
        yield from _Run(target, http, options).posts()

    return scrape


class _Run:
    """One run of a program."""

    def __init__(self, target: Target, http: Http, options: CommandOptions) -> None:
        self._target, self._http, self._options = target, http, options
        self._items = self._left_out = self._broken = 0

    def posts(self) -> Iterator[Post]:
        mark = secrets.token_hex(8)
        program = self._start(mark)
        try:
            with Output(program) as output:
                seen: set[str] = set()
                for line in output.lines():
                    post = self._post(line)
                    if post is None or post.native_id in seen:
                        continue
                    seen.add(post.native_id)
                    yield post
                    if len(seen) > self._http.limits.max_posts:
                        return  # one more than is kept, so that the run is marked as truncated
                self._check(program.wait(), output.last_words())
        finally:
            _end(program, f"{_MARK}={mark}".encode())

    def _start(self, mark: str) -> subprocess.Popen[bytes]:
        target, cwd = self._target, self._options.cwd or None
        values = {"handle": target.handle, "url": target.url, "range": str(target.range or 0)}
        environ = {k: v for k, v in os.environ.items() if k in _PASSED or k.startswith("SCRAPE_")}
        try:
            argv = filled(self._options, values)
            return subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=cwd,
                env=environ | {_MARK: mark},
                bufsize=0,
            )
        except Unusable as exc:
            raise ScrapeFailed(exc.message) from exc
        except (OSError, ValueError) as exc:
            raise ScrapeFailed(_why_not(exc, self._options.argv[0], cwd)) from exc

    def _post(self, line: bytes | None) -> Post | None:
        """What a line says: a post, or None for progress and for what is no item; None as a line was too long."""
        record = None if line is None else _record(line)
        if record is None:
            self._broken += 1
            return None
        if set(record) == {"progress"}:
            self._http.on_progress(one_line(str(record["progress"]))[:_PROGRESS_CHARS])
            return None
        self._items += 1
        found = item_of(record, self._options.fields, self._target.url)
        if found is None:
            self._left_out += 1
            return None
        return replace(post_of(found[0]), kind=found[1])

    def _check(self, code: int, words: str) -> None:
        """Say what was passed over; raise ScrapeFailed where the program failed, or nothing it printed is an item."""
        if code:
            how = f"was ended by {_signal(-code)}" if code < 0 else f"ended with exit code {code}"
            raise ScrapeFailed(f"the program {how}{f': {words}' if words else ''}")
        if self._broken and not self._items:
            raise ScrapeFailed(
                f"the program printed {self._broken} lines, and none is a JSON object of at most {MAX_LINE_BYTES} bytes"
            )
        if self._left_out and self._left_out == self._items:
            raise ScrapeFailed(
                f"none of the {self._items} objects that the program printed has an id, url, title or text"
            )
        if self._items - self._left_out < self._options.at_least:
            raise ScrapeFailed(
                f"the program found {self._items - self._left_out} items, and at_least is {self._options.at_least}"
            )
        if not self._items and words:
            self._http.on_progress(f"the program printed nothing, and said: {words}"[:_PROGRESS_CHARS])
        if self._broken:
            self._http.on_progress(f"{self._broken} lines were no JSON objects")
        if self._left_out:
            self._http.on_progress(f"{self._left_out} objects had no id, url, title or text")


def _record(line: bytes) -> dict[str, Any] | None:  # Any: JSON values
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _why_not(exc: OSError | ValueError, program: str, cwd: str | None) -> str:
    """Why a program could not be started."""
    if cwd is not None and not os.path.isdir(cwd):
        return f"the directory {cwd!r}, which the program is to run in, is not there"
    if isinstance(exc, FileNotFoundError):
        return f"the program {program!r} was not found"
    if isinstance(exc, PermissionError):
        return f"the program {program!r} may not be run"
    return f"the program {program!r} cannot be started: {exc.strerror if isinstance(exc, OSError) else exc}"


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _end(program: subprocess.Popen[bytes], mark: bytes) -> None:
    """Make sure that neither the program nor anything it started is alive."""
    if program.poll() is None:
        program.terminate()
        try:
            program.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            program.kill()
            program.wait()
    for _ in range(3):  # one that is forking while it is looked for is found the next time
        if not [pid for pid in _marked(mark) if _kill(pid, mark)]:
            return


def _marked(mark: bytes) -> Iterator[int]:
    for name in os.listdir("/proc"):
        if name.isdecimal() and _has_mark(int(name), mark):
            yield int(name)


def _has_mark(pid: int, mark: bytes) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as environ:
            return mark in environ.read().split(b"\0")
    except OSError:
        return False


def _kill(pid: int, mark: bytes) -> bool:
    """Kill a process that is held while it is looked at again: its number may be another's by now."""
    try:
        held = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if not _has_mark(pid, mark):
            return False
        signal.pidfd_send_signal(held, signal.SIGKILL)
    except OSError:
        return False
    finally:
        os.close(held)
    return True
