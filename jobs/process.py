"""One worker process as the pool sees it: its pipes, signals, and the certainty that nothing of it is left.

Lives here: descriptors, signals, /proc. Not here: when to do any of it (the pool's), how it is forked (the nursery's).
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import signal
import time
from dataclasses import dataclass

from jobs.protocol import Decoder, Message, encode

_PR_SET_CHILD_SUBREAPER = 36
#: Set by a worker for what it executes; found in /proc when the parents in between are gone.
MARK = "SCRAPE_WORKER"
#: Names the database of the daemon; whatever its workers start inherits it.
OWNER = "SCRAPE_OWNER"
#: How often leftovers of an earlier daemon are looked for until there are none, and how far apart (count; seconds).
LOOKS, LOOK_S = 20, 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Proc:
    """A line of /proc/PID/stat."""

    pid: int
    ppid: int
    session: int
    #: In clock ticks since boot: with the pid it names one process for ever.
    started: int
    zombie: bool
    #: Inherited over fork, replaced by exec.
    name: str


def scan() -> dict[int, Proc]:
    """All processes of the machine, by pid."""
    found: dict[int, Proc] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (proc := look(int(name))) is not None:
            found[proc.pid] = proc
    return found


def look(pid: int) -> Proc | None:
    """One process, or None when there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            head, _, tail = stat.read().rpartition(b")")
    except (FileNotFoundError, ProcessLookupError):
        return None  # anything else, such as too many open files, says nothing about the process
    fields = tail.split()
    return Proc(
        pid=pid,
        ppid=int(fields[1]),
        session=int(fields[3]),
        started=int(fields[19]),
        zombie=fields[0] in (b"Z", b"X"),
        name=head.partition(b"(")[2].decode("ascii", "replace"),
    )


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent died: the workers, and what they leave behind."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children() -> set[int]:
    """Pids of the children our main thread has, zombies included: adopted ones come to it.

    Cheap; empty where the kernel does not list them.
    """
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", "rb") as listed:
            return {int(pid) for pid in listed.read().split()}
    except OSError:
        return set()


def reap_strangers(pids: set[int]) -> None:
    """Reap what hid from its worker's burial, came to us, and has ended since.

    What this process started by itself, in its own session, belongs to whoever started it.
    """
    for pid in pids:
        proc = look(pid)
        if proc is not None and proc.zombie and proc.session != os.getsid(0):
            try:
                os.waitpid(pid, os.WNOHANG)
            except OSError:
                continue


def own_what_follows(database: str) -> int:
    """Mark what is started from here on as this database's, and kill what an earlier daemon on it left alive.

    For a start, while the lock on the database is held: whoever else has the mark belongs to a daemon that is gone.
    A process that took the mark out of its environment is not found.

    Returns:
        How many were killed.
    """
    owner = hashlib.sha256(database.encode()).hexdigest()[:16]
    os.environ[OWNER] = owner
    killed: set[int] = set()
    for _ in range(LOOKS):
        left = [pid for pid in _pids() if pid != os.getpid() and _has(pid, OWNER, owner) and _kill_marked(pid, owner)]
        if not left:
            break
        killed.update(left)
        time.sleep(LOOK_S)  # it may have forked meanwhile
    return len(killed)


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _kill_marked(pid: int, owner: str) -> bool:
    """Kill it, unless its number went to somebody else meanwhile; whether it was there."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if not _has(pid, OWNER, owner):
            return False
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        return True
    except OSError:
        return False
    finally:
        os.close(handle)


def worker_name(pid: int) -> str:
    """What a worker calls itself, and so everything it forks: at most 15 characters."""
    return f"gw{pid}"


def _has(pid: int, variable: str, value: str) -> bool:
    """Whether a process was executed with this in its environment."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as environ:
            return f"{variable}={value}".encode() in environ.read().split(b"\0")
    except OSError:
        return False


