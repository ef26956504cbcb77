"""Scrapers for the tests, one for each way in which a scrape goes well or badly. Run in workers only."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time

from model import Post


def good(target, http):
    """One post, at once."""
    yield Post(native_id="1", title=f"hello from {target.handle}", url="https://a.example/1", text="text")


def sleeps(target, http):
    time.sleep(10_000)


def spins(target, http):
    while True:
        pass


def holds_gil(target, http):
    """A C call that never gives up the GIL."""
    ctypes.PyDLL(None).sleep(10_000)


def swallows(target, http):
    while True:
        try:
            time.sleep(10_000)
        except BaseException:  # noqa: BLE001, S110 - the point of it
            pass


def ignores_sigterm(target, http):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(10_000)


def has_grandchild(target, http):
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(10_000)  # grandchild"])
    time.sleep(10_000)


def has_stubborn_grandchild(target, http):
    code = "import signal, time; signal.signal(15, 1); time.sleep(10_000)  # grandchild"
    subprocess.Popen([sys.executable, "-c", code])
    time.sleep(10_000)


def daemonizes(target, http):
    """A grandchild in a session of its own whose parent is gone."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(10_000)
        os._exit(0)
    time.sleep(10_000)


def leaves_child(target, http):
    """Succeeds, and leaves a process behind."""
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(10_000)  # left"])
    yield Post(native_id="1", title="done")


def fetches(target, http):
    """Fetch the handle as an address: hangs in HTTP as it does."""
    answer = http.get(target.handle)
    yield Post(native_id=answer.url, text=answer.text[:100])


def raises(target, http):
    raise ValueError("<b>no</b> such luck")


def killed(target, http):
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(10_000)


def exits(target, http):
    os._exit(3)


def eats_memory(target, http):
    block = bytearray(8 * 1024**3)
    yield Post(native_id=str(len(block)))


def slow(target, http):
    """A post a second for as many seconds as the handle says."""
    for n in range(int(target.handle)):
        time.sleep(1)
        yield Post(native_id=str(n), title=f"post {n}")


def floods(target, http):
    """More than a run may report."""
    for n in range(100_000):
        yield Post(native_id=str(n), title="x" * 100, text="y" * 1000)


def writes_garbage(target, http):
    """Anything into every pipe it has."""
    for fd in range(3, 64):
        try:
            os.write(fd, b"\xff" * 64)
        except OSError:
            continue
    time.sleep(10_000)
