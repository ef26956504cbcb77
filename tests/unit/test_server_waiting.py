"""Long polls: who is woken, when, and by what; and that waiting costs neither a thread nor a place for ever."""

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

from api import create_app
from config import Settings
from errors import NotFound
from server import HttpServer
from tests.support.fake_service import STATUS, TARGET_STATUS, FakePage, FakeService, wait_until
from tests.support.wire import Bench, on_bench
from tests.unit.test_server import connected, read_answer, running
from web.status import StatusCall, asked_page


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def server(service: FakeService) -> Iterator[HttpServer]:
    with running(service) as it:
        yield it


def waiting(server: HttpServer) -> int:
    return len(server._door._waiters)


def poll(sock: socket.socket, path: str = "/api/scrape-status?wait=60", tags: str | None = None) -> None:
    known = f"If-None-Match: {tags}\r\n" if tags else ""
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{known}\r\n".encode())


def answered(sock: socket.socket) -> bool:
    return bool(select.select([sock], [], [], 0)[0])


def changed(**fields: Any) -> dict[str, Any]:
    return STATUS | fields


def test_a_wait_without_an_entity_tag_ends_with_the_next_change(server: HttpServer, service: FakeService) -> None:
    with connected(server) as sock:
        poll(sock)
        wait_until(lambda: waiting(server) == 1)
        service.board.show(changed(progress="1 of 2"), "1")
        response, body = read_answer(sock)
        assert (response.status, response.headers["ETag"]) == (200, 'W/"1"')
        assert json.loads(body)["progress"] == "1 of 2"
    wait_until(lambda: server._door._places.taken == 0)


def test_a_wait_with_the_current_entity_tag_ends_with_the_next_change(server: HttpServer, service: FakeService) -> None:
    with connected(server) as sock:
        poll(sock, tags='W/"0"')
        wait_until(lambda: waiting(server) == 1)
        service.board.show(changed(progress="1 of 2"), "1")
        assert read_answer(sock)[0].status == 200


def test_a_wait_with_another_entity_tag_is_answered_at_once(server: HttpServer) -> None:
    with connected(server) as sock:
        poll(sock, tags='W/"older"')
        assert read_answer(sock)[0].status == 200


@pytest.mark.parametrize(("tags", "status"), [('W/"0"', 304), ("*", 304), (None, 200)])
def test_without_a_change_a_wait_ends_with_its_time(server: HttpServer, tags: str | None, status: int) -> None:
    begun = time.monotonic()
    with connected(server) as sock:
        poll(sock, "/api/scrape-status?wait=0.3", tags)
        assert read_answer(sock)[0].status == status
    assert 0.3 <= time.monotonic() - begun < 2.0


def test_a_heartbeat_wakes_nobody(server: HttpServer, service: FakeService) -> None:
    with connected(server) as sock:
        poll(sock, tags='W/"0"')
        wait_until(lambda: waiting(server) == 1)
        for beat in range(50):
            woke_at = server._door._woke_at
            service.board.show(changed(last_heartbeat=f"2026-01-01T00:00:{beat:02}Z"), "0")
            wait_until(lambda before=woke_at: server._door._woke_at > before)
        assert not answered(sock)
        service.board.show(changed(state="FAILED"), "1")
        assert read_answer(sock)[0].status == 200


def test_two_hundred_waiters_are_woken_by_one_change_within_100_ms(server: HttpServer, service: FakeService) -> None:
    with ExitStack() as stack:
        socks = [stack.enter_context(connected(server)) for _ in range(200)]
        for number, sock in enumerate(socks):
            poll(sock, tags='W/"0"' if number % 2 else None)
        wait_until(lambda: waiting(server) == 200)
        begun = time.monotonic()
        service.board.show(changed(state="FAILED"), "1")
        wait_until(lambda: all(map(answered, socks)))
        took = time.monotonic() - begun
        assert {read_answer(sock)[0].status for sock in socks} == {200}
    assert took < 0.5  # 0.1 on a quiet machine
    wait_until(lambda: server._door._places.taken == 0)


