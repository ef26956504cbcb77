"""`gleand preview` against a fake daemon: what it asks, what it prints of strangers' words, how it exits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import cli
from tests.support.fake_daemon import FakeDaemon
from tests.support.fake_service import FakeService

ROOT = Path(__file__).resolve().parents[2]
CALL = ("POST", "/api/targets/preview")
PREVIEW = FakeService().preview()
FAILED = {"outcome": "FAILED", "error": "no\x1b[2J luck", "posts": [], "notes": ["a\x1b[2J"], "next": "add\x1b[2J it"}


@pytest.fixture
def fake() -> Iterator[FakeDaemon]:
    with FakeDaemon() as daemon:
        daemon.canned[CALL] = (200, PREVIEW)
        yield daemon


def run(fake: FakeDaemon, *args: str) -> int:
    return cli.main(["preview", *args, "--url", fake.url])


@pytest.mark.parametrize(
    ("args", "body"),
    [
        (["a"], {"target": "a"}),
        (["a", "--source", "git", "--range", "5"], {"target": "a", "source": "git", "range": 5}),
    ],
)
def test_what_is_asked(fake: FakeDaemon, args: list[str], body: dict[str, Any]) -> None:
    assert run(fake, *args) == 0
    assert fake.asked == [(*CALL, body)]


def test_what_to_type_next_is_the_last_line(fake: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(fake, "a") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "to track it: gleand add a"


def test_json_is_the_answer_as_it_came(fake: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(fake, "a", "--json") == 0
    out, err = capsys.readouterr()
    assert (json.loads(out), err) == (PREVIEW, "")


@pytest.mark.parametrize("more", [FAILED, {"display_name": "A\x1b[2J"}, {"handle": "\x1b[2J"}, {"notes": ["\x1b[2J"]}])
def test_what_strangers_wrote_obeys_nobody_at_a_terminal(
    fake: FakeDaemon, capsys: pytest.CaptureFixture[str], more: dict[str, Any]
) -> None:
    fake.canned[CALL] = (200, PREVIEW | more)
    assert run(fake, "a") == (cli.EXIT_REFUSED if more is FAILED else 0)
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err and "\ufffd[2J" in out + err


def test_a_scrape_that_failed_has_its_notes_too(fake: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    fake.canned[CALL] = (200, PREVIEW | FAILED | {"notes": ["the site asks to be left alone for 60 s"]})
    assert run(fake, "a") == cli.EXIT_REFUSED
    assert "left alone for 60 s" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("status", "view", "said"),
    [
        (422, {"error": "there is no source 'x'", "hint": "The known sources are: feed."}, "The known sources are"),
        (429, {"error": "2 other previews are under way", "hint": "ask again"}, "hint: ask again"),
        (503, {"error": "every worker is busy", "hint": "ask again"}, "every worker is busy"),
        (409, {"error": "a.example:80 is busy with other runs"}, "is busy with other runs"),
        (200, {"status": "ok"}, "is it gleand that listens there?"),
        (200, [], "is it gleand that listens there?"),
    ],
)
def test_a_refusal_is_a_sentence(
    fake: FakeDaemon, capsys: pytest.CaptureFixture[str], status: int, view: Any, said: str
) -> None:
    fake.canned[CALL] = (status, view)
    assert run(fake, "a") == cli.EXIT_REFUSED
    out, err = capsys.readouterr()
    assert (out, said in err) == ("", True)


@pytest.mark.parametrize("args", [[], ["a", "--range", "0"], ["a", "--nope"]])
def test_wrong_usage(fake: FakeDaemon, args: list[str]) -> None:
    assert run(fake, *args) == cli.EXIT_USAGE
    assert fake.asked == []


def test_a_shell_completes_it() -> None:
    environ = os.environ | {"_GLEAND_COMPLETE": "bash_complete", "COMP_WORDS": "gleand pre", "COMP_CWORD": "1"}
    command = [sys.executable, "-m", "gleand"]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["plain,preview"]
