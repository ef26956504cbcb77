"""What a request may hold, read from openapi.json, so that the file and the code cannot disagree."""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from errors import BadRequest, GleandError, Unusable
from web.protocols import View

Args = dict[str, Any]  # Any: values of a request, judged by the contract
Rule = dict[str, Any]  # Any: a JSON schema of openapi.json

#: Largest body of a request (bytes).
BODY_LIMIT_BYTES = 1024 * 1024
#: Largest whole number in a request, and largest id.
MAX_INTEGER = 2**63 - 1
_ID = re.compile(r"[1-9][0-9]{0,18}")


@functools.cache
def contract() -> tuple[bytes, View]:
    """openapi.json, as bytes and as a value."""
    data = (Path(__file__).parents[1] / "openapi.json").read_bytes()
    return data, json.loads(data)


def _resolved(rule: Rule) -> Rule:
    while "$ref" in rule:
        node: Any = contract()[1]  # Any: a part of the file
        for part in rule["$ref"].removeprefix("#/").split("/"):
            node = node[part]
        rule = node
    return rule


class Operation:
    """Reads what one call may be given, as openapi.json has it."""

    def __init__(self, method: str, path: str) -> None:
        found = contract()[1]["paths"][path][method.lower()]
        parameters = [_resolved(p) for p in found.get("parameters", ())]
        #: The older API passes over what it does not know.
        self.lenient = "older" in found["tags"]
        self.query = {p["name"]: _resolved(p["schema"]) for p in parameters if p["in"] == "query"}
        self.headers = {p["name"]: _resolved(p["schema"]) for p in parameters if p["in"] == "header"}
        self.takes_body = "requestBody" in found
        self.body_required = found.get("requestBody", {}).get("required", False)
        content = found["requestBody"]["content"]["application/json"]["schema"] if self.takes_body else {}
        self.body = _resolved(content)
        self.fields: dict[str, Rule] = {n: _resolved(r) for n, r in self.body.get("properties", {}).items()}

    def read_query(self, raw: bytes) -> Args:
        """Read the query; every parameter is there, None where it was left out or empty. Raises BadRequest."""
        if not raw:
            return {name: rule.get("default") for name, rule in self.query.items()}
        try:
            pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=100)
        except ValueError:
            raise BadRequest("the query is not UTF-8 in percent-encoding, or it has over 100 parameters") from None
        given: Args = {}
        for name, text in pairs:
            rule = self.query.get(name)
            if rule is None:
                if not self.lenient:
                    raise _unknown("parameter", [name], self.query)
            elif name in given:
                raise BadRequest(f"{name} is given twice", field=name)
            elif text:
                given[name] = checked(name, _number(text, rule), rule, BadRequest)
        return {name: given.get(name, rule.get("default")) for name, rule in self.query.items()}

    def read_header(self, name: str, text: str | None) -> Any:  # Any: a value, judged by the contract
        """Read a header; None where it was left out or is empty. Raises BadRequest."""
        rule = self.headers[name]
        return checked(name, _number(text.strip(), rule), rule, BadRequest) if text and text.strip() else None

    def read_fields(self, given: View) -> Args:
        """Read the body's fields; one that was left out is there only if it has a default.

        Raises:
            BadRequest: A field is unknown, missing, or of another type.
            Unusable: A value is outside its limits.
        """
        unknown = [name for name in given if name not in self.fields]
        if unknown and not self.lenient:
            raise _unknown("field", unknown, self.fields)
        for name in self.body.get("required", ()):
            if given.get(name) is None or (isinstance(given[name], str) and not given[name].strip()):
                raise BadRequest(f"{name} is missing", field=name)
        if len(given) < self.body.get("minProperties", 0):
            raise BadRequest("the body names nothing to change", hint=f"give {' or '.join(self.fields)}")
        args: Args = {name: rule["default"] for name, rule in self.fields.items() if "default" in rule}
        for name, rule in self.fields.items():
            if name in given:
                args[name] = checked(name, given[name], rule, Unusable)
        return args


def _unknown(what: str, names: Sequence[str], known: Rule) -> BadRequest:
    shown = ", ".join(ascii(name[:60]) for name in names[:5])
    hint = f"known are: {', '.join(known)}" if known else "this call takes none"
    return BadRequest(f"unknown {what} {shown}", hint=hint)


def _number(text: str, rule: Rule) -> int | float | str:
    """Text of a query as the number that is wanted; text that is none stays as it is, for `checked` to refuse."""
    if rule["type"] == "integer" and re.fullmatch(r"-?[0-9]{1,30}", text):
        return int(text)
    if rule["type"] == "number" and re.fullmatch(r"-?[0-9]{1,30}(\.[0-9]{1,30})?", text):
        return float(text)
    return text


