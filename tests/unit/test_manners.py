"""How a run keeps to turns, and what it takes a robots.txt to mean."""

from __future__ import annotations

import time

import pytest

from errors import ScrapeFailed
from model import MAX_ROBOTS_CHARS
from sources.manners import (
    ROBOTS_FRESH_S,
    ROBOTS_RETRY_S,
    Manners,
    NoRobots,
    NoTurn,
    Robots,
    RobotsRefuse,
    RobotsUnreadable,
    product,
    rules,
)
from tests.support.manners import FakeDaemon, manners

A, B = "a.example:80", "b.example:80"
URL = "http://a.example/feed"
ALLOWED = Robots(status=404)


def never(url: str) -> tuple[int, str]:
    raise AssertionError(f"{url} was asked for")


class Fetch:
    """Gives one answer, and counts."""

    def __init__(self, status: int, text: str = "", fault: Exception | None = None) -> None:
        self.answer, self.fault, self.urls = (status, text), fault, list[str]()

    def __call__(self, url: str) -> tuple[int, str]:
        self.urls.append(url)
        if self.fault is not None:
            raise self.fault
        return self.answer


def asked(daemon: FakeDaemon) -> list[str]:
    return [host for host, _ in daemon.asked]


# -- turns -----------------------------------------------------------------------------------------------------------


def test_the_first_request_to_its_own_host_is_covered_by_the_claim() -> None:
    daemon = FakeDaemon()
    manners(daemon, A, robots=ALLOWED).wait_for_turn(URL, never)
    assert daemon.asked == []


def test_every_further_request_is_asked_for_and_gives_back_the_one_before() -> None:
    daemon = FakeDaemon({A: ALLOWED, B: ALLOWED})
    run = manners(daemon, A, robots=ALLOWED)
    for url in (URL, URL, "http://b.example/", URL):
        run.wait_for_turn(url, never)
    assert daemon.asked == [(A, [A]), (B, [A]), (A, [B])]


def test_a_run_without_a_host_of_its_own_asks_for_its_first_turn_too() -> None:
    daemon = FakeDaemon({A: ALLOWED})
    manners(daemon).wait_for_turn(URL, never)
    assert daemon.asked == [(A, [])]


def test_a_turn_that_comes_after_the_end_of_the_run_is_not_waited_for() -> None:
    daemon = FakeDaemon()
    daemon.wait_s = 100.0
    late = Manners(
        daemon,
        host="",
        robots={},
        respect_robots=True,
        agent="x",
        on_progress=lambda _: None,
        deadline=time.monotonic() + 50,
    )
    with pytest.raises(NoTurn, match="the next turn at a.example:80 comes too late for this run") as caught:
        late.wait_for_turn(URL, never)
    assert caught.value.retry_after_s == 100


def test_without_a_turn_nothing_is_asked_for() -> None:
    daemon = FakeDaemon()
    daemon.busy.add(A)
    with pytest.raises(ScrapeFailed, match="busy") as caught:
        manners(daemon).wait_for_turn(URL, never)
    assert caught.value.retry_after_s == 60


# -- robots.txt ------------------------------------------------------------------------------------------------------


def test_robots_txt_is_asked_for_in_a_turn_of_its_own() -> None:
    daemon, fetch = FakeDaemon(), Fetch(200, "User-agent: *\nDisallow: /private\n")
    run = manners(daemon, A)
    run.wait_for_turn(URL, fetch)
    assert (fetch.urls, asked(daemon)) == (["http://a.example/robots.txt"], [A])
    with pytest.raises(RobotsRefuse, match="the robots.txt of a.example:80 does not allow this address"):
        run.wait_for_turn("http://a.example/private/1", never)
    assert asked(daemon) == [A]  # what is known to be refused needs no turn


def test_an_interface_for_programs_is_not_for_robots_txt_to_allow() -> None:
    refuses = Robots(status=200, text="User-agent: *\nDisallow: /")
    manners(FakeDaemon(), A, robots=refuses).wait_for_turn(URL, None)


