"""Which order runs where: what the book of the pool says to other threads."""

from __future__ import annotations

import threading

import pytest

from jobs.book import Book
from model import FetchLimits, Order, Target


def order(token: int, target_id: int = 1) -> Order:
    target = Target(id=target_id, source="good", handle="x", url="")
    return Order(run_id=token, token=token, target=target, timeout_s=1, stall_timeout_s=1, limits=FetchLimits())


class Kept(Book):
    """A book, and the tokens of those that are gone."""

    def __init__(self) -> None:
        self.gone: list[int] = []
        super().__init__(lambda order: self.gone.append(order.token))


@pytest.fixture
def book() -> Kept:
    return Kept()


def test_an_order_runs_from_the_hand_over_until_it_is_forgotten(book: Kept) -> None:
    assert (book.worker_of(1), book.holds(7)) == ("none", False)
    book.enter(order(7))
    assert (book.worker_of(1), book.holds(7), book.worker_of(2)) == ("running", True, "none")
    book.forget(7)
    assert (book.worker_of(1), book.holds(7), book.gone) == ("none", False, [7])


def test_one_that_is_stopped_is_stopping_until_no_process_is_left(book: Kept) -> None:
    book.enter(order(7))
    assert book.stop(7)
    assert (book.worker_of(1), book.holds(7), book.gone) == ("stopping", False, [])
    book.forget(7)
    assert (book.worker_of(1), book.gone) == ("none", [7])


def test_what_nobody_has_cannot_be_stopped_and_is_not_gone(book: Kept) -> None:
    assert not book.stop(7)
    book.forget(7)
    assert book.gone == []


def test_it_is_gone_once_however_often_it_is_forgotten(book: Kept) -> None:
    book.enter(order(7))
    for _ in range(3):
        book.forget(7)
    assert book.gone == [7]


def test_a_new_order_beside_a_stopping_one_does_not_hide_it(book: Kept) -> None:
    book.enter(order(7))
    book.stop(7)
    book.enter(order(9))
    assert (book.worker_of(1), book.holds(9)) == ("stopping", True)
    book.forget(7)
    assert (book.worker_of(1), book.holds(9)) == ("running", True)


def test_the_end_of_an_old_order_does_not_end_the_new_one(book: Kept) -> None:
    book.enter(order(7))
    book.enter(order(9))
    book.stop(7)
    book.forget(7)
    assert (book.worker_of(1), book.holds(9), book.gone) == ("running", True, [7])


def test_two_of_one_target_are_stopping_until_both_are_gone(book: Kept) -> None:
    for token in (7, 9):
        book.enter(order(token))
        book.stop(token)
    book.forget(9)
    assert book.worker_of(1) == "stopping"
    book.forget(7)
    assert book.worker_of(1) == "none"


def test_who_waits_for_what_is_not_there_does_not_wait(book: Kept) -> None:
    assert book.wait_gone(1, 0) and book.wait_all_gone(0) and book.wait_idle(0)
    book.enter(order(7))
    assert book.wait_gone(1, 0) and book.wait_all_gone(0) and not book.wait_idle(0)
    book.stop(7)
    assert not book.wait_gone(1, 0) and not book.wait_all_gone(0) and not book.wait_idle(0)
    assert book.wait_gone(2, 0)


@pytest.mark.parametrize("wait", ["wait_gone", "wait_all_gone", "wait_idle"])
def test_who_waits_is_woken_by_the_last_one(book: Kept, wait: str) -> None:
    book.enter(order(7))
    book.stop(7)
    answers: list[bool] = []
    arguments = (1, 10.0) if wait == "wait_gone" else (10.0,)
    waiter = threading.Thread(target=lambda: answers.append(getattr(book, wait)(*arguments)))
    waiter.start()
    book.forget(7)
    waiter.join(5)
    assert answers == [True]


def test_who_hears_of_it_may_ask_the_book() -> None:
    seen: list[str] = []
    book = Book(lambda order: seen.append(book.worker_of(order.target.id)))
    book.enter(order(7))
    book.forget(7)
    assert seen == ["none"]
