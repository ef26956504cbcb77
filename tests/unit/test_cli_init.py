"""`gleand init`: the settings file that it writes, and the units for systemd."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

import cli
from config import KINDS, Settings, load
from docs.generate import comments
from terminal import install

ROOT = Path(__file__).resolve().parents[2]


def test_the_file_has_every_setting_and_nothing_active() -> None:
    text = install.settings_text()
    assert tomllib.loads(text) == {}
    assert [line[1:].split(" = ")[0] for line in text.splitlines() if settings_line(line)] == list(KINDS)


def settings_line(line: str) -> bool:
    return line.startswith("#") and not line.startswith("# ") and line != "#"


def test_what_is_shown_are_the_defaults(tmp_path: Path) -> None:
    lines = [line[1:] for line in install.settings_text().splitlines() if settings_line(line)]
    path = tmp_path / "gleand.toml"
    path.write_text("\n".join(line for line in lines if not line.endswith(' = ""') or line.startswith("contact")))
    assert replace(load(path, environ={}), scraper_path=None) == Settings()  # that one has no default


@pytest.mark.parametrize("name", ["api_token", "database_url", "handle_url", "scraper_path"])
def test_a_setting_without_a_default_is_refused_until_it_is_filled_in(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "gleand.toml"
    path.write_text(install.settings_text().replace(f"\n#{name} = ", f"\n{name} = "))
    assert cli.main(["check", "--config", str(path)]) == cli.EXIT_CONFIG
    assert "should not be empty" in capsys.readouterr().err


def test_each_setting_is_explained_with_its_comment() -> None:
    paragraphs = install.settings_text().split("\n\n")[1:]
    said = {p.splitlines()[-1][1:].split(" = ")[0]: p.splitlines()[:-1] for p in paragraphs}
    assert {name: " ".join(line[2:] for line in lines) for name, lines in said.items()} == {
        name: text for name, text in comments().items() if name in KINDS
    }


def test_init_writes_it_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new" / "gleand.toml"
    assert cli.main(["init", "--dir", str(path.parent)]) == cli.EXIT_OK
    assert capsys.readouterr().out == (
        f"wrote {path}\nnext:\n  gleand check --config {path}\n  gleand serve --config {path}\n"
    )
    path.write_text("workers = 3\n")
    assert cli.main(["init", "--dir", str(path.parent)]) == cli.EXIT_REFUSED
    assert f"gleand: {path} is there already\n  hint: " in capsys.readouterr().err
    assert path.read_text() == "workers = 3\n"
    assert cli.main(["init", "--dir", str(path.parent), "--force", "--json"]) == cli.EXIT_OK
    assert json.loads(capsys.readouterr().out)["written"] == [str(path)]
    assert path.read_text() == install.settings_text()
    assert [p.name for p in path.parent.iterdir()] == ["gleand.toml"]


def test_a_directory_that_cannot_be_written_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert cli.main(["init", "--dir", str(tmp_path / "file")]) == cli.EXIT_REFUSED
    err = capsys.readouterr().err
    assert err.startswith("gleand: ") and "Traceback" not in err


# -- units -----------------------------------------------------------------------------------------------------------


def unit(text: str) -> dict[str, str]:
    lines = [line for line in text.splitlines() if line and line[0] not in "#["]
    return dict(line.split("=", 1) for line in lines)


def test_the_unit_starts_this_very_gleand(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["init", "--systemd", "--print", "--dir", str(tmp_path)]) == cli.EXIT_OK
    text = capsys.readouterr().out
    assert text.startswith("# /etc/systemd/system/gleand.service\n")
    found = unit(text)
    words = shlex.split(found["ExecStart"])
    assert words[-3:] == ["serve", "--config", str(tmp_path / "gleand.toml")]
    done = subprocess.run([*words[:-3], "--version"], cwd=found.get("WorkingDirectory", "/"), capture_output=True)
    assert (done.returncode, done.stdout[:7]) == (0, b"gleand ")


def test_the_unit_is_the_one_in_deploy_but_for_that_line() -> None:
    start = install.Launcher(words=("/opt/gleand/bin/gleand",), directory=None)
    assert install.service_unit(start, Path("/etc/gleand.toml")) == (ROOT / "deploy/gleand.service").read_text()


def test_words_that_systemd_would_read_otherwise_are_quoted() -> None:
    start = install.Launcher(words=("/opt/a b/50%/gleand", "$x"), directory=Path("/opt/50%"))
    found = unit(install.service_unit(start, Path("/etc/gleand.toml")))
    assert found["ExecStart"] == '"/opt/a b/50%%/gleand" $$x serve --config /etc/gleand.toml'
    assert found["WorkingDirectory"] == "/opt/50%%"


def test_the_socket_listens_where_the_settings_say(tmp_path: Path) -> None:
    path = tmp_path / "gleand.toml"
    assert unit(install.socket_unit(path))["ListenStream"] == "127.0.0.1:5000"
    path.write_text('host = "::1"\nport = 81\n')
    assert unit(install.socket_unit(path))["ListenStream"] == "[::1]:81"


@pytest.mark.parametrize(
    ("text", "said"), [("port = 0", "leave the port open"), ('host = "me.example"\napi_token = "t"', "is a name")]
)
def test_a_socket_that_systemd_cannot_open_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    (tmp_path / "gleand.toml").write_text(text)
    args = ["init", "--systemd", "--socket", "--dir", str(tmp_path), "--into", str(tmp_path)]
    assert cli.main(args) == cli.EXIT_USAGE
    assert said in capsys.readouterr().err
    assert not list(tmp_path.glob("*.socket")) + list(tmp_path.glob("*.service"))


def test_units_are_installed_with_the_settings_they_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    etc, units = tmp_path / "etc", tmp_path / "units"
    etc.mkdir(), units.mkdir()
    args = ["init", "--systemd", "--socket", "--dir", str(etc), "--into", str(units)]
    old = os.umask(0o077)
    try:
        assert cli.main(args) == cli.EXIT_OK
    finally:
        os.umask(old)
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "next:",
        "  systemctl daemon-reload",
        "  systemctl enable --now gleand.socket gleand.service",
    ]
    written = [etc / "gleand.toml", units / "gleand.service", units / "gleand.socket"]
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in written)  # the service's user has to read them
    assert '#data_dir = "/var/lib/gleand"\n' in written[0].read_text()

    written[0].write_text("port = 5001\n")
    assert cli.main(args) == cli.EXIT_REFUSED
    assert f"{written[2]} is there already, and differs" in capsys.readouterr().err
    assert cli.main([*args, "--force"]) == cli.EXIT_OK
    assert (written[0].read_text(), "5001" in written[2].read_text()) == ("port = 5001\n", True)
    assert cli.main(args) == cli.EXIT_OK  # the same again is no conflict


def test_without_systemd_without_root_and_out_of_reach_it_is_refused(tmp_path: Path) -> None:
    said = {
        "systemd does not run this machine": install.obstacle(euid=0, booted=False, places=[]),
        "only root may write to /etc/systemd/system": install.obstacle(euid=1000, booted=True, places=[]),
    }
    for text, failed in said.items():
        assert (str(failed), bool(failed and failed.hint)) == (text, True)
    assert install.obstacle(euid=0, booted=True, places=[Path("/usr/bin")]) is None
    out_of_reach = install.obstacle(euid=0, booted=True, places=[Path("/home") / "me" / "gleand"])
    assert "it sees nothing of /home" in str(out_of_reach)


def test_a_directory_that_is_closed_to_others_is_out_of_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "HIDDEN", ())
    (tmp_path / "closed").mkdir(mode=0o700)
    assert "is closed to other users" in str(install.unreachable(tmp_path / "closed" / "gleand")) or (
        "No such file" in str(install.unreachable(tmp_path / "closed" / "gleand"))
    )
    assert "is closed to other users" in str(install.unreachable(tmp_path / "closed"))


@pytest.mark.skipif(install.BOOTED.is_dir() and os.geteuid() == 0, reason="it would install the service")
def test_a_refusal_to_install_is_a_sentence_with_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["init", "--systemd"]) == cli.EXIT_REFUSED
    assert capsys.readouterr().err.splitlines()[1].startswith("  hint: ")


def test_options_of_units_go_with_systemd(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["init", "--print"]) == cli.EXIT_USAGE
    assert "go with --systemd" in capsys.readouterr().err


def test_there_is_a_way_to_start_without_a_script() -> None:
    assert install.launcher().words[0].startswith("/")
    found = install.launcher()
    if found.words[0] == sys.executable:
        assert (found.words[1:], found.directory) == (("-m", "gleand"), ROOT)
