"""What a worker keeps from one run to the next: connections, and nothing that a site could know a run by."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from itertools import takewhile

import pytest

from errors import ScrapeFailed
from model import FetchLimits
from sources.http import Http
from sources.session import kept_connections, let_go
from tests.support.waiting import wait_until

LIMITS = FetchLimits(allow_private_networks=True)


class Server:
    """Answers on connections that it keeps open; `asked` has each request, and on which connection it came."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, str]] = []
        #: Of each connection so many requests are answered; the next one finds it closed, or is read and not answered.
        self.answers, self.closes_at_once = 1000, False
        self.ended = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/feed"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        for number in range(1000):
            try:
                conn, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(number, conn), daemon=True).start()

    def _serve(self, number: int, conn: socket.socket) -> None:
        with conn, conn.makefile("rb") as lines:
            for count in range(1000):
                head = "".join(takewhile(str.strip, (line.decode().lower() for line in lines)))
                if not head or count == self.answers:
                    break
                self.asked.append((number, head))
                conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: who=you; Path=/\r\n\r\nok")
                if self.closes_at_once and count + 1 == self.answers:
                    break
            self.ended += 1


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    let_go()
    server.close()


def run(server: Server, *, limits: FetchLimits = LIMITS, times: int = 1) -> None:
    """A run of a worker's."""
    http = Http(
        limits,
        deadline=time.monotonic() + 10,
        on_progress=lambda _: None,
        remember={},
        adapter=kept_connections(limits),
    )
    try:
        for _ in range(times):
            assert http.get(server.url).body == b"ok"
    finally:
        http.close()


def test_the_next_run_asks_over_the_same_connection(server: Server) -> None:
    run(server)
    run(server)
    assert [number for number, _ in server.asked] == [0, 0]


def test_cookies_are_of_one_run_only(server: Server) -> None:
    run(server, times=2)
    run(server)
    assert ["cookie: who=you" in head for _, head in server.asked] == [False, True, False]


def test_a_connection_that_the_server_closed_meanwhile_is_opened_again(server: Server) -> None:
    server.answers, server.closes_at_once = 1, True
    run(server)
    wait_until(lambda: server.ended == 1)
    run(server)
    assert [number for number, _ in server.asked] == [0, 1]


def test_a_connection_that_the_server_closes_as_it_is_asked_is_opened_again(server: Server) -> None:
    server.answers = 1
    run(server)
    run(server)
    assert [number for number, _ in server.asked] == [0, 1]


def test_a_server_that_answers_nothing_on_a_new_connection_is_not_asked_again(server: Server) -> None:
    server.answers = 0
    with pytest.raises(ScrapeFailed, match="broke"):
        run(server)
    wait_until(lambda: server.ended == 1)
    assert server.asked == []


def test_other_limits_begin_with_connections_of_their_own(server: Server) -> None:
    run(server)
    run(server, limits=FetchLimits(allow_private_networks=True, user_agent="other"))
    assert [number for number, _ in server.asked] == [0, 1]
    with pytest.raises(ScrapeFailed, match="private"):
        run(server, limits=FetchLimits())


def test_nothing_is_kept_for_long(server: Server) -> None:
    run(server)
    let_go()
    wait_until(lambda: server.ended == 1)
