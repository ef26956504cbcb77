"""Programs that scrape: what is read of what they print, and every way in which they end."""

from __future__ import annotations

import json
import os
import random
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from errors import ScrapeFailed
from model import Post
from sources.output import MAX_BYTES, MAX_LINE_BYTES
from tests.support.programs import alive, python, run
from tests.support.services import JUNK
from tests.support.waiting import wait_until

#: An item in our own words.
ITEM = {
    "id": "1",
    "url": "https://example.org/1",
    "title": "One",
    "text": "line\nline",
    "html": "<p>line</p><p>line</p>",
    "author": "Ann",
    "published_at": "2026-01-02T10:00:00Z",
    "media": ["https://example.org/a.png"],
    "kind": "comment",
}


def printing(*items: object) -> dict[str, Any]:
    lines = "".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in items)
    return python("sys.stdout.write(sys.argv[1])", lines)


# -- what is read ----------------------------------------------------------------------------------------------------


def test_an_item_in_our_own_words_is_taken_as_it_is() -> None:
    assert run(printing(ITEM)).scraped.found == [
        Post(
            native_id="1",
            url="https://example.org/1",
            title="One",
            text="line\nline",
            html="<p>line</p><p>line</p>",
            author="Ann",
            published_at=datetime(2026, 1, 2, 10, tzinfo=UTC),
            kind="comment",
            media=("https://example.org/a.png",),
        )
    ]


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ({"link": "https://e.org/1"}, {"url": "https://e.org/1", "native_id": "https://e.org/1"}),
        ({"id": 7, "name": "N"}, {"native_id": "7", "title": "N"}),
        ({"title": ["One", "Two"]}, {"title": "One"}),
        ({"title": "x", "content": "<p>a</p><p>b</p>"}, {"text": "a\nb", "html": "<p>a</p><p>b</p>"}),
        ({"title": "x", "body": "1 < 2\n\nb"}, {"text": "1 < 2\nb", "html": ""}),
        ({"title": "x", "summary": "s", "description": "d"}, {"text": "d"}),
        ({"title": "x", "html": "<b>h</b>", "summary": "s"}, {"text": "h", "html": "<b>h</b>"}),
        ({"title": "x", "text": "<b>t</b>"}, {"text": "<b>t</b>", "html": ""}),
        ({"title": "x", "text": ["a", "b"]}, {"text": "a\nb"}),
        ({"title": "x", "authors": [{"name": "A"}, "B"]}, {"author": "A, B"}),
        (
            {"title": "x", "date": "Fri, 02 Jan 2026 10:00:00 GMT"},
            {"published_at": datetime(2026, 1, 2, 10, tzinfo=UTC)},
        ),
        ({"title": "x", "timestamp": 1767348000}, {"published_at": datetime(2026, 1, 2, 10, tzinfo=UTC)}),
        ({"title": "x", "date": "soon"}, {"published_at": None}),
        ({"title": "x", "image": "/a.png"}, {"media": ("https://e.org/a.png",)}),
        ({"title": "x", "images": [{"url": "b.png", "path": "full/x"}]}, {"media": ("https://e.org/u/b.png",)}),
        ({"title": "x", "link": "../y"}, {"url": "https://e.org/y"}),
        ({"title": "x", "kind": "nonsense"}, {"kind": "post"}),
        ({"title": None, "link": "", "headline": "H"}, {"title": "H"}),
    ],
)
def test_usual_names_are_known(item: dict[str, Any], expected: dict[str, Any]) -> None:
    (post,) = run(printing(item), url="https://e.org/u/ann").scraped.posts
    assert {name: getattr(post, name) for name in expected} == expected


def test_a_table_of_names_goes_before_the_usual_ones() -> None:
    options = printing({"nr": 5, "title": "no", "t": "yes"}) | {"fields": {"id": "nr", "title": "t"}}
    (post,) = run(options).scraped.posts
    assert (post.native_id, post.title) == ("5", "yes")


