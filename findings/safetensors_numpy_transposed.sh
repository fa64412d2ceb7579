#!/usr/bin/env bash
# safetensors.numpy.save writes the memory of an array, not its elements in order: a transposed
# (Fortran-ordered) array comes back with the right shape and other numbers. No error, no warning.
# Make arrays contiguous before they are saved.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check safetensors==0.8.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import numpy as np
import safetensors
from safetensors.numpy import load, save

image = np.arange(6, dtype=np.float32).reshape(2, 3)
turned = image.T
back = load(save({"image": turned}))["image"]
good = load(save({"image": np.ascontiguousarray(turned)}))["image"]
print("safetensors", safetensors.__version__, "numpy", np.__version__)
print("saved  :", turned.tolist())
print("loaded :", back.tolist())
print("loaded after ascontiguousarray:", good.tolist())
assert back.shape == turned.shape
assert not np.array_equal(back, turned)
assert np.array_equal(good, turned)
PY
