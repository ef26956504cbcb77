"""A worker: scrapes one target at a time, in a session and process group of its own, and dies with the daemon.

Imports sources, model, errors, clock and the protocol, nothing else of ours. SIGTERM keeps its default: a handler
never runs while C code holds the GIL.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import select
import signal
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from errors import ScrapeFailed
from jobs.protocol import TEXT_FIELDS, Decoder, Message, encode, order_of, post_to_wire
from model import Order, Post, Profile, Remember, Window, json_ready

if TYPE_CHECKING:
    from sources.http import Http
    from sources.manners import Robots

#: How long connections are kept for the next run, which may ask the same host (seconds).
KEEP_S = 5.0
#: Largest piece of posts in one message (bytes, before the frame).
PIECE_BYTES = 256 * 1024
#: How often a run that waits for a turn says so (seconds): the least stall_timeout_s that it outlives.
SAY_S = 0.5
#: Most that a source may hand back for next time (characters).
MAX_REMEMBER = 64 * 1024
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


def name_ourselves() -> None:
    """Be found by name, and what we execute by its environment, when the parents in between are gone."""
    name = f"gw{os.getpid()}"
    ctypes.CDLL(None).prctl(15, name.encode())  # PR_SET_NAME
    os.environ["SCRAPE_WORKER"] = name


def limit_memory(memory_bytes: int) -> None:
    """Bound the address space: what is there now, plus the limit."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        now = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + memory_bytes, now + memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


class Reporter:
    """Sends whole frames; shared by the scrape and the heartbeat."""

    def __init__(self, fd: int, order_fd: int = -1) -> None:
        self._fd = fd
        self._orders = order_fd, Decoder()
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self.token: int | None = None
        self._last_progress = 0.0

    def send(self, message: Message) -> None:
        """Write one frame; waits while the pipe is full. A process that the scraper forked has no voice."""
        if os.getpid() != self._pid:
            os._exit(0)
        data = memoryview(encode(message))
        with self._lock:
            while data:
                data = data[os.write(self._fd, data) :]

    def answer(self, token: int) -> Message:
        """Wait for the daemon's answer to what this run asked; says once in a while that it waits."""
        fd, decoder = self._orders
        while True:
            if not select.select([fd], [], [], SAY_S)[0]:
                self.progress("waiting for a turn")
                continue
            data = os.read(fd, 65536)
            if not data:
                raise ScrapeFailed("the daemon is gone")
            for message in decoder.feed(data):
                if message.get("token") == token:
                    return message

    def next_order(self, idle: Callable[[], None]) -> Message | None:
        """Wait for the next order; None when the daemon closed the pipe. `idle` is called once it takes KEEP_S."""
        fd, decoder = self._orders
        wait_s: float | None = KEEP_S
        while True:
            if not select.select([fd], [], [], wait_s)[0]:
                idle()
                wait_s = None
                continue
            data = os.read(fd, 65536)
            if not data:
                return None
            for message in decoder.feed(data):
                if message.get("t") == "order":
                    return message  # answers to what an earlier run asked are passed over

    def begin(self, token: int) -> None:
        """An order begins: its first progress is told, however short ago the last one's was."""
        self.token, self._last_progress = token, 0.0

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
    result |= {"remember": None, "profile": None, "retry_after_s": None, "contiguous": False}
    result |= {"fresh_s": 0.0, "reached": False, "moved_to": "", "status": None}
    dirty = False
    try:
        _collect(order, reporter, result)
    except MemoryError:
        dirty = True  # the next scrape would start with little left
        text = f"the scrape used more memory than the limit of {memory_bytes} bytes"
        result |= {"ok": False, "error": text, "ours": True}
    except BaseException as exc:  # noqa: BLE001 - a scraper may raise anything, SystemExit too
        result |= {"ok": False, "error": sentence(exc)} | _failure(exc, order)
    result["dirty"] = left_behind() or dirty
    return result


def _failure(exc: BaseException, order: Order) -> Message:
    """What is to be known of a failure besides its sentence."""
    from sources.http import BadStatus, Unreachable
    from sources.manners import NoTurn, RobotsUnreadable

    status = getattr(exc, "status", None)
    theirs = order.scraper is not None or order.options.get("kind") == "command"  # whose words may be in it
    return {
        "ours": isinstance(exc, ScrapeFailed) and not theirs,
        "retry_after_s": _number(getattr(exc, "retry_after_s", None)),
        "untold": theirs and not isinstance(exc, (BadStatus, NoTurn, RobotsUnreadable)),
        "status": int(status) if isinstance(status, int) else None,
        "unreachable": isinstance(exc, Unreachable),
        "no_turn": isinstance(exc, NoTurn),
    }


