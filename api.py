"""The HTTP contract in Flask: parse, one service call, render.

What a request may hold, who may ask, and what errors look like is in web/. Nothing here decides anything about a
target; nothing here knows the database.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from config import Settings
from errors import BadRequest, NotFound
from web.answers import COMMON_HEADERS, Answer, TurnedAway, answer, error_answer
from web.contract import BODY_LIMIT_BYTES, Args, Operation, contract, parse_object, path_id
from web.gate import Asked, Gate
from web.protocols import ServiceLike, View
from web.status import asked_page, healthz, held_page, known_tags, readyz, status_answer, status_call
from web.streams import one_page, wanted_id

_CODES = {404: "not_found", 405: "method_not_allowed", 413: "too_large", 415: "unsupported_media_type"}

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


@_route("POST", "/api/targets/preview")
def _preview(service: ServiceLike, args: Args) -> View:
    return service.preview(target=args["target"], source=args.get("source"), range_=_range(args))


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


@_route("GET", "/api/events")
def _events(service: ServiceLike, args: Args) -> Answer:
    return one_page(service, wanted_id(args, request.headers.get("Last-Event-ID")))


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
