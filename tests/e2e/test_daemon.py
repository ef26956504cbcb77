"""The process itself: how it starts and stops, what it refuses to start on, what it leaves in the file system."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.support.daemon import ROOT, Daemon, descendants, free_port, is_alive, send
from tests.support.settings import scrapers
from tests.support.waiting import wait_until

OK, HARD, BUSY, CONFIG = 0, 70, 75, 78


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One that runs all the time, for what only looks at it."""
    home = tmp_path_factory.mktemp("daemon") / "data"
    env = {"GLEAND_API_TOKEN": "s3cret", "GLEAND_CONTACT": "ops@example.org"}
    with Daemon(home, workers=2, env=env, **scrapers()) as daemon:
        daemon.session.headers["Authorization"] = "Bearer s3cret"
        yield daemon


def run(*args: str, within_s: float = 20, **how: object) -> subprocess.CompletedProcess[str]:
    """`daemon.py` until it ends by itself."""
    command = [sys.executable, str(ROOT / "daemon.py"), "--port", str(free_port()), *args]
    environ = {k: v for k, v in os.environ.items() if not k.startswith("GLEAND_")}
    return subprocess.run(command, capture_output=True, text=True, timeout=within_s, env=environ, **how)  # type: ignore[call-overload, no-any-return]


def says(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """It ended with this code and one sentence that holds these words; no traceback."""
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert last.startswith("gleand: ")
    for word in words:
        assert word in last


# -- one daemon for one database -------------------------------------------------------------------------------------


def test_a_second_daemon_on_the_same_directory_says_who_holds_it(daemon: Daemon) -> None:
    says(run("--data-dir", str(daemon.home)), BUSY, str(daemon.pid), str(daemon.home / "gleand.db"))


def test_a_second_daemon_through_a_symlinked_directory_says_who_holds_it(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(daemon.home)
    says(run("--data-dir", str(tmp_path / "link")), BUSY, str(daemon.pid))


def test_a_second_daemon_whose_database_is_a_link_to_the_file_says_who_holds_it(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "gleand.db").symlink_to(daemon.home / "gleand.db")
    says(run("--data-dir", str(tmp_path)), BUSY, str(daemon.pid))


def test_a_second_daemon_with_a_directory_of_its_own_and_the_same_url_says_who_holds_it(
    daemon: Daemon, tmp_path: Path
) -> None:
    url = f"sqlite:///{daemon.home}/../{daemon.home.name}/gleand.db"
    says(run("--data-dir", str(tmp_path), "--set", f"database_url={url}"), BUSY, str(daemon.pid))


def test_the_one_that_was_refused_did_no_harm(daemon: Daemon) -> None:
    run("--data-dir", str(daemon.home))
    assert int((daemon.home / "gleand.db.lock").read_text()) == daemon.pid
    assert daemon.get("/readyz")["status"] == "ready"
    with sqlite3.connect(f"file:{daemon.home}/gleand.db?mode=ro", uri=True) as db:
        assert db.execute("SELECT count(*) FROM boots").fetchone() == (1,)


def test_a_lock_file_left_by_a_killed_daemon_means_nothing(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "data")
    with daemon:
        daemon.kill()
        assert (daemon.home / "gleand.db.lock").exists()
        daemon.start()
        assert int((daemon.home / "gleand.db.lock").read_text()) == daemon.pid


# -- what it does not start on ---------------------------------------------------------------------------------------


def test_a_taken_port_is_said_at_once_and_nothing_was_scraped(tmp_path: Path) -> None:
    home = tmp_path / "data"
    with Daemon(home, **scrapers()) as first:  # leaves a target that is due
        target = first.add("sleeps:x")["user"]["id"]
        first.wait_state(target, "RUNNING")
        first.kill()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        began = time.monotonic()
        more = [word for name, value in scrapers().items() for word in ("--set", f"{name}={value}")]
        done = run("--data-dir", str(home), "--port", str(port), *more)
    says(done, BUSY, f"127.0.0.1:{port}", "in use")
    assert time.monotonic() - began < 6
    assert "run_started" not in done.stderr


def test_settings_that_cannot_work_are_said(tmp_path: Path) -> None:
    says(run("--data-dir", str(tmp_path), "--set", "workers=none"), CONFIG, "workers")
    says(run("--data-dir", str(tmp_path), "--set", "host=0.0.0.0"), CONFIG, "api_token")
    assert os.listdir(tmp_path) == []


def test_a_database_that_is_a_text_file_is_said_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "gleand.db").write_text("Dear diary\n" * 500)
    says(run("--data-dir", str(tmp_path)), CONFIG, "not a database", str(tmp_path / "gleand.db"))
    assert (tmp_path / "gleand.db").read_text() == "Dear diary\n" * 500


def test_a_database_of_something_else_is_said_and_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "gleand.db") as db:
        db.execute("CREATE TABLE moz_cookies (id INTEGER)")
    says(run("--data-dir", str(tmp_path)), CONFIG, "tables that gleand did not make")
    with sqlite3.connect(tmp_path / "gleand.db") as db:
        assert db.execute("SELECT name FROM sqlite_master").fetchall() == [("moz_cookies",)]


