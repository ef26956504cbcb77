"""Every kind of hang ends in TIMEOUT, visible at the deadline, with nothing of the run left alive."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

import pytest

from tests.support.daemon import Daemon, worker_name
from tests.support.settings import scrapers
from tests.support.sites import Asked, Reply, Site
from tests.support.waiting import wait_until
from tests.support.watching import Seen, Watch

#: Promised: visible this long after the deadline, and gone this long after that (seconds).
VISIBLE_S, GONE_S, GRACE_S = 0.5, 0.5, 2.0
#: Servers that hang, as paths of the site below.
SERVERS = ("/silent", "/drips-body", "/drips-headers", "/drips-status")
POLITE = [
    "sleeps",
    "holds_gil",
    "swallows",
    "has_grandchild",
    "has_far_grandchild",
    "daemonizes",
    "stops_itself",
    "stops_in_mid_message",
    "fetches /full",
    *(f"fetches {path}" for path in SERVERS),
    *(f"feed {path}" for path in SERVERS),
    "spins",
]
STUBBORN = ["ignores_sigterm", "has_stubborn_grandchild"]


def hang_in_http(site: Site) -> None:
    """Give the site an address for each way in which a server can keep its client waiting."""

    def drip(head: bytes, piece: bytes) -> Iterator[bytes]:
        yield head
        while not site.closing.wait(1.0):
            yield piece

    def answer(path: str, head: bytes, piece: bytes) -> None:
        def reply(_: Asked) -> Reply:
            return Reply(body=drip(head, piece), raw=True)

        site.answer_with(path, reply)

    answer("/silent", b"", b"")
    answer("/drips-status", b"H", b"T")
    answer("/drips-headers", b"HTTP/1.1 200 OK\r\nX-Slow: ", b"y")
    answer("/drips-body", b"HTTP/1.1 200 OK\r\nContent-Type: application/rss+xml\r\n\r\n<rss>", b" ")


def tell(found: Iterable[Seen]) -> None:
    """Print the figures."""
    late, left = max(seen.late_s for seen in found), sorted(seen.left_s for seen in found)
    print(f"late at most {late:.3f} s; left behind for {left[len(left) // 2]:.3f} s (median), {left[-1]:.3f} s (most)")


@pytest.fixture(scope="module")
def deaf() -> Iterator[str]:
    """An address whose queue of connections is full: connecting to it takes for ever."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        clients = []
        for _ in range(4):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(server.getsockname())
            clients.append(client)
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"
        for client in clients:
            client.close()


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, deaf: str) -> Iterator[dict[str, Seen]]:
    """Every kind at once, each watched from its start to the end of its last process."""
    home = tmp_path_factory.mktemp("hangs") / "data"
    kinds = STUBBORN + POLITE
    more = {"scrape_timeout_s": 3, "stop_grace_s": GRACE_S, "workers": len(kinds), "host_concurrency": 50}
    with Site() as site, Daemon(home, **more, **scrapers()) as daemon:
        hang_in_http(site)
        with Watch(daemon) as watch:
            ids: dict[str, int] = {}
            for kind in kinds:
                source, _, path = kind.partition(" ")
                handle = deaf if path == "/full" else site.url(path) if path else "x"
                target, leader = daemon.scraping(f"{source}:{handle}" if source != "feed" else handle)
                watch.add(target, leader)
                ids[kind] = target
            found = watch.wait(within_s=12)
        tell(found.values())
        assert not daemon.descendants()
        assert daemon.status()["running"] is False
        yield {kind: found[target] for kind, target in ids.items()}


@pytest.mark.parametrize("kind", POLITE + STUBBORN)
def test_a_hang_is_timeout_at_its_deadline_and_never_before(seen: dict[str, Seen], kind: str) -> None:
    status = seen[kind].status
    assert status is not None
    assert status["state"] == "TIMEOUT"
    assert status["error"] == "the scrape ran longer than 3 s"
    assert 0 <= seen[kind].late_s <= VISIBLE_S


@pytest.mark.parametrize("kind", POLITE)
def test_no_process_of_a_hang_is_left_half_a_second_later(seen: dict[str, Seen], kind: str) -> None:
    assert seen[kind].left_s <= GONE_S


@pytest.mark.parametrize("kind", STUBBORN)
def test_what_ignores_sigterm_is_gone_after_the_grace(seen: dict[str, Seen], kind: str) -> None:
    assert seen[kind].left_s <= GONE_S + GRACE_S


@pytest.mark.parametrize("kind", POLITE + STUBBORN)
def test_a_status_without_a_worker_means_that_no_process_is_alive(seen: dict[str, Seen], kind: str) -> None:
    assert seen[kind].survivors == set()


def test_one_that_ignores_sigterm_keeps_the_grace_it_was_promised(seen: dict[str, Seen]) -> None:
    assert seen["ignores_sigterm"].left_s >= GRACE_S - 0.5


# -- stalls ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    home = tmp_path_factory.mktemp("stalls") / "data"
    more = {"scrape_timeout_s": 30, "stall_timeout_s": 1.5, "host_concurrency": 50}
    with Daemon(home, **more, **scrapers()) as daemon:
        yield daemon


def test_a_scrape_without_progress_is_timeout_as_stalled(impatient: Daemon) -> None:
    target = impatient.add("sleeps:x")["user"]["id"]
    running = impatient.wait_state(target, "RUNNING")
    status = impatient.wait_state(target, "TIMEOUT", within_s=5)
    assert status["reason"] == "stalled"
    assert status["error"] == "the scrape made no progress for 1.5 s"
    (run,) = impatient.runs(target)
    ended, began = (datetime.fromisoformat(text) for text in (run["ended_at"], running["started_at"]))
    assert 1.5 <= (ended - began).total_seconds() <= 1.5 + VISIBLE_S


