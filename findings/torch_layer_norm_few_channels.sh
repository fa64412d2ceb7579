#!/usr/bin/env bash
# On a CPU torch.nn.functional.layer_norm over few channels, as in image networks with channels last,
# takes longer than its own parts written out: mean, vector_norm and a multiplication, three passes
# over the features instead of one. And it gets slower still when it has less to do: without weight
# and bias it does not take its fast kernel. The results agree.
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
print("layer_norm over few channels takes longer than its parts written out, and longer still without weight and bias")


def parts(x: torch.Tensor) -> torch.Tensor:
    mean = x.mean(-1, keepdim=True)
    square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square() / x.shape[-1]
    return (x - mean) * (square - mean * mean + 1e-6).rsqrt()


def fastest(work) -> float:
    seconds = []
    for _ in range(60):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds) * 1e6


with torch.inference_mode():
    for channels, pixels in ((32, 36_000), (64, 9_000)):
        x, weight, bias = torch.randn(pixels, channels), torch.ones(channels), torch.zeros(channels)
        whole = fastest(lambda: F.layer_norm(x, (channels,), weight, bias, 1e-6))
        bare = fastest(lambda: F.layer_norm(x, (channels,), eps=1e-6))
        written_out = fastest(lambda: parts(x))
        apart = (parts(x) - F.layer_norm(x, (channels,), weight, bias, 1e-6)).abs().max().item()
        print(
            f"{pixels} x {channels}: layer_norm {whole:.0f} us, without weight and bias {bare:.0f} us, "
            f"written out {written_out:.0f} us; largest difference {apart:.0e}"
        )
        assert apart < 1e-4
        if channels == 32:
            assert written_out < 0.8 * whole, "layer_norm is no longer slower than its parts"
            assert bare > 1.2 * whole, "layer_norm without weight and bias is no longer slower"
PY
