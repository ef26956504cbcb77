"""A worker: scrapes one target at a time, in a session and process group of its own, and dies with the daemon.

Imports sources, model, errors, clock and the protocol, nothing else of ours. SIGTERM keeps its default: a handler
never runs while C code holds the GIL.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import signal
import sys
import threading
import time
from typing import Any

from errors import ScrapeFailed
from jobs.protocol import Decoder, Message, encode, order_from_dict, post_to_dict
from model import Order, Post, Profile, Remember, json_ready

#: Largest piece of posts in one message (bytes, before the frame).
PIECE_BYTES = 256 * 1024
_F_SETSIG = 10


def live_with_daemon(life_fd: int) -> None:
    """Be killed, group and all, when the last writer of the life pipe (the daemon) is gone."""
    fcntl.fcntl(life_fd, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(life_fd, _F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(life_fd, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    try:
        if os.read(life_fd, 1) == b"":
            os.killpg(0, signal.SIGKILL)
    except BlockingIOError:
        pass
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: a second net


def limit_memory(memory_bytes: int) -> None:
    """Bound the address space: what is there now, plus the limit."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        now = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + memory_bytes, now + memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


class Reporter:
    """Sends whole frames; shared by the scrape and the heartbeat."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()
        self.token: int | None = None
        self._last_progress = 0.0

    def send(self, message: Message) -> None:
        """Write one frame; waits while the pipe is full."""
        data = memoryview(encode(message))
        with self._lock:
            while data:
                data = data[os.write(self._fd, data) :]

    def beat_forever(self) -> None:
        """A beat a second while there is an order."""
        while True:
            time.sleep(1.0)
            token = self.token
            if token is not None:
                self.send({"t": "beat", "token": token})

    def progress(self, text: str) -> None:
        """Say that the work moved; at most five times a second."""
        now = time.monotonic()
        if now - self._last_progress >= 0.2:
            self._last_progress = now
            self.send({"t": "progress", "token": self.token, "text": text[:200]})


def sentence(exc: BaseException) -> str:
    """One printable line about an exception."""
    text = str(exc) if isinstance(exc, ScrapeFailed) else f"{type(exc).__name__}: {exc}"
    return "".join(c if c.isprintable() else " " for c in text)[:500]


def scrape(order: Order, reporter: Reporter, memory_bytes: int) -> Message:
    """Run one order; returns the result message."""
    result: Message = {"t": "result", "token": order.token, "ok": True, "error": None, "truncated": False}
    result |= {"remember": None, "profile": None, "retry_after_s": None}
    try:
        _collect(order, reporter, result)
    except MemoryError:
        result |= {"ok": False, "error": f"the scrape used more memory than the limit of {memory_bytes} bytes"}
    except BaseException as exc:  # noqa: BLE001 - a scraper may raise anything, SystemExit too
        result |= {"ok": False, "error": sentence(exc), "retry_after_s": getattr(exc, "retry_after_s", None)}
    return result


def _collect(order: Order, reporter: Reporter, result: Message) -> None:
    from sources.http import Http
    from sources.load import load

    deadline = time.monotonic() + order.timeout_s
    http = Http(order.limits, deadline=deadline, on_progress=reporter.progress, remember=order.target.remember)
    piece: list[Message] = []
    size = count = 0
    for item in load(order)(order.target, http):
        if isinstance(item, Post):
            if count >= order.limits.max_posts:
                result["truncated"] = True
                continue
            one = post_to_dict(item)
            length = sum(len(v) for v in one.values() if isinstance(v, str))
            if piece and size + length > PIECE_BYTES // 6:
                reporter.send({"t": "posts", "token": order.token, "posts": piece})
                piece, size = [], 0
            if length > PIECE_BYTES // 2:
                one |= {"text": one["text"][:20_000], "html": one["html"][:20_000], "title": one["title"][:1000]}
                result["truncated"] = True
            piece.append(one)
            size += length
            count += 1
            reporter.progress(f"{count} posts")
        elif isinstance(item, Profile):
            result["profile"] = json_ready(item)
        elif isinstance(item, Remember):
            result["remember"] = {str(k): str(v) for k, v in item.values.items()}
        else:
            raise ScrapeFailed(f"the scraper gave a {type(item).__name__}, not a Post")
    if piece:
        reporter.send({"t": "posts", "token": order.token, "posts": piece})


def read_order(fd: int, decoder: Decoder) -> Message | None:
    """Wait for the next order; None when the daemon closed the pipe."""
    while True:
        data = os.read(fd, 65536)
        if not data:
            return None
        messages = decoder.feed(data)
        if messages:
            return messages[0]


def main(order_fd: int, report_fd: int, life_fd: int, memory_bytes: int) -> None:
    """Serve orders until the daemon closes the pipe or kills us."""
    live_with_daemon(life_fd)
    for fd in (order_fd, report_fd, life_fd):
        os.set_inheritable(fd, False)
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(2, 1)  # what a scraper prints does not reach a pipe of ours
    import sources.feed
    import sources.http  # noqa: F401 - warm, before the first order

    limit_memory(memory_bytes)
    reporter = Reporter(report_fd)
    threading.Thread(target=reporter.beat_forever, daemon=True).start()
    decoder = Decoder()
    reporter.send({"t": "ready"})
    while (message := read_order(order_fd, decoder)) is not None:
        order = order_from_dict(message)
        reporter.token = order.token
        result: Any = scrape(order, reporter, memory_bytes)
        reporter.token = None
        reporter.send(result)


if __name__ == "__main__":
    main(*(int(x) for x in sys.argv[1:5]))
