"""How a watch looks: a live screen on a terminal, a line for each change elsewhere, a JSON object for each change.

Drawing takes a scene and a time and gives text; it asks nobody.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

import click

from terminal.printing import STYLES, View, clean, clip, span, styled, when
from terminal.watch import ENDED, Scene, Watch

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.text import Text

#: Cells of the bar.
BAR = 40
#: Redrawn so often (a second), so that ages count on between two answers.
FRAMES = 4
#: Lines of the screen that are no runs.
FRAME_LINES = 8
#: Change with each beat, and so are no news.
BEATS = ("last_heartbeat", "last_progress_at")


class Presenter(Protocol):
    """Shows scenes."""

    def open(self) -> AbstractContextManager[object]:
        """Around the whole watch."""

    def show(self, scene: Scene) -> None:
        """Show what is new in a scene."""


def present(watch: Watch, presenter: Presenter) -> None:
    """Watch until interrupted. Raises Failed, KeyboardInterrupt."""
    with presenter.open():
        while True:
            presenter.show(watch.round())


def name_of(view: View) -> str:
    """`source:handle` of a target's status, or the sweep."""
    if "username" in view:
        return clean(f"{view.get('source')}:{view['username']}")
    return f"sweep {view['sweep_id']}" if view.get("sweep_id") else "daemon"


# -- lines -----------------------------------------------------------------------------------------------------------


class Lines:
    """A line for each change, with tabs: when, what, state, phase, what is said of it."""

    def __init__(self) -> None:
        self._said: dict[str, tuple[str, ...]] = {}

    def open(self) -> AbstractContextManager[object]:
        """Nothing to prepare."""
        return nullcontext()

    def show(self, scene: Scene) -> None:
        """Print what differs from what was printed."""
        for name, said in self._facts(scene):
            if self._said.get(name) != said:
                click.echo("\t".join(clean(cell) for cell in (f"{scene.at:%Y-%m-%dT%H:%M:%SZ}", name, *said)))
                self._said[name] = said

    def _facts(self, scene: Scene) -> Iterator[tuple[str, tuple[str, ...]]]:
        if scene.problem is not None:
            yield "connection", ("lost", "", f"{scene.problem}; trying again")
            return
        if "connection" in self._said:
            yield "connection", ("back", "", "")
        for view in (*reversed(scene.ended), *scene.runs, scene.status):
            phase = "stalled" if view.get("stalled") else view.get("phase") or ""
            text = view.get("error") or view.get("progress") or ""
            yield name_of(view), (str(view["state"]), str(phase), "" if text == phase else str(text))


class JsonLines:
    """A JSON object on a line of its own for each change."""

    def __init__(self) -> None:
        self._said: object = None

    def open(self) -> AbstractContextManager[object]:
        """Nothing to prepare."""
        return nullcontext()

    def show(self, scene: Scene) -> None:
        """Print the scene if it differs from the last one by more than heartbeats."""
        parts: View = {"connected": scene.problem is None, "problem": scene.problem, "status": scene.status}
        parts["runs"] = list(scene.runs)
        calm = [{k: v for k, v in view.items() if k not in BEATS} for view in (scene.status, *scene.runs)]
        said = (scene.problem, calm)
        if said != self._said:
            self._said = said
            click.echo(json.dumps({"at": scene.at.isoformat(timespec="milliseconds")} | parts))


# -- the live screen -------------------------------------------------------------------------------------------------


class Screen:
    """Redraws in place; what it showed last stays in sight when it ends."""

    def __init__(self, daemon_now: Clock) -> None:
        from rich.console import Console
        from rich.live import Live

        self._now = daemon_now
        self._scene: Scene | None = None
        self._console = Console()
        self._live = Live(self, console=self._console, refresh_per_second=FRAMES, vertical_overflow="crop")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Called by rich for each frame."""
        if self._scene is not None:
            yield draw(self._scene, self._now(), height=console.size.height)

    def room(self) -> int:
        """How many runs fit."""
        return max(1, self._console.size.height - FRAME_LINES - ENDED)

    def open(self) -> AbstractContextManager[object]:
        """Take the terminal; a SIGTERM gives it back as Ctrl-C does, with its cursor."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.default_int_handler)
        return self._live

    def show(self, scene: Scene) -> None:
        """Draw it now; the frames after it only count on."""
        self._scene = scene
        self._live.refresh()


class Clock(Protocol):
    """The daemon's clock."""

    def __call__(self) -> datetime:
        """Now."""


def can_draw() -> bool:
    """Whether stdout is a terminal that can be drawn on."""
    if not sys.stdout.isatty():
        return False
    from rich.console import Console

    return not Console().is_dumb_terminal


