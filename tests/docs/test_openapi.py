"""openapi.json and the code: the same routes, the same fields, and answers of the shape it promises."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from api import create_app
from config import Settings
from fsm.states import State, Trigger
from gleand import __version__
from jobs.views import empty_status
from tests.support.fake_service import FakeService
from web.answers import STATUS_CODES
from web.contract import Operation

FILE = Path(__file__).resolve().parents[2] / "openapi.json"
DOC: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
CALLS = [(method.upper(), path) for path, item in DOC["paths"].items() for method in item]
WITH_BODY = [(method, path) for method, path in CALLS if "requestBody" in DOC["paths"][path][method.lower()]]
#: A value that each field of a request may have.
EXAMPLES: dict[str, Any] = {
    "username": "a",
    "target": "7",
    "range": 60,
    "source": "feed",
    "schedule": "every 15m",
    "timeout_s": 2.5,
    "display_name": "A",
    "start": False,
    "paused_until": "2030-01-01T00:00:00Z",
    "trigger": "reset",
    "force": True,
    "reason": "stuck",
    "run_id": 3,
    "limit": 5,
    "cursor": "9",
    "state": "FAILED",
    "q": "x",
    "since": "2026-01-01T00:00:00Z",
    "sweep_id": 4,
    "wait": 0,
    "last_event_id": 0,
}


def operation(method: str, path: str) -> dict[str, Any]:
    found: dict[str, Any] = DOC["paths"][path][method.lower()]
    return found


def is_older(method: str, path: str) -> bool:
    return "older" in operation(method, path)["tags"]


def body_schema(method: str, path: str) -> dict[str, Any]:
    name = operation(method, path)["requestBody"]["content"]["application/json"]["schema"]["$ref"].split("/")[-1]
    schema: dict[str, Any] = DOC["components"]["schemas"][name]
    return schema


def example(method: str, path: str) -> dict[str, Any]:
    return {name: EXAMPLES[name] for name in body_schema(method, path)["properties"]}


def errors_of(view: Any, schema: dict[str, Any]) -> list[str]:
    validator = Draft202012Validator(schema | {"components": DOC["components"]})
    return [f"{list(e.absolute_path)}: {e.message}" for e in validator.iter_errors(view)]


@pytest.fixture
def client() -> FlaskClient:
    service = FakeService()
    return create_app(service, Settings()).test_client()


def test_the_file_is_valid_openapi_3_1() -> None:
    assert DOC["openapi"].startswith("3.1.")
    validate(DOC)


def test_the_file_has_the_version_of_the_package() -> None:
    assert DOC["info"]["version"] == __version__


def test_the_file_is_served_as_it_is(client: FlaskClient) -> None:
    assert client.get("/openapi.json").data == FILE.read_bytes()


def test_the_file_and_the_code_have_the_same_routes() -> None:
    app = create_app(FakeService(), Settings())
    rules = [(re.sub(r"<(\w+)>", r"{\1}", rule.rule), rule.methods or set()) for rule in app.url_map.iter_rules()]
    routes = {(method, path) for path, methods in rules for method in methods - {"HEAD", "OPTIONS"}}
    assert routes == set(CALLS)


def test_the_file_and_the_lifecycle_have_the_same_words() -> None:
    assert DOC["components"]["schemas"]["State"]["enum"] == [state.value for state in State]
    triggers = DOC["components"]["schemas"]["Transition"]["properties"]["trigger"]["enum"]
    assert set(triggers) < {trigger.value for trigger in Trigger}


def test_only_the_older_api_passes_over_unknown_fields() -> None:
    for method, path in WITH_BODY:
        assert (body_schema(method, path).get("additionalProperties", True) is False) != is_older(method, path)


@pytest.mark.parametrize(("method", "path"), WITH_BODY)
def test_every_field_in_the_file_is_accepted_and_no_other(client: FlaskClient, method: str, path: str) -> None:
    url, full = path.replace("{id}", "7"), example(method, path)
    assert client.open(url, method=method, json=full).status_code < 300
    needed = {name: full[name] for name in body_schema(method, path).get("required", ())}
    for name in full:
        body = needed | {name: full[name]} | ({"reason": "stuck"} if name == "force" else {})
        assert client.open(url, method=method, json=body).status_code < 300, name
    response = client.open(url, method=method, json=full | {"colour": 1})
    assert response.status_code == (200 if is_older(method, path) else 400)
    assert is_older(method, path) or "colour" in response.json["error"]


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_every_parameter_in_the_file_is_accepted_and_no_other(client: FlaskClient, method: str, path: str) -> None:
    url = path.replace("{id}", "7")
    body = {"json": example(method, path)} if (method, path) in WITH_BODY else {}
    for name in Operation(method, path).query:
        assert client.open(url, method=method, query_string={name: EXAMPLES[name]}, **body).status_code < 300, name
    response = client.open(url, method=method, query_string={"colour": "red"}, **body)
    if is_older(method, path):
        assert response.status_code < 300
    else:
        assert (response.status_code, "colour" in response.json["error"]) == (400, True)


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_answers_have_the_shape_that_the_file_promises(client: FlaskClient, method: str, path: str) -> None:
    body = {"json": example(method, path)} if (method, path) in WITH_BODY else {}
    response = client.open(path.replace("{id}", "7"), method=method, **body)
    promised = operation(method, path)["responses"][str(response.status_code)]
    kind = response.content_type.partition(";")[0]
    assert set(promised.get("headers", {})) <= set(response.headers.keys())
    if kind == "application/json":
        assert errors_of(response.json, promised["content"][kind]["schema"]) == []
    else:
        assert kind in promised["content"]


def test_errors_have_the_shape_that_the_file_promises(client: FlaskClient) -> None:
    asked = [
        client.get("/nowhere"),
        client.put("/api/users"),
        client.get("/api/users", headers={"Host": "evil.example"}),
        client.post("/api/targets", data=b"x"),
        client.post("/api/targets", data=b"{", content_type="application/json"),
        client.post("/api/targets", json={"target": ""}),
        client.post("/api/targets", json={"target": "a", "timeout_s": -1}),
    ]
    assert [response.status_code for response in asked] == [404, 405, 403, 415, 400, 400, 422]
    for response in asked:
        assert errors_of(response.json, {"$ref": "#/components/schemas/Error"}) == []


def test_the_first_status_of_all_has_the_shape_that_the_file_promises() -> None:
    assert errors_of(empty_status(), {"$ref": "#/components/schemas/Status"}) == []


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_every_error_of_a_write_is_in_the_file(method: str, path: str) -> None:
    codes = {int(code) for code in operation(method, path)["responses"]}
    assert {400, 403, 500} <= codes
    if method != "GET":
        assert set(STATUS_CODES.values()) - {404, 409, 422, 429} <= codes