def _number(value: object) -> float | None:
    """A number of seconds, or None for what is no number, or no number of seconds that ever pass."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if 0 <= value < 1e12 else None


def left_behind() -> bool:
    """Whether the scrape left a thread or a child process; makes SIGTERM deadly again, and stops its timers."""
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for timer in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
            signal.setitimer(timer, 0)
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return threading.active_count() > 2
    except ValueError:
        return True
    return True


def _check_texts(post: Post) -> None:
    wrong = next((name for name in TEXT_FIELDS if not isinstance(getattr(post, name), str)), None)
    if wrong or not post.native_id:
        raise ScrapeFailed(f"the scraper gave a post whose {wrong or 'native_id'} is not a text, or is empty")


class _Pieces:
    """Posts on their way, in pieces that fit a frame."""

    def __init__(self, order: Order, reporter: Reporter) -> None:
        self._order, self._reporter = order, reporter
        self._piece: list[Post | Message] = []
        self._size = self._count = 0
        self.truncated = False
        #: Posts that were (count).
        self.cut = 0

    def add(self, post: Post) -> None:
        """Take a post; a text that would not fit is cut."""
        if self._count >= self._order.limits.max_posts:
            self.truncated = True
            return
        one = post_to_wire(post)
        if one is not post or not post.native_id:
            _check_texts(post)
        length = sum(len(getattr(post, name)) for name in TEXT_FIELDS)
        if length > PIECE_BYTES // 2:
            one = json_ready(post)
            one |= {"text": one["text"][:20_000], "html": one["html"][:20_000], "title": one["title"][:1000]}
            self.truncated = True
            self.cut += 1
        if self._piece and self._size + length > PIECE_BYTES // 6:
            self.send()
        self._piece.append(one)
        self._size += length
        self._count += 1
        self._reporter.progress(f"{self._count} posts")

    def send(self) -> None:
        """Send what there is."""
        if self._piece:
            self._reporter.send({"t": "posts", "token": self._order.token, "posts": self._piece})
            self._piece, self._size = [], 0


def open_http(order: Order, reporter: Reporter) -> Http:
    """The session of a run, which asks the daemon for every turn but its first."""
    from sources.http import Http
    from sources.manners import Manners, Robots
    from sources.session import kept_connections
    from sources.urls import host_of

    host = host_of(order.target.url) if order.target.url else ""
    manners = Manners(
        Turns(order, reporter),
        host=host if order.has_turn else "",
        robots={} if order.robots is None else {host: Robots(**order.robots)},
        respect_robots=order.limits.respect_robots,
        agent=order.limits.user_agent,
        on_progress=reporter.progress,
        deadline=time.monotonic() + order.timeout_s,
    )
    return Http(
        order.limits,
        deadline=time.monotonic() + order.timeout_s,
        on_progress=reporter.progress,
        remember=order.target.remember,
        manners=manners,
        fresh_s=order.fresh_s,
        adapter=kept_connections(order.limits),
    )


class Turns:
    """Asks the daemon whose turn it is at a host, over the pipes; a scraper's threads one after the other."""

    def __init__(self, order: Order, reporter: Reporter) -> None:
        self._order, self._reporter = order, reporter
        self._lock = threading.Lock()

    def ask(self, host: str, done: list[str]) -> tuple[float, Robots | None]:
        """See manners.Daemon."""
        from sources.manners import NoTurn, Robots

        with self._lock:
            self._reporter.send({"t": "ask", "token": self._order.token, "host": host, "done": done})
            answer = self._reporter.answer(self._order.token)
        if not answer["granted"]:
            raise NoTurn(answer["why"], retry_after_s=answer["wait_s"])
        robots = answer.get("robots")
        return float(answer["wait_s"]), None if robots is None else Robots(**robots)

    def told(self, host: str, wait_s: float, why: str) -> None:
        """See manners.Daemon."""
        self._reporter.send({"t": "told", "token": self._order.token, "host": host, "wait_s": wait_s, "why": why})

    def robots(self, host: str, found: Robots, delay_s: float) -> None:
        """See manners.Daemon."""
        known = {"status": found.status, "text": found.text, "age_s": found.age_s, "delay_s": delay_s}
        self._reporter.send({"t": "robots", "token": self._order.token, "host": host} | known)


def _collect(order: Order, reporter: Reporter, result: Message) -> None:
    from sources.load import load

    http = open_http(order, reporter)
    pieces = _Pieces(order, reporter)
    try:
        for item in load(order)(order.target, http):
            if isinstance(item, Post):
                pieces.add(item)
            elif isinstance(item, Profile):
                result["profile"] = {"display_name": str(item.display_name)[:300], "url": str(item.url)[:2000]}
            elif isinstance(item, Remember):
                result["remember"] = {str(k): str(v) for k, v in item.values.items()}
                if sum(len(k) + len(v) for k, v in result["remember"].items()) > MAX_REMEMBER:
                    raise ScrapeFailed(f"the scraper wants more than {MAX_REMEMBER} characters remembered")
            elif isinstance(item, Window):
                result["contiguous"] = True
            else:
                raise ScrapeFailed(f"the scraper gave a {type(item).__name__}, not a Post")
    finally:
        http.close()
        result |= {"fresh_s": http.fresh_s, "reached": http.reached, "moved_to": http.moved_to or ""}
    pieces.send()
    result |= {"truncated": pieces.truncated, "cut": pieces.cut}


def _let_go() -> None:
    from sources.session import let_go

    let_go()


def main(order_fd: int, report_fd: int, life_fd: int, memory_bytes: int) -> None:
    """Serve orders until the daemon closes the pipe or kills us."""
    live_with_daemon(life_fd)
    name_ourselves()
    for fd in (order_fd, report_fd, life_fd):
        os.set_inheritable(fd, False)
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(2, 1)  # what a scraper prints does not reach a pipe of ours
    limit_memory(memory_bytes)
    reporter = Reporter(report_fd, order_fd)
    threading.Thread(target=reporter.beat_forever, daemon=True).start()
    reporter.send({"t": "ready"})
    while (message := reporter.next_order(_let_go)) is not None:
        order = order_of(message)
        reporter.begin(order.token)
        result: Any = scrape(order, reporter, memory_bytes)
        reporter.token = None
        reporter.send(result)
