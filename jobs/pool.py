"""The pool: keeps worker processes, gives each one order at a time, and ends what is too long, to the second.

One thread, one loop: pipes, deaths (pidfd), births (the nursery), commands from other threads, and timers; it never
waits for a commit, a lock held over I/O, or a process. The nursery and its workers start when an order needs one,
and end after a while without. What became of an order is told to the listener, on this thread; it must return at once.
Over the budget of lines: every state of a worker is here, and splitting them would hide the order in which things
happen.
"""

from __future__ import annotations

import logging
import os
import selectors
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Protocol

from clock import Clock
from jobs.book import Book
from jobs.nursery import Nursery
from jobs.process import Child, Proc, adopt_orphans, children, reap_strangers, scan
from jobs.protocol import Message, ProtocolError, order_message, outcome_from_dict, post_from_wire
from model import Order, Outcome, Post

log = logging.getLogger(__name__)

#: How long a deadline's expiry may take to be stored before the pool goes ahead and kills (seconds).
EXPIRE_PATIENCE_S = 1.0
#: A worker, or a nursery, that is not ready after this long is replaced (seconds).
READY_S = 30.0
#: A process that SIGKILL does not end within this is given up on as capacity, and still watched (seconds).
STUCK_S = 10.0
#: A worker that closed its pipe has this long to die by itself (seconds).
CLOSED_S = 0.1
#: A worker without an order for this long ends (seconds).
IDLE_S = 60.0
#: A nursery without a worker for this long ends (seconds).
NURSERY_IDLE_S = 900.0
#: How often /proc is looked at while a dead worker's group is not empty (seconds).
BURIAL_S = 0.02
#: How often orphans that belong to no worker are looked for (seconds).
STRANGERS_S = 1.0
#: Most that one run may report (bytes of messages).
RUN_BYTES = 64 * 1024 * 1024


class Listener(Protocol):
    """Who hears what became of the orders; called on the pool's thread."""

    def finished(self, order: Order, outcome: Outcome) -> None: ...
    def died(self, order: Order, reason: str) -> None: ...
    def overdue(self, order: Order, kind: str) -> None: ...
    def progressed(self, order: Order, text: str) -> None: ...
    def beat(self, order: Order) -> None: ...
    def late(self, order: Order) -> None: ...
    def said(self, order: Order, message: Message) -> None: ...
    def gone(self, order: Order) -> None: ...
    def freed(self) -> None: ...


@dataclass(slots=True)
class Job:
    """An order in a worker."""

    order: Order
    deadline: float
    progressed: float
    posts: list[Post] = field(default_factory=list)
    received: int = 0
    truncated: bool = False
    #: When overdue() was told.
    told: float | None = None
    revoked: bool = False

    def ends(self) -> float:
        """The instant at which it is too long, or too long without progress (monotonic)."""
        return min(self.deadline, self.progressed + self.order.stall_timeout_s)


@dataclass(slots=True)
class Worker:
    """A child and what it is doing: idle, busy, ending, or dead (leader ended, group not known to be empty)."""

    number: int
    child: Child
    state: str
    #: Monotonic instant of the last change of state.
    since: float
    ready: bool = False
    job: Job | None = None
    scrapes: int = 0
    reason: str | None = None
    killed: bool = False
    listening: bool = True
    #: When its report pipe was closed.
    deaf_at: float = 0.0


