"""Event streams on real sockets: what they say, where they go on, and that one holds neither a thread nor another."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from api import create_app
from config import Settings
from errors import StoreUnavailable
from server import HttpServer
from tests.support.fake_service import ENTRY, FakeService, wait_until
from tests.support.wire import Bench, on_bench
from tests.unit.test_server import connected, read_answer, running
from web import streams

RETRY = "retry: 2000"


@dataclass(frozen=True)
class Told:
    id: int
    name: str
    data: dict[str, Any]


class Client:
    """Reads a stream block by block, as a browser would."""

    def __init__(self, sock: socket.socket, port: int, path: str = "/api/events", *, headers: str = "") -> None:
        self.sock = sock
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\n{headers}\r\n".encode())
        self._file = sock.makefile("rb")
        self.head = self._lines(until=b"\r\n")
        self.last_id: str | None = None
        self._ahead: list[str] = []

    def _lines(self, until: bytes) -> list[str]:
        found = []
        while (line := self._file.readline()) not in (until, b""):
            found.append(line.decode().rstrip("\r\n"))
        return found

    def block(self) -> list[str] | None:
        """The next lines up to an empty one; None at the end of the stream."""
        while not self._ahead:
            size = int(self._file.readline() or b"0", 16)
            chunk = self._file.read(size)
            self._file.readline()
            if size == 0:
                return None
            self._ahead = chunk.decode().removesuffix("\n\n").split("\n\n")
        lines = self._ahead.pop(0).split("\n")
        for line in lines:
            if line.startswith("id: "):
                self.last_id = line[4:]
        return lines

    def begin(self) -> list[str]:
        """The first block; from here on the stream is open."""
        assert self.head[0] == "HTTP/1.1 200 OK", self.head
        block = self.block()
        assert block is not None
        return block

    def event(self) -> Told:
        """The next event; comments are passed over."""
        while (block := self.block()) is not None:
            if block[0].startswith(":"):
                continue
            fields = dict(line.split(": ", 1) for line in block)
            if "data" in fields:
                return Told(int(fields["id"]), fields["event"], json.loads(fields["data"]))
        raise EOFError

    def close(self) -> None:
        self._file.close()
        self.sock.close()


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def server(service: FakeService) -> Iterator[HttpServer]:
    with running(service) as it:
        yield it


@contextmanager
def following(server: HttpServer, path: str = "/api/events", *, headers: str = "") -> Iterator[Client]:
    with connected(server) as sock:
        client = Client(sock, server.port, path, headers=headers)
        try:
            yield client
        finally:
            client.close()


def open_streams(server: HttpServer) -> int:
    return len(server._door._streams)


# -- what a stream says ----------------------------------------------------------------------------------------------


def test_a_transition_and_a_refusal_are_named_and_numbered(server: HttpServer, service: FakeService) -> None:
    with following(server) as client:
        assert client.begin() == [RETRY, "id: 0"]
        service.happen()
        assert client.event() == Told(1, "transition", ENTRY | {"to": "RUNNING", "refused_by": None})
        service.happen(refused_by="worker_gone", to=None)
        refusal = client.event()
        assert (refusal.id, refusal.name, refusal.data["refused_by"]) == (2, "refusal", "worker_gone")


def test_the_head_of_a_stream_tells_proxies_and_caches_to_keep_off(server: HttpServer) -> None:
    with following(server) as client:
        fields = {name.lower(): value for name, value in (line.split(": ", 1) for line in client.head[1:])}
    assert fields["content-type"] == "text/event-stream"
    assert fields["cache-control"] == "no-cache"
    assert fields["x-accel-buffering"] == "no"
    assert fields["x-content-type-options"] == "nosniff"
    assert "content-length" not in fields


def test_a_stream_begins_now(server: HttpServer, service: FakeService) -> None:
    service.happen(5)
    with following(server) as client:
        assert client.begin() == [RETRY, "id: 5"]
        service.happen()
        assert client.event().id == 6


def test_what_happens_between_the_request_and_the_answer_is_told(service: FakeService) -> None:
    """The place of a stream is found before its head is sent, so what a client does after it comes through."""
    with running(service) as server:
        for n in range(1, 20):
            with following(server) as client:
                service.happen()
                client.begin()
                service.happen()
                seen = client.event().id
                assert seen in (2 * n - 1, 2 * n)
                assert seen == 2 * n or client.event().id == 2 * n


@pytest.mark.parametrize("path", ["/api/events?last_event_id=3", "/api/events?last_event_id=1"])
def test_a_stream_goes_on_after_the_last_id(server: HttpServer, service: FakeService, path: str) -> None:
    service.happen(5)
    header = "" if "=3" in path else "Last-Event-ID: 3\r\n"  # the header is the newer
    with following(server, path, headers=header) as client:
        assert client.begin() == [RETRY, "id: 3"]
        assert [client.event().id for _ in range(2)] == [4, 5]
        service.happen()
        assert client.event().id == 6


def test_a_client_that_was_cut_off_before_its_first_event_has_lost_nothing(
    server: HttpServer, service: FakeService
) -> None:
    service.happen(2)
    with following(server) as client:
        client.begin()
        last = client.last_id
    service.happen(2)
    with following(server, headers=f"Last-Event-ID: {last}\r\n") as client:
        client.begin()
        assert [client.event().id for _ in range(2)] == [3, 4]


def test_an_id_of_another_database_begins_now(server: HttpServer, service: FakeService) -> None:
    service.happen(2)
    with following(server, headers="Last-Event-ID: 4000\r\n") as client:
        assert client.begin() == [RETRY, "id: 2"]
        service.happen()
        assert client.event().id == 3


def test_a_long_history_comes_whole_and_in_order(server: HttpServer, service: FakeService) -> None:
    service.happen(1000)
    with following(server, "/api/events?last_event_id=0") as client:
        client.begin()
        assert [client.event().id for _ in range(1000)] == list(range(1, 1001))
        service.happen()
        assert client.event().id == 1001


def test_a_stream_that_falls_behind_the_ring_reads_the_journal(server: HttpServer, service: FakeService) -> None:
    with following(server) as client:
        client.begin()
        service.happen(3000, reason="x" * 4000)
        wait_until(lambda: server._door._streams._ring.last == 3000)
        floor, before = server._door._streams._ring.floor, len(service.asked)
        assert [client.event().id for _ in range(3000)] == list(range(1, 3001))
        assert any(asked["after"] < floor for _, asked in service.asked[before:])


def test_a_silent_stream_sends_comments(service: FakeService) -> None:
    with running(service, comment_interval_s=0.1) as server, following(server) as client:
        client.begin()
        assert [client.block() for _ in range(3)] == [[":"]] * 3
        service.happen()
        assert client.event().id == 1


def test_a_heartbeat_is_no_event(server: HttpServer, service: FakeService) -> None:
    with following(server) as client:
        client.begin()
        for _ in range(20):
            service.board.announce()
        wait_until(lambda: any(asked["after"] == 0 for verb, asked in service.asked if verb == "events"))
        service.happen()
        assert client.event().id == 1


# -- who may ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("GET /api/events?last_event_id=x HTTP/1.1", 400),
        ("GET /api/events?last_event_id=-1 HTTP/1.1", 400),
        ("GET /api/events?colour=red HTTP/1.1", 400),
        ("GET /api/events HTTP/1.1\r\nLast-Event-ID: x", 400),
        ("GET /api/events HTTP/1.1\r\nLast-Event-ID: 9999999999999999999999", 400),
        ("GET /api/events HTTP/1.1\r\nLast-Event-ID: 1\r\nLast-Event-ID: 2", 400),
        ("GET /api/events HTTP/1.1\r\nHost: evil.example", 400),
        ("POST /api/events HTTP/1.1", 405),
        ("DELETE /api/events HTTP/1.1", 405),
        ("GET /api/events/ HTTP/1.1", 404),
    ],
)
def test_what_is_no_stream_is_an_error_in_json(server: HttpServer, head: str, status: int) -> None:
    with connected(server) as sock:
        sock.sendall(f"{head}\r\nHost: localhost\r\n\r\n".encode())
        response, body = read_answer(sock)
    assert response.status == status
    assert {"error", "code"} <= set(json.loads(body))
    assert server._door._places.taken == 0


def test_an_empty_last_event_id_is_none(server: HttpServer, service: FakeService) -> None:
    service.happen(2)
    with following(server, "/api/events?last_event_id=", headers="Last-Event-ID:\r\n") as client:
        assert client.begin() == [RETRY, "id: 2"]


def test_head_and_options_hold_no_place(server: HttpServer) -> None:
    with connected(server) as sock:
        for method in ("HEAD", "OPTIONS", "HEAD"):
            sock.sendall(f"{method} /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            response, body = read_answer(sock, method)
            assert (response.status, body) == (204 if method == "OPTIONS" else 200, b"")
            if method == "HEAD":
                assert response.headers["Content-Type"] == "text/event-stream"
    assert server._door._places.taken == 0


def test_the_gate_stands_before_a_stream(service: FakeService) -> None:
    settings = Settings(port=0, api_token="secret", allowed_origins="https://app.example.org")
    with running(service, settings=settings) as server:
        with connected(server) as sock:
            sock.sendall(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert read_answer(sock)[0].status == 401
        with connected(server) as sock:
            sock.sendall(b"GET /api/events HTTP/1.1\r\nHost: evil.example\r\n\r\n")
            assert read_answer(sock)[0].status == 403
        own = "Authorization: Bearer secret\r\nOrigin: https://app.example.org\r\n"
        with following(server, headers=own) as client:
            assert client.begin() == [RETRY, "id: 0"]
            assert "access-control-allow-origin: https://app.example.org" in client.head


# -- places, threads, ends -------------------------------------------------------------------------------------------


def test_long_polls_and_streams_share_their_places(service: FakeService) -> None:
    with running(service, settings=Settings(port=0, max_waiters=2)) as server, ExitStack() as stack:
        client = stack.enter_context(following(server))
        client.begin()
        poll, third = (stack.enter_context(connected(server)) for _ in range(2))
        poll.sendall(b"GET /api/scrape-status?wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_until(lambda: server._door._places.taken == 2)
        third.sendall(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        response, body = read_answer(third)
        told = json.loads(body)
        assert (response.status, told["code"], response.headers["Retry-After"]) == (503, "too_many_waiting", "5")
        assert "max_waiters" in told["hint"]
        third.sendall(b"GET /api/scrape-status?wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert read_answer(third)[0].status == 200
        client.close()
        wait_until(lambda: server._door._places.taken == 1)
        with following(server) as again:
            again.begin()


def test_a_client_that_leaves_frees_its_place_and_with_the_last_the_hub_rests(
    server: HttpServer, service: FakeService
) -> None:
    with following(server) as first:
        first.begin()
        with following(server) as second:
            second.begin()
            assert open_streams(server) == 2
        wait_until(lambda: open_streams(server) == 1)
        service.happen()
        assert first.event().id == 1
    wait_until(lambda: open_streams(server) == 0 and server._door._places.taken == 0)
    asked = len(service.asked)
    service.happen(3)
    assert (server._door._streams._hub, server._door._streams._ring) == (None, None)
    with following(server) as third:
        assert third.begin() == [RETRY, "id: 4"]
        service.happen()
        assert third.event().id == 5
    assert len(service.asked) > asked


def test_a_client_that_leaves_with_a_call_behind_its_stream_frees_its_place(service: FakeService) -> None:
    async def test(bench: Bench) -> None:
        line = bench.line()
        line.connection.data_received(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2)
        await bench.settle(within_s=0.1)
        assert (bench.door._places.taken, len(bench.door._streams)) == (1, 1)
        line.leave()
        await bench.settle()
        assert (bench.door._places.taken, len(bench.door._streams)) == (0, 0)

    on_bench(test, service)


def test_one_read_serves_all_streams(server: HttpServer, service: FakeService) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(following(server)) for _ in range(20)]
        for client in clients:
            client.begin()
        before = len(service.asked)
        service.happen(30)
        for client in clients:
            assert [client.event().id for _ in range(30)] == list(range(1, 31))
        assert len(service.asked) - before <= 3


def test_publications_in_a_row_are_read_at_most_ten_times_a_second(server: HttpServer, service: FakeService) -> None:
    with following(server) as client:
        client.begin()
        before, begun = len(service.asked), time.monotonic()
        for _ in range(300):
            service.happen()
            threading.Event().wait(0.002)
        assert [client.event().id for _ in range(300)] == list(range(1, 301))
        took = time.monotonic() - begun
        assert len(service.asked) - before <= took / streams.INTERVAL_S + 6  # pages of 100 come on top


def test_many_that_come_back_take_few_threads(server: HttpServer, service: FakeService) -> None:
    service.happen(50)
    with ExitStack() as stack:
        path = "/api/events?last_event_id=0"
        clients = [stack.enter_context(following(server, path)) for _ in range(60)]
        for client in clients:
            client.begin()
            assert [client.event().id for _ in range(50)] == list(range(1, 51))
    assert service.most_reading <= streams.READERS + 1
    assert sum(t.name.startswith("events") for t in threading.enumerate()) <= streams.READERS + 1


def test_events_come_while_every_thread_of_flask_is_busy(service: FakeService) -> None:
    release = threading.Event()
    service.answers["users"] = lambda: release.wait(10) and {}
    with running(service) as server, ExitStack() as stack:
        socks = [stack.enter_context(connected(server)) for _ in range(40)]
        for sock in socks:
            sock.sendall(b"GET /api/users HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_until(lambda: sum(verb == "users" for verb, _ in service.asked) >= 24)
        with following(server) as client:
            client.begin()
            service.happen()
            assert client.event().id == 1
        release.set()


def test_a_client_that_reads_nothing_holds_nobody_and_is_closed(service: FakeService) -> None:
    with running(service, write_timeout_s=1.0) as server, ExitStack() as stack:
        stuck = stack.enter_context(connected(server))
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.sendall(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        client = stack.enter_context(following(server))
        client.begin()
        wait_until(lambda: open_streams(server) == 2)
        for n in range(20):
            service.happen(100, reason="x" * 4000)
            assert [client.event().id for _ in range(100)] == list(range(n * 100 + 1, n * 100 + 101))
        wait_until(lambda: open_streams(server) == 1)
        service.happen()
        assert client.event().id == 2001


def test_stop_ends_streams_cleanly(service: FakeService, caplog: pytest.LogCaptureFixture) -> None:
    with running(service) as server, ExitStack() as stack:
        clients = [stack.enter_context(following(server)) for _ in range(20)]
        for client in clients:
            client.begin()
        begun = time.monotonic()
        server.stop(5.0)
        assert time.monotonic() - begun < 2.0
        assert [client.block() for client in clients] == [None] * 20
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


def test_stop_is_bounded_when_a_client_reads_nothing(service: FakeService, caplog: pytest.LogCaptureFixture) -> None:
    with running(service) as server, connected(server) as stuck:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.sendall(b"GET /api/events?last_event_id=0 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_until(lambda: open_streams(server) == 1)
        service.happen(2000, reason="x" * 4000)
        wait_until(lambda: any(c.flow.write_paused for c in server._connections.connections))
        begun = time.monotonic()
        server.stop(0.5)
        assert time.monotonic() - begun < 2.0
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_new_stream_is_refused_while_the_server_stops(service: FakeService) -> None:
    release = threading.Event()
    service.answers["users"] = lambda: release.wait(10) and {}
    with running(service) as server, ExitStack() as stack:
        busy, late = (stack.enter_context(connected(server)) for _ in range(2))
        busy.sendall(b"GET /api/users HTTP/1.1\r\nHost: localhost\r\n\r\n")
        late.sendall(b"GET /api/users HTTP/1.1\r\nHost: localhost\r\n\r\nGET /api/events HTTP/1.1\r\n")
        wait_until(lambda: len(service.asked) == 2)
        server._loop.call_soon_threadsafe(server._door.close)
        release.set()
        late.sendall(b"Host: localhost\r\n\r\n")
        reader = late.makefile("rb")
        wait_until(lambda: b"503" in reader.readline())
        reader.close()


# -- a store that is away --------------------------------------------------------------------------------------------


def test_a_stream_stays_open_while_the_store_is_away_and_goes_on(
    server: HttpServer, service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    with following(server) as client:
        client.begin()
        service.answers["events"] = StoreUnavailable("the database could not be read")
        before = len(service.asked)
        service.happen(3)
        wait_until(lambda: len(service.asked) > before + 1)
        del service.answers["events"]
        assert [client.event().id for _ in range(3)] == [1, 2, 3]
    assert caplog.text.count("events_not_read") == 1


@pytest.mark.parametrize(("header", "ids"), [("", []), ("Last-Event-ID: 1\r\n", [2, 3])])
def test_a_stream_opens_while_the_store_is_away(
    server: HttpServer, service: FakeService, header: str, ids: list[int]
) -> None:
    service.happen(3)
    service.answers["events"] = StoreUnavailable("the database is not ready yet")
    with following(server, headers=header) as client:
        assert client.begin() == [RETRY]
        assert client.block() == [":"]
        del service.answers["events"]
        while (block := client.block()) == [":"]:
            pass
        assert block == [RETRY, f"id: {1 if header else 3}"]
        service.happen()
        assert [client.event().id for _ in range(len(ids) + 1)] == [*ids, 4]


def test_a_fault_in_the_hub_is_logged_and_the_hub_goes_on(
    server: HttpServer, service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    with following(server) as client:
        client.begin()
        service.answers["events"] = ZeroDivisionError("a mistake of ours")
        service.happen()
        wait_until(lambda: "a mistake of ours" in caplog.text)
        del service.answers["events"]
        assert client.event().id == 1


def test_a_fault_at_the_opening_is_a_500_in_json(server: HttpServer, service: FakeService) -> None:
    service.answers["events"] = ZeroDivisionError("a mistake of ours")
    with connected(server) as sock:
        sock.sendall(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert read_answer(sock)[0].status == 500
    wait_until(lambda: server._door._places.taken == 0)


# -- without the door ------------------------------------------------------------------------------------------------


def test_flask_gives_what_there_is_and_ends_when_the_door_is_not_there(service: FakeService) -> None:
    client = create_app(service, Settings()).test_client()
    service.happen(3)
    assert client.get("/api/events").data == b"retry: 2000\nid: 3\n\n"
    response = client.get("/api/events", headers={"Last-Event-ID": "1"})
    assert response.content_type == "text/event-stream"
    assert [line for line in response.text.split("\n") if line.startswith("id")] == ["id: 1", "id: 2", "id: 3"]
    assert client.get("/api/events?last_event_id=2").text.count("event: transition") == 1
    assert client.get("/api/events", headers={"Last-Event-ID": "x"}).status_code == 400
    assert client.head("/api/events").data == b""
    service.answers["events"] = StoreUnavailable("the database could not be read")
    assert client.get("/api/events").status_code == 503
