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
