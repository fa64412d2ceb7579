"""A process that restores keeps what the next photo needs, and gives the rest back."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import pytest

from abair.inference import memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only glibc keeps freed memory so")


def test_memory_is_given_back_after_large_photos_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    libc = SimpleNamespace(malloc_trim=asked.append)
    monkeypatch.setattr(memory, "ctypes", SimpleNamespace(CDLL=lambda _: libc))
    memory.return_freed_memory(7.9)
    assert asked == []
    memory.return_freed_memory(memory.LARGE)
    assert asked == [0]


def test_the_environments_number_of_kernels_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "7")
    monkeypatch.delenv("LRU_CACHE_CAPACITY", raising=False)
    monkeypatch.setattr(memory, "ctypes", SimpleNamespace(CDLL=lambda _: SimpleNamespace()))
    memory.set_up_memory()
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "7"
    assert os.environ["LRU_CACHE_CAPACITY"] == memory.KEPT_KERNELS["LRU_CACHE_CAPACITY"]


@pytest.mark.parametrize("most", [1 << 25, 1 << 26])
def test_memory_is_kept_by_the_largest_number_that_glibc_accepts(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    set_to: dict[int, int] = {}

    def mallopt(option: int, value: int) -> int:
        if option == -3 and value > most:
            return 0
        set_to[option] = value
        return 1

    monkeypatch.setattr(memory, "ctypes", SimpleNamespace(CDLL=lambda _: SimpleNamespace(mallopt=mallopt)))
    memory.set_up_memory()
    assert set_to == {-3: most, -1: (1 << 31) - 1}
