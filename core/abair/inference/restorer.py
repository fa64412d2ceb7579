"""Restores images: one estimate, one blend, then the network tile by tile.

from abair import Restorer

restorer = Restorer.load()
result = restorer(PIL.Image.open("photo.jpg"))
result.image.save("restored.png")
print(result.weights)
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, Final, Generic, Literal, TypeVar, cast, overload

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from abair.deployment import Deployment, read_deployment
from abair.errors import DeploymentError, ImageError, WeightsError
from abair.inference.tiling import SMALLEST_TILE, tiles
from abair.labels import CLEAN
from abair.model import views
from abair.model.backbone import Backbone, fingerprint, load_backbone, pad_to_stride
from abair.model.estimator import Estimator, load_estimator, one_hot
from abair.model.lora import Blender, read_adapter_files
from abair.model.views import Pixels

DEFAULT_TILE: Final = 512
"""Side of a tile's core in pixels: a 24-megapixel photo then stays near 1 GB."""

Policy = Literal["soft", "one-hot"]
Kind = TypeVar("Kind")
ImageLike = TypeVar("ImageLike", Image.Image, np.ndarray[Any, Any], Tensor)


@dataclass(frozen=True)
class Restored(Generic[Kind]):
    """A restored image, of the kind that was given, and how it came about.

    `weights` maps every label to the weight that was used; `policy` is `soft`, `one-hot` or `given`.
    """

    image: Kind
    weights: dict[str, float]
    policy: str
    deployment: str
    seconds: float
    megapixels: float


