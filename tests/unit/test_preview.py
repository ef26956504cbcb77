"""A preview: scraped once, shown, not kept; each refusal and each bound of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import inspect

from errors import Busy, Draining, Refused, StoreUnavailable, TooMany, Unusable
from jobs.preview import AT_ONCE, FIRST_TOKEN, LONGEST_S, SPARE_S, WAIT_S
from model import Order, Outcome, Post, Profile
from store.engine import open_engine
from tests.support.fake_pool import House
from tests.support.waiting import wait_until

FEED = "http://a.example/feed"
HOST = "a.example:80"
AT = datetime(2026, 3, 1, tzinfo=UTC)
ONE = Post(native_id="1", url="http://a.example/1", title="one", text="text", published_at=AT)


class Previewing(House):
    """A house in which previews are asked for on threads, as the HTTP server does."""

    def __enter__(self) -> Previewing:
        super().__enter__()
        self._threads = ThreadPoolExecutor(8)
        return self

    def __exit__(self, *why: object) -> None:
        self.core.draining = True  # whoever waits still goes away
        self._threads.shutdown()
        super().__exit__(*why)

    def preview(self, name: str, **more: Any) -> Future[dict[str, Any]]:
        return self._threads.submit(self.service.preview, target=name, **more)

    def begun(self, name: str, **more: Any) -> tuple[Future[dict[str, Any]], Order]:
        """A preview that is in a worker, and its order."""
        before = len(self.pool.orders)
        future = self.preview(name, **more)
        wait_until(lambda: len(self.pool.orders) > before or future.done())
        assert not future.done(), future.exception()
        return future, self.pool.orders[-1]

    def ends(self, name: str, *posts: Post, outcome: Outcome | None = None, **more: Any) -> dict[str, Any]:
        """A preview that found this, or came to that; its answer."""
        future, order = self.begun(name, **more)
        self._tell(order.target.handle, outcome or Outcome(ok=True, posts=posts))
        return future.result(5)

    def counts(self) -> dict[str, int]:
        """Rows of every table."""
        return {name: self.count(name) for name in inspect(self.engine).get_table_names()}


Make = Callable[..., Previewing]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes houses with these settings."""
    made: list[Previewing] = []

    def one(**settings: Any) -> Previewing:
        made.append(Previewing(tmp_path, **settings).__enter__())
        return made[-1]

    yield one
    for house in made:
        house.__exit__()


@pytest.fixture
def house(make: Make) -> Previewing:
    return make(size=4)


# -- what is shown ---------------------------------------------------------------------------------------------------


def test_what_would_be_kept_is_shown_as_posts_without_ids(house: Previewing) -> None:
    html = '<p onclick="x()">a</p><script>x()</script>'
    post = Post(native_id="1", url="http://a.example/1", title="one", text="text", html=html, published_at=AT)
    future, order = house.begun(FEED)
    house.clock.advance(1.5)
    outcome = Outcome(ok=True, posts=(post,), profile=Profile(display_name="A feed"))
    house._tell(order.target.handle, outcome)
    shown = future.result(5)
    assert shown == {
        "source": "feed",
        "handle": FEED,
        "url": FEED,
        "outcome": "COMPLETED",
        "error": None,
        "duration_s": 1.5,
        "display_name": "A feed",
        "moved_to": None,
        "posts": [
            {
                "post_text": "text",
                "post_url": "http://a.example/1",
                "author_name": "A feed",
                "source_username": FEED,
                "source_display_name": "A feed",
                "source_initials": "AF",
                "published_at": "2026-03-01T00:00:00.000+00:00",
                "title": "one",
                "html": "<p>a</p>",
                "native_id": "1",
                "source": "feed",
                "kind": "post",
                "media": [],
            }
        ],
        "posts_found": 1,
        "truncated": False,
        "notes": [],
        "next": f"to track it: gleand add {FEED}",
    }


