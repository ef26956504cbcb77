"""Whatever is sent, the answer is a sentence in JSON with a true code, and nothing was changed."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.support.daemon import Daemon
from tests.support.settings import scrapers
from tests.support.waiting import wait_until

ADD, CREATE = "/api/users/add", "/api/targets"
JSON = {"Content-Type": "application/json"}
MARKUP = ("<html", "<!doctype", "<p>", "traceback", 'file "', "werkzeug", "sqlalchemy")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    home = tmp_path_factory.mktemp("bad") / "data"
    with Daemon(home, workers=1, default_schedule="manual", timezone="UTC", **scrapers()) as daemon:
        target = daemon.create("good:kept")
        daemon.pull(target, "start")
        daemon.wait_state(target, "COMPLETED")
        yield daemon
        assert "Traceback" not in daemon.log


def everything(daemon: Daemon) -> dict[str, Any]:
    """What must not change."""
    targets = daemon.get("/api/targets?limit=200")["targets"]
    status = daemon.status()
    return {
        "targets": targets,
        "journals": [daemon.journal(target["id"]) for target in targets],
        "runs": [daemon.runs(target["id"]) for target in targets],
        "sweep": (status["sweep_id"], status["state"], status["counts"]),
        "posts": daemon.get("/api/posts")["posts"],
    }


@pytest.fixture
def daemon(shared: Daemon) -> Iterator[Daemon]:
    """Nothing is changed by what the test does."""
    before = everything(shared)
    yield shared
    assert everything(shared) == before


def error(answer: requests.Response, *codes: int) -> dict[str, Any]:
    """The one shape of an error, with one of these codes."""
    assert answer.status_code in codes, (answer.status_code, answer.text[:500])
    assert answer.headers["Content-Type"] == "application/json"
    told: dict[str, Any] = answer.json()
    assert isinstance(told["error"], str) and 5 < len(told["error"]) < 1000
    assert told["code"].replace("_", "").isalpha()
    assert not any(word in answer.text.lower() for word in MARKUP)
    return told


def send(daemon: Daemon, path: str, data: bytes, **headers: str) -> requests.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return daemon.session.post(daemon.url + path, data=data, headers=JSON | named, timeout=30)


def the_target(daemon: Daemon) -> str:
    return f"/api/targets/{daemon.get('/api/targets')['targets'][0]['id']}"


# -- bodies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [ADD, CREATE, "/api/users/refresh-all", "/api/scrape-status/reset"])
@pytest.mark.parametrize(
    "data",
    [
        b"username=good:x",
        b"{",
        b'{"username": "good:x",}',
        b"{'username': 'good:x'}",
        b'{"username": "good:x"} {}',
        b'{"username": NaN, "target": NaN, "range": NaN, "force": NaN}',
        b'{"range": Infinity}',
        b'{"range": -Infinity}',
        b'{"username": "good:x", "username": "good:y"}',
        b"[]",
        b'"good:x"',
        b"5",
        b"null",
        b"true",
        b"\xff\xfe",
        b'{"username": "\xc3\x28", "target": "\xc3\x28"}',
        b'{"username": "good:x\x00"}',
        b"\xef\xbb\xbf{}",
        b'{"a":' * 100_000,
        b"[" * 500_000,
        b'{"range": ' + b"9" * 10_000 + b"}",
        json.dumps({"username": "good:x"}).encode("utf-16"),
    ],
    ids=lambda data: ascii(data[:24]),
)
def test_a_body_that_is_no_json_object_is_400(daemon: Daemon, path: str, data: bytes) -> None:
    error(send(daemon, path, data), 400)


@pytest.mark.parametrize("path", [ADD, CREATE, "/api/users/refresh-all", "/api/scrape-status/reset"])
@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/xml", "x", ""]
)
def test_a_body_of_another_type_is_415(daemon: Daemon, path: str, kind: str) -> None:
    data = b'{"username": "good:x", "target": "good:x", "force": true}'
    told = error(send(daemon, path, data, Content_Type=kind), 415)
    assert "application/json" in told["hint"]


def test_another_charset_is_415(daemon: Daemon) -> None:
    data = '{"username": "good:\u00e9"}'.encode("latin-1")
    error(send(daemon, ADD, data, Content_Type="application/json; charset=latin-1"), 415)


@pytest.mark.parametrize("path", [ADD, CREATE, "/api/users/refresh-all", "/api/nowhere"])
def test_two_megabytes_are_413(daemon: Daemon, path: str) -> None:
    data = b'{"username": "' + b"x" * 2 * 1024 * 1024 + b'"}'
    told = error(send(daemon, path, data), 413)
    assert "1048576" in told["error"]


def test_two_megabytes_in_chunks_are_413(daemon: Daemon) -> None:
    pieces = (b"x" * 65536 for _ in range(32))
    try:
        answer = requests.post(daemon.url + ADD, data=pieces, headers=JSON, timeout=30)
    except requests.ConnectionError:
        return  # it hung up on the rest, which is fine too
    error(answer, 413)


# -- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [ADD, CREATE])
@pytest.mark.parametrize(
    "name",
    [
        "x" * 10_000,
        "good:" + "x" * 10_000,
        "http://a.example/" + "x" * 10_000,
        "http://a.example/" + "\u00e9" * 1000,
        "good:a\x00b",
        "good:a\nb",
        "good:a\x1b[2J",
        "good:a\u202eb",
        "good:a b",
        " good:a",
        "good:",
        ":",
        "good:<script>",
        "alice",
        "@alice",
        "nobody:alice",
        "file:///etc/passwd",
        "FILE:///etc/passwd",
        "good:file:///etc/passwd",
        "feed:file:///etc/passwd",
        "ftp://a.example/feed",
        "gopher://a.example/",
        "javascript:alert(1)",
        "data:text/xml,<rss/>",
        "http://",
        "http:///feed",
        "http://a b.example/",
        "http://a.example:0/",
        "http://a.example:99999/",
        "http://user:secret@a.example/",
        "http://[::1/feed",
        "http://a..example/",
        "http://a.example\\@b.example/",
        "https://a.example/<x>",
        "//a.example/feed",
    ],
    ids=lambda name: ascii(name[:24]),
)
def test_a_name_that_cannot_be_a_target_is_422(daemon: Daemon, path: str, name: str) -> None:
    field = "username" if path == ADD else "target"
    told = error(daemon.call("POST", path, {field: name}), 422)
    assert len(told["error"]) < 300
    assert "secret" not in told["error"]


@pytest.mark.parametrize("path", [ADD, CREATE])
@pytest.mark.parametrize("name", [None, "", "  ", 5, 5.5, True, [], ["good:x"], {}, {"a": 1}])
def test_a_name_that_is_no_text_is_400(daemon: Daemon, path: str, name: Any) -> None:
    error(daemon.call("POST", path, {"username" if path == ADD else "target": name}), 400)


def test_half_of_a_surrogate_pair_is_400(daemon: Daemon) -> None:
    error(send(daemon, ADD, b'{"username": "good:\\ud800"}'), 400)


@pytest.mark.parametrize("source", ["nobody", "FEED", "good ", "../good", "x" * 65, "\x00", ""])
def test_an_unknown_source_is_422_and_says_which_there_are(daemon: Daemon, source: str) -> None:
    told = error(daemon.call("POST", CREATE, {"target": "good:x", "source": source}), 422)
    if len(source) < 65 and source.isprintable() and source:
        assert "feed" in told["hint"] and "good" in told["hint"]


# -- values ----------------------------------------------------------------------------------------------------------

SCHEDULES = [
    "0 0 30 2 *",
    "0 0 31 2,4,6,9,11 *",
    "hourly",
    "every 0s",
    "every -5m",
    "every 999999d",
    "60 * * * *",
    "* * * * * *",
    "*/0 * * * *",
    "0 0 * * 8",
    "1" * 201,
    "\x00",
    "* * * *\n*\x7f",
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: ascii(s[:24]))
@pytest.mark.parametrize("path", [ADD, CREATE, "patch"])
def test_a_schedule_that_cannot_work_is_422(daemon: Daemon, path: str, schedule: str) -> None:
    if path == "patch":
        answer = daemon.call("PATCH", the_target(daemon), {"schedule": schedule, "display_name": "x"})
    else:
        answer = daemon.call("POST", path, {"username": "good:x", "schedule": schedule} if path == ADD else {
            "target": "good:x", "schedule": schedule})  # fmt: skip
    error(answer, 422)


@pytest.mark.parametrize(
    ("value", "codes"),
    [
        (-1, [422]),
        (0, [422]),
        (-0.0, [422]),
        (604801, [422]),
        (1e308, [400]),
        (10**30, [400]),
        ("5", [400]),
        (True, [400]),
    ],
)
def test_a_timeout_that_cannot_work_is_refused(daemon: Daemon, value: Any, codes: list[int]) -> None:
    error(daemon.call("POST", CREATE, {"target": "good:x", "timeout_s": value}), *codes)
    error(daemon.call("PATCH", the_target(daemon), {"timeout_s": value}), *codes)


@pytest.mark.parametrize("text", [b"NaN", b"1e999", b"-1e999", b"0x10", b"1" * 5000])
def test_a_number_that_json_does_not_have_is_400(daemon: Daemon, text: bytes) -> None:
    error(send(daemon, CREATE, b'{"target": "good:x", "timeout_s": ' + text + b"}"), 400)


@pytest.mark.parametrize(
    "value", ["tomorrow", "2030-01-01", "2030-01-01T00:00:00", "9999-12-31T23:59:59-23:59", "", 5, True, []]
)
def test_a_pause_that_is_no_time_with_an_offset_is_refused(daemon: Daemon, value: Any) -> None:
    error(daemon.call("PATCH", the_target(daemon), {"paused_until": value}), 400, 422)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"nickname": "x"},
        {"state": "IDLE"},
        {"token": 1},
        {"display_name": "x" * 301},
        {"display_name": "a\x1b[2J"},
        {"display_name": 5},
        {"schedule": None},
        {"schedule": ""},
        {"timeout_s": 5, "nickname": "x"},
    ],
    ids=lambda body: ascii(str(body)[:40]),
)
def test_a_change_that_cannot_be_is_refused_whole(daemon: Daemon, body: dict[str, Any]) -> None:
    error(daemon.call("PATCH", the_target(daemon), body), 400, 422)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"trigger": "stop"},
        {"trigger": "START"},
        {"trigger": "complete"},
        {"trigger": "interrupt"},
        {"trigger": None},
        {"trigger": 1},
        {"trigger": ["reset"]},
        {"trigger": "reset", "force": "yes"},
        {"trigger": "reset", "force": 1},
        {"trigger": "reset", "force": True},
        {"trigger": "reset", "force": True, "reason": "   "},
        {"trigger": "reset", "force": True, "reason": "x" * 1001},
        {"trigger": "reset", "reason": 5},
        {"trigger": "reset", "run_id": 0},
        {"trigger": "reset", "run_id": -1},
        {"trigger": "reset", "run_id": "1"},
        {"trigger": "reset", "run_id": 10**30},
        {"trigger": "reset", "run_id": 1.5},
        {"trigger": "reset", "now": True},
    ],
    ids=lambda body: ascii(str(body)[:40]),
)
def test_a_transition_of_the_wrong_shape_is_refused(daemon: Daemon, body: dict[str, Any]) -> None:
    error(daemon.call("POST", f"{the_target(daemon)}/transitions", body), 400, 422)


@pytest.mark.parametrize("body", [{"force": "true"}, {"force": 1}, {"force": None}, {"reason": 5}, {"force": []}])
def test_a_reset_of_the_wrong_shape_is_refused(daemon: Daemon, body: dict[str, Any]) -> None:
    error(daemon.call("POST", "/api/scrape-status/reset", body), 400)


def test_an_unknown_field_is_named_and_what_is_known_too(daemon: Daemon) -> None:
    told = error(daemon.call("POST", CREATE, {"target": "good:x", "shedule": "manual"}), 400)
    assert "'shedule'" in told["error"]
    assert "schedule" in told["hint"]


# -- addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/api",
        "/api/",
        "/api/users/",
        "/api//users",
        "/api/targets/0",
        "/api/targets/-1",
        "/api/targets/1e3",
        "/api/targets/007",
        "/api/targets/99999",
        "/api/targets/99999/status",
        "/api/targets/99999/posts",
        "/api/targets/99999/runs",
        "/api/targets/9223372036854775808",
        "/api/targets/" + "9" * 500,
        "/api/targets/%00",
        "/api/targets/../users/x",
        "/api/targets/%2e%2e",
        "/api/targets/\u00e9",
        "/api/runs/99999",
        "/api/sweeps/99999",
        "/api/scrape-status?sweep_id=99999",
        "/static/app.py",
        "/%ff",
        "/<script>alert(1)</script>",
        "/" + "x" * 5000,
    ],
    ids=lambda path: ascii(path[:40]),
)
def test_an_address_without_anything_is_404(daemon: Daemon, path: str) -> None:
    told = error(daemon.call("GET", path), 404)
    assert "script" not in told["error"]


@pytest.mark.parametrize(
    "query",
    [
        "users?limit=0",
        "users?limit=99999",
        "users?cursor=x",
        "targets?state=running",
        "targets?state=GONE",
        "targets?limit=201",
        "targets?limit=1e2",
        "targets?limit=1&limit=2",
        "targets?cursor=-1",
        "targets?cursor=" + "9" * 30,
        "targets?sort=name",
        "targets?q=" + "x" * 201,
        "targets?q=%00",
        "targets?q=%ff",
        "posts?target=abc",
        "posts?target=0",
        "posts?target=9223372036854775808",
        "posts?since=yesterday",
        "posts?since=2030-01-01T00:00:00",
        "posts?source=" + "x" * 65,
        "scrape-status?wait=-1",
        "scrape-status?wait=61",
        "scrape-status?wait=nan",
        "scrape-status?sweep_id=0",
        "scrape-status?sweep_id=x",
        "feed?limit=-5",
        "feed?username=" + "x" * 2001,
        "targets?" + "&".join(f"a{n}=1" for n in range(200)),
    ],
    ids=lambda query: query[:40],
)
def test_a_query_that_cannot_be_is_400(daemon: Daemon, query: str) -> None:
    error(daemon.call("GET", f"/api/{query}"), 400)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", ADD, "OPTIONS, POST"),
        ("PUT", ADD, "OPTIONS, POST"),
        ("DELETE", "/api/users", "GET"),
        ("POST", "/api/scrape-status", "GET"),
        ("PUT", CREATE, "POST"),
        ("POST", "/api/targets/1", "PATCH"),
        ("GET", "/api/targets/1/transitions", "POST"),
        ("DELETE", "/api/targets/1/journal", "GET"),
        ("POST", "/healthz", "GET"),
        ("TRACE", "/api/users", "GET"),
        ("PROPFIND", "/api/users", "GET"),
    ],
)
def test_another_method_is_405_and_says_which_there_are(daemon: Daemon, method: str, path: str, allowed: str) -> None:
    answer = daemon.call(method, path)
    error(answer, 405)
    assert allowed in answer.headers["Allow"]


def test_a_method_that_http_does_not_have_is_400(daemon: Daemon) -> None:
    error(daemon.call("BREW", "/api/users"), 400)


# -- who asks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "code"),
    [
        ("evil.example", 403),
        ("evil.example:{port}", 403),
        ("127.0.0.1.evil.example", 403),
        ("127.0.0.1:1", 403),
        ("169.254.1.1:{port}", 403),
        ("127.0.0.1:{port}/x", 400),
        ("user@127.0.0.1:{port}", 400),
        ("[::1", 400),
        ("a b", 400),
    ],
)
@pytest.mark.parametrize("path", ["/api/users", "/api/scrape-status", "/healthz", "/nowhere"])
def test_another_host_name_is_refused_for_every_call(daemon: Daemon, path: str, host: str, code: int) -> None:
    error(daemon.call("GET", path, headers={"Host": host.format(port=daemon.port)}), code)


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1.evil.example", "x", "file://"])
@pytest.mark.parametrize("path", [ADD, CREATE, "/api/users/refresh-all", "/api/scrape-status/reset"])
def test_a_write_from_another_site_is_refused(daemon: Daemon, path: str, origin: str) -> None:
    body = {"username": "good:x"} if path == ADD else {"target": "good:x"} if path == CREATE else {}
    told = error(daemon.call("POST", path, body, headers={"Origin": origin}), 403)
    assert told["code"] == "origin_not_allowed"


def test_a_read_from_another_site_gets_no_permission_to_look(daemon: Daemon) -> None:
    answer = daemon.call("GET", "/api/users", headers={"Origin": "http://evil.example"})
    assert "Access-Control-Allow-Origin" not in answer.headers


# -- below HTTP ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /api/users HTTP/1.1\r\nHost 127.0.0.1\r\n\r\n",
        b"GET /api/users HTTP/1.1\r\nHost: {host}\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"GET /api/users HTTP/1.1\r\nHost: {host}\r\nHost: {host}\r\n\r\n",
        b"GET /api/users HTTP/1.1\r\n\r\n",
        b"POST /api/users/add HTTP/1.1\r\nHost: {host}\r\nContent-Length: -1\r\n\r\n",
        b"POST /api/users/add HTTP/1.1\r\nHost: {host}\r\nContent-Length: x\r\n\r\n",
        b"POST /api/users/add HTTP/1.1\r\nHost: {host}\r\nContent-Length: 99999999999999\r\n\r\n",
        b"POST /api/users/add HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
    ids=lambda data: ascii(data[:60]),
)
def test_what_is_no_http_gets_an_error_in_json_or_a_closed_connection(daemon: Daemon, data: bytes) -> None:
    with socket.create_connection(("127.0.0.1", daemon.port), timeout=20) as sock:
        sock.sendall(data.replace(b"{host}", f"127.0.0.1:{daemon.port}".encode()))
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while piece := sock.recv(65536):
                answer += piece
        except ConnectionResetError:
            pass
    if answer:
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.split()[1][:1] in (b"4",), answer[:200]
        assert b"application/json" in head
        assert json.loads(body)["error"]
    wait_until(daemon.answers)


# -- tokens ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    home = tmp_path_factory.mktemp("token") / "data"
    with Daemon(home, workers=1, api_token="correct-horse-battery", **scrapers()) as daemon:
        yield daemon


@pytest.mark.parametrize(
    "given",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        "Bearer correct-horse-battery-staple",
        "Bearer correct-horse-batter",
        "bearer CORRECT-HORSE-BATTERY",
        "Basic correct-horse-battery",
        "correct-horse-battery",
        "Bearer \u00e9",
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", ADD),
        ("POST", "/api/users/refresh-all"),
        ("GET", "/api/users"),
        ("GET", "/api/scrape-status"),
        ("GET", "/openapi.json"),
        ("GET", "/nowhere"),
    ],
)
def test_without_the_token_nothing_is_answered(guarded: Daemon, method: str, path: str, given: str | None) -> None:
    headers: dict[str, Any] = {} if given is None else {"Authorization": given.encode("latin-1")}
    answer = guarded.call(method, path, {"username": "good:x"} if path == ADD else None, headers=headers)
    told = error(answer, 401)
    assert "Bearer" in answer.headers["WWW-Authenticate"]
    assert "correct" not in answer.text + told["error"]


def test_with_the_token_everything_is_answered_and_health_without(guarded: Daemon) -> None:
    headers = {"Authorization": "Bearer correct-horse-battery"}
    assert guarded.call("GET", "/api/users", headers=headers).json()["count"] == 0
    assert guarded.call("POST", ADD, {"username": "good:x"}, headers=headers).status_code == 200
    for path in ("/healthz", "/readyz"):
        assert guarded.call("GET", path).status_code == 200
    assert "correct-horse" not in guarded.log