def test_robots_txt_may_be_left_alone() -> None:
    refuses = Robots(status=200, text="User-agent: *\nDisallow: /")
    run = Manners(
        FakeDaemon(), host=A, robots={A: refuses}, respect_robots=False, agent="x", on_progress=lambda _: None
    )
    run.wait_for_turn(URL, never)


def test_what_the_daemon_knows_by_now_is_not_asked_for() -> None:
    run = manners(FakeDaemon({B: Robots(status=200, text="User-agent: *\nDisallow: /")}), A, robots=ALLOWED)
    with pytest.raises(RobotsRefuse):
        run.wait_for_turn("http://b.example/", never)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 304])
def test_none_is_permission(status: int) -> None:
    daemon = FakeDaemon()
    manners(daemon, A).wait_for_turn(URL, Fetch(status, "User-agent: *\nDisallow: /"))
    assert daemon.known[A].status == status


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_one_that_cannot_be_read_allows_nothing_and_is_asked_for_again_later(status: int) -> None:
    daemon = FakeDaemon()
    why = rf"the robots.txt of a.example:80 cannot be read \(status {status}\), so nothing may be fetched there"
    with pytest.raises(RobotsUnreadable, match=why) as caught:
        manners(daemon, A).wait_for_turn(URL, Fetch(status))
    assert caught.value.retry_after_s == ROBOTS_RETRY_S
    known = daemon.known[A]
    with pytest.raises(RobotsUnreadable, match=why):  # another run is told at once, and asks for nothing
        manners(FakeDaemon(), A, robots=known).wait_for_turn(URL, never)
    later = Robots(status=known.status, age_s=known.age_s + ROBOTS_RETRY_S + 1)
    manners(FakeDaemon(), A, robots=later).wait_for_turn(URL, Fetch(404))


def test_an_answer_that_cannot_be_read_says_why_also_to_the_next_run() -> None:
    daemon, fetch = FakeDaemon(), Fetch(0, fault=NoRobots("the answer was cut short"))
    for robots in (None, lambda: daemon.known[A]):
        with pytest.raises(RobotsUnreadable, match=r"cannot be read \(the answer was cut short\)"):
            manners(daemon, A, robots=robots and robots()).wait_for_turn(URL, fetch)
    assert len(fetch.urls) == 1


def test_when_nobody_answers_the_run_says_so_and_nothing_is_kept() -> None:
    daemon = FakeDaemon()
    with pytest.raises(ScrapeFailed, match="refused"):
        manners(daemon, A).wait_for_turn(URL, Fetch(0, fault=ScrapeFailed("a.example:80 refused the connection")))
    assert daemon.known == {}


@pytest.mark.parametrize("status", [429, 503])
def test_one_that_cannot_be_read_any_more_leaves_the_old_one_in_force(status: int) -> None:
    old = Robots(status=200, text="User-agent: *\nDisallow: /private", age_s=ROBOTS_FRESH_S + 1)
    daemon, fetch = FakeDaemon(), Fetch(status)
    manners(daemon, A, robots=old).wait_for_turn(URL, fetch)
    with pytest.raises(RobotsRefuse):
        manners(daemon, A, robots=daemon.known[A]).wait_for_turn("http://a.example/private", fetch)
    assert len(fetch.urls) == 1  # not once for every run that follows


