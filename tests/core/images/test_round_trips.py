"""What is read and written again keeps its format, colours, grey and alpha."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.support.image_files import exif_block, noise, same_again, save, smooth

from abair import images


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tiff", ".bmp"])
def test_rgb_survives_lossless_formats_bit_for_bit(tmp_path: Path, suffix: str) -> None:
    samples = noise(31, 23)
    options = {"lossless": True} if suffix == ".webp" else {}
    source = save(tmp_path / f"a{suffix}", samples, **options)
    photo = same_again(source, tmp_path / f"b{suffix}")
    assert np.array_equal(photo.pixels, samples)
    assert photo.alpha is None
    assert not photo.grey


def test_the_format_that_was_read_is_kept_whatever_the_name_says_if_it_is_asked_for(tmp_path: Path) -> None:
    samples = noise(31, 23, 4)
    save(tmp_path / "a.png", samples).rename(tmp_path / "a.jpg")
    photo = images.read(tmp_path / "a.jpg")
    images.write(tmp_path / "b.jpg", images.finish(photo, photo.pixels), keep_format=True)
    with Image.open(tmp_path / "b.jpg") as kept:
        assert (kept.format, kept.mode) == ("PNG", "RGBA")
    images.write(tmp_path / "c.jpg", images.finish(photo, photo.pixels))
    with Image.open(tmp_path / "c.jpg") as renamed:
        assert (renamed.format, renamed.mode) == ("JPEG", "RGB")


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_rgba_keeps_alpha_and_the_colours_below_it(tmp_path: Path, suffix: str) -> None:
    samples = noise(31, 23, 4)
    samples[:10, :, 3] = 0
    source = save(tmp_path / "a.png", samples)
    photo = same_again(source, tmp_path / f"b{suffix}")
    assert np.array_equal(photo.pixels, samples[..., :3])
    assert photo.alpha is not None
    assert np.array_equal(photo.alpha, samples[..., 3])


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".bmp", ".jpg"])
def test_grey_comes_back_grey(tmp_path: Path, suffix: str) -> None:
    samples = smooth()[..., 0]
    source = save(tmp_path / "a.png", samples)
    photo = same_again(source, tmp_path / f"b{suffix}")
    assert photo.grey
    assert photo.pixels.shape == (64, 48, 3)
    assert np.abs(photo.pixels[..., 1].astype(int) - samples).max() <= (3 if suffix == ".jpg" else 0)
    with Image.open(tmp_path / f"b{suffix}") as written:
        assert written.mode == "L" or (suffix == ".bmp" and written.mode == "P")


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tiff"])
def test_grey_with_alpha_keeps_both(tmp_path: Path, suffix: str) -> None:
    samples = noise(9, 12, 2)
    photo = same_again(save(tmp_path / "a.png", samples), tmp_path / f"b{suffix}")
    assert np.array_equal(photo.pixels[..., 0], samples[..., 0])
    assert photo.alpha is not None
    assert np.array_equal(photo.alpha, samples[..., 1])


def test_jpeg_is_written_finely_and_without_chroma_subsampling(tmp_path: Path) -> None:
    samples = smooth()
    photo = same_again(save(tmp_path / "a.png", samples), tmp_path / "b.jpg")
    assert photo.format == "JPEG"
    assert not photo.lossless
    assert np.abs(photo.pixels.astype(int) - samples).mean() < 1.0
    with Image.open(tmp_path / "b.jpg") as written:
        assert {layer[1:3] for layer in written.layer} == {(1, 1)}  # type: ignore[attr-defined]


@pytest.mark.parametrize("lossless", [True, False])
def test_webp_stays_as_lossless_as_its_source(tmp_path: Path, lossless: bool) -> None:
    options = {"lossless": True} if lossless else {"quality": 80}
    exif = exif_block()  # puts the pixels behind an extended header
    source = save(tmp_path / "a.webp", noise(40, 40), exif=exif, **options)
    assert images.read(source).lossless is lossless
    assert same_again(source, tmp_path / "b.webp").lossless is lossless


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1)])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tiff", ".bmp"])
def test_the_smallest_photos_work_in_every_format(tmp_path: Path, suffix: str, size: tuple[int, int]) -> None:
    source = save(tmp_path / f"a{suffix}", noise(*size))
    assert images.probe(source) == (size[1], size[0])
    assert same_again(source, tmp_path / f"b{suffix}").pixels.shape == (*size, 3)


def test_alpha_is_flattened_on_white_with_a_warning(tmp_path: Path) -> None:
    samples = np.zeros((8, 8, 4), np.uint8)
    samples[:4, :, 3] = 255
    photo = same_again(save(tmp_path / "a.png", samples), tmp_path / "b.bmp")
    assert ["transparency" in warning for warning in photo.warnings] == [True]
    assert (photo.pixels[:4] == 0).all()
    assert (photo.pixels[4:] == 255).all()


def test_an_opaque_alpha_is_dropped_in_silence(tmp_path: Path) -> None:
    samples = noise(8, 8, 4)
    samples[..., 3] = 255
    photo = same_again(save(tmp_path / "a.png", samples), tmp_path / "b.bmp")
    assert np.array_equal(photo.pixels, samples[..., :3])
    assert photo.warnings == ()


def test_a_palette_comes_back_as_the_colours_it_stood_for(tmp_path: Path) -> None:
    palette = Image.fromarray(smooth()).quantize(16)
    photo = same_again(save(tmp_path / "a.png", palette), tmp_path / "b.png")
    assert np.array_equal(photo.pixels, np.asarray(palette.convert("RGB")))
    assert photo.alpha is None


def test_a_palette_with_transparency_comes_back_with_alpha(tmp_path: Path) -> None:
    palette = Image.fromarray(smooth()).quantize(16)
    photo = same_again(save(tmp_path / "a.png", palette, transparency=3), tmp_path / "b.png")
    assert photo.alpha is not None
    assert np.array_equal(photo.alpha == 0, np.asarray(palette) == 3)


@pytest.mark.parametrize(("channels", "key"), [(1, 9), (3, (1, 2, 3))])
def test_an_8_bit_colour_key_becomes_alpha(tmp_path: Path, channels: int, key: Any) -> None:
    samples = np.full((6, 6, 3), (5, 5, 5), np.uint8)
    samples[2, 2] = key
    image = Image.fromarray(samples[..., 0] if channels == 1 else samples)
    photo = images.read(save(tmp_path / "a.png", image, transparency=key))
    assert photo.alpha is not None
    assert photo.alpha[2, 2] == 0
    assert (photo.alpha == 0).sum() == 1


def test_a_1_bit_scan_becomes_8_bit_grey(tmp_path: Path) -> None:
    bits = noise(9, 17, 1) > 127
    photo = same_again(save(tmp_path / "a.tif", Image.fromarray(bits), compression="group4"), tmp_path / "b.png")
    assert photo.grey
    assert np.array_equal(photo.pixels[..., 0], bits * np.uint8(255))


@pytest.mark.parametrize("name", ["a.jpg", "a.tif"])
def test_cmyk_becomes_rgb_of_the_same_colours(tmp_path: Path, name: str) -> None:
    colours = smooth()
    source = save(
        tmp_path / name, Image.fromarray(colours).convert("CMYK"), **({"quality": 95} if name == "a.jpg" else {})
    )
    photo = same_again(source, tmp_path / f"b{name}")
    assert np.abs(photo.pixels.astype(int) - colours).mean() < 2.0  # an inverted one would be off by about 128
    assert not photo.grey


def test_an_unusable_cmyk_profile_costs_a_warning_not_the_photo(tmp_path: Path) -> None:
    cmyk = Image.fromarray(smooth()).convert("CMYK")
    photo = images.read(save(tmp_path / "a.jpg", cmyk, icc_profile=b"not a profile" * 20))
    assert photo.icc_profile is None
    assert ["CMYK profile" in warning for warning in photo.warnings] == [True]


def test_a_grey_restored_in_colour_is_written_as_the_mean(tmp_path: Path) -> None:
    photo = images.read(save(tmp_path / "a.png", noise(4, 4, 1)))
    restored = np.full((4, 4, 3), (10, 20, 33), np.uint8)
    images.write(tmp_path / "b.png", images.finish(photo, restored))
    assert (images.read(tmp_path / "b.png").pixels == 21).all()


def test_a_phones_mpo_is_a_jpeg(tmp_path: Path) -> None:
    frames = [Image.fromarray(smooth()), Image.fromarray(smooth()[::2, ::2])]
    path = tmp_path / "a.jpg"
    frames[0].save(path, format="MPO", save_all=True, append_images=frames[1:])
    photo = same_again(path, tmp_path / "b.jpg")
    assert photo.format == "JPEG"
    assert photo.pixels.shape == (64, 48, 3)
