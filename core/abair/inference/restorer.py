"""Restoration of images: one estimate, one blend, then the network strip by strip.

from abair import Restorer

restorer = Restorer.load()
result = restorer(PIL.Image.open("photo.jpg"))
result.save("restored.png")
print(result.weights)
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, Final, get_args, overload

import numpy as np
import torch
from PIL import Image

from abair.deployment import Deployment, read_deployment
from abair.errors import DeploymentError, WeightsError
from abair.images.exif import turn_upright
from abair.inference.conversion import ImageLike, from_pixels, is_bilevel, quantize, to_pixels
from abair.inference.ensemble import average_orientations
from abair.inference.guided_filter import filter_change, part_to_filter
from abair.inference.hardware import Precision, choose_dtype
from abair.inference.looks import look_and_follow, mix, scale_weights
from abair.inference.results import Judgement, Policy, Quality, Restored
from abair.inference.tiling import SMALLEST_PANEL, Part, restore_parts
from abair.inference.tone import Tone
from abair.labels import CLEAN, MOST_LOOKS, TOLERANCE
from abair.model.backbone import fingerprint, load_backbone
from abair.model.borders import find_content, without_borders
from abair.model.estimator import Estimator, load_estimator, one_hot
from abair.model.look import context_view, look_at
from abair.model.lora import Blender, read_adapter_files
from abair.model.views import CROP_SIDE, CROPS, Pixels

DEFAULT_TILE: Final = 8192
"""Width of a panel in pixels: most photos are one panel."""
SMALLEST_KNOWN: Final = CROPS * CROP_SIDE
"""Shorter side in pixels from which on `unknown` is told. In a smaller photo the estimator's crops
overlap, and their mean is unlike that of any photo whose damage was learnt."""


class Restorer:
    """A loaded deployment. It holds no state of any image, so several threads may use it."""

    def __init__(
        self, deployment: Deployment, blender: Blender, estimator: Estimator, device: str, precision: Precision
    ) -> None:
        self.deployment = deployment
        self.labels = deployment.labels
        self.device = torch.device(device)
        self.precision: Precision = precision
        self._blender, self._estimator = blender, estimator

    @classmethod
    def load(
        cls,
        deployment: Path | str | None = None,
        *,
        device: str = "cpu",
        precision: Precision = "float32",
    ) -> Restorer:
        """Read a bundle and verify every file.

        Args:
            deployment: the bundle's folder or its `deployment.json`; None is the live one.
            device: a device of torch.
            precision: of the arithmetic; results that bfloat16 cannot hold are computed in float32.
                `auto` is bfloat16 where the device is faster with it, and float32 for photos that
                are mostly clean; so results differ slightly between machines.

        Raises:
            DeploymentError: a file is missing, changed, or does not belong to the others; the
                device or the precision cannot be used.
            AdapterError: an adapter is not a plain LoRA of this backbone.
        """
        if precision not in get_args(Precision):
            raise DeploymentError(f"precision {precision!r}: unknown; expected 'auto', 'float32' or 'bfloat16'")
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            raise DeploymentError(
                f"device {device}: cannot be used ({str(error).splitlines()[0]}); "
                "expected cpu or a device of this machine"
            ) from None
        bundle = read_deployment(deployment)
        backbone = load_backbone(bundle.find(bundle.backbone.file)).to(device)
        found = fingerprint(backbone)
        if found != bundle.backbone.fingerprint:
            raise DeploymentError(
                f"deployment {bundle.name}: backbone {bundle.backbone.file.path}: found fingerprint {found}, expected "
                f"{bundle.backbone.fingerprint}; restore the bundle from its source"
            )
        adapters = [
            read_adapter_files(bundle.find(ref.config), bundle.find(ref.weights), backbone, found, ref.degradation)
            for ref in bundle.adapters
        ]
        estimator = load_estimator(bundle.find(bundle.estimator), bundle.labels, backbone.size).to(device)
        return cls(bundle, Blender(backbone, adapters), estimator, device, precision)

    @property
    def blender(self) -> Blender:
        """The adapters, and the backbone that they are blended into."""
        return self._blender

    def estimate(self, image: ImageLike) -> dict[str, float]:
        """Return the estimator's weights over the labels; they sum to 1.

        Raises:
            ImageError: as for restoring.
        """
        return self.judge(image).weights

    def judge(self, image: ImageLike) -> Judgement:
        """Return the estimator's weights, which sum to 1, and how much to trust them.

        Pages of black and white alone, such as scans of text, are clean: they have no tones to
        restore.

        Raises:
            ImageError: as for restoring.
        """
        given: object = image
        return self._judge(to_pixels(turn_upright(given) if isinstance(given, Image.Image) else given))

    @overload
    def __call__(
        self,
        image: ImageLike,
        *,
        policy: Policy = ...,
        weights: Mapping[str, float] | None = ...,
        strength: float = ...,
        tile: int | None = ...,
        quality: Quality = ...,
        looks: int | None = ...,
        before_tile: Callable[[], object] | None = ...,
    ) -> Restored[ImageLike]: ...
    @overload
    def __call__(
        self,
        image: Sequence[ImageLike],
        *,
        policy: Policy = ...,
        weights: Mapping[str, float] | None = ...,
        strength: float = ...,
        tile: int | None = ...,
        quality: Quality = ...,
        looks: int | None = ...,
        before_tile: Callable[[], object] | None = ...,
    ) -> list[Restored[ImageLike]]: ...
    def __call__(
        self,
        image: Any,
        *,
        policy: Policy = "soft",
        weights: Mapping[str, float] | None = None,
        strength: float = 1.0,
        tile: int | None = None,
        quality: Quality = "standard",
        looks: int | None = None,
        before_tile: Callable[[], object] | None = None,
    ) -> Any:
        """Restore an image, or each of a list of them.

        Args:
            image: a PIL image; an array (H, W, 3) or (H, W) of uint8, uint16 or floats in [0, 1];
                or a tensor (3, H, W) of floats in [0, 1].
            policy: `soft` blends by the estimator's weights, less or not at all where it is unsure
                or the damage is unknown;
                `one-hot` uses its likeliest label; `backbone` uses the network without adapters.
            weights: parts of the photo, in [0, 1], that replace the estimator's weights. Labels
                not named get 0, and what is left of 1 goes to `clean`: `{"noise": 1}` is the
                oracle for noise, `{"noise": 0.5}` restores at half strength.
            strength: the part of the restoration that is made, in [0, 1]. The weights are scaled by
                it, and the rest goes to `clean`.
            tile: width in pixels of the panels that a wide photo is cut into, 8192 by default.
                Narrower ones need less memory and more time; the result is the same.
            quality: `standard`, or `best`, which averages over four orientations of the photo.
            looks: at most so often is the photo, and then the result, estimated and restored by
                the policy `soft`. By default it is once, as in the paper, and 3 times for `best`.
            before_tile: is called before each strip of rows; what it raises ends the work.

        Returns:
            A `Restored`, or a list of them, with images of the kind that was given.

        Raises:
            ImageError: the image is empty, of another kind, or holds NaN or infinite values.
            WeightsError: an unknown label, a weight outside [0, 1], weights that sum to more than
                1, or an unusable policy, strength, tile, quality or number of looks.
        """
        if isinstance(image, list | tuple):
            options: dict[str, Any] = {"policy": policy, "weights": weights, "strength": strength}
            options |= {"tile": tile, "quality": quality, "looks": looks, "before_tile": before_tile}
            return [self(item, **options) for item in image]
        started = time.perf_counter()
        _check_options(policy, strength, tile, quality, looks)
        warnings: list[str] = []
        if isinstance(image, Image.Image):
            image = turn_upright(image, warnings.append)
        pixels = to_pixels(image)
        judged: Judgement | None = None

        def restore(pixels: Pixels, weights: Mapping[str, float]) -> Pixels:
            return self._restore(pixels, weights, tile or DEFAULT_TILE, quality, before_tile)

        if weights is None and policy == "soft":
            most = looks or (MOST_LOOKS if quality == "best" else 1)
            restored, seen, judged, doubts = look_and_follow(pixels, self._judge, restore, most)
            warnings += doubts
            if strength < 1:
                restored, seen = mix(pixels, restored, strength), tuple(scale_weights(one, strength) for one in seen)
        else:
            if weights is not None:
                used = self.complete_weights(weights)
            elif policy == "backbone":
                used = dict.fromkeys(self.labels, 0.0)
            else:
                judged = self._judge(pixels)
                used = dict(zip(self.labels, one_hot(list(judged.weights.values())), strict=True))
            seen = (scale_weights(used, strength),)
            restored = restore(pixels, seen[0])
        return Restored(
            image=from_pixels(restored, image),
            weights=seen[0],
            policy=policy if weights is None else "given",
            quality=quality,
            deployment=self.deployment.name,
            seconds=time.perf_counter() - started,
            megapixels=pixels.shape[0] * pixels.shape[1] / 1e6,
            warnings=tuple(warnings),
            confidence=judged and judged.confidence,
            unknown=judged and judged.unknown,
            further_looks=seen[1:],
        )

    def complete_weights(self, weights: Mapping[str, float]) -> dict[str, float]:
        """Check given weights; return one for every label, in order, with a sum of 1.

        Labels that are not named get 0; what is left of 1 is added to `clean`.

        Raises:
            WeightsError: an unknown label, a weight outside [0, 1], or a sum above 1.
        """
        unknown = sorted(map(str, set(weights) - set(self.labels)))
        if unknown:
            raise WeightsError(
                f"weights: unknown label {', '.join(unknown)}; expected some of {', '.join(self.labels)}"
            )
        given: Mapping[str, object] = weights
        for label, weight in given.items():
            if not (isinstance(weight, Real) and math.isfinite(weight) and 0 <= float(weight) <= 1):
                raise WeightsError(f"weights: {label}={weight!r}: expected a number from 0 to 1")
        total = sum(map(float, weights.values()))
        if total > 1 + TOLERANCE:
            raise WeightsError(
                f"weights: found a sum of {total:g}, expected at most 1: each is a part of the photo, and the rest is "
                "left alone"
            )
        complete = {label: float(weights.get(label, 0.0)) for label in self.labels}
        return complete | {CLEAN: complete[CLEAN] + max(0.0, 1 - total)}

    def _judge(self, pixels: Pixels) -> Judgement:
        if is_bilevel(pixels):
            return Judgement({label: float(label == CLEAN) for label in self.labels}, 1.0, 0.0)
        backbone = self._blender.backbone
        crops, view = (part.to(self.device) for part in look_at(pixels, backbone.size))
        weights, confidence, unknown = self._estimator.estimate(backbone, crops, view)
        if min(without_borders(pixels).shape[:2]) < SMALLEST_KNOWN:
            unknown = None
        return Judgement(dict(zip(self.labels, weights, strict=True)), confidence, unknown)

    @torch.inference_mode()
    def _restore(
        self,
        pixels: Pixels,
        weights: Mapping[str, float],
        tile: int,
        quality: Quality,
        before_tile: Callable[[], object] | None,
    ) -> Pixels:
        """Restore pixels (H, W, 3) to their dtype; borders stay. The tile bounds other memory."""
        if _rounds_to_nothing(1 - weights[CLEAN], pixels.dtype):
            return _copy(pixels)
        content = find_content(pixels, visible=True)
        inside = pixels[content]
        result = np.empty(pixels.shape, pixels.dtype) if inside.size == pixels.size else _copy(pixels)
        self._restore_into(result[content], inside, weights, tile, quality, before_tile)
        return result

    def _restore_into(
        self,
        result: Pixels,
        pixels: Pixels,
        weights: Mapping[str, float],
        tile: int,
        quality: Quality,
        before_tile: Callable[[], object] | None,
    ) -> None:
        network = self._blender.blend(
            [weight for label, weight in weights.items() if label != CLEAN], keep=weights[CLEAN]
        )
        tone, dtype = Tone.find(pixels), choose_dtype(self.precision, self.device, weights[CLEAN])
        context = network.context(context_view(pixels, network.size).to(self.device))

        def parts(turned: Pixels) -> Iterator[Part]:
            return restore_parts(network, turned, context, tile, dtype, before_tile)

        if quality == "standard":
            for rows, columns, values in parts(pixels):
                result[rows, columns] = quantize(values, pixels.dtype)
        else:
            result[...] = quantize(average_orientations(pixels, parts), pixels.dtype)
        filter_change(result, pixels, part_to_filter(weights))
        if tone is not None:
            tone.apply(result)


def _rounds_to_nothing(part: float, dtype: np.dtype[Any]) -> bool:
    """Tell whether a part of the largest change there is, from black to white, is no whole step."""
    return part == 0 if dtype == np.float32 else part * np.iinfo(dtype).max < 0.5


def _copy(pixels: Pixels) -> Pixels:
    return pixels.clip(0, 1) if pixels.dtype == np.float32 else pixels.copy()


def _check_options(policy: str, strength: float, tile: int | None, quality: str, looks: int | None) -> None:
    if policy not in get_args(Policy):
        raise WeightsError(f"policy {policy!r}: unknown; expected 'soft', 'one-hot' or 'backbone'")
    if quality not in get_args(Quality):
        raise WeightsError(f"quality {quality!r}: unknown; expected 'standard' or 'best'")
    if not (isinstance(strength, Real) and 0 <= float(strength) <= 1):
        raise WeightsError(f"strength {strength!r}: expected a number from 0 to 1")
    if tile is not None and not (tile >= SMALLEST_PANEL and tile % 1 == 0):  # neither NaN nor infinite
        raise WeightsError(f"tile {tile}: expected a whole number of at least {SMALLEST_PANEL} pixels")
    if looks is not None and not (isinstance(looks, Real) and looks >= 1 and looks % 1 == 0):
        raise WeightsError(f"looks {looks!r}: expected a whole number of at least 1")
