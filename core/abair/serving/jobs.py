"""A bounded queue before a few threads: who comes when it is full is told when to come again."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final, TypeVar

from abair.errors import ServingError

Result = TypeVar("Result")
LONGEST_WAIT: Final = 600
"""Seconds that a client is told to wait, at most."""
_SHARE: Final = 0.2
"""Of the newest photo in the running mean of seconds."""


class Stop:
    """Tells the thread that works for a request that nobody waits for it any more."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._end = seconds, math.inf
        self._event = threading.Event()

    def begin(self) -> None:
        """Start the clock.

        Raises:
            ServingError: the request was cancelled before.
        """
        self._end = time.monotonic() + self._seconds
        self.check()

    def set(self) -> None:
        """Cancel the work."""
        self._event.set()

    def check(self) -> None:
        """Go on, or end the work.

        Raises:
            ServingError: the request was cancelled, or took longer than it may.
        """
        if self._event.is_set():
            raise ServingError("the request was cancelled", 503)
        if time.monotonic() > self._end:
            raise ServingError(
                f"found a photo that takes longer than {self._seconds:g} seconds, expected a smaller one, or "
                "quality=standard; or start abair serve with a larger --time-limit",
                504,
            )


class Jobs:
    """Threads that work for requests, and places for those that wait."""

    def __init__(self, workers: int, queue: int, seconds: float) -> None:
        self.places, self.taken, self.running = workers + queue, 0, 0
        self.stopping = False
        self._workers, self._seconds = workers, seconds
        self._mean = 1.0
        self._stops: set[Stop] = set()
        self._pool = ThreadPoolExecutor(workers, "abair-restore")

    @property
    def waiting(self) -> int:
        """How many requests have a place and no thread."""
        return max(0, self.taken - self.running)

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold one of the places.

        Raises:
            ServingError: all are taken, or the server stops.
        """
        if self.stopping:
            raise ServingError("the server is stopping; ask again in a moment", 503, 1)
        if self.taken >= self.places:
            wait = min(LONGEST_WAIT, max(1, math.ceil(self._mean * self.taken / self._workers)))
            raise ServingError(
                f"found {self.taken} requests under way, expected at most {self.places}; ask again in {wait} seconds",
                429,
                wait,
            )
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1

    async def run(self, work: Callable[[Stop], Result], gone: Callable[[], Awaitable[bool]]) -> Result:
        """Let a thread work; cancel that when the client is gone or this is cancelled.

        Raises:
            Exception: what the work raises.
            ServingError: the client is gone, or the time limit is reached.
        """
        stop = Stop(self._seconds)
        self._stops.add(stop)
        task = asyncio.ensure_future(asyncio.get_running_loop().run_in_executor(self._pool, self._work, work, stop))
        task.add_done_callback(lambda _: self._stops.discard(stop))
        try:
            while not task.done():
                await asyncio.wait({task}, timeout=0.2)
                if not task.done() and await gone():
                    stop.set()
            return task.result()
        finally:
            stop.set()
            if not task.done():  # this was cancelled: let nobody miss the result
                task.add_done_callback(lambda done: done.cancelled() or done.exception())

    def _work(self, work: Callable[[Stop], Result], stop: Stop) -> Result:
        stop.begin()
        started = time.monotonic()
        self.running += 1
        try:
            return work(stop)
        finally:
            self.running -= 1
            self._mean += _SHARE * (time.monotonic() - started - self._mean)

    def close(self) -> None:
        """Cancel what is left and wait for the threads, which end before their next tile."""
        self.stopping = True
        for stop in list(self._stops):
            stop.set()
        self._pool.shutdown(cancel_futures=True)