def test_a_kept_post_is_shown_as_the_preview_showed_it(house: Previewing) -> None:
    shown = house.ends("good:a", ONE)["posts"][0]
    house.add("good:a")
    house.round()
    house.finish("a", ONE)
    (kept,) = house.service.feed(username=None, limit=5, cursor=None)["posts"]
    assert {name: kept[name] for name in shown} == shown
    assert kept.keys() - shown.keys() == {"id", "post_number", "target_id", "version", "first_seen_at", "vanished_at"}


def test_nothing_is_kept_whatever_becomes_of_it(house: Previewing) -> None:
    house.run("good:before")
    before = house.counts()
    house.ends("good:a", ONE)
    house.ends(FEED, outcome=Outcome(ok=False, error="no luck", posts=(ONE,)))
    for tell in ("overdue", "died", "late"):
        future, order = house.begun("good:b")
        getattr(house.listener, tell)(order, *([] if tell == "late" else ["deadline"]))
        house.listener.progressed(order, "1 posts")
        house.listener.beat(order)
        house.listener.finished(order, Outcome(ok=True, posts=(ONE,)))
        house.pool.running.pop(order.token, None)
        house.listener.gone(order)
        future.result(5)
    house.flush()
    assert house.counts() == before
    assert house.core.live == {} and house.service.users()["count"] == 1


def test_a_scrape_that_fails_is_shown_and_keeps_none_of_its_posts(house: Previewing) -> None:
    shown = house.ends("good:a", outcome=Outcome(ok=False, error="no luck", posts=(ONE, ONE), retry_after_s=90))
    assert (shown["outcome"], shown["error"], shown["posts"], shown["posts_found"]) == ("FAILED", "no luck", [], 0)
    assert shown["notes"] == [
        "2 posts were found before it failed: of a failed run nothing is kept",
        "the site asks to be left alone for 90 s",
    ]
    assert shown["next"] == "to track it all the same: gleand add good:a"


def test_a_worker_that_dies_is_a_failed_scrape(house: Previewing) -> None:
    future, order = house.begun("good:a")
    house.listener.died(order, "the worker was killed by SIGKILL")
    shown = future.result(5)
    assert (shown["outcome"], shown["error"]) == ("FAILED", "the worker was killed by SIGKILL")


@pytest.mark.parametrize(
    ("found", "notes"),
    [
        (Outcome(ok=True), ["no post was found"]),
        (
            Outcome(ok=True, posts=(ONE, ONE, ONE)),
            ["2 would not be kept: their ids come twice, and the first of each counts"],
        ),
        (
            Outcome(ok=True, posts=(Post(native_id="1", title="a", url="x"), Post(native_id="2", published_at=AT))),
            ["1 of 2 have no time", "1 of 2 have no address", "1 of 2 have neither title nor text"],
        ),
        (Outcome(ok=True, posts=(ONE,), truncated=True, cut=1), ["the text of 1 post is cut"]),
        (
            Outcome(ok=True, posts=(ONE,), truncated=True),
            ["more was found than one run may report: the rest is left out"],
        ),
    ],
)
def test_what_would_be_left_out_is_said(house: Previewing, found: Outcome, notes: list[str]) -> None:
    shown = house.ends(FEED, outcome=found)
    assert shown["notes"] == notes
    assert shown["posts_found"] == len({post.native_id for post in found.posts})
    assert shown["truncated"] is found.truncated


def test_of_posts_with_one_id_the_first_is_shown_as_it_would_be_kept(house: Previewing) -> None:
    found = [Post(native_id=i, title=t) for i, t in (("1", "new"), ("2", "two"), ("1", "old"))]
    shown = house.ends("good:a", *found)
    house.add("good:a")
    house.round()
    house.finish("a", *found)
    kept = house.service.feed(username=None, limit=5, cursor=None)["posts"]
    assert {p["title"] for p in kept} == {p["title"] for p in shown["posts"]} == {"new", "two"}


