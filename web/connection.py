"""A connection: uvicorn's, with the limits that it does not have."""

from __future__ import annotations

import asyncio

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from web.answers import TurnedAway, error_answer, raw_headers

#: Largest request head (bytes).
HEAD_LIMIT_BYTES = 64 * 1024


class Connection(HttpToolsProtocol):
    """uvicorn's connection, with the limits it does not have: for a head's time and size, and for a stuck reader.

    Bytes of a body that nobody waits for any more (it was too large) count as a head that does not come.
    """

    def __init__(self, config: uvicorn.Config, state: ServerState, *, head_timeout_s: float, write_timeout_s: float):
        super().__init__(config, state, {})
        self._head_timeout_s, self._write_timeout_s = head_timeout_s, write_timeout_s
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._in_head = False
        self._head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Called by the loop."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        for timer in (self._head_timer, self._write_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        if self._head_timer is None and (self.cycle is None or self.cycle.response_complete):
            self._await_head()
        in_head = self._in_head
        super().data_received(data)
        if in_head and self._in_head and not self.transport.is_closing():
            self._head_bytes += len(data)  # one header that does not end is not reported by the parser
            if self._head_bytes > HEAD_LIMIT_BYTES:
                self.send_400_response("")

    def on_message_begin(self) -> None:
        """Called by the parser."""
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Called by the parser."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser, for trailers too: those are dropped, or they would join the headers unchecked."""
        self._count(len(name) + len(value) + 4)
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        self._in_head = False
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, or too long a head, and close."""
        if self._head_bytes > HEAD_LIMIT_BYTES:
            exc = TurnedAway(431, "head_too_large", f"the head of the request is over {HEAD_LIMIT_BYTES} bytes")
        else:
            exc = TurnedAway(400, "bad_request", "the request is not HTTP")
        answer = error_answer(exc)
        lines = [STATUS_LINE[answer.status], *(b"%b: %b\r\n" % pair for pair in raw_headers(answer))]
        self.transport.write(b"".join([*lines, b"connection: close\r\n\r\n", answer.body]))
        self.transport.close()

    def pause_writing(self) -> None:
        """Called by the transport when the client reads slower than we write."""
        super().pause_writing()
        self._write_timer = self.loop.call_later(self._write_timeout_s, self._drop)

    def resume_writing(self) -> None:
        """Called by the transport."""
        if self._write_timer is not None:
            self._write_timer.cancel()
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """Called by uvicorn's timer; closing would wait for a client that does not read."""
        self._drop()

    def _count(self, count: int) -> None:
        self._head_bytes += count
        if self._head_bytes > HEAD_LIMIT_BYTES:
            raise ValueError("the head is too large")  # the parser stops, and send_400_response answers

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(self._head_timeout_s, self._drop)

    def _drop(self) -> None:
        self.transport.abort()

    def _unsupported_upgrade_warning(self) -> None:
        self.cycle.keep_alive = False  # an upgrade is passed over; the parser reads nothing after it
