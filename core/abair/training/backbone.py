"""Phase I: pre-train the backbone on clean photos damaged on the fly by the installed plugins' synthesisers.

The loss is the images' error in decibels plus the cross-entropy of each pixel's type (Serrano-Lozano et al.,
section 3.1). The segmentation head that predicts the type exists only here: it makes the features know what is wrong.
"""

from __future__ import annotations

from functools import cached_property
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from abair.data.degrade import Degrader
from abair.data.photos import CleanPhotos
from abair.data.seeds import Stream, generator_for
from abair.model.backbone import Backbone, pool_global_view
from abair.training.loop import Batch
from abair.training.settings import Settings

TYPE_WEIGHT: Final = 0.1
"""Weight of the cross-entropy, which starts near 1.8, against the image's loss in tens of decibels."""
WELL_RESTORED: Final = 1e-3
"""Mean squared error (30 dB) from which on an image's loss levels off: what is good already needs no more attention."""
VALIDATION_CROPS: Final = 6
VALIDATION_SIDE: Final = 192


class Pretraining(nn.Module):
    """The backbone with the segmentation head of phase I on its last features."""

    def __init__(self, backbone: Backbone, labels: int) -> None:
        super().__init__()
        self.backbone = backbone
        width = backbone.size.width
        self.segment = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.GELU(), nn.Conv2d(width, labels, 1))

    def forward(self, x: Tensor, view: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) to the restored images and the logits of each pixel's type (B, L, H/2, W/2)."""
        features = self.backbone.features(x, self.backbone.context(view))
        return x + self.backbone.residual(features), self.segment(features)


class PretrainTask:
    """Phase I for the loop."""

    name = "backbone"

    def __init__(
        self,
        backbone: Backbone,
        degrader: Degrader,
        photos: CleanPhotos,
        held_out: CleanPhotos,
        settings: Settings,
        type_weight: float = TYPE_WEIGHT,
    ) -> None:
        self.module = Pretraining(backbone, len(degrader.labels)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.degrader, self.photos, self.held_out, self.settings = degrader, photos, held_out, settings
        self._type_weight = type_weight

    @cached_property
    def depends(self) -> dict[str, str]:
        """Size, labels, photos, damage and recipe."""
        labels, recipe = ", ".join(self.degrader.labels), str(self.degrader.recipe)
        size = self.module.backbone.size.name
        photos, damage = self.photos.digest(), self.degrader.digest
        return {"size": size, "labels": labels, "photos": photos, "damage": damage, "recipe": recipe}

    def batch(self, index: int) -> Batch:
        """(degraded, clean, types at half resolution)."""
        samples = []
        for item in range(self.settings.batch):
            generator = generator_for(self.settings.seed, Stream.BACKBONE_SAMPLE, index, item)
            samples.append(self.degrader.sample(self.photos.crop(generator, self.settings.crop), generator))
        types = torch.stack([sample.types for sample in samples])
        return (
            torch.stack([sample.degraded for sample in samples]),
            torch.stack([sample.clean for sample in samples]),
            F.avg_pool2d(types, 2),
        )

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Decibels plus weighted cross-entropy."""
        degraded, clean, types = batch
        degraded = degraded.contiguous(memory_format=torch.channels_last)
        restored, logits = self.module(degraded, pool_global_view(degraded))
        image = decibel_loss(restored.float(), clean)
        kind = F.cross_entropy(logits.float(), types)
        return image + self._type_weight * kind, {"image": float(image.detach()), "type": float(kind.detach())}

    @torch.inference_mode()
    def validate(self) -> dict[str, float]:
        """PSNR in dB on held-out photos, per label and on the mean of the degradations."""
        figures = {}
        for position, name in enumerate(self.degrader.labels):
            values = []
            for item in range(VALIDATION_CROPS):
                generator = generator_for(0, Stream.BACKBONE_VALIDATION, position, item)
                clean = self.held_out.crop(generator, VALIDATION_SIDE)
                pair = self.degrader.single(clean, name, generator)
                restored = self.module.backbone(pair.degraded[None].to(next(self.module.parameters()).device))
                values.append(psnr(restored[0].cpu().clamp(0, 1), clean))
            figures[name] = sum(values) / len(values)
        degraded_only = [value for name, value in figures.items() if name != "clean"]
        return {"psnr": sum(degraded_only) / len(degraded_only)} | figures


def decibel_loss(restored: Tensor, clean: Tensor) -> Tensor:
    """Mean over the images of log10 of the mean squared error: minus PSNR / 10, as NAFNet is trained.

    An absolute distance learns little but haze and darkness, whose errors are ten times those of noise, rain and blur;
    results are judged in decibels, where each degradation counts the same.
    """
    return (restored - clean).square().mean((1, 2, 3)).add(WELL_RESTORED).log10().mean()


def psnr(restored: Tensor, clean: Tensor) -> float:
    """Peak signal-to-noise ratio in dB over all values, for a peak of 1."""
    return float(-10 * torch.log10((restored - clean).square().mean().clamp_min(1e-10)))
