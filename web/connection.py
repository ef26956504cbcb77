"""A connection: uvicorn's, with the limits that it does not have, and a short way for requests that came before."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from web.answers import Answer, TurnedAway, as_bytes, error_answer, raw_headers
from web.memo import HEAD_BYTES, Memo, Pairs, Recipe
from web.turnstile import Turnstile

#: Largest request head (bytes).
HEAD_LIMIT_BYTES = 64 * 1024
#: Under this name an ASGI scope has its Caller.
CALLER: Final = "gleand.caller"


class Caller:
    """Who sent a request, as its connection knows them: what ASGI has no words for."""

    __slots__ = ("_connection", "_cycle", "whole")

    def __init__(self, connection: Connection, cycle: RequestResponseCycle) -> None:
        self._connection, self._cycle = connection, cycle
        #: The request as it came, if it came in one read, as one message, and with nothing else.
        self.whole: bytes | None = None

    def keep(self, recipe: Recipe) -> None:
        """Answer by this recipe whoever sends the same again, if this connection would go on after it."""
        if self.whole is not None and len(self.whole) <= HEAD_BYTES and self._cycle.keep_alive:
            self._connection.memo.keep((self._connection.server, self.whole), recipe)

    def send(self, answer: Answer, headers: Pairs) -> bool:
        """Send a whole answer in one write, as ASGI would in two; False: it has to go by ASGI.

        It has to when the connection is not to go on, is gone, or has a client that does not read.
        """
        self.heed()
        cycle, connection = self._cycle, self._connection
        if not cycle.keep_alive or cycle.disconnected or connection.flow.write_paused:
            return False
        ready = as_bytes(answer, [*cycle.default_headers, *headers], head=cycle.scope["method"] == "HEAD")
        cycle.response_started = cycle.response_complete = True
        connection.transport.write(ready)
        cycle.message_event.set()
        cycle.on_response()
        return True

    def heed(self) -> None:
        """Let uvicorn know when the client has gone: by itself it tells only the last of several in a row."""
        if self._connection.gone:
            self._cycle.disconnected = True

    def when_gone(self, callback: Callable[[], None] | None) -> None:
        """Call back when the client goes away, at once if it has gone; None: no more."""
        self._connection.when_gone = callback
        if callback is not None and self._connection.gone:
            callback()


class Connection(HttpToolsProtocol):
    """uvicorn's connection, with the limits it does not have: for a head's time and size, and for a stuck reader.

    Bytes of a body that nobody waits for any more (it was too large) count as a head that does not come.

    A request that is in the memo, and comes alone between two others, is answered at once and reaches neither the
    parser nor a task. It starts no timer either: the one for idle connections finds out how long it really rested.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        state: ServerState,
        memo: Memo,
        turnstile: Turnstile,
        *,
        head_timeout_s: float,
        write_timeout_s: float,
    ) -> None:
        super().__init__(config, state, {})
        self.memo, self._turnstile = memo, turnstile
        self.gone = False
        self.when_gone: Callable[[], None] | None = None
        #: Whether the parser stands between two messages, and how many have begun.
        self._between, self._begun = True, 0
        #: What is to be parsed once the turnstile lets it through.
        self._later: bytes | None = None
        #: Of the request whose head came last.
        self._caller: Caller | None = None
        #: When the memo answered last (loop time).
        self._answered_at = 0.0
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
        self.gone, self._caller = True, None
        if self.when_gone is not None:
            self.when_gone()

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        if self._later is not None:
            self._later += data
            if len(self._later) > HEAD_LIMIT_BYTES:
                self.flow.pause_reading()
            return
        if self.cycle is None or self.cycle.response_complete:
            if self._between and len(data) <= HEAD_BYTES and self._answer_at_once(data):
                return
            if self._head_timer is None:
                self._await_head()
            if not self._turnstile.passes():
                self._later = data
                self._unset_keepalive_if_required()
                self._turnstile.put(self._parse_later)
                return
        self._parse(data)

    def _parse_later(self) -> None:
        data, self._later = self._later, None
        if data is not None and not self.transport.is_closing():
            self.flow.resume_reading()
            self._parse(data)

    def _parse(self, data: bytes) -> None:
        between, begun, in_head = self._between, self._begun, self._in_head
        super().data_received(data)
        if between and self._between and self._begun == begun + 1 and self._caller is not None:
            self._caller.whole = data
        if in_head and self._in_head and not self.transport.is_closing():
            self._head_bytes += len(data)  # one header that does not end is not reported by the parser
            if self._head_bytes > HEAD_LIMIT_BYTES:
                self.send_400_response("")

    def on_message_begin(self) -> None:
        """Called by the parser."""
        self._in_head, self._head_bytes = True, 0
        self._between, self._begun = False, self._begun + 1
        super().on_message_begin()

    def on_message_complete(self) -> None:
        """Called by the parser."""
        self._between = True
        super().on_message_complete()

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
        self._head_has_come()
        super().on_headers_complete()
        self._caller = Caller(self, self.cycle)
        self.scope[CALLER] = self._caller  # type: ignore[typeddict-unknown-key]  # ours

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, or too long a head, and close."""
        if self._head_bytes > HEAD_LIMIT_BYTES:
            exc = TurnedAway(431, "head_too_large", f"the head of the request is over {HEAD_LIMIT_BYTES} bytes")
        else:
            exc = TurnedAway(400, "bad_request", "the request is not HTTP")
        answer = error_answer(exc)
        self.transport.write(as_bytes(answer, [*raw_headers(answer), (b"connection", b"close")]))
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
        left = self._answered_at + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._await_request(left)
        else:
            self._drop()

    def _answer_at_once(self, data: bytes) -> bool:
        """Answer a request that came before; False: it has to be parsed."""
        ready = self.memo.answer((self.server, data), self.server_state.default_headers)
        if ready is None or self.flow.write_paused or self.transport.is_closing():
            return False
        self._head_has_come()
        if self.timeout_keep_alive_task is None:
            self._await_request(self.timeout_keep_alive)
        self._answered_at = self.loop.time()
        self.transport.write(ready)
        return True

    def _count(self, count: int) -> None:
        self._head_bytes += count
        if self._head_bytes > HEAD_LIMIT_BYTES:
            raise ValueError("the head is too large")  # the parser stops, and send_400_response answers

    def _await_request(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def _head_has_come(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(self._head_timeout_s, self._drop)

    def _drop(self) -> None:
        self.transport.abort()

    def _unsupported_upgrade_warning(self) -> None:
        self.cycle.keep_alive = False  # an upgrade is passed over; the parser reads nothing after it