class Restorer:
    """A loaded deployment. Holds no state of any image, so one may be used from several threads."""

    def __init__(
        self, deployment: Deployment, blender: Blender, estimator: Estimator, device: str, precision: str
    ) -> None:
        self.deployment = deployment
        self.labels = deployment.labels
        self.device, self.precision = torch.device(device), precision
        self._blender, self._estimator = blender, estimator

    @classmethod
    def load(
        cls,
        deployment: Path | str | None = None,
        *,
        device: str = "cpu",
        precision: Literal["float32", "bfloat16"] = "float32",
    ) -> Restorer:
        """Read a bundle (its folder or its `deployment.json`; None: the live one) and verify every file.

        Raises:
            DeploymentError: a file is missing, changed, or does not belong to the others; the device or the precision
                cannot be used.
            AdapterError: an adapter is not a plain LoRA of this backbone.
        """
        if precision not in ("float32", "bfloat16"):
            raise DeploymentError(f"precision {precision!r}: unknown; expected 'float32' or 'bfloat16'")
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

    def estimate(self, image: ImageLike) -> dict[str, float]:
        """The estimator's weights over the labels; they sum to 1."""
        return self._estimate(_pixels(image))

    @overload
    def __call__(
        self,
        image: ImageLike,
        *,
        policy: Policy = ...,
        weights: Mapping[str, float] | None = ...,
        tile: int | None = ...,
    ) -> Restored[ImageLike]: ...
    @overload
    def __call__(
        self,
        image: Sequence[ImageLike],
        *,
        policy: Policy = ...,
        weights: Mapping[str, float] | None = ...,
        tile: int | None = ...,
    ) -> list[Restored[ImageLike]]: ...
    def __call__(
        self,
        image: Any,
        *,
        policy: Policy = "soft",
        weights: Mapping[str, float] | None = None,
        tile: int | None = None,
    ) -> Any:
        """Restore an image, or each of a list of them.

        Args:
            image: a PIL image; an array (H, W, 3) or (H, W) of uint8, uint16 or floats in [0, 1]; or a tensor
                (3, H, W) of floats in [0, 1].
            policy: blend by the estimator's weights (`soft`), or use its largest label alone (`one-hot`).
            weights: weights in [0, 1] to use instead of the estimator's; labels not named get 0. `{"noise": 1}` is the
                oracle for noise, `{}` the bare backbone.
            tile: side in pixels of a tile's core; default 512. Smaller needs less memory and more time.

        Raises:
            ImageError: the image is empty, of another kind, or holds NaN or infinite values.
            WeightsError: an unknown label, or a weight outside [0, 1].
        """
        if isinstance(image, list | tuple):
            return [self(item, policy=policy, weights=weights, tile=tile) for item in image]
        started = time.perf_counter()
        if policy not in ("soft", "one-hot"):
            raise WeightsError(f"policy {policy!r}: unknown; expected 'soft' or 'one-hot'")
        if tile is not None and (int(tile) != tile or tile < SMALLEST_TILE):
            raise WeightsError(f"tile {tile}: expected a whole number of at least {SMALLEST_TILE} pixels")
        if isinstance(image, Image.Image):
            image = ImageOps.exif_transpose(image)
        pixels = _pixels(image)
        if weights is not None:
            used, named = self.checked(weights), "given"
        else:
            estimated = self._estimate(pixels)
            chosen = one_hot(list(estimated.values())) if policy == "one-hot" else estimated.values()
            used, named = dict(zip(self.labels, chosen, strict=True)), policy
        restored = self._run(pixels, used, tile)
        return Restored(
            image=_like(image, restored),
            weights=used,
            policy=named,
            deployment=self.deployment.name,
            seconds=time.perf_counter() - started,
            megapixels=pixels.shape[0] * pixels.shape[1] / 1e6,
        )

    def checked(self, weights: Mapping[str, float]) -> dict[str, float]:
        """User-given weights, over all labels in their order.

        Raises:
            WeightsError: an unknown label, or a weight outside [0, 1].
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
        return {label: float(weights.get(label, 0.0)) for label in self.labels}

    def _estimate(self, pixels: Pixels) -> dict[str, float]:
        crops, view = views.crops(pixels).to(self.device), views.whole(pixels).to(self.device)
        return dict(zip(self.labels, self._estimator.weights(self._blender.backbone, crops, view), strict=True))

    @torch.inference_mode()
    def _run(self, pixels: Pixels, weights: Mapping[str, float], tile: int | None) -> Pixels:
        """Restore (H, W, 3) pixels; the result has their kind. Memory beside the two is bounded by the tile."""
        height, width = pixels.shape[:2]
        network = self._blender.blend(
            [weight for label, weight in weights.items() if label != CLEAN], keep=weights[CLEAN]
        )
        context = network.context(views.whole(pixels).to(self.device))
        result = np.zeros((height, width, 3), np.float32)
        for part in tiles(height, width, tile or DEFAULT_TILE, network.size.stride):
            region = views.to_tensor(np.ascontiguousarray(pixels[part.rows, part.columns])).to(self.device)
            restored = self._tile(network, region, context)
            values = restored[0].permute(1, 2, 0).cpu().numpy()
            result[part.rows, part.columns] += values * part.window[:, :, None]
        return _quantised(result, pixels)

    def _tile(self, network: Backbone, region: Tensor, context: Tensor) -> Tensor:
        """One tile, in the asked precision; if that gives a NaN, again in float32."""
        height, width = region.shape[-2:]
        padded = pad_to_stride(region, network.size.stride).contiguous(memory_format=torch.channels_last)

        def residual() -> Tensor:
            return network.residual(network.features(padded, context))[..., :height, :width].float()

        if self.precision == "bfloat16":
            with torch.autocast(self.device.type, torch.bfloat16):
                low = residual()
            if bool(low.isfinite().all()):
                return region + low
        return region + residual()


def _pixels(image: Any) -> Pixels:
    """Any accepted image as (H, W, 3) uint8, uint16 or float32.

    Raises:
        ImageError: what was given is empty, of another kind or shape, or not finite.
    """
    array: np.ndarray[Any, Any]
    if isinstance(image, Image.Image):
        if image.mode in ("I", "F"):
            raise ImageError(
                f"PIL image of mode {image.mode}, whose range is not known: expected another mode, or its array as "
                "uint16 or as floats in [0, 1]"
            )
        array = np.asarray(image).astype(np.uint16) if image.mode.startswith("I;16") else np.asarray(_rgb(image))
    elif isinstance(image, Tensor):
        if image.dim() != 3 or image.shape[0] != 3 or not image.is_floating_point():
            raise ImageError(
                f"tensor of shape {tuple(image.shape)}, {image.dtype}: expected (3, H, W) of floats in [0, 1]"
            )
        array = image.detach().to("cpu", torch.float32).permute(1, 2, 0).numpy()
    elif isinstance(image, np.ndarray):
        array = image
    else:
        raise ImageError(f"{type(image).__name__}: expected a PIL image, a NumPy array, a tensor, or a list of them")
    if array.ndim == 2:
        array = np.repeat(array[:, :, None], 3, axis=2)
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise ImageError(f"array of shape {array.shape}: expected (H, W, 3) or (H, W), at least one pixel")
    if array.dtype in (np.uint8, np.uint16):
        return array
    if not np.issubdtype(array.dtype, np.floating):
        raise ImageError(f"array of {array.dtype}: expected uint8, uint16 or floats in [0, 1]")
    if not np.isfinite(array).all():
        raise ImageError("array with NaN or infinite values: expected finite numbers in [0, 1]")
    if array.min() < -1 or array.max() > 2:  # noise that nobody clipped stays well inside
        raise ImageError(
            f"array of floats from {array.min():.3g} to {array.max():.3g}: expected about [0, 1]; divide by its peak"
        )
    return array.astype(np.float32, copy=False)


def _quantised(result: np.ndarray[Any, Any], like: Pixels) -> Pixels:
    """Clip to [0, 1] and go back to the input's kind, some rows at a time."""
    if like.dtype == np.float32:
        return np.clip(result, 0.0, 1.0, out=result)
    peak = float(np.iinfo(like.dtype).max)
    out = np.empty(result.shape, like.dtype)
    for top in range(0, result.shape[0], 256):
        rows = result[top : top + 256]
        np.clip(rows, 0.0, 1.0, out=rows)
        out[top : top + 256] = np.rint(rows * peak)
    return cast("Pixels", out)


