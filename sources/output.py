"""What a program prints, line by line as it comes, until the program is gone. Bounded, whatever it does."""

from __future__ import annotations

import os
import re
import selectors
import subprocess
from collections.abc import Iterator
from types import TracebackType

from errors import ScrapeFailed
from sources.texts import one_line

#: Longest line, and most that a program may print altogether (bytes).
MAX_LINE_BYTES = 1024 * 1024
MAX_BYTES = 64 * 1024 * 1024
#: How much of stderr is kept (bytes), and shown (characters, lines).
_TAIL_BYTES, _SHOWN_CHARS, _SHOWN_LINES = 8192, 300, 3
_CHUNK_BYTES = 64 * 1024
#: Most that is read of stderr when the program is gone (bytes): what it left behind may write for ever.
_LAST_BYTES = 1024 * 1024
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07\x1b]*\x07?")


class Output:
    """Reads stdout and stderr of one program; use as a context manager."""

    def __init__(self, program: subprocess.Popen[bytes]) -> None:
        assert program.stdout is not None and program.stderr is not None
        self._out, self._err = program.stdout, program.stderr
        self._gone = os.pidfd_open(program.pid)
        self._selector = selectors.DefaultSelector()
        for fd in (self._out.fileno(), self._err.fileno()):
            os.set_blocking(fd, False)
            self._selector.register(fd, selectors.EVENT_READ)
        self._selector.register(self._gone, selectors.EVENT_READ)
        self._splitter = _Splitter()
        self._tail = b""

    def __enter__(self) -> Output:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._selector.close()
        os.close(self._gone)
        self._out.close()
        self._err.close()

    def lines(self) -> Iterator[bytes | None]:
        """Lines of stdout without blank ones, until the program is gone; None for one that was too long.

        Raises:
            ScrapeFailed: It printed more than MAX_BYTES.
        """
        is_gone = False
        while not is_gone:
            ready = {key.fd for key, _ in self._selector.select()}
            is_gone = self._gone in ready
            if self._err.fileno() in ready:
                self._read_err(_LAST_BYTES if is_gone else _CHUNK_BYTES)
            if self._out.fileno() in ready or is_gone:
                yield from self._read_out(until_empty=is_gone)
        yield from self._splitter.rest()

    def last_words(self) -> str:
        """The last lines of stderr, as one."""
        text = _ESCAPES.sub("", self._tail.decode("utf-8", "replace"))
        shown = [found for line in text.replace("\r", "\n").split("\n") if (found := one_line(line))]
        joined = " / ".join(shown[-_SHOWN_LINES:])
        return joined if len(joined) <= _SHOWN_CHARS else "..." + joined[-_SHOWN_CHARS:]

    def _read_out(self, *, until_empty: bool) -> Iterator[bytes | None]:
        """One piece, or all that is there."""
        while data := self._read(self._out.fileno()):
            if self._splitter.received > MAX_BYTES:
                raise ScrapeFailed(f"the program printed more than {MAX_BYTES} bytes")
            yield from self._splitter.feed(data)
            if not until_empty:
                return

    def _read_err(self, most: int) -> None:
        while most > 0 and (data := self._read(self._err.fileno())):
            self._tail = (self._tail + data)[-_TAIL_BYTES:]
            most -= len(data)

    def _read(self, fd: int) -> bytes:
        """What is there now; at its end the descriptor is not watched any more."""
        try:
            data = os.read(fd, _CHUNK_BYTES)
        except BlockingIOError:
            return b""
        if not data and fd in self._selector.get_map():
            self._selector.unregister(fd)
        return data


class _Splitter:
    """Takes bytes as they come, gives whole lines; one that is too long is passed over and given as None."""

    def __init__(self) -> None:
        #: So much came (bytes).
        self.received = 0
        self._start = bytearray()
        self._is_too_long = False

    def feed(self, data: bytes) -> Iterator[bytes | None]:
        self.received += len(data)
        *whole, rest = data.split(b"\n")
        for piece in whole:
            self._add(piece)
            yield from self.rest()
        self._add(rest)

    def rest(self) -> Iterator[bytes | None]:
        """The line that stands, whether it ended or not."""
        line, is_too_long = bytes(self._start), self._is_too_long
        self._start, self._is_too_long = bytearray(), False
        if is_too_long:
            yield None
        elif line.strip():
            yield line

    def _add(self, piece: bytes) -> None:
        if len(self._start) + len(piece) > MAX_LINE_BYTES:
            self._is_too_long = True
            self._start.clear()
        elif not self._is_too_long:
            self._start += piece