def test_an_item_that_is_printed_twice_is_one_post() -> None:
    assert len(run(printing(ITEM, ITEM | {"title": "again"}, ITEM | {"id": "2"})).scraped.posts) == 2


def test_an_item_without_id_and_link_is_known_by_what_it_says() -> None:
    (post,) = run(printing({"title": "x"})).scraped.posts
    assert post.native_id.startswith("sha256:")


def test_posts_come_while_the_program_still_runs(tmp_path: Path) -> None:
    from sources.load import load
    from tests.support.programs import order
    from tests.support.sites import open_http

    go = tmp_path / "go"
    code = "say(id=1)\nwhile not os.path.exists(sys.argv[1]): time.sleep(0.01)\nsay(id=2)"
    one = order(python(code, str(go)))
    with open_http() as http:
        found = load(one)(one.target, http)
        first = next(found)
        go.touch()
        assert [post.native_id for post in (first, *found) if isinstance(post, Post)] == ["1", "2"]


def test_a_line_of_progress_is_progress_and_no_item() -> None:
    found = run(printing({"progress": "page 3\n of 7"}, ITEM, {"progress": 5}))
    assert len(found.scraped.posts) == 1
    assert found.progress == ["page 3 of 7", "5"]


def test_an_item_that_has_a_field_named_progress_is_an_item() -> None:
    assert len(run(printing({"progress": "x", "title": "y"})).scraped.posts) == 1


# -- how it is started -----------------------------------------------------------------------------------------------


def test_arguments_are_filled_in_and_no_shell_reads_them() -> None:
    options = python("say(id=1, text=json.dumps(sys.argv[1:]))", "{handle}", "u={url}", "{range}", "$HOME;`id`", "*")
    (post,) = run(options, handle="a'b c", url="https://e.org/", wanted=9).scraped.posts
    assert json.loads(post.text) == ["a'b c", "u=https://e.org/", "9", "$HOME;`id`", "*"]
    (post,) = run(options).scraped.posts
    assert json.loads(post.text)[1:3] == ["u=", "0"]


def test_the_environment_is_small_and_has_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLEAND_API_TOKEN", "secret")
    monkeypatch.setenv("SCRAPE_WORKER", "gw1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    (post,) = run(python("say(id=1, text=json.dumps(dict(os.environ)))")).scraped.posts
    names = set(json.loads(post.text)) - {"LC_CTYPE"}  # the interpreter's own
    assert names - {"LANG", "HOME"} == {"PATH", "SCRAPE_WORKER", "SCRAPE_PROGRAM"}


def test_it_has_no_input_and_runs_where_it_is_told_to(tmp_path: Path) -> None:
    code = "say(id=1, text=json.dumps([sys.stdin.read(), os.getcwd(), os.getpgrp(), os.getsid(0)]))"
    (post,) = run(python(code) | {"cwd": str(tmp_path)}).scraped.posts
    assert json.loads(post.text) == ["", str(tmp_path), os.getpgrp(), os.getsid(0)]


def test_a_program_beside_the_directory_is_found(tmp_path: Path) -> None:
    script = tmp_path / "scrape"
    script.write_text(f"#!{sys.executable}\nprint('{{\"id\": 1}}')\n", encoding="utf-8")
    script.chmod(0o755)
    options = {"kind": "command", "argv": ["./scrape"], "cwd": str(tmp_path)}
    assert len(run(options).scraped.posts) == 1
    script.chmod(0o644)
    with pytest.raises(ScrapeFailed, match="the program './scrape' may not be run"):
        run(options)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"argv": ["no-such-program-x"]}, "the program 'no-such-program-x' was not found"),
        ({"cwd": "/no/such/place"}, "the directory '/no/such/place', which the program is to run in, is not there"),
        ({"argv": ["x", "a" * 9000 * 1000]}, "the settings of this program should give argv as at most"),
    ],
)
def test_a_program_that_cannot_be_started_is_named(more: dict[str, Any], why: str) -> None:
    with pytest.raises(ScrapeFailed, match=why):
        run(python("pass") | more)


