"""A real daemon for end-to-end tests: `python daemon.py` in a directory of its own, spoken to on loopback."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import requests

from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
#: Scrapers that the tests bring: every function of this module is a source of the same name.
SCRAPERS = ROOT / "tests" / "support"


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Daemon:
    """Use as a context manager: started on entry, stopped (at last killed) on exit."""

    def __init__(self, home: Path, *, prefix: tuple[str, ...] = (), env: dict[str, str] | None = None, **settings: Any):
        self.home = home
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.settings = {"allow_private_networks": True, "host_delay_s": 0, "workers": 4, "scrape_timeout_s": 30}
        self.settings |= {"respect_robots": False} | settings
        self.prefix = prefix
        self.env = env or {}
        self.process: subprocess.Popen[bytes] | None = None
        self.session = requests.Session()
        self.session.trust_env = False

    def __enter__(self) -> Daemon:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.session.close()

    # -- process -------------------------------------------------------------------------------------------------

    def start(self, *, wait: bool = True) -> Daemon:
        """Start it, and wait until it answers."""
        command = [*self.prefix, sys.executable, str(ROOT / "daemon.py"), "--port", str(self.port)]
        command += ["--data-dir", str(self.home)]
        for name, value in self.settings.items():
            command += ["--set", f"{name}={str(value).lower() if isinstance(value, bool) else value}"]
        self.home.mkdir(parents=True, exist_ok=True)
        with open(self.log_path, "ab") as log:
            environ = {k: v for k, v in os.environ.items() if not k.startswith("GLEAND_")} | self.env
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environ, cwd=self.home)
        if wait:
            wait_until(self.answers, within_s=30)
        return self

    @property
    def log_path(self) -> Path:
        """What it wrote to stderr."""
        return self.home.parent / f"{self.home.name}.log"

    @property
    def log(self) -> str:
        """What it wrote so far."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    @property
    def pid(self) -> int:
        """Of the daemon itself."""
        assert self.process is not None
        return self.process.pid

    def answers(self) -> bool:
        """It answers; fails at once when it has ended instead."""
        assert self.process is not None
        assert self.process.poll() is None, f"the daemon ended with {self.process.poll()}: {self.log[-2000:]}"
        try:
            return self.session.get(f"{self.url}/healthz", timeout=5).status_code == 200
        except requests.RequestException:
            return False

    def stop(self, *, within_s: float = 30.0) -> int:
        """SIGTERM, and SIGKILL when it does not listen; returns its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    # -- talk ----------------------------------------------------------------------------------------------------

    def get(self, path: str, **how: Any) -> Any:
        """JSON of a GET that succeeds."""
        response = self.session.get(self.url + path, timeout=how.pop("timeout", 70), **how)
        assert response.status_code == 200, (path, response.status_code, response.text)
        return response.json()

    def call(self, method: str, path: str, body: Any = None, **how: Any) -> requests.Response:
        """Any call, whatever the answer."""
        return self.session.request(method, self.url + path, json=body, timeout=how.pop("timeout", 60), **how)

    def add(self, username: str, **more: Any) -> dict[str, Any]:
        """POST /api/users/add, which must succeed; returns the answer."""
        response = self.call("POST", "/api/users/add", {"username": username} | more)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def status(self, target_id: int | None = None) -> dict[str, Any]:
        """STATUS, or the status of a target."""
        path = "/api/scrape-status" if target_id is None else f"/api/targets/{target_id}/status"
        answer: dict[str, Any] = self.get(path)
        return answer

    def wait_state(self, target_id: int, *states: str, within_s: float = 15.0) -> dict[str, Any]:
        """Wait until a target is in one of these states; returns its status."""
        until = time.monotonic() + within_s
        while (status := self.status(target_id))["state"] not in states:
            assert time.monotonic() < until, f"not {states} within {within_s} s: {status}"
            time.sleep(0.01)
        return status

    def pull(self, target_id: int, trigger: str, **body: Any) -> requests.Response:
        """POST a transition, whatever the answer."""
        return self.call("POST", f"/api/targets/{target_id}/transitions", {"trigger": trigger} | body)

    def create(self, target: str, **body: Any) -> int:
        """POST /api/targets, which must succeed; returns the id. Does not start it unless told to."""
        response = self.call("POST", "/api/targets", {"target": target, "start": False, "schedule": "manual"} | body)
        assert response.status_code == 201, response.text
        return int(response.json()["id"])

    def runs(self, target_id: int) -> list[dict[str, Any]]:
        """Runs of a target, newest first."""
        found: list[dict[str, Any]] = self.get(f"/api/targets/{target_id}/runs?limit=100")["runs"]
        return found

    def journal(self, target_id: int) -> list[dict[str, Any]]:
        """Journal of a target, newest first."""
        found: list[dict[str, Any]] = self.get(f"/api/targets/{target_id}/journal?limit=100")["journal"]
        return found

    def posts(self, target_id: int) -> list[str]:
        """Native ids of a target's posts."""
        return [post["native_id"] for post in self.get(f"/api/targets/{target_id}/posts?limit=100")["posts"]]

    # -- its processes -------------------------------------------------------------------------------------------

    def scraping(self, username: str, **more: Any) -> tuple[int, int]:
        """Add a target that hangs; returns its id and the pid of the new worker that has it.

        No worker may be idle, and no other target may be started meanwhile.
        """
        before = self.workers()
        target_id = int(self.add(username, **more)["user"]["id"])
        new = wait_until(lambda: self.workers() - before, within_s=10)
        assert len(new) == 1
        return target_id, new.pop()

    def workers(self) -> set[int]:
        """Pids of the live workers."""
        return {pid for pid in descendants(self.pid) if worker_name(pid) == f"gw{pid}"}

    def descendants(self) -> dict[int, str]:
        """Live (not zombie) processes below the daemon: pid to command line."""
        return {
            pid: line for pid, line in descendants(self.pid).items() if "jobs.nursery" not in line or is_worker(pid)
        }


