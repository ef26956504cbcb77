"""The HTTP contract in Flask: parse, one service call, render; one error table.

What a request may hold is read from openapi.json, so that the file and the code cannot disagree. The checks of Host,
token and Origin and the answers of the two status calls live here too: server.py gives the same ones in front of
Flask. That makes it longer than a module should be, and the tree has no room between this one and the server.
Nothing here decides anything about a target; nothing here knows the database.
"""

from __future__ import annotations

import functools
import hmac
import json
import logging
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qsl

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from config import Settings
from errors import BadRequest, Draining, GleandError, NotFound, Refused, StoreUnavailable, Unusable
from jobs.snapshot import make_page

log = logging.getLogger(__name__)
View = dict[str, Any]  # Any: JSON values
Args = dict[str, Any]  # Any: values of a request, judged by the contract
Rule = dict[str, Any]  # Any: a JSON schema of openapi.json
Headers = tuple[tuple[str, str], ...]

#: Largest body of a request (bytes).
BODY_LIMIT_BYTES = 1024 * 1024
#: Largest whole number in a request, and largest id.
MAX_INTEGER = 2**63 - 1
#: What a client is told to wait after a 503 (seconds).
RETRY_AFTER_S = 5
#: Status code of each family of errors; whatever is not here is our mistake.
STATUS_CODES: dict[type[GleandError], int] = {
    BadRequest: 400,
    NotFound: 404,
    Refused: 409,
    Unusable: 422,
    Draining: 503,
    StoreUnavailable: 503,
}
_CODES = {404: "not_found", 405: "method_not_allowed", 413: "too_large", 415: "unsupported_media_type"}
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
#: Answered without a token, so that a supervisor needs none.
_OPEN_PATHS = frozenset({"/healthz", "/readyz"})
_LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})
_ID = re.compile(r"[1-9][0-9]{0,18}")
_TAG = re.compile(r'"[^"]*"')
_AUTHORITY = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::([0-9]{1,5}))?")


class Page(Protocol):
    """A status, ready to be sent."""

    @property
    def body(self) -> bytes:
        """JSON."""

    @property
    def etag(self) -> str:
        """Weak entity tag of everything but heartbeat times."""


class Board(Protocol):
    """The published snapshot: `status` and `target` answer from memory, without a lock."""

    def status(self, sweep_id: int | None = None) -> Page | None: ...
    def target(self, target_id: int) -> Page | None: ...
    def pin(self, target_id: int) -> Page: ...
    def unpin(self, target_id: int) -> None: ...
    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]: ...


class ServiceLike(Protocol):
    """What the API asks of jobs/service.py."""

    @property
    def board(self) -> Board: ...
    def add(
        self,
        *,
        target: str,
        source: str | None = None,
        schedule: str | None = None,
        timeout_s: float | None = None,
        range_: int | None = None,
        start: bool = True,
        again: bool = False,
        display_name: str | None = None,
    ) -> View: ...
    def remove(self, *, target_id: int | None = None, username: str | None = None) -> View: ...
    def refresh_all(self, *, range_: int | None = None) -> View: ...
    def reset_sweeps(self, *, force: bool = False, reason: str | None = None) -> View: ...
    def transition(
        self, target_id: int, *, trigger: str, force: bool = False, reason: str | None = None, run_id: int | None = None
    ) -> tuple[View, int]: ...
    def patch(self, target_id: int, changes: View) -> View: ...
    def users(self, *, limit: int | None = None, cursor: str | None = None) -> View: ...
    def targets(
        self, *, state: str | None, source: str | None, q: str | None, limit: int, cursor: str | None
    ) -> View: ...
    def target(self, target_id: int) -> View: ...
    def target_status(self, target_id: int) -> View: ...
    def scrape_status(self, sweep_id: int | None = None) -> View: ...
    def feed(self, *, username: str | None, limit: int, cursor: str | None) -> View: ...
    def posts(
        self,
        *,
        target: int | None,
        source: str | None,
        since: datetime | None,
        q: str | None,
        limit: int,
        cursor: str | None,
    ) -> View: ...
    def journal(self, target_id: int, *, limit: int, cursor: str | None) -> View: ...
    def runs_of(self, target_id: int, *, limit: int, cursor: str | None) -> View: ...
    def run(self, run_id: int) -> View: ...
    def sweep(self, sweep_id: int) -> View: ...
    def hosts(self, *, limit: int, cursor: str | None) -> View: ...
    def sources(self) -> View: ...
    def lifecycle_mmd(self) -> str: ...
    def health(self) -> tuple[View, bool]: ...
    def ready(self) -> tuple[View, bool]: ...


