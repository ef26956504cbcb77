"""The `gleand` command: `serve` runs the daemon, `check` reads its settings, everything else talks HTTP to it.

Heavy imports stay inside functions, so that `gleand --version` and a completion are quick. Beyond the usual budget
of lines since every verb is a handful of them; reading what others wrote (targets to import) is at the end.
"""

from __future__ import annotations

import functools
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from gleand import __version__

#: What the exit code says.
EXIT_OK, EXIT_REFUSED, EXIT_USAGE, EXIT_UNREACHABLE, EXIT_NOT_FOUND, EXIT_CONFIG, EXIT_STOPPED = 0, 1, 2, 3, 4, 78, 130
#: To connect, and to wait for an answer (seconds); removing a target waits for its process to be gone.
TIMEOUTS_S = (5.0, 90.0)
PAGE = 200
#: Stored by a pause without an end.
FOREVER = "9999-01-01T00:00:00+00:00"
View = dict[str, Any]  # Any: JSON values


class Failed(Exception):
    """The command cannot go on; the message is for people."""

    def __init__(self, code: int, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.code, self.hint = code, hint


def clean(value: object) -> str:
    """Text on one line, without what a terminal would obey: it comes from strangers."""
    text = "" if value is None else str(value)
    return "".join(c if c.isprintable() else " " if c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in text)


def complain(message: object, hint: object = None) -> None:
    """One sentence on stderr, and what to do."""
    click.echo(f"gleand: {clean(message)}", err=True)
    if hint:
        click.echo(f"  hint: {clean(hint)}", err=True)


def table(names: list[str], rows: list[list[object]]) -> None:
    """A table on a terminal; elsewhere lines of values with tabs between, for other programs."""
    cells = [[clean(value) for value in row] for row in rows]
    if not sys.stdout.isatty():
        for row in cells:
            click.echo("\t".join(row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(*names, box=None, pad_edge=False)
    for row in cells:
        drawn.add_row(*(Text(cell) for cell in row))
    Console().print(drawn)


def fields(view: View, names: str) -> None:
    """`name: value` for those that are there."""
    for name in names.split():
        value = view.get(name)
        if value is not None:
            click.echo(f"{name}: {clean(json.dumps(value) if isinstance(value, bool | dict | list) else value)}")


class Remote:
    """The daemon, as the command line sees it."""

    def __init__(self, url: str, token: str | None, as_json: bool) -> None:
        import requests

        self.url, self.as_json = url.rstrip("/"), as_json
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy has no business between us and our daemon
        if token:
            self._session.headers["Authorization"] = f"Bearer {token}"

    def call(self, method: str, path: str, **how: Any) -> Any:  # Any: JSON
        """Ask; returns the answer's JSON. Raises Failed with the exit code for what went wrong."""
        return self.read(self.send(method, path, **how))

    def read(self, response: Any) -> Any:  # Any: a requests.Response, imported late; JSON
        """The JSON of an answer. Raises Failed for one that is an error."""
        try:
            view = response.json()
        except ValueError:
            where = "is it gleand that listens there?"
            raise Failed(EXIT_REFUSED, f"{self.url} answered {response.status_code} without JSON; {where}") from None
        if response.status_code < 300:
            return view
        view = view if isinstance(view, dict) else {}
        hint = view.get("hint")
        if response.status_code in (401, 403):
            hint = hint or "give the api_token with --token or GLEAND_API_TOKEN"
        code = EXIT_NOT_FOUND if response.status_code == 404 else EXIT_REFUSED
        raise Failed(code, str(view.get("error") or f"the daemon answered {response.status_code}"), hint)

    def send(self, method: str, path: str, **how: Any) -> Any:  # Any: a requests.Response, imported late
        """Ask; returns the response. Raises Failed when nobody answers."""
        import requests

        try:
            return self._session.request(method, self.url + path, timeout=TIMEOUTS_S, allow_redirects=False, **how)
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, requests.exceptions.MissingSchema):
            raise Failed(EXIT_USAGE, f"{self.url} is no http:// address") from None
        except requests.ReadTimeout:
            raise Failed(EXIT_UNREACHABLE, f"the daemon at {self.url} did not answer in {TIMEOUTS_S[1]:g} s") from None
        except requests.RequestException:
            hint = "start it with 'gleand serve', or say with --url where it is"
            raise Failed(EXIT_UNREACHABLE, f"no daemon answers at {self.url}", hint) from None

    def pages(self, path: str, name: str, params: View, most: int | None = None) -> list[View]:
        """Follow the cursors of a list, to its end or to `most` entries."""
        rows: list[View] = []
        params = {k: v for k, v in params.items() if v is not None}
        while most is None or len(rows) < most:
            limit = PAGE if most is None else min(PAGE, most - len(rows))
            view = self.call("GET", path, params=params | {"limit": limit})
            rows += view[name]
            if not view.get("next_cursor"):
                break
            params["cursor"] = view["next_cursor"]
        return rows

    def find(self, name: str) -> View:
        """The target an id, a handle, `source:handle` or a URL means. Raises Failed."""
        if name.isascii() and name.isdigit():
            try:
                return dict(self.call("GET", f"/api/targets/{name}"))
            except Failed as exc:
                if exc.code != EXIT_NOT_FOUND:
                    raise
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
                raise Failed(EXIT_USAGE, f"{name} may be {which}", "name it as source:handle, or by its id")
            if found:
                return found[0]
        raise Failed(EXIT_NOT_FOUND, f"no target {name} is tracked", "see 'gleand list'")

    def show(self, view: Any, *lines: object) -> None:  # Any: JSON
        """Print the answer as it came, or in words."""
        if self.as_json:
            click.echo(json.dumps(view, indent=2))
        for line in () if self.as_json else lines:
            click.echo(clean(line))


def _names(row: View) -> set[str]:
    names = {row.get("handle") or "", row.get("url") or "", f"{row.get('source')}:{row.get('handle')}"}
    return {name.rstrip("/") for name in names} - {""}


def connect(url: str | None, token: str | None, config: Path | None, as_json: bool) -> Remote:
    """Find the daemon: the flags, else `GLEAND_URL`, else where its settings say it listens."""
    url, token = url or os.environ.get("GLEAND_URL") or None, token or os.environ.get("GLEAND_API_TOKEN")
    if url is None or config is not None:
        from config import load

        settings = load(config)
        token = token or settings.api_token
        if url is None and settings.port == 0:
            raise Failed(EXIT_USAGE, "the settings leave the port open", "say with --url where the daemon is")
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
        url = url or f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"
    return Remote(url, token, as_json)


_config_option = click.option("--config", type=click.Path(path_type=Path), help="TOML file with settings.")
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def remote(function: Callable[..., int | None]) -> Callable[..., int | None]:
    """Give a command the options that say where the daemon is, and the daemon."""

    @_config_option
    @_json_option
    @click.option("--url", help="Where the daemon is (GLEAND_URL).")
    @click.option("--token", help="The daemon's api_token (GLEAND_API_TOKEN; others can see a flag).")
    @functools.wraps(function)
    def command(*, url: str | None, token: str | None, config: Path | None, as_json: bool, **rest: Any) -> int | None:
        return function(connect(url, token, config, as_json), **rest)

    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="gleand", message="%(prog)s %(version)s")
def gleand() -> None:
    """Scrape on a schedule; no scrape is ever stuck, and no state ever lies."""


# -- the daemon itself -----------------------------------------------------------------------------------------------


def _pair(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    if not all("=" in value for value in values):
        raise click.BadParameter("write it as name=value")
    return dict(value.split("=", 1) for value in values)


def _flags(function: Callable[..., int]) -> Callable[..., int]:
    for name in ("host", "port", "data-dir", "workers", "database-url", "log-level"):
        function = click.option(f"--{name}", help=f"The setting {name.replace('-', '_')}.")(function)
    chosen = click.option("--set", "chosen", multiple=True, callback=_pair, metavar="NAME=VALUE", help="Any setting.")
    return _config_option(chosen(function))


@gleand.command()
@_flags
def serve(config: Path | None, chosen: dict[str, str], **flags: str | None) -> int:
    """Run the daemon until it is told to stop."""
    from config import load

    settings = load(config, chosen | {k: v for k, v in flags.items() if v is not None})
    wrong = _schedule_problem(settings)
    if wrong:
        complain(wrong)
        return EXIT_CONFIG
    import daemon

    return daemon.run(settings)


@gleand.command()
@_flags
@_json_option
def check(config: Path | None, chosen: dict[str, str], as_json: bool, **flags: str | None) -> int:
    """Show the settings, where each comes from, and what is wrong with them."""
    from config import ConfigError, describe, load

    rows: list[tuple[str, str, str]] = []
    try:
        settings = load(config, chosen | {k: v for k, v in flags.items() if v is not None})
    except ConfigError as exc:
        wrong = [(p.setting, p.text) for p in exc.problems]
    else:
        rows = describe(settings)
        schedule = _schedule_problem(settings)
        wrong = ([("default_schedule", schedule)] if schedule else []) + _scraper_problems(settings)
    if as_json:
        shown = [{"name": name, "value": value, "source": source} for name, value, source in rows]
        problems = [{"setting": name, "problem": text} for name, text in wrong]
        click.echo(json.dumps({"ok": not wrong, "settings": shown, "problems": problems}, indent=2))
    else:
        bad = {name for name, _ in wrong}
        table(["", "setting", "value", "from"], [["!" if row[0] in bad else "", *row] for row in rows])
        for _, text in wrong:
            complain(text)
    return EXIT_CONFIG if wrong else EXIT_OK


def _schedule_problem(settings: Any) -> str | None:  # Any: config.Settings, imported late
    from zoneinfo import ZoneInfo

    from errors import Unusable
    from jobs.schedules import check

    now = datetime.now(UTC)
    zone = now.astimezone().tzinfo if settings.timezone == "local" else ZoneInfo(settings.timezone)
    try:
        check(settings.default_schedule, now=now, zone=zone or UTC)
    except Unusable as exc:
        return f"default_schedule: {exc.message}" + (f"; {exc.hint}" if exc.hint else "")
    return None


def _scraper_problems(settings: Any) -> list[tuple[str, str]]:  # Any: config.Settings, imported late
    """Import each scraper as a worker would, in a process of its own: it is somebody's code."""
    import subprocess

    code = "import importlib,sys;m,f=sys.argv[1].split(':');callable(getattr(importlib.import_module(m),f)) or 1/0"
    paths = [str(settings.scraper_path or ""), str(Path(__file__).resolve().parent)]
    env = {k: v for k, v in os.environ.items() if not k.startswith("GLEAND_")}
    env["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    wrong = []
    for name, entry in settings.scrapers.items():
        try:
            command = [sys.executable, "-P", "-c", code, entry]
            done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30, check=False)
            why = (done.stderr.strip().splitlines() or ["no reason given"])[-1] if done.returncode else ""
        except subprocess.TimeoutExpired:
            why = "it was still importing after 30 s"
        if why:
            wrong.append(("scrapers", f"scrapers: {name} = {entry} cannot be imported: {why}"))
    return wrong


# -- targets ---------------------------------------------------------------------------------------------------------


@gleand.command()
@click.argument("target")
@click.option("--source", help="Which adapter; without it, found from the target.")
@click.option("--schedule", help="'every 15m', a crontab line, or 'manual'.")
@click.option("--range", "range_", type=click.IntRange(min=1), help="Most posts wanted.")
@click.option("--timeout-s", type=float, help="Longest time a run may take (seconds).")
@click.option("--no-start", is_flag=True, help="Wait for the schedule instead of scraping now.")
@remote
def add(daemon: Remote, *, target: str, no_start: bool, range_: int | None, **more: Any) -> None:
    """Track TARGET (a URL, source:handle, or a handle) and scrape it."""
    body = {"target": target, "start": False if no_start else None, "range": range_} | more
    view = daemon.call("POST", "/api/targets", json={k: v for k, v in body.items() if v is not None})
    row = view.get("target") if isinstance(view.get("target"), dict) else view
    daemon.show(view, f"added {row.get('source')}:{row.get('handle')} as target {row.get('id')}")


@gleand.command()
@click.argument("target")
@remote
def remove(daemon: Remote, *, target: str) -> None:
    """Stop tracking TARGET; its posts go with it."""
    row = daemon.find(target)
    view = daemon.call("DELETE", f"/api/targets/{row['id']}")
    daemon.show(view, f"removed {row['source']}:{row['handle']}")


@gleand.command("list")
@click.option("--state", help="IDLE, RUNNING, COMPLETED, FAILED or TIMEOUT.")
@click.option("--source")
@click.option("-q", help="Part of a handle or a name.")
@click.option("--limit", type=click.IntRange(min=1), help="At most this many; without it, all.")
@remote
def list_(daemon: Remote, *, limit: int | None, **search: str | None) -> None:
    """List targets."""
    rows = daemon.pages("/api/targets", "targets", dict(search), limit)
    if daemon.as_json:
        daemon.show({"targets": rows})
        return
    names = ["id", "state", "source", "handle", "post_count", "next_due_at", "error"]
    table(names, [[row.get(name) for name in names] for row in rows])


@gleand.command()
@click.argument("target")
@remote
def show(daemon: Remote, *, target: str) -> None:
    """Show TARGET."""
    view = daemon.call("GET", f"/api/targets/{daemon.find(target)['id']}")
    daemon.show(view)
    if not daemon.as_json:
        names = "id source handle display_name url state phase error schedule timeout_s paused_until"
        fields(view, names + " post_count added_at last_scraped next_due_at")


@gleand.command()
@click.argument("target", required=False)
@remote
def status(daemon: Remote, *, target: str | None) -> None:
    """Say what TARGET, or what was asked for last, is doing."""
    path = f"/api/targets/{daemon.find(target)['id']}/status" if target else "/api/scrape-status"
    view = daemon.call("GET", path)
    daemon.show(view)
    if not daemon.as_json:
        names = "state phase worker progress error reason current_user total_users completed_users failed_users"
        names += " timed_out_users started_at deadline_at last_heartbeat last_progress_at stalled attempt next_due_at"
        fields(view, names + " paused_until counts")


@gleand.command()
@click.argument("target", required=False)
@remote
def refresh(daemon: Remote, *, target: str | None) -> None:
    """Scrape TARGET now, or every target."""
    if target is None:
        view = daemon.call("POST", "/api/users/refresh-all", json={})
        daemon.show(view, f"asked for {view.get('total_users')} targets")
        return
    row = daemon.find(target)
    view = daemon.call("POST", f"/api/targets/{row['id']}/transitions", json={"trigger": "start"})
    daemon.show(view, f"{row['handle']}: {view.get('phase') or view.get('state')}")


@gleand.command()
@click.argument("target", required=False)
@click.option("--force", is_flag=True, help="Also while a scrape is in progress: its process is killed.")
@click.option("--reason", help="Kept in the journal; needed with --force.")
@remote
def reset(daemon: Remote, *, target: str | None, force: bool, reason: str | None) -> None:
    """Bring TARGET, or everything, back to IDLE."""
    if force and not (reason or "").strip():
        raise click.UsageError("--force needs a --reason: it is kept in the journal")
    body: View = ({"force": True} if force else {}) | ({"reason": reason} if reason else {})
    if target is None:
        view = daemon.call("POST", "/api/scrape-status/reset", json=body)
        daemon.show(view, view.get("message") or "reset")
        return
    row = daemon.find(target)
    view = daemon.call("POST", f"/api/targets/{row['id']}/transitions", json={"trigger": "reset"} | body)
    daemon.show(view, f"{row['handle']}: {view.get('state')}")


def pause_end(until: str | None, for_: str | None, now: datetime) -> str:
    """When a pause ends, ISO 8601. Raises click.UsageError."""
    found = re.fullmatch(r"(\d{1,6}(?:\.\d+)?)\s*([smhd])", for_ or "1s")
    if until and for_:
        raise click.UsageError("--until or --for, not both")
    if found is None:
        raise click.UsageError("--for takes a number and s, m, h or d, such as 2h")
    if for_:
        end = now + timedelta(seconds=float(found[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[found[2]])
        return end.isoformat(timespec="seconds")
    try:
        end = datetime.fromisoformat(until or FOREVER)
        end = end if end.tzinfo else end.astimezone()
    except (ValueError, OverflowError):
        raise click.UsageError("--until takes a time such as 2030-01-31T12:00, local unless it has an offset") from None
    if end <= now:
        raise click.UsageError("--until is in the past")
    return end.astimezone(UTC).isoformat(timespec="seconds")


@gleand.command()
@click.argument("target")
@click.option("--until", metavar="TIME", help="ISO 8601; local time unless it has an offset.")
@click.option("--for", "for_", metavar="DURATION", help="Such as 30m, 2h, 7d.")
@remote
def pause(daemon: Remote, *, target: str, until: str | None, for_: str | None) -> None:
    """Start no run of TARGET for a while, or until it is resumed."""
    end = pause_end(until, for_, datetime.now(UTC))
    row = daemon.find(target)
    view = daemon.call("PATCH", f"/api/targets/{row['id']}", json={"paused_until": end})
    daemon.show(view, f"paused {row['handle']} until {'it is resumed' if end == FOREVER else end}")


@gleand.command()
@click.argument("target")
@remote
def resume(daemon: Remote, *, target: str) -> None:
    """End the pause of TARGET."""
    row = daemon.find(target)
    view = daemon.call("PATCH", f"/api/targets/{row['id']}", json={"paused_until": None})
    daemon.show(view, f"resumed {row['handle']}")


@gleand.command()
@click.argument("target", required=False)
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True)
@remote
def posts(daemon: Remote, *, target: str | None, limit: int) -> None:
    """Show the newest posts, of TARGET or of all."""
    wanted = daemon.find(target)["id"] if target else None
    rows = daemon.pages("/api/posts", "posts", {"target": wanted}, limit)
    if daemon.as_json:
        daemon.show({"posts": rows})
        return
    cells = [[p.get("published_at"), p.get("source_username"), _title(p), p.get("post_url")] for p in rows]
    table(["published_at", "from", "post", "url"], cells)


def _title(post: View) -> str:
    text = clean(post.get("title") or post.get("post_text"))
    return text if len(text) <= 100 else text[:99] + "\N{HORIZONTAL ELLIPSIS}"


@gleand.command()
@remote
def diagram(daemon: Remote) -> None:
    """Print the lifecycle as a Mermaid diagram; the daemon's own, or this version's when none runs."""
    try:
        response = daemon.send("GET", "/api/lifecycle.mmd")
        text = response.text if response.status_code == 200 else ""
    except Failed:
        text = ""
    if not text.startswith("stateDiagram"):
        from fsm.machine import mermaid

        text = mermaid()
    if daemon.as_json:
        daemon.show({"mermaid": text})
        return
    for line in text.splitlines():
        click.echo(clean(line))


# -- import ----------------------------------------------------------------------------------------------------------


@gleand.command("import")
@click.argument("file", type=click.File(encoding="utf-8-sig"))
@click.option("--source", help="For entries that name none.")
@click.option("--schedule", help="For entries that name none.")
@click.option("--no-start", is_flag=True, help="Wait for the schedule instead of scraping now.")
@remote
def import_(daemon: Remote, *, file: io.TextIOWrapper, source: str | None, schedule: str | None, no_start: bool) -> int:
    """Track every target in FILE (- is standard input).

    One target a line, with # comments; or OPML; or JSON: a list, or what `list --json` printed.
    """
    try:
        text = file.read()
    except UnicodeDecodeError:
        raise Failed(EXIT_USAGE, f"{file.name} is not UTF-8") from None
    common = {"source": source, "schedule": schedule, "start": False if no_start else None}
    results: list[View] = []
    for where, entry in read_targets(text):
        body = {k: v for k, v in (common | entry).items() if v is not None}
        result: View = {"at": where, "target": body.get("target")}
        response = daemon.send("POST", "/api/targets", json=body)
        if response.status_code < 300:
            result["result"] = "added"
        elif response.status_code == 409:
            result["result"] = "tracked already"
        elif response.status_code in (401, 403):
            daemon.read(response)  # no other line will fare better
        else:
            result |= {"result": "refused"} | _reason(response)
        results.append(result)
        if result["result"] == "refused" and not daemon.as_json:
            complain(f"{where}: {result['target']}: {result['error']}", result.get("hint"))
    counts = {word: sum(r["result"] == word for r in results) for word in ("added", "tracked already", "refused")}
    daemon.show({"results": results, **counts}, ", ".join(f"{count} {word}" for word, count in counts.items()))
    return EXIT_REFUSED if counts["refused"] else EXIT_OK


def _reason(response: Any) -> View:  # Any: a requests.Response, imported late
    try:
        view = response.json()
    except ValueError:
        view = None
    view = view if isinstance(view, dict) else {}
    return {"error": view.get("error") or f"the daemon answered {response.status_code}", "hint": view.get("hint")}


def read_targets(text: str) -> Iterator[tuple[str, View]]:
    """Read OPML, JSON or lines; gives where each entry stands and the request for it. Raises Failed."""
    start = text.lstrip()[:1]
    if start == "<":
        yield from _read_opml(text)
    elif start in ("[", "{"):
        yield from _read_json(text)
    else:
        for number, line in enumerate(text.splitlines(), 1):
            target = re.sub(r"(^|\s)#.*", "", line).strip()  # a # inside a URL is no comment
            if target:
                yield f"line {number}", {"target": target}


def _read_opml(text: str) -> Iterator[tuple[str, View]]:
    from xml.etree import ElementTree

    if "<!doctype" in text.lower():
        raise Failed(EXIT_USAGE, "the OPML has a DOCTYPE, which is not read: entities in it could fill the memory")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as exc:
        raise Failed(EXIT_USAGE, f"the OPML cannot be read: {exc}") from None
    for number, outline in enumerate(root.iter("outline"), 1):
        if outline.get("xmlUrl", "").strip():
            yield f"outline {number}", {"target": outline.get("xmlUrl", "").strip()}


def _read_json(text: str) -> Iterator[tuple[str, View]]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise Failed(EXIT_USAGE, f"the JSON cannot be read: {exc}") from None
    entries = (value.get("targets") or value.get("users")) if isinstance(value, dict) else value
    if not isinstance(entries, list):
        raise Failed(EXIT_USAGE, "the JSON is neither a list nor has one under 'targets'")
    for number, entry in enumerate(entries, 1):
        if isinstance(entry, dict):
            target = entry.get("target") or entry.get("handle") or entry.get("username") or entry.get("url")
            kept = {k: entry.get(k) for k in ("source", "schedule", "timeout_s") if entry.get(k) is not None}
            yield f"entry {number}", {"target": target} | kept
        else:
            yield f"entry {number}", {"target": entry}


# -- the door --------------------------------------------------------------------------------------------------------


def main(args: list[str] | None = None) -> int:
    """Run a command; returns the exit code. Every error is a sentence on stderr, never a traceback."""
    from errors import GleandError

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        code = gleand.main(args=args, prog_name="gleand", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else EXIT_OK
    except Failed as exc:
        complain(exc, exc.hint)
        return exc.code
    except click.exceptions.NoArgsIsHelpError as exc:
        exc.show()
        return EXIT_USAGE
    except click.ClickException as exc:
        context = getattr(exc, "ctx", None)
        complain(exc.format_message(), f"see '{context.command_path if context else 'gleand'} --help'")
        return EXIT_USAGE
    except (click.Abort, KeyboardInterrupt):
        return EXIT_STOPPED
    except GleandError as exc:
        for problem in getattr(exc, "problems", None) or [exc]:
            complain(getattr(problem, "text", problem))
        return EXIT_CONFIG
    except (BrokenPipeError, SystemExit):  # the reader has seen enough; click turns the first into the second
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
