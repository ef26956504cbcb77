"""What `gleand init` writes: a settings file with every default in a comment, and units for systemd.

Texts are made here and judged here (can systemd start us from where we lie?); the files are written by targets.write.
"""

from __future__ import annotations

import ast
import io
import ipaddress
import json
import os
import sys
import tokenize
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from terminal.printing import View
from terminal.remote import Failed, Misused, address
from terminal.targets import write

#: The tree: the clone, or `gleand/app` of an installation.
TREE = Path(__file__).resolve().parent.parent
#: Where systemd looks for units of the administrator's.
UNITS = Path("/etc/systemd/system")
#: Present while systemd runs the machine; sd_booted(3).
BOOTED = Path("/run/systemd/system")
#: Not seen by the service: `ProtectHome` and `PrivateTmp` of the unit.
HIDDEN = tuple(Path(name) for name in ("/home", "/root", "/run/user", "/tmp", "/var/tmp"))
_MIB = 1024 * 1024


# -- settings --------------------------------------------------------------------------------------------------------


def settings_text(*, data_dir: str | None = None) -> str:
    """A gleand.toml in which nothing is active: each setting's meaning and default.

    Args:
        data_dir: Shown as the default in place of this user's.
    """
    from config import KINDS, Settings

    said = _comments(Path(sys.modules[Settings.__module__].__file__ or ""), Settings.__name__)
    parts = [
        "# Settings of gleand. Each line that starts with # and a name shows a default; take the # away to change it.\n"
        "# 'gleand check --config FILE' shows every value, where it comes from, and what is wrong.\n"
        "# The token is safer in the variable GLEAND_API_TOKEN. Relative paths start where this file lies.\n"
    ]
    defaults = Settings()
    for name in KINDS:
        value = getattr(defaults, name)
        if name == "data_dir":
            value = data_dir or str(value).replace(str(Path.home()), "~", 1)
        parts.append("".join(f"# {line}\n" for line in said[name]) + f"#{name} = {_toml(name, value)}\n")
    return "\n".join(parts)


def _toml(name: str, value: Any) -> str:  # Any: a default
    """A default as TOML; where there is none, a text that is refused until it is filled in."""
    if value is None:
        return '""'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and name.endswith("_bytes") and value % _MIB == 0:
        return f'"{value // _MIB} MiB"'
    if isinstance(value, int | float):
        return f"{value:g}" if isinstance(value, float) else str(int(value))
    if isinstance(value, tuple | list):
        return json.dumps(list(value))
    return "{}" if value == {} else json.dumps(str(value), ensure_ascii=False)


def _comments(path: Path, class_name: str) -> dict[str, list[str]]:
    """The `#:` lines above each field of a class, by the field's name."""
    text = path.read_text(encoding="utf-8")
    said = {
        token.start[0]: token.string[2:].strip()
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT and token.string.startswith("#:")
    }
    found: dict[str, list[str]] = {}
    (body,) = (node.body for node in ast.parse(text).body if isinstance(node, ast.ClassDef) and node.name == class_name)
    for node in body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            at = node.lineno
            while at - 1 in said:
                at -= 1
            found[node.target.id] = [said[line] for line in range(at, node.lineno)]
    return found


def settings_file(config: Path, *, force: bool) -> View:
    """Write it; returns what was written and what comes next. Raises Failed: it is there already."""
    if config.exists() and not force:
        raise Failed(f"{config} is there already", f"see 'gleand check --config {config}'; --force replaces it")
    config.parent.mkdir(parents=True, exist_ok=True)
    write(config, settings_text(), replace=force)
    return {"written": [str(config)], "next": [f"gleand {verb} --config {config}" for verb in ("check", "serve")]}


# -- units -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Launcher:
    """How this very installation is started."""

    #: Program and arguments, absolute.
    words: tuple[str, ...]
    #: Where it has to be started; None: anywhere.
    directory: Path | None

    def places(self) -> list[Path]:
        """Everything that the service must be able to read."""
        interpreter = Path(sys.executable)
        found = [Path(self.words[0]), interpreter, interpreter.resolve(), TREE, Path(sys.prefix), Path(sys.base_prefix)]
        return list(dict.fromkeys(found))


def launcher() -> Launcher:
    """The script beside the interpreter, or the interpreter with `-m gleand` where there is no script."""
    script = Path(sys.executable).with_name("gleand")
    if script.is_file() and os.access(script, os.X_OK):
        return Launcher(words=(str(script),), directory=None)
    installed = TREE.parent.name == "gleand" and TREE.name == "app"
    return Launcher(words=(sys.executable, "-m", "gleand"), directory=None if installed else TREE)


