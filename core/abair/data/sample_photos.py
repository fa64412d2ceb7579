"""Clean pictures without a download: photographs of installed packages, and dead-leaves images."""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from abair.errors import ImageError, MissingExtraError

PHOTOS: Final[dict[str, tuple[str, str]]] = {
    "astronaut": ("skimage", "data/astronaut.png"),
    "cat": ("skimage", "data/chelsea.png"),
    "coffee": ("skimage", "data/coffee.png"),
    "dahlia": ("sklearn", "datasets/images/flower.jpg"),
    "motorcycle": ("skimage", "data/motorcycle_left.png"),
    "portrait": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
    "retina": ("skimage", "data/retina.jpg"),
    "rocket": ("skimage", "data/rocket.jpg"),
    "temple": ("sklearn", "datasets/images/china.jpg"),
}
"""Colour photographs in the wheels of three packages, by package and path there: all of them but
the Hubble one, whose stars look like noise."""
PROJECTS: Final = {"matplotlib": "matplotlib", "skimage": "scikit-image", "sklearn": "scikit-learn"}
"""The packages' names on PyPI."""

SMALLEST_RADIUS: Final = 4.5
"""Of a leaf, in pixels. Smaller leaves are noise, which a network should not learn to keep."""

_SUPERSAMPLING: Final = 2
_TEXTURES: Final = 5


def sample_photos() -> dict[str, NDArray[np.uint8]]:
    """Read `PHOTOS` from the installed packages' files, each (H, W, 3) uint8 RGB.

    The packages themselves are not imported, and nothing is downloaded.

    Raises:
        MissingExtraError: A package is not installed.
        ImageError: A file is missing from an installed package, or damaged.
    """
    folders = {package: _folder(package) for package in PROJECTS}
    photos = {}
    for name, (package, file) in PHOTOS.items():
        path = folders[package] / file
        try:
            with Image.open(path, formats=("PNG", "JPEG")) as image:
                photos[name] = np.array(image.convert("RGB"))
        except (OSError, ValueError) as error:
            project = PROJECTS[package]
            raise ImageError(
                f"{path}: not readable ({error}); expected a photograph of {project}'s wheel; "
                f"pip install --force-reinstall {project}"
            ) from None
    return photos


def _folder(package: str) -> Path:
    """Return the folder of an installed package.

    Raises:
        MissingExtraError: It is not installed.
    """
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError(
            f"sample photos: {PROJECTS[package]}, which brings some, is not installed; pip install 'abair[bench]', "
            "or name a folder of your own photos"
        )
    return Path(next(iter(spec.submodule_search_locations)))


def dead_leaves(generator: torch.Generator, side: int) -> NDArray[np.uint8]:
    """Draw textured shapes that overlap, with the statistics of photographs: (side, side, 3) uint8.

    Radii follow r^-3, so that statistics are the same at every scale, like those of photographs
    (Lee, Mumford, Huang, "Occlusion Models for Natural Images", IJCV 2001). Leaves are ellipses and
    rectangles, each with a texture and a shading (after Madhusudana et al., "Revisiting Dead Leaves
    Model", 2022). The picture is drawn at twice the size and averaged, so that edges are as soft as
    a camera's. The same generator state gives the same picture.

    Raises:
        ValueError: `side` is less than 1.
    """
    if side < 1:
        raise ValueError(f"side: found {side}, expected at least 1")
    rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
    canvas = side * _SUPERSAMPLING
    palette = _palette(rng)
    textures = np.stack([_texture(rng, canvas) for _ in range(_TEXTURES)])
    picture = palette[0] + 0.1 * textures[0][..., None]
    covered = np.zeros((canvas, canvas), dtype=bool)
    smallest, largest = SMALLEST_RADIUS * _SUPERSAMPLING, max(0.45 * canvas, SMALLEST_RADIUS * _SUPERSAMPLING * 1.01)
    # from the mean area under r^-3 follows how many leaves leave about 1 % of the picture uncovered
    mean_area = 2 * math.pi * math.log(largest / smallest) / (smallest**-2 - largest**-2)
    count = min(4000, math.ceil(5 * canvas**2 / mean_area))
    radii = (smallest**-2 - rng.random(count) * (smallest**-2 - largest**-2)) ** -0.5
    # from front to back: pixels that are covered stay as they are
    for radius in radii:
        _draw_leaf(rng, float(radius), picture, covered, palette, textures)
    picture = picture.reshape(side, _SUPERSAMPLING, side, _SUPERSAMPLING, 3).mean((1, 3))
    rounded: NDArray[np.uint8] = np.rint(picture.clip(0, 1) * 255).astype(np.uint8)
    return rounded


