"""Damage thousands of image files at random, and see what reading and writing make of them.

Run: `python benchmarks/mutated_files.py [--count 10000] [--seed 0] [--keep FOLDER]`

Each file must be read, or refused in one line; one that is read must be written completely and read
back, whatever its pixels. The files run in processes of their own, with limits of time and memory.
What goes wrong is kept in FOLDER. The last line says "nothing went wrong", or the exit code is 1.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import made_images as made
import numpy as np
from PIL import Image

BATCH = 250
SECONDS = 30
"""Longest time for a file."""
MEMORY = 4 << 30
"""Most address space of a process, in bytes; a small file must not take more."""
TARGETS = ("b.png", "b.jpg", "b.tif", "b.webp")


def sources() -> list[tuple[str, bytes]]:
    """Return intact files by name, of all formats that are read and can be made here."""
    files = [(name, data) for name, data, _ in (*made.png_files(), *made.tiff_files(), *made.other_files())]
    return [*files, *made.metadata_files(), *_further_files()]


def _further_files() -> Iterator[tuple[str, bytes]]:
    picture = Image.fromarray(made.noise(3))
    for kind in ("AVIF", "JPEG2000"):
        yield f"further.{kind.lower()}", made.pillow(picture, kind)
    try:
        import imagecodecs
        import pillow_heif
    except ImportError:
        return
    file = io.BytesIO()
    pillow_heif.from_pillow(picture).save(file, quality=90)
    yield "further.heic", file.getvalue()
    deep = made.noise(3, 12)
    yield "deep.jpg", imagecodecs.jpeg_encode(deep, bitspersample=12)
    yield "deep.jp2", imagecodecs.jpeg2k_encode(deep, bitspersample=12, level=0)
    yield "deep.avif", imagecodecs.avif_encode(deep >> 2, bitspersample=10)
    yield "deep.jxl", imagecodecs.jpegxl_encode(deep, lossless=True, bitspersample=12)
    yield "float.tif", made.tiff(np.float32(deep) / 4095, photometric="rgb", compression="zlib", predictor=True)
    yield "packed.tif", made.tiff(deep, photometric="rgb", bitspersample=12)
    yield (
        "big_endian_big.tif",
        made.tiff(made.noise(3), photometric="rgb", bigtiff=True, byteorder=">", compression="lzw"),
    )
    for compression in ("webp", "jpegxr"):
        yield f"{compression}.tif", made.tiff(made.noise(3), photometric="rgb", compression=compression)
    yield "jpeg_12.tif", made.tiff(deep, photometric="rgb", compression="jpeg", bitspersample=12)


def mutate(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """Return a file damaged in one of six ways; `other` is one whose bytes may get into it."""
    damaged = bytearray(data)
    start, end = sorted(int(place) for place in rng.integers(0, len(data) + 1, 2))
    way = int(rng.integers(6))
    if way == 0:
        del damaged[start:]
    elif way == 1:
        for place in rng.integers(0, len(data), int(rng.integers(1, 30))):
            damaged[place] = int(rng.integers(256))
    elif way == 2:
        damaged[start:end] = bytes(end - start)
    elif way == 3:
        del damaged[start : min(end, start + 40)]
    elif way == 4:
        damaged[start:start] = other[start : start + 60]
    else:  # in headers numbers are counts, sizes and places
        place = int(rng.integers(0, min(len(data), 400)))
        damaged[place : place + 4] = rng.choice(
            [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\xff\xff"]
        )
    return bytes(damaged)


def make(index: int, seed: int, files: list[tuple[str, bytes]]) -> tuple[str, bytes]:
    """Return the name and content of a mutated file."""
    rng = np.random.default_rng((seed, index))
    (name, data), (_, other) = (files[int(place)] for place in rng.integers(0, len(files), 2))
    return f"{index}-{Path(name).stem}{Path(name).suffix}", mutate(data, other, rng)


def judge(path: Path, folder: Path) -> str:
    """Return `refused`, `read`, or what went wrong with a file that is read and written again."""
    from abair import images
    from abair.errors import ImageError

    try:
        photo = images.read(path)
    except ImageError as error:
        text = str(error)
        return "refused" if "\n" not in text and path.name in text else f"wrong: {text!r}"
    except BaseException as error:  # panics of Rust are no exceptions
        return f"wrong: reading raised {type(error).__name__}: {error}"
    for name in TARGETS:
        target = folder / name
        try:
            images.write(target, images.finish(photo, photo.pixels.max() - photo.pixels), overwrite=True)
            again = images.read(target)
        except ImageError as error:
            if "sides of at most" not in str(error):
                return f"wrong: {name}: {error}"
            continue
        except BaseException as error:
            return f"wrong: writing {name} raised {type(error).__name__}: {error}"
        if again.pixels.shape != photo.pixels.shape:
            return f"wrong: {name} has {again.pixels.shape}, expected {photo.pixels.shape}"
    if left := sorted(one.name for one in folder.iterdir() if one.name not in TARGETS):
        return f"wrong: left behind {left}"
    return "read"


def work(first: int, last: int, seed: int) -> None:
    """Judge files in this process; one line before each, and one with what was found."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    files = sources()
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as out:
        for index in range(first, last):
            print(json.dumps([index, "began"]), flush=True)
            name, data = make(index, seed, files)
            path = Path(folder, name)
            path.write_bytes(data)
            print(json.dumps([index, judge(path, Path(out))]), flush=True)
            path.unlink()


def judge_all(count: int, seed: int) -> Iterator[tuple[int, str]]:
    """Yield each file's number and what was found; a process that dies or hangs costs one file."""
    first = 0
    while first < count:
        last = min(count, first + BATCH)
        command = [sys.executable, __file__, "--work", str(first), str(last), "--seed", str(seed)]
        with tempfile.TemporaryFile("w+") as said:
            done = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True)
            began = first
            try:
                text, _ = done.communicate(timeout=SECONDS + 2 * (last - first))
            except subprocess.TimeoutExpired:
                done.kill()
                text, _ = done.communicate()
            for line in text.splitlines():
                began, found = json.loads(line)
                if found != "began":
                    yield began, found
                    first = began + 1
            said.seek(0)
            if noise := said.read().strip():
                yield began, f"wrong: stderr says {noise.splitlines()[-1]!r}"
        if first < last:
            yield began, f"wrong: its process ended with {done.returncode}"
            first = began + 1


def main() -> int:
    """Judge files, print what was found, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--work", type=int, nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        work(*given.work, given.seed)
        return 0
    counts: Counter[str] = Counter()
    for index, found in judge_all(given.count, given.seed):
        counts[found.partition(":")[0]] += 1
        if found.startswith("wrong"):
            name, data = make(index, given.seed, sources())
            print(f"{name}: {found}")
            if given.keep:
                given.keep.mkdir(parents=True, exist_ok=True)
                (given.keep / name).write_bytes(data)
    print(", ".join(f"{count} {found}" for found, count in counts.most_common()))
    if not counts["wrong"]:
        print("nothing went wrong")
    return int(counts["wrong"] > 0)


if __name__ == "__main__":
    sys.exit(main())
