"""The nursery forks workers that are our own children, and neither its life nor its death matters to them."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.nursery import Nursery
from jobs.process import Child, adopt_orphans, look, scan
from tests.support.daemon import is_alive, send
from tests.support.pools import make_order
from tests.support.waiting import wait_until


@pytest.fixture
def nursery() -> Iterator[Nursery]:
    adopt_orphans()
    one = Nursery()
    wait_until(lambda: one.receive() == [] and one.ready)
    yield one
    one.close()


@pytest.fixture
def child(nursery: Nursery) -> Iterator[Child]:
    """A worker that was just born."""
    one = bear(nursery, 1)
    yield one
    one.kill(scan())
    wait_until(lambda: one.ending())
    one.reap()


def bear(nursery: Nursery, number: int) -> Child:
    child = Child()
    nursery.ask(number, child.theirs, 2**28)
    child.handed()
    ((told, pid),) = wait_until(nursery.receive)
    assert told == number
    child.born(pid)
    return child


def hear(child: Child) -> list[dict]:
    """What it says next."""
    return wait_until(lambda: child.receive()[0])


def give(child: Child, source: str, handle: str = "x") -> None:
    order = make_order(source, handle)
    from jobs.protocol import order_message

    child.send(order_message(order))


def test_a_worker_is_our_own_child_in_a_session_of_its_own(child: Child) -> None:
    proc = look(child.pid)
    assert proc is not None
    assert (proc.ppid, proc.session) == (os.getpid(), child.pid)
    assert hear(child) == [{"t": "ready"}]


def test_workers_have_nothing_of_each_other_and_of_the_nursery(nursery: Nursery) -> None:
    children = [bear(nursery, n) for n in range(3)]
    for one in children:
        hear(one)
        files = {os.readlink(f"/proc/{one.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{one.pid}/fd")}
        assert len([name for name in files if name.startswith("pipe:")]) <= 3 + 2  # and what pytest gave us
        assert not [name for name in files if name.startswith("socket:")]
    for one in children:
        one.kill(scan())
        wait_until(one.ending)
        one.reap()


def test_a_worker_lives_on_when_the_nursery_is_killed(nursery: Nursery, child: Child) -> None:
    hear(child)
    send(nursery.pid, signal.SIGKILL)
    with pytest.raises(EOFError):
        while True:
            nursery.receive()
    assert child.ending() is None
    give(child, "good")
    assert [message["t"] for message in _until_result(child)][-1] == "result"


def _until_result(child: Child) -> list[dict]:
    heard: list[dict] = []
    wait_until(lambda: heard.extend(child.receive()[0]) or any(m["t"] == "result" for m in heard))
    return heard


def test_the_nursery_ends_when_its_daemon_is_gone(nursery: Nursery) -> None:
    nursery.sock.close()
    wait_until(lambda: not is_alive(nursery.pid))


def test_a_worker_and_its_grandchildren_are_killed_when_the_life_pipe_closes(nursery: Nursery) -> None:
    child = bear(nursery, 1)
    give(child, "has_stubborn_grandchild")
    family = wait_until(lambda: len(found := child.alive(scan())) == 2 and found)
    child.close()
    wait_until(lambda: not any(is_alive(proc.pid) for proc in family), within_s=1)
    child.reap_orphans(scan())
    os.waitpid(child.pid, 0)
    os.close(child.pid_fd)


def test_a_worker_whose_daemon_was_gone_before_it_was_born_ends_at_once(nursery: Nursery) -> None:
    child = Child()
    send(nursery.pid, signal.SIGSTOP)
    nursery.ask(1, child.theirs, 2**28)
    child.close()
    send(nursery.pid, signal.SIGCONT)
    ((_, pid),) = wait_until(nursery.receive)
    wait_until(lambda: not is_alive(pid), within_s=1)
    os.waitpid(pid, 0)


def test_the_nursery_survives_whatever_its_workers_do(nursery: Nursery) -> None:
    for number, source in enumerate(("exits", "killed", "segfaults", "closes_files")):
        child = bear(nursery, number)
        give(child, source)
        if source == "closes_files":
            child.kill(scan())
        wait_until(child.ending)
        child.reap()
    assert is_alive(nursery.pid)


def test_settings_and_secrets_do_not_reach_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLEAND_API_TOKEN", "hush")
    nursery = Nursery()
    wait_until(lambda: nursery.receive() == [] and nursery.ready)
    child = bear(nursery, 1)
    assert b"hush" not in Path(f"/proc/{child.pid}/environ").read_bytes()
    child.kill(scan())
    wait_until(child.ending)
    child.reap()
    nursery.close()


def test_a_nursery_that_does_not_read_is_refused_not_waited_for(nursery: Nursery) -> None:
    send(nursery.pid, signal.SIGSTOP)
    child = Child()
    with pytest.raises(OSError):
        for number in range(100_000):
            nursery.ask(number, child.theirs, 2**28)
    child.close()
    assert select.select([nursery.sock], [], [], 0) == ([], [], [])
