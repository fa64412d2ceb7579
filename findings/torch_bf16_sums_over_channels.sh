#!/usr/bin/env bash
# On a CPU with bfloat16 in hardware, torch sums bfloat16 features over their last axis far more
# slowly than it multiplies them: mean(-1) takes as long as a matrix product with 128 outputs, and a
# product with a single output, which is the same mean, takes a third of it. vector_norm takes
# twice as long if it is asked for float32, in which it computes in either case. In float32 mean and
# product take the same time. On a CPU without bfloat16 in hardware only the versions are printed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import time
from importlib.metadata import version

import torch
from torch.nn import functional as F

torch.set_num_threads(1)
print("torch", version("torch"))
print("a mean over 64 bfloat16 channels takes longer than the product that gives the same, and a norm in float32 than")
print("the same norm rounded to bfloat16")


def fastest(work) -> float:
    seconds = []
    for _ in range(60):
        began = time.process_time()
        work()
        seconds.append(time.process_time() - began)
    return min(seconds) * 1e6


with torch.inference_mode():
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.randn(33_000, 64).to(dtype)
        one, many = (torch.full((outputs, 64), 1 / 64, dtype=dtype) for outputs in (1, 128))
        mean = fastest(lambda: x.mean(-1, keepdim=True, dtype=torch.float32))
        product, products = fastest(lambda: F.linear(x, one)), fastest(lambda: F.linear(x, many))
        norm = fastest(lambda: torch.linalg.vector_norm(x, dim=-1))
        wide = fastest(lambda: torch.linalg.vector_norm(x, dim=-1, dtype=torch.float32))
        apart = (x.mean(-1, keepdim=True, dtype=torch.float32) - F.linear(x, one)).abs().max().item()
        print(
            f"{dtype}: mean {mean:.0f} us, product with one output {product:.0f} us, with 128 {products:.0f} us; norm "
            f"{norm:.0f} us, as float32 {wide:.0f} us; largest difference of mean and product {apart:.0e}"
        )
        assert apart < 5e-3
        if dtype == torch.bfloat16 and torch.cpu._is_avx512_bf16_supported():
            assert mean > 0.5 * products, "the mean no longer takes as long as a product with 128 outputs"
            assert product < 0.7 * mean, "the mean is no longer slower than the product"
            assert norm < 0.8 * wide, "the norm in float32 is no longer slower"
PY
