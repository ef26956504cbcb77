"""The programs gleand is compared with: Celery with Redis, and Scrapyd, as somebody who tunes them would run them.

They live in an environment of their own, `.benchmarks/peers`, which is made when it is missing. As a program
(`python -m benchmarks.peers`) this makes it and does nothing else.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.common import LOOK_S, ROOT, START_S, Served, environment, free_port, need, running, serving

HOME = ROOT / ".benchmarks" / "peers"
#: What is installed; the two that our parser and fetch stand on are of the versions we run with.
REQUIREMENTS = (
    "celery[redis]==5.7.0",
    "kombu==5.7.0",
    "billiard==4.3.2",
    "redis==8.1.0",
    "scrapyd==1.6.0",
    "Scrapy==2.19.0",
    "Twisted==26.10.0",
    f"lxml=={version('lxml')}",
    f"requests=={version('requests')}",
)
SCRAPYD = """[scrapyd]
bind_address = 127.0.0.1
http_port = {port}
eggs_dir = {home}/eggs
logs_dir = {home}/logs
dbs_dir = {home}/dbs
"""
#: Without what a worker that is alone has no use for: it costs a little throughput, and makes its loop wake up.
ALONE = ("--without-gossip", "--without-mingle", "--without-heartbeat")
Reply = dict[str, Any]  # Any: JSON values


def python() -> str:
    """The interpreter of the peers' environment, made first where it is missing or made for other versions."""
    stamp, wanted = HOME / "stamp", "\n".join((sys.version, *REQUIREMENTS))
    binary = HOME / "bin" / "python"
    if not stamp.exists() or stamp.read_text() != wanted:
        print("making .benchmarks/peers for the programs compared with (once)", file=sys.stderr, flush=True)
        try:
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(HOME)], check=True)
            subprocess.run([str(binary), "-m", "pip", "install", "-q", *REQUIREMENTS], check=True)
        except subprocess.CalledProcessError as exc:
            sys.exit(f"the peers could not be installed ({exc}); the flag --no-peer goes without where there is one")
        stamp.write_text(wanted)
    return str(binary)


@contextmanager
def scrapyd(home: Path) -> Iterator[Served]:
    """Scrapyd with no project, as it comes."""
    port = free_port()
    home.mkdir(parents=True, exist_ok=True)
    (home / "scrapyd.conf").write_text(SCRAPYD.format(port=port, home=home))
    command = [str(Path(python()).with_name("scrapyd")), "--pidfile="]
    with serving(command, port, "/daemonstatus.json", log=home / "scrapyd.log", cwd=home) as served:
        yield served


@dataclass(frozen=True, slots=True, kw_only=True)
class Celery:
    """A Celery worker, its broker and a client of it."""

    #: The process that takes tasks and hands them to its children.
    pid: int
    redis_pid: int
    client: subprocess.Popen[str]
    #: Where each child counts what it has done.
    counts: Path

    def ask(self, do: str, **more: object) -> Reply:
        """Let the client do something; see `benchmarks.celery_client`."""
        assert self.client.stdin is not None and self.client.stdout is not None
        self.client.stdin.write(json.dumps({"do": do} | more) + "\n")
        self.client.stdin.flush()
        line = self.client.stdout.readline()
        if not line:
            sys.exit("the peer's client has ended; what it said is above")
        reply: Reply = json.loads(line)
        return reply

    def done(self) -> int:
        """How many scrapes succeeded since the worker started."""
        return sum(struct.unpack("Q", path.read_bytes() or bytes(8))[0] for path in self.counts.iterdir())

    def wait_done(self, count: int, *, within_s: float) -> float:
        """Wait for that many; gives when it was seen (monotonic)."""
        until = time.monotonic() + within_s
        while self.done() < count:
            if time.monotonic() > until:
                sys.exit(f"the peer did only {self.done()} of {count} within {within_s:g} s")
            time.sleep(LOOK_S)
        return time.monotonic()


@contextmanager
def celery(
    home: Path, *, workers: int, prefetch: int = 4, lost_wait_s: float = 10.0, flags: Sequence[str] = ()
) -> Iterator[Celery]:
    """Celery, prefork, with Redis that keeps nothing on disk.

    Args:
        home: For sockets, counts and logs.
        workers: Child processes.
        prefetch: Tasks taken ahead for each of them; Celery's default is 4.
        lost_wait_s: Celery's `worker_lost_wait`; its default is 10.
        flags: Of its command line, besides.
    """
    binary, port = python(), free_port()
    (home / "counts").mkdir(parents=True)
    env = environment(
        PYTHONPATH=str(ROOT),
        BENCH_REDIS=f"redis://127.0.0.1:{port}/0",
        BENCH_DONE=str(home / "counts"),
        BENCH_PREFETCH=str(prefetch),
        BENCH_LOST_WAIT_S=str(lost_wait_s),
    )
    store = [need("redis-server", "redis-server"), "--bind", "127.0.0.1", "--port", str(port)]
    store += ["--save", "", "--appendonly", "no", "--dir", str(home)]
    worker = [binary, "-m", "celery", "-A", "benchmarks.celery_app", "worker", "-P", "prefork", "-c", str(workers)]
    worker += ["--loglevel", "error", *flags]
    with ExitStack() as stack:
        broker = stack.enter_context(running(store, log=home / "redis.log"))
        main = stack.enter_context(running(worker, log=home / "celery.log", env=env, cwd=home))
        client = stack.enter_context(_client([binary, "-m", "benchmarks.celery_client"], env))
        found = Celery(pid=main.pid, redis_pid=broker.pid, client=client, counts=home / "counts")
        _wait_for_children(found, workers, main, home / "celery.log")
        yield found


@contextmanager
def _client(command: Sequence[str], env: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, env=env, text=True, start_new_session=True) as client:
        try:
            yield client
        finally:
            client.kill()


def _wait_for_children(found: Celery, count: int, main: subprocess.Popen[bytes], log: Path) -> None:
    """Each child makes its count when it is ready."""
    until = time.monotonic() + START_S
    while len(list(found.counts.iterdir())) < count:
        if main.poll() is not None or time.monotonic() > until:
            sys.exit(f"Celery did not start:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(LOOK_S)


if __name__ == "__main__":
    print(python())
