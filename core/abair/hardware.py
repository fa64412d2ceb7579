"""What this machine's processor can do."""

from __future__ import annotations

import torch


def fast_bf16_on_cpu() -> bool:
    """Whether this processor multiplies bf16 in hardware (AMX or AVX-512 BF16); elsewhere it is slower than fp32."""
    checks = (getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
    return any(bool(check()) for check in checks if check is not None)
