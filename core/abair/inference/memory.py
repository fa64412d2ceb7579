"""Memory of a process that restores: what is kept for the next photo, and what is given back."""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Final

LARGE: Final = 8.0
"""Megapixels from which on the memory that a photo's work took is given back at once."""
KEPT: Final = 1 << 26
"""Bytes of an array from which on its memory is not kept: a photo of 22 megapixels."""
KEPT_BY_EARLIER: Final = 1 << 25
"""The largest such number that earlier versions of glibc accept."""
KEPT_KERNELS: Final = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "512", "LRU_CACHE_CAPACITY": "10"}
"""How many kernels oneDNN keeps, and torch's layer above it. Each is made for one shape of work, so
photos of different sizes need different ones. By default each keeps 1024
(findings/torch_kernels_kept_per_size.sh). A photo needs 60 to 340, which the next one of its size
finds again."""


def set_up_memory() -> None:
    """Make the process keep freed memory for its next tile or training step, and fewer kernels.

    By default glibc returns every large array to the system and maps the next one anew, page by
    page. It still returns the largest: whole photos, which would tear the kept memory to pieces.
    The settings hold for the whole process, so programs call this, never the library, and before
    torch computes anything. What the environment says of kernels is left alone.
    """
    for variable, count in KEPT_KERNELS.items():
        os.environ.setdefault(variable, count)
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        m_trim_threshold, m_mmap_threshold = -1, -3
        if not libc.mallopt(m_mmap_threshold, KEPT):
            libc.mallopt(m_mmap_threshold, KEPT_BY_EARLIER)
        libc.mallopt(m_trim_threshold, (1 << 31) - 1)


def return_freed_memory(megapixels: float) -> None:
    """Return to the system what a step of a photo's work has freed, if the photo is `LARGE`.

    Reading, restoring and writing need memory of different kinds. The settings of `set_up_memory`
    stay.
    """
    if megapixels >= LARGE and sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
