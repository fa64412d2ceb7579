"""Compare ABAIR's image reader with pyvips: pixels, metadata, damaged files, time and memory.

Run: `pip install 'pyvips[binary]' && python benchmarks/read_images.py [FOLDER ...]`

The files are made by made_images.py. For each file of a FOLDER one more line says what both
readers make of it. Needs Linux, which reports the peak memory of a process. ADR 0001
(docs/decisions/) rests on the output.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import made_images as made
import numpy as np
from PIL import Image

MEGAPIXELS = 100.0
RUNS = 3
FORKS = 20
FORK_SECONDS = 2
LOADERS = {b"\xff\xd8": "jpegload", b"\x89P": "pngload", b"RI": "webpload", b"II": "tiffload", b"MM": "tiffload"}
Reader = Callable[[Path], np.ndarray]


def by_abair(path: Path) -> np.ndarray:
    """Return the samples (H, W, C) as `abair.images` reads them.

    C is 1 for grey, 2 for grey with alpha, 3 for RGB, 4 for RGBA.
    """
    from abair import images

    photo = images.read(path, max_megapixels=MEGAPIXELS)
    colours = photo.pixels[..., :1] if photo.grey else photo.pixels
    return colours if photo.alpha is None else np.dstack([colours, photo.alpha])


def by_pyvips(path: Path, *, fail_on: str = "error", access: str = "sequential", revalidate: bool = True) -> np.ndarray:
    """Return the same samples by pyvips, with the checks that `abair.images` promises."""
    import pyvips

    with path.open("rb") as file:
        loader = LOADERS.get(file.read(2))
    if loader is None:
        raise ValueError("no loader")
    load = getattr(pyvips.Image, loader)
    image = load(str(path), access=access, fail_on=fail_on, revalidate=revalidate)
    if image.width * image.height > MEGAPIXELS * 1e6:
        raise ValueError("too many pixels")
    if image.format not in {"uchar", "ushort"}:
        raise ValueError(f"{image.format} pixels")
    if image.interpretation == "cmyk":
        image = image.icc_transform("srgb", embedded=True)
    samples = image.autorot().numpy()
    return samples[..., None] if samples.ndim == 2 else samples


READERS: dict[str, Reader] = {"abair": by_abair, "pyvips": by_pyvips}
FORKED = READERS | {"pyvips access=random, its default": lambda path: by_pyvips(path, access="random")}


def show_pixels(path: Path) -> None:
    """Print how many files each reader reads exactly, and what differs in the others."""
    files = [*made.png_files(), *made.tiff_files(), *made.other_files()]
    exact, others = dict.fromkeys(READERS, 0), []
    for name, data, right in files:
        path.write_bytes(data)
        told = {reader: _compared(read, path, right) for reader, read in READERS.items()}
        for reader, text in told.items():
            exact[reader] += text == "exact"
        if set(told.values()) != {"exact"}:
            others.append(f"  {name:<30} {' | '.join(f'{reader}: {text}' for reader, text in told.items())}")
    print(f"Pixels: of {len(files)} files exact by {exact}; the others:", *others, sep="\n")


def _compared(read: Reader, path: Path, right: np.ndarray) -> str:
    found = _read(read, path)
    if isinstance(found, str):
        return found
    if (found.shape, found.dtype) != (right.shape, right.dtype):
        return f"{found.shape} {found.dtype}"
    distance = np.abs(found.astype(int) - right)
    return f"off by {distance.mean():.1f}, at most {distance.max()}" if distance.any() else "exact"


def _read(read: Reader, path: Path) -> np.ndarray | str:
    """Return the samples, or why there are none."""
    try:
        return read(path)
    except Exception as error:  # both libraries raise many kinds
        return f"refused: {' '.join(str(error).split())[:110]}"


def show_metadata(path: Path) -> None:
    """Print which metadata each library hands out."""
    import pyvips

    print("\nMetadata handed out:")
    for kind, data in made.metadata_files():
        path.write_bytes(data)
        with Image.open(path) as image:
            image.load()
            info, tags = image.info, getattr(image, "tag_v2", {})
            pillow = {
                "EXIF": 0x9003 in image.getexif().get_ifd(0x8769), "XMP": bool(info.get("xmp") or tags.get(700)),
                "IPTC": bool(info.get("photoshop") or tags.get(33723)), "ICC": "icc_profile" in info,
                "dpi": "dpi" in info, "comment": "comment" in info, "gAMA": "gamma" in info,
            }  # fmt: skip
        image = pyvips.Image.new_from_file(str(path), revalidate=True)
        fields = {name: str(image.get(name)) for name in image.get_fields()}
        vips = {
            "EXIF": any("2020:01:02" in value for value in fields.values()), "XMP": "xmp-data" in fields,
            "IPTC": "iptc-data" in fields, "ICC": "icc-profile-data" in fields, "dpi": round(image.xres * 25.4) == 300,
            "comment": any("remark" in value for value in fields.values()), "gAMA": any("gam" in n for n in fields),
        }  # fmt: skip
        for library, found in (("Pillow", pillow), ("pyvips", vips)):
            print(f"  {kind:<5} {library}: {', '.join(name for name, there in found.items() if there)}")


def show_damage(path: Path) -> None:
    """Print how many damaged files are refused; the others are read with made-up pixels."""
    image, deep = Image.fromarray(made.noise(3)), made.noise(3, 16)
    whole = [made.pillow(image, kind) for kind in ("JPEG", "PNG", "WEBP", "TIFF")]
    whole += [made.pillow(image, "TIFF", compression="tiff_lzw"), made.png(deep, depth=16)]
    whole += [made.tiff(deep, compression="zlib")]
    cut = [data[: len(data) * part // 20] for data in whole for part in range(1, 20)]
    wrong = [data[:1000] + b"garbage" + data[1100:] for data in whole]
    readers = READERS | {"pyvips fail_on=truncated": lambda path: by_pyvips(path, fail_on="truncated")}
    readers |= {"pyvips fail_on=none, its default": lambda path: by_pyvips(path, fail_on="none")}
    print("\nDamaged files refused:")
    for name, read in readers.items():
        counts = []
        with stderr_lines() as lines:
            for files in (cut, wrong):
                refused = 0
                for data in files:
                    path.write_bytes(data)
                    refused += isinstance(_read(read, path), str)
                counts.append(f"{refused} of {len(files)}")
        print(f"  {name:<34} cut short {counts[0]}, overwritten {counts[1]}; {len(lines)} lines on stderr")


def show_traps(path: Path) -> None:
    """Print how a header of 3000 megapixels is handled, and a file that was replaced."""
    defaults = {"pyvips with its defaults": lambda path: by_pyvips(path, access="random", revalidate=False)}
    print("\nA header of 3000 megapixels, and a white file replaced by a black one:")
    for name, read in (READERS | defaults).items():
        huge = path.with_name("huge")
        huge.write_bytes(made.huge_png())
        told = "refused" if isinstance(_read(read, huge), str) else "read"
        for colour in ("white", "black"):
            path.write_bytes(made.pillow(Image.new("RGB", (16, 16), colour), "PNG"))
            found = read(path).max()
        print(f"  {name:<34} {told}, {'white' if found else 'black'}")


@contextmanager
def stderr_lines() -> Iterator[list[str]]:
    """Collect what C libraries write to stderr meanwhile."""
    lines: list[str] = []
    with tempfile.TemporaryFile() as file:
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            lines += file.read().decode(errors="replace").splitlines()


def show_cost(path: Path) -> None:
    """Print the least time and peak memory of processes that read 24 megapixels, or only import."""
    tile = np.asarray(Image.fromarray(made.noise(3)[:50]).resize((600, 400)))
    photo = np.tile(tile, (10, 10, 1))
    deep = photo.astype(np.uint16) * 257
    files = {"imports": b"", "JPEG": made.pillow(photo, "JPEG", quality=90), "PNG 16 bit": made.png(deep, depth=16)}
    files |= {"PNG 8 bit": made.pillow(photo, "PNG", compress_level=3)}
    files |= {"TIFF 16 bit, deflate": made.tiff(deep, compression="zlib", predictor=True, rowsperstrip=64)}
    print("\n24 megapixels, and the imports alone:")
    for name, data in files.items():
        path.write_bytes(data)
        for reader in READERS:
            runs = [json.loads(_child("cost", reader, path)) for _ in range(RUNS)]
            busy, took, peak = (min(values) for values in zip(*runs, strict=True))
            print(f"  {name:<20} {reader:<7} {busy:5.2f} s of CPU, {took:5.2f} s, {peak:4.0f} MB")


def show_forks(path: Path) -> None:
    """Print how many forked children hang when they read a file as their parent did before."""
    path.write_bytes(made.pillow(Image.new("RGB", (3000, 2000)), "JPEG"))
    print(f"\nForked children of {FORKS} that hang when they read a file:")
    for reader in FORKED:
        print(f"  {reader:<34} {_child('forks', reader, path).strip()}")


def show_folder(folder: Path) -> None:
    """Print what both readers make of each file of a folder."""
    print(f"\n{folder}:")
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        told = [_read(read, path) for read in READERS.values()]
        equal = all(isinstance(found, np.ndarray) for found in told) and np.array_equal(*told)
        shown = [found if isinstance(found, str) else f"{found.shape} {found.dtype}" for found in told]
        print(f"  {path.name:<24} {'equal' if equal else ' | '.join(shown)}")


def _child(task: str, reader: str, path: Path) -> str:
    command = [sys.executable, __file__, f"--{task}", reader, str(path)]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def cost(reader: str, path: Path) -> None:
    """Import a reader, read a file unless it is empty, and print what that took, as JSON."""
    busy, began = time.process_time(), time.perf_counter()
    if path.stat().st_size:
        _read(READERS[reader], Path(os.devnull))  # imports it
        busy, began = time.process_time(), time.perf_counter()
    _read(READERS[reader], path)
    took = [time.process_time() - busy, time.perf_counter() - began]
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    print(json.dumps([*took, peak / 1e3]))


def forks(reader: str, path: Path) -> None:
    """Read a file, fork a few times, and print how many of the children hang when they read it."""
    hung = 0
    for _ in range(FORKS):
        FORKED[reader](path)
        child = os.fork()
        if child == 0:
            signal.alarm(FORK_SECONDS)
            FORKED[reader](path)
            os._exit(0)
        hung += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGALRM
    print(hung)


def main(folders: list[Path]) -> None:
    """Print all tables."""
    with tempfile.TemporaryDirectory() as folder:
        for show in (show_pixels, show_metadata, show_damage, show_traps, show_cost, show_forks):
            show(Path(folder) / "file")
    for found in folders:
        show_folder(found)


if __name__ == "__main__":
    logging.disable()
    warnings.simplefilter("ignore")
    if sys.argv[1:2] in (["--cost"], ["--forks"]):
        (cost if sys.argv[1] == "--cost" else forks)(sys.argv[2], Path(sys.argv[3]))
    else:
        main([Path(argument) for argument in sys.argv[1:]])