# -- answers ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What goes back to a client."""

    status: int
    body: bytes
    headers: Headers = ()
    content_type: str = "application/json"


class TurnedAway(GleandError):
    """A request that HTTP itself refuses, before any service call; it carries its own status."""

    def __init__(self, status: int, code: str, message: str, *, hint: str | None = None, headers: Headers = ()) -> None:
        super().__init__(message, hint=hint)
        self.status, self.code, self.headers = status, code, headers


def dump(view: View) -> bytes:
    """Write JSON in UTF-8; half of a surrogate pair stays an escape, since UTF-8 has no form for it."""
    text = json.dumps(view, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_as_text)
    return text.encode("utf-8", "backslashreplace")


def _as_text(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def answer(view: View, status: int = 200, headers: Headers = ()) -> Answer:
    """Render a view."""
    return Answer(status=status, body=dump(view), headers=headers)


def error_answer(exc: BaseException, where: str = "") -> Answer:
    """Render an error in the one shape all of them have.

    One that is not in the table is our own mistake: it is logged with its traceback and `where`, and the client is
    told nothing of it.
    """
    status: int = 0
    headers: Headers = ()
    if isinstance(exc, TurnedAway):
        status, headers = exc.status, exc.headers
    elif isinstance(exc, GleandError):
        status = next((STATUS_CODES[c] for c in type(exc).__mro__ if c in STATUS_CODES), 0)
        headers = (("Retry-After", str(RETRY_AFTER_S)),) if status == 503 else ()
    if not status or not isinstance(exc, GleandError):
        log.error("request_failed where=%s error=%r", ascii(where[:200]), exc, exc_info=exc)
        return answer({"error": "something went wrong inside; the log says what", "code": "internal"}, 500)
    told = {"error": exc.message, "code": exc.code} | ({"hint": exc.hint} if exc.hint else {})
    return answer(told | {name: value for name, value in exc.details.items() if name not in told}, status, headers)


# -- who may ask -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the gate looks at; a header that is not there is None."""

    method: str
    path: str
    host: str | None
    origin: str | None
    authorization: str | None
    #: Of a preflight: the method that is going to be used.
    method_to_come: str | None
    #: Address that the connection arrived at.
    local: str | None


class Gate:
    """The checks of Host, token and Origin; the same before the door and before Flask."""

    def __init__(self, settings: Settings, port: int) -> None:
        """`port`: the one that is listened on; 0: not known here, any will do."""
        self._port = port
        self._bound = {settings.host.lower().strip("[]").rstrip(".")}
        self._hosts = frozenset(settings.allowed_hosts)
        self._origins = frozenset(settings.allowed_origins)
        self._token = settings.api_token.encode() if settings.api_token else None

    def admit(self, asked: Asked) -> Answer | None:
        """Give the answer of a request that goes no further: a refusal, or a preflight's; else None."""
        try:
            self._check_host(asked)
            if asked.method == "OPTIONS" and asked.origin is not None and asked.method_to_come is not None:
                return self._preflight(asked.origin)
            self._check_token(asked)
            if asked.origin is not None and asked.method not in _SAFE_METHODS:
                self._check_origin(asked.origin, asked)
        except TurnedAway as exc:
            return error_answer(exc)
        return None

    def cors(self, origin: str | None) -> Headers:
        """Headers that let a frontend of an allowed origin read the answer."""
        if not self._origins:
            return ()
        if origin is None or origin.lower() not in self._origins:
            return (("Vary", "Origin"),)
        shown = ("Access-Control-Expose-Headers", "Allow, ETag, Location, Retry-After")
        return (("Vary", "Origin"), ("Access-Control-Allow-Origin", origin), shown)

    def _preflight(self, origin: str) -> Answer:
        if origin.lower() not in self._origins:
            raise _foreign_origin()
        headers = (
            ("Access-Control-Allow-Methods", "GET, HEAD, POST, PATCH, DELETE"),
            ("Access-Control-Allow-Headers", "Authorization, Content-Type, If-None-Match"),
            ("Access-Control-Max-Age", "600"),
        )
        return Answer(status=204, body=b"", headers=headers)

    def _check_host(self, asked: Asked) -> None:
        if asked.host is None:
            raise TurnedAway(400, "bad_host", "the request has no Host header")
        found = _AUTHORITY.fullmatch(asked.host.lower())
        if found is None:
            raise TurnedAway(400, "bad_host", "the Host header is not a name with an optional port")
        if not self._is_ours(found[1] or found[2], found[3], asked.local):
            hint = "use the address that gleand listens on, or add the name to allowed_hosts"
            raise TurnedAway(403, "host_not_allowed", "the Host header names another site", hint=hint)

    def _is_ours(self, name: str, port: str | None, local: str | None) -> bool:
        name = name.rstrip(".")
        bracketed = f"[{name}]" if ":" in name else name
        ports = (port,) if port is not None else ("80", "443")  # the usual ones are left out
        if bracketed in self._hosts or any(f"{bracketed}:{p}" in self._hosts for p in ports):
            return True
        local = (local or "").removeprefix("::ffff:")
        at_loopback = local.startswith("127.") or local in _LOOPBACK_NAMES
        bound = name in self._bound or (name == local and local != "") or (at_loopback and name in _LOOPBACK_NAMES)
        return bound and (port is None or self._port == 0 or int(port) == self._port)

    def _check_token(self, asked: Asked) -> None:
        if self._token is None or asked.path in _OPEN_PATHS:
            return
        scheme, _, given = (asked.authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self._token):
            what = "does not carry the API token" if asked.authorization is None else "carries another API token"
            hint = "send Authorization: Bearer and the setting api_token"
            headers = (("WWW-Authenticate", 'Bearer realm="gleand"'),)
            raise TurnedAway(401, "unauthorized", f"the request {what}", hint=hint, headers=headers)

    def _check_origin(self, origin: str, asked: Asked) -> None:
        if origin.lower() in self._origins:
            return
        found = re.fullmatch(r"(https?)://(.+)", origin.lower())
        place = found and _AUTHORITY.fullmatch(found[2])
        if not found or not place:
            raise _foreign_origin()
        usual = {"http": "80", "https": "443"}[found[1]]
        name = found[2].removesuffix(f":{usual}")
        listed = f"[{place[1]}]" if place[1] else place[2]
        same = name == (asked.host or "").lower().removesuffix(f":{usual}")
        if not same and listed not in self._hosts and f"{listed}:{place[3] or usual}" not in self._hosts:
            raise _foreign_origin()


def _foreign_origin() -> TurnedAway:
    hint = "add the site to allowed_origins if it is yours"
    return TurnedAway(403, "origin_not_allowed", "the Origin header names another site", hint=hint)


# -- what a request may hold -----------------------------------------------------------------------------------------


@functools.cache
def contract() -> tuple[bytes, View]:
    """openapi.json, as bytes and as a value."""
    data = Path(__file__).with_name("openapi.json").read_bytes()
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


# -- the two status calls --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusCall:
    """Which status is asked for: a target's, a certain sweep's, or (neither) the daemon's."""

    target_id: int | None = None
    sweep_id: int | None = None
    #: How long a change may be waited for (seconds); 0: not at all.
    wait_s: float = 0.0


def status_call(args: Args) -> StatusCall:
    """Read what the query of a status call asks for."""
    return StatusCall(target_id=args.get("id"), sweep_id=args.get("sweep_id"), wait_s=args.get("wait") or 0.0)


def held_page(service: ServiceLike, call: StatusCall) -> Page | None:
    """Look on the board: memory only. None: it does not hold this one."""
    board = service.board
    return board.target(call.target_id) if call.target_id is not None else board.status(call.sweep_id)


def asked_page(service: ServiceLike, call: StatusCall) -> Page:
    """Ask the service for what the board does not hold; blocks for an indexed read. Raises NotFound."""
    if call.target_id is not None:
        view = service.target_status(call.target_id)
    else:
        view = service.scrape_status(call.sweep_id)
    return make_page(view)


def known_tags(header: str | None) -> frozenset[str] | None:
    """Entity tags of If-None-Match in their quotes, without what makes them weak; None without the header."""
    if header is None:
        return None
    return frozenset({"*"}) if header.strip() == "*" else frozenset(_TAG.findall(header))


def is_known(page: Page, tags: frozenset[str]) -> bool:
    """Whether one of the tags is the page's; weak comparison."""
    return page.etag.removeprefix("W/") in tags or "*" in tags


def status_answer(page: Page, tags: frozenset[str] | None) -> Answer:
    """Render a status, or 304 for a client that has it."""
    headers = (("ETag", page.etag),)
    if tags is not None and is_known(page, tags):
        return Answer(status=304, body=b"", headers=headers)
    return Answer(status=200, body=page.body, headers=headers)


def health_answer(view: View, ok: bool, *, code: str, error: str) -> Answer:
    """Render a health check: 200, or 503 in the shape of an error."""
    return answer(view) if ok else answer({"error": error, "code": code} | view, 503)


def healthz(service: ServiceLike) -> Answer:
    """Alive."""
    return health_answer(*service.health(), code="stuck", error="a part of the daemon does not answer")


def readyz(service: ServiceLike) -> Answer:
    """Takes writes and can store them."""
    return health_answer(*service.ready(), code="not_ready", error="the daemon takes no writes now")


# -- the calls -------------------------------------------------------------------------------------------------------

Handler = Callable[[ServiceLike, Args], "View | Answer"]
#: Every call: method, path as openapi.json writes it, handler.
ROUTES: list[tuple[str, str, Handler]] = []


def _route(method: str, path: str) -> Callable[[Handler], Handler]:
    def keep(handler: Handler) -> Handler:
        ROUTES.append((method, path, handler))
        return handler

    return keep


def _range(args: Args) -> int | None:
    return None if args.get("range") is None else int(args["range"])


@_route("GET", "/api/users")
def _users(service: ServiceLike, args: Args) -> View:
    return service.users(**args)


@_route("POST", "/api/users/add")
def _add_user(service: ServiceLike, args: Args) -> View:
    done = service.add(
        target=args["username"],
        source=args.get("source"),
        schedule=args.get("schedule"),
        range_=_range(args),
        again=True,
    )
    name = done["user"]["username"]
    message = f"Added {name}" if done["created"] else f"Scraping {name} again"
    return {"message": message, "user": done["user"], "status": "running", "sweep_id": done["sweep_id"]}


@_route("POST", "/api/users/remove")
def _remove_user(service: ServiceLike, args: Args) -> View:
    return service.remove(username=args["username"])


@_route("POST", "/api/users/refresh-all")
def _refresh_all(service: ServiceLike, args: Args) -> View:
    done = service.refresh_all(range_=_range(args))
    count = done["total_users"]
    return {"message": f"Scraping {count} user{'' if count == 1 else 's'}", "status": "running"} | done


@_route("GET", "/api/scrape-status")
@_route("GET", "/api/targets/{id}/status")
def _status(service: ServiceLike, args: Args) -> Answer:
    call = status_call(args)
    page = held_page(service, call) or asked_page(service, call)
    return status_answer(page, known_tags(request.headers.get("If-None-Match")))


@_route("POST", "/api/scrape-status/reset")
def _reset_status(service: ServiceLike, args: Args) -> View:
    return service.reset_sweeps(force=args["force"], reason=args.get("reason"))


@_route("GET", "/api/feed")
def _feed(service: ServiceLike, args: Args) -> View:
    return service.feed(**args)


@_route("GET", "/api/targets")
def _targets(service: ServiceLike, args: Args) -> View:
    return service.targets(**args)


@_route("POST", "/api/targets")
def _create_target(service: ServiceLike, args: Args) -> Answer:
    done = service.add(
        target=args["target"],
        source=args.get("source"),
        schedule=args.get("schedule"),
        timeout_s=args.get("timeout_s"),
        range_=_range(args),
        start=args["start"],
        display_name=args.get("display_name"),
    )
    view = done["target"] | {"sweep_id": done["sweep_id"]}
    return answer(view, 201, (("Location", f"/api/targets/{view['id']}"),))


@_route("GET", "/api/targets/{id}")
def _target(service: ServiceLike, args: Args) -> View:
    return service.target(args["id"])


@_route("PATCH", "/api/targets/{id}")
def _change_target(service: ServiceLike, args: Args) -> View:
    return service.patch(args.pop("id"), args)


@_route("DELETE", "/api/targets/{id}")
def _remove_target(service: ServiceLike, args: Args) -> View:
    return service.remove(target_id=args["id"])


@_route("POST", "/api/targets/{id}/transitions")
def _transition(service: ServiceLike, args: Args) -> Answer:
    if args["force"] and not (args.get("reason") or "").strip():
        raise BadRequest("force needs a reason", hint="say why: it is kept in the journal", field="reason")
    return answer(*service.transition(args.pop("id"), **args))


@_route("GET", "/api/targets/{id}/journal")
def _journal(service: ServiceLike, args: Args) -> View:
    return service.journal(args.pop("id"), **args)


@_route("GET", "/api/targets/{id}/runs")
def _runs(service: ServiceLike, args: Args) -> View:
    return service.runs_of(args.pop("id"), **args)


@_route("GET", "/api/targets/{id}/posts")
def _target_posts(service: ServiceLike, args: Args) -> View:
    service.target(args["id"])  # 404 for one that is not there, not an empty list
    return service.posts(target=args.pop("id"), source=None, since=None, q=None, **args)


@_route("GET", "/api/runs/{id}")
def _run(service: ServiceLike, args: Args) -> View:
    return service.run(args["id"])


@_route("GET", "/api/sweeps/{id}")
def _sweep(service: ServiceLike, args: Args) -> View:
    return service.sweep(args["id"])


@_route("GET", "/api/posts")
def _posts(service: ServiceLike, args: Args) -> View:
    return service.posts(**args)


@_route("GET", "/api/hosts")
def _hosts(service: ServiceLike, args: Args) -> View:
    return service.hosts(**args)


@_route("GET", "/api/sources")
def _sources(service: ServiceLike, args: Args) -> View:
    return service.sources()


@_route("GET", "/api/lifecycle.mmd")
def _lifecycle(service: ServiceLike, args: Args) -> Answer:
    return Answer(status=200, body=service.lifecycle_mmd().encode(), content_type="text/plain; charset=utf-8")


@_route("GET", "/healthz")
def _healthz(service: ServiceLike, args: Args) -> Answer:
    return healthz(service)


@_route("GET", "/readyz")
def _readyz(service: ServiceLike, args: Args) -> Answer:
    return readyz(service)


@_route("GET", "/openapi.json")
def _openapi(service: ServiceLike, args: Args) -> Answer:
    return Answer(status=200, body=contract()[0])


# -- Flask -----------------------------------------------------------------------------------------------------------


def create_app(service: ServiceLike, settings: Settings) -> Flask:
    """Build the whole API on a service."""
    app = Flask(__name__, static_folder=None)
    app.url_map.merge_slashes = False  # no redirect, which would be a page in HTML
    app.config.update(MAX_CONTENT_LENGTH=BODY_LIMIT_BYTES, PROVIDE_AUTOMATIC_OPTIONS=False)
    gate = Gate(settings, settings.port)
    for method, path, handler in ROUTES:
        rule = re.sub(r"\{(\w+)\}", r"<\1>", path)
        view = _view(service, handler, Operation(method, path))
        app.add_url_rule(rule, f"{method} {path}", view, methods=[method])

    @app.before_request
    def admit() -> Response | None:
        turned = gate.admit(_asked())
        return None if turned is None else _response(turned)

    @app.after_request
    def finish(response: Response) -> Response:
        for name, value in (*COMMON_HEADERS, *gate.cors(request.headers.get("Origin"))):
            response.headers.add(name, value)
        return response

    app.register_error_handler(Exception, _failed)
    return app


#: On every answer: ask again before showing an old one, and never guess what it is.
COMMON_HEADERS: Headers = (("Cache-Control", "no-cache"), ("X-Content-Type-Options", "nosniff"))


def _view(service: ServiceLike, handler: Handler, operation: Operation) -> Callable[..., Response]:
    def view(**in_path: str) -> Response:
        args: Args = {}
        for name, text in in_path.items():
            args[name] = path_id(text)
            if args[name] is None:
                raise NotFound(f"there is no {ascii(text[:40])}")
        args |= operation.read_query(request.query_string)
        if operation.takes_body:
            args |= operation.read_fields(_body(operation))
        done = handler(service, args)
        return _response(done if isinstance(done, Answer) else answer(done))

    return view


def _body(operation: Operation) -> View:
    data = request.get_data()
    if not data.strip():
        if operation.body_required:
            raise BadRequest("the body is empty, a JSON object is expected")
        return {}
    charset = request.mimetype_params.get("charset", "utf-8").lower()
    if request.mimetype != "application/json" or charset not in ("utf-8", "utf8"):
        hint = "send it with Content-Type: application/json"
        raise TurnedAway(415, "unsupported_media_type", "the body is not application/json in UTF-8", hint=hint)
    return parse_object(data)


def _asked() -> Asked:
    headers = request.headers
    return Asked(
        method=request.method,
        path=request.path,
        host=headers.get("Host"),
        origin=headers.get("Origin"),
        authorization=headers.get("Authorization"),
        method_to_come=headers.get("Access-Control-Request-Method"),
        local=request.environ.get("SERVER_NAME"),
    )


def _response(made: Answer) -> Response:
    response = Response(made.body, made.status, content_type=made.content_type)
    for name, value in made.headers:
        response.headers.add(name, value)
    if made.status in (204, 304):
        del response.headers["Content-Type"]
    return response


def _failed(exc: Exception) -> Response:
    """The one error handler."""
    if isinstance(exc, MethodNotAllowed):
        allowed = ", ".join(sorted({*(exc.valid_methods or ()), "OPTIONS"}))
        if request.method == "OPTIONS":
            return _response(Answer(status=204, body=b"", headers=(("Allow", allowed),)))
        message = f"{request.method[:20]} is not possible here"
        refusal = TurnedAway(405, _CODES[405], message, hint=f"possible: {allowed}", headers=(("Allow", allowed),))
        return _response(error_answer(refusal))
    if isinstance(exc, HTTPException) and exc.code is not None and 400 <= exc.code < 500:
        messages = {404: "there is nothing at this address", 413: f"the body is over {BODY_LIMIT_BYTES} bytes"}
        message = messages.get(exc.code, "the request cannot be read")
        return _response(error_answer(TurnedAway(exc.code, _CODES.get(exc.code, "bad_request"), message)))
    return _response(error_answer(exc, f"{request.method} {request.path}"))
