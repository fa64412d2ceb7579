"""Phase I: train the backbone on photos that the plugins' synthesisers degrade on the fly.

The loss is the images' error in decibels plus the cross-entropy of each pixel's degradation
(Serrano-Lozano et al., section 3.1). The segmentation head that predicts it exists in this phase
only: it makes the features tell degradations apart.
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
from abair.labels import CLEAN
from abair.model.backbone import Backbone, pool_global_view
from abair.training.settings import BackboneSettings
from abair.training.task import Batch

TYPE_WEIGHT: Final = 0.1
"""Weight of the cross-entropy, which starts near 1.8, against the image's loss in tens of
decibels."""
VALIDATION_CROPS: Final = 6
"""Held-out crops a label."""
VALIDATION_SIDE: Final = 192
"""Their side in pixels."""


class BackboneWithHead(nn.Module):
    """The backbone with the segmentation head of phase I on its last features."""

    def __init__(self, backbone: Backbone, labels: int) -> None:
        super().__init__()
        self.backbone = backbone
        width = backbone.size.width
        self.segment = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.GELU(), nn.Conv2d(width, labels, 1))

    def forward(self, x: Tensor, view: Tensor) -> tuple[Tensor, Tensor]:
        """Map images (B, 3, H, W) to the restored ones and label logits (B, L, H/2, W/2)."""
        features = self.backbone.features(x, self.backbone.context(view))
        return x + self.backbone.residual(features), self.segment(features)


class BackboneTask:
    """Phase I for the training loop; `type_weight` is the weight of the cross-entropy."""

    name = "backbone"

    def __init__(
        self,
        backbone: Backbone,
        degrader: Degrader,
        photos: CleanPhotos,
        held_out: CleanPhotos,
        settings: BackboneSettings,
        type_weight: float = TYPE_WEIGHT,
    ) -> None:
        module = BackboneWithHead(backbone, len(degrader.labels))
        self.module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.degrader, self.photos, self.held_out, self.settings = degrader, photos, held_out, settings
        self._type_weight = type_weight
        if settings.compile:
            self.module.compile(dynamic=False)

    @cached_property
    def depends(self) -> dict[str, str]:
        """The network's size, the labels, the recipe, and digests of photos and synthesisers."""
        return {
            "size": self.module.backbone.size.name,
            "labels": ", ".join(self.degrader.labels),
            "photos": self.photos.digest(),
            "damage": self.degrader.digest,
            "recipe": str(self.degrader.recipe),
        }

    def batch(self, index: int) -> Batch:
        """Make (degraded, clean, label shares (B, L, H/2, W/2)); the images are (B, 3, H, W)."""
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
        """Return the error in decibels plus the weighted cross-entropy, and both terms."""
        degraded, clean, types = batch
        degraded = degraded.contiguous(memory_format=torch.channels_last)
        restored, logits = self.module(degraded, pool_global_view(degraded))
        image_loss = decibel_loss(restored.float(), clean, self.settings.psnr_ceiling)
        type_loss = F.cross_entropy(logits.float(), types)
        metrics = {"image": float(image_loss.detach()), "type": float(type_loss.detach())}
        return image_loss + self._type_weight * type_loss, metrics

    @torch.inference_mode()
    def validate(self) -> dict[str, float]:
        """Return the PSNR in dB on held-out photos by label; `psnr` is the degradations' mean."""
        metrics = {}
        for position, name in enumerate(self.degrader.labels):
            values = []
            for item in range(VALIDATION_CROPS):
                generator = generator_for(0, Stream.BACKBONE_VALIDATION, position, item)
                clean = self.held_out.crop(generator, VALIDATION_SIDE)
                sample = self.degrader.single(clean, name, generator)
                restored = self.module.backbone(sample.degraded[None].to(next(self.module.parameters()).device))
                values.append(psnr(restored[0].cpu().clamp(0, 1), clean))
            metrics[name] = sum(values) / len(values)
        of_degradations = [value for name, value in metrics.items() if name != CLEAN]
        return {"psnr": sum(of_degradations) / len(of_degradations)} | metrics


def decibel_loss(restored: Tensor, clean: Tensor, ceiling: float) -> Tensor:
    """Return the mean of log10 of the mean squared errors of images (B, 3, H, W): minus PSNR / 10.

    An image's loss levels off at a PSNR of `ceiling` dB, so that training works on the others.

    NAFNet is trained by it (Chen et al., ECCV 2022). An absolute distance learns little but haze
    and darkness, whose errors are ten times those of noise, rain and blur. In decibels each
    degradation counts the same, as it does in the evaluation.
    """
    return (restored - clean).square().mean((1, 2, 3)).add(10 ** (-ceiling / 10)).log10().mean()


def psnr(restored: Tensor, clean: Tensor) -> float:
    """Return the peak signal-to-noise ratio in dB over all values, for a peak of 1; at most 100."""
    return float(-10 * torch.log10((restored - clean).square().mean().clamp_min(1e-10)))