def test_fifty_posts_are_shown_and_all_are_counted(house: Previewing) -> None:
    shown = house.ends(FEED, *(Post(native_id=str(n), title=f"t{n}") for n in range(120)))
    assert [p["title"] for p in shown["posts"]] == [f"t{n}" for n in range(50)]
    assert shown["posts_found"] == 120


@pytest.mark.parametrize(
    ("name", "found", "moved_to", "note"),
    [
        (
            FEED,
            Outcome(ok=True, posts=(ONE,), profile=Profile(url="HTTP://A.example/rss")),
            "http://a.example/rss",
            "the address is that of a page; its feed, which would be scraped, is at http://a.example/rss",
        ),
        (
            FEED,
            Outcome(ok=True, posts=(ONE,), moved_to="http://b.example/"),
            "http://b.example/",
            "the address has moved to http://b.example/, which is believed after 3 runs in a row",
        ),
        (FEED, Outcome(ok=True, posts=(ONE,), profile=Profile(url="javascript:x()")), None, None),
        ("good:a", Outcome(ok=True, posts=(ONE,), moved_to="http://b.example/"), "http://b.example/", None),
    ],
)
def test_where_the_address_leads_is_said(
    house: Previewing, name: str, found: Outcome, moved_to: str | None, note: str | None
) -> None:
    shown = house.ends(name, outcome=found)
    assert (shown["moved_to"], shown["notes"]) == (moved_to, [note] if note else [])


def test_of_a_tracked_target_the_known_posts_are_counted(house: Previewing) -> None:
    target = house.add("good:a")
    house.round()
    house.finish("a", *(Post(native_id=str(n), title="t") for n in range(3)))
    shown = house.ends("good:a", *(Post(native_id=str(n), title="t") for n in range(1, 900)))
    assert f"it is tracked already, as target {target}: 2 of these are kept" in shown["notes"]
    assert shown["next"] == f"to scrape it now: gleand refresh {target}"
    shown = house.ends("good:a", outcome=Outcome(ok=False, error="no luck"))
    assert shown["notes"] == [f"it is tracked already, as target {target}"]


@pytest.mark.parametrize(
    ("name", "more", "command"),
    [
        ("http://a.example/?a=1&b=2", {}, "gleand add 'http://a.example/?a=1&b=2'"),
        ("good:a", {"range_": 7}, "gleand add good:a --range 7"),
        (
            "https://github.com/torvalds.atom",
            {"source": "feed"},
            "gleand add https://github.com/torvalds.atom",
        ),
        ("https://github.com/torvalds", {"source": "feed"}, "gleand add feed:https://github.com/torvalds"),
        ("https://github.com/torvalds", {}, "gleand add github:torvalds"),
    ],
)
def test_what_to_type_next_means_just_that_target(
    house: Previewing, name: str, more: dict[str, Any], command: str
) -> None:
    shown = house.ends(name, ONE, **more)
    assert shown["next"] == f"to track it: {command}"
    typed = command.split("gleand add ")[1].split(" --")[0].strip("'")
    known = house.service.resolve(typed)
    assert (known.source, known.handle) == (shown["source"], shown["handle"])


def test_a_database_that_cannot_be_read_is_said(house: Previewing, tmp_path: Path) -> None:
    house.core.engine = open_engine(f"sqlite:///{tmp_path / 'empty.db'}")
    shown = house.ends(FEED, ONE)
    house.core.engine.dispose()
    assert (shown["outcome"], shown["notes"]) == ("COMPLETED", ["whether it is tracked already could not be read"])


# -- the order -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("given", "wanted"), [((600, 120), (60, 60)), ((600, 20), (60, 20)), ((5, 3), (5, 3))])
def test_it_may_take_a_minute_or_less(make: Make, given: tuple[int, int], wanted: tuple[int, int]) -> None:
    house = make(scrape_timeout_s=given[0], stall_timeout_s=given[1])
    future, order = house.begun("good:a", range_=3)
    assert (order.timeout_s, order.stall_timeout_s) == wanted
    assert order.timeout_s <= LONGEST_S
    assert (order.target.range, order.target.remember, order.fresh_s) == (3, {}, 0)
    house.finish("a")
    future.result(5)


