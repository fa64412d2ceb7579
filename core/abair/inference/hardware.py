"""What the machine that runs the network can do."""

from __future__ import annotations

from typing import Final, Literal

import torch

Precision = Literal["auto", "float32", "bfloat16"]
MOSTLY_CLEAN: Final = 0.5
"""Part of a photo that is left alone from which on `auto` computes in float32: in bf16, what little
changes would come out at other levels."""


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
