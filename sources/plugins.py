"""Sources that others bring: entry points of installed packages, and what a scraper's module may be called.

Nothing of theirs is imported here. Light; importlib.metadata is loaded by who asks for entry points.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass

#: Entry points of this group are sources: their name to `module:function`.
GROUP = "gleand.sources"
#: Top-level names that are gleand's own in a worker; a module of another's with such a name would never be found.
OWN_MODULES = frozenset(
    "api cli clock config daemon errors fsm gleand jobs kinds model server sources store terminal web".split()
)
#: Names that would read as something else before a colon.
_TAKEN = frozenset({"http", "https"})
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_ENTRY = re.compile(r"([A-Za-z_]\w*)(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugins:
    """The sources that installed packages bring."""

    #: Name to `module:function`.
    usable: dict[str, str]
    #: A sentence for each that is passed over.
    problems: tuple[str, ...]


def entry_points() -> dict[str, str]:
    """Sources of installed packages by name, those alone that can be used; see discover for the others."""
    return discover().usable


def discover() -> Plugins:
    """Look at every entry point of the group."""
    if not _is_offered():
        return Plugins(usable={}, problems=())
    from importlib import metadata  # late: 60 ms and 10 MB, and hardly anybody has one

    found = metadata.entry_points(group=GROUP)
    return _sorted((one.name, one.value, one.dist.name if one.dist else "?") for one in found)


def _is_offered() -> bool:
    """Whether any installed package mentions the group: its file of entry points, beside its metadata."""
    for place in sys.path:
        try:
            names = [name for name in os.listdir(place or ".") if name.endswith((".dist-info", ".egg-info"))]
        except OSError:
            continue
        for name in names:
            try:
                with open(os.path.join(place, name, "entry_points.txt"), "rb") as file:
                    if GROUP.encode() in file.read():
                        return True
            except OSError:
                continue
    return False


def check_scraper(entry: str) -> list[str]:
    """What is wrong with `module:function`, a sentence each; nothing where it may be imported."""
    match = _ENTRY.fullmatch(entry)
    if match is None:
        return [f"the scraper {entry[:80]!r} is not of the form module:function"]
    top = match[1]
    if top in OWN_MODULES:
        return [f"the scraper's module {top!r} has the name of one of gleand's own; call it something else"]
    if top in sys.stdlib_module_names:
        return [f"the scraper's module {top!r} has the name of one of Python's own; call it something else"]
    return []


def _sorted(found: Iterable[tuple[str, str, str]]) -> Plugins:
    """Take (name, value, package) apart into what can be used and what cannot; a name that is offered twice cannot."""
    from sources.registry import BUILT_IN

    by_name: dict[str, set[tuple[str, str]]] = {}
    for name, value, package in found:
        by_name.setdefault(name, set()).add((value.partition("[")[0].strip(), package))
    usable: dict[str, str] = {}
    problems: list[str] = []
    for name, offers in sorted(by_name.items()):
        packages = ", ".join(sorted({package for _, package in offers}))
        where = f"the source {name[:40]!r} of the package {packages}"
        value = min(offers)[0]
        if not _NAME.fullmatch(name) or name in _TAKEN:
            problems.append(f"{where} has a name that cannot be used: lower-case letters, digits, _ and - are possible")
        elif name in BUILT_IN:
            problems.append(f"{where} has the name of a source that is built in")
        elif len(offers) > 1:
            problems.append(f"{where} is offered more than once")
        elif wrong := check_scraper(value):
            problems.append(f"{where}: {wrong[0]}")
        else:
            usable[name] = value
    return Plugins(usable=usable, problems=tuple(problems))
