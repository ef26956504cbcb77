"""Long polls: clients that wait for a page to change, on the loop, with no thread and no query for each.

A change is looked at once for all who wait for the same page. The number of places is shared with the event streams.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from web.answers import Answer
from web.exchange import ClientGone, Exchange
from web.protocols import Page, ServiceLike
from web.status import StatusCall, asked_page, held_page, is_known, known_tags, status_answer
from web.turnstile import Turnstile

_T = TypeVar("_T")


class Places:
    """How many clients may be kept waiting at once."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.taken = 0

    @property
    def full(self) -> bool:
        """Whether nobody more may wait."""
        return self.taken >= self._most

    def __enter__(self) -> None:
        """Hold a place."""
        self.taken += 1

    def __exit__(self, *_: object) -> None:
        self.taken -= 1


@dataclass(slots=True, eq=False)
class _Waiter:
    """A client that waits for a change."""

    call: StatusCall
    #: Entity tags that are no news to it.
    seen: frozenset[str]
    #: Whether the board held what it waits for; when it does not any more, the service is asked again.
    held: bool
    woken: asyncio.Future[None]
    #: Whether its time is over; whether it has gone away.
    ended: bool = False
    left: bool = False

    def wake(self) -> None:
        """Let it look whether there is something to do."""
        if not self.woken.done():
            self.woken.set_result(None)

    def end(self) -> None:
        """Its time is over."""
        self.ended = True
        self.wake()

    def leave(self) -> None:
        """It went away."""
        self.left = True
        self.wake()


class Waiters:
    """Everybody who waits for a status to change. Used on the loop only."""

    def __init__(
        self,
        service: ServiceLike,
        loop: asyncio.AbstractEventLoop,
        pool: ThreadPoolExecutor,
        places: Places,
        turnstile: Turnstile,
    ) -> None:
        self._service, self._loop, self._pool, self._places = service, loop, pool, places
        self._turnstile = turnstile
        self._waiters: set[_Waiter] = set()
        self._stopping = False

    def __len__(self) -> int:
        return len(self._waiters)

    async def status(self, exchange: Exchange, call: StatusCall) -> Answer:
        """Answer a status call, after a change if one is waited for."""
        page, tags = held_page(self._service, call), exchange.tags()
        news = page is not None and tags is not None and not is_known(page, tags)
        if call.wait_s and exchange.method == "GET" and not news and not self._stopping and not self._places.full:
            page = await self._changed_page(exchange, call, tags)
        return status_answer(page or await self._asked_page(call), tags)

    def look(self) -> None:
        """Look once at every page that is waited for, and wake those to whom it is news, a few in each turn."""
        pages: dict[tuple[int | None, int | None], Page | None] = {}
        for waiter in self._waiters:
            key = (waiter.call.target_id, waiter.call.sweep_id)
            if key not in pages:
                pages[key] = held_page(self._service, waiter.call)
            page = pages[key]
            if waiter.held if page is None else not is_known(page, waiter.seen):
                self._turnstile.put(waiter.wake)

    def close(self) -> None:
        """Whoever waits is answered now, and nobody waits any more."""
        self._stopping = True
        for waiter in self._waiters:
            waiter.wake()

    async def _changed_page(self, exchange: Exchange, call: StatusCall, tags: frozenset[str] | None) -> Page:
        """Wait for a page that the client does not know, or for its time to end. Raises ClientGone."""
        with self._places:  # before the first look at the board: an announcement passes by when no place is taken
            first = await self._first_page(call)
            waiter = _Waiter(call, tags or _only(first), held=False, woken=self._loop.create_future())
            timer = self._loop.call_later(call.wait_s, waiter.end)
            self._waiters.add(waiter)
            exchange.caller.when_gone(waiter.leave)
            try:
                while not waiter.left:
                    waiter.woken = self._loop.create_future()  # before the look: what changes from here on wakes us
                    page = held_page(self._service, call)
                    waiter.held = page is not None or (waiter.held and call.target_id is not None)
                    page = page or await self._asked_page(call)
                    if waiter.ended or self._stopping or not is_known(page, waiter.seen):
                        return page
                    await waiter.woken
                raise ClientGone
            finally:
                exchange.caller.when_gone(None)
                self._waiters.discard(waiter)
                timer.cancel()
                if call.target_id is not None:
                    self._unpin(call.target_id)

    async def _first_page(self, call: StatusCall) -> Page:
        """See to it that the board follows what is waited for; a sweep that it does not hold changes no more."""
        if call.target_id is None:
            return held_page(self._service, call) or await self._asked_page(call)
        return await self._in_thread(functools.partial(self._service.board.pin, call.target_id))

    async def _asked_page(self, call: StatusCall) -> Page:
        return await self._in_thread(functools.partial(asked_page, self._service, call))

    async def _in_thread(self, call: Callable[[], _T]) -> _T:
        return await self._loop.run_in_executor(self._pool, call)

    def _unpin(self, target_id: int) -> None:
        with contextlib.suppress(RuntimeError):  # the pool is closed: so is the daemon, soon
            self._pool.submit(self._service.board.unpin, target_id)


def _only(page: Page) -> frozenset[str]:
    return known_tags(page.etag) or frozenset()
