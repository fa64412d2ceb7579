#!/usr/bin/env bash
# Pillow looks for the 43 of a BigTIFF in the third byte of the file, where it is if numbers are
# little-endian. A big-endian BigTIFF has it in the fourth, as Pillow's own list of headers says. It
# is taken for a plain TIFF then, and refused.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check pillow==13.0.0 tifffile==2026.3.3 numpy==2.3.5
cd "$folder"
venv/bin/python -W ignore - <<'PY'
import numpy as np
import PIL
import tifffile
from PIL import Image

print("Pillow", PIL.__version__, "tifffile", tifffile.__version__)
read = {}
for name, order in (("little", "<"), ("big", ">")):
    tifffile.imwrite(f"{name}.tif", np.zeros((8, 8), np.uint8), bigtiff=True, byteorder=order)
    assert tifffile.imread(f"{name}.tif").shape == (8, 8)
    try:
        with Image.open(f"{name}.tif") as image:
            read[name] = f"an image of {image.size}"
    except Exception as error:
        read[name] = f"{type(error).__name__}"
    print(f"a {name}-endian BigTIFF, which tifffile reads: {read[name]}")
assert read["little"] == "an image of (8, 8)", "Pillow reads no BigTIFF any more"
assert not read["big"].startswith("an image"), "Pillow reads big-endian BigTIFFs now"
PY