def worker_name(pid: int) -> str:
    """What a process is called: gwPID of its worker for a worker and what it forked."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    except OSError:
        return ""


def is_worker(pid: int) -> bool:
    """A worker, not the nursery: it has a name of its own."""
    return worker_name(pid).startswith("gw")


def family(leader: int) -> set[int]:
    """Live processes of a worker, wherever they hang now: by session, by name, by the mark in their environment."""
    return families().get(leader, set())


def families() -> dict[int, set[int]]:
    """Live processes that belong to workers, by the worker's pid."""
    found: dict[int, set[int]] = {}
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
            marks = re.findall(rb"SCRAPE_WORKER=gw(\d+)\0", Path(f"/proc/{pid}/environ").read_bytes())
        except OSError:
            continue
        name, _, rest = stat.partition("(")[2].rpartition(")")
        state, _, _, session = rest.split()[:4]
        if state in "ZX":
            continue
        for leader in {int(session), *(int(mark) for mark in marks), *(int(n) for n in re.findall(r"^gw(\d+)$", name))}:
            found.setdefault(leader, set()).add(pid)
    return found


def zombies(pid: int) -> set[int]:
    """Children of a process that ended and were not reaped."""
    found = {int(n): _stat(int(n)) for n in os.listdir("/proc") if n.isdigit()}
    return {one for one, stat in found.items() if stat is not None and stat == (pid, "Z")}


def open_files(pid: int) -> int:
    """How many descriptors a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def _stat(pid: int) -> tuple[int, str] | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[1]), fields[0]


def descendants(pid: int) -> dict[int, str]:
    """Live processes below one, by pid, with their command lines."""
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (stat := _stat(int(name))) is not None and stat[1] not in "ZX":
            parents[int(name)] = stat[0]
    found: dict[int, str] = {}
    grown = {pid}
    while grown:
        grown = {p for p, parent in parents.items() if parent in grown and p not in found}
        for p in grown:
            try:
                found[p] = Path(f"/proc/{p}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                found[p] = ""
    return found


def is_alive(pid: int) -> bool:
    """Whether a process lives; a zombie does not."""
    stat = _stat(pid)
    return stat is not None and stat[1] not in "ZX"


def ignores_sigterm(pid: int) -> bool:
    """Whether a process has made itself deaf."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("SigIgn:"):
            return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
    return False


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal."""
    os.kill(pid, number)


def monotonic() -> float:
    """Now, for measuring."""
    return time.monotonic()
