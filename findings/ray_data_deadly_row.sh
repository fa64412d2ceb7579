#!/usr/bin/env bash
# In Ray Data one exception in the function that rows are mapped with ends the whole job, and what the
# other rows of its block gave is lost. And `ray.data.read_images` leaves out files whose ending is not in its
# list, without a word: WebP is not in it, though Pillow, which reads the files, can read them.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check 'ray[data]==2.60.0' pillow==12.0.0
mkdir "$folder/photos"
cd "$folder"
RAY_USAGE_STATS_ENABLED=0 RAY_DATA_DISABLE_PROGRESS_BARS=1 venv/bin/python - 2> messages <<'PY' || { tail -n 20 messages; exit 1; }
from importlib.metadata import version
from pathlib import Path

import ray
from PIL import Image

print("ray", version("ray"), "pillow", version("pillow"))
for number in range(4):
    Image.new("RGB", (8, 8), (number, 0, 0)).save(f"photos/{number}.png")
    Image.new("RGB", (8, 8), (number, 0, 0)).save(f"photos/{number}.webp")
ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="CRITICAL")
read = sorted(Path(row["path"]).name for row in ray.data.read_images("photos", include_paths=True).take_all())
print(f"read_images of a folder with 4 PNG and 4 WebP files: {read}")
assert read == [f"{number}.png" for number in range(4)], "read_images' behaviour has changed"


def half(row: dict) -> dict:
    if row["id"] == 37:
        raise ValueError("row 37 cannot be used")
    return {"half": row["id"] / 2}


rows, error = 0, ""
try:
    for _ in ray.data.range(100, override_num_blocks=1).map(half).iter_rows():
        rows += 1
except Exception as raised:
    error = type(raised).__name__
print(f"100 rows, one of which raises ValueError: {rows} came back, and the loop over them ended with {error or 'nothing'}")
assert error and rows == 0, "Ray Data's behaviour has changed"
PY
