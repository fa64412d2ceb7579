"""Say what the compression of restored JPEGs costs: in bytes, and in decibels against no loss.

Run: `python benchmarks/jpeg_sizes.py FOLDER [--limit 10]`

The first photos of the folder and its sub-folders are restored whose restoration changes them.
Each is written as `abair restore` does by default, and with `--jpeg-quality`. The table in
docs/howto/restore-a-folder.md is the output.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from abair import Restorer, images

QUALITIES = (None, 75, 85, 90, 95)


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """Return the PSNR in dB between two photos of 8 bits."""
    error = np.mean((one.astype(np.float64) - other.astype(np.float64)) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def main() -> None:
    """Restore, write and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit", type=int, default=10)
    given = parser.parse_args()
    restorer, ratios, losses, sources = Restorer.load(), {}, {}, 0
    with tempfile.TemporaryDirectory() as folder:
        for path in sorted(given.folder.rglob("*.jp*g")):
            photo = images.read(path)
            restored = restorer(photo.visible).image
            if photo.jpeg is None or np.array_equal(restored, photo.pixels):
                continue
            sources += 1
            for quality in QUALITIES:
                out = Path(folder, "out.jpg")
                images.write(out, images.finish(photo, restored), overwrite=True, jpeg_quality=quality)
                ratios.setdefault(quality, []).append(out.stat().st_size / path.stat().st_size)
                losses.setdefault(quality, []).append(psnr(images.read(out).pixels, restored))
            if sources == given.limit:
                break
    print(f"{sources} photos\n\n| quality | size, of the source's | PSNR against no loss |\n|---|---:|---:|")
    for quality in QUALITIES:
        name = "default" if quality is None else f"`--jpeg-quality {quality}`"
        size = np.exp(np.mean(np.log(ratios[quality])))
        print(f"| {name} | {size:.2f} ({min(ratios[quality]):.2f} to {max(ratios[quality]):.2f}) | "
              f"{np.mean(losses[quality]):.1f} dB |")  # fmt: skip


if __name__ == "__main__":
    main()
