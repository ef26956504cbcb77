"""The HTTP server: a short ASGI door that answers status and health on the loop, and Flask behind it for the rest.

Lives here: connections, bodies, long polls, the thread of the loop. Not here: what a call means and how it is
answered, which is api.py's. The door takes no lock and makes no query; what might do either goes to a thread.
Past the budget of lines: connection, door and thread share one stop, and the tree has one module for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
import logging
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any, TypeVar, cast

import uvicorn
from a2wsgi.wsgi import build_environ
from flask import Flask, Response
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

import api
from api import Answer, Asked, Gate, Page, ServiceLike, StatusCall, TurnedAway
from config import Settings
from errors import BadRequest, Draining

log = logging.getLogger(__name__)
Message = dict[str, Any]  # Any: ASGI has no closed type for its events
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
_T = TypeVar("_T")

#: Calls that Flask works on at once; the longest of them wait for a process to be gone.
THREADS = 24
#: Connections that wait to be accepted.
BACKLOG = 2048
#: Largest request head (bytes).
HEAD_LIMIT_BYTES = 64 * 1024
#: Least time between two looks at what waiters wait for (seconds); changes in between are seen by the second.
WAKE_INTERVAL_S = 0.02
TICK_S = 0.5
#: At the end of a stop, for the answers of calls that did not end in time (seconds).
LAST_WORDS_S = 0.2


class ClientGone(Exception):
    """The client went away; there is nobody to answer."""


# -- connections -----------------------------------------------------------------------------------------------------


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
        answer = api.error_answer(exc)
        lines = [STATUS_LINE[answer.status], *(b"%b: %b\r\n" % pair for pair in _headers(answer, ()))]
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


def _headers(answer: Answer, more: api.Headers) -> list[tuple[bytes, bytes]]:
    """Headers as ASGI wants them."""
    pairs = [(n.lower().encode("latin-1"), v.encode("latin-1")) for n, v in (*answer.headers, *more)]
    pairs += _COMMON
    if answer.status not in (204, 304):
        pairs.append((b"content-type", answer.content_type.encode("latin-1")))
        pairs.append((b"content-length", b"%d" % len(answer.body)))
    return pairs


_COMMON = [(name.lower().encode(), value.encode()) for name, value in api.COMMON_HEADERS]


# -- the door --------------------------------------------------------------------------------------------------------


class Exchange:
    """One request and its answer."""

    def __init__(self, scope: Message, receive: Receive, send: Send) -> None:
        self.scope, self.receive, self._send = scope, receive, send
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers: list[tuple[bytes, bytes]] = scope["headers"]
        self.fields = dict(self.headers)
        self.started = False

    def text(self, name: bytes) -> str | None:
        """A header; None without it."""
        value = self.fields.get(name)
        return None if value is None else value.decode("latin-1")

    def tags(self) -> frozenset[str] | None:
        """Entity tags of every If-None-Match."""
        if b"if-none-match" not in self.fields:
            return None
        return api.known_tags(", ".join(v.decode("latin-1") for n, v in self.headers if n == b"if-none-match"))

    def asked(self) -> Asked:
        """What the gate looks at. Raises BadRequest for a header that may come once and came twice."""
        if len(self.fields) != len(self.headers):
            names = [name for name, _ in self.headers]
            for name in (b"host", b"origin", b"authorization", b"content-type"):
                if names.count(name) > 1:
                    raise BadRequest(f"the header {name.decode()} came twice")
        server = self.scope.get("server")
        return Asked(
            method=self.method,
            path=self.path,
            host=self.text(b"host"),
            origin=self.text(b"origin"),
            authorization=self.text(b"authorization"),
            method_to_come=self.text(b"access-control-request-method"),
            local=server[0] if server else None,
        )

    async def send(self, message: Message) -> None:
        """Send an event, remembering that the answer has begun."""
        self.started = True
        await self._send(message)

    async def answer(self, answer: Answer, more: api.Headers) -> None:
        """Send a whole answer."""
        headers = _headers(answer, more)
        if b"expect" in self.fields:
            headers.append((b"connection", b"close"))  # the client may or may not send the body now
        await self.send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await self.send({"type": "http.response.body", "body": answer.body})


@dataclass(slots=True, eq=False)
class _Waiter:
    """A client that waits for a change."""

    call: StatusCall
    #: Entity tags that are no news to it.
    seen: frozenset[str]
    #: Whether the board held what it waits for; when it does not any more, the service is asked again.
    held: bool
    woken: asyncio.Future[None]


class Door:
    """The ASGI application: admits, answers what it can on the loop, reads bodies, hands the rest to Flask."""

    def __init__(
        self,
        app: Flask,
        service: ServiceLike,
        gate: Gate,
        loop: asyncio.AbstractEventLoop,
        *,
        max_waiters: int,
        body_timeout_s: float,
    ) -> None:
        self._service, self._gate, self._loop = service, gate, loop
        self._max_waiters, self._body_timeout_s = max_waiters, body_timeout_s
        self._flask = app
        self.pool = ThreadPoolExecutor(THREADS, thread_name_prefix="http")
        self._status_calls = {
            path: api.Operation("GET", path) for path in ("/api/scrape-status", "/api/targets/{id}/status")
        }
        self._waiters: set[_Waiter] = set()
        self._places = 0
        self._stopping = False
        self._wake_due = False
        self._woke_at = 0.0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request; every error in the one shape."""
        exchange = Exchange(scope, receive, send)
        try:
            answer = self._gate.admit(exchange.asked()) or await self._at_the_door(exchange)
            if answer is None:
                await self._hand_on(exchange)
                return
        except ClientGone:
            return
        except asyncio.CancelledError:  # the stop has waited long enough
            answer = api.error_answer(Draining("the daemon is stopping", hint="ask again in a few seconds"))
        except Exception as exc:  # noqa: BLE001  # the top of a request; logged there if it is no answer
            answer = api.error_answer(exc, f"{exchange.method} {exchange.path}")
        if exchange.started:
            raise ConnectionAbortedError("an answer that had begun could not be finished")
        await exchange.answer(answer, self._gate.cors(exchange.text(b"origin")))

    async def _at_the_door(self, exchange: Exchange) -> Answer | None:
        """Answer on the loop; None: Flask is to answer."""
        path = exchange.path
        if exchange.method not in ("GET", "HEAD"):
            return None
        if path == "/api/scrape-status":
            args = self._status_calls[path].read_query(exchange.scope["query_string"])
            return await self._status(exchange, api.status_call(args))
        if path == "/healthz":
            return api.healthz(self._service)
        if path == "/readyz":
            return api.readyz(self._service)
        if path.startswith("/api/targets/") and path.endswith("/status"):
            target_id = api.path_id(path[len("/api/targets/") : -len("/status")])
            if target_id is not None:
                args = self._status_calls["/api/targets/{id}/status"].read_query(exchange.scope["query_string"])
                return await self._status(exchange, api.status_call(args | {"id": target_id}))
        return None

    # -- bodies --

    async def _hand_on(self, exchange: Exchange) -> None:
        """Read the body whole, then let Flask answer on a thread."""
        if not exchange.scope["query_string"].isascii():
            raise BadRequest("the query is not in percent-encoding")
        body = await self._body(exchange)
        made = build_environ(cast(Any, exchange.scope), cast(Any, io.BytesIO(body)))  # Any: types of their own
        environ = cast(dict[str, Any], made)  # Any: WSGI's own idea
        environ["CONTENT_LENGTH"] = str(len(body))
        environ.pop("HTTP_TRANSFER_ENCODING", None)  # it is whole now
        done = await self._in_thread(lambda: Response.from_app(self._flask, environ, buffered=True))
        headers = [(n.lower().encode("latin-1"), v.encode("latin-1")) for n, v in done.headers]
        await exchange.send({"type": "http.response.start", "status": done.status_code, "headers": headers})
        await exchange.send({"type": "http.response.body", "body": done.get_data()})

    async def _body(self, exchange: Exchange) -> bytes:
        """Read a body. Raises TurnedAway for one that is too large or too slow, ClientGone."""
        length = exchange.fields.get(b"content-length", b"0")
        if b"transfer-encoding" not in exchange.fields and int(length) == 0:
            return b""
        too_large = TurnedAway(413, "too_large", f"the body is over {api.BODY_LIMIT_BYTES} bytes")
        if int(length) > api.BODY_LIMIT_BYTES:
            raise too_large
        body, more = bytearray(), True
        try:
            async with asyncio.timeout(self._body_timeout_s):
                while more:
                    message = await exchange.receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGone
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) > api.BODY_LIMIT_BYTES:
                        raise too_large
        except TimeoutError:
            text = f"the body did not arrive within {self._body_timeout_s:g} s"
            raise TurnedAway(408, "body_too_slow", text, headers=(("Connection", "close"),)) from None
        return bytes(body)

    # -- status and waiting --

    async def _status(self, exchange: Exchange, call: StatusCall) -> Answer | None:
        """Answer a status call, after a change if one is waited for; None: the board does not hold it."""
        page, tags = api.held_page(self._service, call), exchange.tags()
        news = page is not None and tags is not None and not api.is_known(page, tags)
        if call.wait_s and exchange.method == "GET" and not news and not self._stopping:
            if self._places < self._max_waiters:
                page = await self._changed_page(exchange, call, tags)
        return None if page is None else api.status_answer(page, tags)

    async def _changed_page(self, exchange: Exchange, call: StatusCall, tags: frozenset[str] | None) -> Page:
        """Wait for a page that the client does not know, or for its time to end."""
        self._places += 1  # before the first look at the board: `changed` may pass by when there is no place taken
        with contextlib.ExitStack() as stack:
            stack.callback(self._leave)
            first = await self._first_page(call, stack)
            waiter = _Waiter(call, tags or _only(first), held=False, woken=self._loop.create_future())
            self._waiters.add(waiter)
            stack.callback(self._waiters.discard, waiter)
            end = self._loop.time() + call.wait_s
            while True:
                waiter.woken = self._loop.create_future()  # before the look: what changes from here on wakes us
                page = api.held_page(self._service, call)
                waiter.held = page is not None or (waiter.held and call.target_id is not None)
                page = page or await self._asked_page(call)
                left = end - self._loop.time()
                if left <= 0 or self._stopping or not api.is_known(page, waiter.seen):
                    return page
                await self._sleep(waiter, left, exchange.receive)

    async def _first_page(self, call: StatusCall, stack: contextlib.ExitStack) -> Page:
        """See to it that the board follows what is waited for; a sweep that it does not hold changes no more."""
        if call.target_id is None:
            return api.held_page(self._service, call) or await self._asked_page(call)
        page = await self._in_thread(functools.partial(self._service.board.pin, call.target_id))
        stack.callback(self._unpin, call.target_id)
        return page

    async def _asked_page(self, call: StatusCall) -> Page:
        return await self._in_thread(functools.partial(api.asked_page, self._service, call))

    async def _in_thread(self, call: Callable[[], _T]) -> _T:
        return await self._loop.run_in_executor(self.pool, call)

    def _unpin(self, target_id: int) -> None:
        with contextlib.suppress(RuntimeError):  # the pool is closed: so is the daemon, soon
            self.pool.submit(self._service.board.unpin, target_id)

    def _leave(self) -> None:
        self._places -= 1

    async def _sleep(self, waiter: _Waiter, seconds: float, receive: Receive) -> None:
        """Until woken, or the time is over. Raises ClientGone."""
        gone = asyncio.ensure_future(_until_gone(receive))
        try:
            await asyncio.wait({waiter.woken, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                raise ClientGone
        finally:
            gone.cancel()

    def close(self) -> None:
        """Called on the loop: whoever waits is answered now, and nobody waits any more."""
        self._stopping = True
        for waiter in self._waiters:
            _resolve(waiter.woken)

    def changed(self) -> None:
        """Called after every publish, on the publisher's thread; returns at once."""
        if self._places and not self._wake_due:
            self._wake_due = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._wake_in_time)

    def _wake_in_time(self) -> None:
        self._loop.call_at(self._woke_at + WAKE_INTERVAL_S, self._wake)

    def _wake(self) -> None:
        """Look once at every page that is waited for, and wake those to whom it is news."""
        self._wake_due = False  # before the look: a change after this comes back
        self._woke_at = self._loop.time()
        pages: dict[tuple[int | None, int | None], Page | None] = {}
        for waiter in self._waiters:
            key = (waiter.call.target_id, waiter.call.sweep_id)
            if key not in pages:
                pages[key] = api.held_page(self._service, waiter.call)
            page = pages[key]
            if waiter.held if page is None else not api.is_known(page, waiter.seen):
                _resolve(waiter.woken)


def _only(page: Page) -> frozenset[str]:
    return api.known_tags(page.etag) or frozenset()


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


# -- the server ------------------------------------------------------------------------------------------------------


class HttpServer:
    """The listening socket, and the loop on a thread of its own. `start` once, `stop` any number of times."""

    def __init__(
        self,
        app: Flask,
        service: ServiceLike,
        settings: Settings,
        *,
        head_timeout_s: float = 15.0,
        body_timeout_s: float = 20.0,
        idle_timeout_s: int = 75,
        write_timeout_s: float = 60.0,
    ) -> None:
        """Nothing is opened yet.

        Args:
            head_timeout_s: From the first byte, or the opening, to a complete head.
            body_timeout_s: From the head to a complete body.
            idle_timeout_s: How long a connection may rest between two requests.
            write_timeout_s: How long a client may take nothing of an answer that does not fit in the buffers.
        """
        self._app, self._service, self._settings = app, service, settings
        self._limits = {"head_timeout_s": head_timeout_s, "write_timeout_s": write_timeout_s}
        self._body_timeout_s, self._idle_timeout_s = body_timeout_s, idle_timeout_s
        #: The one that is listened on, once started.
        self.port = settings.port
        self._ticked_at = time.monotonic()
        self._ready, self._failed = threading.Event(), False
        self._thread: threading.Thread | None = None
        self._connections = ServerState()

    def start(self) -> None:
        """Open the port and answer. Raises OSError when the port is taken or the address is not ours."""
        listener = _listen(self._settings.host, self._settings.port)
        self.port = listener.getsockname()[1]
        self._loop = _new_loop()
        self._stop_asked = asyncio.Event()
        #: How long a stop waits for calls under way (seconds).
        self._grace_s = 0.0
        self._door = Door(
            self._app,
            self._service,
            Gate(self._settings, self.port),
            self._loop,
            max_waiters=self._settings.max_waiters,
            body_timeout_s=self._body_timeout_s,
        )
        self._ticked_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, args=[listener], name="http", daemon=True)
        self._thread.start()
        if not self._ready.wait(10.0) or self._failed:
            raise OSError("the HTTP server did not start; the log says why")

    def stop(self, timeout_s: float) -> None:
        """Take nothing new, answer those who wait, finish what is under way, close.

        Takes at most a second longer than `timeout_s`. A call that hangs in its thread is not ended by it: its client
        is answered with 503, and its thread goes on.
        """
        if self._thread is None:
            return
        self._grace_s = timeout_s
        with contextlib.suppress(RuntimeError):  # stopped before: the loop is closed
            self._loop.call_soon_threadsafe(self._stop_asked.set)
        self._thread.join(timeout_s + 1.0)
        if self._thread.is_alive():
            log.error("http_not_stopped")
        self._door.pool.shutdown(wait=False, cancel_futures=True)

    def tick_age(self) -> float:
        """Seconds since the loop last went round."""
        return time.monotonic() - self._ticked_at

    def _run(self, listener: socket.socket) -> None:
        try:
            with listener, asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._serve(listener))
        except Exception:
            log.exception("http_failed")  # the tick age grows from here on, and the daemon is restarted for it
            self._failed = True
            self._ready.set()

    async def _serve(self, listener: socket.socket) -> None:
        config = self._config()
        config.load()
        server = await self._loop.create_server(
            lambda: Connection(config, self._connections, **self._limits),
            sock=listener,
            backlog=BACKLOG,
        )
        unsubscribe = self._service.board.subscribe(self._door.changed)
        self._tick()
        self._ready.set()
        try:
            await self._stop_asked.wait()
        finally:
            server.close()
            unsubscribe()
            await self._finish()

    async def _finish(self) -> None:
        """Close every connection: idle ones now, the others once they are answered, all in the end."""
        open_, tasks = self._connections.connections, self._connections.tasks
        self._door.close()
        for connection in list(open_):
            connection.shutdown()
        await _until(lambda: not open_, self._grace_s)
        for task in list(tasks):
            task.cancel()
        await _until(lambda: not open_, LAST_WORDS_S)
        for connection in list(open_):
            connection.transport.abort()
        await asyncio.sleep(0)  # lets them close

    def _tick(self) -> None:
        self._ticked_at = time.monotonic()
        self._connections.default_headers = [(b"date", formatdate(usegmt=True).encode())]
        self._loop.call_later(TICK_S, self._tick)

    def _config(self) -> uvicorn.Config:
        return uvicorn.Config(
            cast(Any, self._door),  # Any: uvicorn's own types for the same events
            http=Connection,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            workers=1,
            timeout_keep_alive=self._idle_timeout_s,
        )


async def _until(condition: Callable[[], bool], within_s: float) -> None:
    for _ in range(round(within_s / 0.01)):
        if condition():
            return
        await asyncio.sleep(0.01)


def _listen(host: str, port: int) -> socket.socket:
    """Open the port; the first address of a name that has several."""
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


def _new_loop() -> asyncio.AbstractEventLoop:
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    import uvloop

    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
