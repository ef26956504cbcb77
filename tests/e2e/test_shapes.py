"""What a real daemon answers is what openapi.json says, and nothing beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.support.daemon import ROOT, Daemon
from tests.support.settings import scrapers

OPENAPI = json.loads((ROOT / "openapi.json").read_text(encoding="utf-8"))
ROUTES = {
    "/api/users": "Users",
    "/api/scrape-status": "Status",
    "/api/feed": "Feed",
    "/api/targets": "Targets",
    "/api/targets/1": "Target",
    "/api/targets/1/status": "TargetStatus",
    "/api/targets/2/status": "TargetStatus",
    "/api/targets/1/journal": "Journal",
    "/api/targets/1/runs": "Runs",
    "/api/posts": "Posts",
    "/api/hosts": "Hosts",
    "/api/sources": "Sources",
    "/api/sweeps/1": "Sweep",
    "/healthz": "Health",
    "/readyz": "Readiness",
}


def closed(schema: Any) -> Any:
    """The same schema, in which an object has no other fields than those that are named."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: closed(value) for key, value in schema.items()}
    if isinstance(made.get("properties"), dict) and "additionalProperties" not in made:
        made["unevaluatedProperties"] = False
    return made


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with Daemon(tmp_path_factory.mktemp("shapes") / "data", **scrapers()) as daemon:
        daemon.wait_state(daemon.add("good:a")["user"]["id"], "COMPLETED")
        daemon.add("sleeps:b")
        yield daemon
        daemon.call("POST", "/api/scrape-status/reset", {"force": True})


@pytest.mark.parametrize("path", list(ROUTES))
def test_an_answer_has_the_fields_of_its_schema_and_no_others(daemon: Daemon, path: str) -> None:
    schemas = OPENAPI["components"]["schemas"]
    own = {"allOf", "$ref"} & schemas[ROUTES[path]].keys()
    whole = {"$ref": f"#/components/schemas/{ROUTES[path]}", "components": OPENAPI["components"]}
    Draft202012Validator(whole).validate(daemon.get(path))
    if not own:  # one that is put together of others cannot be closed like this
        top = closed(schemas[ROUTES[path]]) | {"components": OPENAPI["components"]}
        Draft202012Validator(top).validate(daemon.get(path))
        rows = next((v for v in daemon.get(path).values() if isinstance(v, list)), [])
        named = schemas[ROUTES[path]]["properties"]
        for row in rows[:1]:
            (ref,) = [p["items"]["$ref"] for p in named.values() if "$ref" in p.get("items", {})] or [None]
            if ref is not None:
                known = schemas[ref.rpartition("/")[2]]
                fields = known.get("properties", {}) | {
                    k: v
                    for part in known.get("allOf", [])
                    for k, v in schemas.get(part.get("$ref", "").rpartition("/")[2], part).get("properties", {}).items()
                }
                assert set(row) <= set(fields), set(row) - set(fields)
