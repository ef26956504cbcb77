"""One request at the door: its head, its body, its answer. Knows ASGI, and no call in particular."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from errors import BadRequest
from web.answers import Answer, Headers, TurnedAway, raw_headers
from web.connection import CALLER, Caller
from web.contract import BODY_LIMIT_BYTES
from web.gate import Asked
from web.memo import Recipe
from web.status import known_tags

Message = dict[str, Any]  # Any: ASGI has no closed type for its events
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

#: A request with one of these is not only its head, or changes what the connection does next.
_MORE_THAN_A_HEAD = frozenset({b"content-length", b"transfer-encoding", b"expect", b"upgrade"})


class ClientGone(Exception):
    """The client went away; there is nobody to answer."""


class Exchange:
    """One request and its answer."""

    def __init__(self, scope: Message, receive: Receive, send: Send) -> None:
        self.scope, self.receive, self._send = scope, receive, send
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.query: bytes = scope["query_string"]
        self.headers: list[tuple[bytes, bytes]] = scope["headers"]
        self.fields = dict(self.headers)
        self.caller: Caller = scope.pop(CALLER)  # taken out, or it would hold itself
        self.started = False

    def text(self, name: bytes) -> str | None:
        """A header; None without it."""
        value = self.fields.get(name)
        return None if value is None else value.decode("latin-1")

    def tags(self) -> frozenset[str] | None:
        """Entity tags of every If-None-Match."""
        if b"if-none-match" not in self.fields:
            return None
        return known_tags(", ".join(v.decode("latin-1") for n, v in self.headers if n == b"if-none-match"))

    def asked(self) -> Asked:
        """What the gate looks at. Raises BadRequest for a header that may come once and came twice."""
        if len(self.fields) != len(self.headers):
            names = [name for name, _ in self.headers]
            for name in (b"host", b"origin", b"authorization", b"content-type", b"last-event-id"):
                if names.count(name) > 1:
                    raise BadRequest(f"the header {name.decode()} came twice")
        server = self.scope.get("server")
        return Asked(
            method=self.method,
            path=self.path,
            host=self.text(b"host"),
            origin=self.text(b"origin"),
            authorization=self.text(b"authorization"),
            method_to_come=self.text(b"access-control-request-method"),
            local=server[0] if server else None,
        )

    async def body(self, timeout_s: float) -> bytes:
        """Read the body whole. Raises TurnedAway for one that is too large or too slow, ClientGone."""
        length = self.fields.get(b"content-length", b"0")
        if b"transfer-encoding" not in self.fields and int(length) == 0:
            return b""
        too_large = TurnedAway(413, "too_large", f"the body is over {BODY_LIMIT_BYTES} bytes")
        if int(length) > BODY_LIMIT_BYTES:
            raise too_large
        body, more = bytearray(), True
        try:
            async with asyncio.timeout(timeout_s):
                while more:
                    message = await self.receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGone
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) > BODY_LIMIT_BYTES:
                        raise too_large
        except TimeoutError:
            text = f"the body did not arrive within {timeout_s:g} s"
            raise TurnedAway(408, "body_too_slow", text, headers=(("Connection", "close"),)) from None
        return bytes(body)

    def keep(self, recipe: Recipe) -> None:
        """Let whoever sends the same bytes again be answered by this recipe."""
        if self.fields.keys().isdisjoint(_MORE_THAN_A_HEAD):
            self.caller.keep(recipe)

    async def begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Send the head of an answer."""
        self.caller.heed()
        self.started = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, body: bytes, *, more: bool = True) -> None:
        """Send a part of the body; waits while the client reads slower than we write."""
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    async def answer(self, answer: Answer, more: Headers) -> None:
        """Send a whole answer."""
        headers = raw_headers(answer, more)
        if b"expect" in self.fields:
            headers.append((b"connection", b"close"))  # the client may or may not send the body now
        elif ("Connection", "close") not in answer.headers and self.caller.send(answer, headers):
            self.started = True
            return
        await self.begin(answer.status, headers)
        await self.write(answer.body, more=False)