def _like(image: Any, pixels: Pixels) -> Any:
    """Pixels (H, W, 3) as the kind of image that was given; alpha and grey come back as they were."""
    if isinstance(image, Tensor):
        return torch.from_numpy(pixels).permute(2, 0, 1).contiguous().to(image.device, image.dtype)
    if isinstance(image, np.ndarray):
        if image.ndim == 2:
            pixels = np.rint(pixels.mean(axis=2)) if pixels.dtype != np.float32 else pixels.mean(axis=2)
        return pixels.astype(image.dtype, copy=False)
    if image.mode.startswith("I;16"):
        restored = Image.fromarray(np.rint(pixels.mean(axis=2)).astype(np.uint16))
    else:
        restored = Image.fromarray(cast("Any", pixels))
        image = image.convert("LA") if image.mode == "La" else image
        alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
        if image.mode in ("1", "L", "LA"):
            restored = restored.convert("L")
        if alpha is not None:
            restored.putalpha(alpha)
    profile = image.info.get("icc_profile")
    if profile and image.mode not in ("CMYK", "LAB", "YCbCr", "HSV"):  # it speaks of other channels
        restored.info["icc_profile"] = profile
    if exif := image.getexif():
        restored.info["exif"] = exif.tobytes()
    return restored


def _rgb(image: Image.Image) -> Image.Image:
    """Colours alone; those under transparency are kept as they are."""
    if image.mode == "La":  # grey times alpha, which Pillow takes to LA alone
        image = image.convert("LA")
    return image.convert("RGBA").convert("RGB") if image.has_transparency_data else image.convert("RGB")
