"""What systemd is told, and what it hands over: readiness, watchdog, reload, socket passing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.support.daemon import ROOT, Daemon
from tests.support.settings import scrapers
from tests.support.waiting import wait_until


class Notified:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(str(path))
        self.sock.setblocking(False)
        self.lines: list[str] = []

    def has(self, line: str) -> bool:
        """Whether an assignment came that starts like this."""
        try:
            while True:
                self.lines += self.sock.recv(4096).decode().split("\n")
        except BlockingIOError:
            return any(one.startswith(line) for one in self.lines)


@pytest.fixture
def notified(tmp_path: Path) -> Iterator[Notified]:
    one = Notified(tmp_path / "notify")
    yield one
    one.sock.close()


def test_systemd_hears_of_readiness_health_and_the_end(tmp_path: Path, notified: Notified) -> None:
    with Daemon(tmp_path / "data", env={"NOTIFY_SOCKET": str(tmp_path / "notify")}, **scrapers()) as daemon:
        wait_until(lambda: notified.has("READY=1"))
        wait_until(lambda: notified.has("WATCHDOG=1"))
        wait_until(lambda: notified.has("STATUS=ready: 0 running of 0 targets"))
        target = daemon.add("sleeps:x")["user"]["id"]
        wait_until(lambda: daemon.status(target)["worker"] == "running")
        environs = [Path(f"/proc/{pid}/environ").read_bytes() for pid in wait_until(daemon.descendants)]
        assert environs and not any(b"NOTIFY_SOCKET" in one for one in environs)
        assert not notified.has("STOPPING=1")
        daemon.settings["drain_timeout_s"] = 10
        daemon.call("POST", "/api/scrape-status/reset", {"force": True})
        assert daemon.stop() == 0
    assert notified.has("STOPPING=1")
    assert notified.has("EXTEND_TIMEOUT_USEC=")


def test_sighup_takes_over_what_can_change(tmp_path: Path) -> None:
    config = tmp_path / "gleand.toml"
    config.write_text("scrape_timeout_s = 7\n", encoding="utf-8")
    with Daemon(tmp_path / "data", env={"GLEAND_CONFIG": str(config)}, **scrapers()) as daemon:
        pass
    daemon.settings.pop("scrape_timeout_s")
    with daemon:
        first = daemon.add("good:a")["user"]["id"]
        daemon.wait_state(first, "COMPLETED")
        config.write_text("scrape_timeout_s = 70\nport = 1\n", encoding="utf-8")
        os.kill(daemon.pid, signal.SIGHUP)
        wait_until(lambda: "settings_reloaded changed=scrape_timeout_s" in daemon.log)
        target = daemon.add("sleeps:x")["user"]["id"]
        run = wait_until(lambda: daemon.get(f"/api/targets/{target}/runs")["runs"])[0]
        assert "00:01:10" in str(_span(run))
        config.write_text("scrape_timeout_s = -1\n", encoding="utf-8")
        os.kill(daemon.pid, signal.SIGHUP)
        wait_until(lambda: "settings_not_reloaded" in daemon.log)
        daemon.call("POST", "/api/scrape-status/reset", {"force": True})


def _span(run: dict) -> str:
    from datetime import datetime

    seconds = datetime.fromisoformat(run["deadline_at"]) - datetime.fromisoformat(run["started_at"])
    return f"00:{int(seconds.total_seconds()) // 60:02d}:{int(seconds.total_seconds()) % 60:02d}"


def test_a_socket_that_was_passed_is_listened_on(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        port = listener.getsockname()[1]
        code = (
            "import os, sys; os.dup2(int(sys.argv[1]), 3); os.set_inheritable(3, True);"
            "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()));"
            "os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
        )
        daemon = [str(ROOT / "daemon.py"), "--port", str(port), "--data-dir", str(tmp_path)]
        command = [sys.executable, "-c", code, str(listener.fileno()), *daemon]
        with open(tmp_path / "log", "wb") as log:
            process = subprocess.Popen(command, pass_fds=[listener.fileno()], stderr=log, cwd=tmp_path)
        # connects at once: the answer waits until the daemon is there
        answer = requests.get(f"http://127.0.0.1:{port}/readyz", timeout=20)
        assert answer.status_code == 200
        process.terminate()
        assert process.wait(20) == 0
