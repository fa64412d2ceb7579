#!/usr/bin/env bash
# pylibjxl takes arrays of uint16 without an error and writes a JPEG XL file of 8 bits that holds the
# low byte of each sample: a smooth ramp becomes a sawtooth. A file of 16 bits, made by another
# library, is decoded to 8 bits without a word; its header says 16. JPEG XL itself holds 16 bits.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check pylibjxl==0.5.0 imagecodecs==2026.3.6 numpy==2.3.5
cd "$folder"
venv/bin/python - <<'PY'
from importlib.metadata import version

import imagecodecs
import numpy as np
import pylibjxl

print("pylibjxl", version("pylibjxl"), "imagecodecs", imagecodecs.__version__)
ramp = np.linspace(0, 65535, 40 * 60 * 3).reshape(40, 60, 3).astype(np.uint16)
written = pylibjxl.encode(ramp, lossless=True, distance=0.0)
bits, decoded = pylibjxl.probe(written)["bits_per_sample"], pylibjxl.decode(written)
low, high = float((decoded == ramp % 256).mean()), float((decoded == ramp // 256).mean())
print(f"uint16 written by pylibjxl: {bits} bits a sample; equal to the low byte {low:.0%}, to the high byte {high:.0%}")
whole = imagecodecs.jpegxl_encode(ramp, lossless=True)
assert np.array_equal(imagecodecs.jpegxl_decode(whole), ramp)
read = pylibjxl.decode(whole)
stated = pylibjxl.probe(whole)["bits_per_sample"]
print(f"uint16 written by imagecodecs: the header says {stated} bits, pylibjxl decodes {read.dtype}")
assert (bits, low, stated, str(read.dtype)) == (8, 1.0, 16, "uint8") and high < 0.01, "pylibjxl's behaviour has changed"
PY
