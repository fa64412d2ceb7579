"""Photos restored one a thread: one small photo keeps several threads busy only in part."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

import torch

AHEAD: Final = 2
"""Items under way, or done and not yet taken, for each thread."""
Item = TypeVar("Item")
Result = TypeVar("Result")


def work_in_order(
    items: Iterable[Item], work: Callable[[Item], Result], *, is_small: Callable[[Item], bool], threads: int
) -> Generator[tuple[Item, Result], None, None]:
    """Yield each item and what `work` makes of it, in the items' order.

    Small ones are worked on side by side by at most `threads` threads, each of which computes
    alone. The others are worked on one by one in the thread that was called, with all of torch's
    threads. If the iterator is closed, or an error ends it, what is under way is done first.
    """
    waiting: deque[tuple[Item, Future[Result]]] = deque()

    def take(most: int) -> Iterator[tuple[Item, Result]]:
        while len(waiting) > most:
            item, future = waiting.popleft()
            yield item, future.result()

    every = torch.get_num_threads()
    with ThreadPoolExecutor(threads, "photo", torch.set_num_threads, (1,)) as pool:
        try:
            for item in items:
                if threads > 1 and is_small(item):
                    waiting.append((item, pool.submit(work, item)))
                    yield from take(AHEAD * threads)
                else:
                    yield from take(0)
                    yield item, work(item)
            yield from take(0)
        finally:
            for _, future in waiting:
                future.cancel()
            torch.set_num_threads(every)  # of threads to come: torch keeps one number for them
