#!/usr/bin/env bash
# libvips remembers what it loaded by file name. A file that is replaced under its name is not read
# again: the old pixels come back, although size, inode and modification time differ. Only
# revalidate=True, given to each call, looks at the file. The wheels also have no loader for BMP.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    pyvips==3.2.0 pyvips-binary==8.18.7 pillow==13.0.0
"$folder/venv/bin/python" - "$folder" <<'PY'
import sys
from pathlib import Path

import pyvips
from PIL import Image


def grey(path, **options):
    return int(pyvips.Image.new_from_file(str(path), **options).getpoint(0, 0)[0])


folder = Path(sys.argv[1])
photo, bmp = folder / "photo.png", folder / "photo.bmp"
Image.new("RGB", (64, 64), (10, 10, 10)).save(photo)
first = grey(photo)
Image.new("RGB", (128, 96), (200, 200, 200)).save(folder / "new.png")
(folder / "new.png").replace(photo)
again, fresh = grey(photo), grey(photo, revalidate=True)
Image.new("RGB", (64, 64)).save(bmp)
try:
    told = str(grey(bmp))
except pyvips.Error as error:
    told = " ".join(str(error).split())
print("pyvips", pyvips.__version__, "libvips", ".".join(str(pyvips.version(part)) for part in range(3)))
print(f"first file: {first}; after it was replaced by one with 200: {again}; with revalidate=True: {fresh}")
print("BMP:", told)
assert (first, again, fresh) == (10, 10, 200) and "not a known file format" in told
PY
