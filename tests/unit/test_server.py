"""The server on real sockets: bodies, heads and connections, and that whatever comes in gets an answer in JSON."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from typing import Any

import pytest

from api import create_app
from config import Settings
from errors import NotFound
from server import HttpServer
from tests.support.fake_service import STATUS, TARGET_STATUS, FakeService, wait_until

MIB = 1024 * 1024


@contextmanager
def running(service: FakeService, *, settings: Settings | None = None, **limits: Any) -> Iterator[HttpServer]:
    settings = settings or Settings(port=0)
    server = HttpServer(create_app(service, settings), service, settings, **limits)
    server.start()
    try:
        yield server
    finally:
        server.stop(2.0)


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def server(service: FakeService) -> Iterator[HttpServer]:
    with running(service) as it:
        yield it


@pytest.fixture(scope="module")
def shared() -> Iterator[HttpServer]:
    """For tests that ask its service nothing: starting and stopping takes a while."""
    with running(FakeService()) as it:
        yield it


@contextmanager
def connected(server: HttpServer) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
        yield sock


def read_answer(sock: socket.socket, method: str = "GET") -> tuple[HTTPResponse, bytes]:
    response = HTTPResponse(sock, method=method)
    response.begin()
    return response, response.read()


def ask(server: HttpServer, head: str, body: bytes = b"") -> tuple[int, dict[str, Any]]:
    """Send a request as it is written here, `Host` added; returns status and the JSON."""
    line, _, rest = head.partition("\n")
    with connected(server) as sock:
        lines = [line, f"Host: 127.0.0.1:{server.port}", *rest.splitlines(), "", ""]
        sock.sendall("\r\n".join(lines).encode("latin-1") + body)
        response, data = read_answer(sock, line.split(" ")[0])
    assert response.headers["Content-Type"] == "application/json"
    return response.status, json.loads(data) if data else {}


def is_closed(sock: socket.socket) -> bool:
    sock.settimeout(0.01)
    try:
        return sock.recv(65536) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


# -- the door and Flask ----------------------------------------------------------------------------------------------


def test_the_door_answers_as_flask_does(service: FakeService) -> None:
    settings = Settings(port=0, allowed_origins="https://app.example.org")
    service.board.show(TARGET_STATUS, "t", target=7)
    flask = create_app(service, settings).test_client()
    with running(service, settings=settings) as server:
        paths = ("/api/scrape-status", "/api/targets/7/status", "/api/targets/8/status", "/healthz", "/readyz")
        for path in (*paths, "/api/scrape-status?wait=x", "/api/targets/7/status?colour=red", "/api/users", "/x"):
            for origin in ("https://app.example.org", "https://evil.example"):
                for tags in ('"0", "t"', '"other"'):
                    for method in ("GET", "HEAD"):
                        connection = HTTPConnection("127.0.0.1", server.port, timeout=10)
                        headers = {"If-None-Match": tags, "Origin": origin}
                        connection.request(method, path, headers=headers)
                        got = connection.getresponse()
                        body, wanted = got.read(), flask.open(path, method=method, headers=headers)
                        connection.close()
                        seen = {n.lower(): v for n, v in got.getheaders() if n.lower() not in ("date", "connection")}
                        assert (got.status, body) == (wanted.status_code, wanted.data), (method, path)
                        assert seen == {n.lower(): v for n, v in wanted.headers}, (method, path)


def test_status_and_health_are_answered_while_every_thread_is_busy(service: FakeService) -> None:
    release = threading.Event()
    service.answers["users"] = lambda: release.wait(10) and {}
    service.board.show(TARGET_STATUS, "t", target=7)
    with running(service) as server:
        socks = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(60)]
        for sock in socks:
            sock.sendall(b"GET /api/users HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_until(lambda: len(service.asked) >= 24)
        for path in ("/healthz", "/readyz", "/api/scrape-status", "/api/targets/7/status"):
            assert ask(server, f"GET {path} HTTP/1.1")[0] == 200
        release.set()
        assert [read_answer(sock)[0].status for sock in socks] == [200] * 60
        for sock in socks:
            sock.close()


def test_a_target_that_the_board_does_not_hold_is_asked_for_in_a_thread(
    server: HttpServer, service: FakeService
) -> None:
    assert ask(server, "GET /api/targets/8/status HTTP/1.1")[1] == TARGET_STATUS
    service.answers["target_status"] = NotFound("there is no target 9")
    assert ask(server, "GET /api/targets/9/status HTTP/1.1")[0] == 404


def test_status_is_answered_while_the_service_drains(server: HttpServer, service: FakeService) -> None:
    service.draining = True
    assert ask(server, "GET /api/scrape-status HTTP/1.1") == (200, STATUS)


def test_an_error_inside_the_door_is_a_500_in_json(
    server: HttpServer, service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    service.answers["health"] = RuntimeError("the secret")
    status, told = ask(server, "GET /healthz HTTP/1.1")
    assert (status, told["code"]) == (500, "internal")
    assert "secret" not in told["error"]
    assert "the secret" in caplog.text


def test_the_gate_stands_before_the_door() -> None:
    with running(FakeService(), settings=Settings(port=0, api_token="secret")) as server:
        assert ask(server, "GET /api/scrape-status HTTP/1.1")[0] == 401
        assert ask(server, "GET /api/scrape-status HTTP/1.1\nAuthorization: Bearer secret")[0] == 200
        assert ask(server, "GET /healthz HTTP/1.1")[0] == 200
        with connected(server) as sock:
            sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: evil.example\r\n\r\n")
            assert read_answer(sock)[0].status == 403
        with connected(server) as sock:
            sock.sendall(f"GET /healthz HTTP/1.1\r\nHost: localhost:{server.port + 1}\r\n\r\n".encode())
            assert read_answer(sock)[0].status == 403


# -- what is sent ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("GET //api/users HTTP/1.1", 200),
        ("GET /api//users HTTP/1.1", 404),
        ("GET /api/%75sers HTTP/1.1", 200),
        ("GET /api/scrape%2Dstatus HTTP/1.1", 200),
        ("GET /%00 HTTP/1.1", 404),
        ("GET /%ff%fe HTTP/1.1", 404),
        ("GET /../../etc/passwd HTTP/1.1", 404),
        ("GET /api/users#x HTTP/1.1", 200),
        ("GET http://127.0.0.1/api/users HTTP/1.1", 200),
        ("GET http://127.0.0.1 HTTP/1.1", 400),
        ("GET * HTTP/1.1", 404),
        ("OPTIONS * HTTP/1.1", 404),
        ("CONNECT a.example:443 HTTP/1.1", 400),
        ("GET /api/users?q=\xff HTTP/1.1", 400),
        ("GET /\xff HTTP/1.1", 400),
        ("GET /api/targets/%D9%A3/status HTTP/1.1", 404),
        (f"GET /api/targets/{'9' * 5000}/status HTTP/1.1", 404),
        ("GET /api/users HTTP/1.0", 200),
        ("GET /nowhere HTTP/1.0", 404),
        ("GET /api/users HTTP/2.0", 200),
        ("GET /api/users", 200),
        ("FOO /api/users HTTP/1.1", 400),
        ("PROPFIND /api/users HTTP/1.1", 405),
        ("TRACE /api/users HTTP/1.1", 405),
        ("POST /api/scrape-status HTTP/1.1", 405),
        ("DELETE /healthz HTTP/1.1", 405),
        ("GET /api/users HTTP/1.1\nHost: 127.0.0.1", 400),
        ("GET /api/users HTTP/1.1\nOrigin: a\nOrigin: b", 400),
        ("GET /api/users HTTP/1.1\nContent-Length: x", 400),
        ("GET /api/users HTTP/1.1\nContent-Length: 1\nTransfer-Encoding: chunked", 400),
        ("GET /api/users HTTP/1.1\nConnection: Upgrade\nUpgrade: websocket", 400),
        ("GET /api/users HTTP/1.1\nConnection: Upgrade\nUpgrade: h2c", 200),
        ("POST /api/users/refresh-all HTTP/1.1\nContent-Length: 0", 200),
        ("POST /api/users/refresh-all HTTP/1.1", 200),
    ],
)
def test_whatever_is_asked_is_answered_in_json(shared: HttpServer, head: str, status: int) -> None:
    got, told = ask(shared, head)
    assert got == status, told
    assert status == 200 or {"error", "code"} <= set(told)


def test_options_is_answered_without_a_body(shared: HttpServer) -> None:
    with connected(shared) as sock:
        sock.sendall(b"OPTIONS /api/scrape-status HTTP/1.1\r\nHost: localhost\r\n\r\n")
        response, body = read_answer(sock)
    assert (response.status, response.headers["Allow"], body) == (204, "GET, HEAD, OPTIONS", b"")


def test_head_is_answered_without_a_body_on_a_connection_that_goes_on(shared: HttpServer) -> None:
    with connected(shared) as sock:
        for path in ("/api/scrape-status", "/api/users", "/nowhere"):
            sock.sendall(f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            response, body = read_answer(sock, "HEAD")
            assert body == b""
            assert int(response.headers["Content-Length"]) > 0


def test_requests_in_a_row_are_answered_in_order(shared: HttpServer) -> None:
    with connected(shared) as sock:
        sock.sendall(
            b"GET /api/users HTTP/1.1\r\nHost: localhost\r\n\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        )
        reader = sock.makefile("rb")
        for wanted in (b'"users"', b'"loops"'):
            length = 0
            while (line := reader.readline()) != b"\r\n":
                length = int(line.split(b":")[1]) if line.lower().startswith(b"content-length") else length
            assert wanted in reader.read(length)
        reader.close()


# -- bodies ----------------------------------------------------------------------------------------------------------


def test_a_chunked_body_reaches_flask_whole(server: HttpServer, service: FakeService) -> None:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=10)
    body = json.dumps({"username": "a", "pad": "x" * 300_000}).encode()
    pieces = iter([body[:1], body[1:100], body[100:]])
    headers = {"Content-Type": "application/json"}
    connection.request("POST", "/api/users/add", body=pieces, headers=headers, encode_chunked=True)
    assert connection.getresponse().status == 200
    assert service.asked[-1][1]["target"] == "a"
    connection.close()


def test_trailers_are_not_taken_for_headers(shared: HttpServer) -> None:
    trailers = b"5\r\n{    \r\n1\r\n}\r\n0\r\nOrigin: https://evil.example\r\n\r\n"
    head = "POST /api/users/refresh-all HTTP/1.1\nContent-Type: application/json\nTransfer-Encoding: chunked"
    assert ask(shared, head, trailers)[0] == 200


@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_of_two_mebibytes_is_a_413_and_the_connection_goes_on(shared: HttpServer, chunked: bool) -> None:
    connection = HTTPConnection("127.0.0.1", shared.port, timeout=10)
    body = b"x" * (2 * MIB)
    pieces = (body[i : i + 65536] for i in range(0, len(body), 65536)) if chunked else body
    connection.request("POST", "/api/users/add", body=pieces, encode_chunked=chunked)
    response = connection.getresponse()
    assert (response.status, json.loads(response.read())["code"]) == (413, "too_large")
    sock = connection.sock
    connection.request("GET", "/api/users")
    assert connection.getresponse().status == 200
    assert connection.sock is sock
    connection.close()


def test_a_body_of_exactly_a_mebibyte_is_taken(shared: HttpServer) -> None:
    body = b"{}" + b" " * (MIB - 2)
    head = f"POST /api/users/refresh-all HTTP/1.1\nContent-Type: application/json\nContent-Length: {len(body)}"
    assert ask(shared, head, body)[0] == 200


def test_a_body_that_is_declared_too_large_is_refused_before_it_is_sent(shared: HttpServer) -> None:
    with connected(shared) as sock:
        sock.sendall(
            b"POST /api/users/add HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Length: 9999999\r\nExpect: 100-continue\r\n\r\n"
        )
        response, _ = read_answer(sock)
        assert (response.status, response.headers["Connection"]) == (413, "close")
        wait_until(lambda: is_closed(sock))


def test_a_client_that_expects_100_is_told_to_go_on(shared: HttpServer) -> None:
    with connected(shared) as sock:
        sock.sendall(
            b"POST /api/users/add HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 16\r\nExpect: 100-continue\r\n\r\n"
        )
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b'{"username":"a"}')
        assert read_answer(sock)[0].status == 200


def test_a_body_that_dribbles_in_is_a_408_and_holds_no_thread(service: FakeService) -> None:
    with running(service, body_timeout_s=0.3) as server:
        with connected(server) as sock:
            sock.sendall(b"POST /api/users/add HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{")
            response, body = read_answer(sock)
            assert (response.status, json.loads(body)["code"]) == (408, "body_too_slow")
            wait_until(lambda: is_closed(sock))
        assert service.asked == []


def test_slow_posts_hold_no_thread(shared: HttpServer) -> None:
    socks = [socket.create_connection(("127.0.0.1", shared.port), timeout=10) for _ in range(100)]
    for sock in socks:
        sock.sendall(b"POST /api/users/add HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{")
    assert ask(shared, "GET /api/users HTTP/1.1")[0] == 200
    for sock in socks:
        sock.close()


# -- connections -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [b"", b"G", b"GET /api/users HTTP/1.1\r\nHost: local"])
def test_a_head_that_does_not_come_closes_the_connection(service: FakeService, sent: bytes) -> None:
    with running(service, head_timeout_s=0.2) as server, connected(server) as sock:
        sock.sendall(sent)
        wait_until(lambda: is_closed(sock))


def test_a_head_that_dribbles_in_closes_the_connection(service: FakeService) -> None:
    def dribble(sock: socket.socket) -> Callable[[], bool]:
        def step() -> bool:
            try:
                sock.sendall(b"x")
            except ConnectionError:
                return True
            return is_closed(sock)

        return step

    with running(service, head_timeout_s=0.2) as server, connected(server) as sock:
        sock.sendall(b"GET /api/users HTTP/1.1\r\nX: ")
        wait_until(dribble(sock))


def test_a_head_that_dribbles_in_after_a_first_request_closes_the_connection(service: FakeService) -> None:
    with running(service, head_timeout_s=0.2) as server, connected(server) as sock:
        sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert read_answer(sock)[0].status == 200
        sock.sendall(b"GET /healthz")
        wait_until(lambda: is_closed(sock))


def test_a_body_that_nobody_wants_any_more_cannot_keep_the_connection(service: FakeService) -> None:
    with running(service, head_timeout_s=0.2) as server, connected(server) as sock:
        sock.sendall(b"POST /api/users/add HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999\r\n\r\nx")
        assert read_answer(sock)[0].status == 413
        sock.sendall(b"x")
        wait_until(lambda: is_closed(sock))


def test_a_connection_that_rests_is_closed_in_time(service: FakeService) -> None:
    with running(service, idle_timeout_s=1) as server, connected(server) as sock:
        sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert read_answer(sock)[0].status == 200
        wait_until(lambda: is_closed(sock))


def test_a_client_that_does_not_read_its_answer_is_dropped(service: FakeService) -> None:
    service.answers["users"] = {"users": ["x" * 1000] * 30_000}
    with running(service, write_timeout_s=0.2) as server, connected(server) as sock:
        sock.sendall(b"GET /api/users HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_until(lambda: service.asked and not server._connections.connections)


def test_a_slow_answer_does_not_count_as_a_head_that_does_not_come(service: FakeService) -> None:
    with running(service, head_timeout_s=0.05) as server, connected(server) as sock:
        sock.sendall(b"GET /api/scrape-status?wait=0.3 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert read_answer(sock)[0].status == 200


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 2_000_000,
    ],
)
def test_a_head_that_is_too_large_is_a_431(shared: HttpServer, head: bytes) -> None:
    with connected(shared) as sock:
        try:
            sock.sendall(head)
            response, body = read_answer(sock)
        except ConnectionError:
            return  # closed while we were still sending
        assert (response.status, json.loads(body)["code"]) == (431, "head_too_large")
    assert ask(shared, "GET /healthz HTTP/1.1")[0] == 200


def test_a_client_that_goes_away_in_the_middle_of_its_body_is_forgotten(
    server: HttpServer, service: FakeService
) -> None:
    with connected(server) as sock:
        sock.sendall(b"POST /api/users/add HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{")
    assert ask(server, "GET /healthz HTTP/1.1")[0] == 200
    assert [verb for verb, _ in service.asked] == ["health"]


# -- start and stop --------------------------------------------------------------------------------------------------


def test_a_port_that_is_taken_is_an_os_error(service: FakeService, server: HttpServer) -> None:
    with pytest.raises(OSError, match="in use"), running(service, settings=Settings(port=server.port)):
        pass


def test_a_port_is_free_again_after_a_stop(service: FakeService) -> None:
    with running(service) as first, connected(first) as sock:
        sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert read_answer(sock)[0].status == 200
        first.stop(2.0)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", first.port), timeout=5)
        with running(service, settings=Settings(port=first.port)) as second:
            assert ask(second, "GET /healthz HTTP/1.1")[0] == 200


def test_it_listens_on_ipv6(service: FakeService) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6 loopback address")
    with running(service, settings=Settings(host="::1", port=0)) as server:
        with socket.create_connection(("::1", server.port), timeout=10) as sock:
            sock.sendall(f"GET /healthz HTTP/1.1\r\nHost: [::1]:{server.port}\r\n\r\n".encode())
            assert read_answer(sock)[0].status == 200


def test_stop_may_come_first_and_often(service: FakeService) -> None:
    settings = Settings(port=0)
    server = HttpServer(create_app(service, settings), service, settings)
    server.stop(1.0)
    server.start()
    server.stop(1.0)
    server.stop(1.0)
    assert service.board.subscribers == []


def test_stop_closes_idle_connections_at_once(service: FakeService) -> None:
    with running(service) as server, connected(server) as sock, connected(server) as silent:
        sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        read_answer(sock)
        begun = time.monotonic()
        server.stop(5.0)
        assert time.monotonic() - begun < 2.0
        assert is_closed(sock)
        assert is_closed(silent)


def test_stop_is_bounded_when_a_call_hangs_and_its_client_gets_a_503(service: FakeService) -> None:
    release = threading.Event()
    service.answers["users"] = lambda: release.wait(20) and {}
    with running(service) as server, connected(server) as sock:
        sock.sendall(b"GET /api/users HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_until(lambda: service.asked)
        begun = time.monotonic()
        server.stop(1.0)
        assert time.monotonic() - begun < 2.5
        response, body = read_answer(sock)
        assert (response.status, json.loads(body)["code"]) == (503, "draining")
        release.set()


def test_the_loop_ticks(shared: HttpServer) -> None:
    first = shared.tick_age()
    assert first < 2.0
    wait_until(lambda: shared.tick_age() < 0.1)
