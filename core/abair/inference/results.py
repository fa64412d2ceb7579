"""What a restoration returns, and what the estimator says of a photo."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, TypeVar, cast

from abair.inference.conversion import to_pil

Policy = Literal["soft", "one-hot", "backbone"]
Quality = Literal["standard", "best"]
"""`best` restores a photo in four orientations and averages the results (self-ensemble: Lim et al.,
CVPR Workshops 2017, section 3.3, which takes eight), which takes four times as long."""
Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Restored(Generic[Kind]):
    """A restored image, of the kind that was given, and how it was restored.

    `weights` maps every label to the weight that was used, none for the bare backbone; `policy` is
    `soft`, `one-hot`, `backbone` or `given`; `quality` is `standard` or `best`. `seconds` is the
    time for this image; `megapixels` is its size. `warnings` say what was left out. `confidence` is
    how much of the estimator's weights lies on true labels, as is to be expected; None if nothing
    was estimated or the deployment's estimator cannot tell. `unknown` is the part of known photos
    that are more like what was learnt: above 0.95 the damage is taken for unknown; None likewise,
    and for a photo whose shorter side is below 256 pixels. `further_looks` are the weights of each
    restoration of the result that followed, for damage that was seen in it. A PIL image keeps EXIF
    and colour profile, and writes both as JPEG, PNG, WebP and TIFF.
    """

    image: Kind
    weights: dict[str, float]
    policy: str
    quality: str
    deployment: str
    seconds: float
    megapixels: float
    warnings: tuple[str, ...] = ()
    confidence: float | None = None
    unknown: float | None = None
    further_looks: tuple[dict[str, float], ...] = ()

    def save(self, path: Path | str, **options: Any) -> None:
        """Write the image to a file whose suffix names the format, with Pillow's `options`.

        Arrays of floats and tensors are rounded to 8 bits.

        Raises:
            ImageError: the image is an array of 16-bit colours, which Pillow cannot write.
            OSError: the file cannot be written.
            ValueError: the suffix names no format.
        """
        to_pil(cast("Any", self.image)).save(path, **options)


class Judgement(NamedTuple):
    """What the estimator says of a photo.

    `confidence` is how much of the weights lies on true labels, as is to be expected, in [0, 1];
    None where the deployment's estimator cannot tell. `unknown` is the part of known photos that
    are more like what was learnt, in [0, 1]; None likewise, and for a photo whose shorter side is
    below 256 pixels.
    """

    weights: dict[str, float]
    confidence: float | None
    unknown: float | None = None
