"""The HTTP server: a short ASGI door that answers status, health and event streams on the loop, and Flask behind it.

Lives here: the door, the socket, the thread of the loop. Not here: what a call means and how it is answered, which is
api.py's, and the parts that the door is made of, which are in web/. The door takes no lock and makes no query; what
might do either goes to a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, cast

import uvicorn
from a2wsgi.wsgi import build_environ
from uvicorn.server import ServerState

from config import Settings
from errors import BadRequest, Draining
from web import streams
from web.accepting import Acceptor, listen
from web.answers import Answer, error_answer
from web.connection import Connection
from web.exchange import ClientGone, Exchange, Message, Receive, Send
from web.gate import Gate
from web.memo import Memo, Recipe
from web.protocols import ServiceLike
from web.status import StatusCall, StatusCalls, healthz, held_page, readyz, status_answer
from web.streams import Streams
from web.turnstile import Turnstile
from web.waiting import Places, Waiters

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

    from werkzeug.wrappers import Response

log = logging.getLogger(__name__)

#: Calls that Flask works on at once; the longest of them wait for a process to be gone.
THREADS = 24
#: Threads that read a status which is not on the board (count).
STATUS_THREADS = 4
#: Least time between two looks at what clients wait for (seconds); changes in between are seen by the second.
WAKE_INTERVAL_S = 0.02
TICK_S = 0.5
#: At the end of a stop, for the answers of calls that did not end in time (seconds).
LAST_WORDS_S = 0.2

# -- the door --------------------------------------------------------------------------------------------------------


class Door:
    """The ASGI application: admits, answers what it can on the loop, reads bodies, hands the rest to Flask."""

    def __init__(
        self,
        app: WSGIApplication | Future[WSGIApplication],
        service: ServiceLike,
        gate: Gate,
        loop: asyncio.AbstractEventLoop,
        turnstile: Turnstile,
        *,
        max_waiters: int,
        body_timeout_s: float,
        comment_interval_s: float,
    ) -> None:
        self._app, self._service, self._gate, self._loop = app, service, gate, loop
        self._body_timeout_s = body_timeout_s
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="http")
        self._status_call = StatusCalls()
        self._places = Places(max_waiters)
        #: Of its own: no number of slow writes keeps a status from being read.
        self._status_pool = ThreadPoolExecutor(STATUS_THREADS, thread_name_prefix="status")
        self._waiters = Waiters(service, loop, self._status_pool, self._places, turnstile)
        self._streams = Streams(service, loop, self._places, comment_interval_s=comment_interval_s)
        self._wake_due = False
        self._woke_at = 0.0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request; every error in the one shape."""
        exchange = Exchange(scope, receive, send)
        try:
            answer = self._gate.admit(exchange.asked()) or await self._answer(exchange)
            if answer is None:
                return
        except ClientGone:
            exchange.caller.heed()
            return
        except asyncio.CancelledError:  # the stop has waited long enough
            answer = error_answer(Draining("the daemon is stopping", hint="ask again in a few seconds"))
        except Exception as exc:  # noqa: BLE001  # the top of a request; logged there if it is no answer
            answer = error_answer(exc, f"{exchange.method} {exchange.path}")
        if exchange.started:
            raise ConnectionAbortedError("an answer that had begun could not be finished")
        await exchange.answer(answer, self._gate.cors(exchange.text(b"origin")))

    async def _answer(self, exchange: Exchange) -> Answer | None:
        """Answer on the loop what can be; None: it has been answered."""
        if exchange.method in ("GET", "HEAD"):
            if exchange.path == streams.PATH:
                await self._streams.serve(exchange, self._gate.cors(exchange.text(b"origin")))
                return None
            call = self._status_call(exchange.path, exchange.query)
            if call is not None:
                return self._held(exchange, call) or await self._waiters.status(exchange, call)
            if exchange.path == "/healthz":
                return healthz(self._service)
            if exchange.path == "/readyz":
                return readyz(self._service)
        await self._hand_on(exchange)
        return None

    def _held(self, exchange: Exchange, call: StatusCall) -> Answer | None:
        """Answer a call that does not wait from the board, and from the memo when it comes again; None: it is to wait.

        None also when the board does not hold the page.
        """
        page = None if call.wait_s else held_page(self._service, call)
        if page is None:
            return None
        tags, more = exchange.tags(), self._gate.cors(exchange.text(b"origin"))
        exchange.keep(Recipe(self._service, call, tags=tags, head=exchange.method == "HEAD", more=more))
        return status_answer(page, tags)

    async def _hand_on(self, exchange: Exchange) -> None:
        """Read the body whole, then let Flask answer on a thread."""
        if not exchange.query.isascii():
            raise BadRequest("the query is not in percent-encoding")
        body = await exchange.body(self._body_timeout_s)
        made = build_environ(cast(Any, exchange.scope), cast(Any, io.BytesIO(body)))  # Any: types of their own
        environ = cast(dict[str, Any], made)  # Any: WSGI's own idea
        environ["CONTENT_LENGTH"] = str(len(body))
        environ.pop("HTTP_TRANSFER_ENCODING", None)  # it is whole now
        done = await self._loop.run_in_executor(self._pool, self._call, environ)
        headers = [(n.lower().encode("latin-1"), v.encode("latin-1")) for n, v in done.headers]
        await exchange.begin(done.status_code, headers)
        await exchange.write(done.get_data(), more=False)

    def _call(self, environ: dict[str, Any]) -> Response:  # Any: WSGI's own idea
        app = self._app.result() if isinstance(self._app, Future) else self._app
        from werkzeug.wrappers import (
            Response,  # after the app, which has loaded it: two threads must not load it at once
        )

        return Response.from_app(app, environ, buffered=True)

    # -- changes --

    def changed(self) -> None:
        """Called after every publish, on the publisher's thread; returns at once."""
        if self._places.taken and not self._wake_due:
            self._wake_due = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._wake_in_time)

    def _wake_in_time(self) -> None:
        self._loop.call_at(self._woke_at + WAKE_INTERVAL_S, self._wake)

    def _wake(self) -> None:
        """Let those who wait look at what was published."""
        self._wake_due = False  # before the look: a change after this comes back
        self._woke_at = self._loop.time()
        self._waiters.look()
        self._streams.look()

    def close(self) -> None:
        """Called on the loop: whoever waits is answered now, and nobody waits any more."""
        self._waiters.close()
        self._streams.close()

    def shut_down(self) -> None:
        """No call begins any more; those under way go on in their threads."""
        for pool in (self._pool, self._status_pool, self._streams.pool):
            pool.shutdown(wait=False, cancel_futures=True)


