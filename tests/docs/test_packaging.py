"""The tree, the wheel's list of it, and the direction of imports."""

from __future__ import annotations

import ast
import configparser
from pathlib import Path

import pytest

from gleand import __version__

ROOT = Path(__file__).resolve().parents[2]
ROOT_MODULES = {"daemon", "api", "server", "cli", "config", "errors", "clock", "kinds", "model"}
#: Directories that are no part of the wheel.
OUTSIDE = {"tests", "benchmarks", "docs", "deploy", "build", "dist"}
GROUND = {"model", "errors", "clock", "config", "kinds"}
LEVELS = (GROUND | {"gleand"}, {"fsm", "terminal"}, {"sources", "store"}, {"jobs"}, {"web"}, {"api"}, {"server"})
ROOMS = set().union(*LEVELS) | {"daemon", "cli"}
WORKER_MAY = {"sources", "model", "errors", "clock"}


def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def wanted_packages() -> set[str]:
    found = {"gleand", "gleand.app"}
    for room in ROOT.iterdir():
        if room.name not in OUTSIDE | {"gleand"} and not room.name.startswith("."):
            for init in room.rglob("__init__.py"):
                found.add(".".join(("gleand", "app", *init.parent.relative_to(ROOT).parts)))
    return found


def modules() -> list[Path]:
    files = sorted(ROOT.glob("*.py"))
    for room in sorted(ROOMS):
        files += sorted((ROOT / room).rglob("*.py"))
    return files


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] in ROOMS}


def level(room: str) -> int:
    return next((n for n, rooms in enumerate(LEVELS) if room in rooms), len(LEVELS))


def test_the_wheel_has_every_package_of_the_tree() -> None:
    packages = set(setup_cfg()["options"]["packages"].split())
    assert packages == wanted_packages()


def test_each_package_is_mapped_to_its_directory() -> None:
    lines = setup_cfg()["options"]["package_dir"].strip().splitlines()
    mapped = dict(line.replace(" ", "").split("=") for line in lines)
    expected = {p: p.removeprefix("gleand.app").lstrip(".").replace(".", "/") or "." for p in wanted_packages()}
    assert mapped == expected | {"gleand": "gleand"}


def test_the_root_has_the_modules_of_the_design_and_no_others() -> None:
    assert {path.stem for path in ROOT.glob("*.py")} == ROOT_MODULES


def test_the_version_is_the_same_everywhere() -> None:
    assert setup_cfg()["metadata"]["version"] == __version__


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    here = path.relative_to(ROOT).parts[0].removesuffix(".py")
    if here in ("daemon", "cli", "gleand"):
        return
    rooms = {name.split(".")[0] for name in imported(path)} - {here}
    ups = {room for room in rooms if level(room) > level(here)}
    sideways = {room for room in rooms if level(room) == level(here) > 0}
    assert not ups | sideways, f"{path.name} imports {ups | sideways}"


@pytest.mark.parametrize("name", ["worker", "protocol"])
def test_the_worker_imports_nothing_of_the_daemon(name: str) -> None:
    names = imported(ROOT / "jobs" / f"{name}.py")
    foreign = {n for n in names if n.split(".")[0] not in WORKER_MAY and not n.startswith("jobs.protocol")}
    assert not foreign


def test_nothing_imports_the_terminal_but_the_command_line() -> None:
    outside = [path for path in modules() if path.parent.name != "terminal"]
    assert {p.stem for p in outside if any(n.split(".")[0] == "terminal" for n in imported(p))} == {"cli"}


def test_the_wheel_has_the_units_where_a_clone_has_them() -> None:
    globs = setup_cfg()["options.package_data"]["gleand.app"].replace(",", " ").split()
    taken = {path.relative_to(ROOT).as_posix() for glob in globs for path in ROOT.glob(glob)}
    assert taken >= {"openapi.json", "deploy/gleand.service", "deploy/gleand.socket"}


def test_nothing_imports_the_daemon_but_the_command_line() -> None:
    users = {path.stem for path in modules() if any(n.split(".")[0] == "daemon" for n in imported(path))}
    assert users <= {"cli"}
