"""A disk that can be full: a small tmpfs in a mount namespace of its own, and a database that somebody else locks."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
from pathlib import Path
from types import TracebackType

import pytest

_SCRIPT = 'mount -t tmpfs -o "size=$2k,mode=700" gleand "$1" && echo mounted && exec sleep 3600'


class Disk:
    """Use as a context manager; only processes started with `prefix` see it at `path`, we through `inside`.

    Nothing of it is left when the block ends, however it ends: the namespace dies with its holder.
    """

    def __init__(self, path: Path, *, size_kb: int) -> None:
        self.path = path
        self.size_kb = size_kb
        #: Words before a command that is to see the disk.
        self.prefix: tuple[str, ...] = ()

    def __enter__(self) -> Disk:
        self.path.mkdir(parents=True, exist_ok=True)
        why = ""
        for more in ([], ["--user", "--map-root-user"]):
            command = ["unshare", *more, "--mount", "--propagation", "private", "sh", "-c", _SCRIPT, "sh"]
            command += [str(self.path), str(self.size_kb)]
            try:
                self._holder = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            except OSError as exc:
                why = str(exc)
                continue
            assert self._holder.stdout is not None and self._holder.stderr is not None
            if self._holder.stdout.readline() == "mounted\n":
                user = ("--user", "--preserve-credentials") if more else ()
                self.prefix = ("nsenter", "--target", str(self._holder.pid), *user, "--mount", "--")
                return self
            why = self._holder.stderr.read().strip()
            self._end()
        message = f"a tmpfs cannot be mounted here: {why}"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        self._holder.kill()
        self._holder.wait(10)
        for pipe in (self._holder.stdout, self._holder.stderr):
            assert pipe is not None
            pipe.close()

    def inside(self, name: str) -> Path:
        """A file on the disk, as we can reach it."""
        return Path(f"/proc/{self._holder.pid}/root{self.path}") / name

    def fill(self) -> None:
        """Take all there is, to the last page."""
        with open(self.inside("ballast"), "ab", buffering=0) as ballast:
            for size in (1 << 20, 1 << 14, 1 << 12, 1, 1):
                block = b"x" * size
                while True:
                    try:
                        if ballast.write(block) < size:
                            break
                    except OSError as exc:
                        assert exc.errno == errno.ENOSPC
                        break

    def free(self) -> None:
        """Give it back."""
        self.inside("ballast").unlink()


class FullDisk:
    """An outage: from entry to exit the disk is full."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def __enter__(self) -> None:
        self._disk.fill()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._disk.free()


class Locked:
    """An outage: from entry to exit somebody else holds the database.

    Not for a path below /proc/PID/root: SQLite resolves it, and finds another file.
    """

    def __init__(self, path: Path, kind: str) -> None:
        self._path, self._kind = path, kind

    def __enter__(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._raw = sqlite3.connect(self._path, isolation_level=None, timeout=10)
        self._raw.execute(f"BEGIN {self._kind}")

    def __exit__(self, *_: object) -> None:
        self._raw.execute("ROLLBACK")
        self._raw.close()
