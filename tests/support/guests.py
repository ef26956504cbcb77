"""Sites that a daemon is a guest of, and whether it was a good one: told by their own logs of requests."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise

from tests.support.daemon import Daemon
from tests.support.feeds import RSS, rss
from tests.support.sites import Asked, Reply, Site, Visit
from tests.support.waiting import wait_until


@contextmanager
def sites(count: int) -> Iterator[list[Site]]:
    """That many sites, each on a port of its own, and so a host of its own."""
    with ExitStack() as stack:
        yield [stack.enter_context(Site()) for _ in range(count)]


def serve(
    site: Site, count: int, *, after_s: float = 0.0, busy: Callable[[int], int | None] | None = None
) -> list[str]:
    """Let a site have feeds, which do not differ; gives their addresses.

    Args:
        after_s: How long each answer takes (seconds).
        busy: How long the answer to a request of this number tells us to wait (seconds); None: it is an answer.
    """
    numbers = itertools.count()

    def reply(_: Asked) -> Reply:
        wait_s = busy(next(numbers)) if busy is not None else None
        if wait_s is not None:
            return Reply(status=429, headers={"Retry-After": str(wait_s)})
        return Reply(body=rss("one"), headers={"Content-Type": RSS}, after_s=after_s)

    for n in range(count):
        site.answer_with(f"/{n}", reply)
    return [site.url(f"/{n}") for n in range(count)]


def ordered(site: Site) -> list[Visit]:
    """What a site was asked, in order."""
    return sorted(site.visits, key=lambda visit: visit.began)


def check_manners(site: Site, *, delay_s: float) -> None:
    """Never two requests at once, never one sooner than the delay after another, never before Retry-After is over."""
    visits, until = ordered(site), 0.0
    for one in visits:
        assert one.began >= until, f"{one.path} came {until - one.began:.3f} s before the wait was over"
        if one.reply is not None and "Retry-After" in one.reply.headers:
            until = one.ended + float(one.reply.headers["Retry-After"])
    for one, other in pairwise(visits):
        assert other.began >= one.ended, f"{one.path} and {other.path} at once"
        rest_s = other.began - one.ended
        assert rest_s >= delay_s, f"{other.path} came {rest_s:.4f} s after {one.path}"


def track(daemon: Daemon, urls: Sequence[str]) -> list[int]:
    """Let the daemon know targets, without starting one."""
    return [daemon.create(url) for url in urls]


def refresh(daemon: Daemon) -> int:
    """Ask for all; the id of the sweep."""
    return int(daemon.call("POST", "/api/users/refresh-all", {}).json()["sweep_id"])


def is_over(daemon: Daemon, sweep_id: int) -> bool:
    return not daemon.get(f"/api/scrape-status?sweep_id={sweep_id}")["running"]


def wait_over(daemon: Daemon, sweep_id: int, *, within_s: float) -> dict[str, object]:
    """Wait until a sweep has ended; its status."""
    wait_until(lambda: is_over(daemon, sweep_id), within_s=within_s, every_s=0.05)
    status: dict[str, object] = daemon.get(f"/api/scrape-status?sweep_id={sweep_id}")
    return status
