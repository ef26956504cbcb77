"""Kinds of values that settings have: how each is read, what it is held to, what is said when it does not fit.

A kind is a type, or `Annotated[type, ...]` with any of: `Read`, msgspec's `Meta` for limits, and plain functions that
are given a value of the right type and return the one to use, or raise ValueError with the rest of a sentence.
Types and limits are checked by msgspec, so lists, tables and tables of tables are kinds too. Not here: any setting.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

import msgspec
from msgspec import Meta

_SIZE = re.compile(r"(\d*\.?\d+)\s*([a-z]*)")
_UNITS = {"": 1, "b": 1} | {
    prefix + tail: factor**power
    for power, prefix in enumerate("kmgtpe", 1)
    for tail, factor in (("", 1000), ("b", 1000), ("ib", 1024))
}
_FLAGS = dict.fromkeys("1 true t yes y on".split(), True) | dict.fromkeys("0 false f no n off".split(), False)
#: What a value of a type is called in a sentence.
_NOUNS: dict[Any, str] = {bool: "true or false", int: "a whole number", float: "a number"}  # Any: a type
_NOUNS |= dict.fromkeys((str, str | None), "a string") | dict.fromkeys((Path, Path | None), "a path")


class Read(NamedTuple):
    """In a kind: makes a value of the type out of what was given, where it can; what it cannot it leaves."""

    call: Callable[[Any], Any]  # Any: whatever was given


def split(value: Any) -> Any:  # Any: whatever was given
    """Accept `a, b` from an environment variable or a flag where a list is wanted."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def pairs(value: Any) -> Any:  # Any: whatever was given
    """Accept `name=module:function, ...` from an environment variable or a flag."""
    parts = split(value)
    if not isinstance(value, str):
        return value
    if not all("=" in part for part in parts):
        raise ValueError("should be written as name=module:function, separated by commas")
    return {name.strip(): entry.strip() for name, entry in (part.split("=", 1) for part in parts)}


def number(value: Any) -> Any:  # Any: whatever was given
    """Accept digits from an environment variable or a flag; 5.0 is a whole number."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return value
    return int(value) if isinstance(value, float) and value.is_integer() else value


def size(value: Any) -> Any:  # Any: whatever was given
    """Accept bytes with a unit, such as `10 MiB`."""
    found = _SIZE.fullmatch(value.strip().lower()) if isinstance(value, str) else None
    if found and found[2] in _UNITS:
        return int(float(found[1]) * _UNITS[found[2]])
    value = number(value)
    if not isinstance(value, int):
        raise ValueError("should be a number of bytes, or one with a unit such as 10 MiB")
    return value


def flag(value: Any) -> Any:  # Any: whatever was given
    """Accept `yes`, `off`, `1` and their like."""
    return _FLAGS.get(str(value).lower(), value) if isinstance(value, str | int) else value


def lower(value: Any) -> Any:  # Any: whatever was given
    """Accept capitals."""
    return value.lower() if isinstance(value, str) else value


def absolute(value: Any) -> Any:  # Any: whatever was given
    """Make a path absolute, from where we were started."""
    return Path(os.path.abspath(Path(value).expanduser())) if isinstance(value, str | Path) else value


def like(pattern: str, text: str) -> Callable[[str | None], str | None]:
    """Let through what matches as a whole; `text` is said of anything else."""

    def check(value: str | None) -> str | None:
        if value is not None and not re.fullmatch(pattern, value, re.ASCII | re.DOTALL):
            raise ValueError(text)
        return value

    return check


def all_like(pattern: str, text: str) -> Callable[[tuple[str, ...]], tuple[str, ...]]:
    """Let through a list of what matches, in lower case."""
    check = like(pattern, text)
    return lambda value: tuple(str(check(name.lower())) for name in value)


Count = Annotated[int, Meta(gt=0, le=10**9), Read(number)]
CountOrZero = Annotated[int, Meta(ge=0, le=10**9), Read(number)]
Flag = Annotated[bool, Read(flag)]
#: Goes into a header.
Line = Annotated[str, like("[ -~]*", "may hold printable ASCII on one line only: it goes into a header")]


def fit(value: Any, kind: Any) -> Any:  # Any: whatever was given; a type; what the type says
    """Give the value that a kind makes of what was given. Raises ValueError: why it does not fit."""
    base, *rules = _parts(kind)
    if isinstance(value, bool) and base is not bool:
        raise ValueError("should not be true or false")
    for rule in rules:
        value = rule.call(value) if isinstance(rule, Read) else value
    try:
        value = msgspec.convert(value, kind)
    except msgspec.ValidationError as exc:
        words = ", ".join(filter(None, (_NOUNS.get(base), limits(kind))))
        raise ValueError(f"should be {words}" if words else f"does not fit: {exc}") from None
    for rule in rules:
        value = rule(value) if callable(rule) else value
    return value


def limits(kind: Any) -> str:  # Any: a type
    """What a value may be, in words; empty where its type says it all."""
    base, *rules = _parts(kind)
    if get_origin(base) is Literal:
        return "one of " + ", ".join(get_args(base))
    words = {"ge": "at least", "gt": "more than", "le": "at most"}
    bounds = [(word, getattr(rule, key, None)) for rule in rules for key, word in words.items()]
    return ", ".join(f"{word} {int(bound)}" for word, bound in bounds if bound is not None)


def _parts(kind: Any) -> tuple[Any, ...]:  # Any: a type and what its annotation adds
    return get_args(kind) if get_origin(kind) is Annotated else (kind,)
