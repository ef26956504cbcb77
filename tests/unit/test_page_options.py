"""The table of a page source: what is wrong with it is said in words, before any run."""

from __future__ import annotations

import random
import subprocess
import sys
from typing import Any

import pytest

from errors import Unusable
from sources.page_options import check_page, read_page

GOOD = {"url": "https://example.org/authors/{handle}", "item": "article", "title": "h2"}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"kind": "page"},
        {"url": "http://example.org/fixed"},
        {"format": "json"},
        {"format": "html", "next": "a@href", "date": "time", "date_format": "%d.%m.%Y", "timezone": "Europe/Berlin"},
    ],
)
def test_a_table_that_can_work_has_no_problems(more: dict[str, str]) -> None:
    assert check_page(GOOD | more) == []
    assert read_page(GOOD | more).fields["title"] == "h2"


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"titel": "h2"}, "has 'titel', which is none of format, url, item"),
        ({"item": ""}, "should give item as a text"),
        ({"item": None}, "should give item as a text"),
        ({"title": ["h2"]}, "should give title as a text"),
        ({"title": "x" * 1001}, "should give title as a text of at most 1000 characters"),
        ({"format": "xml"}, "should give format as one of html, json"),
        ({"format": ["json"]}, "should give format as one of html, json"),
        ({"url": "ftp://example.org/"}, "should give url as an http:// or https:// address"),
        ({"url": "example.org"}, "should give url as an http:// or https:// address"),
        ({"url": "https://e.org/{user}"}, "should have {handle} once in url, or not at all, and no other braces"),
        ({"url": "https://e.org/{handle}/{handle}"}, "should have {handle} once in url"),
        ({"url": "https://e.org/}"}, "no other braces"),
        ({"url": "https://u:p@e.org/"}, "has a url that cannot be fetched: an address must not contain a user name"),
        ({"url": "https:///x"}, "has a url that cannot be fetched: the address has no host"),
        ({"date_format": "soon"}, "should have a date_format that names a day, such as %d.%m.%Y"),
        ({"timezone": "Berlin"}, "has the timezone 'Berlin', which is none such as Europe/Berlin"),
        ({"timezone": "../../etc/passwd"}, "which is none such as"),
    ],
)
def test_a_problem_is_said_in_words(more: dict[str, Any], problem: str) -> None:
    (found,) = check_page(GOOD | more)
    assert problem in found


@pytest.mark.parametrize("missing", ["url", "item"])
def test_what_is_missing_is_said(missing: str) -> None:
    table = {key: value for key, value in GOOD.items() if key != missing}
    assert check_page(table) == [f"should give {missing}"]


def test_a_table_that_reads_nothing_of_an_item_is_a_problem() -> None:
    assert check_page({"url": "https://example.org/", "item": "article", "date": "time"}) == [
        "should give at least one of title, link, content, id, media"
    ]


def test_every_problem_is_said_and_not_the_first_alone() -> None:
    assert len(check_page({"url": 1, "itme": "x", "format": 2})) == 5


def test_a_table_that_was_not_checked_is_refused() -> None:
    with pytest.raises(Unusable, match="the settings of this page should give item"):
        read_page({"url": "https://example.org/", "title": "h2"})


def test_whatever_the_table_holds_a_problem_is_a_sentence_or_it_can_be_read() -> None:
    rng = random.Random(1)
    values = (
        None,
        1,
        True,
        [],
        {},
        "",
        "x",
        "%d",
        "UTC",
        "{handle}",
        "https://e.org/{handle}",
        "json",
        "\0",
        "a" * 2000,
    )
    keys = ("kind", "url", "item", "format", "next", "title", "date_format", "timezone", "other", 3, "media")
    for _ in range(3000):
        table: dict[Any, Any] = {rng.choice(keys): rng.choice(values) for _ in range(rng.randint(0, 6))}
        problems = check_page(table)
        assert all(isinstance(one, str) and one for one in problems)
        if not problems:
            read_page(table)


def test_checking_loads_nothing_heavy() -> None:
    code = "import sys, sources.page_options; sys.exit(bool({'requests', 'lxml', 'jsonpath'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