def test_its_token_and_target_are_nobody_elses(house: Previewing) -> None:
    tracked = house.add("good:a")
    assert house.round() == ["a"]
    run = house.order("a")
    orders = []
    for _ in range(3):
        future, order = house.begun("good:a")
        orders.append(order)
        assert house.status(tracked)["worker"] == "running"
        assert house.core.worker_of(order.target.id) == "running"
        house.listener.finished(order, Outcome(ok=True, posts=(ONE,)))
        del house.pool.running[order.token]
        house.listener.gone(order)
        future.result(5)
    assert [(o.token, o.run_id, o.target.id) for o in orders] == [(FIRST_TOKEN - n,) * 3 for n in range(3)]
    assert house.status(tracked)["token"] == run.token
    house.finish("a")
    assert house.status(tracked)["state"] == "COMPLETED"


def test_it_is_scraped_as_a_run_of_the_target_would_be(house: Previewing) -> None:
    house.add("good:a")
    house.round()
    run = house.order("a")
    house.finish("a")
    future, order = house.begun("good:a")
    for name in ("limits", "options", "scraper", "scraper_path", "timeout_s", "stall_timeout_s"):
        assert getattr(order, name) == getattr(run, name), name
    house.finish("a")
    future.result(5)


def test_what_is_known_of_robots_txt_goes_along(house: Previewing) -> None:
    told = {"t": "robots", "host": HOST, "status": 200, "text": "User-agent: *", "age_s": 0, "delay_s": 0}
    future, order = house.begun(FEED)
    assert order.robots is None
    house.listener.said(order, told)
    house.finish(FEED)
    future.result(5)
    house.clock.advance(5)
    future, order = house.begun(FEED)
    assert order.robots == {"status": 200, "text": "User-agent: *", "age_s": 5}
    house.finish(FEED)
    future.result(5)


# -- refusals and bounds ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "source"), [("nope:a", None), ("a", "nope"), ("ftp://a.example/", None), ("", None)])
def test_a_name_that_is_none_is_refused_before_anything(house: Previewing, name: str, source: str | None) -> None:
    with pytest.raises(Unusable):
        house.service.preview(target=name, source=source)
    assert house.pool.orders == []


def test_one_more_than_two_is_refused_until_the_processes_of_one_are_gone(house: Previewing) -> None:
    house.pool.dies_at_once = False
    first, order = house.begun("good:a")
    second, _ = house.begun("good:b")
    with pytest.raises(TooMany, match="2 other previews are under way"):
        house.service.preview(target="good:c")
    house.overdue("a")
    assert first.result(5)["outcome"] == "TIMEOUT"
    with pytest.raises(TooMany):  # answered, and its worker is not gone
        house.service.preview(target="good:c")
    house.pool.bury()
    assert house.ends("good:c", ONE)["outcome"] == "COMPLETED"
    house.finish("b")
    assert second.result(5)["outcome"] == "COMPLETED"


@pytest.mark.parametrize(("workers", "most"), [(1, 1), (2, 1), (3, 2), (8, AT_ONCE)])
def test_there_are_fewer_than_workers(make: Make, workers: int, most: int) -> None:
    house = make(size=workers, workers=workers)
    for n in range(most):
        house.begun(f"good:{n}")
    said = "another preview is under way" if most == 1 else f"{most} other previews are under way"
    with pytest.raises(TooMany, match=said):
        house.service.preview(target="good:one-more")


def test_without_a_free_worker_it_waits_for_a_while(make: Make) -> None:
    house = make(size=1)
    house.add("good:busy")
    house.round()
    waits = house.preview(FEED)
    wait_until(lambda: house.core.awaited)
    house.clock.advance(WAIT_S - 0.1)
    assert house.core.awaited and not waits.done()
    house.clock.advance(0.1)
    with pytest.raises(Busy, match="every worker is busy"):
        waits.result(5)
    assert (house.core.awaited, house.pool.reserved) == (set(), set())
    assert house.core.hosts.wait_s(HOST) == 0
    house.finish("busy")
    assert house.ends(FEED, ONE)["outcome"] == "COMPLETED"  # its place was given back


