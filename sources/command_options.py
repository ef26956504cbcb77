"""What the settings say of a program that scrapes: `[commands.NAME]`. Light: the daemon checks it, a worker reads it.

Programs come from the config file only: nothing that comes over HTTP names one, or more than a whole argument of one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from errors import Unusable
from sources.urls import is_http

#: Fields of a post that a program may give.
FIELDS = ("id", "url", "title", "text", "html", "author", "published_at", "media", "kind")
#: What is put into arguments.
PLACEHOLDERS = ("handle", "url", "range")
_KEYS = ("kind", "argv", "fields", "cwd", "at_least", "url")
_PLACEHOLDER = re.compile(rf"\{{({'|'.join(PLACEHOLDERS)})\}}")
#: What was meant for a placeholder; code in an argument, which has spaces, may have braces of its own.
_LIKE_ONE = re.compile(r"\{(\w+)\}", re.ASCII)
#: Programs that run what an argument says, and the option before it.
_INTERPRETER = re.compile(r"(?:ba|da|k|z|fi)?sh|python[\d.]*|perl|ruby|node|php|lua|[gm]?awk")
_RUN_THIS = re.compile(r"-[A-Za-z]*[cer]|--(?:eval|command|run)")
_MAX_ARGUMENTS = 100
_MAX_CHARS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandOptions:
    """One source of this kind, as it was set."""

    #: The program and its arguments, with placeholders.
    argv: tuple[str, ...]
    #: By field of ours, the name that the program has for it.
    fields: Mapping[str, str] = field(default_factory=dict)
    #: Directory it is run in; empty: that of the daemon.
    cwd: str = ""
    #: Fewer items than that are a failure, whatever the exit code says (count).
    at_least: int = 0


def check_command(table: Mapping[str, Any]) -> list[str]:  # Any: TOML values
    """What is wrong with a table, a sentence each; nothing where it can work."""
    return list(_problems(table))


def read_command(table: Mapping[str, Any]) -> CommandOptions:  # Any: JSON values
    """Take a table that was checked. Raises Unusable for one that was not and cannot work."""
    problems = check_command(table)
    if problems:
        raise Unusable(f"the settings of this program {problems[0]}")
    return CommandOptions(
        argv=tuple(table["argv"]),
        fields=dict(table.get("fields", {})),
        cwd=table.get("cwd", ""),
        at_least=table.get("at_least", 0),
    )


def filled(options: CommandOptions, values: Mapping[str, str]) -> list[str]:
    """The arguments with values in place of placeholders: each stays one argument, whatever is in it.

    Raises:
        Unusable: A value would be taken for an option.
    """
    arguments = []
    for text in options.argv:
        first = _PLACEHOLDER.match(text)
        if first is not None and values[first[1]].startswith("-"):
            hint = "Write --name={handle}, or -- before it, where the program knows that."
            raise Unusable(f"the {first[1]} begins with '-', and the program would take it for an option", hint=hint)
        arguments.append(_PLACEHOLDER.sub(lambda found: values[found[1]], text))
    return arguments


def _problems(table: Mapping[str, Any]) -> Iterator[str]:  # Any: TOML values
    for key in table:
        if key not in _KEYS:
            yield f"has {str(key)[:40]!r}, which is none of {', '.join(_KEYS[1:])}"
    yield from _bad_argv(table.get("argv"))
    yield from _bad_fields(table.get("fields", {}))
    cwd, url = table.get("cwd", "."), table.get("url", "https:")
    if not isinstance(cwd, str) or not cwd.strip() or "\0" in cwd:
        yield "should give cwd as a directory"
    least = table.get("at_least", 0)
    if isinstance(least, bool) or not isinstance(least, int) or least < 0:
        yield "should give at_least as a number of items, 0 or more"
    if not isinstance(url, str) or not is_http(url):
        yield "should give url as an http:// or https:// address, with {handle} in it"


def _bad_argv(argv: object) -> Iterator[str]:
    if not isinstance(argv, (list, tuple)) or not argv:
        yield 'should give argv as a list, such as ["python3", "scrape.py", "{handle}"]: no shell reads it'
        return
    if len(argv) > _MAX_ARGUMENTS or not all(isinstance(one, str) and len(one) <= _MAX_CHARS for one in argv):
        yield f"should give argv as at most {_MAX_ARGUMENTS} texts"
        return
    if any("\0" in one for one in argv):
        yield "has a NUL character in argv, which no argument can hold"
    if not argv[0].strip() or _PLACEHOLDER.search(argv[0]):
        yield "should name the program itself first in argv"
    known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
    words = (one for one in argv if not re.search(r"\s", one))
    for name in sorted({found for one in words for found in _LIKE_ONE.findall(one)} - set(PLACEHOLDERS)):
        yield f"has {{{name[:40]}}} in argv, which is none of {known}"
    for n, one in enumerate(argv):
        if _PLACEHOLDER.search(one) and _is_code(argv, n):
            yield f"has a placeholder inside the code {one[:40]!r}, which anybody's handle would be part of"


def _is_code(argv: Sequence[str], n: int) -> bool:
    """Whether an argument is run, not passed on: that of `sh -c`, or the program of awk."""
    interpreters = [at for at, one in enumerate(argv[:n]) if _INTERPRETER.fullmatch(one.rpartition("/")[2])]
    if not interpreters:
        return False
    is_awk = "awk" in argv[interpreters[-1]] and n == interpreters[-1] + 1
    return is_awk or _RUN_THIS.fullmatch(argv[n - 1]) is not None


def _bad_fields(fields: object) -> Iterator[str]:
    if not isinstance(fields, Mapping):
        yield 'should give fields as a table, such as {title = "name"}'
        return
    for name, theirs in fields.items():
        if name not in FIELDS:
            yield f"has {str(name)[:40]!r} in fields, which is none of {', '.join(FIELDS)}"
        elif not isinstance(theirs, str) or not theirs:
            yield f"should give the program's own name for {name} in fields"
