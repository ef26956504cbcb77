"""A crowd that waits: it costs a poller nothing, a change wakes all of it soon, and a heartbeat nobody."""

from __future__ import annotations

import json
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from server import HttpServer
from tests.support.fake_service import STATUS, FakeService, wait_until
from tests.unit.test_server import connected, read_answer, running
from tests.unit.test_server_events import Client, following

WAITERS, STREAMS = 300, 20
#: Promised is 0.1 on a machine that has nothing else to do (seconds).
SOON_S = 0.5


class Crowd:
    """Clients in one process, so that the descriptors of both ends count against one limit."""

    def __init__(self, server: HttpServer, stack: ExitStack) -> None:
        self.streams = [stack.enter_context(following(server)) for _ in range(STREAMS)]
        for client in self.streams:
            client.begin()
        self.waiters = [stack.enter_context(connected(server)) for _ in range(WAITERS)]
        self.wait(server, 'W/"0"')

    def wait(self, server: HttpServer, tag: str) -> None:
        """All of them wait (again)."""
        for sock in self.waiters:
            request = f"GET /api/scrape-status?wait=60 HTTP/1.1\r\nHost: localhost\r\nIf-None-Match: {tag}\r\n\r\n"
            sock.sendall(request.encode())
        wait_until(lambda: len(server._door._waiters) == WAITERS, within_s=10)

    def answered(self, socks: list[socket.socket]) -> int:
        poll = select.poll()
        for sock in socks:
            poll.register(sock, select.POLLIN)
        return len(poll.poll(0))


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def server(service: FakeService) -> Iterator[HttpServer]:
    with running(service) as it:
        yield it


def changed(**fields: Any) -> dict[str, Any]:
    return STATUS | fields


def test_a_change_wakes_every_waiter_soon_and_each_stream_tells_it_once(
    server: HttpServer, service: FakeService
) -> None:
    with ExitStack() as stack:
        crowd = Crowd(server, stack)
        for n in range(1, 6):
            service.happen(announce=False)
            begun = time.monotonic()
            service.board.show(changed(progress=f"{n} of 5"), str(n))
            wait_until(lambda: crowd.answered(crowd.waiters) == WAITERS)
            took = time.monotonic() - begun
            assert took < SOON_S
            for sock in crowd.waiters:
                response, body = read_answer(sock)
                assert (response.status, json.loads(body)["progress"]) == (200, f"{n} of 5")
            for client in crowd.streams:
                assert client.event().id == n
            crowd.wait(server, f'W/"{n}"')
    wait_until(lambda: server._door._places.taken == 0)


def test_a_heartbeat_wakes_none_of_them(server: HttpServer, service: FakeService) -> None:
    with ExitStack() as stack:
        crowd = Crowd(server, stack)
        for beat in range(20):
            woke_at = server._door._woke_at
            service.board.show(changed(last_heartbeat=f"2026-01-01T00:00:{beat:02}Z"), "0")
            wait_until(lambda before=woke_at: server._door._woke_at > before)
        wait_until(lambda: not server._door._streams._news.is_set())
        assert crowd.answered(crowd.waiters) == 0
        assert crowd.answered([client.sock for client in crowd.streams]) == 0
        assert len(server._door._waiters) == WAITERS


def test_a_poller_beside_them_is_answered_and_no_thread_is_held(server: HttpServer, service: FakeService) -> None:
    with ExitStack() as stack:
        crowd = Crowd(server, stack)
        poller = stack.enter_context(connected(server))
        slowest = 0.0
        for n in range(500):
            if n % 50 == 0:
                service.board.show(changed(last_heartbeat=f"2026-01-01T00:{n // 60:02}:{n % 60:02}Z"), "0")
            begun = time.monotonic()
            poller.sendall(b"GET /api/scrape-status HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert read_answer(poller)[0].status == 200
            slowest = max(slowest, time.monotonic() - begun)
        assert slowest < SOON_S
        names = [t.name for t in threading.enumerate()]
        assert sum(name.startswith("events") for name in names) <= 3
        assert sum(name.startswith("http_") for name in names) == 0
        assert crowd.answered(crowd.waiters) == 0


def test_a_crowd_that_leaves_at_once_leaves_nothing_behind(server: HttpServer, service: FakeService) -> None:
    with ExitStack() as stack:
        Crowd(server, stack)
    wait_until(lambda: server._door._places.taken == 0 and not server._connections.connections)
    assert (len(server._door._waiters), len(server._door._streams)) == (0, 0)
    with following(server) as client:
        assert isinstance(client, Client)
        client.begin()
        service.happen()
        assert client.event().id == 1
