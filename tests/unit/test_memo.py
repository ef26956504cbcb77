"""Requests that came before: answered as if they had gone the usual way, and only where that can be known."""

from __future__ import annotations

import itertools
import random
import socket
import threading
import time
from collections.abc import Awaitable, Callable

import pytest

from config import Settings
from server import HttpServer
from tests.support.fake_service import STATUS, TARGET_STATUS, FakeService, wait_until
from tests.support.wire import Bench, Crowded, answers_alike, on_bench
from tests.unit.test_server import connected, is_closed, read_answer, running
from web.memo import HEAD_BYTES, MOST

PATH = "/api/scrape-status"


def request(
    path: str = PATH, *headers: str, method: str = "GET", version: str = "1.1", host: str = "localhost"
) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/{version}", f"Host: {host}", *headers, "", ""]).encode("latin-1")


POLL = request()
KNOWN = request(PATH, 'If-None-Match: W/"0"')
HEAD = request(method="HEAD")


@pytest.fixture
def service() -> FakeService:
    return FakeService()


def on_memo(service: FakeService, **settings: object) -> Callable[[Callable[[Bench], Awaitable[None]]], None]:
    return lambda test: on_bench(test, service, **settings)


# -- the same answers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        (),
        ('If-None-Match: W/"0"',),
        ('If-None-Match: "0", "9"',),
        ("If-None-Match: *",),
        ('If-None-Match: W/"older"',),
        ('If-None-Match: "x"', 'If-None-Match: W/"0"'),
        ("Origin: https://app.example.org",),
        ("Origin: https://evil.example",),
        ("Connection: keep-alive", "Accept: */*"),
    ],
)
@pytest.mark.parametrize("path", [PATH, f"{PATH}?sweep_id=4", f"{PATH}?wait=0", "/api/targets/7/status"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_second_answer_is_the_first_byte_for_byte(
    service: FakeService, headers: tuple[str, ...], path: str, method: str
) -> None:
    service.board.show(STATUS | {"sweep_id": 4}, "0", sweep=4)
    service.board.show(TARGET_STATUS, "0", target=7)

    @on_memo(service, allowed_origins=("https://app.example.org",))
    async def _(bench: Bench) -> None:
        asked = request(path, *headers, method=method)
        line = bench.line()
        first = await line.send(asked)
        assert (bench.parsed, len(bench.memo)) == (1, 1)
        assert first.startswith((b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 304 Not Modified\r\n"))
        assert [await line.send(asked) for _ in range(3)] == [first] * 3
        assert await bench.line().send(asked) == first
        assert bench.parsed == 1


def test_a_tag_is_compared_with_the_page_that_is_shown_now(service: FakeService) -> None:
    @on_memo(service)
    async def _(bench: Bench) -> None:
        line = bench.line()
        assert b" 304 " in await line.send(KNOWN)
        service.board.show(STATUS | {"progress": "1 of 2"}, "1")
        answer = await line.send(KNOWN)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b'etag: W/"1"' in answer
        assert b"1 of 2" in answer
        service.board.show(STATUS, "0")
        assert b" 304 " in await line.send(KNOWN)
        assert bench.parsed == 1


def test_a_heartbeat_is_seen_although_the_tag_is_the_same(service: FakeService) -> None:
    @on_memo(service)
    async def _(bench: Bench) -> None:
        line = bench.line()
        await line.send(POLL)
        service.board.show(STATUS | {"last_heartbeat": "2026-01-01T00:00:01Z"}, "0")
        assert b"2026-01-01T00:00:01Z" in await line.send(POLL)
        assert bench.parsed == 1


def test_the_date_is_the_current_one(service: FakeService) -> None:
    @on_memo(service)
    async def _(bench: Bench) -> None:
        line = bench.line()
        await line.send(POLL)
        bench.state.default_headers = [(b"date", b"tomorrow")]
        await line.send(POLL)
        assert line.wire.written.count(b"date: today\r\n") == line.wire.written.count(b"date: tomorrow\r\n") == 1
        assert bench.parsed == 1


def test_what_the_board_does_not_hold_any_more_goes_the_usual_way(service: FakeService) -> None:
    service.board.show(TARGET_STATUS, "t", target=7)

    @on_memo(service)
    async def _(bench: Bench) -> None:
        line, asked = bench.line(), request("/api/targets/7/status")
        await line.send(asked)
        del service.board.targets[7]
        service.answers["target_status"] = TARGET_STATUS | {"state": "FAILED"}
        assert b"FAILED" in await line.send(asked)
        service.board.show(TARGET_STATUS, "t", target=7)
        assert b"IDLE" in await line.send(asked)
        assert bench.parsed == 2


def test_a_fault_of_the_board_is_answered_as_ever(service: FakeService, caplog: pytest.LogCaptureFixture) -> None:
    @on_memo(service)
    async def _(bench: Bench) -> None:
        line = bench.line()
        first = await line.send(POLL)
        pages, service.board.sweeps = service.board.sweeps, None
        assert (await line.send(POLL)).startswith(b"HTTP/1.1 500 ")
        service.board.sweeps = pages
        assert await line.send(POLL) == first

    assert "request_failed" in caplog.text


# -- what is not kept ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "asked",
    [
        request(f"{PATH}?wait=0.05", 'If-None-Match: W/"0"'),
        request(f"{PATH}?wait=5", 'If-None-Match: W/"older"'),
        request(f"{PATH}?wait=x"),
        request(f"{PATH}?sweep_id=3"),
        request("/healthz"),
        request("/readyz"),
        request("/api/users"),
        request("/nowhere"),
        request(method="OPTIONS"),
        request(PATH, "Content-Length: 0", method="POST"),
        request(PATH, "Content-Length: 0"),
        request(PATH, "Content-Length: 2") + b"{}",
        request(PATH, "Transfer-Encoding: chunked") + b"0\r\n\r\n",
        request(PATH, "Expect: 100-continue"),
        request(PATH, "Connection: close"),
        request(PATH, "Connection: Upgrade", "Upgrade: h2c"),
        request(PATH, "Upgrade: h2c"),
        request(version="1.0"),
        request(PATH, "Connection: keep-alive", version="1.0"),
        request(version="2.0"),
        request(host="evil.example"),
        request(PATH, "Host: localhost"),
        request(PATH, f"X: {'x' * HEAD_BYTES}"),
        POLL + POLL,
        POLL + b"GET ",
        b"not HTTP\r\n\r\n",
    ],
)
def test_what_is_more_or_other_than_a_plain_status_call_is_not_kept(service: FakeService, asked: bytes) -> None:
    @on_memo(service)
    async def _(bench: Bench) -> None:
        for _ in range(2):
            await bench.line().send(asked)
        assert len(bench.memo) == 0


def test_a_head_that_comes_in_pieces_is_not_kept_and_not_looked_up(service: FakeService) -> None:
    @on_memo(service)
    async def _(bench: Bench) -> None:
        line = bench.line()
        first = await line.send(POLL[:10], POLL[10:])
        assert (bench.parsed, len(bench.memo)) == (1, 0)
        assert await line.send(POLL) == first
        assert await line.send(POLL[:1], POLL[1:]) == first
        assert (bench.parsed, len(bench.memo)) == (3, 1)


def test_a_body_that_looks_like_a_request_is_a_body(service: FakeService) -> None:
    @on_memo(service)
    async def _(bench: Bench) -> None:
        line = bench.line()
        await line.send(POLL)
        assert await line.send(request("/api/users/add", f"Content-Length: {len(POLL)}", method="POST"), POLL) != b""
        assert line.wire.written.count(b"HTTP/1.1 ") == 2


def test_a_token_that_is_wrong_stays_wrong_beside_one_that_is_right(service: FakeService) -> None:
    @on_memo(service, api_token="secret")
    async def _(bench: Bench) -> None:
        for given, status in [("secret", 200), ("secres", 401), ("secret", 200), ("Secret", 401)]:
            answer = await bench.line().send(request(PATH, f"Authorization: Bearer {given}"))
            assert answer.startswith(f"HTTP/1.1 {status} ".encode())
        assert (await bench.line().send(POLL)).startswith(b"HTTP/1.1 401 ")
        assert len(bench.memo) == 1


def test_a_host_that_is_ours_at_one_address_is_not_at_another(service: FakeService) -> None:
    @on_memo(service, host="0.0.0.0", api_token="secret")
    async def _(bench: Bench) -> None:
        asked = request(PATH, "Authorization: Bearer secret", host="192.0.2.1:5000")
        for local, status in [("192.0.2.1", 200), ("192.0.2.2", 403), ("192.0.2.1", 200), ("192.0.2.2", 403)]:
            assert (await bench.line(local).send(asked)).startswith(f"HTTP/1.1 {status} ".encode())


def test_it_holds_so_many_and_no_more(service: FakeService) -> None:
    @on_memo(service)
    async def _(bench: Bench) -> None:
        line = bench.line()
        for number in range(MOST + 20):
            await line.send(request(PATH, f"X: {number}"))
        assert len(bench.memo) == MOST
        await line.send(request(PATH, f"X: {MOST + 19}"))
        assert bench.parsed == MOST + 20
        await line.send(request(PATH, "X: 0"))
        assert bench.parsed == MOST + 21


def test_a_known_request_behind_one_that_waits_is_answered_after_it(service: FakeService) -> None:
    @on_memo(service)
    async def _(bench: Bench) -> None:
        line = bench.line()
        await line.send(POLL)
        line.connection.data_received(request(f"{PATH}?wait=0.05", 'If-None-Match: W/"0"'))
        answers = await line.send(POLL)
        assert answers.index(b" 304 ") < answers.index(b" 200 ")
        assert bench.parsed == 3


def test_a_known_request_of_a_client_that_does_not_read_waits_until_it_does(service: FakeService) -> None:
    @on_memo(service)
    async def _(bench: Bench) -> None:
        line = bench.line()
        first = await line.send(POLL)
        line.connection.pause_writing()
        before = line.wire.written
        line.connection.data_received(POLL)
        line.connection.data_received(POLL)
        await bench.settle(within_s=0.05)
        assert line.wire.written == before
        assert line.wire.paused
        line.connection.resume_writing()
        assert await line.send(POLL) == first * 3


# -- streams of requests ---------------------------------------------------------------------------------------------

PIECES = [
    *[POLL] * 20,
    KNOWN,
    HEAD,
    POLL + POLL,
    POLL + KNOWN + HEAD,
    POLL + b"\r\n",
    b"\r\n",
    b"\r",
    b"\n",
    request("/healthz"),
    request("/api/users"),
    request("/nowhere"),
    request(f"{PATH}?wait=0.01", 'If-None-Match: W/"0"'),
    request(PATH, "Content-Length: 0"),
    request(PATH, "Content-Length: 5") + b"hello",
    request(PATH, f"Content-Length: {len(POLL)}") + POLL,
    request(PATH, "Transfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\n\r\n",
    request("/api/users/refresh-all", "Content-Length: 2", "Content-Type: application/json", method="POST") + b"{}",
    request("/api/users/add", "Content-Length: 9999999", method="POST"),
    request(PATH, "Connection: close"),
    request(version="1.0"),
    request(PATH, "Expect: 100-continue"),
    request(PATH, "Connection: Upgrade", "Upgrade: h2c"),
    request(host="evil.example"),
    POLL[:20],
    POLL.replace(b"\r\n", b"\n"),
    POLL.lower(),
    b" " + POLL,
    b"garbage\r\n\r\n",
    b"\x00",
]


@pytest.mark.parametrize("seed", range(40))
def test_any_stream_of_requests_is_answered_as_without_the_memo(
    service: FakeService, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    chance = random.Random(seed)
    streams = [stream(chance) for _ in range(25)]
    answers_alike(service, streams)
    answers_alike(service, streams, POLL, KNOWN, HEAD)
    answers_alike(service, streams, POLL, turnstile=Crowded)
    assert "ERROR" not in [record.levelname for record in caplog.records]


def stream(chance: random.Random) -> list[bytes]:
    """A few requests, most of them as one read each, some cut elsewhere than between requests."""
    reads = [chance.choice(PIECES) for _ in range(chance.randint(1, 8))]
    if chance.random() < 0.4:
        whole = b"".join(reads)
        cuts = sorted({0, len(whole), *(chance.randrange(len(whole)) for _ in range(chance.randint(1, 6)))})
        reads = [whole[a:b] for a, b in itertools.pairwise(cuts)]
    return reads


@pytest.mark.parametrize(
    "after",
    [
        [b"garbage\r\n\r\n"],
        [b"\x00"],
        [POLL[:20] + b"\x00"],
        [POLL[:20], b"\x00"],
        [b"GET / HTTP/1.1\r\nX:", b"x" * 70_000],
    ],
)
@pytest.mark.parametrize("hits", [1, 3])
def test_what_is_no_http_after_a_hit_is_refused_as_ever(service: FakeService, after: list[bytes], hits: int) -> None:
    ((answer, closed),) = answers_alike(service, [[POLL] * hits + after], POLL)
    assert closed
    assert answer.count(b"HTTP/1.1 200 OK") == hits


# -- time, and a client that does not read ---------------------------------------------------------------------------


def ask(sock: socket.socket) -> None:
    sock.sendall(POLL)
    assert read_answer(sock)[0].status == 200


def parsed(server: HttpServer) -> int:
    return server._connections.total_requests


def test_polling_keeps_a_connection_open_and_resting_closes_it(service: FakeService) -> None:
    with running(service, idle_timeout_s=1) as server, connected(server) as first, connected(server) as sock:
        ask(first)
        for _ in range(8):
            ask(sock)
            threading.Event().wait(0.2)
        assert not is_closed(sock)
        wait_until(lambda: is_closed(sock))
        assert parsed(server) == 1


def test_a_connection_whose_first_request_is_known_is_not_taken_for_one_without_a_head(service: FakeService) -> None:
    with running(service, head_timeout_s=0.1, idle_timeout_s=2) as server:
        with connected(server) as first:
            ask(first)
        with connected(server) as sock:
            ask(sock)
            begun = time.monotonic()
            wait_until(lambda: is_closed(sock))
            assert time.monotonic() - begun > 1.0
        assert parsed(server) == 1


def test_a_head_that_does_not_come_after_a_hit_closes_the_connection(service: FakeService) -> None:
    with running(service, head_timeout_s=0.2) as server, connected(server) as sock:
        ask(sock)
        ask(sock)
        sock.sendall(POLL[:10])
        wait_until(lambda: is_closed(sock))
        assert parsed(server) == 1


def test_a_slow_request_after_a_hit_is_not_cut_off_by_the_timer_for_idle_connections(service: FakeService) -> None:
    with running(service, idle_timeout_s=1) as server, connected(server) as first, connected(server) as sock:
        ask(first)
        ask(sock)
        sock.sendall(request(f"{PATH}?wait=1.5", 'If-None-Match: W/"0"'))
        assert read_answer(sock)[0].status == 304


def test_stop_closes_connections_that_were_only_ever_answered_from_memory(service: FakeService) -> None:
    with running(service) as server, connected(server) as first, connected(server) as sock:
        ask(first)
        ask(sock)
        begun = time.monotonic()
        server.stop(5.0)
        assert time.monotonic() - begun < 2.0
        assert is_closed(sock)


def test_a_client_that_asks_and_does_not_read_is_dropped(service: FakeService) -> None:
    service.board.show(STATUS | {"progress": "x" * 20_000}, "0")
    with running(service, settings=Settings(port=0), write_timeout_s=0.2) as server, connected(server) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(0.1)

        def asks_on() -> bool:
            try:
                sock.sendall(POLL)
            except OSError:
                pass
            return not server._connections.connections

        wait_until(lambda: server._connections.connections)
        wait_until(asks_on)
