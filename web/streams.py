"""Event streams (server-sent events): every transition and refusal, named, numbered, resumable.

One hub serves all streams: while at least one is open, a publication leads to one read of the journal in a thread, at
most every INTERVAL_S, into the ring of jobs/events.py that all of them read from. A stream that stands before the ring
reads the journal page by page. A stream holds no thread. What it does not do: say again how often a refusal was
repeated within its minute; the journal's `times` does.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from errors import Draining, StoreUnavailable
from jobs.events import Event, Ring
from web.answers import RETRY_AFTER_S, Answer, Headers, TurnedAway, raw_headers
from web.contract import Args, Operation
from web.exchange import ClientGone, Exchange
from web.protocols import ServiceLike
from web.waiting import Places

log = logging.getLogger(__name__)
PATH = "/api/events"
#: Least time between two reads of the hub (seconds); what comes in between is seen by the second.
INTERVAL_S = 0.1
#: How soon a read that failed is tried again (seconds).
RETRY_S = 1.0
#: What a client is told to wait before it connects again (milliseconds).
RECONNECT_MS = 2000
#: Events sent at once, and read at once (count).
BATCH = 100
#: Streams that read the journal at once; the others wait for their turn.
READERS = 2
_TYPE = "text/event-stream"
#: A proxy must pass on what comes at once.
_HEADERS: Headers = (("X-Accel-Buffering", "no"),)


@functools.cache
def _operation() -> Operation:
    return Operation("GET", PATH)


def wanted_id(args: Args, header: str | None) -> int | None:
    """The id after which a client wants to go on, None: from now on. Raises BadRequest.

    The header wins: a browser that connects again repeats the address of its first time.
    """
    asked: int | None = args["last_event_id"]
    given: int | None = _operation().read_header("Last-Event-ID", header)
    return asked if given is None else given


def one_page(service: ServiceLike, wanted: int | None) -> Answer:
    """Answer where there is no door: what there is after an id, and the end; a client connects again by itself."""
    events, newest = service.events(after=wanted, limit=BATCH)
    body = _start(_position(wanted, newest)) + _frames(events)
    return Answer(status=200, body=body, headers=_HEADERS, content_type=_TYPE)


def _position(wanted: int | None, newest: int) -> int:
    return newest if wanted is None else min(wanted, newest)  # an id that is yet to come is another database's


def _start(position: int | None) -> bytes:
    """An event without data is not shown to a client's code, but its id is kept for the next connection."""
    known = b"" if position is None else b"id: %d\n" % position
    return b"retry: %d\n%b\n" % (RECONNECT_MS, known)


def _frames(events: Sequence[Event]) -> bytes:
    return b"".join(b"id: %d\nevent: %b\ndata: %b\n\n" % (e.id, e.name.encode(), e.data) for e in events)


