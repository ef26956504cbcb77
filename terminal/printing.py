"""Words and tables on stdout, complaints on stderr; text of strangers is made harmless here."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.text import Text

View = dict[str, Any]  # Any: JSON values
#: How a state looks on a terminal that has colours; the word itself says it too.
STYLES = {"RUNNING": "cyan", "COMPLETED": "green", "FAILED": "red", "TIMEOUT": "magenta", "IDLE": "dim"}
_TIMES = ("at", "added_at", "last_scraped", "paused_until", "last_heartbeat")
#: Stored by a pause without an end.
FOREVER = "9999-01-01T00:00:00+00:00"


def clean(value: object) -> str:
    """Text on one line, without what a terminal would obey: it comes from strangers."""
    text = "" if value is None else str(value)
    return "".join(c if c.isprintable() else " " if c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in text)


def clip(text: str, most: int) -> str:
    """At most so many characters."""
    return text if len(text) <= most else text[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"


def complain(message: object, hint: object = None) -> None:
    """One sentence on stderr, and what to do."""
    click.echo(f"gleand: {clean(message)}", err=True)
    if hint:
        click.echo(f"  hint: {clean(hint)}", err=True)


def span(seconds: float) -> str:
    """How long, in the two units that matter."""
    whole = max(0, int(seconds))
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days}d {hours}h"
    if hours:
        return f"{hours}h {minutes}m"
    return f"{minutes}m {whole % 60}s" if minutes else f"{whole}s"


def when(value: object) -> datetime | None:
    """Read a time of the daemon's; None for what is none."""
    try:
        at = datetime.fromisoformat(str(value)) if value else None
    except ValueError:
        return None
    return at if at is not None and at.tzinfo is not None else None


def local(value: object) -> str:
    """A time of the daemon's as somebody at a terminal reads it."""
    at = when(value)
    if at is None:
        return clean(value)
    return "until it is resumed" if at.year == 9999 else f"{at.astimezone():%Y-%m-%d %H:%M:%S}"


def styled(name: str, value: object) -> Text:
    """A cell of a column, or the value of a field, for a terminal."""
    from rich.text import Text

    text = local(value) if name in _TIMES or name.endswith("_at") else ""
    return Text(text or clean(value), style=STYLES.get(str(value), "red" if name in ("error", "refused_by") else ""))


def table(names: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table on a terminal; elsewhere lines of values with tabs between, for other programs."""
    if not sys.stdout.isatty():
        for row in rows:
            click.echo("\t".join(clean(value) for value in row))
        return
    from rich.console import Console
    from rich.table import Table

    drawn = Table(*(name.replace("_", " ") for name in names), box=None, pad_edge=False)
    for row in rows:
        drawn.add_row(*(styled(name, value) for name, value in zip(names, row, strict=True)))
    Console().print(drawn if rows else "nothing to show", style=None if rows else "dim")


def fields(view: View, names: str) -> None:
    """`name: value` for those that are there; on a terminal in two columns."""
    shown = {name: view[name] for name in names.split() if view.get(name) is not None}
    shown = {n: json.dumps(v) if isinstance(v, bool | dict | list) else v for n, v in shown.items()}
    if not sys.stdout.isatty():
        for name, value in shown.items():
            click.echo(f"{name}: {clean(value)}")
        return
    from rich.console import Console
    from rich.table import Table

    drawn = Table.grid(padding=(0, 2))
    for name, value in shown.items():
        drawn.add_row(name.replace("_", " "), styled(name, value))
    Console().print(drawn)