def test_a_change_of_another_sweep_wakes_nobody(server: HttpServer, service: FakeService) -> None:
    service.board.show(changed(sweep_id=4), "4", sweep=4)
    with connected(server) as sock:
        poll(sock, "/api/scrape-status?sweep_id=4&wait=60")
        wait_until(lambda: waiting(server) == 1)
        woke_at = server._door._woke_at
        service.board.show(changed(progress="other"), "1")
        wait_until(lambda: server._door._woke_at > woke_at)
        assert not answered(sock)
        service.board.show(changed(sweep_id=4, state="FAILED"), "5", sweep=4)
        assert json.loads(read_answer(sock)[1])["state"] == "FAILED"


def test_a_sweep_that_the_board_lets_go_wakes_those_who_wait_for_it(server: HttpServer, service: FakeService) -> None:
    service.board.show(changed(sweep_id=4), "4", sweep=4)
    with connected(server) as sock:
        poll(sock, "/api/scrape-status?sweep_id=4&wait=60")
        wait_until(lambda: waiting(server) == 1)
        del service.board.sweeps[4]
        service.board.show(STATUS, "1")
        assert read_answer(sock)[0].status == 200
    assert service.asked == [("scrape_status", {"sweep_id": 4})]


def test_a_sweep_that_is_over_is_waited_for_until_the_time_ends(server: HttpServer, service: FakeService) -> None:
    with connected(server) as sock:
        poll(sock, "/api/scrape-status?sweep_id=2")
        tag = read_answer(sock)[0].headers["ETag"]
        begun = time.monotonic()
        poll(sock, "/api/scrape-status?sweep_id=2&wait=0.2", tag)
        assert read_answer(sock)[0].status == 304
        assert time.monotonic() - begun >= 0.2
        service.answers["scrape_status"] = NotFound("there is no sweep 2")
        poll(sock, "/api/scrape-status?sweep_id=2&wait=60")
        assert read_answer(sock)[0].status == 404


def test_a_target_is_pinned_while_it_is_waited_for(server: HttpServer, service: FakeService) -> None:
    service.board.cold[8] = FakePage(json.dumps(TARGET_STATUS).encode(), 'W/"cold"')
    with connected(server) as sock:
        poll(sock, "/api/targets/8/status?wait=60")
        wait_until(lambda: waiting(server) == 1)
        assert service.board.pins == {8: 1}
        service.board.show(TARGET_STATUS | {"state": "RUNNING"}, "warm", target=8)
        assert json.loads(read_answer(sock)[1])["state"] == "RUNNING"
    wait_until(lambda: service.board.pins == {8: 0})
    assert service.asked == []


def test_waiting_for_a_target_that_is_not_there_is_a_404(server: HttpServer) -> None:
    with connected(server) as sock:
        poll(sock, "/api/targets/9/status?wait=60")
        assert read_answer(sock)[0].status == 404
    wait_until(lambda: server._door._places.taken == 0)


def test_a_target_that_is_removed_wakes_those_who_wait_for_it(server: HttpServer, service: FakeService) -> None:
    service.board.show(TARGET_STATUS, "t", target=7)
    service.answers["target_status"] = NotFound("there is no target 7")
    with connected(server) as sock:
        poll(sock, "/api/targets/7/status?wait=60")
        wait_until(lambda: waiting(server) == 1)
        del service.board.targets[7]
        service.board.show(STATUS, "1")
        assert read_answer(sock)[0].status == 404


def test_a_target_that_the_board_loses_for_a_moment_wakes_nobody(server: HttpServer, service: FakeService) -> None:
    page = service.board.targets[7] = asked_page(service, StatusCall(target_id=7))
    with connected(server) as sock:
        poll(sock, "/api/targets/7/status?wait=60")
        wait_until(lambda: waiting(server) == 1)
        for asked in (2, 3):
            del service.board.targets[7]
            service.board.show(STATUS, "1")
            wait_until(lambda wanted=asked: len(service.asked) == wanted)
            service.board.targets[7] = page
        assert not answered(sock)
        service.board.show(TARGET_STATUS | {"state": "RUNNING"}, "t", target=7)
        assert json.loads(read_answer(sock)[1])["state"] == "RUNNING"


