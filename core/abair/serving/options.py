"""What a request may ask for, and the limits that the server sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from abair.labels import MOST_LOOKS, parse_weights

SUFFIX_OF: Final = {"jpeg": ".jpg", "png": ".png", "webp": ".webp", "tiff": ".tif", "bmp": ".bmp"}
"""The formats that are written, and the suffix of each."""
MEDIA_TYPE_OF: Final = {
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".tif": "image/tiff",
    ".bmp": "image/bmp",
}


@dataclass(frozen=True)
class Limits:
    """What the server takes.

    `queue` is how many requests may wait beside the `workers` that are being answered; `seconds`
    are those of one photo's work; `upload_seconds` those that a request may take to arrive, beside
    those that its size takes at `slowest_upload` bytes a second.
    """

    max_megapixels: float = 100.0
    max_body: int = 200 * 2**20
    queue: int = 32
    workers: int = 1
    seconds: float = 600.0
    upload_seconds: float = 60.0
    slowest_upload: float = 250e3
    tile: int | None = None


class EstimateOptions(BaseModel):
    """The options of an estimate: there are none."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RestoreOptions(BaseModel):
    """The options of a restoration, as those of `abair restore`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weights: Annotated[
        str | None,
        Field(
            description="Weights in place of the estimate, as in noise=0.7,blur=0.3: each is a part of the photo, "
            "and the rest is left alone.",
            examples=["noise=0.7,blur=0.3"],
        ),
    ] = None
    policy: Annotated[
        Literal["soft", "one-hot", "backbone"] | None,
        Field(description="Blend all adapters, use the likeliest one, or none; soft if nothing is said."),
    ] = None
    strength: Annotated[float, Field(ge=0, le=1, description="Strength of the restoration; 0.5 is halfway.")] = 1.0
    quality: Annotated[
        Literal["standard", "best"], Field(description="best takes four times as long and averages four results.")
    ] = "standard"
    looks: Annotated[
        int | None,
        Field(
            ge=1,
            le=MOST_LOOKS,
            description="At most so often is the photo, and then the result, looked at; once if nothing is said, and "
            "3 times for the best quality.",
        ),
    ] = None
    format: Annotated[
        Literal["jpeg", "png", "webp", "tiff", "bmp"] | None,
        Field(description="The format of the answer; that of the photo if nothing is said."),
    ] = None
    jpeg_quality: Annotated[
        int | None, Field(ge=1, le=100, description="Quality of a JPEG; as the photo's if nothing is said.")
    ] = None

    @model_validator(mode="after")
    def _weights_or_policy(self) -> RestoreOptions:
        if self.weights is not None:
            parse_weights(self.weights)
            if self.policy is not None:
                raise ValueError("policy cannot be used with weights, which replace the estimate")
        if self.looks is not None and (self.weights is not None or self.policy not in {None, "soft"}):
            raise ValueError("looks cannot be used with weights or another policy than soft: it looks by estimates")
        return self
