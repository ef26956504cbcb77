"""The listening socket, and how connections are taken from it. Not here: what a connection does.

The loop's own way takes one connection in each of its turns (libuv since 1.45). A turn serves every connection that is
ready: with 400 busy ones it lasts 15 ms, so the last of a hundred that came at once waited for more than a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable

log = logging.getLogger(__name__)
#: Connections that wait to be accepted.
BACKLOG = 2048
#: Connections taken in one turn of the loop (count); one takes about 50 us.
AT_ONCE = 100
#: How long nothing is taken after it failed: there were no descriptors, or no memory (seconds).
PAUSE_S = 0.5


def listen(host: str, port: int) -> socket.socket:
    """Open the port; the first address of a name that has several. Raises OSError."""
    family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
        0
    ]
    listener = socket.socket(family, kind, proto)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)  # here and not on the loop: two sockets can be bound, one can listen
    except OSError:
        listener.close()
        raise
    return listener


class Acceptor:
    """Takes connections from a listening socket. Used on the loop only; the socket stays its owner's to close."""

    def __init__(
        self, listener: socket.socket, loop: asyncio.AbstractEventLoop, factory: Callable[[], asyncio.Protocol]
    ) -> None:
        """`factory` makes the protocol of each connection."""
        self._listener, self._loop, self._factory = listener, loop, factory
        self._joining: set[asyncio.Task[None]] = set()
        self._retry: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Take connections from now on."""
        self._listener.setblocking(False)
        self._loop.add_reader(self._listener, self._take)

    async def close(self) -> None:
        """Take no more; those that were taken are connections once this returns."""
        self._loop.remove_reader(self._listener)
        if self._retry is not None:
            self._retry.cancel()
        await asyncio.gather(*self._joining)

    def _take(self) -> None:
        for _ in range(AT_ONCE):
            try:
                sock, _ = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as exc:
                log.error('accept_failed error="%s"', exc)
                self._loop.remove_reader(self._listener)  # or it would be called again at once, for ever
                self._retry = self._loop.call_later(PAUSE_S, self.open)
                return
            task = self._loop.create_task(self._join(sock))
            self._joining.add(task)
            task.add_done_callback(self._joining.discard)

    async def _join(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        with contextlib.suppress(OSError):  # it is gone already
            await self._loop.connect_accepted_socket(self._factory, sock)
            return
        sock.close()