def test_a_handle_that_looks_like_an_option_starts_nothing() -> None:
    with pytest.raises(ScrapeFailed, match="the handle begins with '-'"):
        run(python("say(id=1)", "{handle}"), handle="--help")


# -- how it ends -----------------------------------------------------------------------------------------------------


def test_a_program_that_prints_nothing_found_nothing() -> None:
    assert run(python("pass")).scraped.found == []


def test_a_program_that_found_nothing_and_complained_is_quoted_as_progress() -> None:
    assert run(python("print('no network', file=sys.stderr)")).progress == [
        "the program printed nothing, and said: no network"
    ]


def test_fewer_items_than_there_should_be_fail_the_run_whatever_the_exit_code() -> None:
    with pytest.raises(ScrapeFailed, match="the program found 1 items, and at_least is 2"):
        run(printing(ITEM, {"a": 1}) | {"at_least": 2})
    assert len(run(printing(ITEM) | {"at_least": 1}).scraped.posts) == 1


def test_an_exit_code_fails_the_run_and_the_last_words_are_shown() -> None:
    code = "say(id=1)\nfor n in range(1000): print(f'\\x1b[31mline {n}\\x1b[0m\\r', file=sys.stderr)\nsys.exit(3)"
    with pytest.raises(ScrapeFailed) as caught:
        run(python(code))
    assert caught.value.message == "the program ended with exit code 3: line 997 / line 998 / line 999"


def test_last_words_without_end_are_cut() -> None:
    with pytest.raises(ScrapeFailed) as caught:
        run(python("sys.stderr.write('x' * 10_000_000); sys.exit(1)"))
    assert caught.value.message == "the program ended with exit code 1: ..." + "x" * 300


@pytest.mark.parametrize(("number", "name"), [(9, "SIGKILL"), (15, "SIGTERM"), (11, "SIGSEGV"), (40, "signal 40")])
def test_a_program_that_dies_by_a_signal_fails_the_run(number: int, name: str) -> None:
    with pytest.raises(ScrapeFailed, match=f"the program was ended by {name}"):
        run(python(f"say(id=1); os.kill(os.getpid(), {number})"))


def test_a_python_error_is_shown_with_its_reason() -> None:
    with pytest.raises(ScrapeFailed, match="ended with exit code 1: .*ZeroDivisionError: division by zero"):
        run(python("1 / 0"))


def test_noise_on_stderr_holds_nothing_up_and_is_no_progress() -> None:
    code = "for n in range(50): sys.stderr.write('n' * 100_000 + '\\n'); say(id=n)"
    found = run(python(code))
    assert (len(found.scraped.posts), found.progress) == (50, [])


def test_a_line_that_is_no_json_is_counted_and_loses_no_others() -> None:
    found = run(printing("Starting...", ITEM, "[1]", "3", "", "   ", '{"id": ', ITEM | {"id": "2"}, "null"))
    assert len(found.scraped.posts) == 2
    assert found.progress == ["5 lines were no JSON objects"]


def test_lines_of_which_none_is_json_fail_the_run() -> None:
    with pytest.raises(ScrapeFailed, match="the program printed 2 lines, and none is a JSON object of at most"):
        run(printing("hello", "world"))


def test_objects_of_which_none_is_an_item_fail_the_run() -> None:
    with pytest.raises(ScrapeFailed, match="none of the 2 objects that the program printed has an id, url, title or"):
        run(printing({"a": 1}, {"titel": "x"}))


def test_an_object_that_is_no_item_loses_no_others_and_is_counted() -> None:
    found = run(printing({"a": 1}, ITEM))
    assert (len(found.scraped.posts), found.progress) == (1, ["1 objects had no id, url, title or text"])


def test_binary_garbage_is_no_json_and_no_crash() -> None:
    with pytest.raises(ScrapeFailed, match="none is a JSON object"):
        run(python("sys.stdout.buffer.write(bytes(range(256)) * 5000)"))


