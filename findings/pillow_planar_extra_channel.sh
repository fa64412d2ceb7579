#!/usr/bin/env bash
# Pillow reads an RGB TIFF with a fourth channel that is no transparency (ExtraSamples 0), as image
# editors store masks, if the channels are interleaved. With the same samples as one plane a channel
# it cannot open the file: an IndexError of its own ends as "cannot identify image file".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check pillow==13.0.0 tifffile==2026.3.3 numpy==2.3.5
cd "$folder"
venv/bin/python - <<'PY'
import numpy as np
import PIL
import tifffile
from PIL import Image, UnidentifiedImageError

samples = np.arange(16 * 16 * 4, dtype=np.uint8).reshape(16, 16, 4)
print("Pillow", PIL.__version__, "tifffile", tifffile.__version__)
found = {}
for layout, data in (("contig", samples), ("separate", samples.transpose(2, 0, 1))):
    tifffile.imwrite(f"{layout}.tif", data, photometric="rgb", planarconfig=layout, extrasamples=["unspecified"])
    assert np.array_equal(tifffile.imread(f"{layout}.tif"), data)
    try:
        with Image.open(f"{layout}.tif") as image:
            found[layout] = np.array_equal(np.asarray(image.convert("RGB")), samples[..., :3])
    except UnidentifiedImageError as error:
        found[layout] = str(error).split(" '")[0]
    print(f"{layout}: {found[layout]}")
assert found == {"contig": True, "separate": "cannot identify image file"}, "Pillow's behaviour has changed"
PY
