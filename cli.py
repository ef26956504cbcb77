"""The `gleand` command: `serve` runs the daemon, `check` and `init` look after it, everything else talks HTTP to it.

Heavy imports stay inside functions, so that `gleand --version` and a completion are quick. What verbs share lives in
terminal/: the daemon over HTTP, printing, watching, files. Beyond the usual budget of lines since every verb is a
handful of them. Exit codes exist here only.
"""

from __future__ import annotations

import functools
import io
import json
import os
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from gleand import __version__
from terminal.printing import FOREVER, View, clean, clip, complain, fields, table
from terminal.remote import PAGE, Failed, Misused, NotFound, Remote, Unreachable, connect
from terminal.targets import exported, import_one, read_targets, write

if TYPE_CHECKING:
    from terminal.follow import Outcome

#: What the exit code says.
EXIT_OK, EXIT_REFUSED, EXIT_USAGE, EXIT_UNREACHABLE, EXIT_NOT_FOUND, EXIT_CONFIG, EXIT_STOPPED = 0, 1, 2, 3, 4, 78, 130
#: A mistake of our own.
EXIT_INTERNAL = 70
#: How long a preview is waited for: a worker, its host, the scrape (seconds).
PREVIEW_S = 90.0
#: Of each family of failures; any other is a refusal.
_CODES: dict[type[Failed], int] = {
    Misused: EXIT_USAGE,
    Unreachable: EXIT_UNREACHABLE,
    NotFound: EXIT_NOT_FOUND,
}


_config_option = click.option("--config", type=click.Path(path_type=Path), help="TOML file with settings.")
_newest = click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="At most this many.")
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


class Wait(NamedTuple):
    """Whether the outcome is waited for, and how long."""

    wanted: bool
    #: At most this (seconds); None: as long as it takes.
    most_s: float | None


def _positive(_ctx: click.Context, _param: click.Parameter, value: float | None) -> float | None:
    if value is not None and not 0 < value < float("inf"):
        raise click.BadParameter("it should be a number of seconds above 0")
    return value


def waiting(*names: str) -> Callable[[Callable[..., int | None]], Callable[..., int | None]]:
    """Give a command --wait, and an option of these names that bounds it."""

    def decorate(function: Callable[..., int | None]) -> Callable[..., int | None]:
        @click.option("--wait", "wanted", is_flag=True, help="Wait for the outcome: exit code 0 for COMPLETED, else 1.")
        @click.option(*names, "most_s", type=float, callback=_positive, help="Wait at most this long (seconds).")
        @functools.wraps(function)
        def command(*given: Any, wanted: bool, most_s: float | None, **rest: Any) -> int | None:  # Any: passed on
            if most_s is not None and not wanted:
                raise click.UsageError(f"{names[0]} goes with --wait")
            return function(*given, wait=Wait(wanted, most_s), **rest)

        return command

    return decorate


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

    given = chosen | {k: v for k, v in flags.items() if v is not None}
    settings = load(config, given)
    wrong = _schedule_problem(settings)
    if wrong:
        complain(wrong)
        return EXIT_CONFIG
    import daemon

    environ = dict(os.environ)  # the daemon's own loses what workers must not see
    return daemon.run(settings, lambda: load(config, given, environ))


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
        rows, wrong = describe(settings), _problems(settings)
    if as_json:
        shown = [{"name": name, "value": value, "source": source} for name, value, source in rows]
        told = [{"setting": name, "problem": text} for name, text in wrong]
        click.echo(json.dumps({"ok": not wrong, "settings": shown, "problems": told}, indent=2))
    else:
        bad = {name for name, _ in wrong}
        table(["", "setting", "value", "from"], [["!" if row[0] in bad else "", *row] for row in rows])
        for _, text in wrong:
            complain(text)
    return EXIT_CONFIG if wrong else EXIT_OK


def _problems(settings: Any) -> list[tuple[str, str]]:  # Any: config.Settings, imported late
    """What is wrong with settings that can be read: the setting, and a sentence."""
    from sources.checks import check_sources
    from sources.plugins import discover
    from terminal.checks import import_problems

    schedule = _schedule_problem(settings)
    wrong = check_sources(settings) + [("scrapers", text) for text in discover().problems]
    return ([("default_schedule", schedule)] if schedule else []) + (wrong or import_problems(settings))


def _schedule_problem(settings: Any) -> str | None:  # Any: config.Settings, imported late
    from errors import Unusable
    from jobs.schedules import check, zone_of

    try:
        check(settings.default_schedule, now=datetime.now(UTC), zone=zone_of(settings.timezone))
    except Unusable as exc:
        return f"default_schedule: {exc.message}" + (f"; {exc.hint}" if exc.hint else "")
    return None


