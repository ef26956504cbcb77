"""Writes the parts of the documents that are made from the code: `make docs`.

A generated part stands between `<!-- generated: NAME -->` and `<!-- end of generated: NAME -->`; the rest of a page
is written by hand and left alone. Lives here: how the code's tables look in Markdown. Not here: any fact.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Callable
from pathlib import Path
from typing import Any

from config import ENV_PREFIX, KINDS, MIB, Settings
from fsm.guards import GUARDS
from fsm.machine import mermaid
from fsm.states import EDGES, State, Trigger
from gleand import __version__
from kinds import limits

ROOT = Path(__file__).resolve().parent.parent
#: Pages with generated parts, relative to the root.
PAGES = ("README.md", "docs/lifecycle.md", "docs/settings.md")
#: Defaults that differ from machine to machine, in words.
_DEFAULTS = {"data_dir": "`$STATE_DIRECTORY`, else the user's data directory", "user_agent": "`gleand/VERSION`"}


def comments() -> dict[str, str]:
    """The `#:` comment above each field of `config.Settings`, by name."""
    text = (ROOT / "config.py").read_text(encoding="utf-8")
    (settings,) = [n for n in ast.parse(text).body if isinstance(n, ast.ClassDef) and n.name == Settings.__name__]
    said = {
        token.start[0]: token.string[2:].strip()
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT and token.string.startswith("#:")
    }
    found = {}
    for node in settings.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            lines: list[str] = []
            at = node.lineno - 1
            while at in said:
                lines.insert(0, said[at])
                at -= 1
            found[node.target.id] = " ".join(lines)
    return found


def _number(value: Any) -> str:  # Any: a default
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and value >= MIB and value % MIB == 0:
        return f"{value} ({value // MIB} MiB)"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _default(name: str) -> str:
    if name in _DEFAULTS:
        return _DEFAULTS[name]
    value = getattr(Settings(), name)
    if value is None or value in ("", (), {}):
        return "none"
    return f"`{_number(value).replace(__version__, 'VERSION')}`"


def settings_table() -> str:
    """Every setting: name, variable, default, limits, meaning with its unit."""
    meaning = comments()
    lines = ["| setting | default | limits | meaning |", "|---|---|---|---|"]
    for name in KINDS:
        variable = ENV_PREFIX + name.upper()
        lines.append(f"| `{name}`<br>`{variable}` | {_default(name)} | {limits(KINDS[name])} | {meaning[name]} |")
    return "\n".join(lines)


def edges_table() -> str:
    """Every edge, with its guards and those that an operator's force waives."""
    lines = ["| trigger | from | to | guards | waived by force |", "|---|---|---|---|---|"]
    for edge in EDGES:
        guards = ", ".join(f"`{guard.__name__}`" for guard in edge.guards) or "none"
        waived = ", ".join(f"`{name}`" for name in sorted(edge.waivable)) or "none"
        lines.append(f"| `{edge.trigger.value}` | {edge.source.value} | {edge.dest.value} | {guards} | {waived} |")
    return "\n".join(lines)


def pairs_table() -> str:
    """Where each trigger leads from each state; a dash where there is no such edge."""
    leads = {(edge.source, edge.trigger): edge.dest.value for edge in EDGES}
    lines = ["| | " + " | ".join(f"`{t.value}`" for t in Trigger) + " |", "|---" * (len(Trigger) + 1) + "|"]
    for state in State:
        lines.append(f"| **{state.value}** | " + " | ".join(leads.get((state, t), "-") for t in Trigger) + " |")
    return "\n".join(lines)


def guards_table() -> str:
    """Every guard and the statement that is true when it holds."""
    lines = ["| guard | holds when |", "|---|---|"]
    lines += [f"| `{guard.__name__}` | {(guard.__doc__ or '').strip()} |" for guard in GUARDS]
    return "\n".join(lines)


def diagram() -> str:
    """The lifecycle as the running machine draws it."""
    return f"```mermaid\n{mermaid()}```"


BLOCKS: dict[str, Callable[[], str]] = {
    "diagram": diagram,
    "edges": edges_table,
    "guards": guards_table,
    "pairs": pairs_table,
    "settings": settings_table,
}


def render(text: str) -> str:
    """Give a page with its generated parts written anew.

    Raises:
        ValueError: A part has no end, or a name that is not in BLOCKS.
    """
    done, rest = "", text
    while "<!-- generated: " in rest:
        before, _, rest = rest.partition("<!-- generated: ")
        name, _, rest = rest.partition(" -->")
        end = f"<!-- end of generated: {name} -->"
        if name not in BLOCKS or end not in rest:
            raise ValueError(f"the generated part {name!r} is unknown or has no end")
        rest = rest.partition(end)[2]
        done += f"{before}<!-- generated: {name} -->\n{BLOCKS[name]()}\n{end}"
    return done + rest


def main() -> None:
    """Write what changed, and say so."""
    for name in PAGES:
        page = ROOT / name
        old = page.read_text(encoding="utf-8")
        new = render(old)
        if new != old:
            page.write_text(new, encoding="utf-8")
            print(f"{name}: written anew")


if __name__ == "__main__":
    main()
