"""Who may ask: the checks of Host, token and Origin, and what a frontend from elsewhere is told."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from api import Asked, Gate, create_app
from config import Settings
from tests.support.fake_service import FakeService

SITE = {
    "allowed_hosts": "gleand.example.org, [fd00::1]:8443, tls.example.org:443",
    "allowed_origins": "https://app.example.org",
}


def asked(host: str | None, *, method: str = "GET", origin: str | None = None, local: str = "127.0.0.1") -> Asked:
    return Asked(
        method=method,
        path="/api/users",
        host=host,
        origin=origin,
        authorization=None,
        method_to_come=None,
        local=local,
    )


def status(settings: Settings, what: Asked, port: int = 5000) -> int:
    turned = Gate(settings, port).admit(what)
    return 200 if turned is None else turned.status


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:5000", "localhost", "LocalHost:5000", "localhost.", "[::1]", "[::1]:5000"]
)
def test_loopback_names_are_ours_when_bound_to_loopback(host: str) -> None:
    assert status(Settings(), asked(host)) == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1:5001", "localhost:80", "127.0.0.1.evil.example", "10.0.0.5", "0.0.0.0:5000"]
)
def test_another_name_or_port_is_a_403(host: str) -> None:
    assert status(Settings(), asked(host)) == 403


@pytest.mark.parametrize(
    "host", [None, "", "a b", "localhost:", "localhost:x", "http://localhost", "a,b", "::1", "\u00e9"]
)
def test_a_host_that_is_none_is_a_400(host: str | None) -> None:
    assert status(Settings(), asked(host)) == 400


@pytest.mark.parametrize(
    ("host", "wanted"),
    [
        ("gleand.example.org", 200),
        ("Gleand.Example.org:8443", 200),
        ("[fd00::1]:8443", 200),
        ("[fd00::1]", 403),
        ("tls.example.org", 200),
        ("tls.example.org:8443", 403),
        ("other.example.org", 403),
    ],
)
def test_configured_names_are_ours(host: str, wanted: int) -> None:
    assert status(Settings(**SITE), asked(host)) == wanted


def test_bound_to_every_address_the_one_that_was_reached_is_ours() -> None:
    settings = Settings(host="0.0.0.0", api_token="secret")
    assert status(settings, asked("10.0.0.5:5000", local="10.0.0.5")) == 401
    assert status(settings, asked("10.0.0.5", local="::ffff:10.0.0.5")) == 401
    assert status(settings, asked("10.0.0.6:5000", local="10.0.0.5")) == 403
    assert status(settings, asked("localhost:5000", local="10.0.0.5")) == 403
    assert status(settings, asked("localhost:5000", local="127.0.0.1")) == 401


def test_on_a_port_that_is_not_known_any_is_ours() -> None:
    assert status(Settings(port=0), asked("localhost:1234"), port=0) == 200


@pytest.mark.parametrize(
    ("origin", "host", "wanted"),
    [
        ("http://localhost:5000", "localhost:5000", 200),
        ("http://localhost", "localhost", 200),
        ("http://localhost:80", "localhost", 200),
        ("https://app.example.org", "localhost:5000", 200),
        ("https://APP.example.org", "localhost:5000", 200),
        ("https://gleand.example.org", "localhost:5000", 200),
        ("https://gleand.example.org:8443", "localhost:5000", 200),
        ("https://[fd00::1]:8443", "localhost:5000", 200),
        ("https://[fd00::1]", "localhost:5000", 403),
        ("http://app.example.org", "localhost:5000", 403),
        ("https://app.example.org.evil.example", "localhost:5000", 403),
        ("http://localhost:3000", "localhost:5000", 403),
        ("http://127.0.0.1:5000", "localhost:5000", 403),
        ("null", "localhost:5000", 403),
        ("", "localhost:5000", 403),
        ("file://localhost:5000", "localhost:5000", 403),
        ("http://x@localhost:5000", "localhost:5000", 403),
    ],
)
def test_a_write_from_another_site_is_refused(origin: str, host: str, wanted: int) -> None:
    settings = Settings(**SITE)
    for method in ("POST", "PATCH", "DELETE"):
        assert status(settings, asked(host, method=method, origin=origin)) == wanted
    assert status(settings, asked(host, origin=origin)) == 200


# -- through Flask ---------------------------------------------------------------------------------------------------


def client(**settings: str) -> FlaskClient:
    return create_app(FakeService(), Settings(**settings)).test_client()


def test_flask_refuses_another_host_by_itself() -> None:
    response = client().get("/api/users", headers={"Host": "evil.example"})
    assert (response.status_code, response.json["code"]) == (403, "host_not_allowed")
    assert "allowed_hosts" in response.json["hint"]


def test_flask_refuses_a_write_from_another_site_by_itself() -> None:
    response = client().post("/api/users/refresh-all", headers={"Origin": "https://evil.example"})
    assert (response.status_code, response.json["code"]) == (403, "origin_not_allowed")


@pytest.mark.parametrize(
    "value", [None, "", "secret", "Basic secret", "Bearer", "Bearer secre", "Bearer secret2", "Bearer s\u00e9cret"]
)
def test_without_the_token_everything_but_health_is_a_401(value: str | None) -> None:
    daemon = client(api_token="secret")
    headers = {} if value is None else {"Authorization": value.encode().decode("latin-1")}
    for method, path in (("GET", "/api/users"), ("GET", "/api/scrape-status"), ("GET", "/x"), ("POST", "/healthz/x")):
        response = daemon.open(path, method=method, headers=headers)
        assert (response.status_code, response.json["code"]) == (401, "unauthorized")
        assert response.headers["WWW-Authenticate"].startswith("Bearer")
    assert daemon.get("/healthz", headers=headers).status_code == 200
    assert daemon.get("/readyz", headers=headers).status_code == 200


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_token_opens_reads_and_writes(scheme: str) -> None:
    headers = {"Authorization": f"{scheme} secret"}
    daemon = client(api_token="secret")
    assert daemon.get("/api/users", headers=headers).status_code == 200
    assert daemon.post("/api/users/refresh-all", headers=headers).status_code == 200


def test_an_allowed_origin_may_read_the_answers_and_no_other() -> None:
    daemon = client(**SITE)
    headers = daemon.get("/nowhere", headers={"Origin": "https://app.example.org"}).headers
    assert headers["Access-Control-Allow-Origin"] == "https://app.example.org"
    assert headers["Vary"] == "Origin"
    assert "ETag" in headers["Access-Control-Expose-Headers"]
    for other in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {}):
        headers = daemon.get("/api/users", headers=other).headers
        assert "Access-Control-Allow-Origin" not in headers
        assert headers["Vary"] == "Origin"
    assert "Vary" not in client().get("/api/users", headers={"Origin": "https://evil.example"}).headers


def test_a_preflight_needs_no_token_and_names_what_is_possible() -> None:
    daemon = client(**SITE, api_token="secret")
    headers = {"Origin": "https://app.example.org", "Access-Control-Request-Method": "PATCH"}
    response = daemon.options("/api/targets/7", headers=headers)
    assert (response.status_code, response.data) == (204, b"")
    assert response.headers["Access-Control-Allow-Origin"] == "https://app.example.org"
    assert "PATCH" in response.headers["Access-Control-Allow-Methods"]
    assert "Authorization" in response.headers["Access-Control-Allow-Headers"]
    headers["Origin"] = "https://evil.example"
    response = daemon.options("/api/targets/7", headers=headers)
    assert (response.status_code, response.json["code"]) == (403, "origin_not_allowed")