def test_a_database_made_by_a_newer_version_is_said(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "gleand.db") as db:
        db.execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
        db.execute("INSERT INTO alembic_version VALUES ('9999')")
    says(run("--data-dir", str(tmp_path)), CONFIG, "9999", "newer gleand")


def test_a_directory_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    says(run("--data-dir", str(tmp_path / "file" / "data")), CONFIG, str(tmp_path / "file" / "data"))


def test_a_database_in_a_directory_that_is_not_there_is_said(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/nowhere/gleand.db"
    says(run("--data-dir", str(tmp_path), "--set", f"database_url={url}"), CONFIG, f"{tmp_path}/nowhere/gleand.db")


def test_a_directory_instead_of_a_database_is_said(tmp_path: Path) -> None:
    (tmp_path / "gleand.db").mkdir()
    says(run("--data-dir", str(tmp_path)), CONFIG, str(tmp_path / "gleand.db"))


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root, to become somebody else")
@pytest.mark.parametrize("mode", [0o000, 0o500])
def test_a_directory_that_cannot_be_used_is_said(mode: int) -> None:
    with tempfile.TemporaryDirectory() as base:  # not tmp_path: nobody else may look into that
        os.chmod(base, 0o755)
        home = Path(base) / "data"
        home.mkdir()
        home.chmod(mode)
        os.chown(home, 65534, 65534)
        become = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        command = [*become, sys.executable, str(ROOT / "daemon.py"), "--data-dir", str(home)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    if "ermission denied" in done.stderr and str(home) not in done.stderr:
        pytest.skip("nobody else may read the interpreter or the tree")
    says(done, CONFIG, str(home), "ermission denied")


# -- stop ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_with_exit_code_0_and_leaves_no_process(tmp_path: Path, number: signal.Signals) -> None:
    with Daemon(tmp_path / "data", drain_timeout_s=0.3, stop_grace_s=1, **scrapers()) as daemon:
        target = daemon.add("ignores_sigterm:x")["user"]["id"]
        daemon.wait_state(target, "RUNNING")
        wait_until(daemon.workers)
        everybody = set(descendants(daemon.pid)) | {daemon.pid}
        send(daemon.pid, number)
        assert daemon.process is not None
        assert daemon.process.wait(10) == OK
        assert not [pid for pid in everybody if is_alive(pid)]
    with sqlite3.connect(tmp_path / "data" / "gleand.db") as db:
        assert db.execute("SELECT state, reason FROM targets").fetchall() == [("FAILED", "interrupted")]
        assert db.execute("SELECT count(*) FROM boots WHERE ended_at IS NULL").fetchone() == (0,)


def test_while_it_drains_writes_get_503_and_status_goes_on(tmp_path: Path) -> None:
    with Daemon(tmp_path / "data", drain_timeout_s=20, **scrapers()) as daemon:
        target = daemon.add("slow:3")["user"]["id"]
        daemon.wait_state(target, "RUNNING")
        send(daemon.pid, signal.SIGTERM)
        wait_until(lambda: daemon.call("GET", "/readyz").json()["reason"] == "draining")
        refused = daemon.call("POST", "/api/users/add", {"username": "good:x"})
        assert (refused.status_code, refused.json()["code"]) == (503, "draining")
        assert daemon.status()["running"] is True
        assert daemon.call("GET", "/healthz").status_code == 200
        assert daemon.process is not None
        assert daemon.process.wait(10) == OK
    with sqlite3.connect(tmp_path / "data" / "gleand.db") as db:  # it was let finish
        assert db.execute("SELECT state, post_count FROM targets").fetchall() == [("COMPLETED", 3)]


def test_a_second_signal_ends_it_at_once_and_its_workers_with_it(tmp_path: Path) -> None:
    with Daemon(tmp_path / "data", drain_timeout_s=60, **scrapers()) as daemon:
        target = daemon.add("ignores_sigterm:x")["user"]["id"]
        daemon.wait_state(target, "RUNNING")
        wait_until(daemon.workers)
        everybody = set(descendants(daemon.pid))
        send(daemon.pid, signal.SIGTERM)
        wait_until(lambda: daemon.call("GET", "/readyz").status_code == 503)
        send(daemon.pid, signal.SIGTERM)
        assert daemon.process is not None
        assert daemon.process.wait(2) == HARD
        wait_until(lambda: not [pid for pid in everybody if is_alive(pid)], within_s=2)


@pytest.mark.parametrize("after", ["gleand.db.lock", "gleand.db-wal"])
def test_a_signal_during_the_start_stops_it(tmp_path: Path, after: str) -> None:
    daemon = Daemon(tmp_path / "data")
    daemon.start(wait=False)
    assert daemon.process is not None
    wait_until((daemon.home / after).exists, within_s=10, every_s=0.001)
    daemon.process.terminate()
    assert daemon.process.wait(15) == OK
    assert "Traceback" not in daemon.log
    with daemon:  # and nothing of that is in the way
        assert daemon.get("/readyz")["status"] == "ready"


# -- health ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", ["writer", "pool", "claims", "scheduler", "http"])
def test_health_depends_on_every_loop(loop: str, tmp_path: Path) -> None:
    from config import Settings
    from daemon import Daemon as Parts
    from daemon import Supervisor

    parts = Parts(Settings(data_dir=tmp_path), Supervisor({}))
    parts.writer._tick = parts.claims._tick = parts.clockwork._tick = time.monotonic()
    parts.http._ticked_at = parts.pool._tick = time.monotonic()
    view, good = parts.service.health()
    assert good and set(view["loops"]) == {"writer", "pool", "claims", "scheduler", "http"}
    part = {"scheduler": parts.clockwork}.get(loop) or getattr(parts, loop)
    setattr(part, "_ticked_at" if loop == "http" else "_tick", time.monotonic() - 30)
    view, good = parts.service.health()
    assert not good
    assert view["loops"][loop] >= 30


def test_every_loop_goes_round_while_nothing_happens(daemon: Daemon) -> None:
    time.sleep(1.5)  # longer than the slowest of them
    ages = daemon.get("/healthz")["loops"]
    assert set(ages) == {"writer", "pool", "claims", "scheduler", "http"}
    assert max(ages.values()) < 3


def test_health_needs_no_token_and_the_rest_does(daemon: Daemon) -> None:
    for path, code in (("/healthz", 200), ("/readyz", 200), ("/api/scrape-status", 401), ("/api/users", 401)):
        assert requests.get(daemon.url + path, timeout=5).status_code == code


# -- what it leaves behind, and passes on ----------------------------------------------------------------------------


def test_files_are_for_their_owner_only(daemon: Daemon) -> None:
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in daemon.home.iterdir()}
    assert set(modes) == {"gleand.db", "gleand.db-wal", "gleand.db-shm", "gleand.db.lock"}
    assert set(modes.values()) == {0o600}


def test_a_directory_it_makes_is_for_its_owner_only(tmp_path: Path) -> None:
    (tmp_path / "gleand.db").mkdir()  # so that it ends by itself
    run("--data-dir", str(tmp_path / "a" / "b"), "--set", f"database_url=sqlite:///{tmp_path}/gleand.db")
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700


def test_no_secret_reaches_the_nursery_or_a_worker(daemon: Daemon) -> None:
    daemon.add("sleeps:x")
    wait_until(daemon.workers)
    children = descendants(daemon.pid)
    assert len(children) >= 2  # the nursery and a worker
    for pid in children:
        environ = Path(f"/proc/{pid}/environ").read_bytes()
        assert b"s3cret" not in environ and b"GLEAND_" not in environ
        assert b"s3cret" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    daemon.call("POST", "/api/scrape-status/reset", {"force": True, "reason": "test"})


def test_its_log_says_what_it_did_and_not_what_its_libraries_do(daemon: Daemon) -> None:
    lines = daemon.log.splitlines()
    loggers = {field.partition("=")[2] for line in lines for field in line.split() if field.startswith("logger=")}
    assert all("ts=" in line and " level=" in line for line in lines), lines
    assert not {name for name in loggers if name.split(".")[0] in ("alembic", "apscheduler", "sqlalchemy", "uvicorn")}
    assert "daemon_ready" in daemon.log and "store_ready" in daemon.log
    assert "s3cret" not in daemon.log
