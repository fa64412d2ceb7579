"""What this machine's processor can do."""

from __future__ import annotations

import ctypes
import sys

import torch


def fast_bf16_on_cpu() -> bool:
    """Whether this processor multiplies bf16 in hardware (AMX or AVX-512 BF16); elsewhere it is slower than fp32."""
    checks = (getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
    return any(bool(check()) for check in checks if check is not None)


def keep_freed_memory() -> None:
    """Let this process keep what it frees, for its next tile or step.

    By default glibc gives every large array back and maps the next one anew, page by page. It is a setting of the
    whole process, so programs call it, never the library.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        m_trim_threshold, m_mmap_threshold = -1, -3
        if hasattr(libc, "mallopt"):
            libc.mallopt(m_mmap_threshold, 1 << 30)
            libc.mallopt(m_trim_threshold, (1 << 31) - 1)
