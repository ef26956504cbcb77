"""The calls of the API on a fake service: what they ask it, and what comes back."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from flask.testing import FlaskClient

from api import create_app
from config import Settings
from errors import (
    AlreadyRunning,
    BadRequest,
    Busy,
    Draining,
    GuardRejected,
    InvalidTransition,
    NotFound,
    Refused,
    ScrapeFailed,
    StoreUnavailable,
    TooMany,
    Unusable,
)
from tests.support.fake_service import STATUS, TARGET_STATUS, USER, FakeService


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def client(service: FakeService) -> FlaskClient:
    return create_app(service, Settings()).test_client()


def last(service: FakeService) -> tuple[str, dict[str, Any]]:
    return service.asked[-1]


# -- the older API ---------------------------------------------------------------------------------------------------


def test_users_answers_all_of_them_unless_a_limit_is_given(client: FlaskClient, service: FakeService) -> None:
    assert client.get("/api/users").json == {"users": [USER], "count": 1, "next_cursor": None}
    assert last(service) == ("users", {"limit": None, "cursor": None})
    client.get("/api/users?limit=5&cursor=9")
    assert last(service) == ("users", {"limit": 5, "cursor": "9"})


def test_adding_a_user_answers_200_with_the_user_and_the_sweep(client: FlaskClient, service: FakeService) -> None:
    response = client.post("/api/users/add", json={"username": "https://a.example/feed", "range": 60})
    assert response.status_code == 200
    message = "Added https://a.example/feed"
    assert response.json == {"message": message, "user": USER, "status": "running", "sweep_id": 4}
    verb, asked = last(service)
    assert (verb, asked["target"], asked["range_"], asked["again"]) == ("add", USER["username"], 60, True)


@pytest.mark.parametrize(("given", "wanted"), [(60, 60), ("60", 60), (60.0, 60), ("007", 7), (None, None)])
def test_a_range_is_a_number_or_a_numeric_string(
    client: FlaskClient, service: FakeService, given: object, wanted: int | None
) -> None:
    assert client.post("/api/users/add", json={"username": "a", "range": given}).status_code == 200
    assert last(service)[1]["range_"] == wanted
    assert client.post("/api/users/refresh-all", json={"range": given}).status_code == 200
    assert last(service) == ("refresh_all", {"range_": wanted})


@pytest.mark.parametrize(
    ("given", "status"),
    [(True, 400), ([], 400), (1.5, 400), ("ten", 422), ("", 422), (0, 422), (-1, 422), ("0", 422), ("\u0663", 422)],
)
def test_a_range_that_cannot_work_is_refused(
    client: FlaskClient, service: FakeService, given: object, status: int
) -> None:
    response = client.post("/api/users/add", json={"username": "a", "range": given})
    assert (response.status_code, response.json["field"]) == (status, "range")
    assert service.asked == []


@pytest.mark.parametrize("body", [{}, {"username": None}, {"username": ""}, {"username": "  "}, {"username": 5}])
def test_adding_without_a_username_is_a_400(client: FlaskClient, service: FakeService, body: dict[str, Any]) -> None:
    response = client.post("/api/users/add", json=body)
    assert (response.status_code, response.json["code"]) == (400, "bad_request")
    assert service.asked == []


def test_adding_what_is_in_progress_is_a_409_already_running(client: FlaskClient, service: FakeService) -> None:
    service.answers["add"] = AlreadyRunning("its scrape is in progress", hint="wait", refused_by="not_running")
    response = client.post("/api/users/add", json={"username": "a"})
    assert response.status_code == 409
    told = {"error": "its scrape is in progress", "code": "already_running", "hint": "wait"}
    assert response.json == told | {"refused_by": "not_running"}


def test_the_older_api_passes_over_unknown_fields_and_parameters(client: FlaskClient) -> None:
    body = {"username": "a", "colour": {"deep": [1]}}
    for path in ("/api/users/add", "/api/users/remove", "/api/users/refresh-all", "/api/scrape-status/reset"):
        assert client.post(path, json=body).status_code == 200
    for path in ("/api/users", "/api/feed", "/api/scrape-status"):
        assert client.get(f"{path}?_=1700000000").status_code == 200


def test_removing_a_user_names_it(client: FlaskClient, service: FakeService) -> None:
    assert client.post("/api/users/remove", json={"username": "a"}).json == {"message": "Removed A"}
    assert last(service) == ("remove", {"username": "a"})


@pytest.mark.parametrize("path", ["/api/users/refresh-all", "/api/scrape-status/reset"])
@pytest.mark.parametrize("content_type", [None, "application/json", "text/plain"])
def test_an_empty_body_is_fine_where_all_is_optional(client: FlaskClient, path: str, content_type: str | None) -> None:
    assert client.post(path, data=b"", content_type=content_type).status_code == 200


def test_refresh_all_says_how_many(client: FlaskClient) -> None:
    told = {"message": "Scraping 3 users", "total_users": 3, "status": "running", "sweep_id": 5}
    assert client.post("/api/users/refresh-all").json == told


def test_the_older_reset_hands_on_force_and_reason(client: FlaskClient, service: FakeService) -> None:
    client.post("/api/scrape-status/reset")
    assert last(service) == ("reset_sweeps", {"force": False, "reason": None})
    client.post("/api/scrape-status/reset", json={"force": True, "reason": "stuck"})
    assert last(service) == ("reset_sweeps", {"force": True, "reason": "stuck"})


def test_the_feed_takes_empty_parameters_as_absent(client: FlaskClient, service: FakeService) -> None:
    assert client.get("/api/feed?username=&limit=&cursor=").status_code == 200
    assert last(service) == ("feed", {"username": None, "limit": 100, "cursor": None})


# -- status ----------------------------------------------------------------------------------------------------------


def test_scrape_status_comes_from_the_board_whatever_else_fails(client: FlaskClient, service: FakeService) -> None:
    service.answers["scrape_status"] = StoreUnavailable("the store is away")
    response = client.get("/api/scrape-status")
    assert (response.status_code, response.json) == (200, STATUS)
    assert service.asked == []


def test_a_sweep_that_the_board_does_not_hold_is_asked_for(client: FlaskClient, service: FakeService) -> None:
    service.board.show(STATUS | {"sweep_id": 4}, "4", sweep=4)
    assert client.get("/api/scrape-status?sweep_id=4").json["sweep_id"] == 4
    assert service.asked == []
    assert client.get("/api/scrape-status?sweep_id=2").json["sweep_id"] == 2
    assert last(service) == ("scrape_status", {"sweep_id": 2})
    service.answers["scrape_status"] = NotFound("there is no sweep 9")
    assert client.get("/api/scrape-status?sweep_id=9").status_code == 404


def test_a_targets_status_comes_from_the_board_else_from_the_service(client: FlaskClient, service: FakeService) -> None:
    service.board.show(TARGET_STATUS | {"attempt": 3}, "t", target=7)
    assert client.get("/api/targets/7/status").json["attempt"] == 3
    assert service.asked == []
    assert client.get("/api/targets/8/status").json == TARGET_STATUS
    assert last(service) == ("target_status", {"id": 8})


@pytest.mark.parametrize("header", ['W/"0"', '"0"', 'W/"x", W/"0"', '"x","0"', "*", " * "])
def test_a_known_entity_tag_is_answered_with_304(client: FlaskClient, header: str) -> None:
    response = client.get("/api/scrape-status", headers={"If-None-Match": header})
    assert (response.status_code, response.data, response.headers["ETag"]) == (304, b"", 'W/"0"')


@pytest.mark.parametrize("header", ['W/"1"', "0", "", 'W/"00"', '"*"'])
def test_another_entity_tag_is_answered_with_the_state(client: FlaskClient, header: str) -> None:
    response = client.get("/api/scrape-status", headers={"If-None-Match": header})
    assert (response.status_code, response.headers["ETag"]) == (200, 'W/"0"')


def test_a_heartbeat_does_not_change_the_entity_tag(client: FlaskClient, service: FakeService) -> None:
    tags = set()
    for beat, error in (("2026-01-01T00:00:00Z", None), ("2026-01-01T00:00:09Z", None), (None, "it failed")):
        service.answers["target_status"] = TARGET_STATUS | {"last_heartbeat": beat, "error": error}
        tags.add(client.get("/api/targets/8/status").headers["ETag"])
    assert len(tags) == 2
    assert all(tag.startswith('W/"') for tag in tags)


@pytest.mark.parametrize("wait", ["-1", "61", "nan", "inf", "1e1", "soon", "0x1", "--1"])
def test_a_wait_outside_0_to_60_is_a_400(client: FlaskClient, wait: str) -> None:
    response = client.get(f"/api/scrape-status?wait={wait}")
    assert (response.status_code, response.json["field"]) == (400, "wait")


@pytest.mark.parametrize("wait", ["0", "0.5", "60", ""])
def test_a_wait_inside_the_limits_is_taken(client: FlaskClient, wait: str) -> None:
    assert client.get(f"/api/scrape-status?wait={wait}").status_code == 200


# -- targets ---------------------------------------------------------------------------------------------------------


def test_creating_a_target_answers_201_with_its_location(client: FlaskClient, service: FakeService) -> None:
    response = client.post("/api/targets", json={"target": "a", "timeout_s": 2.5, "start": False})
    assert (response.status_code, response.headers["Location"]) == (201, "/api/targets/7")
    assert (response.json["id"], response.json["sweep_id"], response.json["schedule"]) == (7, 4, "every 15m")
    asked = last(service)[1]
    assert (asked["target"], asked["timeout_s"], asked["start"], asked.get("again", False)) == ("a", 2.5, False, False)


def test_a_target_is_started_unless_told_otherwise(client: FlaskClient, service: FakeService) -> None:
    client.post("/api/targets", json={"target": "a", "source": None, "schedule": None, "timeout_s": None})
    assert last(service)[1]["start"] is True


def test_a_target_that_is_tracked_already_is_a_409(client: FlaskClient, service: FakeService) -> None:
    service.answers["add"] = Refused("this target is tracked already", target_id=7)
    response = client.post("/api/targets", json={"target": "a"})
    assert (response.status_code, response.json["code"], response.json["target_id"]) == (409, "refused", 7)


def test_targets_are_listed_with_their_filters(client: FlaskClient, service: FakeService) -> None:
    assert client.get("/api/targets?state=FAILED&q=%C3%A9&limit=200").status_code == 200
    wanted = {"state": "FAILED", "source": None, "q": "\u00e9", "limit": 200, "cursor": None}
    assert last(service) == ("targets", wanted)


def test_patch_hands_on_only_what_was_given(client: FlaskClient, service: FakeService) -> None:
    client.patch("/api/targets/7", json={"paused_until": "2030-01-01T02:00:00+02:00", "timeout_s": None})
    changes = {"paused_until": datetime(2030, 1, 1, tzinfo=UTC), "timeout_s": None}
    assert last(service) == ("patch", {"id": 7, "changes": changes})
    client.patch("/api/targets/7", json={"paused_until": None})
    assert last(service) == ("patch", {"id": 7, "changes": {"paused_until": None}})


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"schedule": None}, 400),
        ({"timeout_s": True}, 400),
        ({"timeout_s": "5"}, 400),
        ({"timeout_s": 0}, 422),
        ({"timeout_s": -5}, 422),
        ({"timeout_s": 604801}, 422),
        ({"paused_until": 5}, 400),
        ({"paused_until": "tomorrow"}, 422),
        ({"paused_until": "2030-01-01T00:00:00"}, 422),
        ({"paused_until": "0001-01-01T00:00:00+14:00"}, 422),
        ({"display_name": "x" * 301}, 422),
        ({"display_name": "a\u0000b"}, 422),
        ({"state": "IDLE"}, 400),
    ],
)
def test_a_patch_that_cannot_work_changes_nothing(
    client: FlaskClient, service: FakeService, body: dict[str, Any], status: int
) -> None:
    response = client.patch("/api/targets/7", json=body)
    assert response.status_code == status, response.json
    assert service.asked == []


def test_delete_ends_and_removes(client: FlaskClient, service: FakeService) -> None:
    assert client.delete("/api/targets/7").json == {"message": "Removed A"}
    assert last(service) == ("remove", {"target_id": 7})


def test_a_trigger_is_handed_on_and_202_says_that_a_worker_is_stopping(
    client: FlaskClient, service: FakeService
) -> None:
    service.answers["transition"] = (TARGET_STATUS | {"worker": "stopping"}, 202)
    body = {"trigger": "reset", "force": True, "reason": "stuck", "run_id": 3}
    response = client.post("/api/targets/7/transitions", json=body)
    assert (response.status_code, response.json["worker"]) == (202, "stopping")
    assert last(service) == ("transition", {"id": 7} | body)


@pytest.mark.parametrize("reason", [{}, {"reason": None}, {"reason": "  "}])
def test_force_needs_a_reason(client: FlaskClient, service: FakeService, reason: dict[str, Any]) -> None:
    body = {"trigger": "reset", "force": True} | reason
    response = client.post("/api/targets/7/transitions", json=body)
    assert (response.status_code, response.json["field"]) == (400, "reason")
    assert service.asked == []


@pytest.mark.parametrize(
    ("body", "status"),
    [({}, 400), ({"trigger": "complete"}, 422), ({"trigger": 1}, 400), ({"trigger": "start", "force": 1}, 400)],
)
def test_a_trigger_that_nobody_may_pull_is_refused(client: FlaskClient, body: dict[str, Any], status: int) -> None:
    assert client.post("/api/targets/7/transitions", json=body).status_code == status


@pytest.mark.parametrize(
    ("path", "verb"),
    [
        ("/api/targets/7", "target"),
        ("/api/targets/7/journal", "journal"),
        ("/api/targets/7/runs", "runs_of"),
        ("/api/targets/7/posts", "posts"),
        ("/api/runs/3", "run"),
        ("/api/sweeps/4", "sweep"),
        ("/api/posts", "posts"),
        ("/api/hosts", "hosts"),
        ("/api/sources", "sources"),
    ],
)
def test_each_read_asks_its_verb(client: FlaskClient, service: FakeService, path: str, verb: str) -> None:
    assert client.get(path).status_code == 200
    assert last(service)[0] == verb


def test_posts_of_an_unknown_target_are_a_404_and_not_an_empty_list(client: FlaskClient, service: FakeService) -> None:
    service.answers["target"] = NotFound("there is no target 9")
    assert client.get("/api/targets/9/posts").status_code == 404


def test_posts_are_filtered(client: FlaskClient, service: FakeService) -> None:
    client.get("/api/posts?target=7&since=2026-01-01T00:00:00Z&q=x&limit=1")
    wanted = {"target": 7, "source": None, "since": datetime(2026, 1, 1, tzinfo=UTC), "q": "x", "limit": 1}
    assert last(service) == ("posts", wanted | {"cursor": None})


def test_the_lifecycle_is_plain_text(client: FlaskClient) -> None:
    response = client.get("/api/lifecycle.mmd")
    assert (response.content_type, response.text) == ("text/plain; charset=utf-8", "stateDiagram-v2\n")


# -- health ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "verb", "code"), [("/healthz", "health", "stuck"), ("/readyz", "ready", "not_ready")])
def test_health_is_200_or_an_error_with_503(
    client: FlaskClient, service: FakeService, path: str, verb: str, code: str
) -> None:
    assert client.get(path).status_code == 200
    service.answers[verb] = ({"status": "not", "loops": {"pool": 99.0}}, False)
    response = client.get(path)
    assert (response.status_code, response.json["code"], response.json["loops"]) == (503, code, {"pool": 99.0})


# -- shapes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"{", "not JSON"),
        (b"[]", "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b'"a"', "must be a JSON object"),
        (b'{"target": NaN}', "NaN"),
        (b'{"target": -Infinity}', "-Infinity"),
        (b'{"target": "a", "timeout_s": 1e999}', "too large"),
        (b'{"target": "a", "timeout_s": ' + b"9" * 30 + b"}", "too large"),
        (b'{"target": "a", "timeout_s": ' + b"9" * 5000 + b"}", "too long"),
        (b'{"target": "a", "target": "b"}', "twice"),
        (b'{"target": "a", "source": {"name": 1, "name": 2}}', "twice"),
        (b"[" * 200_000, "too deep"),
        (b'{"target": ' + b"[" * 200_000, "too deep"),
        (b'{"target": "\xff"}', "not UTF-8"),
        ('{"target": "a"}'.encode("utf-16"), "not UTF-8"),
        (b'\xef\xbb\xbf{"target": "a"}', "BOM"),
        (b'{"target": "\\ud800"}', "surrogate"),
        (b'{"target": ["a"]}', "must be a string"),
        (b'{"target": "a", "colour": 1, "\\ud800": 2}', "unknown field 'colour', '\\ud800'"),
        (b"", "empty"),
        (b" \n", "empty"),
    ],
)
def test_a_body_of_another_shape_is_a_400_that_says_what(
    client: FlaskClient, service: FakeService, data: bytes, says: str
) -> None:
    response = client.post("/api/targets", data=data, content_type="application/json")
    assert response.status_code == 400
    assert response.json["code"] == "bad_request"
    assert says in response.json["error"]
    assert service.asked == []


@pytest.mark.parametrize("name", ["a\u0000b", "a\nb", "x" * 10_000, "a\u0085"])
def test_a_name_that_cannot_work_is_a_422(client: FlaskClient, service: FakeService, name: str) -> None:
    assert client.post("/api/targets", json={"target": name}).status_code == 422
    assert client.post("/api/users/add", json={"username": name}).status_code == 422
    assert service.asked == []


@pytest.mark.parametrize(
    "content_type", [None, "text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1"]
)
def test_a_body_that_is_not_application_json_is_a_415(client: FlaskClient, content_type: str | None) -> None:
    response = client.post("/api/users/add", data=b'{"username": "a"}', content_type=content_type)
    assert (response.status_code, response.json["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; Charset=UTF-8"])
def test_application_json_in_utf8_is_taken(client: FlaskClient, content_type: str) -> None:
    data = json.dumps({"username": "\u00e9\U0001f600"}, ensure_ascii=False).encode()
    assert client.post("/api/users/add", data=data, content_type=content_type).status_code == 200


def test_a_body_over_a_mebibyte_is_a_413(client: FlaskClient) -> None:
    response = client.post("/api/targets", data=b" " * (1024 * 1024 + 1), content_type="application/json")
    assert (response.status_code, response.json["code"]) == (413, "too_large")


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=201",
        "limit=-1",
        "limit=x",
        "limit=1.0",
        "limit=" + "9" * 40,
        "limit=" + "9" * 5000,
        "limit=1&limit=2",
        "state=running",
        "q=%ff",
        "q=%00",
        "q=%ED%A0%80",
        "q=\u00e9",
        "colour=red",
        "&".join("q=" for _ in range(200)),
        "cursor=" + "x" * 401,
    ],
)
def test_a_query_that_cannot_be_read_is_a_400(client: FlaskClient, service: FakeService, query: str) -> None:
    response = client.get("/api/targets", environ_overrides={"QUERY_STRING": query})
    assert (response.status_code, response.json["code"]) == (400, "bad_request")
    assert service.asked == []


@pytest.mark.parametrize("since", ["yesterday", "2026-01-01", "2026-01-01T00:00:00", "9999-12-31T23:59:59-01:00"])
def test_since_is_a_time_with_an_offset(client: FlaskClient, since: str) -> None:
    response = client.get(f"/api/posts?since={since}")
    assert (response.status_code, response.json["field"]) == (400, "since")
    assert "%2B" in response.json["hint"]


@pytest.mark.parametrize("given", ["0", "abc", "-1", "1.5", str(2**63), "9" * 5000, "\u0663", "07", "%00", "%ff"])
def test_an_id_that_nothing_can_have_is_a_404(client: FlaskClient, service: FakeService, given: str) -> None:
    for path in (f"/api/targets/{given}", f"/api/targets/{given}/status", f"/api/runs/{given}"):
        response = client.get(path)
        assert (response.status_code, response.json["code"]) == (404, "not_found")
    assert service.asked == []


@pytest.mark.parametrize("path", ["/", "/api/users/", "/api//users", "/API/users", "/static/x", "/%00"])
def test_an_unknown_address_is_a_404_in_json(client: FlaskClient, path: str) -> None:
    response = client.get(path)
    assert (response.status_code, response.json["code"]) == (404, "not_found")


def test_another_method_is_a_405_that_names_those_that_are_possible(client: FlaskClient) -> None:
    response = client.put("/api/targets/7", json={})
    assert (response.status_code, response.json["code"]) == (405, "method_not_allowed")
    assert response.headers["Allow"] == "DELETE, GET, HEAD, OPTIONS, PATCH"


def test_options_names_the_methods_and_head_sends_no_body(client: FlaskClient) -> None:
    response = client.options("/api/users/add")
    assert (response.status_code, response.headers["Allow"], response.data) == (204, "OPTIONS, POST", b"")
    assert client.options("/nowhere").status_code == 404
    response = client.head("/api/users")
    assert (response.status_code, response.data) == (200, b"")


# -- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exc", "status", "code"),
    [
        (BadRequest("x"), 400, "bad_request"),
        (Unusable("x"), 422, "unusable"),
        (NotFound("x"), 404, "not_found"),
        (Refused("x"), 409, "refused"),
        (InvalidTransition("x"), 409, "invalid_transition"),
        (GuardRejected("x"), 409, "guard_rejected"),
        (AlreadyRunning("x"), 409, "already_running"),
        (TooMany("x"), 429, "too_many"),
        (Busy("x"), 503, "busy"),
        (Draining("x"), 503, "draining"),
        (StoreUnavailable("x"), 503, "store_unavailable"),
    ],
)
def test_each_error_has_its_status(
    client: FlaskClient, service: FakeService, exc: Exception, status: int, code: str
) -> None:
    service.answers["refresh_all"] = exc
    response = client.post("/api/users/refresh-all")
    assert (response.status_code, response.json) == (status, {"error": "x", "code": code})
    assert ("Retry-After" in response.headers) == (status in (429, 503))


def test_details_of_an_error_are_told_and_cannot_hide_it(client: FlaskClient, service: FakeService) -> None:
    details = {"refused_by": "overdue", "state": "RUNNING", "since": datetime(2026, 1, 1, tzinfo=UTC), "error": "y"}
    service.answers["transition"] = GuardRejected("it runs", hint="wait", **details)
    told = client.post("/api/targets/7/transitions", json={"trigger": "reset"}).json
    assert told == {
        "error": "it runs",
        "code": "guard_rejected",
        "hint": "wait",
        "refused_by": "overdue",
        "state": "RUNNING",
        "since": "2026-01-01T00:00:00+00:00",
    }


@pytest.mark.parametrize("exc", [RuntimeError("the secret of /srv"), ScrapeFailed("the secret of /srv")])
def test_a_mistake_of_ours_is_a_500_that_tells_only_the_log(
    client: FlaskClient, service: FakeService, caplog: pytest.LogCaptureFixture, exc: Exception
) -> None:
    service.answers["users"] = exc
    response = client.get("/api/users")
    assert (response.status_code, response.json["code"]) == (500, "internal")
    assert "secret" not in response.text
    assert "the secret of /srv" in caplog.text
    assert "Traceback" in caplog.text


def test_half_a_surrogate_pair_in_an_answer_stays_valid_json(client: FlaskClient, service: FakeService) -> None:
    service.answers["sources"] = {"sources": [], "odd": "\ud800 \u00e9"}
    response = client.get("/api/sources")
    assert json.loads(response.data.decode("utf-8"))["odd"] == "\ud800 \u00e9"


def test_every_answer_is_to_be_asked_for_again_and_not_sniffed(client: FlaskClient) -> None:
    for path in ("/api/users", "/nowhere", "/api/lifecycle.mmd"):
        headers = client.get(path).headers
        assert (headers["Cache-Control"], headers["X-Content-Type-Options"]) == ("no-cache", "nosniff")
