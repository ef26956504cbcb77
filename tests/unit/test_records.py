"""Reading JSON that may be anything: what is of the type that was asked for is given, nothing else is."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from errors import ScrapeFailed
from model import Post
from sources import records

FOUND: Any = {
    "text": " a\tb ",
    "number": 7,
    "float": 7.0,
    "half": 7.5,
    "true": True,
    "none": None,
    "list": [1, {"a": 1}],
    "deep": {"text": "x", "list": ["y"]},
    "inf": float("inf"),
    "nan": float("nan"),
    "big": 10**30,
}


@pytest.mark.parametrize("found", [None, 1, "x", [], [{"deep": 1}], True, {}])
def test_nothing_is_found_in_what_is_no_object(found: Any) -> None:
    assert records.at(found, "deep", "text") is None
    assert records.record(found, "deep") == {}
    assert records.text(found, "deep") == ""
    assert records.number(found, "deep") is None
    assert records.identity(found, "deep") == ""
    assert records.time(found, "deep") is None
    assert records.several(found, "deep") == []
    assert not records.is_true(found, "deep")


def test_texts_are_found_where_they_are() -> None:
    assert records.text(FOUND, "deep", "text") == "x"
    assert [records.text(FOUND, key) for key in ("number", "true", "none", "list", "deep")] == [""] * 5


@pytest.mark.parametrize(("key", "value"), [("number", 7), ("float", 7), ("half", None), ("true", None), ("inf", None)])
def test_numbers_are_whole_and_no_truth_is_one(key: str, value: int | None) -> None:
    assert records.number(FOUND, key) == value
    assert records.number(FOUND, "nan") is None and records.number(FOUND, "big") is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (7, "7"),
        ("abc", "abc"),
        (" a ", "a"),
        ("a b", ""),
        ("a\nb", ""),
        ("\ud800", ""),
        ("x" * 1001, ""),
        (True, ""),
        (1.5, ""),
    ],
)
def test_an_id_is_a_word_or_a_number(value: Any, expected: str) -> None:
    assert records.identity({"id": value}, "id") == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-01-02T03:04:05.678Z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-01-02T05:04:05+02:00", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        (1767323045, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
    ],
)
def test_an_instant_is_a_text_or_seconds_since_1970(value: Any, expected: datetime | None) -> None:
    assert records.time({"at": value}, "at") == expected


@pytest.mark.parametrize("value", [0, -(10**12), 10**12, float("inf"), "0", "", "soon", None, [], True])
def test_what_names_no_instant_is_none(value: Any) -> None:
    assert records.time({"at": value}, "at") is None


def test_one_alone_counts_as_several() -> None:
    assert records.several({"a": [1, "x"]}, "a") == [1, "x"]
    assert records.several({"a": {"b": 1}}, "a") == [{"b": 1}]
    assert records.several({"a": "x"}, "a") == ["x"]
    assert records.several({"a": 1}, "a") == []


@pytest.mark.parametrize("found", [None, 1, "x", {}, {"items": {}}, {"items": "x"}])
def test_a_list_that_is_not_there_is_an_answer_of_another_shape(found: Any) -> None:
    with pytest.raises(ScrapeFailed, match="not of the shape that was asked for"):
        records.listed(found, "items")


def test_a_post_is_cleaned() -> None:
    post = records.make_post(
        "1",
        "https://x.example/a b",
        title=" a\n\tb\0 ",
        markup="<p>one\0</p><script>x</script><p>tw\ud800o</p>",
        author="a\n" + "b" * 600,
        media=["https://x.example/1", "x", "javascript:alert(1)", "https://x.example/1", "https://x.example/2"],
    )
    assert post == Post(
        native_id="1",
        url="https://x.example/a%20b",
        title="a b",
        text="one\ntw\ufffdo",
        html="<p>one</p><script>x</script><p>tw\ufffdo</p>",
        author=("a " + "b" * 600)[:500],
        media=("https://x.example/1", "https://x.example/2"),
    )


def test_a_post_without_an_id_is_none() -> None:
    assert records.make_post("", "https://x.example/") is None


def test_an_address_that_is_none_is_left_out() -> None:
    for url in ("", "x", "javascript:alert(1)", "https://[", "ftp://x.example/"):
        post = records.make_post("1", url, plain_text="a  b\n\nc")
        assert post is not None and (post.url, post.text) == ("", "a b\nc")


def test_what_cannot_be_read_is_counted_and_long_reading_is_seen() -> None:
    said: list[str] = []
    items: list[Any] = [{"id": n} for n in range(200)] + [None, {}, "x"]
    posts, unread = records.read_posts(
        items, lambda one: records.make_post(records.identity(one, "id"), ""), said.append
    )
    assert (len(posts), unread, said) == (200, 3, ["read 100 items", "read 200 items"])
