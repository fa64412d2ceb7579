#!/usr/bin/env bash
# On a CPU torch keeps what oneDNN prepares for each size of image, so a process that convolves
# images of many sizes grows by tens to hundreds of megabytes, though no tensor is alive. Two caches
# of 1024 kernels hold it: oneDNN's, which ONEDNN_PRIMITIVE_CACHE_CAPACITY bounds, and that of
# ideep, the layer between torch and oneDNN, which LRU_CACHE_CAPACITY bounds. Bounding only one of
# them frees about half.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cd "$folder"
cat > grow.py <<'PY'
import ctypes

import torch
from torch import nn

names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
State = type("State", (ctypes.Structure,), {"_fields_": [(name, ctypes.c_size_t) for name in names.split()]})
libc = ctypes.CDLL(None)
libc.mallinfo2.restype = State


def in_use() -> float:
    state = libc.mallinfo2()
    return (state.uordblks + state.hblkhd) / 1e6


torch.set_num_threads(1)
layers = [nn.Conv2d(64, 64, kernel, padding=kernel // 2) for _ in range(2) for kernel in (1, 3, 5, 7)]
network = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), *layers).to(memory_format=torch.channels_last)
with torch.inference_mode():
    network(torch.zeros(1, 3, 40, 40))
    before = in_use()
    for side in range(41, 241):
        network(torch.zeros(1, 3, 40, side))
print(f"{in_use() - before:.0f}")
PY
"$folder/venv/bin/python" -c "import torch; print('torch', torch.__version__)"
grown() { env "$@" "$folder/venv/bin/python" grow.py; }
both=$(grown ONEDNN_PRIMITIVE_CACHE_CAPACITY=20 LRU_CACHE_CAPACITY=20)
first=$(grown ONEDNN_PRIMITIVE_CACHE_CAPACITY=20)
second=$(grown LRU_CACHE_CAPACITY=20)
neither=$(grown PYTHONUNBUFFERED=1)
echo "MB in use after nine convolutions of images of 200 sizes: $neither by default, $first with oneDNN's cache bounded to"
echo "20, $second with ideep's, $both with both"
test "$neither" -gt $((10 * both + 10))
test $((3 * first)) -gt "$neither"
test $((3 * second)) -gt "$neither"