# -- targets ---------------------------------------------------------------------------------------------------------


@gleand.command()
@click.argument("target")
@click.option("--source", help="Which adapter; without it, found from the target.")
@click.option("--schedule", help="'every 15m', a crontab line, or 'manual'.")
@click.option("--range", "range_", type=click.IntRange(min=1), help="Most posts wanted.")
@click.option("--timeout-s", type=float, callback=_positive, help="Longest time a run may take (seconds).")
@click.option("--no-start", is_flag=True, help="Leave it to the schedule instead of scraping now.")
@waiting("--wait-s")
@remote
def add(daemon: Remote, *, target: str, no_start: bool, range_: int | None, wait: Wait, **more: Any) -> int:
    """Track TARGET (a URL, source:handle, or a handle) and scrape it."""
    if no_start and wait.wanted:
        raise click.UsageError("--wait has nothing to wait for with --no-start")
    body = {"target": target, "start": False if no_start else None, "range": range_} | more
    view = daemon.call("POST", "/api/targets", json={k: v for k, v in body.items() if v is not None})
    row = view.get("target") if isinstance(view.get("target"), dict) else view
    said = f"added {row.get('source')}:{row.get('handle')} as target {row.get('id')}"
    if not wait.wanted:
        daemon.show(view, said)
        return EXIT_OK
    if not daemon.as_json:
        daemon.show(view, said)
    return _run_ended(daemon, row, after=0, wait=wait)


@gleand.command()
@click.argument("target")
@remote
def remove(daemon: Remote, *, target: str) -> None:
    """Stop tracking TARGET; its posts go with it."""
    row = daemon.find(target)
    view = daemon.call("DELETE", f"/api/targets/{row['id']}")
    daemon.show(view, f"removed {row['source']}:{row['handle']}")


@gleand.command()
@click.argument("target")
@click.option("--source", help="Which adapter; without it, found from the target.")
@click.option("--range", "range_", type=click.IntRange(min=1), help="Most posts wanted.")
@remote
def preview(daemon: Remote, *, target: str, source: str | None, range_: int | None) -> int:
    """Scrape TARGET once, keep nothing, and show what would be kept."""
    from terminal.preview import show_preview

    asked = {"target": target, "source": source, "range": range_}
    body = {k: v for k, v in asked.items() if v is not None}
    view = daemon.call("POST", "/api/targets/preview", json=body, timeout_s=PREVIEW_S)
    if not isinstance(view, dict) or "outcome" not in view:
        raise Failed(f"{daemon.url} answered without an outcome; is it gleand that listens there?")
    daemon.show(view)
    completed = view["outcome"] == "COMPLETED" if daemon.as_json else show_preview(view)
    return EXIT_OK if completed else EXIT_REFUSED


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
        names = "id source handle display_name url state phase error schedule timeout_s paused_until paused_why"
        fields(view, names + " post_count added_at last_scraped next_due_at")


@gleand.command()
@click.argument("target", required=False)
@click.option("--watch", "-w", is_flag=True, help="Go on until Ctrl-C: a live screen, or a line for each change.")
@remote
def status(daemon: Remote, *, target: str | None, watch: bool) -> None:
    """Say what TARGET, or what was asked for last, is doing."""
    target_id = daemon.find(target)["id"] if target else None
    if watch:
        _watch(daemon, target_id)
        return
    view = daemon.call("GET", f"/api/targets/{target_id}/status" if target else "/api/scrape-status")
    daemon.show(view)
    if not daemon.as_json:
        names = "state phase worker progress error reason current_user total_users completed_users failed_users"
        names += " timed_out_users started_at deadline_at last_heartbeat last_progress_at stalled attempt next_due_at"
        fields(view, names + " paused_until paused_why counts")


def _watch(daemon: Remote, target_id: int | None) -> None:
    from terminal import screen
    from terminal.watch import Watch

    if daemon.as_json or not screen.can_draw():
        presenter = screen.JsonLines() if daemon.as_json else screen.Lines()
        screen.present(Watch(daemon, target_id, most=lambda: PAGE), presenter)
    else:
        live = screen.Screen(daemon.now)
        screen.present(Watch(daemon, target_id, most=live.room), live)


