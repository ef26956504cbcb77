"""What the benchmarks share: programs that are surely stopped, a daemon, feeds behind nginx, figures as a table.

Everything listens on loopback, on a port that was free a moment ago, and keeps its files in a directory that is thrown
away. Nothing here knows a peer.
"""

from __future__ import annotations

import http.client
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import requests

ROOT = Path(__file__).resolve().parents[1]
#: How long a program may take to start, and to stop when asked politely (seconds).
START_S, STOP_S = 30.0, 20.0
#: Between two looks at whether a program answers yet, and at whether a load is done (seconds).
LOOK_S = 0.005
NGINX = """daemon off; worker_processes 1; pid {home}/nginx.pid; error_log {home}/error.log;
events {{ worker_connections 1024; }}
http {{ access_log off; client_body_temp_path {home}/b; proxy_temp_path {home}/p; fastcgi_temp_path {home}/f;
uwsgi_temp_path {home}/u; scgi_temp_path {home}/s; keepalive_requests 1000000;
server {{ listen 127.0.0.1:{port}; root {home}/www; default_type application/rss+xml; }} }}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A program that answers."""

    pid: int
    url: str
    #: From its start to its first answer with status 200 (seconds).
    first_answer_s: float


def begin(description: str | None) -> None:
    """Let SIGTERM unwind like an exception, so that everything is stopped, and say on what this runs."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    load = " ".join(f"{value:.2f}" for value in os.getloadavg())
    print((description or "").splitlines()[0])
    print(
        f"{time.strftime('%Y-%m-%d %H:%M')}, {os.cpu_count()} cores, Python {platform.python_version()}, load {load}\n"
    )


def need(name: str, package: str) -> str:
    """The path of a program; ends with the name of its Debian package where there is none."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if found is None:
        sys.exit(f"this benchmark needs {name}: apt-get install {package}")
    return found


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def environment(**more: str) -> dict[str, str]:
    """Our environment without settings of a gleand or a Celery that the user runs."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("GLEAND_", "CELERY_"))} | more


@contextmanager
def running(
    command: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program in a session of its own; at the end stop it, and kill what is left of its group."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=dict(env) if env is not None else environment(),
            cwd=cwd,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def serving(command: Sequence[str], port: int, path: str, *, log: Path, cwd: Path | None = None) -> Iterator[Served]:
    """Run a program until its port answers with 200, and give where."""
    began = time.monotonic()
    with running(command, log=log, cwd=cwd) as process:
        while not _answers(port, path):
            if process.poll() is not None or time.monotonic() - began > START_S:
                sys.exit(f"{command[0]} did not start:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(LOOK_S)
        took = time.monotonic() - began
        yield Served(pid=process.pid, url=f"http://127.0.0.1:{port}", first_answer_s=took)


def _answers(port: int, path: str) -> bool:
    conn = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        conn.request("GET", path)
        return conn.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        conn.close()


@contextmanager
def gleand(home: Path, *, path: str = "/readyz", **settings: object) -> Iterator[Served]:
    """A daemon of its own that waits for no host, from its start to its end."""
    port = free_port()
    chosen = {
        "host_delay_s": 0,
        "host_concurrency": 1000,
        "allow_private_networks": "true",
        "default_schedule": "manual",
        "log_level": "warning",
    } | settings
    command = [sys.executable, str(ROOT / "daemon.py"), "--port", str(port), "--data-dir", str(home / "data")]
    for name, value in chosen.items():
        command += ["--set", f"{name}={value}"]
    with serving(command, port, path, log=home / "gleand.log") as served:
        yield served


def feed(number: int, *, items: int = 10) -> str:
    """About 5 KB of RSS, different for each number."""
    item = (
        "<item><guid>{n}-{i}</guid><title>Post {i} of {n}</title><link>http://127.0.0.1/{n}/{i}</link>"
        "<pubDate>Tue, 01 Sep 2026 10:{i:02d}:00 GMT</pubDate><description>{text}</description></item>"
    )
    text = "A sentence that a person might have written. " * 6
    body = "".join(item.format(n=number, i=i, text=text) for i in range(items))
    return f'<?xml version="1.0"?><rss version="2.0"><channel><title>Feed {number}</title>{body}</channel></rss>'


@contextmanager
def feeds(home: Path, count: int) -> Iterator[list[str]]:
    """That many feeds behind nginx; gives their addresses."""
    nginx = need("nginx", "nginx-light")
    (home / "www").mkdir(parents=True)
    for number in range(count):
        (home / "www" / f"{number}.xml").write_text(feed(number))
    for each in (home, home.parent):
        each.chmod(0o755)  # nginx started by root reads them as somebody else
    port = free_port()
    (home / "nginx.conf").write_text(NGINX.format(home=home, port=port))
    command = [nginx, "-c", str(home / "nginx.conf"), "-p", str(home)]
    with serving(command, port, "/0.xml", log=home / "nginx.log") as served:
        yield [f"{served.url}/{number}.xml" for number in range(count)]


def add_targets(url: str, addresses: Iterable[str]) -> None:
    """Let a daemon know targets, without starting one."""
    with ThreadPoolExecutor(8) as threads, requests.Session() as session:
        session.trust_env = False

        def add(address: str) -> None:
            body = {"target": address, "start": False}
            session.post(f"{url}/api/targets", json=body, timeout=30).raise_for_status()

        for _ in threads.map(add, addresses):
            pass


def cpu_s(pid: int) -> float:
    """User and system time of one process (seconds)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def below_cpu_s(pid: int) -> float:
    """User and system time of everything below a process, what has ended and was waited for included (seconds)."""
    total = 0
    for each in (pid, *descendants(pid)):
        with suppress(FileNotFoundError, ProcessLookupError):
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, fields[13:15] if each == pid else fields[11:15]))
    return total / os.sysconf("SC_CLK_TCK")


def descendants(pid: int) -> list[int]:
    """Children, and theirs."""
    found: list[int] = []
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):
            for child in map(int, listed.read_text().split()):
                found += [child, *descendants(child)]
    return found


def owner_of(port: int, pids: Iterable[int]) -> int:
    """Which of the processes holds the TCP connection of 127.0.0.1 with that port at its own end."""
    mine = f"0100007F:{port:04X}"
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    sockets = {f"socket:[{row[9]}]" for row in rows if row[1] == mine}
    for pid in pids:
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                if str(fd.readlink()) in sockets:
                    return pid
    raise LookupError(f"nobody holds port {port}")


def rss_mb(pid: int) -> float:
    """Resident memory of one process (MB)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def pss_mb(pid: int) -> float:
    """Resident memory of one process, what it shares with others counted in parts (MB)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def table(rows: Sequence[Mapping[str, Any]]) -> None:  # Any: whatever can be printed
    """Print rows with the same columns, as a table that Markdown understands."""
    lines = [list(rows[0]), *([_shown(value) for value in row.values()] for row in rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(lines[0]))]
    lines.insert(1, ["-" * width for width in widths])
    for line in lines:
        print("|", " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)), "|", flush=True)


def _shown(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def over_rounds(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """One row for several rounds: the median of each column, but errors are added up, and of maxima the greatest."""
    how: dict[str, Callable[[Iterable[float]], float]] = {"errors": sum, "timeouts": sum, "max ms": max}
    return {name: float(how.get(name, median)(row[name] for row in rows)) for name in rows[0]}
