"""A web site on loopback that notes the instant at which it is asked, and at which whoever asked is gone."""

from __future__ import annotations

import queue
import socket
import threading
import time
from contextlib import suppress
from types import TracebackType

from benchmarks.common import feed

#: Longest wait for something that must happen (seconds).
WITHIN_S = 30.0
_NOTHING = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Site:
    """Answers with a feed, never at addresses with `hang` in them, and has no robots.txt, which is not noted either.

    Use as a context manager.
    """

    def __init__(self) -> None:
        #: When the first byte of a request arrived (monotonic), and the port it came from.
        self.asked: queue.Queue[tuple[float, int]] = queue.Queue()
        #: When a connection that was left hanging ended at the other side (monotonic).
        self.left: queue.Queue[float] = queue.Queue()
        body = feed(0).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/rss+xml\r\nContent-Length: {len(body)}\r\n"
        self._answer = head.encode() + b"Connection: close\r\n\r\n" + body
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Site:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def wait_asked(self) -> tuple[float, int]:
        """When the next request came, and the port it came from."""
        return self.asked.get(timeout=WITHIN_S)

    def wait_left(self) -> float:
        """When the next hanging connection ended."""
        return self.left.get(timeout=WITHIN_S)

    def _accept(self) -> None:
        while True:
            try:
                conn, (_, port) = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(conn, port), daemon=True).start()

    def _serve(self, conn: socket.socket, port: int) -> None:
        with conn:
            request = chunk = conn.recv(4096)
            at = time.monotonic()
            while chunk and b"\r\n\r\n" not in request:
                chunk = conn.recv(4096)
                request += chunk
            line = request.partition(b"\r\n")[0]
            if b"/robots.txt" in line:
                conn.sendall(_NOTHING)
                return
            self.asked.put((at, port))
            if b"hang" not in line:
                conn.sendall(self._answer)
                return
            with suppress(OSError):
                while conn.recv(4096):
                    pass
            self.left.put(time.monotonic())