@gleand.command()
@click.argument("target", required=False)
@waiting("--timeout-s", "--wait-s")
@remote
def refresh(daemon: Remote, *, target: str | None, wait: Wait) -> int:
    """Scrape TARGET now, or every target."""
    if target is None:
        return _refresh_all(daemon, wait)
    row = daemon.find(target)
    before = _last_run_id(daemon.call("GET", f"/api/targets/{row['id']}/status")) if wait.wanted else 0
    view = daemon.call("POST", f"/api/targets/{row['id']}/transitions", json={"trigger": "start"})
    if not wait.wanted:
        daemon.show(view, f"{row['handle']}: {view.get('phase') or view.get('state')}")
        return EXIT_OK
    # An overdue run was expired by asking; its outcome is not the one that is waited for.
    queued = view.get("state") != "RUNNING" and (view.get("requested_at") or view.get("phase") == "queued")
    return _run_ended(daemon, row, after=_last_run_id(view) if queued else before, wait=wait)


def _last_run_id(view: View) -> int:
    return int((view.get("last_run") or {}).get("id") or 0)


def _refresh_all(daemon: Remote, wait: Wait) -> int:
    view = daemon.call("POST", "/api/users/refresh-all", json={})
    if not (daemon.as_json and wait.wanted):
        daemon.show(view, f"asked for {view.get('total_users')} targets")
    if not wait.wanted:
        return EXIT_OK
    from terminal.follow import sweep_outcome

    outcome = sweep_outcome(daemon, int(view["sweep_id"]), timeout_s=wait.most_s)
    words = {"completed": "completed", "failed": "failed", "timed_out": "timed out"}
    return _tell(daemon, "all", outcome, ", ".join(f"{outcome.view.get(f'{n}_users')} {w}" for n, w in words.items()))


def _run_ended(daemon: Remote, row: View, *, after: int, wait: Wait) -> int:
    from terminal.follow import run_outcome

    outcome = run_outcome(daemon, int(row["id"]), after=after, timeout_s=wait.most_s)
    run = outcome.view.get("last_run") or {}
    found = f"COMPLETED, {run.get('posts_seen', 0)} posts, {run.get('posts_new', 0)} new"
    return _tell(daemon, f"{row.get('source')}:{row.get('handle')}", outcome, found)


def _tell(daemon: Remote, name: str, outcome: Outcome, success: str) -> int:
    good = outcome.state == "COMPLETED"
    daemon.show(outcome.view, *([f"{name}: {success}"] if good else []))
    if not good:
        hint = None if name == "all" else f"see 'gleand runs {name}'"
        complain(f"{name}: {outcome.state}: {outcome.error or 'no reason given'}", hint)
    return EXIT_OK if good else EXIT_REFUSED


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
@_newest
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
    return clip(clean(post.get("title") or post.get("post_text")), 100)


def _list(daemon: Remote, path: str, name: str, columns: str, most: int | None = None) -> None:
    """Show a list of the daemon's, newest first where it has an order."""
    rows = daemon.pages(path, name, {}, most)
    if daemon.as_json:
        daemon.show({name: rows})
    else:
        table(columns.split(), [[row.get(column) for column in columns.split()] for row in rows])


@gleand.command()
@click.argument("target")
@_newest
@remote
def runs(daemon: Remote, *, target: str, limit: int) -> None:
    """Show the newest runs of TARGET and how each ended."""
    columns = "id state started_at duration_s posts_seen posts_new posts_edited error"
    _list(daemon, f"/api/targets/{daemon.find(target)['id']}/runs", "runs", columns, limit)


@gleand.command()
@click.argument("target")
@_newest
@remote
def journal(daemon: Remote, *, target: str, limit: int) -> None:
    """Show what TARGET went through: each transition and each refusal, newest first."""
    columns = "at trigger from to refused_by times actor reason run_id"
    _list(daemon, f"/api/targets/{daemon.find(target)['id']}/journal", "journal", columns, limit)


@gleand.command()
@remote
def hosts(daemon: Remote) -> None:
    """Show the hosts that are waited for, until when and why."""
    _list(daemon, "/api/hosts", "hosts", "host next_allowed_at reason")


@gleand.command()
@remote
def sources(daemon: Remote) -> None:
    """Show the sources there are, and how a target of each is written."""
    rows = daemon.get("/api/sources", "sources")["sources"]
    if daemon.as_json:
        daemon.show({"sources": rows})
    else:
        table(
            ["source", "example", "description"],
            [[r.get("name"), r.get("example"), r.get("description")] for r in rows],
        )


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


# -- targets in files ------------------------------------------------------------------------------------------------


