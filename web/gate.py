"""Who may ask: the checks of Host, token and Origin, the same before the door and before Flask."""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass

from config import Settings
from web.answers import Answer, Headers, TurnedAway, error_answer

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
#: Answered without a token, so that a supervisor needs none.
_OPEN_PATHS = frozenset({"/healthz", "/readyz"})
_LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})
_AUTHORITY = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::([0-9]{1,5}))?")


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
            ("Access-Control-Allow-Headers", "Authorization, Content-Type, If-None-Match, Last-Event-ID"),
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
