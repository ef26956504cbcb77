"""The command line against a fake daemon: what it asks, what it prints, how it exits."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import click
import pytest

import cli
from gleand import __version__

ROOT = Path(__file__).resolve().parents[2]
ALICE = {
    "id": 7,
    "source": "feed",
    "handle": "https://a.example/feed",
    "url": "https://a.example/feed",
    "state": "IDLE",
}
BOB = {"id": 8, "source": "git", "handle": "bob", "url": "https://git.example/bob", "state": "FAILED", "post_count": 3}
BOB2 = {"id": 9, "source": "feed", "handle": "carl", "url": "", "state": "IDLE"}
CARL = {"id": 10, "source": "git", "handle": "carl", "url": "", "state": "IDLE", "error": "bad\x1b[31m\u202eword\n"}
ROWS = [ALICE, BOB, BOB2, CARL]


class Fake:
    """Canned answers by method and path; a list of targets that can be searched and paged."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Any]] = []
        self.headers: dict[str, str] = {}
        self.answers: dict[tuple[str, str], tuple[int, Any]] = {}
        self.url = ""

    def answer(self, method: str, target: str, body: Any) -> tuple[int, Any]:
        parts = urlsplit(target)
        query = {k: v[0] for k, v in parse_qs(parts.query).items()}
        self.asked.append((method, parts.path, body if method != "GET" else query))
        if (method, parts.path) in self.answers:
            return self.answers[method, parts.path]
        if (method, parts.path) == ("GET", "/api/targets"):
            rows = [r for r in ROWS if query.get("q", "") in str(r["handle"])]
            rows = [r for r in rows if query.get("source", r["source"]) == r["source"]]
            rows = [r for r in rows if int(str(r["id"])) > int(query.get("cursor", 0))]
            page = rows[: min(2, int(query["limit"]))]
            return 200, {"targets": page, "next_cursor": str(page[-1]["id"]) if len(rows) > len(page) else None}
        found = re.fullmatch(r"/api/targets/(\d+)", parts.path)
        rows = [r for r in ROWS if found and r["id"] == int(found[1])]
        return (200, rows[0]) if rows and method == "GET" else (404, {"error": "there is no such thing", "code": "x"})


@pytest.fixture
def fake() -> Iterator[Fake]:
    state = Fake()

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            state.headers = dict(self.headers)
            status, view = state.answer(self.command, self.path, json.loads(body) if body else None)
            data = view if isinstance(view, bytes) else json.dumps(view).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PATCH = do_DELETE = _serve

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        state.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GLEAND_URL", "GLEAND_API_TOKEN", "GLEAND_CONFIG"):
        monkeypatch.delenv(name, raising=False)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(fake: Fake, *args: str) -> int:
    return cli.main([*args, "--url", fake.url])