def template(name: str) -> str:
    """A unit as it is kept in deploy/. Raises Failed."""
    try:
        return (TREE / "deploy" / name).read_text(encoding="utf-8")
    except OSError as exc:
        hint = "install gleand anew"
        raise Failed(f"this installation lacks deploy/{name}: {exc.strerror}", hint) from None


def service_unit(start: Launcher, config: Path) -> str:
    """gleand.service for this installation and that settings file."""
    lines = ["ExecStart=" + " ".join(_word(w) for w in (*start.words, "serve", "--config", str(config)))]
    if start.directory is not None:
        lines.append("WorkingDirectory=" + str(start.directory).replace("%", "%%"))
    return _with(template("gleand.service"), "ExecStart=", lines)


def socket_unit(config: Path) -> str:
    """gleand.socket for the address that the settings file names. Raises Misused, ConfigError."""
    from config import load

    settings = load(config if config.exists() else None, environ={})
    host = "127.0.0.1" if settings.host == "localhost" else settings.host
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        raise Misused(f"systemd listens on addresses, and {host} is a name", f"set host in {config}") from None
    if settings.port == 0:
        raise Misused("the settings leave the port open, and systemd has to know it", f"set port in {config}")
    return _with(template("gleand.socket"), "ListenStream=", [f"ListenStream={address(host, settings.port)}"])


def _with(text: str, start: str, lines: list[str]) -> str:
    """Put lines in the place of the one that starts so."""
    old = text.splitlines()
    (at,) = (n for n, line in enumerate(old) if line.startswith(start))
    return "\n".join([*old[:at], *lines, *old[at + 1 :]]) + "\n"


def _word(word: str) -> str:
    """A word of an ExecStart line; systemd.service(5), "COMMAND LINES"."""
    word = word.replace("\\", "\\\\").replace("%", "%%").replace("$", "$$")
    return '"' + word.replace('"', '\\"') + '"' if set(word) & set(" \t\"';") else word


def obstacle(*, euid: int, booted: bool, places: list[Path]) -> Failed | None:
    """Why units cannot be installed here and started, if they cannot."""
    if not booted:
        hint = "start 'gleand serve' with what supervises services here, or read the unit with --print"
        return Failed("systemd does not run this machine", hint)
    if euid != 0:
        return Failed(f"only root may write to {UNITS}", "use sudo, or read the unit with --print")
    for place in places:
        why = unreachable(place)
        if why:
            hint = "python3 -m venv /opt/gleand, install gleand there, and call /opt/gleand/bin/gleand init --systemd"
            return Failed(f"the service could not read {place}: {why}", hint)
    return None


def unreachable(place: Path) -> str | None:
    """Why a service with a user of its own cannot read a place; None: it can."""
    for hidden in HIDDEN:
        if place.is_relative_to(hidden):
            return f"it sees nothing of {hidden}"
    for part in (place, *place.parents):
        try:
            if not part.stat().st_mode & 0o001:
                return f"{part} is closed to other users"
        except OSError as exc:
            return f"{part}: {exc.strerror}"
    return None


def into_systemd(config: Path, *, force: bool, socket: bool, print_: bool, into: Path | None) -> View:
    """Install the units, or print them.

    Args:
        config: The settings file that the service is to read; written if there is none, never replaced.
        into: Instead of systemd's own directory, and then nobody asks whether systemd runs here.

    Returns:
        What was written and what comes next; empty when printed.

    Raises:
        Failed: It cannot be done here, or others' units are there; nothing was written.
    """
    start = launcher()
    units = {"gleand.service": service_unit(start, config)}
    if socket:
        units["gleand.socket"] = socket_unit(config)
    new = {(into or UNITS) / name: text for name, text in units.items()}
    if print_:
        for path, text in new.items():
            click.echo(f"# {path}\n{text}")
        return {}
    wrong = obstacle(euid=os.geteuid(), booted=BOOTED.is_dir(), places=start.places())
    if wrong is not None and into is None:
        raise wrong
    for path, text in new.items():
        if path.exists() and not force and path.read_text(errors="replace") != text:
            raise Failed(f"{path} is there already, and differs", "see the new one with --print; --force replaces it")
    if not config.exists():  # without it the service would not start
        new = {config: settings_text(data_dir="/var/lib/gleand")} | new
    for path, text in new.items():
        write(path, text, mode=0o644)
    names = " ".join(reversed(units))  # the socket first
    return {
        "written": [str(path) for path in new],
        "next": ["systemctl daemon-reload", f"systemctl enable --now {names}"],
    }
