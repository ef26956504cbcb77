"""Scrapers for the tests, one for each way in which a scrape goes well or badly. Run in workers only."""

from __future__ import annotations

import ctypes
import os
import signal
import stat
import subprocess
import sys
import threading
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


def stops_itself(target, http):
    """Stopped by a signal in mid-scrape, with a post in hand."""
    yield Post(native_id="never")
    os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(10_000)


def stops_in_mid_message(target, http):
    """Announces a message in its report pipe, sends a part of it, and hangs."""
    for fd in range(3, 64):
        try:
            if stat.S_ISFIFO(os.fstat(fd).st_mode):
                os.write(fd, b"\0\0\4\0{")
        except OSError:
            continue
    time.sleep(10_000)


def late(target, http):
    """Ignores SIGTERM, and reports success after as many seconds as the handle says."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(float(target.handle))
    yield Post(native_id="late")


def late_once(target, http):
    """Like `late` at first, then one post at once; the handle is a file in which it keeps that."""
    if not os.path.exists(target.handle):
        open(target.handle, "w").close()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(1.5)
        yield Post(native_id="late")
    yield Post(native_id="fresh")


def brisk(target, http):
    """Five posts within half a second."""
    for n in range(5):
        time.sleep(0.1)
        yield Post(native_id=str(n), title=f"post {n}")


def exclusive(target, http):
    """Fails when another scrape of the same target is alive; the handle is a file that says so. Ignores SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with open(target.handle, "a+") as mark:
        mark.seek(0)
        pid = mark.read()
        if pid not in ("", str(os.getpid())) and os.path.exists(f"/proc/{pid}"):
            raise RuntimeError(f"process {pid} scrapes it too")
        mark.truncate(0)
        mark.write(str(os.getpid()))
    if pid:
        yield Post(native_id="second")
    else:
        time.sleep(10_000)


def segfaults(target, http):
    ctypes.string_at(0)


def eats_slowly(target, http):
    """Small pieces: little is left when the limit is met."""
    hoard = []
    while True:
        hoard.append(bytearray(100_000))


def calls_exit(target, http):
    sys.exit("enough")


def closes_files(target, http):
    os.closerange(3, 64)
    time.sleep(10_000)


def forks(target, http):
    """Goes on twice; only one of them may report."""
    os.fork()
    yield Post(native_id=str(os.getpid()))


def leaves_daemon(target, http):
    """Succeeds, and leaves a process in a session of its own."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(10_000)
        os._exit(0)
    os.wait()
    yield Post(native_id="1")


def leaves_stranger(target, http):
    """Succeeds, and leaves a process that has nothing of ours: no session, no parent, no name, no environment."""
    subprocess.run(["sh", "-c", "setsid sleep 0.3 >/dev/null 2>&1 &"], env={"PATH": os.environ["PATH"]}, check=True)
    yield Post(native_id="1")


def leaves_thread(target, http):
    """Succeeds, and leaves a thread that works on."""
    threading.Thread(target=time.sleep, args=(10_000,), daemon=True).start()
    yield Post(native_id=str(os.getpid()))


def tells_pid(target, http):
    yield Post(native_id=str(os.getpid()))


def waits(target, http):
    """Writes its pid into the file that the handle names, and hangs."""
    with open(f"{target.handle}.new", "w") as new:
        new.write(str(os.getpid()))
    os.rename(f"{target.handle}.new", target.handle)
    time.sleep(10_000)


def has_far_grandchild(target, http):
    """One in a session of its own, as browsers are started."""
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(10_000)  # grandchild"], start_new_session=True)
    time.sleep(10_000)


def leaves_alarm(target, http):
    """Succeeds, and leaves a timer that would kill whatever runs in this process a moment later."""
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    yield Post(native_id=str(os.getpid()))


def forges(target, http):
    """Sends a message of its own making in place of the worker; the handle is a file, TOKEN in it our token."""
    frame = sys._getframe()
    while "reporter" not in frame.f_locals:
        frame = frame.f_back
    reporter = frame.f_locals["reporter"]
    with open(target.handle, "rb") as file:
        text = file.read()
    text = text.replace(b"TOKEN", str(reporter.token).encode())
    os.write(reporter._fd, len(text).to_bytes(4, "big") + text)
    time.sleep(10_000)


def asks_for_ever(target, http):
    raise Impatient("later")


class Impatient(Exception):
    retry_after_s = float("inf")


def fetches_all(target, http):
    """Fetch the addresses of the handle, a bar between them, one after the other.

    With a bar before the first, the target has no host of its own, and all are asked for from inside the run.
    """
    for url in filter(None, target.handle.split("|")):
        yield Post(native_id=http.get(url).text[:20] + url)


def fetches_and_stops(target, http):
    """Fetch the handle (behind a bar) as an address, and be stopped by a signal with the turn in hand."""
    http.get(target.handle.strip("|"))
    os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(10_000)
