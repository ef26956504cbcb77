"""Lists for people and for programs, export and import, completions, and errors that nobody thought of."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

import cli
from tests.support.fake_daemon import FakeDaemon, target

ROOT = Path(__file__).resolve().parents[2]
RUN = {"id": 4, "state": "TIMEOUT", "started_at": "2030-01-01T00:00:00.000+00:00", "duration_s": 1.5}
RUN |= {"posts_seen": 3, "posts_new": 1, "posts_edited": 0, "error": "late\x1b[2J"}
STEP = {"at": "2030-01-01T00:00:00.000+00:00", "trigger": "start", "from": "IDLE", "to": None, "actor": "api"}
STEP |= {"refused_by": "not_paused", "times": 2, "reason": "a\nb", "run_id": None}
HOST = {"host": "a.example", "next_allowed_at": "2030-01-01T00:00:00.000+00:00", "reason": "429"}
SOURCE = {"name": "feed", "example": "https://e.example/f", "description": "A feed."}
LISTS = {
    "runs 8": ("/api/targets/8/runs", "runs", RUN),
    "journal 8": ("/api/targets/8/journal", "journal", STEP),
    "hosts": ("/api/hosts", "hosts", HOST),
    "sources": ("/api/sources", "sources", SOURCE),
}


@pytest.fixture
def fake() -> Iterator[FakeDaemon]:
    with FakeDaemon() as daemon:
        daemon.set(target(8))
        for path, name, row in LISTS.values():
            daemon.canned["GET", path] = (200, {name: [row], "next_cursor": None})
        yield daemon


def run(fake: FakeDaemon, *args: str) -> int:
    return cli.main([*args, "--url", fake.url])


def at_a_terminal(fake: FakeDaemon, *args: str) -> str:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "gleand", *args, "--url", fake.url]
    environ = os.environ | {"COLUMNS": "150", "TERM": "xterm-256color", "TZ": "UTC"}
    process = subprocess.Popen(command, cwd=ROOT, stdout=theirs, stderr=theirs, env=environ)
    os.close(theirs)
    text = b""
    try:
        while data := os.read(ours, 65536):
            text += data
    except OSError:  # nobody is left
        pass
    os.close(ours)
    assert process.wait(10) == 0
    return text.decode()


@pytest.mark.parametrize(
    ("verb", "line"),
    [
        ("runs 8", "4\tTIMEOUT\t2030-01-01T00:00:00.000+00:00\t1.5\t3\t1\t0\tlate\ufffd[2J"),
        ("journal 8", "2030-01-01T00:00:00.000+00:00\tstart\tIDLE\t\tnot_paused\t2\tapi\ta b\t"),
        ("hosts", "a.example\t2030-01-01T00:00:00.000+00:00\t429"),
        ("sources", "feed\thttps://e.example/f\tA feed."),
    ],
)
def test_a_list_is_lines_with_tabs_for_programs(
    fake: FakeDaemon, capsys: pytest.CaptureFixture[str], verb: str, line: str
) -> None:
    assert run(fake, *verb.split()) == 0
    assert capsys.readouterr().out == line + "\n"


@pytest.mark.parametrize("verb", LISTS)
def test_each_list_can_be_json(fake: FakeDaemon, capsys: pytest.CaptureFixture[str], verb: str) -> None:
    assert run(fake, *verb.split(), "--json") == 0
    assert json.loads(capsys.readouterr().out) == {LISTS[verb][1]: [LISTS[verb][2]]}


def test_a_list_is_a_table_with_local_times_at_a_terminal(fake: FakeDaemon) -> None:
    text = at_a_terminal(fake, "runs", "8")
    assert "started at" in text and "2030-01-01 00:00:00" in text and "\t" not in text
    assert "\x1b[35mTIMEOUT" in text and "\x1b[2J" not in text
    assert "username" not in text


def test_one_target_is_two_columns_at_a_terminal(fake: FakeDaemon) -> None:
    assert re.search(r"^handle +t8 *\r?$", at_a_terminal(fake, "show", "8"), re.MULTILINE)


def test_an_empty_list_says_so_at_a_terminal_only(fake: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    fake.canned["GET", "/api/hosts"] = (200, {"hosts": [], "next_cursor": None})
    assert "nothing to show" in at_a_terminal(fake, "hosts")
    assert run(fake, "hosts") == 0
    assert capsys.readouterr().out == ""


# -- export ----------------------------------------------------------------------------------------------------------

ROWS: list[dict[str, Any]] = [
    {"handle": "https://a.example/f", "source": "feed", "url": "https://a.example/f", "schedule": "every 1h"},
    {"handle": "bob", "source": "git", "url": "", "schedule": "manual", "timeout_s": 9.5, "range": 7},
    {
        "handle": "carl",
        "source": "git",
        "schedule": "manual",
        "paused_until": cli.FOREVER,
        "display_name": "Carl \u00e4",
    },
]


def test_what_export_writes_import_reads(fake: FakeDaemon, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row | {"id": n, "state": "IDLE", "post_count": 3, "error": "x"} for n, row in enumerate(ROWS, 1)]
    fake.canned["GET", "/api/targets"] = (200, {"targets": rows, "next_cursor": None})
    fake.canned["POST", "/api/targets"] = (201, {"id": 3})
    fake.canned["PATCH", "/api/targets/3"] = (200, {})
    path = tmp_path / "targets.json"
    assert run(fake, "export", str(path)) == 0
    assert capsys.readouterr().out == f"wrote 3 targets to {path}\n"
    fake.asked.clear()
    assert run(fake, "import", str(path)) == 0
    told = {"target", "source", "schedule", "timeout_s", "range", "display_name"}
    wanted = [{"target": row["handle"]} | {k: v for k, v in row.items() if k in told} for row in ROWS]
    wanted[2]["start"] = False  # a paused one is not started in between
    assert [body for method, _, body in fake.asked if method == "POST"] == wanted
    assert fake.asked[-1] == ("PATCH", "/api/targets/3", {"paused_until": cli.FOREVER})


def test_export_goes_to_standard_output(fake: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(fake, "export") == 0
    assert [entry["target"] for entry in json.loads(capsys.readouterr().out)["targets"]] == ["t8"]


def test_an_export_that_cannot_be_written_leaves_the_old_one(
    fake: FakeDaemon, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(fake, "export", str(tmp_path / "nowhere" / "x")) == cli.EXIT_REFUSED
    assert "cannot be written: No such file or directory" in capsys.readouterr().err
    (tmp_path / "old").write_text("old")
    fake.canned["GET", "/api/targets"] = (503, {"error": "the daemon is stopping"})
    assert run(fake, "export", str(tmp_path / "old")) == cli.EXIT_REFUSED
    assert (tmp_path / "old").read_text() == "old"


def test_a_pause_that_is_refused_is_told(fake: FakeDaemon, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake.canned["POST", "/api/targets"] = (201, {"id": 3})
    fake.canned["PATCH", "/api/targets/3"] = (422, {"error": "no such time"})
    (tmp_path / "x").write_text('[{"target": "a", "paused_until": "soon"}]')
    assert run(fake, "import", str(tmp_path / "x")) == cli.EXIT_REFUSED
    said = capsys.readouterr()
    assert (said.out, said.err) == ("1 added, 0 tracked already, 0 refused\n", "gleand: entry 1: a: no such time\n")


# -- completions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_its_completion_and_a_line_for_its_file(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completions", shell]) == 0
    assert "_GLEAND_COMPLETE" in capsys.readouterr().out
    assert cli.main(["completions", "--help"]) == 0
    assert f"gleand completions {shell}" in capsys.readouterr().out


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
def test_bash_completes_verbs_and_options(tmp_path: Path) -> None:
    script = tmp_path / "gleand"
    script.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m gleand "$@"\n')
    script.chmod(0o755)
    lines = [
        'eval "$(gleand completions bash)"',
        "complete -p gleand | grep -q _gleand_completion || exit 1",
        "COMP_WORDS=(gleand re); COMP_CWORD=1; _gleand_completion gleand; echo ${COMPREPLY[*]}",
        "COMPREPLY=(); COMP_WORDS=(gleand status --wa); COMP_CWORD=2; _gleand_completion gleand; echo ${COMPREPLY[*]}",
    ]
    environ = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", "\n".join(lines)], env=environ, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["refresh remove reset resume", "--watch"]


# -- errors ----------------------------------------------------------------------------------------------------------


def test_a_program_that_answers_otherwise_is_not_gleand(fake: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    fake.canned["GET", "/api/targets"] = (200, ["hello"])
    fake.canned["GET", "/api/scrape-status"] = (200, {"hello": 1})
    for args in (["list"], ["show", "bob"], ["export"], ["status", "--watch"]):
        assert run(fake, *args) == cli.EXIT_REFUSED
        assert "is it gleand that listens there?" in capsys.readouterr().err


def test_a_mistake_of_our_own_is_a_sentence_too(
    fake: FakeDaemon, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.canned["POST", "/api/targets"] = (201, [])
    assert run(fake, "add", "x") == cli.EXIT_INTERNAL
    err = capsys.readouterr().err
    assert err.startswith("gleand: AttributeError in cli.py line ") and "please report it" in err
    assert "Traceback" not in err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_under_standard_output_is_a_sentence(fake: FakeDaemon) -> None:
    command = [sys.executable, "-m", "gleand", "export", "--url", fake.url]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "gleand: the system refused: No space left on device\n")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["list", "--url", "http://[::1", "--token", "x"], "is no http:// address"),
        (["list", "--url", "http://127.0.0.1:1", "--token", "p\u00e4ss"], "characters that no api_token has"),
        (["completions", "tcsh"], "is not one of"),
        (["nothing"], "No such command"),
        (["import", "/no/such/file"], "No such file or directory"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(capsys: pytest.CaptureFixture[str], args: list[str], said: str) -> None:
    assert cli.main(args) == cli.EXIT_USAGE
    err = capsys.readouterr().err
    assert said in err and err.startswith("gleand: ") and "Traceback" not in err


def test_a_number_that_json_has_not_is_not_taken_for_silence(
    fake: FakeDaemon, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x").write_text('[{"target": "a", "timeout_s": NaN}]')
    assert run(fake, "import", str(tmp_path / "x")) == cli.EXIT_USAGE
    assert "NaN and infinity are no numbers here" in capsys.readouterr().err


def test_a_start_loads_nothing_heavy() -> None:
    heavy = ("requests", "rich", "msgspec", "flask", "sqlalchemy", "xml.etree", "asyncio")
    for args in (["--version"], ["--help"], ["status", "--help"], ["completions", "zsh"]):
        code = f"import cli, sys; cli.main({args!r}); print([m for m in {heavy!r} if m in sys.modules])"
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "[]", args


# -- the document ----------------------------------------------------------------------------------------------------


def sections() -> dict[str, str]:
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^### `(\w+)[^\n]*`\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL))


def test_the_document_describes_each_verb() -> None:
    assert set(sections()) == set(cli.gleand.commands)


@pytest.mark.parametrize("verb", sorted(cli.gleand.commands))
def test_each_verb_has_an_example_that_can_be_typed_and_names_its_options(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shlex

    monkeypatch.chdir(tmp_path)
    Path("feeds.opml").write_text("")
    text, command = sections()[verb], cli.gleand.commands[verb]
    (example,) = re.findall(r"^```sh\n(.*?)\n```$", text, re.MULTILINE | re.DOTALL)
    words = shlex.split(example, comments=True)
    assert words[:2] == ["gleand", verb]
    command.make_context(verb, words[2:]).close()
    common = {"--url", "--token", "--config", "--json", "--help"}
    options = {o for p in command.params if isinstance(p, click.Option) for o in p.opts if o.startswith("--")}
    assert {option for option in options - common if f"`{option}" not in text and option not in words} == set()


# -- a preview -------------------------------------------------------------------------------------------------------

PREVIEW = {
    **{"source": "feed", "handle": "https://a.example/feed", "url": "https://a.example/feed", "outcome": "COMPLETED"},
    **{"error": None, "display_name": "Ann", "moved_to": None, "posts_found": 1, "truncated": False},
    "posts": [
        {"published_at": None, "kind": "post", "title": "one", "post_text": "", "post_url": "https://a.example/1"}
    ],
    "notes": ["1 of 1 have no time"],
}


def test_a_preview_shows_the_posts_and_the_notes(fake: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    fake.canned["POST", "/api/targets/preview"] = (200, PREVIEW)
    assert run(fake, "preview", "https://a.example/feed", "--range", "5") == 0
    shown = capsys.readouterr().out
    assert "(Ann): 1 posts would be kept" in shown and "https://a.example/1" in shown
    assert "note: 1 of 1 have no time" in shown


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_preview_that_failed_says_why(fake: FakeDaemon, capsys: pytest.CaptureFixture[str], more: list[str]) -> None:
    failed = PREVIEW | {"outcome": "FAILED", "error": "the answer is not a feed", "posts": [], "posts_found": 0}
    fake.canned["POST", "/api/targets/preview"] = (200, failed)
    assert run(fake, "preview", "https://a.example/feed", *more) == 1
    told = capsys.readouterr()
    assert "the answer is not a feed" in told.out + told.err
