"""Small photos are worked on side by side, and what comes out is in order all the same."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from abair.batch.threads import AHEAD, work_in_order

THREADS = 3


@pytest.fixture(autouse=True)
def _several_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(before)


def test_small_ones_are_worked_on_side_by_side_in_a_thread_each() -> None:
    together = threading.Barrier(THREADS, timeout=20)
    seen: list[int] = []

    def work(item: int) -> int:
        together.wait()  # breaks unless three are under way at once
        seen.append(torch.get_num_threads())
        return item * item

    done = list(work_in_order(range(6), work, is_small=lambda _: True, threads=THREADS))
    assert done == [(item, item * item) for item in range(6)]
    assert seen == [1] * 6


def test_results_come_in_order_whatever_takes_longer() -> None:
    def work(item: int) -> int:
        time.sleep(0.05 if item == 0 else 0)
        return item

    assert [one for one, _ in work_in_order(range(9), work, is_small=lambda _: True, threads=THREADS)] == [*range(9)]


def test_a_large_one_has_all_threads_to_itself() -> None:
    under_way, most, threads = 0, dict[int, int](), dict[int, int]()
    lock = threading.Lock()

    def work(item: int) -> None:
        nonlocal under_way
        with lock:
            under_way += 1
        time.sleep(0.02)
        with lock:
            most[item], threads[item] = under_way, torch.get_num_threads()
            under_way -= 1

    order = [item for item, _ in work_in_order(range(7), work, is_small=lambda item: item != 3, threads=THREADS)]
    assert order == [*range(7)]
    assert (most[3], threads[3]) == (1, THREADS)
    assert torch.get_num_threads() == THREADS


def test_threads_that_start_later_have_all_of_torchs() -> None:
    list(work_in_order(range(4), lambda item: item, is_small=lambda _: True, threads=THREADS))
    found: list[int] = []
    later = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert found == [THREADS]


def test_no_more_is_begun_than_a_few_ahead_of_what_is_taken() -> None:
    begun: list[int] = []
    results = work_in_order(range(50), begun.append, is_small=lambda _: True, threads=THREADS)
    next(results)
    time.sleep(0.1)
    assert len(begun) <= AHEAD * THREADS + 1
    results.close()
    assert len(begun) <= AHEAD * THREADS + 1


def test_an_error_comes_in_its_turn_and_ends_the_work() -> None:
    def work(item: int) -> int:
        if item == 2:
            raise KeyboardInterrupt
        return item

    results = work_in_order(range(50), work, is_small=lambda _: True, threads=THREADS)
    assert [next(results)[0], next(results)[0]] == [0, 1]
    with pytest.raises(KeyboardInterrupt):
        next(results)