def test_a_worker_that_becomes_free_is_left_to_it(make: Make) -> None:
    house = make(size=1)
    for name in ("busy", "next"):
        house.add(f"good:{name}")
    assert house.round() == ["busy"]
    waits = house.preview("good:seen")
    wait_until(lambda: house.core.awaited)
    house.pool.size = 0  # nobody is faster than the claim
    house.finish("busy")
    house.pool.size = 1
    assert house.round() in ([], ["seen"])
    wait_until(lambda: house.pool.running)
    house.finish("seen")
    assert waits.result(5)["outcome"] == "COMPLETED"
    assert house.round() == ["next"]


def test_the_only_worker_there_is_goes_to_whoever_comes_first(make: Make) -> None:
    house = make(size=1, workers=1)
    house.core.awaited.add(FIRST_TOKEN)  # one waits, and is slower
    house.add("good:run")
    assert house.round() == ["run"]


def test_a_host_with_a_run_in_progress_is_waited_for(make: Make) -> None:
    house = make(size=4, host_delay_s=2)
    house.add(FEED)
    assert house.round() == [FEED]
    waits = house.preview("http://a.example/other")
    house.clock.advance(1)
    house.finish(FEED)
    wait_until(lambda: 0 < house.core.hosts.wait_s(HOST) <= 2)
    assert not waits.done() and not house.pool.running
    house.clock.advance(2)
    wait_until(lambda: house.pool.running)
    house.finish("http://a.example/other")
    assert waits.result(5)["outcome"] == "COMPLETED"


def test_a_host_that_is_busy_for_too_long_is_a_refusal(house: Previewing) -> None:
    house.add(FEED)
    house.round()
    waits = house.preview("http://a.example/other")
    while not waits.done():
        house.clock.advance(1)
        threading.Event().wait(0.01)
    with pytest.raises(Refused, match="a.example:80 is busy with other runs") as refused:
        waits.result()
    assert refused.value.details["refused_by"] == "host_free"
    assert house.pool.reserved == set() and len(house.pool.orders) == 1


def test_a_host_that_is_to_be_left_alone_for_longer_is_refused_at_once(house: Previewing) -> None:
    house.block(HOST, 90, "the host asked to wait (Retry-After)")
    with pytest.raises(Refused, match=r"is to be left alone for 90 s: the host asked to wait \(Retry-After\)") as said:
        house.service.preview(target=FEED)
    assert said.value.details == {"refused_by": "host_free", "wait_s": 90}
    assert house.pool.orders == []
    assert house.ends("http://b.example/", ONE)["outcome"] == "COMPLETED"


def test_it_holds_its_host_as_a_run_does(make: Make) -> None:
    house = make(size=4, host_delay_s=2)
    future, order = house.begun(FEED)
    house.add("http://a.example/other")
    house.clock.advance(10)
    assert house.round() == []
    house.finish(FEED)
    future.result(5)
    assert house.round() == []  # the delay
    house.clock.advance(2)
    assert house.round() == ["http://a.example/other"]


def test_it_has_the_first_turn_at_its_host(house: Previewing) -> None:
    future, order = house.begun(FEED)
    assert order.has_turn
    house.finish(FEED)
    future.result(5)


def test_where_somebody_was_faster_it_asks_for_its_turn(house: Previewing) -> None:
    reserve = house.pool.reserve

    def slow(n: int) -> list[int]:
        """A claim takes the host after the preview has looked at it."""
        house.core.hosts.begin(HOST, 1)
        return reserve(n)

    house.pool.reserve = slow  # type: ignore[method-assign]
    future, order = house.begun(FEED)
    assert not order.has_turn
    house.listener.said(order, {"t": "ask", "token": order.token, "host": HOST, "done": []})
    assert house.pool.answers == []
    house.core.hosts.gone(1)
    assert [(told["token"], told["granted"]) for told in house.pool.answers] == [(order.token, True)]
    house.finish(FEED)
    future.result(5)


