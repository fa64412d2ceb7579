"""One photo of many: read it, restore it, write it, and say what was done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from abair.labels import round_confidence, round_weights

if TYPE_CHECKING:
    from abair.images.photo import Photo
    from abair.inference.restorer import Restorer
    from abair.inference.results import Policy, Quality, Restored


@dataclass(frozen=True)
class Choices:
    """What the options of a command say of every photo; by default, what it does without them."""

    policy: Policy = "soft"
    weights: Mapping[str, float] | None = None
    strength: float = 1.0
    tile: int | None = None
    quality: Quality = "standard"
    looks: int | None = None
    max_megapixels: float = 100.0
    overwrite: bool = False
    keep_times: bool = False
    jpeg_quality: int | None = None
    warning: str = ""
    """What is told of all photos in their records."""


def restore_photo(
    restorer: Restorer,
    source: Path,
    target: Path,
    choices: Choices,
    *,
    keep_format: bool,
    overwrite: bool,
    look: Callable[[Photo, Restored[Any]], None] | None = None,
) -> dict[str, Any]:
    """Restore one file and return its JSON record; `look` is shown the photo and the result.

    Raises:
        ImageError: the file cannot be read, restored or written.
    """
    from abair import images
    from abair.inference.memory import return_freed_memory

    photo = images.read(source, max_megapixels=choices.max_megapixels)
    return_freed_memory(photo.pixels.size / 3e6)
    restored = restorer(
        photo.visible,
        policy=choices.policy,
        weights=choices.weights,
        strength=choices.strength,
        tile=choices.tile,
        quality=choices.quality,
        looks=choices.looks,
    )
    if look is not None:
        look(photo, restored)
    finished = images.finish(photo, restored.image)
    del photo  # its pixels are a quarter of the memory of writing a large one
    return_freed_memory(restored.megapixels)
    written = images.write(
        target,
        finished,
        overwrite=overwrite,
        keep_format=keep_format,
        source=source,
        jpeg_quality=choices.jpeg_quality,
    )
    return {
        "input": str(source),
        "output": str(target),
        "weights": round_weights(restored.weights),
        "policy": restored.policy,
        "quality": restored.quality,
        "strength": choices.strength,
        "seconds": round(restored.seconds, 4),
        "megapixels": restored.megapixels,
        "deployment": restored.deployment,
        "unchanged": written.unchanged,
        "warnings": [*filter(None, [choices.warning]), *restored.warnings, *written.warnings],
        "confidence": round_confidence(restored.confidence),
        "unknown": round_confidence(restored.unknown),
        "further_looks": [round_weights(one) for one in restored.further_looks],
    }
