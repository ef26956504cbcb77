"""How connections are taken: many in one turn of the loop, and again after there were no descriptors."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from server import HttpServer
from tests.support.fake_service import FakeService, wait_until
from tests.unit.test_server import connected, read_answer, running
from web.accepting import AT_ONCE, Acceptor, listen

REQUEST = b"GET /api/scrape-status HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def server() -> Iterator[HttpServer]:
    with running(FakeService()) as it:
        yield it


def test_many_that_come_at_once_are_taken_in_a_few_turns_of_the_loop(server: HttpServer) -> None:
    count, turns, held, let_go = 300, 0, threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        let_go.wait(10)
        turn()

    def turn() -> None:
        nonlocal turns
        if len(server._connections.connections) < count:
            turns += 1
            server._loop.call_soon(turn)

    server._loop.call_soon_threadsafe(hold)
    held.wait(10)
    with ExitStack() as stack:
        socks = [stack.enter_context(connected(server)) for _ in range(count)]
        let_go.set()
        wait_until(lambda: len(server._connections.connections) == count)
        assert turns <= 4 * count / AT_ONCE
        for sock in socks:
            sock.sendall(REQUEST)
        assert {read_answer(sock)[0].status for sock in socks} == {200}


@contextmanager
def no_descriptors_left() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))), hard))
    fillers = []
    try:
        while True:
            try:
                fillers.append(os.open("/dev/null", os.O_RDONLY))
            except OSError:
                break
        yield
    finally:
        for filler in fillers:
            os.close(filler)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_without_descriptors_it_says_so_and_goes_on_when_there_are_some(
    server: HttpServer, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as sock, connected(server) as before:
        sock.settimeout(10)
        before.sendall(REQUEST)
        assert read_answer(before)[0].status == 200
        with no_descriptors_left():
            sock.connect(("127.0.0.1", server.port))
            sock.sendall(REQUEST)
            wait_until(lambda: "accept_failed" in caplog.text)
            before.sendall(REQUEST)
            assert before.recv(100).startswith(b"HTTP/1.1 200 OK")
        assert read_answer(sock)[0].status == 200
    assert caplog.text.count("accept_failed") <= 3


def test_those_that_were_taken_are_connections_when_it_has_closed() -> None:
    async def run() -> None:
        made: list[asyncio.Protocol] = []

        class Protocol(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                made.append(self)
                transport.close()

        with listen("127.0.0.1", 0) as listener, ExitStack() as stack:
            acceptor = Acceptor(listener, asyncio.get_running_loop(), Protocol)
            acceptor.open()
            for _ in range(3):
                stack.enter_context(socket.create_connection(listener.getsockname()))
            acceptor._take()
            assert made == []
            await acceptor.close()
            assert len(made) == 3
            stack.enter_context(socket.create_connection(listener.getsockname()))
            await asyncio.sleep(0.01)
            assert len(made) == 3
            await acceptor.close()

    asyncio.run(run())
