"""Every kind of image is taken and comes back as it was given; others are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from abair import Restorer
from abair.errors import ImageError
from abair.inference.results import Quality, Restored


def test_every_kind_of_image_comes_back_as_its_kind(restorer: Restorer, photo: np.ndarray) -> None:
    pil = restorer(Image.fromarray(photo))
    eight = restorer(photo)
    sixteen = restorer(photo.astype(np.uint16) * 257)
    floats = restorer(photo.astype(np.float32) / 255)
    tensor = restorer(torch.from_numpy(photo).permute(2, 0, 1).float() / 255)
    assert isinstance(pil.image, Image.Image)
    assert (eight.image.dtype, sixteen.image.dtype, floats.image.dtype) == (np.uint8, np.uint16, np.float32)
    assert tensor.image.shape == (3, *photo.shape[:2])
    assert np.array_equal(np.asarray(pil.image), eight.image)
    assert np.abs(sixteen.image / 257.0 - eight.image).max() <= 0.51
    assert torch.allclose(tensor.image.permute(1, 2, 0), torch.from_numpy(floats.image), atol=1e-6)
    assert not np.array_equal(restorer(photo, policy="backbone").image, photo)


def test_a_list_gives_a_list_of_the_same_results(restorer: Restorer, photo: np.ndarray) -> None:
    both = restorer([photo, photo[:40, :50]])
    assert [type(result) for result in both] == [Restored, Restored]
    assert np.array_equal(both[1].image, restorer(photo[:40, :50].copy()).image)


def test_grey_and_alpha_are_kept(restorer: Restorer, photo: np.ndarray) -> None:
    grey = restorer(Image.fromarray(photo).convert("L")).image
    alpha = Image.fromarray(photo).convert("RGBA")
    alpha.putalpha(77)
    assert grey.mode == "L"
    assert restorer(photo[:, :, 0].copy()).image.shape == photo.shape[:2]
    assert restorer(alpha).image.getchannel("A").getextrema() == (77, 77)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "1", "CMYK", "I;16"])
def test_every_mode_of_pil_keeps_grey_and_transparency(restorer: Restorer, photo: np.ndarray, mode: str) -> None:
    image = (
        Image.fromarray(photo.astype(np.uint16)[:, :, 0] * 257)
        if mode == "I;16"
        else Image.fromarray(photo).convert(mode)
    )
    expected = {"P": "RGB", "1": "L", "CMYK": "RGB"}.get(mode, mode)
    restored = restorer(image, weights={"clean": 1}).image
    assert (restored.mode, restored.size) == (expected, image.size)
    same = np.asarray(restored.convert("RGB") if mode != "I;16" else restored, dtype=int)
    assert np.abs(same - np.asarray(image.convert("RGB") if mode != "I;16" else image, dtype=int)).max() <= 1


def test_colours_under_full_transparency_decide_nothing_and_stay(restorer: Restorer, photo: np.ndarray) -> None:
    alpha = np.full(photo.shape[:2], 255, np.uint8)
    alpha[:, : photo.shape[1] // 2] = 0
    results = []
    for hidden in (0, 90, 255):
        pixels = photo.copy()
        pixels[alpha == 0] = hidden
        image = Image.fromarray(np.dstack([pixels, alpha]))
        restored = np.asarray(restorer(image, policy="backbone").image)
        assert (restored[alpha == 0][:, :3] == hidden).all()
        results.append((restorer.estimate(image), restored[alpha > 0].tolist()))
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize(("dtype", "peak"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1)])
def test_a_page_of_black_and_white_alone_is_left_alone(restorer: Restorer, dtype: type, peak: int) -> None:
    page = np.repeat(np.random.default_rng(0).integers(0, 2, (90, 80, 1)), 3, axis=2).astype(dtype) * dtype(peak)
    assert restorer.estimate(page)["clean"] == 1
    assert np.array_equal(restorer(page).image, page)
    page[5, 5] = page[5, 5] * 0.5 + dtype(peak / 4)
    assert restorer.estimate(page)["clean"] < 1


def test_transparency_of_a_palette_is_kept(restorer: Restorer, photo: np.ndarray) -> None:
    image = Image.fromarray(photo).convert("P")
    image.info["transparency"] = image.getpixel((0, 0))
    restored = restorer(image).image
    assert restored.mode == "RGBA"
    assert restored.getchannel("A").getextrema() == (0, 255)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_a_photo_that_lies_on_its_side_is_turned_and_keeps_what_it_says_of_itself(
    restorer: Restorer, photo: np.ndarray, tmp_path: Path, name: str
) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    source = tmp_path / name
    Image.fromarray(photo).save(source, exif=exif.tobytes(), icc_profile=b"a profile")
    with Image.open(source) as image:
        restored = restorer(image, weights={"clean": 1}).image
    assert np.array_equal(np.asarray(restored), np.rot90(photo, -1))
    for target in ("b.png", "b.jpg", "b.webp", "b.tif"):
        restored.save(tmp_path / target)
        with Image.open(tmp_path / target) as saved:
            assert (saved.getexif().get(0x0112, 1), saved.getexif()[0x010F]) == (1, "Maker")
            assert saved.info["icc_profile"] == b"a profile"


def test_exif_too_long_for_a_jpeg_is_left_out_there(restorer: Restorer, photo: np.ndarray, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    exif.get_ifd(0x8769)[0x927C] = bytes(70_000)
    Image.fromarray(photo).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        restored = restorer(image, weights={"clean": 1})
    for name, kept in (("b.jpg", False), ("b.png", True)):
        restored.save(tmp_path / name)
        with Image.open(tmp_path / name) as saved:
            assert (saved.getexif().get(0x010F) == "Maker") == kept


def test_a_photo_on_its_side_and_the_upright_one_get_the_same_estimate(
    restorer: Restorer, photo: np.ndarray, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(photo)).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        assert restorer.estimate(image) == restorer.estimate(photo)


@pytest.mark.parametrize("block", [b"nonsense", b"II*\0\xff\xff\xff\x7f", b"MM\0*\0\0\0\x08\xff\xff"])
def test_broken_exif_costs_a_warning_and_not_the_photo(
    restorer: Restorer, photo: np.ndarray, tmp_path: Path, block: bytes
) -> None:
    Image.fromarray(photo).save(tmp_path / "a.jpg", exif=b"Exif\0\0" + block, quality=100)
    with Image.open(tmp_path / "a.jpg") as image:
        restored = restorer(image, weights={"clean": 1})
        assert restorer.estimate(image)
    assert ["EXIF is broken" in warning for warning in restored.warnings] == [True]
    restored.image.save(tmp_path / "b.jpg")


def test_a_result_of_any_kind_is_saved(restorer: Restorer, photo: np.ndarray, tmp_path: Path) -> None:
    clean = {"clean": 1.0}
    floats = photo.astype(np.float32) / 255
    tensor = torch.from_numpy(floats).permute(2, 0, 1)
    for image in (photo, floats, tensor, Image.fromarray(photo)):
        restorer(image, weights=clean).save(tmp_path / "a.png")
        with Image.open(tmp_path / "a.png") as saved:
            assert np.array_equal(np.asarray(saved), photo)
    restorer(Image.fromarray(photo), weights=clean).save(tmp_path / "small.jpg", quality=5)
    restorer(Image.fromarray(photo), weights=clean).save(tmp_path / "large.jpg", quality=95)
    assert (tmp_path / "small.jpg").stat().st_size * 2 < (tmp_path / "large.jpg").stat().st_size
    with pytest.raises(ImageError, match="16"):
        restorer(photo.astype(np.uint16), weights=clean).save(tmp_path / "b.png")


@pytest.mark.parametrize(("channels", "advice"), [(1, r"image\[..., 0\]"), (4, r"image\[..., :3\]")])
def test_an_array_with_other_channels_is_refused_with_what_to_pass(
    restorer: Restorer, channels: int, advice: str
) -> None:
    with pytest.raises(ImageError, match=advice):
        restorer(np.zeros((20, 20, channels), np.uint8))


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (17, 3), (16, 16), (33, 65)])
def test_every_size_works(restorer: Restorer, shape: tuple[int, int]) -> None:
    result = restorer(np.full((*shape, 3), 90, np.uint8))
    assert result.image.shape == (*shape, 3)
    assert result.megapixels == shape[0] * shape[1] / 1e6


def orientations(picture: np.ndarray) -> list[np.ndarray]:
    turned = [np.rot90(picture, quarter) for quarter in range(4)]
    return [np.ascontiguousarray(view) for one in turned for view in (one, one[:, ::-1])]


@pytest.mark.parametrize("quality", ["standard", "best"])
def test_clean_weight_one_gives_the_photo_back_bit_for_bit(
    restorer: Restorer, photo: np.ndarray, quality: Quality
) -> None:
    assert np.array_equal(restorer(photo, weights={"clean": 1.0}, quality=quality).image, photo)
    sixteen = photo.astype(np.uint16) * 257 + 3
    for given in ({"clean": 1.0, "noise": 0.0}, {}):
        assert np.array_equal(restorer(sixteen, weights=given, quality=quality).image, sixteen)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((0, 5, 3), np.uint8),
        np.zeros((5, 5, 4), np.uint8),
        np.zeros((5, 5, 3), np.int32),
        np.full((5, 5, 3), np.nan, np.float32),
        torch.zeros(5, 5, 3),
        np.full((5, 5, 3), 200.0, np.float32),
        Image.new("F", (5, 5)),
        Image.new("I", (5, 5)),
        "photo.jpg",
    ],
)
def test_wrong_images_are_refused(restorer: Restorer, image: object) -> None:
    with pytest.raises(ImageError, match="expected"):
        restorer(image)  # type: ignore[call-overload]


def test_grey_premultiplied_by_its_alpha_comes_back_grey_with_alpha(restorer: Restorer) -> None:
    image = Image.new("LA", (20, 10), (90, 200)).convert("La")
    restored = restorer(image).image
    assert (restored.mode, restored.size) == ("LA", (20, 10))