def draw(scene: Scene, now: datetime, *, height: int = 25) -> RenderableType:
    """One frame."""
    from rich.console import Group
    from rich.text import Text

    head = Text.assemble(("gleand", "bold"), f" at {clean(scene.url)}   {now.astimezone():%H:%M:%S}   Ctrl-C ends it")
    parts: list[RenderableType] = [head]
    if scene.problem is not None:
        parts.append(
            Text(f"{clean(scene.problem)}; trying again. What follows is what it said last.", style="bold red")
        )
    view = scene.status
    parts += _target(view, now) if "triggers" in view else _sweep(view, now)
    ended = scene.ended[:ENDED]
    room = max(1, height - FRAME_LINES - len(ended))
    if scene.runs:
        parts.append(_runs(scene.runs[:room], now))
    hidden = scene.hidden + max(0, len(scene.runs) - room)
    if hidden:
        parts.append(Text(f"and {hidden} more under way", style="dim"))
    for one in ended:
        words = clip(clean(f"{name_of(one)}  {one.get('error') or ''}"), 90)
        parts.append(Text.assemble("ended  ", (f"{clean(one['state']):<10}", STYLES.get(one["state"], "")), words))
    return Group(*parts)


def _sweep(view: View, now: datetime) -> list[RenderableType]:
    from rich.text import Text

    counted = {name: int(view.get(f"{name}_users") or 0) for name in ("total", "completed", "failed", "timed_out")}
    done = counted["completed"] + counted["failed"] + counted["timed_out"]
    began = when(view.get("started_at"))
    age = f"   for {span((now - began).total_seconds())}" if began and view.get("running") else ""
    head = Text.assemble(
        (view["state"], "bold " + STYLES.get(view["state"], "")), f"  {clean(view.get('progress'))}{age}"
    )
    lines: list[RenderableType] = [head]
    if counted["total"]:
        lines.append(bar(counted) + Text(f"  {done} of {counted['total']}"))
        words = [
            f"{counted['completed']} completed",
            f"{counted['failed']} failed",
            f"{counted['timed_out']} timed out",
        ]
        lines.append(Text(", ".join(words), style="dim" if not counted["failed"] + counted["timed_out"] else ""))
    if view.get("error"):
        lines.append(Text(clean(view["error"]), style="red"))
    states = Text("targets: ")
    for state, count in (view.get("counts") or {}).items():
        states.append(f"{clean(state)} {count}   ", style=STYLES.get(state, "") if count else "dim")
    due = when(view.get("next_due_at"))
    if due:
        states.append(f"next due in {span((due - now).total_seconds())}" if due > now else "one is due")
    return [*lines, states]


def bar(counted: dict[str, int]) -> Text:
    """How much of a sweep is done, and how it went."""
    from rich.text import Text

    drawn, cells, so_far = Text(), 0, 0
    for name, style in (("completed", "green"), ("failed", "red"), ("timed_out", "magenta")):
        so_far += counted[name]
        upto = min(BAR, BAR * so_far // max(1, counted["total"]))
        drawn.append("\N{BOX DRAWINGS HEAVY HORIZONTAL}" * (upto - cells), style=style)
        cells = upto
    return drawn.append("\N{BOX DRAWINGS LIGHT HORIZONTAL}" * (BAR - cells), style="dim")


def _times(view: View, now: datetime) -> tuple[str, str]:
    began, deadline = when(view.get("started_at")), when(view.get("deadline_at"))
    age = span((now - began).total_seconds()) if began else ""
    left = (deadline - now).total_seconds() if deadline else 0.0
    return age, "" if deadline is None else span(left) if left > 0 else "overdue"


def _runs(runs: tuple[View, ...], now: datetime) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False)
    for column, wide in (("under way", True), ("phase", False), ("age", False), ("left", False), ("progress", True)):
        drawn.add_column(column, no_wrap=True, overflow="ellipsis" if wide else "crop", ratio=2 if wide else None)
    for view in runs:
        stalled = bool(view.get("stalled"))
        phase = "stalled" if stalled else clean(view.get("phase"))
        cells = (name_of(view), phase, *_times(view, now), clean(view.get("progress")))
        drawn.add_row(*(Text(cell, style="red" if stalled else "") for cell in cells))
    return drawn


def _target(view: View, now: datetime) -> list[RenderableType]:
    from rich.table import Table
    from rich.text import Text

    stalled = bool(view.get("stalled"))
    state = Text.assemble((view["state"], "bold red" if stalled else "bold " + STYLES.get(view["state"], "")))
    state.append(f"  {clean(name_of(view))}  {'stalled' if stalled else clean(view.get('phase'))}")
    drawn = Table.grid(padding=(0, 2))
    if view["state"] == "RUNNING":
        age, left = _times(view, now)
        drawn.add_row("for", f"{age}, {left} to the deadline" if left != "overdue" else f"{age}, overdue")
    for name in ("progress", "worker", "error", "reason", "next_due_at", "paused_until"):
        if view.get(name) not in (None, "", "none"):
            drawn.add_row(name.replace("_", " "), styled(name, view[name]))
    run = view.get("last_run")
    if run:
        took = f" in {run['duration_s']:g} s" if run.get("duration_s") is not None else ""
        found = f"{run.get('posts_seen', 0)} posts, {run.get('posts_new', 0)} new"
        drawn.add_row("last run", Text.assemble((run["state"], STYLES.get(run["state"], "")), f"{took}: {found}"))
    possible = [name for name, fact in (view.get("triggers") or {}).items() if fact.get("possible")]
    drawn.add_row("possible", ", ".join(clean(name) for name in possible) or "nothing")
    return [state, drawn]
