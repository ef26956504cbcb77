"""The daemon as the command line sees it: where it is, what it answers, and what can go wrong in between.

Not here: exit codes. A failure has a family, and cli.py gives each family its code.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from terminal.printing import View, clean

if TYPE_CHECKING:
    from requests import Response

#: To connect, and to wait for an answer (seconds); removing a target waits for its process to be gone.
TIMEOUTS_S = (5.0, 90.0)
#: Entries of one page of a list.
PAGE = 200
#: Clocks that differ by no more are the same: the Date header has whole seconds.
SAME_CLOCK_S = 2.0


class Failed(Exception):
    """The command cannot go on, or was refused; the message is for people, the hint says what to do."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class Misused(Failed):
    """What was typed, or a file that was named, cannot be meant."""


class Unreachable(Failed):
    """Nobody answers."""


class Unavailable(Failed):
    """The daemon answers that it cannot now: it is starting, stopping, or its database is away. Later it may."""


class NotFound(Failed):
    """There is no such target."""


class Remote:
    """The daemon, as the command line sees it."""

    def __init__(self, url: str, token: str | None, as_json: bool) -> None:
        import requests

        self.url, self.as_json = url.rstrip("/"), as_json
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy has no business between us and our daemon
        self._ahead = timedelta(0)
        if token:
            if not all("!" <= c <= "~" for c in token):
                raise Misused("the token has characters that no api_token has", "give it as the daemon's settings do")
            self._session.headers["Authorization"] = f"Bearer {token}"

    def now(self) -> datetime:
        """Now by the daemon's clock, as far as its answers tell."""
        return datetime.now(UTC) + self._ahead

    def call(self, method: str, path: str, **how: Any) -> Any:  # Any: JSON
        """Ask; returns the answer's JSON. Raises Failed."""
        return self.read(self.send(method, path, **how))

    def get(self, path: str, name: str, **params: object) -> View:
        """Ask for an object that holds `name`. Raises Failed."""
        view = self.call("GET", path, params=params)
        if not isinstance(view, dict) or name not in view:
            raise Failed(f"{self.url} answered without {name!r}; is it gleand that listens there?")
        return view

    def read(self, response: Response) -> Any:  # Any: JSON
        """The JSON of an answer. Raises Failed for one that is an error."""
        try:
            view = response.json()
        except ValueError:
            where = "is it gleand that listens there?"
            raise Failed(f"{self.url} answered {response.status_code} without JSON; {where}") from None
        if response.status_code < 300:
            return view
        view = view if isinstance(view, dict) else {}
        hint = view.get("hint")
        if response.status_code in (401, 403):
            hint = hint or "give the api_token with --token or GLEAND_API_TOKEN"
        family = {404: NotFound, 503: Unavailable}.get(response.status_code, Failed)
        raise family(str(view.get("error") or f"the daemon answered {response.status_code}"), hint)

    def send(self, method: str, path: str, *, timeout_s: float = TIMEOUTS_S[1], **how: Any) -> Response:
        """Ask; returns the response. Raises Failed when nobody answers."""
        import requests

        times = (TIMEOUTS_S[0], timeout_s)
        try:
            response = self._session.request(method, self.url + path, timeout=times, allow_redirects=False, **how)
        except requests.exceptions.InvalidJSONError:
            raise Misused("NaN and infinity are no numbers here") from None
        except ValueError:  # every way in which requests says that an address is none
            raise Misused(f"{self.url} is no http:// address") from None
        except requests.ReadTimeout:
            raise Unreachable(f"the daemon at {self.url} did not answer in {timeout_s:g} s") from None
        except requests.RequestException:
            hint = "start it with 'gleand serve', or say with --url where it is"
            raise Unreachable(f"no daemon answers at {self.url}", hint) from None
        self._set_clock(response.headers.get("Date"))
        return response

    def _set_clock(self, date: str | None) -> None:
        try:
            ahead = parsedate_to_datetime(date or "") - datetime.now(UTC)
        except (ValueError, TypeError):
            return
        self._ahead = ahead if abs(ahead.total_seconds()) > SAME_CLOCK_S else timedelta(0)

    def pages(self, path: str, name: str, params: View, most: int | None = None) -> list[View]:
        """Follow the cursors of a list, to its end or to `most` entries."""
        rows: list[View] = []
        params = {k: v for k, v in params.items() if v is not None}
        while most is None or len(rows) < most:
            limit = PAGE if most is None else min(PAGE, most - len(rows))
            view = self.get(path, name, **params | {"limit": limit})
            rows += view[name]
            if not view.get("next_cursor"):
                break
            params["cursor"] = view["next_cursor"]
        return rows

    def find(self, name: str) -> View:
        """The target an id, a handle, `source:handle` or a URL means. Raises Failed."""
        if name.isascii() and name.isdigit():
            try:
                return self.get(f"/api/targets/{name}", "id")
            except NotFound:
                pass  # a handle may be digits only
        searches: list[View] = [{"q": name}]
        source, colon, handle = name.partition(":")
        if "://" in name:
            searches.append({"q": name.split("?")[0].rstrip("/").rpartition("/")[2].lstrip("@")})
        elif colon:
            searches.append({"q": handle, "source": source})
        for search in searches:
            rows = self.pages("/api/targets", "targets", search)
            found = [row for row in rows if name.rstrip("/") in _names(row)]
            if len(found) > 1:
                which = ", ".join(f"{row['source']}:{row['handle']}" for row in found)
                raise Misused(f"{name} may be {which}", "name it as source:handle, or by its id")
            if found:
                return found[0]
        raise NotFound(f"no target {name} is tracked", "see 'gleand list'")

    def show(self, view: object, *lines: object) -> None:
        """Print the answer as it came, or in words."""
        if self.as_json:
            click.echo(json.dumps(view, indent=2))
        for line in () if self.as_json else lines:
            click.echo(clean(line))


def _names(row: View) -> set[str]:
    names = {row.get("handle") or "", row.get("url") or "", f"{row.get('source')}:{row.get('handle')}"}
    return {name.rstrip("/") for name in names} - {""}


def address(host: str, port: int) -> str:
    """Host and port in one, with the brackets of IPv6."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def connect(url: str | None, token: str | None, config: Path | None, as_json: bool) -> Remote:
    """Find the daemon: the flags, else `GLEAND_URL`, else where its settings say it listens."""
    url, token = url or os.environ.get("GLEAND_URL") or None, token or os.environ.get("GLEAND_API_TOKEN")
    if url is None or config is not None:
        from config import load

        settings = load(config)
        token = token or settings.api_token
        if url is None and settings.port == 0:
            raise Misused("the settings leave the port open", "say with --url where the daemon is")
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
        url = url or f"http://{address(host, settings.port)}"
    return Remote(url, token, as_json)