def test_what_a_host_asks_of_a_preview_holds_for_every_run(house: Previewing) -> None:
    future, order = house.begun(FEED)
    house.fail(FEED, retry_after_s=3600)
    assert future.result(5)["outcome"] == "FAILED"
    assert 3500 < house.core.hosts.wait_s(HOST) <= 3600
    assert house.count("hosts") == 1
    sweep = house.ask("http://a.example/other")["sweep_id"]
    assert house.shown(sweep)["state"] == "FAILED"  # told at once, not after a time-out


def test_what_a_scraper_of_ones_own_was_told_holds_too(house: Previewing) -> None:
    future, _ = house.begun(FEED, source="good")
    house.fail(FEED, ours=False, retry_after_s=3600)
    assert future.result(5)["notes"] == ["the site asks to be left alone for 3600 s"]
    assert 3500 < house.core.hosts.wait_s(HOST) <= 3600


@pytest.mark.parametrize(
    ("kind", "error"),
    [("deadline", "the scrape ran longer than 60 s"), ("stalled", "the scrape made no progress for 20 s")],
)
def test_an_overdue_one_is_stopped_at_once(make: Make, kind: str, error: str) -> None:
    house = make(stall_timeout_s=20)
    future, order = house.begun("good:a")
    house.overdue("a", kind)
    shown = future.result(5)
    assert (shown["outcome"], shown["error"], shown["posts"]) == ("TIMEOUT", error, [])
    assert house.pool.running == {}
    house.listener.finished(order, Outcome(ok=True, posts=(ONE,)))  # too late
    assert house.count("posts") == 0


def test_one_of_which_nothing_is_heard_is_given_up(house: Previewing) -> None:
    future, order = house.begun("good:a")
    house.clock.advance(60 + SPARE_S - 0.1)
    assert house.pool.running and not future.done()
    house.clock.advance(0.1)
    shown = future.result(5)
    assert (shown["outcome"], shown["error"]) == ("TIMEOUT", "nothing was heard of the scrape")
    assert house.pool.running == {}


def test_one_whose_order_is_gone_without_a_word_has_failed(house: Previewing) -> None:
    future, order = house.begun("good:a")
    del house.pool.running[order.token]
    house.listener.gone(order)
    assert future.result(5)["error"] == "the worker process is gone"


# -- stopping, and a store that is away ------------------------------------------------------------------------------


def test_a_daemon_that_stops_takes_none(house: Previewing) -> None:
    house.core.draining = True
    with pytest.raises(Draining):
        house.service.preview(target=FEED)


def test_those_that_wait_end_with_the_daemon(make: Make) -> None:
    house = make(size=1)
    house.add("good:busy")
    house.round()
    waits = house.preview("good:a")
    wait_until(lambda: house.core.awaited)
    house.core.draining = True
    with pytest.raises(Draining):
        waits.result(5)
    assert len(house.pool.orders) == 1


def test_those_in_a_worker_end_with_the_daemon(house: Previewing) -> None:
    future, order = house.begun(FEED)
    house.core.draining = True
    with pytest.raises(Draining):
        future.result(5)
    assert house.pool.running == {} and house.core.hosts.view() == []


def test_before_the_database_was_read_there_is_none(house: Previewing) -> None:
    house.core.ready = False
    with pytest.raises(StoreUnavailable):
        house.service.preview(target=FEED)


def test_a_store_that_refuses_writes_is_not_needed(house: Previewing) -> None:
    house.writer.stop()
    future, order = house.begun(FEED)
    told = {"t": "told", "token": order.token, "host": HOST, "wait_s": 60, "why": "busy"}
    house.listener.said(order, told)
    house.listener.finished(order, Outcome(ok=True, posts=(ONE,)))
    assert future.result(5)["outcome"] == "COMPLETED"
    assert house.core.hosts.wait_s(HOST) > 0