def _draw_leaf(
    rng: np.random.Generator,
    radius: float,
    picture: NDArray[np.float32],
    covered: NDArray[np.bool_],
    palette: NDArray[np.float32],
    textures: NDArray[np.float32],
) -> None:
    """Draw one leaf behind those that are already there."""
    canvas = len(covered)
    a, b, c, d, amount, shade = rng.random(6)
    row, column, turn = a * canvas, b * canvas, c * math.pi
    top, bottom = max(0, int(row - radius)), min(canvas, int(row + radius) + 2)
    left, right = max(0, int(column - radius)), min(canvas, int(column + radius) + 2)
    free = ~covered[top:bottom, left:right]
    if not free.any():
        return
    y = ((np.arange(top, bottom, dtype=np.float32) - row) / radius)[:, None]
    x = ((np.arange(left, right, dtype=np.float32) - column) / radius)[None]
    u = np.float32(math.cos(turn)) * x + np.float32(math.sin(turn)) * y
    v = np.float32(math.cos(turn)) * y - np.float32(math.sin(turn)) * x
    width = np.float32(0.35 + 0.65 * d)
    if a * 1000 % 1 < 0.65:
        inside = u * u + (v / width) ** 2 < 1
    else:  # a rectangle with its corners on the circle
        half = math.hypot(1, width)
        inside = (np.abs(u) < 1 / half) & (np.abs(v) < width / half)
    inside &= free
    if not inside.any():
        return
    colour = palette[int(rng.integers(len(palette)))] + rng.normal(0, 0.05, 3).astype(np.float32)
    texture = textures[int(rng.integers(len(textures))), top:bottom, left:right]
    light = np.float32(0.22 * amount**2) * texture + np.float32(0.3 * (shade - 0.5)) * u
    picture[top:bottom, left:right][inside] = (colour * (1 + light[inside])[:, None]).clip(0, 1)
    covered[top:bottom, left:right] |= inside


def _palette(rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw colours (12, 3): mostly muted, few hues, as in most photographs."""
    light = rng.beta(1.2, 1.4, (12, 1))
    tint = rng.normal(0, 1, (12, 3))
    chroma = rng.gamma(1.2, 0.06, (12, 1))
    colours: NDArray[np.float32] = (light + chroma * (tint - tint.mean(1, keepdims=True))).astype(np.float32)
    return colours.clip(0.01, 0.99)


def _texture(rng: np.random.Generator, side: int) -> NDArray[np.float32]:
    """Draw 1/f^s noise, s in [0.6, 1.6], or bent stripes (side, side); mean 0, deviation 1."""
    rows, columns = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]
    frequency = np.hypot(rows, columns)
    frequency[0, 0] = 1.0
    power = rng.uniform(0.6, 1.6)
    spectrum = np.fft.rfft2(rng.standard_normal((side, side), dtype=np.float32)) / frequency**power
    spectrum[0, 0] = 0
    field = np.fft.irfft2(spectrum, s=(side, side))
    field /= max(float(field.std()), 1e-6)
    if power > 1.25:  # the level lines of a smooth field look like wood grain, cloth, sand
        field = np.sqrt(2) * np.sin(field * rng.uniform(6, 20))
    return field.astype(np.float32)
