"""Kinds of values: what each accepts, and what is said of the rest."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from msgspec import Meta, Struct

from kinds import CountOrZero, Flag, Read, all_like, fit, limits, number, size, split


class Page(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    item: str
    most: Annotated[int, Meta(ge=1)] = 10


def test_tables_of_tables_are_kinds_too() -> None:
    assert fit({"a": {"b": "c"}}, dict[str, dict[str, str]]) == {"a": {"b": "c"}}
    assert fit({"a": {"item": "li"}}, dict[str, Page]) == {"a": Page(item="li", most=10)}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"a": 1}, "Expected `object`, got `int` - at `$[...]`"),
        ({"a": {"itme": "li"}}, "Object contains unknown field `itme` - at `$[...]`"),
        ({"a": {"item": "li", "most": 0}}, "Expected `int` >= 1 - at `$[...].most`"),
    ],
)
def test_a_mistake_inside_a_table_is_told_with_its_place(given: Any, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        fit(given, dict[str, Page])
    assert str(caught.value) == f"does not fit: {said}"


@pytest.mark.parametrize("given", [10**400, "1e400", float("nan"), float("inf"), -1, "x", None, [], {}, b"1"])
def test_what_is_no_count_is_refused(given: Any) -> None:
    with pytest.raises(ValueError, match="^should be a whole number, at least 0, at most 1000000000$"):
        fit(given, CountOrZero)


@pytest.mark.parametrize("given", [10**400, float("nan"), "inf", -0.5, None])
def test_what_is_no_duration_is_refused(given: Any) -> None:
    with pytest.raises(ValueError, match="^should be a number, at least 0, at most 60$"):
        fit(given, Annotated[float, Meta(ge=0, le=60), Read(number)])


@pytest.mark.parametrize(
    ("given", "meant"),
    [("1", 1), ("1 b", 1), ("2k", 2000), ("2 KB", 2000), ("2KiB", 2048), ("1.5 MiB", 3 * 2**19), (".5kb", 500), (7, 7)],
)
def test_a_size_may_have_a_unit(given: Any, meant: int) -> None:
    assert fit(given, Annotated[int, Read(size)]) == meant


@pytest.mark.parametrize("given", ["", "k", "1 x", "1.5.5 k", "k 1", None, "one"])
def test_what_is_no_size_is_refused(given: Any) -> None:
    with pytest.raises(ValueError, match="^should be a number of bytes, or one with a unit such as 10 MiB$"):
        fit(given, Annotated[int, Read(size)])


@pytest.mark.parametrize("given", [2, "2", "", None, "truee", 1.5])
def test_what_is_neither_yes_nor_no_is_refused(given: Any) -> None:
    with pytest.raises(ValueError, match="^should be true or false$"):
        fit(given, Flag)


def test_a_rule_for_a_list_holds_for_each_of_it() -> None:
    kind = Annotated[tuple[str, ...], Read(split), all_like("[a-z]+", "should hold words")]
    assert fit("A, b,,", kind) == ("a", "b")
    with pytest.raises(ValueError, match="^should hold words$"):
        fit(["a", "b1"], kind)


def test_limits_are_told_in_words() -> None:
    assert [limits(kind) for kind in (CountOrZero, Flag, str)] == ["at least 0, at most 1000000000", "", ""]
