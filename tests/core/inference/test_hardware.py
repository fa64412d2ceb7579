"""What is asked of the machine's memory."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from abair.inference import hardware


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc keeps freed memory so")
def test_memory_is_given_back_after_large_photos_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    libc = SimpleNamespace(malloc_trim=asked.append)
    monkeypatch.setattr(hardware, "ctypes", SimpleNamespace(CDLL=lambda _: libc))
    hardware.return_freed_memory(7.9)
    assert asked == []
    hardware.return_freed_memory(hardware.LARGE)
    assert asked == [0]


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc keeps freed memory so")
@pytest.mark.parametrize("most", [1 << 25, 1 << 26])
def test_memory_is_kept_by_the_largest_number_that_glibc_accepts(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    set_to: dict[int, int] = {}

    def mallopt(option: int, value: int) -> int:
        if option == -3 and value > most:
            return 0
        set_to[option] = value
        return 1

    monkeypatch.setattr(hardware, "ctypes", SimpleNamespace(CDLL=lambda _: SimpleNamespace(mallopt=mallopt)))
    hardware.keep_freed_memory()
    assert set_to == {-3: most, -1: (1 << 31) - 1}