def test_a_stall_counts_from_the_last_progress(impatient: Daemon) -> None:
    with Site() as site:
        hang_in_http(site)
        target = impatient.add(f"fetches:{site.url('/drips-then-nothing')}")["user"]["id"]
        assert impatient.wait_state(target, "FAILED")["error"] == "the server answered with status 404"

        def two_pieces() -> Iterator[bytes]:
            yield b"HTTP/1.1 200 OK\r\n\r\n<"
            site.closing.wait(1.0)
            yield b"rss>"
            site.closing.wait(30)

        site.answer_with("/drips-then-nothing", lambda _: Reply(body=two_pieces(), raw=True))
        impatient.add(f"fetches:{site.url('/drips-then-nothing')}")
        status = impatient.wait_state(target, "TIMEOUT", within_s=6)
        assert status["reason"] == "stalled"
        assert 2.4 <= impatient.runs(target)[0]["duration_s"] <= 2.6 + VISIBLE_S


def test_a_slow_scrape_that_moves_is_not_stalled(impatient: Daemon) -> None:
    target = impatient.add("slow:3")["user"]["id"]
    assert impatient.wait_state(target, "COMPLETED", "TIMEOUT", "FAILED")["state"] == "COMPLETED"
    assert impatient.runs(target)[0]["duration_s"] >= 3.0


def test_a_server_that_drips_its_body_moves_until_the_deadline(impatient: Daemon) -> None:
    with Site() as site:
        hang_in_http(site)
        target = impatient.create(site.url("/drips-body"), timeout_s=3)
        assert impatient.pull(target, "start").status_code == 200
        status = impatient.wait_state(target, "TIMEOUT", within_s=6)
        assert status["reason"] == "deadline"
        assert status["error"] == "the scrape ran longer than 3 s"


# -- many at once ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def twenty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, dict[str, Seen]]]:
    """Twenty runs that began in one claim, one of them stubborn, while others come and go in the same daemon."""
    home = tmp_path_factory.mktemp("twenty") / "data"
    kinds = ["ignores_sigterm:0"] + [f"{s}:{n}" for n in range(5) for s in ("sleeps", "swallows", "has_grandchild")]
    kinds += [f"holds_gil:{n}" for n in range(4)]
    with Daemon(home, scrape_timeout_s=3, stop_grace_s=GRACE_S, workers=22, **scrapers()) as daemon:
        ids = {kind: daemon.create(kind) for kind in kinds}
        assert len(ids) == 20
        assert daemon.call("POST", "/api/users/refresh-all").status_code == 200
        with Watch(daemon) as watch:
            workers = wait_until(lambda: len(workers := daemon.workers()) == 20 and workers)
            for target, leader in zip(ids.values(), sorted(workers), strict=True):
                watch.add(target, leader)  # born in the order of the claim
            daemon.create("slow:6", timeout_s=20, start=True)
            daemon.create("brisk:x", schedule="every 1s", start=True)
            found = watch.wait(within_s=12)
        tell(found.values())
        yield daemon, {kind: found[target] for kind, target in ids.items()}


def test_twenty_runs_with_one_deadline_are_all_timeout_and_gone_within_a_second(
    twenty: tuple[Daemon, dict[str, Seen]],
) -> None:
    runs = {kind: seen for kind, seen in twenty[1].items() if not kind.startswith("ignores")}
    deadlines = [seen.deadline for seen in runs.values()]
    assert max(deadlines) - min(deadlines) < 0.05
    assert {seen.status["state"] for seen in runs.values() if seen.status} == {"TIMEOUT"}
    assert min(seen.late_s for seen in runs.values()) >= 0
    assert max(seen.late_s for seen in runs.values()) <= VISIBLE_S
    assert max(seen.gone - seen.deadline for seen in runs.values()) <= 1.0


def test_one_that_ignores_sigterm_delays_nobody_else(twenty: tuple[Daemon, dict[str, Seen]]) -> None:
    stubborn = twenty[1]["ignores_sigterm:0"]
    assert stubborn.gone > max(seen.gone for kind, seen in twenty[1].items() if kind != "ignores_sigterm:0")
    assert stubborn.left_s <= GONE_S + GRACE_S


def test_other_targets_go_on_undisturbed(twenty: tuple[Daemon, dict[str, Seen]]) -> None:
    daemon, seen = twenty
    by_name = {t["username"]: t["id"] for t in daemon.get("/api/targets?limit=100")["targets"]}
    assert daemon.wait_state(by_name["6"], "COMPLETED")["last_run"]["posts_seen"] == 6
    stopping = max(one.gone for one in seen.values())
    runs = [run for run in daemon.runs(by_name["x"]) if run["ended_at"]]
    assert {run["state"] for run in runs} == {"COMPLETED"}
    assert max(run["duration_s"] for run in runs) < 1.5
    starts = sorted(datetime.fromisoformat(run["started_at"]).timestamp() for run in runs)
    near = [at for at in starts if at < stopping + 1]
    assert len(near) >= 3
    assert max(b - a for a, b in zip(near, near[1:], strict=False)) < 3.0


def test_the_daemon_has_no_process_but_workers_and_the_nursery(twenty: tuple[Daemon, dict[str, Seen]]) -> None:
    daemon, _ = twenty
    assert all(worker_name(pid) == f"gw{pid}" for pid in daemon.descendants())
    assert Path(f"/proc/{daemon.pid}").exists()
