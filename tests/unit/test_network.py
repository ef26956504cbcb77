"""Whether it is our own network: silence at several hosts, and no answer in between."""

from __future__ import annotations

from jobs.network import HOSTS, WINDOW_S, Network
from tests.support.fake_pool import FakeClock


def network(*silent: str) -> tuple[Network, FakeClock]:
    clock = FakeClock()
    found = Network(clock)
    for host in silent:
        found.unreachable(host)
    return found, clock


def test_at_first_it_works() -> None:
    assert not network()[0].is_down


def test_silence_at_several_hosts_is_ours() -> None:
    assert [network(*"abcdef"[:n])[0].is_down for n in range(5)] == [n >= HOSTS for n in range(5)]


def test_silence_at_one_host_is_its_own_however_often() -> None:
    assert not network("a", "b", "a", "b", "a")[0].is_down


def test_any_answer_between_starts_the_count_anew() -> None:
    found, _ = network("a", "b")
    found.answered()
    found.unreachable("c")
    found.unreachable("a")
    assert not found.is_down
    found.unreachable("d")
    assert found.is_down


def test_any_answer_ends_it() -> None:
    found, _ = network("a", "b", "c", "d")
    found.answered()
    assert not found.is_down
    found.unreachable("e")
    assert not found.is_down


def test_failures_that_lie_far_apart_do_not_add_up() -> None:
    found, clock = network("a", "b")
    clock.advance(WINDOW_S + 1)
    found.unreachable("c")
    assert not found.is_down
    found.unreachable("a")
    found.unreachable("b")
    assert found.is_down


def test_it_stays_down_for_as_long_as_nobody_answers() -> None:
    found, clock = network("a", "b", "c")
    for _ in range(5):
        clock.advance(10 * WINDOW_S)
        found.unreachable("a")
        assert found.is_down
