"""Targets in files: OPML, JSON and lines are read, JSON is written; what `export` writes, `import` reads back."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from gleand import __version__
from terminal.printing import View
from terminal.remote import Failed, Misused, Remote

if TYPE_CHECKING:
    from requests import Response

#: What the daemon is told of a target beside its name.
KEPT = ("source", "schedule", "timeout_s", "range", "display_name")


def read_targets(text: str) -> Iterator[tuple[str, View]]:
    """Read OPML, JSON or lines; gives where each entry stands and the request for it. Raises Misused.

    `paused_until` is no part of the request: it is set once the target is there.
    """
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
        raise Misused("the OPML has a DOCTYPE, which is not read: entities in it could fill the memory")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as exc:
        raise Misused(f"the OPML cannot be read: {exc}") from None
    for number, outline in enumerate(root.iter("outline"), 1):
        if outline.get("xmlUrl", "").strip():
            yield f"outline {number}", {"target": outline.get("xmlUrl", "").strip()}


def _read_json(text: str) -> Iterator[tuple[str, View]]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise Misused(f"the JSON cannot be read: {exc}") from None
    entries = value if isinstance(value, list) else value.get("targets", value.get("users"))
    if not isinstance(entries, list):
        raise Misused("the JSON is neither a list nor has one under 'targets'")
    for number, entry in enumerate(entries, 1):
        if isinstance(entry, dict):
            target = entry.get("target") or entry.get("handle") or entry.get("username") or entry.get("url")
            yield f"entry {number}", {"target": target} | kept(entry) | paused(entry)
        else:
            yield f"entry {number}", {"target": entry}


def kept(row: View) -> View:
    """What is not by default; a display name that repeats the handle is none."""
    found = {name: row[name] for name in KEPT if row.get(name) not in (None, "")}
    if found.get("display_name") == (row.get("handle") or row.get("username")):
        found.pop("display_name", None)
    return found


def paused(row: View) -> View:
    """`paused_until`, if it is there."""
    return {"paused_until": row["paused_until"]} if row.get("paused_until") else {}


def import_one(daemon: Remote, entry: View, *, start: bool) -> View:
    """Track what an entry says; one that was paused is never started in between.

    Returns:
        `result`: `added`, `tracked already` or `refused`; with `error` and `hint` where something was refused.

    Raises:
        Failed: Nobody answers, or the token is wrong: no other entry will fare better.
    """
    until = entry.pop("paused_until", None)
    body = {k: v for k, v in entry.items() if v is not None} | ({} if start and not until else {"start": False})
    response = daemon.send("POST", "/api/targets", json=body)
    if response.status_code in (401, 403):
        daemon.read(response)
    if response.status_code == 409:
        return {"result": "tracked already"}
    if response.status_code >= 300:
        return {"result": "refused"} | _reason(response)
    if until:
        path = f"/api/targets/{daemon.read(response)['id']}"
        response = daemon.send("PATCH", path, json={"paused_until": until})
    return {"result": "added"} | (_reason(response) if response.status_code >= 300 else {})


def _reason(response: Response) -> View:
    try:
        view = response.json()
    except ValueError:
        view = None
    view = view if isinstance(view, dict) else {}
    return {"error": view.get("error") or f"the daemon answered {response.status_code}", "hint": view.get("hint")}


def exported(rows: list[View], at: str) -> str:
    """Write targets as JSON that `import` reads: what a user chose, not what a run left."""
    targets = [{"target": row["handle"], "url": row.get("url")} | kept(row) | paused(row) for row in rows]
    view = {"gleand": __version__, "exported_at": at, "targets": targets}
    return json.dumps(view, indent=2, ensure_ascii=False) + "\n"


def write(path: Path, text: str, *, replace: bool = True, mode: int | None = None) -> None:
    """Write a file whole, or leave what is there; `mode` whatever the umask is. Raises Failed."""
    try:
        path = path.resolve()  # a link stays one
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        if path.exists() and not path.is_file():  # a pipe, a device
            path.write_text(text, encoding="utf-8", errors="backslashreplace")
            return
        try:
            with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
                if mode is not None:
                    os.fchmod(file.fileno(), mode)
                file.write(text.encode("utf-8", "backslashreplace"))
            if replace:
                os.replace(beside, path)
            else:
                os.link(beside, path)  # never over one that came meanwhile
        finally:
            beside.unlink(missing_ok=True)
    except OSError as exc:
        raise Failed(f"{path} cannot be written: {exc.strerror or exc}") from None
