"""Queries and settings of the machine that runs the network."""

from __future__ import annotations

import ctypes
import sys
from typing import Final, Literal

import torch

Precision = Literal["auto", "float32", "bfloat16"]
MOSTLY_CLEAN: Final = 0.5
"""Part of a photo that is left alone from which on `auto` computes in float32: in bf16, what little
changes would come out at other levels."""
LARGE: Final = 8.0
"""Megapixels from which on the memory that restoring took is given back before writing."""
KEPT: Final = 1 << 26
"""Bytes of an array from which on its memory is not kept: a photo of 22 megapixels."""
KEPT_BY_EARLIER: Final = 1 << 25
"""The largest such number that earlier versions of glibc accept."""


def fast_bf16_on_cpu() -> bool:
    """Return whether the processor multiplies bf16 in hardware (AMX or AVX-512 BF16).

    Elsewhere bf16 is slower than fp32.
    """
    checks = (getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
    return any(bool(check()) for check in checks if check is not None)


def choose_dtype(precision: Precision, device: torch.device, clean: float) -> torch.dtype:
    """Return the dtype of the arithmetic for a photo of which the part `clean` is left alone.

    `auto` is bf16 on a device that multiplies it in hardware, unless the photo is mostly clean.
    """
    if precision != "auto":
        return torch.float32 if precision == "float32" else torch.bfloat16
    if device.type == "cpu":
        fast = fast_bf16_on_cpu()
    else:
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if fast and clean < MOSTLY_CLEAN else torch.float32


def return_freed_memory(megapixels: float) -> None:
    """Return to the system what a step of a photo's work has freed, if the photo is `LARGE`.

    Reading, restoring and writing need memory of different kinds. The setting of
    `keep_freed_memory` stays.
    """
    if megapixels >= LARGE and sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def keep_freed_memory() -> None:
    """Make the process keep freed memory for its next tile or training step.

    By default glibc returns every large array to the system and maps the next one anew, page by
    page. It still returns the largest: whole photos, which would tear the kept memory to pieces.
    The setting holds for the whole process, so programs call this, never the library.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        m_trim_threshold, m_mmap_threshold = -1, -3
        if not libc.mallopt(m_mmap_threshold, KEPT):
            libc.mallopt(m_mmap_threshold, KEPT_BY_EARLIER)
        libc.mallopt(m_trim_threshold, (1 << 31) - 1)
