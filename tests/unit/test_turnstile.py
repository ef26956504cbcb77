"""A little work in each turn of the loop: what is known is answered before it, and the rest in its order."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.fake_service import FakeService
from tests.support.wire import Bench, Crowded, on_bench
from web.turnstile import AT_ONCE, Turnstile

POLL = b"GET /api/scrape-status HTTP/1.1\r\nHost: localhost\r\n\r\n"
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def service() -> FakeService:
    return FakeService()


def test_so_many_pass_in_a_turn_and_the_others_in_the_next_ones_in_their_order() -> None:
    async def run() -> None:
        turnstile = Turnstile(asyncio.get_running_loop())
        assert [turnstile.passes() for _ in range(AT_ONCE + 2)] == [True] * AT_ONCE + [False] * 2
        done: list[int] = []
        for number in range(2 * AT_ONCE + 1):
            turnstile.put(lambda number=number: done.append(number))
        seen = []
        while len(turnstile):
            assert not turnstile.passes()
            await asyncio.sleep(0)
            seen.append(len(done))
        assert seen == [AT_ONCE, 2 * AT_ONCE, 2 * AT_ONCE + 1]
        assert done == sorted(done)
        assert turnstile.passes()

    asyncio.run(run())


def test_one_that_fails_does_not_hold_up_the_others() -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        told: list[object] = []
        loop.set_exception_handler(lambda _, context: told.append(context.get("exception")))
        turnstile, done = Turnstile(loop), asyncio.Event()
        turnstile.put(lambda: [][0])
        turnstile.put(done.set)
        await asyncio.wait_for(done.wait(), 5)
        assert isinstance(told[0], IndexError)

    asyncio.run(run())


def test_a_known_request_is_answered_while_others_wait_for_their_turn(service: FakeService) -> None:
    async def test(bench: Bench) -> None:
        poller = bench.line()
        first = await poller.send(POLL)
        before = len(poller.wire.written)
        crowd = [bench.line() for _ in range(5 * AT_ONCE)]
        for line in crowd:
            line.connection.data_received(HEALTH)
        assert len(bench.turnstile) >= 4 * AT_ONCE - 1
        poller.connection.data_received(POLL)
        assert len(poller.wire.written) > before
        assert bench.parsed == 1
        await bench.settle()
        assert all(line.wire.written.startswith(b"HTTP/1.1 200 OK") for line in crowd)
        assert await poller.send(POLL) == first

    on_bench(test, service)


def test_what_comes_while_a_read_waits_comes_after_it(service: FakeService) -> None:
    async def test(bench: Bench) -> None:
        line = bench.line()
        line.connection.data_received(HEALTH[:10])
        line.connection.data_received(HEALTH[10:])
        line.connection.data_received(POLL)
        assert not line.wire.paused
        await bench.settle()
        assert line.wire.written.index(b'"loops"') < line.wire.written.index(b'"running"')

    on_bench(test, service, turnstile=Crowded)


def test_a_client_that_sends_much_while_its_read_waits_is_read_no_further(service: FakeService) -> None:
    async def test(bench: Bench) -> None:
        line = bench.line()
        body = b"x" * 40_000
        line.connection.data_received(
            b"POST /api/users/add HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (2 * len(body))
        )
        line.connection.data_received(body)
        assert not line.wire.paused
        line.connection.data_received(body)
        assert line.wire.paused
        await bench.settle()
        assert not line.wire.paused
        assert line.wire.written.startswith(b"HTTP/1.1 415 ")

    on_bench(test, service, turnstile=Crowded)


@pytest.mark.parametrize("how", ["leaves", "is closed"])
def test_a_connection_that_ends_while_its_read_waits_is_forgotten(service: FakeService, how: str) -> None:
    async def test(bench: Bench) -> None:
        line = bench.line()
        line.connection.data_received(HEALTH)
        if how == "leaves":
            line.leave()
        else:
            line.connection.shutdown()
        await bench.settle()
        assert (line.wire.written, bench.parsed) == (b"", 0)
        assert service.asked == []

    on_bench(test, service, turnstile=Crowded)


def test_the_timer_for_idle_connections_does_not_end_one_whose_read_waits(service: FakeService) -> None:
    async def test(bench: Bench) -> None:
        line = bench.line()
        await line.send(HEALTH)
        assert line.connection.timeout_keep_alive_task is not None
        line.connection.data_received(HEALTH)
        assert line.connection.timeout_keep_alive_task is None

    on_bench(test, service, turnstile=Crowded)