# -- the server ------------------------------------------------------------------------------------------------------


class HttpServer:
    """The listening socket, and the loop on a thread of its own. `start` once, `stop` any number of times."""

    def __init__(
        self,
        app: WSGIApplication | Future[WSGIApplication],
        service: ServiceLike,
        settings: Settings,
        *,
        head_timeout_s: float = 15.0,
        body_timeout_s: float = 20.0,
        idle_timeout_s: int = 75,
        write_timeout_s: float = 60.0,
        comment_interval_s: float = 15.0,
        listener: socket.socket | None = None,
    ) -> None:
        """Nothing is opened yet.

        Args:
            app: What the door hands on to; it may come after the port is open.
            listener: A listening socket that was passed to us (socket activation); None: open one.
            head_timeout_s: From the first byte, or the opening, to a complete head.
            body_timeout_s: From the head to a complete body.
            idle_timeout_s: How long a connection may rest between two requests.
            write_timeout_s: How long a client may take nothing of an answer that does not fit in the buffers.
            comment_interval_s: How long an event stream may be silent before it sends a comment.
        """
        self._app, self._service, self._settings, self._given = app, service, settings, listener
        self._limits = {"head_timeout_s": head_timeout_s, "write_timeout_s": write_timeout_s}
        self._body_timeout_s, self._idle_timeout_s = body_timeout_s, idle_timeout_s
        self._comment_interval_s = comment_interval_s
        #: The one that is listened on, once started.
        self.port = settings.port
        self._ticked_at = time.monotonic()
        self._ready, self._failed = threading.Event(), False
        self._thread: threading.Thread | None = None
        self._connections, self._memo = ServerState(), Memo()

    def start(self) -> None:
        """Open the port and answer. Raises OSError when the port is taken or the address is not ours."""
        listener = self._given or listen(self._settings.host, self._settings.port)
        self.port = listener.getsockname()[1]
        self._loop = _new_loop()
        self._turnstile = Turnstile(self._loop)
        self._stop_asked = asyncio.Event()
        #: How long a stop waits for calls under way (seconds).
        self._grace_s = 0.0
        self._door = Door(
            self._app,
            self._service,
            Gate(self._settings, self.port),
            self._loop,
            self._turnstile,
            max_waiters=self._settings.max_waiters,
            body_timeout_s=self._body_timeout_s,
            comment_interval_s=self._comment_interval_s,
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
        self._door.shut_down()

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
        acceptor = Acceptor(
            listener,
            self._loop,
            lambda: Connection(config, self._connections, self._memo, self._turnstile, **self._limits),
        )
        acceptor.open()
        unsubscribe = self._service.board.subscribe(self._door.changed)
        self._tick()
        self._ready.set()
        try:
            await self._stop_asked.wait()
        finally:
            await acceptor.close()
            unsubscribe()
            await self._finish()

    async def _finish(self) -> None:
        """Close every connection: idle ones now, the others once they are answered, all in the end."""
        open_, tasks = self._connections.connections, self._connections.tasks
        self._door.close()
        for connection in list(open_):
            connection.shutdown()
        await _until(lambda: not open_, self._grace_s)
        stuck = {c for c in open_ if isinstance(c, Connection) and c.flow.write_paused}
        for connection in stuck:
            connection.transport.abort()  # whoever reads nothing hears no last words
        await _until(lambda: not stuck & open_, LAST_WORDS_S)
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


def _new_loop() -> asyncio.AbstractEventLoop:
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    import uvloop

    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