def checked(name: str, value: Any, rule: Rule, beyond: type[GleandError]) -> Any:  # Any: JSON, and a value for it
    """Hold one value against its rule; times become datetimes in UTC.

    Raises:
        BadRequest: It is of another type.
        GleandError: It is outside its limits; raised as `beyond`.
    """
    types = [rule["type"]] if isinstance(rule["type"], str) else rule["type"]
    if isinstance(value, float) and "integer" in types and math.isfinite(value) and value.is_integer():
        value = int(value)  # 60.0 is a whole number, as JSON Schema has it
    words = {"null": value is None, "string": isinstance(value, str), "boolean": isinstance(value, bool)}
    whole = isinstance(value, int) and not isinstance(value, bool)
    words |= {"integer": whole, "number": whole or isinstance(value, float)}
    if not any(words[kind] for kind in types):
        kinds = " or ".join({"integer": "a whole number", "null": "null"}.get(k, f"a {k}") for k in types)
        raise BadRequest(f"{name} must be {kinds}", field=name)
    if isinstance(value, str):
        _check_text(name, value, rule, beyond)
    elif words["number"] and (not math.isfinite(value) or abs(value) > MAX_INTEGER):
        raise BadRequest(f"{name} is too large a number", field=name)
    elif words["number"]:
        _check_limits(name, value, rule, beyond)
    return _time(name, value, beyond) if rule.get("format") == "date-time" and value is not None else value


def _check_text(name: str, value: str, rule: Rule, beyond: type[GleandError]) -> None:
    if any("\ud800" <= c <= "\udfff" for c in value):
        raise BadRequest(f"{name} holds half of a surrogate pair, which is no character", field=name)
    if any(c < " " or "\x7f" <= c <= "\x9f" for c in value):
        raise beyond(f"{name} holds control characters", field=name)
    if "enum" in rule and value not in rule["enum"]:
        raise beyond(f"{name} must be one of {', '.join(rule['enum'])}", field=name)
    if not rule.get("minLength", 0) <= len(value) <= rule.get("maxLength", len(value)):
        wanted = f"be at most {rule.get('maxLength')} characters long" if value else "not be empty"
        raise beyond(f"{name} must {wanted}", field=name)
    if "pattern" in rule and not re.search(rule["pattern"], value, re.ASCII):
        raise beyond(f"{name} does not have the form that is wanted", hint=rule.get("description"), field=name)


def _check_limits(name: str, value: float, rule: Rule, beyond: type[GleandError]) -> None:
    least, most, above = rule.get("minimum"), rule.get("maximum"), rule.get("exclusiveMinimum")
    low = (least is not None and value < least) or (above is not None and value <= above)
    if low or (most is not None and value > most):
        start = f"more than {above}" if above is not None else f"at least {least}"
        raise beyond(f"{name} must be {start} and at most {most}", field=name)


def _time(name: str, value: str, beyond: type[GleandError]) -> datetime:
    try:
        at = datetime.fromisoformat(value)
        if at.tzinfo is not None:
            return at.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    hint = "such as 2030-01-31T12:00:00Z; in a query a + is written %2B"
    raise beyond(f"{name} must be a time in ISO 8601 with an offset", hint=hint, field=name)


def parse_object(data: bytes) -> View:
    """Read a JSON object, strictly: UTF-8, no name twice, numbers that JSON has. Raises BadRequest."""
    try:
        value = json.loads(data.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_no_name_twice)
    except UnicodeDecodeError:
        raise BadRequest("the body is not UTF-8") from None
    except json.JSONDecodeError as exc:
        raise BadRequest(f"the body is not JSON: {exc.msg} at line {exc.lineno} column {exc.colno}") from None
    except (ValueError, RecursionError):
        raise BadRequest("the body is not JSON that we read: it is nested too deep, or a number too long") from None
    if not isinstance(value, dict):
        raise BadRequest("the body must be a JSON object")
    return value


def _no_constant(name: str) -> None:
    raise BadRequest(f"the body is not JSON: {name} is no number")


def _no_name_twice(pairs: list[tuple[str, Any]]) -> View:  # Any: JSON values
    view = dict(pairs)
    if len(view) != len(pairs):
        raise BadRequest("the body has a field twice")
    return view


def path_id(text: str) -> int | None:
    """An id in a path; None when there can be no such thing."""
    found = int(text) if _ID.fullmatch(text) else None
    return None if found is None or found > MAX_INTEGER else found