def test_the_version() -> None:
    done = subprocess.run([sys.executable, "-m", "gleand", "--version"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"gleand {__version__}\n")


def test_importing_the_command_line_loads_nothing_heavy() -> None:
    code = "import cli, sys; print([m for m in ('requests', 'rich', 'msgspec', 'flask') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_daemon_that_is_not_there_is_told_from_one_that_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    assert cli.main(["list", "--url", url]) == cli.EXIT_UNREACHABLE
    err = capsys.readouterr().err
    assert err.startswith(f"gleand: no daemon answers at {url}\n  hint: start it with 'gleand serve'")


def test_a_url_that_is_none_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", "--url", "gopher"]) == cli.EXIT_USAGE
    assert "gopher is no http:// address" in capsys.readouterr().err


def test_an_answer_that_is_not_json_is_not_gleand_s(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    fake.answers["GET", "/api/scrape-status"] = (404, b"<html>")
    assert run(fake, "status") == cli.EXIT_REFUSED
    assert "is it gleand that listens there?" in capsys.readouterr().err


def test_a_wrong_option_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", "--nope"]) == cli.EXIT_USAGE
    assert "gleand: No such option" in capsys.readouterr().err


def test_ctrl_c_exits_with_130(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.Remote, "call", interrupted)
    assert run(fake, "status") == cli.EXIT_STOPPED


def test_a_reader_that_goes_away_is_no_error(fake: Fake) -> None:
    command = [sys.executable, "-m", "gleand", "list", "--url", fake.url]
    done = subprocess.run(
        ["bash", "-c", '"$@" | true; echo ${PIPESTATUS[0]}', "x", *command], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_the_list_follows_the_cursors(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(fake, "list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "8\tFAILED\tgit\tbob\t3\t\t"
    assert len(lines) == 4


def test_the_list_stops_at_its_limit(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(fake, "list", "--limit", "3") == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_what_strangers_wrote_cannot_command_the_terminal(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(fake, "list") == 0
    out = capsys.readouterr().out
    assert "bad\ufffd[31m\ufffdword " in out
    assert "\x1b" not in out
    assert run(fake, "list", "--json") == 0
    assert "\x1b" not in capsys.readouterr().out


def test_json_is_the_daemon_s(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(fake, "show", "8", "--json") == 0
    assert json.loads(capsys.readouterr().out) == BOB


@pytest.mark.parametrize(
    ("name", "target_id"),
    [
        ("8", 8),
        ("bob", 8),
        ("git:bob", 8),
        ("https://git.example/bob", 8),
        ("https://a.example/feed/", 7),
        ("feed:https://a.example/feed", 7),
        ("git:carl", 10),
    ],
)
def test_a_target_is_named_by_id_handle_source_or_url(
    fake: Fake, capsys: pytest.CaptureFixture[str], name: str, target_id: int
) -> None:
    assert run(fake, "show", name, "--json") == 0
    assert json.loads(capsys.readouterr().out)["id"] == target_id


@pytest.mark.parametrize("name", ["bo", "99", "git:alice", "https://nowhere.example/x", "?://", "://"])
def test_a_target_that_is_not_tracked_is_not_found(fake: Fake, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert run(fake, "show", name) == cli.EXIT_NOT_FOUND
    assert f"gleand: no target {name} is tracked" in capsys.readouterr().err


def test_a_handle_two_sources_have_is_not_guessed(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(fake, "remove", "carl") == cli.EXIT_USAGE
    assert "carl may be feed:carl, git:carl" in capsys.readouterr().err
    assert all(method == "GET" for method, _, _ in fake.asked)


def test_add_sends_only_what_was_given(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    fake.answers["POST", "/api/targets"] = (201, BOB)
    assert run(fake, "add", "git:bob", "--schedule", "every 1h", "--no-start") == 0
    body = {"target": "git:bob", "start": False, "schedule": "every 1h"}
    assert fake.asked == [("POST", "/api/targets", body)]
    assert capsys.readouterr().out == "added git:bob as target 8\n"


def test_a_refusal_is_told_with_its_hint(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    fake.answers["POST", "/api/targets"] = (422, {"error": "no such source", "hint": "one of feed"})
    assert run(fake, "add", "x:y") == cli.EXIT_REFUSED
    assert capsys.readouterr().err == "gleand: no such source\n  hint: one of feed\n"


def test_the_token_is_sent_and_its_lack_is_explained(
    fake: Fake, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.answers["GET", "/api/scrape-status"] = (401, {"error": "a token is needed"})
    monkeypatch.setenv("GLEAND_API_TOKEN", "geheim")
    assert run(fake, "status") == cli.EXIT_REFUSED
    assert fake.headers["Authorization"] == "Bearer geheim"
    assert "hint: give the api_token with --token" in capsys.readouterr().err


def test_the_settings_say_where_the_daemon_is(fake: Fake, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "gleand.toml"
    path.write_text(f'host = "0.0.0.0"\nport = {fake.url.rpartition(":")[2]}\napi_token = "t0ken"\n')
    assert cli.main(["show", "bob", "--config", str(path)]) == 0
    assert fake.headers["Authorization"] == "Bearer t0ken"
    assert "handle: bob\n" in capsys.readouterr().out


def test_settings_that_leave_the_port_open_need_a_url(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "gleand.toml"
    path.write_text("port = 0")
    assert cli.main(["list", "--config", str(path)]) == cli.EXIT_USAGE
    assert "the settings leave the port open" in capsys.readouterr().err


def test_gleand_url_is_where_the_daemon_is(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLEAND_URL", fake.url)
    assert cli.main(["list"]) == 0


def test_status_of_all_and_of_one(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    fake.answers["GET", "/api/scrape-status"] = (200, {"running": True, "state": "RUNNING", "counts": {"IDLE": 1}})
    fake.answers["GET", "/api/targets/8/status"] = (200, {"state": "FAILED", "error": "gone"})
    assert run(fake, "status") == 0
    assert run(fake, "status", "bob") == 0
    assert capsys.readouterr().out == 'state: RUNNING\ncounts: {"IDLE": 1}\nstate: FAILED\nerror: gone\n'


def test_refresh_of_all_and_of_one(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    fake.answers["POST", "/api/users/refresh-all"] = (200, {"total_users": 3})
    fake.answers["POST", "/api/targets/8/transitions"] = (200, {"state": "IDLE", "phase": "queued"})
    assert run(fake, "refresh") == 0
    assert run(fake, "refresh", "8") == 0
    assert fake.asked[-1] == ("POST", "/api/targets/8/transitions", {"trigger": "start"})
    assert capsys.readouterr().out == "asked for 3 targets\nbob: queued\n"


def test_reset_of_all_and_of_one(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    fake.answers["POST", "/api/scrape-status/reset"] = (200, {"message": "Reset"})
    fake.answers["POST", "/api/targets/8/transitions"] = (200, {"state": "IDLE"})
    assert run(fake, "reset") == 0
    assert run(fake, "reset", "8", "--force", "--reason", "stuck") == 0
    assert fake.asked[-1][2] == {"trigger": "reset", "force": True, "reason": "stuck"}
    assert capsys.readouterr().out == "Reset\nbob: IDLE\n"


def test_force_needs_a_reason(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(fake, "reset", "--force") == cli.EXIT_USAGE
    assert "--force needs a --reason" in capsys.readouterr().err
    assert fake.asked == []


def test_pause_and_resume(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    fake.answers["PATCH", "/api/targets/8"] = (200, BOB)
    assert run(fake, "pause", "bob") == 0
    assert fake.asked[-1][2] == {"paused_until": cli.FOREVER}
    assert run(fake, "resume", "bob") == 0
    assert fake.asked[-1][2] == {"paused_until": None}
    assert capsys.readouterr().out == "paused bob until it is resumed\nresumed bob\n"


def test_a_pause_ends_after_a_duration_or_at_a_time() -> None:
    now = datetime(2030, 1, 1, 12, tzinfo=UTC)
    assert cli.pause_end(None, "2h", now) == "2030-01-01T14:00:00+00:00"
    assert cli.pause_end("2030-01-02T00:00+02:00", None, now) == "2030-01-01T22:00:00+00:00"


@pytest.mark.parametrize(
    ("until", "for_", "said"),
    [
        ("2031-01-01", "2h", "not both"),
        (None, "soon", "such as 2h"),
        ("tomorrow", None, "takes a time"),
        ("2029-01-01", None, "in the past"),
    ],
)
def test_a_pause_that_makes_no_sense_is_refused(until: str | None, for_: str | None, said: str) -> None:
    with pytest.raises(click.UsageError, match=said):
        cli.pause_end(until, for_, datetime(2030, 1, 1, tzinfo=UTC))


def test_remove(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    fake.answers["DELETE", "/api/targets/8"] = (200, {"message": "Removed bob"})
    assert run(fake, "remove", "bob") == 0
    assert capsys.readouterr().out == "removed git:bob\n"


def test_posts(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    post = {"published_at": "2030-01-01", "source_username": "bob", "post_text": "one\ntwo", "post_url": "https://p"}
    fake.answers["GET", "/api/posts"] = (200, {"posts": [post], "next_cursor": None})
    assert run(fake, "posts", "bob", "--limit", "5") == 0
    assert fake.asked[-1][2] == {"target": "8", "limit": "5"}
    assert capsys.readouterr().out == "2030-01-01\tbob\tone two\thttps://p\n"


def test_the_diagram_is_drawn_without_a_daemon_too(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    fake.answers["GET", "/api/lifecycle.mmd"] = (200, b"stateDiagram-v2\n    A --> B: c\n")
    assert run(fake, "diagram") == 0
    assert capsys.readouterr().out == "stateDiagram-v2\n    A --> B: c\n"
    assert cli.main(["diagram", "--url", f"http://127.0.0.1:{free_port()}"]) == 0
    assert "IDLE --> RUNNING: start" in capsys.readouterr().out


def import_file(fake: Fake, path: Path, text: str, *args: str) -> int:
    path.write_text(text, encoding="utf-8")
    return run(fake, "import", str(path), *args)


def imported(text: str) -> list[tuple[str, dict[str, Any]]]:
    return list(cli.read_targets(text))


def test_import_goes_on_after_a_refusal_and_says_so(
    fake: Fake, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = {"a": (201, {}), "b": (409, {"error": "tracked"}), "c": (422, {"error": "no", "hint": "h"}), "d": (201, {})}
    monkeypatch.setattr(fake, "answer", lambda _method, _path, body: codes[body["target"]])
    assert import_file(fake, tmp_path / "list", "a\nb\n\nc # why\nd\n") == cli.EXIT_REFUSED
    said = capsys.readouterr()
    assert said.out == "2 added, 1 tracked already, 1 refused\n"
    assert said.err == "gleand: line 4: c: no\n  hint: h\n"


def test_import_stops_at_once_without_a_token(fake: Fake, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake.answers["POST", "/api/targets"] = (401, {"error": "a token is needed"})
    assert import_file(fake, tmp_path / "list", "a\nb\n") == cli.EXIT_REFUSED
    assert len(fake.asked) == 1


def test_import_reads_standard_input(fake: Fake) -> None:
    fake.answers["POST", "/api/targets"] = (201, {})
    command = [sys.executable, "-m", "gleand", "import", "-", "--url", fake.url, "--no-start", "--json"]
    text = "\ufeffhttps://\u00e4.example\n"
    done = subprocess.run(command, cwd=ROOT, input=text.encode(), capture_output=True)
    assert (done.returncode, json.loads(done.stdout)["added"]) == (0, 1)
    assert fake.asked == [("POST", "/api/targets", {"target": "https://\u00e4.example", "start": False})]


def test_lines_may_have_comments_but_a_fragment_is_none() -> None:
    assert imported("# all\nhttps://x/#top # mine\n") == [("line 2", {"target": "https://x/#top"})]


def test_opml_is_read_at_any_depth() -> None:
    text = '<?xml version="1.0" encoding="UTF-8"?><opml><body><outline text="a"><outline xmlUrl="https://x/f"/></outline></body></opml>'
    assert imported(text) == [("outline 2", {"target": "https://x/f"})]


def test_json_is_read_as_a_list_and_as_our_own() -> None:
    assert imported('["a"]') == [("entry 1", {"target": "a"})]
    own = json.dumps({"targets": [BOB | {"schedule": "manual", "timeout_s": None}]})
    assert imported(own) == [("entry 1", {"target": "bob", "source": "git", "schedule": "manual"})]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('<!DOCTYPE x [<!ENTITY a "b">]><opml/>', "DOCTYPE"),
        ("<opml>", "OPML cannot be read"),
        ("[1", "JSON cannot be read"),
        ('{"x": 1}', "neither a list"),
    ],
)
def test_a_file_that_cannot_be_read_is_a_usage_error(
    fake: Fake, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    assert import_file(fake, tmp_path / "list", text) == cli.EXIT_USAGE
    assert said in capsys.readouterr().err


def test_a_file_that_is_not_utf_8_is_a_usage_error(
    fake: Fake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "list").write_bytes(b"\xff\xff")
    assert run(fake, "import", str(tmp_path / "list")) == cli.EXIT_USAGE
    assert "is not UTF-8" in capsys.readouterr().err


def test_check_shows_settings_and_where_they_come_from(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "--port", "6000", "--set", "contact=me@example.org"]) == 0
    out = capsys.readouterr().out
    assert "\tport\t6000\tflag\n" in out
    assert "\tworkers\t8\tdefault\n" in out


def test_check_marks_what_is_wrong(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def scrape(): ...\n")
    path = tmp_path / "gleand.toml"
    path.write_text('default_schedule = "0 0 30 2 *"\n[scrapers]\ngood = "mine:scrape"\nbad = "mine:other"\n')
    assert cli.main(["check", "--json", "--config", str(path)]) == cli.EXIT_CONFIG
    view = json.loads(capsys.readouterr().out)
    assert not view["ok"]
    assert [p["setting"] for p in view["problems"]] == ["default_schedule", "scrapers"]
    assert "never fires" in view["problems"][0]["problem"]
    assert "bad = mine:other cannot be imported" in view["problems"][1]["problem"]
    assert cli.main(["check", "--config", str(path)]) == cli.EXIT_CONFIG
    assert "!\tdefault_schedule\t" in capsys.readouterr().out


def test_check_tells_every_problem(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "--port", "x", "--set", "wrokers=2"]) == cli.EXIT_CONFIG
    err = capsys.readouterr().err
    assert "gleand: 'wrokers' (flag) is no setting; did you mean workers?\n" in err
    assert "gleand: port (flag) should be a whole number, at least 0, at most 65535, got 'x'\n" in err


@pytest.mark.parametrize("wrong", ["port=x", "default_schedule=sometimes"])
def test_serve_does_not_start_with_settings_that_cannot_work(capsys: pytest.CaptureFixture[str], wrong: str) -> None:
    assert cli.main(["serve", "--set", wrong]) == cli.EXIT_CONFIG
    assert capsys.readouterr().err.startswith(f"gleand: {wrong.split('=')[0]}")


def test_set_takes_pairs(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", "--set", "port"]) == cli.EXIT_USAGE
    assert "write it as name=value" in capsys.readouterr().err
