"""The table of a program that scrapes: what is wrong with it, and what becomes of its placeholders."""

from __future__ import annotations

import random
import subprocess
import sys
from typing import Any

import pytest

from errors import Unusable
from sources.command_options import check_command, filled, read_command

GOOD: dict[str, Any] = {"argv": ["python3", "scrape.py", "{handle}"]}
VALUES = {"handle": "ann", "url": "https://example.org/ann", "range": "7"}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"kind": "command", "cwd": "/srv/x", "fields": {"title": "name", "published_at": "when"}},
        {"argv": ("scrapy", "runspider", "s.py", "-a", "user={handle}", "-a", "n={range}", "--at={url}", '{"a": 1}')},
        {"url": "https://example.org/{handle}"},
    ],
)
def test_a_table_that_can_work_has_no_problems(more: dict[str, Any]) -> None:
    assert check_command(GOOD | more) == []
    assert read_command(GOOD | more).argv[0] in ("python3", "scrapy")


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"args": []}, "has 'args', which is none of argv, fields, cwd, at_least, url"),
        ({"argv": "scrape.py {handle}"}, "should give argv as a list, such as"),
        ({"argv": []}, "should give argv as a list, such as"),
        ({"argv": [1]}, "should give argv as at most 100 texts"),
        ({"argv": ["x"] * 101}, "should give argv as at most 100 texts"),
        ({"argv": ["x", "a\0b"]}, "has a NUL character in argv"),
        ({"argv": [" "]}, "should name the program itself first in argv"),
        ({"argv": ["{handle}"]}, "should name the program itself first in argv"),
        ({"argv": ["x", "{user}"]}, "has {user} in argv, which is none of {handle}, {url}, {range}"),
        ({"fields": []}, "should give fields as a table"),
        ({"fields": {"titel": "name"}}, "has 'titel' in fields, which is none of id, url, title"),
        ({"fields": {"title": 3}}, "should give the program's own name for title in fields"),
        ({"cwd": ""}, "should give cwd as a directory"),
        ({"at_least": -1}, "should give at_least as a number of items"),
        ({"at_least": True}, "should give at_least as a number of items"),
        ({"cwd": 3}, "should give cwd as a directory"),
        ({"url": "example.org"}, "should give url as an http:// or https:// address"),
    ],
)
def test_a_problem_is_said_in_words(more: dict[str, Any], problem: str) -> None:
    (found,) = check_command(GOOD | more)
    assert problem in found


def test_a_table_that_was_not_checked_is_refused() -> None:
    with pytest.raises(Unusable, match="the settings of this program should give argv as a list"):
        read_command({})


def test_placeholders_are_filled_in_whole_and_in_part_and_nothing_is_split_or_quoted() -> None:
    options = read_command({"argv": ["x", "{handle}", "-a", "user={handle}", "{range}{range}", "{url}", "{}", "$HOME"]})
    values = VALUES | {"handle": 'an\'n; rm -rf "$HOME" {url}'}
    handle = values["handle"]
    url = "https://example.org/ann"
    assert filled(options, values) == ["x", handle, "-a", f"user={handle}", "77", url, "{}", "$HOME"]


@pytest.mark.parametrize("handle", ["-x", "--output=/etc/passwd", "-"])
def test_a_handle_is_never_taken_for_an_option(handle: str) -> None:
    with pytest.raises(Unusable, match="the handle begins with '-', and the program would take it for an option"):
        filled(read_command(GOOD), VALUES | {"handle": handle})
    beside = read_command({"argv": ["x", "--user={handle}"]})
    assert filled(beside, VALUES | {"handle": handle}) == ["x", f"--user={handle}"]


@pytest.mark.parametrize("argv", [["find", "-exec", "{}"], ["awk", "{print $1; x = {y}}"], ["jq", '{"a": 1}']])
def test_other_braces_are_no_placeholder(argv: list[str]) -> None:
    assert check_command({"argv": argv}) == []
    assert filled(read_command({"argv": argv}), VALUES) == argv


@pytest.mark.parametrize(
    "argv",
    [
        ["sh", "-c", "scrape {handle}"],
        ["/bin/bash", "-lc", "scrape {url}"],
        ["env", "python3.12", "-c", "print('{handle}')"],
        ["perl", "-e", "{handle}"],
        ["php", "-r", "{handle}"],
        ["node", "--eval", "{handle}"],
        ["gawk", "/{handle}/ {print}"],
    ],
)
def test_a_handle_never_becomes_code(argv: list[str]) -> None:
    (problem,) = check_command({"argv": argv})
    assert "has a placeholder inside the code" in problem


@pytest.mark.parametrize(
    "argv", [["sh", "-c", 'scrape "$1"', "sh", "{handle}"], ["yt-dlp", "-c", "{url}"], ["python3", "x.py", "{handle}"]]
)
def test_a_handle_beside_code_is_an_argument(argv: list[str]) -> None:
    assert check_command({"argv": argv}) == []


def test_whatever_the_table_holds_a_problem_is_a_sentence_or_it_can_be_read() -> None:
    rng = random.Random(1)
    values = (
        None,
        1,
        [],
        {},
        "",
        "x",
        ["x"],
        ["x", "{handle}"],
        ["{x}"],
        {"title": "a"},
        {3: 4},
        "\0",
        [[]],
        ["\ud800"],
    )
    keys = ("kind", "argv", "fields", "cwd", "url", "other", 3)
    for _ in range(3000):
        table: dict[Any, Any] = {rng.choice(keys): rng.choice(values) for _ in range(rng.randint(0, 5))}
        problems = check_command(table)
        assert all(isinstance(one, str) and one for one in problems)
        if not problems:
            filled(read_command(table), VALUES)


def test_checking_loads_nothing_heavy() -> None:
    code = "import sys, sources.command_options; sys.exit(bool({'requests', 'lxml'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