def test_beyond_max_waiters_the_answer_comes_at_once(service: FakeService) -> None:
    with running(service, settings=Settings(port=0, max_waiters=2)) as server, ExitStack() as stack:
        first, second, third = (stack.enter_context(connected(server)) for _ in range(3))
        poll(first, tags='W/"0"')
        poll(second)
        wait_until(lambda: waiting(server) == 2)
        poll(third, tags='W/"0"')
        assert read_answer(third)[0].status == 304
        poll(third)
        assert read_answer(third)[0].status == 200
        poll(third, "/api/targets/8/status?wait=60")
        assert read_answer(third)[0].status == 200
        first.close()
        wait_until(lambda: waiting(server) == 1)
        poll(third)
        wait_until(lambda: waiting(server) == 2)


def test_a_client_that_goes_away_frees_its_place_and_its_pin(server: HttpServer, service: FakeService) -> None:
    service.board.show(TARGET_STATUS, "t", target=7)
    with connected(server) as sock:
        poll(sock, "/api/targets/7/status?wait=60")
        wait_until(lambda: service.board.pins == {7: 1})
    wait_until(lambda: server._door._places.taken == 0 and service.board.pins == {7: 0})


def test_a_head_request_does_not_wait(server: HttpServer) -> None:
    with connected(server) as sock:
        sock.sendall(b"HEAD /api/scrape-status?wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert read_answer(sock, "HEAD")[0].status == 200


def test_flask_answers_a_wait_at_once_when_the_door_is_not_there(service: FakeService) -> None:
    client = create_app(service, Settings()).test_client()
    assert client.get("/api/scrape-status?wait=60").status_code == 200


@pytest.mark.parametrize("tags", ['W/"0"', None])
def test_stop_answers_those_who_wait(service: FakeService, tags: str | None) -> None:
    with running(service) as server, ExitStack() as stack:
        socks = [stack.enter_context(connected(server)) for _ in range(50)]
        for sock in socks:
            poll(sock, tags=tags)
        wait_until(lambda: waiting(server) == 50)
        begun = time.monotonic()
        server.stop(5.0)
        assert time.monotonic() - begun < 2.0
        assert {read_answer(sock)[0].status for sock in socks} == {304 if tags else 200}


def test_a_client_that_left_before_its_call_was_looked_at_does_not_wait(service: FakeService) -> None:
    async def test(bench: Bench) -> None:
        line = bench.line()
        line.connection.data_received(b"GET /api/scrape-status?wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        line.leave()
        await bench.settle()
        assert bench.door._places.taken == 0

    on_bench(test, service)


def test_a_client_that_leaves_with_several_calls_in_a_row_ends_the_one_that_waits(
    service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(bench: Bench) -> None:
        line = bench.line()
        wait = b"GET /api/scrape-status?wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n"
        line.connection.data_received(wait + wait)
        await bench.settle(within_s=0.05)
        assert bench.door._places.taken == 1
        line.leave()
        await bench.settle()
        assert bench.door._places.taken == 0

    on_bench(test, service)
    assert not caplog.records


@pytest.mark.parametrize("call", ["/api/users", "/api/targets/8/status"])
def test_a_client_that_leaves_with_several_calls_in_a_row_is_no_error(
    service: FakeService, caplog: pytest.LogCaptureFixture, call: str
) -> None:
    left = threading.Event()
    service.answers["users"] = service.answers["target_status"] = lambda: left.wait(10) and {}

    async def test(bench: Bench) -> None:
        line = bench.line()
        line.connection.data_received(f"GET {call} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() * 2)
        await bench.settle(within_s=0.05)
        line.leave()
        left.set()
        await bench.settle()

    on_bench(test, service)
    assert not caplog.records
