"""What the writer refuses, and the files that it leaves."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
import weakref
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.JpegImagePlugin import get_sampling
from tests.support.image_files import noise, save, smooth

from abair import images
from abair.errors import ImageError
from abair.images.photo import FORMATS


def test_an_existing_output_is_replaced_only_when_asked(folder: Path, photo: images.Photo) -> None:
    (folder / "a.png").write_bytes(b"precious")
    with pytest.raises(ImageError, match="--overwrite"):
        images.write(folder / "a.png", images.finish(photo, photo.pixels))
    assert (folder / "a.png").read_bytes() == b"precious"
    images.write(folder / "a.png", images.finish(photo, photo.pixels), overwrite=True)
    assert np.array_equal(images.read(folder / "a.png").pixels, photo.pixels)
    assert [path.name for path in folder.iterdir()] == ["a.png"]


def test_an_encoder_that_fails_is_one_line_and_leaves_nothing(
    folder: Path, photo: images.Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("encoder\nerror")

    monkeypatch.setattr(Image.Image, "save", broken)
    with pytest.raises(ImageError, match="encoder error"):
        images.write(folder / "a.webp", images.finish(photo, photo.pixels))
    assert list(folder.iterdir()) == []


def test_outputs_that_cannot_work_are_refused_early(tmp_path: Path, photo: images.Photo) -> None:
    (tmp_path / "dir.png").mkdir()
    for name, words in [
        ("a.gif", "suffix '.gif'"),
        ("a", "no suffix"),
        ("dir.png", "found a folder"),
        ("nowhere/a.png", "create it first"),
        ("source.png/a.png", "found a file"),
    ]:
        with pytest.raises(ImageError, match=words) as caught:
            images.check_output(tmp_path / name, overwrite=True)
        assert "expected" in str(caught.value)
        with pytest.raises(ImageError):
            images.write(tmp_path / name, images.finish(photo, photo.pixels), overwrite=True)


@pytest.mark.parametrize("read_only", ["out", "a.png"])
def test_a_read_only_folder_or_file_is_refused(
    folder: Path, photo: images.Photo, monkeypatch: pytest.MonkeyPatch, read_only: str
) -> None:
    (folder / "a.png").write_bytes(b"precious")
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != read_only)  # root may write anywhere
    with pytest.raises(ImageError, match="read-only"):
        images.write(folder / "a.png", images.finish(photo, photo.pixels), overwrite=True)
    assert (folder / "a.png").read_bytes() == b"precious"


def test_the_output_has_the_usual_permissions_and_keeps_those_of_the_file_it_replaces(
    folder: Path, photo: images.Photo
) -> None:
    (folder / "usual").touch()
    images.write(folder / "a.png", images.finish(photo, photo.pixels))
    assert (folder / "a.png").stat().st_mode == (folder / "usual").stat().st_mode
    (folder / "a.png").chmod(0o600)
    images.write(folder / "a.png", images.finish(photo, photo.pixels), overwrite=True)
    assert (folder / "a.png").stat().st_mode & 0o777 == 0o600


def test_pixels_of_another_size_or_type_are_refused(folder: Path, photo: images.Photo) -> None:
    for other in (photo.pixels[1:], photo.pixels.astype(np.float32)):
        with pytest.raises(ImageError, match="expected"):
            images.finish(photo, other)


def test_a_finished_photo_does_not_hold_the_pixels_that_it_had() -> None:
    pixels = noise(8, 9)
    held = weakref.ref(pixels)
    finished = images.finish(images.Photo(pixels, None, False, "PNG", None, None), 255 - pixels)
    del pixels
    assert held() is None
    assert not finished.unchanged


def test_a_side_too_long_for_the_format_is_refused(folder: Path) -> None:
    pixels = np.zeros((1, 17000, 3), np.uint8)
    wide = images.Photo(pixels, None, False, "PNG", None, None)
    with pytest.raises(ImageError, match="16383"):
        images.write(folder / "a.webp", images.finish(wide, pixels))
    images.write(folder / "a.png", images.finish(wide, pixels))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".bmp"])
def test_the_same_photo_gives_the_same_bytes(folder: Path, photo: images.Photo, suffix: str) -> None:
    images.write(folder / f"a{suffix}", images.finish(photo, photo.pixels))
    images.write(folder / f"b{suffix}", images.finish(photo, photo.pixels))
    assert (folder / f"a{suffix}").read_bytes() == (folder / f"b{suffix}").read_bytes()


def test_reading_and_writing_say_nothing_on_ordinary_photos(tmp_path: Path, photo: images.Photo) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for suffix in sorted(images.SUFFIXES):
            assert images.write(tmp_path / f"b{suffix}", images.finish(photo, photo.pixels)).warnings == ()
            assert images.read(tmp_path / f"b{suffix}").warnings == ()


@pytest.mark.parametrize("suffix", sorted(images.SUFFIXES))
def test_a_photo_that_needs_nothing_is_copied_byte_for_byte(tmp_path: Path, suffix: str) -> None:
    kind = FORMATS[suffix]
    broken = {"exif": b"Exif\0\0nonsense"} if kind != "TIFF" else {}
    source = save(tmp_path / f"a{suffix}", smooth(), format=kind, **broken)
    photo = images.read(source)
    written = images.write(tmp_path / f"b{suffix}", images.finish(photo, photo.pixels.copy()), source=source)
    assert written == ((), True)
    assert (tmp_path / f"b{suffix}").read_bytes() == source.read_bytes()
    in_place = images.write(source, images.finish(photo, photo.pixels), source=source, overwrite=True)
    assert in_place.unchanged
    assert (tmp_path / f"b{suffix}").read_bytes() == source.read_bytes()


def test_one_changed_pixel_or_another_format_is_written_anew(tmp_path: Path) -> None:
    source = save(tmp_path / "a.png", smooth(), compress_level=0)
    photo = images.read(source)
    changed = photo.pixels.copy()
    changed[5, 5, 0] ^= 1
    assert not images.write(tmp_path / "b.png", images.finish(photo, changed), source=source).unchanged
    assert np.array_equal(images.read(tmp_path / "b.png").pixels, changed)
    assert not images.write(tmp_path / "b.tif", images.finish(photo, photo.pixels), source=source).unchanged
    assert np.array_equal(images.read(tmp_path / "b.tif").pixels, photo.pixels)


def test_a_file_with_another_formats_ending_keeps_both(tmp_path: Path) -> None:
    source = save(tmp_path / "a.jpg", smooth(), format="PNG")
    photo = images.read(source)
    written = images.write(tmp_path / "b.jpg", images.finish(photo, photo.pixels), source=source, keep_format=True)
    assert written.unchanged
    assert images.read(tmp_path / "b.jpg").format == "PNG"


@pytest.mark.slow
def test_a_large_jpeg_needs_little_memory_and_no_torch(tmp_path: Path) -> None:
    """24 megapixels in and out under 500 MB (the pixels are 72 MB), measured in a process of its own."""
    if not Path("/proc/self/status").exists():
        pytest.skip("the peak of one process alone is known on Linux only: elsewhere a child inherits its parent's")
    tile = np.asarray(Image.fromarray(noise(50, 75)).resize((600, 400)))
    save(tmp_path / "a.jpg", np.tile(tile, (10, 10, 1)), quality=90)
    code = (
        "import sys; from pathlib import Path; from abair import images\n"
        "photo = images.read(Path(sys.argv[1])); finished = images.finish(photo, photo.pixels.copy())\n"
        "images.write(Path(sys.argv[2]), finished)\n"
        "assert 'torch' not in sys.modules\n"
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "a.jpg", tmp_path / "b.jpg"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(images.__file__).parents[2])},
    )
    assert int(done.stdout) / 1e3 < 500
    assert images.probe(tmp_path / "b.jpg") == (6000, 4000)


@pytest.mark.parametrize("quality", [98, 92, 75, 20])
@pytest.mark.parametrize("sampling", [0, 1, 2])
@pytest.mark.parametrize("grey", [False, True])
def test_a_restored_jpeg_is_compressed_as_its_source_was_but_not_coarser_than_at_quality_90(
    tmp_path: Path, quality: int, sampling: int, grey: bool
) -> None:
    picture = Image.fromarray(smooth(96, 64)).convert("L" if grey else "RGB")
    source = save(tmp_path / "a.jpg", picture, quality=quality, subsampling=sampling)
    photo = images.read(source)
    images.write(tmp_path / "b.jpg", images.finish(photo, photo.pixels))
    best = save(tmp_path / "c.jpg", picture, quality=90)
    with Image.open(source) as before, Image.open(tmp_path / "b.jpg") as after, Image.open(best) as bound:
        tables = [image.quantization for image in (before, after, bound)]  # type: ignore[attr-defined]
        assert tables[1] == (tables[0] if quality >= 90 else tables[2])
        if not grey:
            assert get_sampling(after) == sampling


def test_a_jpeg_made_of_another_format_is_fine(tmp_path: Path) -> None:
    photo = images.read(save(tmp_path / "a.png", smooth()))
    images.write(tmp_path / "b.jpg", images.finish(photo, photo.pixels))
    fine = save(tmp_path / "c.jpg", smooth(), quality=95, subsampling=0)
    with Image.open(tmp_path / "b.jpg") as written, Image.open(fine) as expected:
        assert written.quantization == expected.quantization  # type: ignore[attr-defined]
        assert get_sampling(written) == 0


def test_a_cmyk_jpeg_becomes_a_fine_one_of_rgb(tmp_path: Path) -> None:
    cmyk = Image.fromarray(smooth()).convert("CMYK")
    photo = images.read(save(tmp_path / "a.jpg", cmyk, quality=30))
    assert photo.jpeg is None
    images.write(tmp_path / "b.jpg", images.finish(photo, photo.pixels))


@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:0"])
def test_a_quality_that_is_asked_for_is_used_with_the_sources_sampling(
    tmp_path: Path, folder: Path, sampling: str
) -> None:
    photo = images.read(save(tmp_path / "a.jpg", smooth(), quality=60, subsampling=sampling))
    for quality in (30, 98):
        images.write(folder / "b.jpg", images.finish(photo, 255 - photo.pixels), overwrite=True, jpeg_quality=quality)
        save(tmp_path / "like.jpg", smooth(), quality=quality, subsampling=sampling)
        with Image.open(folder / "b.jpg") as written, Image.open(tmp_path / "like.jpg") as like:
            assert written.quantization == like.quantization  # type: ignore[attr-defined]
            assert get_sampling(written) == get_sampling(like)
    images.write(folder / "b.png", images.finish(photo, photo.pixels), jpeg_quality=5)
    assert np.array_equal(images.read(folder / "b.png").pixels, photo.pixels)
