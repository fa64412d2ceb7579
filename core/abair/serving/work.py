"""What a thread does for one request: read, estimate or restore, write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from abair import images
from abair.inference.memory import return_freed_memory
from abair.inference.restorer import Restorer
from abair.labels import parse_weights, round_confidence, round_weights
from abair.serving.jobs import Stop
from abair.serving.metrics import Metrics
from abair.serving.options import MEDIA_TYPE_OF, SUFFIX_OF, Limits, RestoreOptions
from abair.serving.uploads import Upload


@dataclass(frozen=True)
class Answer:
    """A restored file, and how it was restored."""

    data: bytes
    media_type: str
    record: dict[str, Any]


def restore(
    restorer: Restorer, upload: Upload, options: RestoreOptions, limits: Limits, stop: Stop, metrics: Metrics
) -> Answer:
    """Restore an upload as `abair restore` restores a file.

    Raises:
        AbairError: the photo or an option cannot be used, or the work was stopped.
    """
    weights = parse_weights(options.weights) if options.weights is not None else None
    if weights is not None:
        restorer.complete_weights(weights)
    with metrics.stage("read"):
        photo = images.read(upload.path, max_megapixels=limits.max_megapixels)
    return_freed_memory(photo.pixels.size / 3e6)
    stop.check()
    with metrics.stage("restore"):
        restored = restorer(
            photo.visible,
            policy=options.policy or "soft",
            weights=weights,
            strength=options.strength,
            tile=limits.tile,
            quality=options.quality,
            looks=options.looks,
            before_tile=stop.check,
        )
    suffix = SUFFIX_OF[options.format] if options.format else images.output_suffix(photo.format)
    target = upload.path.with_name(f"restored{suffix}")
    finished = images.finish(photo, restored.image)
    del photo
    return_freed_memory(restored.megapixels)
    with metrics.stage("write"):
        written = images.write(
            target,
            finished,
            keep_format=options.format is None,
            source=upload.path,
            jpeg_quality=options.jpeg_quality,
        )
        data = target.read_bytes()
    metrics.megapixels.inc(restored.megapixels)
    if weights is None:
        metrics.see(restored.weights)
    record = {
        "deployment": restored.deployment,
        "weights": round_weights(restored.weights),
        "policy": restored.policy,
        "quality": restored.quality,
        "strength": options.strength,
        "seconds": round(restored.seconds, 4),
        "megapixels": restored.megapixels,
        "unchanged": written.unchanged,
        "warnings": [*restored.warnings, *written.warnings],
        "confidence": round_confidence(restored.confidence),
        "unknown": round_confidence(restored.unknown),
        "further_looks": [round_weights(one) for one in restored.further_looks],
    }
    return Answer(data, MEDIA_TYPE_OF[suffix], record)


def estimate(restorer: Restorer, upload: Upload, limits: Limits, metrics: Metrics) -> dict[str, Any]:
    """Return what the estimator sees in an upload, and the deployment's name.

    Raises:
        AbairError: the photo cannot be read.
    """
    with metrics.stage("read"):
        photo = images.read(upload.path, max_megapixels=limits.max_megapixels)
    with metrics.stage("estimate"):
        weights, confidence, unknown = restorer.judge(photo.visible)
    metrics.see(weights)
    height, width = photo.pixels.shape[:2]
    return {
        "deployment": restorer.deployment.name,
        "weights": round_weights(weights),
        "confidence": round_confidence(confidence),
        "unknown": round_confidence(unknown),
        "megapixels": height * width / 1e6,
    }
