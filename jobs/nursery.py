"""The nursery: one single-threaded process that has the scrape code loaded and forks workers from it.

A worker is forked twice, so that its parent in between is gone and the daemon, a subreaper, becomes its real parent:
exit status, pidfd and reaping are the daemon's own, and the death of the nursery means nothing to a worker.
Runs as `python -m jobs.nursery FD`; the daemon holds the other end of FD, and its end is the nursery's.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import traceback
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent


class Nursery:
    """The daemon's side: starts the process and asks it for workers; never waits for it."""

    def __init__(self) -> None:
        """Start it. Raises OSError when the machine has no room."""
        self.sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environ = {k: v for k, v in os.environ.items() if not k.startswith("GLEAND_")}
        environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(_ROOT), environ.get("PYTHONPATH"))))
        try:
            self._popen = subprocess.Popen(
                [sys.executable, "-P", "-m", "jobs.nursery", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                env=environ,
            )
        except BaseException:
            self.sock.close()
            raise
        finally:
            theirs.close()
        self.sock.setblocking(False)
        self.pid = self._popen.pid
        #: It has loaded everything and forks at once.
        self.ready = False

    def ask(self, number: int, fds: tuple[int, ...], memory_bytes: int) -> None:
        """Ask for a worker; the answer is `receive`'s. Raises OSError when the nursery is gone or does not read."""
        message = json.dumps({"number": number, "memory_bytes": memory_bytes}).encode()
        socket.send_fds(self.sock, [message], list(fds))

    def receive(self) -> list[tuple[int, int]]:
        """Workers that were born: (number, pid); pid 0: it could not be. Raises EOFError when the nursery is gone."""
        born: list[tuple[int, int]] = []
        while True:
            try:
                data = self.sock.recv(4096)
            except BlockingIOError:
                return born
            except OSError as exc:
                raise EOFError from exc
            if not data:
                raise EOFError
            message = json.loads(data)
            if message.get("ready"):
                self.ready = True
            else:
                born.append((message["number"], message["pid"]))

    def close(self) -> None:
        """End it; its workers live on."""
        self.sock.close()
        self._popen.kill()
        self._popen.wait()


def _fork(fds: list[int], memory_bytes: int, sock: socket.socket) -> int:
    """Fork a worker whose parent is the daemon; its pid, or 0 when the machine has no room."""
    from jobs import worker

    told_r, told_w = os.pipe()
    try:
        between = os.fork()
    except OSError:
        os.close(told_r)
        os.close(told_w)
        return 0
    if between:
        os.close(told_w)
        with open(told_r, "rb") as told:
            pid = int(told.read() or 0)
        os.waitpid(between, 0)
        return pid
    try:
        pid = os.fork()
        if pid:
            os.write(told_w, str(pid).encode())
            os._exit(0)
        os.setsid()
        for fd in (told_r, told_w, sock.fileno()):
            os.close(fd)
        order_fd, report_fd, life_fd = fds
        worker.main(order_fd, report_fd, life_fd, memory_bytes)
        os._exit(0)
    except BaseException:  # noqa: BLE001 - a fork must never return into the nursery's loop
        traceback.print_exc()
    finally:
        os._exit(1)


def main(fd: int) -> None:
    """Fork a worker for each request until the daemon is gone."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: a stopped one does not see that the daemon is gone
    import gc

    import sources.feed
    import sources.feeds
    import sources.load  # noqa: F401 - loaded once, shared by every worker: each of its own would take 60 ms
    from jobs import worker  # noqa: F401

    gc.collect()
    gc.freeze()
    with socket.socket(fileno=fd) as sock:
        sock.send(json.dumps({"ready": True}).encode())
        while True:
            data, fds, _, _ = socket.recv_fds(sock, 4096, 3)
            if not data:
                return
            request = json.loads(data)
            pid = _fork(fds, request["memory_bytes"], sock)
            for one in fds:
                os.close(one)
            sock.send(json.dumps({"number": request["number"], "pid": pid}).encode())


if __name__ == "__main__":
    try:
        main(int(sys.argv[1]))
    except (BrokenPipeError, ConnectionResetError):
        sys.exit(0)
