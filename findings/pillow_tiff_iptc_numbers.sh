#!/usr/bin/env bash
# libtiff and ExifTool store a TIFF's IPTC record (tag 33723) as 32-bit numbers. Pillow's dictionary
# of tags then hands out the first number alone, four bytes of the record, with a Python warning.
# The same record stored as bytes comes back whole.
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

record = b"\x1c\x02\x78\x00\x0cAt the sea!!" + bytes(3)
print("Pillow", PIL.__version__, "tifffile", tifffile.__version__)
found = {}
for kind, value in (("numbers", np.frombuffer(record, "<u4")), ("bytes", record)):
    stated = tuple(map(int, value)) if kind == "numbers" else value
    tag = (33723, 4 if kind == "numbers" else 7, len(stated), stated, True)
    tifffile.imwrite(f"{kind}.tif", np.zeros((8, 8), np.uint8), extratags=[tag])
    with Image.open(f"{kind}.tif") as image:
        found[kind] = image.tag_v2[33723]
    with tifffile.TiffFile(f"{kind}.tif") as file:
        tag = file.pages[0].tags[33723]
    print(f"stored as {kind}: {tag.valuebytecount} bytes; Pillow hands out {found[kind]!r}")
assert found["numbers"] == int.from_bytes(record[:4], "little"), "Pillow hands out more than the first number now"
assert found["bytes"] == record, "the record as bytes has changed"
print("a record stored as numbers is cut to its first four bytes")
PY