@gleand.command("import")
@click.argument("file", type=click.File(encoding="utf-8-sig"))
@click.option("--source", help="For entries that name none.")
@click.option("--schedule", help="For entries that name none.")
@click.option("--no-start", is_flag=True, help="Wait for the schedule instead of scraping now.")
@remote
def import_(daemon: Remote, *, file: io.TextIOWrapper, no_start: bool, **common: str | None) -> int:
    """Track every target in FILE (- is standard input).

    One target a line, with # comments; or OPML; or JSON: a list, what `export` wrote, or what `list --json` printed.
    """
    try:
        text = file.read()
    except UnicodeDecodeError:
        raise Misused(f"{file.name} is not UTF-8", "save it as UTF-8") from None
    except OSError as exc:
        raise Misused(f"{file.name} cannot be read: {exc.strerror or exc}") from None
    results = []
    for where, entry in read_targets(text):
        result = {"at": where, "target": entry.get("target")} | import_one(daemon, common | entry, start=not no_start)
        results.append(result)
        if "error" in result and not daemon.as_json:
            complain(f"{where}: {result['target']}: {result['error']}", result.get("hint"))
    counts = {word: sum(r["result"] == word for r in results) for word in ("added", "tracked already", "refused")}
    daemon.show({"results": results, **counts}, ", ".join(f"{count} {word}" for word, count in counts.items()))
    return EXIT_REFUSED if any("error" in result for result in results) else EXIT_OK


@gleand.command()
@click.argument("file", default="-", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@remote
def export(daemon: Remote, *, file: Path) -> None:
    """Write every target to FILE, or to standard output, as JSON that `import` reads.

    With schedule, time-out and pause; without posts and history, which a copy of the database has.
    """
    rows = daemon.pages("/api/targets", "targets", {})
    text = exported(rows, daemon.now().isoformat(timespec="seconds"))
    if str(file) == "-":
        click.echo(text, nl=False)
        return
    write(file, text)
    daemon.show({"file": str(file), "targets": len(rows)}, f"wrote {len(rows)} targets to {file}")


# -- installing ------------------------------------------------------------------------------------------------------


@gleand.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completions(shell: str) -> None:
    """Print what makes SHELL complete verbs and options of gleand.

    \b
    bash, in ~/.bashrc:                    eval "$(gleand completions bash)"
    zsh, in ~/.zshrc, after compinit:      eval "$(gleand completions zsh)"
    fish, in ~/.config/fish/config.fish:   gleand completions fish | source
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    if found is None:
        raise Failed(f"click knows no completion for {shell}")
    click.echo(found(gleand, {}, "gleand", "_GLEAND_COMPLETE").source())


@gleand.command()
@click.option("--dir", "directory", type=click.Path(path_type=Path), help="Where gleand.toml goes; else here, or /etc.")
@click.option("--force", is_flag=True, help="Replace what is there.")
@click.option("--systemd", is_flag=True, help="Install gleand.service too, for this very gleand.")
@click.option("--socket", is_flag=True, help="And gleand.socket: systemd keeps the port over a restart.")
@click.option("--print", "print_", is_flag=True, help="Show the units instead of installing them.")
@click.option("--into", type=click.Path(path_type=Path), help="For packagers: the directory for the units.")
@_json_option
def init(*, directory: Path | None, systemd: bool, as_json: bool, **how: Any) -> None:
    """Write a gleand.toml in which every setting is explained and none is active."""
    if not systemd and (how["socket"] or how["print_"] or how["into"]):
        raise click.UsageError("--socket, --print and --into go with --systemd")
    config = ((directory or Path("/etc" if systemd else ".")) / "gleand.toml").absolute()
    from terminal import install

    done = install.into_systemd(config, **how) if systemd else install.settings_file(config, force=how["force"])
    if as_json and not how["print_"]:
        click.echo(json.dumps(done, indent=2))
    elif not how["print_"]:
        for path in done["written"]:
            click.echo(f"wrote {path}")
        click.echo("next:")
        for line in done["next"]:
            click.echo(f"  {line}")


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
        return next((code for family, code in _CODES.items() if isinstance(exc, family)), EXIT_REFUSED)
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
    except Exception as exc:  # noqa: BLE001  # the top: nobody above would say it in a sentence
        return _unforeseen(exc)


def _unforeseen(exc: Exception) -> int:
    """Say what nobody thought of: a full disk under stdout, or a mistake of our own."""
    if sys.flags.dev_mode:
        raise exc
    if isinstance(exc, OSError):
        complain(f"the system refused: {exc.strerror or exc}" + (f": {exc.filename}" if exc.filename else ""))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what stdout still holds would fail once more at the end
        return EXIT_REFUSED
    place = exc.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    where = f"{Path(place.tb_frame.f_code.co_filename).name} line {place.tb_lineno}" if place else "nowhere"
    hint = "that is a mistake of gleand's own: please report it; PYTHONDEVMODE=1 shows the whole way there"
    complain(f"{type(exc).__name__} in {where}: {exc}", hint)
    return EXIT_INTERNAL


if __name__ == "__main__":
    sys.exit(main())
