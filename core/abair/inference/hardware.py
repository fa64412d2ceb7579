"""Queries and settings of the machine that runs the network."""

from __future__ import annotations

import ctypes
import sys

import torch


def fast_bf16_on_cpu() -> bool:
    """Return whether the processor multiplies bf16 in hardware (AMX or AVX-512 BF16).

    Elsewhere bf16 is slower than fp32.
    """
    checks = (getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
    return any(bool(check()) for check in checks if check is not None)


def keep_freed_memory() -> None:
    """Make the process keep freed memory for its next tile or training step.

    By default glibc returns every large array to the system and maps the next one anew, page by
    page. The setting holds for the whole process, so programs call this, never the library.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        m_trim_threshold, m_mmap_threshold = -1, -3
        if hasattr(libc, "mallopt"):
            libc.mallopt(m_mmap_threshold, 1 << 30)
            libc.mallopt(m_trim_threshold, (1 << 31) - 1)
