"""Lets a little work through in each turn of the loop, so that what is answered from memory never waits behind much.

A turn serves every connection that is ready: when a thousand clients are woken, and ask again at once, a poller among
them would wait for all. With this it waits for a few. What it does not do: order the work by importance; who comes
first goes first.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

#: Pieces of work in one turn (count); one takes about 25 us.
AT_ONCE = 20


class Turnstile:
    """A queue of calls to make. Used on the loop only."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._queue: deque[Callable[[], None]] = deque()
        #: How many may still pass in this turn; the next one begins anew if it was asked for.
        self._left, self._next_asked = AT_ONCE, False

    def __len__(self) -> int:
        return len(self._queue)

    def passes(self) -> bool:
        """Whether a piece of work may be done at once; it is counted. If not, it is for `put`."""
        if self._queue or not self._left:
            return False
        self._left -= 1
        self._ask_for_next()
        return True

    def put(self, call: Callable[[], None]) -> None:
        """Make this call when those before it have been made, in one of the next turns."""
        self._queue.append(call)
        self._ask_for_next()

    def _ask_for_next(self) -> None:
        if not self._next_asked:
            self._next_asked = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._left, self._next_asked = AT_ONCE, False
        try:
            while self._queue and self._left:
                self._left -= 1
                self._queue.popleft()()
        finally:
            if self._queue:
                self._ask_for_next()