class Pool:
    """See the module. Methods may be called from any thread."""

    def __init__(
        self,
        *,
        workers: int,
        stop_grace_s: float,
        max_scrapes: int,
        memory_bytes: int,
        clock: Clock,
        listener: Listener,
    ) -> None:
        self._size = workers
        self._grace_s = stop_grace_s
        self._max_scrapes = max_scrapes
        self._memory_bytes = memory_bytes
        self._clock = clock
        self._listener = listener
        self._book = Book(listener.gone)
        self._inbox: deque[tuple[str, int, Any]] = deque()  # Any: what the word before it needs
        self._wake_r, self._wake_w = os.pipe()
        os.set_blocking(self._wake_r, False)
        os.set_blocking(self._wake_w, False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake_r, selectors.EVENT_READ, ("wake", None))
        self._nursery: Nursery | None = None
        self._nursery_since = self._nursery_used_at = 0.0
        self._nursery_failures = 0
        self._lock = threading.Lock()
        #: What other threads see too, under the lock.
        self._workers: dict[int, Worker] = {}
        self._reserved: set[int] = set()
        self._numbers = 0
        self._closing = False
        self._buried_at = 0.0
        self._strangers_at = 0.0
        self._tick = clock.monotonic()
        self._thread = threading.Thread(target=self._run, name="pool", daemon=True)

    # -- from any thread -----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread; once. The nursery, like the workers, is started when an order needs it."""
        adopt_orphans()
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """End every worker, SIGTERM then SIGKILL, and the thread; any number of times, also before start."""
        self._closing = True
        self._wake()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def free(self) -> int:
        """How many orders could be handed over now."""
        with self._lock:
            return len(self._free())

    def _free(self) -> list[int]:
        """Under the lock: numbers of idle workers, then numbers for workers that can be forked."""
        if self._closing:
            return []
        idle = [n for n, w in self._workers.items() if w.state == "idle" and n not in self._reserved]
        nursery = self._nursery
        if self._nursery_failures and (nursery is None or not nursery.ready):
            return idle  # one that failed is to show first that it can
        now = self._clock.monotonic()
        stuck = sum(
            w.state in ("ending", "dead") and now - w.since > self._grace_s + STUCK_S for w in self._workers.values()
        )
        unborn = len(self._reserved - self._workers.keys())
        room = self._size - len(self._workers) + stuck - unborn
        return idle + list(range(self._numbers + 1, self._numbers + 1 + room))

    def reserve(self, n: int) -> list[int]:
        """Keep up to n places for the caller, until `hand_over` or `release`."""
        with self._lock:
            taken = self._free()[:n]
            self._reserved.update(taken)
            self._numbers = max([self._numbers, *taken])
            return taken

    def _new_number(self) -> int:
        with self._lock:
            self._numbers += 1
            return self._numbers

    def release(self, slot: int) -> None:
        """Give a reservation back."""
        with self._lock:
            self._reserved.discard(slot)

    def hand_over(self, slot: int, order: Order) -> None:
        """Give an order to a reserved place; returns at once. The deadline counts from here."""
        self._book.enter(order)
        self._post("order", slot, order)

    def revoke(self, token: int) -> None:
        """Stop the worker that holds this token, if one does; returns at once."""
        if self._book.stop(token):
            self._post("revoke", token)

    def answer(self, token: int, message: Message) -> None:
        """Send what the run of this token asked for; returns at once."""
        self._post("answer", token, message)

    def worker_of(self, target_id: int) -> str:
        """`none`, `running` or `stopping` (its processes are not known to be gone)."""
        return self._book.worker_of(target_id)

    def holds(self, token: int) -> bool:
        """Whether a worker has this order, or is about to get it."""
        return self._book.holds(token)

    def wait_gone(self, target_id: int, timeout_s: float) -> bool:
        """Wait until no stopped worker of the target has a live process; False when it took too long."""
        return self._book.wait_gone(target_id, timeout_s)

    def wait_all_gone(self, timeout_s: float) -> bool:
        """Wait until no stopped worker has a live process; False when it took too long."""
        return self._book.wait_all_gone(timeout_s)

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until no worker has an order and none is stopping; False when it took too long."""
        return self._book.wait_idle(timeout_s)

    def able(self) -> bool:
        """Whether workers can be started: the nursery did not fail several times in a row."""
        return self._nursery_failures < 4

    def tick_age(self) -> float:
        """Seconds since the loop last went round."""
        return self._clock.monotonic() - self._tick

    def pids(self) -> list[int]:
        """Process ids of the workers that have one."""
        with self._lock:
            return [w.child.pid for w in self._workers.values() if w.child.pid]

    def _post(self, what: str, number: int, more: Any = None) -> None:  # Any: what the word needs
        self._inbox.append((what, number, more))
        self._wake()

    def _wake(self) -> None:
        try:
            os.write(self._wake_w, b"x")
        except (BlockingIOError, BrokenPipeError):
            return  # it is awake already, or has ended

    # -- the loop ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not (self._closing and not self._workers and not self._inbox):
            try:
                self.once()
            except Exception:  # noqa: BLE001 - top of the loop: one fault must not stop every deadline
                log.exception("pool_round_failed")
        if self._nursery is not None:
            self._lose_nursery()
        self._selector.close()
        os.close(self._wake_r)

    def once(self) -> None:
        """One round: read what came, take commands, look at the timers."""
        now = self._tick = self._clock.monotonic()
        for key, _ in self._selector.select(max(0.0, self._next_timer(now) - now)):
            what, worker = key.data
            if what == "wake":
                os.read(self._wake_r, 4096)
            elif what == "nursery":
                self._births()
            elif what == "order":
                self._flush(worker)
            elif what == "report" and worker.listening:
                self._hear(worker)
            elif what == "death" and worker.state != "dead":
                self._leader_died(worker)
        self._tick = self._clock.monotonic()
        while self._inbox:
            what, number, more = self._inbox.popleft()
            if what == "order":
                self._take(number, more)
            elif what == "answer":
                self._answer(number, more)
            else:
                self._revoked(number)
        self._timers()
        self._keep_nursery()

    def _next_timer(self, now: float) -> float:
        """The next instant at which something is due (monotonic)."""
        until = now + 1.0
        if self._nursery is None and self._nursery_failures and not self._closing:
            until = min(until, self._nursery_due())
        for worker in self._workers.values():
            job = worker.job
            if worker.state == "dead":
                until = min(until, self._buried_at + BURIAL_S)
            elif worker.state == "ending":
                until = until if worker.killed else min(until, worker.since + self._grace_s)
            elif not worker.listening:
                until = min(until, worker.deaf_at + CLOSED_S)
            elif job is not None:
                until = min(until, job.ends() if job.told is None else job.told + EXPIRE_PATIENCE_S)
        return until

    def _timers(self) -> None:
        now, procs = self._clock.monotonic(), None
        for worker in list(self._workers.values()):
            if worker.state in ("idle", "busy"):
                self._timer(worker, now)
            elif worker.state == "ending" and not worker.killed and now - worker.since >= self._grace_s:
                self._kill(worker)
            unborn = worker.killed and not worker.child.pid and self._nursery is not None
            if unborn and (self._closing or now - worker.since > READY_S):
                self._lose_nursery()  # it does not fork: what it never bore is given up
            if worker.state == "dead" and (procs is not None or now - self._buried_at >= BURIAL_S):
                self._buried_at = now  # also when it cannot be looked at: that is tried again later
                try:
                    procs = scan() if procs is None else procs
                except OSError as exc:  # nothing is known of it, and the other workers' timers must not wait
                    log.error('processes_not_seen error="%s"', exc)
                    continue
                self._bury(worker, procs)
        born = all(worker.child.pid for worker in self._workers.values())
        if born and now - self._strangers_at >= STRANGERS_S:  # one that is being born is a stranger for a moment
            self._strangers_at = now
            reap_strangers(self._strangers())

    def _timer(self, worker: Worker, now: float) -> None:
        job = worker.job
        if self._closing:
            self._end(worker, "the daemon is stopping")
        elif not worker.listening and now - worker.deaf_at >= CLOSED_S:
            self._fail(worker, "the worker closed its pipe")
        elif job is None:
            if now - worker.since > IDLE_S:
                self._retire(worker)  # one that is reserved meanwhile is replaced
        elif job.told is not None:
            if now - job.told >= EXPIRE_PATIENCE_S:
                self._revoked(job.order.token)  # it could not be stored in time: the work ends all the same
        elif now >= job.ends():
            job.told = now
            self._listener.overdue(job.order, "deadline" if now >= job.deadline else "stalled")
        elif not worker.ready and now - worker.since > READY_S:
            self._fail(worker, "the worker process did not start in time")

    # -- the nursery ---------------------------------------------------------------------------------------------

    def _keep_nursery(self) -> None:
        """End one that is not needed; start one in place of one that failed, later and later, up to every 10 s."""
        now = self._clock.monotonic()
        if self._workers:
            self._nursery_used_at = now
        if self._nursery is not None:
            if not self._nursery.ready and now - self._nursery_since > READY_S:
                self._lose_nursery()
            elif not self._workers and now - self._nursery_used_at > NURSERY_IDLE_S:
                self._lose_nursery()
                self._nursery_failures = 0
        elif self._nursery_failures and not self._closing and now >= self._nursery_due():
            self._start_nursery()

    def _start_nursery(self) -> None:
        self._nursery_since = self._nursery_used_at = self._clock.monotonic()
        try:
            self._nursery = Nursery()
        except OSError as exc:
            self._nursery_failures = min(self._nursery_failures + 1, 10)
            log.error('nursery_not_started error="%s"', exc)
            return
        self._selector.register(self._nursery.sock, selectors.EVENT_READ, ("nursery", None))

    def _nursery_due(self) -> float:
        """When the next one is to be started, where there is none (monotonic)."""
        return self._nursery_since + float(min(0.1 * 2**self._nursery_failures, 10.0)) - 0.1

    def _births(self) -> None:
        if self._nursery is None:
            return
        try:
            was_ready = self._nursery.ready
            for number, pid in self._nursery.receive():
                self._born(number, pid)
            if self._nursery.ready and not was_ready:
                self._nursery_failures = 0
                self._listener.freed()
        except EOFError:
            log.error("nursery_died pid=%d", self._nursery.pid)
            self._lose_nursery()

    def _lose_nursery(self) -> None:
        """Its workers live on; those not born yet are given up: closing their life pipe kills them."""
        assert self._nursery is not None
        self._selector.unregister(self._nursery.sock)
        self._nursery.close()
        self._nursery = None
        self._nursery_failures = min(self._nursery_failures + 1, 10)
        self._nursery_since = self._clock.monotonic()
        for worker in list(self._workers.values()):
            if not worker.child.pid:
                self._stillborn(worker, "the worker process could not be started: the nursery died")

    def _spawn(self, number: int) -> Worker | None:
        """Ask for a worker; None when there cannot be one now."""
        if self._nursery is None and not self._nursery_failures:
            self._start_nursery()
        if self._nursery is None:
            return None
        try:
            child = Child()
        except OSError as exc:
            log.error('worker_not_started error="%s"', exc)
            return None
        try:
            self._nursery.ask(number, child.theirs, self._memory_bytes)
        except OSError as exc:
            log.error('worker_not_started error="%s"', exc)
            child.close()
            return None
        child.handed()
        worker = Worker(number=number, child=child, state="idle", since=self._clock.monotonic())
        with self._lock:
            self._workers[number] = worker
        self._selector.register(child.report_fd, selectors.EVENT_READ, ("report", worker))
        return worker

    def _born(self, number: int, pid: int) -> None:
        worker = self._workers.get(number)
        if worker is None:
            return  # given up before; its life pipe is closed
        if not pid:
            self._stillborn(worker, "the machine has no room for a worker process")
            return
        try:
            worker.child.born(pid)
        except OSError as exc:
            log.error('worker_not_started error="%s"', exc)
            worker.child.disown()
            self._stillborn(worker, "the machine has no room for a worker process")
            return
        self._selector.register(worker.child.pid_fd, selectors.EVENT_READ, ("death", worker))
        if worker.killed:
            self._kill(worker)
        elif worker.state == "ending":
            worker.child.terminate()

    def _stillborn(self, worker: Worker, reason: str) -> None:
        job = worker.job
        self._remove(worker)
        worker.child.close()
        if job is not None:
            if not job.revoked:
                self._listener.died(job.order, worker.reason or reason)
            self._book.forget(job.order.token)
        self._listener.freed()

    # -- orders --------------------------------------------------------------------------------------------------

    def _take(self, number: int, order: Order) -> None:
        worker = self._workers.get(number)
        if not self.holds(order.token):  # revoked before it was handed over
            self.release(number)
            self._book.forget(order.token)
            return
        if worker is not None and worker.state != "idle":  # it ended since it was reserved
            worker = None
            self.release(number)
            number = self._new_number()
        if worker is None:
            worker = self._spawn(number)
        self.release(number)
        if worker is None:
            self._listener.died(order, "the worker process was gone before it got the order")
            self._book.forget(order.token)
            return
        now = self._clock.monotonic()
        worker.job = Job(order=order, deadline=now + order.timeout_s, progressed=now)
        self._enter(worker, "busy")
        worker.scrapes += 1
        self._send(worker, order_message(order))

    def _answer(self, token: int, message: Message) -> None:
        for worker in self._workers.values():
            if worker.job is not None and worker.job.order.token == token and not worker.job.revoked:
                self._send(worker, message)

    def _send(self, worker: Worker, message: Message) -> None:
        try:
            if worker.child.send(message):
                return
            if worker.child.order_fd not in self._selector.get_map():  # larger than the pipe: as it is read
                self._selector.register(worker.child.order_fd, selectors.EVENT_WRITE, ("order", worker))
        except ProtocolError as exc:
            self._fail(worker, str(exc))
        except OSError:
            return  # its death is seen in the next round

    def _flush(self, worker: Worker) -> None:
        try:
            done = worker.child.flush()
        except OSError:
            done = True
        if done:
            self._unwatch_order(worker)

    def _unwatch_order(self, worker: Worker) -> None:
        if worker.child.order_fd >= 0 and worker.child.order_fd in self._selector.get_map():
            self._selector.unregister(worker.child.order_fd)

    def _revoked(self, token: int) -> None:
        for worker in self._workers.values():
            if worker.job is not None and worker.job.order.token == token:
                self._book.stop(token)
                worker.job.revoked = True
                self._end(worker, "the run was ended")
                return
        self._book.forget(token)

    # -- reports -------------------------------------------------------------------------------------------------

    def _hear(self, worker: Worker) -> None:
        try:
            messages, closed = worker.child.receive()
            for message in messages:
                self._message(worker, message)
        except Exception as exc:  # noqa: BLE001 - whatever one worker sends must not cost the others their deadlines
            if not isinstance(exc, ProtocolError):
                log.exception("report_not_understood pid=%d", worker.child.pid)
            self._fail(worker, f"the worker broke the protocol: {exc}")
            closed = True
        if closed:  # most times its death follows at once, and says more
            self._deafen(worker)

    def _deafen(self, worker: Worker) -> None:
        if worker.listening:
            worker.listening, worker.deaf_at = False, self._clock.monotonic()
            self._selector.unregister(worker.child.report_fd)

    def _message(self, worker: Worker, message: Message) -> None:
        kind, job = message.get("t"), worker.job
        if kind == "ready":
            worker.ready = True
        elif job is None or message.get("token") != job.order.token:
            return  # of an earlier order
        elif job.revoked:
            if kind == "result":
                self._listener.late(job.order)
        elif kind == "beat":
            self._listener.beat(job.order)
        elif kind == "progress":
            job.progressed = self._clock.monotonic()
            self._listener.progressed(job.order, str(message.get("text", ""))[:200])
        elif kind in ("ask", "told", "robots"):
            self._listener.said(job.order, message)
        elif kind == "posts":
            job.progressed = self._clock.monotonic()
            self._posts(job, message.get("posts"))
        elif kind == "result":
            self._result(worker, job, message)
        else:
            raise ProtocolError("a message of no known kind")

    def _posts(self, job: Job, posts: Any) -> None:  # Any: whatever a worker sent
        if not isinstance(posts, list):
            raise ProtocolError("posts are not a list")
        for one in posts:
            if len(job.posts) >= job.order.limits.max_posts or job.received > RUN_BYTES:
                job.truncated = True
                return
            post = post_from_wire(one)
            texts = (post.html, post.text, post.title, post.native_id, post.url, post.author, *post.media)
            job.received += 200 + sum(map(len, texts))
            job.posts.append(post)

    def _result(self, worker: Worker, job: Job, message: Message) -> None:
        outcome = outcome_from_dict(message, posts=tuple(job.posts), truncated=job.truncated)
        self._listener.finished(job.order, outcome)
        job.posts = []
        if message.get("dirty") or self._left_behind(worker):
            self._book.stop(job.order.token)
            job.revoked = True
            self._end(worker, "its scrape left processes or threads behind")
            return
        worker.job = None
        if worker.scrapes >= self._max_scrapes:
            self._retire(worker)
        else:
            self._enter(worker, "idle")
        self._book.forget(job.order.token)
        self._listener.freed()

    def _left_behind(self, worker: Worker) -> bool:
        """Whether orphans of its scrape came to us; most times there is no child we do not know."""
        if not self._strangers():
            return False
        procs = scan()
        worker.child.reap_orphans(procs)
        return len(worker.child.alive(procs)) > 1

    def _strangers(self) -> set[int]:
        """Children that are neither worker nor nursery."""
        known = {w.child.pid for w in self._workers.values()}
        if self._nursery is not None:
            known.add(self._nursery.pid)
        return children() - known

    # -- processes -----------------------------------------------------------------------------------------------

    def _enter(self, worker: Worker, state: str) -> None:
        with self._lock:
            worker.state, worker.since = state, self._clock.monotonic()

    def _fail(self, worker: Worker, reason: str) -> None:
        """The worker is no good: its run has failed, whenever its processes are gone."""
        worker.reason = reason
        self._died(worker, reason)
        self._end(worker, reason)

    def _died(self, worker: Worker, reason: str) -> None:
        """Tell that its run ended without a result, unless it is known to have ended."""
        job = worker.job
        if job is not None and not job.revoked:
            self._book.stop(job.order.token)
            job.revoked = True
            self._listener.died(job.order, reason)

    def _retire(self, worker: Worker) -> None:
        """It has no order: let it end by itself."""
        self._unwatch_order(worker)
        worker.child.hang_up()
        self._enter(worker, "ending")

    def _end(self, worker: Worker, why: str) -> None:
        """Begin to stop it: SIGTERM now, SIGKILL by a timer."""
        if worker.state in ("ending", "dead"):
            return
        log.info('worker_stopping pid=%d why="%s"', worker.child.pid, why)
        worker.reason = worker.reason or why
        self._enter(worker, "ending")
        worker.child.terminate()
        if self._grace_s <= 0:
            self._kill(worker)

    def _kill(self, worker: Worker) -> None:
        worker.child.kill_group()
        log.info("worker_killed pid=%d", worker.child.pid)
        worker.killed = True
        try:
            worker.child.kill(scan())
        except OSError as exc:  # the group is killed; what left it is looked for at the burial
            log.error('processes_not_seen error="%s"', exc)

    def _leader_died(self, worker: Worker) -> None:
        """Read what it still said and tell; the rest of its group is killed at the burial, in this round."""
        reason = worker.child.ending()
        if reason is None:
            return
        self._selector.unregister(worker.child.pid_fd)
        for _ in range(512):  # a run's whole report fits
            if not worker.listening or worker.job is None:
                break
            self._hear(worker)
        self._deafen(worker)
        told, self._buried_at = worker.reason if worker.state == "ending" else None, 0.0
        if worker.state != "ending":
            log.warning('worker_died pid=%d reason="%s"', worker.child.pid, reason)
        self._enter(worker, "dead")
        worker.child.kill_group()
        self._died(worker, told or reason)

    def _bury(self, worker: Worker, procs: dict[int, Proc]) -> None:
        """Kill what is left; once nothing is alive, reap, forget and make room for a new one."""
        if worker.child.alive(procs):
            worker.child.kill(procs)
            return
        self._remove(worker)
        worker.child.reap_orphans(procs)
        worker.child.reap()
        if worker.job is not None:
            self._book.forget(worker.job.order.token)
        self._listener.freed()

    def _remove(self, worker: Worker) -> None:
        self._deafen(worker)
        self._unwatch_order(worker)
        with self._lock:
            self._workers.pop(worker.number, None)
            self._reserved.discard(worker.number)