def test_one_that_is_a_day_old_is_read_again() -> None:
    old = Robots(status=200, text="User-agent: *\nDisallow: /", age_s=ROBOTS_FRESH_S + 1)
    daemon = FakeDaemon()
    manners(daemon, A, robots=old).wait_for_turn(URL, Fetch(200, "User-agent: *\nAllow: /"))
    with pytest.raises(RobotsRefuse):
        manners(daemon, A, robots=Robots(status=200, text=old.text, age_s=ROBOTS_FRESH_S)).wait_for_turn(URL, never)


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("", True),
        ("User-agent: *\nDisallow:", True),
        ("User-agent: *\nDisallow: /", False),
        ("user-agent: *\r\nDISALLOW: /feed\r\n", False),
        ("User-agent: *\nDisallow: /\nAllow: /feed", True),  # the longer one counts, wherever it stands
        ("User-agent: *\nDisallow: /feed\nAllow: /feed", True),  # of equals, the one that allows
        ("User-agent: *\nDisallow: /*eed$", False),
        ("User-agent: *\nDisallow: /fee$", True),
        ("User-agent: *\nDisallow: /FEED", True),
        ("User-agent: *\nDisallow: /%66eed", False),
        ("User-agent: *\nDisallow: / # all of it", False),
        ("User-agent: gleand\nDisallow: /feed\n\nUser-agent: *\nDisallow:", False),
        ("User-agent: Gleand\nDisallow:\n\nUser-agent: *\nDisallow: /", True),
        ("User-agent: other\nUser-agent: gleand\nDisallow: /", False),
        ("User-agent: other\nDisallow: /\n", True),
        ("User-agent: gleandbot\nDisallow: /\n", True),
        ("User-agent: gleand\nAllow: /x\n\nUser-agent: gleand\nDisallow: /feed\n", False),  # groups add up
        ("Sitemap: http://a.example/s.xml\nUser-agent: *\nSitemap: /x\nDisallow: /", False),
        ("User-agent: a\nwhatever: it is\nUser-agent: gleand\nDisallow: /", False),
        ("<html><body>not found</body></html>", True),
        ("\0\ufffd\ufffd User-agent \x7f: *\nDisallow /\n", True),
        ("Disallow: /", True),  # for nobody
    ],
)
def test_what_the_rules_mean(text: str, allowed: bool) -> None:
    run = manners(FakeDaemon(), A)
    if allowed:
        run.wait_for_turn(URL, Fetch(200, text))
    else:
        with pytest.raises(RobotsRefuse):
            run.wait_for_turn(URL, Fetch(200, text))


@pytest.mark.parametrize(
    ("agent", "name"),
    [
        ("gleand/1.0 (+https://a.example/bot)", "gleand"),
        ("My-Reader 2.0", "My-Reader"),
        ("reader", "reader"),
        ("  reader/1", "reader"),
        ("/", ""),
    ],
)
def test_robots_txt_knows_us_by_the_first_word_of_the_user_agent(agent: str, name: str) -> None:
    assert product(agent) == name


@pytest.mark.parametrize(
    ("lines", "delay_s"),
    [
        ("Crawl-delay: 7", 7.0),
        ("Crawl-delay: 2.5", 2.5),
        ("Request-rate: 1/10", 10.0),
        ("Request-rate: 6/1m", 10.0),
        ("Crawl-delay: 3\nRequest-rate: 1/2", 3.0),
        *((f"Crawl-delay: {word}", 0.0) for word in ("soon", "-5", "nan", "inf", "1e999", "")),
        ("Request-rate: 0/0", 0.0),
        ("Request-rate: /", 0.0),
    ],
)
def test_how_often_it_may_be_asked_is_told(lines: str, delay_s: float) -> None:
    daemon = FakeDaemon()
    manners(daemon, A).wait_for_turn(URL, Fetch(200, f"User-agent: *\n{lines}\n"))
    assert daemon.delays == {A: delay_s}


def test_only_rules_are_kept_and_they_mean_what_they_meant() -> None:
    text = '# hello\n\nUser-agent: *  # all\nDisallow: /caf\xe9 "x"\nSitemap: /s\nHost: x\nCrawl-delay: 3\n\xff\xfe\n'
    assert rules(text) == "User-agent: *\nDisallow: /caf%C3%A9 %22x%22\nCrawl-delay: 3"


@pytest.mark.parametrize("rule", ["Disallow: /{n:06}", "Disallow: /{n:06}\u20ac", 'Disallow: /{n:06}"\\'])
def test_rules_are_kept_up_to_a_bound_and_none_is_cut_in_two(rule: str) -> None:
    text = "User-agent: *\n" + "".join(rule.format(n=n) + "\n" for n in range(100_000))
    kept = rules(text)
    assert kept.isascii() and MAX_ROBOTS_CHARS - 50 < len(kept) <= MAX_ROBOTS_CHARS
    assert len({len(line) for line in kept.splitlines()[1:]}) == 1
