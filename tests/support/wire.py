"""A connection without a socket: each read is what the test says it is, and what is written can be looked at."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from api import create_app
from config import Settings
from server import Door
from tests.support.fake_service import FakeService
from web.connection import Connection
from web.gate import Gate
from web.memo import Key, Memo, Recipe
from web.turnstile import Turnstile

PORT = 5000
_DATE = re.compile(rb"date: [^\r]*\r\n")


class NoMemo(Memo):
    """Keeps nothing: every request goes the usual way."""

    def keep(self, key: Key, recipe: Recipe) -> None:
        pass


class Crowded(Turnstile):
    """Lets nothing through at once: every read waits for its turn."""

    def passes(self) -> bool:
        return False


class Wire(asyncio.Transport):
    """The transport: it takes all that is written, and reads on only while nobody asked it not to."""

    def __init__(self, local: str) -> None:
        super().__init__({"sockname": (local, PORT), "peername": (local, 40000)})
        self.written = b""
        self.closing = self.paused = self.lost = False

    def write(self, data: Any) -> None:
        if self.lost:
            raise RuntimeError("the handler is closed")  # as uvloop does
        if not self.closing:
            self.written += bytes(data)

    def close(self) -> None:
        self.closing = True

    abort = close

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


class Line:
    """A connection at a wire."""

    def __init__(self, bench: Bench, local: str) -> None:
        self._bench = bench
        self.wire = Wire(local)
        self.connection = Connection(
            bench.config, bench.state, bench.memo, bench.turnstile, head_timeout_s=10.0, write_timeout_s=10.0
        )
        self.connection.connection_made(self.wire)

    def leave(self) -> None:
        """The client goes away."""
        self.wire.lost = self.wire.closing = True
        self.connection.connection_lost(None)

    async def send(self, *reads: bytes) -> bytes:
        """Let each arrive as one read; once all is quiet, give what was answered, without dates."""
        before, coming = len(self.wire.written), deque(reads)
        while coming and not self.wire.closing:
            if not self.wire.paused:
                self.connection.data_received(coming.popleft())
            # a request that waits for the rest of its body is not worked on
            await self._bench.settle(within_s=20.0 if self.connection._between else 0.05)
        return _DATE.sub(b"", self.wire.written[before:])


class Bench:
    """A door, and connections to it, on the loop that runs."""

    def __init__(
        self, service: FakeService, memo: Memo, turnstile: type[Turnstile] = Turnstile, **settings: Any
    ) -> None:
        chosen = Settings(port=PORT, **settings)
        self.memo, self.state = memo, ServerState()
        self.turnstile = turnstile(asyncio.get_running_loop())
        self.state.default_headers = [(b"date", b"today")]
        self.door = Door(
            create_app(service, chosen),
            service,
            Gate(chosen, PORT),
            asyncio.get_running_loop(),
            self.turnstile,
            max_waiters=10,
            body_timeout_s=10.0,
            comment_interval_s=10.0,
        )
        app: Any = self.door
        self.config = uvicorn.Config(app, ws="none", lifespan="off", interface="asgi3", log_config=None)
        self.config.load()

    def line(self, local: str = "127.0.0.1") -> Line:
        """Connect."""
        return Line(self, local)

    @property
    def parsed(self) -> int:
        """How many requests went the usual way to their end."""
        return self.state.total_requests

    async def close(self) -> None:
        """Nobody is connected any more."""
        self.door.close()
        for connection in list(self.state.connections):
            connection.connection_lost(None)
        await self.settle()
        self.door.shut_down()

    async def settle(self, *, within_s: float = 20.0) -> None:
        """Wait until no request is being worked on, or none was done with for so long."""
        while self.state.tasks or len(self.turnstile):
            await asyncio.sleep(0)
            tasks = set(self.state.tasks)
            if tasks and not (await asyncio.wait(tasks, timeout=within_s, return_when="FIRST_COMPLETED"))[0]:
                return
        await asyncio.sleep(0)


def on_bench(test: Callable[[Bench], Awaitable[None]], service: FakeService, **settings: Any) -> None:
    """Run a test on a loop of its own; at its end nobody is connected."""

    async def run() -> None:
        bench = Bench(service, Memo(), **settings)
        try:
            await test(bench)
        finally:
            await bench.close()

    asyncio.run(run())


def answers_alike(
    service: FakeService,
    streams: Iterable[Sequence[bytes]],
    *before: bytes,
    turnstile: type[Turnstile] = Turnstile,
) -> list[tuple[bytes, bool]]:
    """Play each stream of reads with a memo and this turnstile, and with neither, and find no difference.

    Args:
        before: Requests that the memo may know at the beginning of each stream.

    Returns:
        For each stream what was answered, and whether the connection was closed.
    """
    seen: list[tuple[bytes, bool]] = []

    async def test(bench: Bench) -> None:
        plain, known = Bench(service, NoMemo()), 0
        for reads in streams:
            for request in before:
                await bench.line().send(request)
            parsed = bench.parsed, plain.parsed
            seen.append(await _play(bench, reads))
            assert seen[-1] == await _play(plain, reads), reads
            known += (plain.parsed - parsed[1]) - (bench.parsed - parsed[0])
        await plain.close()
        assert known > 0 or not before

    on_bench(test, service, turnstile=turnstile)
    return seen


async def _play(bench: Bench, reads: Sequence[bytes]) -> tuple[bytes, bool]:
    line = bench.line()
    answered, closed = await line.send(*reads), line.wire.closing
    line.leave()
    return answered, closed