class Child:
    """A worker with an order, a report and a life pipe; `born` once its pid is known.

    The daemon is the only writer of the life pipe: when it dies, however it dies, or closes the pipe, the kernel
    kills the worker's group.
    """

    def __init__(self) -> None:
        """Make the pipes. Raises OSError when there are no descriptors left."""
        opened: list[int] = []
        try:
            for _ in range(3):
                opened += os.pipe()
        except OSError:
            for fd in opened:
                os.close(fd)
            raise
        order_r, self.order_fd, self.report_fd, report_w, life_r, self._life_fd = opened
        #: The worker's ends, until the nursery has them.
        self.theirs: tuple[int, ...] = (order_r, report_w, life_r)
        self.pid = 0
        self.pid_fd = -1
        os.set_blocking(self.order_fd, False)
        os.set_blocking(self.report_fd, False)
        self._decoder = Decoder()
        self._unsent = bytearray()
        #: Descendants seen outside the session, by (pid, started).
        self._strays: set[tuple[int, int]] = set()

    def handed(self) -> None:
        """The nursery has the worker's ends: close ours."""
        for fd in self.theirs:
            os.close(fd)
        self.theirs = ()

    def born(self, pid: int) -> None:
        """Its pid is known. Not reaped by anybody but `reap`, so the number stays its own."""
        self.pid = pid
        self.pid_fd = os.pidfd_open(pid)

    # -- talk ----------------------------------------------------------------------------------------------------

    def send(self, message: Message) -> bool:
        """Queue a message and send what the pipe takes; True when all of it went. Raises OSError, ProtocolError."""
        self._unsent += encode(message)
        return self.flush()

    def flush(self) -> bool:
        """Send more of what waits; True when nothing is left. Raises OSError when the worker is gone."""
        while self._unsent:
            try:
                del self._unsent[: os.write(self.order_fd, self._unsent)]
            except BlockingIOError:
                return False
        return True

    def receive(self) -> tuple[list[Message], bool]:
        """Whole messages that came (at most 256 KiB at a time), and whether the pipe is closed.

        Raises:
            ProtocolError: What came is not ours.
        """
        try:
            data = os.read(self.report_fd, 256 * 1024)
        except BlockingIOError:
            return [], False
        except OSError:
            return [], True
        return self._decoder.feed(data), not data

    # -- end -----------------------------------------------------------------------------------------------------

    def terminate(self) -> None:
        """SIGTERM to the group; SIGCONT, so that a stopped one hears it."""
        self._signal_group(signal.SIGTERM)
        self._signal_group(signal.SIGCONT)

    def kill_group(self) -> None:
        """SIGKILL to the group; needs no descriptor."""
        self._signal_group(signal.SIGKILL)

    def disown(self) -> None:
        """Kill and reap one that cannot be watched."""
        self.kill_group()
        os.waitpid(self.pid, 0)
        self.pid = 0

    def kill(self, procs: dict[int, Proc]) -> None:
        """SIGKILL to the group, the session and every descendant."""
        self._signal_group(signal.SIGKILL)
        for proc in self.alive(procs):
            try:
                os.kill(proc.pid, signal.SIGKILL)
            except OSError:
                continue

    def _signal_group(self, number: signal.Signals) -> None:
        """To the leader as well: one that was just forked may not lead its group yet."""
        if not self.pid:
            return
        for send in (os.killpg, os.kill):
            try:
                send(self.pid, number)
            except OSError:
                continue

    def ending(self) -> str | None:
        """Why the leader ended, as a sentence; None while it lives. Does not reap it."""
        found = os.waitid(os.P_PIDFD, self.pid_fd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if found is None:
            return None
        if found.si_code == os.CLD_EXITED:
            return f"the worker process exited with status {found.si_status}"
        try:
            name = signal.Signals(found.si_status).name
        except ValueError:
            name = "a signal"
        return f"the worker process was killed by {name} (signal {found.si_status})"

    def alive(self, procs: dict[int, Proc]) -> list[Proc]:
        """Live processes of this worker: its session, its descendants, and orphans of it that we adopted.

        What is not found: a process that left the session, lost its parents before we looked, and changed both its
        name and its environment. For that one there is the cgroup of the service.
        """
        if not self.pid:
            return []
        ours, me, name = {self.pid}, os.getpid(), worker_name(self.pid)
        for proc in procs.values():
            if proc.session == self.pid or (proc.pid, proc.started) in self._strays:
                ours.add(proc.pid)
            elif proc.ppid == me and not proc.zombie and (proc.name == name or _has(proc.pid, MARK, name)):
                ours.add(proc.pid)
        grown = True
        while grown:
            more = {p.pid for p in procs.values() if p.ppid in ours and p.pid not in ours}
            grown = bool(more)
            ours |= more
        self._strays |= {(pid, procs[pid].started) for pid in ours if pid in procs and procs[pid].session != self.pid}
        return [procs[pid] for pid in ours if pid in procs and not procs[pid].zombie]

    def reap_orphans(self, procs: dict[int, Proc]) -> None:
        """Reap what died after its parents did, and so became ours."""
        me, name = os.getpid(), worker_name(self.pid)
        for proc in procs.values():
            ours = proc.session == self.pid or (proc.pid, proc.started) in self._strays or proc.name == name
            if ours and proc.zombie and proc.ppid == me and proc.pid != self.pid:
                try:
                    os.waitpid(proc.pid, os.WNOHANG)
                except OSError:
                    continue

    def reap(self) -> None:
        """Reap the leader and close the descriptors; only once nothing of it is alive."""
        if self.pid:
            os.waitid(os.P_PIDFD, self.pid_fd, os.WEXITED)
            os.close(self.pid_fd)
        self.close()

    def hang_up(self) -> None:
        """Close the order pipe: an idle worker ends by itself."""
        if self.order_fd >= 0:
            os.close(self.order_fd)
            self.order_fd = -1

    def close(self) -> None:
        """Close every descriptor; a worker that still lived is killed by the kernel."""
        self.handed()
        self.hang_up()
        os.close(self.report_fd)
        os.close(self._life_fd)