def test_a_last_line_without_an_end_is_read() -> None:
    assert len(run(python("sys.stdout.write('{\"id\": 1}')")).scraped.posts) == 1


def test_a_line_that_is_too_long_is_counted_and_loses_no_others() -> None:
    code = f"say(id=1); say(id=2, text='x' * {MAX_LINE_BYTES}); say(id=3); say(id=4, text='y' * {MAX_LINE_BYTES - 100})"
    found = run(python(code))
    assert [post.native_id for post in found.scraped.posts] == ["1", "3", "4"]
    assert found.progress == ["1 lines were no JSON objects"]


def test_a_line_without_end_ends_the_run() -> None:
    with pytest.raises(ScrapeFailed, match=f"the program printed more than {MAX_BYTES} bytes"):
        run(python("while True: os.write(1, b'x' * 65536)"))


def test_items_without_end_are_taken_up_to_the_limit_and_the_program_is_ended() -> None:
    marker = f"items-without-end-{os.getpid()}"
    code = "n = 0\nwhile True:\n n += 1; say(id=n)"
    found = run(python(code, marker), limits={"max_posts": 20})
    assert len(found.scraped.posts) == 21  # one more, so that the run is marked as truncated
    assert alive(marker) == []


def test_a_program_that_does_not_want_to_end_is_killed_when_it_is_not_wanted_any_more() -> None:
    marker = f"ignores-sigterm-{os.getpid()}"
    code = "import signal; signal.signal(15, 1)\nn = 0\nwhile True:\n n += 1; say(id=n)"
    run(python(code, marker), limits={"max_posts": 5})
    assert alive(marker) == []


@pytest.mark.parametrize("session", [False, True])
def test_what_a_program_leaves_behind_is_killed(session: bool) -> None:
    marker = f"left-behind-{session}-{os.getpid()}"
    child = f"[sys.executable, '-c', 'import time; time.sleep(1000)', {marker!r}]"
    found = run(python(f"say(id=1); subprocess.Popen({child}, start_new_session={session})"))
    assert len(found.scraped.posts) == 1
    wait_until(lambda: alive(marker) == [])


def test_the_run_ends_with_the_program_though_a_child_holds_its_output_open() -> None:
    marker = f"holds-open-{os.getpid()}"
    child = f"[sys.executable, '-c', 'import time; print(1); time.sleep(1000)', {marker!r}]"
    assert run(python(f"say(id=1); subprocess.Popen({child})")).scraped.posts
    wait_until(lambda: alive(marker) == [])


def test_a_scrape_that_is_given_up_ends_its_program() -> None:
    from sources.load import load
    from tests.support.programs import order
    from tests.support.sites import open_http

    marker = f"given-up-{os.getpid()}"
    one = order(python("say(id=1); time.sleep(1000)", marker))
    with open_http() as http:
        found: Any = load(one)(one.target, http)
        assert next(found).native_id == "1"
        assert alive(marker)
        found.close()
    assert alive(marker) == []


def test_no_descriptor_is_left_open() -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = count()
    for _ in range(5):
        run(printing(ITEM))
        with pytest.raises(ScrapeFailed):
            run(python("sys.exit(1)"))
    assert count() == before


def test_whatever_a_program_prints_it_is_read_or_fails_in_our_own_words(tmp_path: Path) -> None:
    rng = random.Random(4)
    lines = []
    for _ in range(2000):
        one = {key: rng.choice((value, rng.choice(JUNK))) for key, value in ITEM.items()}
        lines.append(json.dumps(rng.choice((one, one, rng.choice(JUNK)))))
    (tmp_path / "lines").write_text("\n".join(lines), encoding="utf-8")
    found = run(python("print(open(sys.argv[1]).read())", str(tmp_path / "lines"))).scraped.posts
    assert len(found) > 50
    for post in found:
        assert post.native_id and (post.published_at is None or post.published_at.tzinfo is UTC)
        assert all(address.startswith("http") for address in post.media)