class Streams:
    """Everybody who follows the events. Used on the loop only."""

    def __init__(
        self, service: ServiceLike, loop: asyncio.AbstractEventLoop, places: Places, *, comment_interval_s: float
    ) -> None:
        """`comment_interval_s`: a stream that has told nothing for as long sends a comment, to be kept open."""
        self._service, self._loop, self._places = service, loop, places
        self._comment_interval_s = comment_interval_s
        #: One thread is left for the hub.
        self.pool = ThreadPoolExecutor(READERS + 1, thread_name_prefix="events")
        self._readers = asyncio.Semaphore(READERS)
        self._open = 0
        self._hub: asyncio.Task[None] | None = None
        #: Made with the first stream that knows where it stands.
        self._ring: Ring | None = None
        self._news = asyncio.Event()
        self._arrived: asyncio.Future[None] = loop.create_future()
        self._stopping = False

    def __len__(self) -> int:
        return self._open

    async def serve(self, exchange: Exchange, more: Headers) -> None:
        """Answer a GET until the client leaves or the daemon stops, a HEAD at once.

        Raises:
            BadRequest: The request is not one of ours.
            TurnedAway: There is no place.
            ClientGone: There is nobody to answer.
        """
        wanted = wanted_id(_operation().read_query(exchange.query), exchange.text(b"last-event-id"))
        answer = Answer(status=200, body=b"", headers=_HEADERS, content_type=_TYPE)
        head = [pair for pair in raw_headers(answer, more) if pair[0] != b"content-length"]
        if exchange.method == "HEAD":
            await exchange.begin(200, head)
        else:
            if self._stopping:
                raise Draining("the daemon is stopping", hint="ask again in a few seconds")
            if self._places.full:
                raise _no_place()
            with self._places, self._joined():
                await self._stream(exchange, head, wanted)
        await exchange.write(b"", more=False)

    def look(self) -> None:
        """Something was published: the hub is to look."""
        if self._open:
            self._news.set()

    def close(self) -> None:
        """Every stream ends now; what it has not sent yet is there for the next connection."""
        self._stopping = True
        self._ring_bell()

    # -- one stream --

    async def _stream(self, exchange: Exchange, head: list[tuple[bytes, bytes]], wanted: int | None) -> None:
        position: int | None = None
        with contextlib.suppress(StoreUnavailable):  # the stream opens all the same, and goes on when it can
            position = await self._settle(wanted)  # before the head: what happens after it is told
        await exchange.begin(200, head)
        await exchange.write(_start(position))
        gone = self._loop.create_future()
        exchange.caller.when_gone(lambda: gone.set_result(None))
        try:
            while not self._stopping:
                if gone.done():
                    raise ClientGone
                arrived, pause_s, events = self._arrived, self._comment_interval_s, list[Event]()
                try:
                    if position is None:
                        position = await self._settle(wanted)
                        await exchange.write(_start(position))
                    events = await self._after(position)
                except StoreUnavailable:
                    pause_s = min(pause_s, RETRY_S)
                if events:
                    position = events[-1].id
                    await exchange.write(_frames(events))
                elif not (await asyncio.wait({arrived, gone}, timeout=pause_s, return_when="FIRST_COMPLETED"))[0]:
                    await exchange.write(b":\n\n")
        finally:
            exchange.caller.when_gone(None)

    async def _settle(self, wanted: int | None) -> int:
        """Find where a stream stands. Raises StoreUnavailable."""
        _, newest = await self._read(None, 0)
        if self._ring is None:
            self._ring = Ring(start=newest)
            self._news.set()  # for what came since that read
        return _position(wanted, newest)

    async def _after(self, position: int) -> list[Event]:
        """What comes next for a stream. Raises StoreUnavailable."""
        held = None if self._ring is None else self._ring.after(position, BATCH)
        return (await self._read(position, BATCH))[0] if held is None else held

    async def _read(self, after: int | None, limit: int) -> tuple[list[Event], int]:
        async with self._readers:
            return await self._read_now(after, limit)

    async def _read_now(self, after: int | None, limit: int) -> tuple[list[Event], int]:
        call = functools.partial(self._service.events, after=after, limit=limit)
        return await self._loop.run_in_executor(self.pool, call)

    # -- the hub --

    @contextlib.contextmanager
    def _joined(self) -> Iterator[None]:
        """Be one of those whom the hub serves; it works while there is one."""
        self._open += 1
        if self._hub is None:
            self._hub = self._loop.create_task(self._follow())
        try:
            yield
        finally:
            self._open -= 1
            if not self._open:
                self._hub.cancel()
                self._hub = self._ring = None

    async def _follow(self) -> None:
        """Fetch what is new, now and then without having been told, and go on whatever comes."""
        reading = True
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), self._comment_interval_s)
            self._news.clear()  # before the read: what is published from here on comes back
            try:
                await self._fetch()
                reading, pause_s = True, INTERVAL_S
            except Exception as exc:  # noqa: BLE001  # the top of a loop
                if reading:  # said once, not at every try
                    known = isinstance(exc, StoreUnavailable)
                    log.warning('events_not_read error="%s"', exc, exc_info=None if known else exc)
                reading, pause_s = False, RETRY_S
                self._news.set()
            await asyncio.sleep(pause_s)

    async def _fetch(self) -> None:
        """Fill the ring, and tell those who wait. Raises StoreUnavailable."""
        ring, full = self._ring, True
        while ring is not None and full:
            events, _ = await self._read_now(ring.last, BATCH)
            ring.add(events)
            full = len(events) == BATCH
            if events:
                self._ring_bell()

    def _ring_bell(self) -> None:
        self._arrived.set_result(None)
        self._arrived = self._loop.create_future()


def _no_place() -> TurnedAway:
    hint = "ask again later, or raise the setting max_waiters: long polls and event streams share it"
    headers = (("Retry-After", str(RETRY_AFTER_S)),)
    return TurnedAway(503, "too_many_waiting", "as many clients as may wait are waiting", hint=hint, headers=headers)
