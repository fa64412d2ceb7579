"""Phase I through the training loop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.support.toy_task import EVERY_STEP, KilledError, make_settings
from torch import Tensor

from abair.data.degrade import Degrader
from abair.data.photos import CleanPhotos
from abair.model.backbone import SIZES, Backbone, fingerprint, load_backbone, save_backbone
from abair.physics import uniform
from abair.training.backbone import BackboneTask
from abair.training.loop import train
from abair.training.report import read_history
from abair.training.settings import BackboneSettings
from abair.training.task import Batch

pytestmark = pytest.mark.slow


def _dim(clean: Tensor, generator: torch.Generator) -> Tensor:
    return clean * uniform(generator, 0.2, 0.6)


def _grain(clean: Tensor, generator: torch.Generator) -> Tensor:
    return (clean + 0.1 * torch.randn(clean.shape, generator=generator)).clamp(0, 1)


def _backbone_task(settings: BackboneSettings, stop: int = -1) -> BackboneTask:
    class Stopping(BackboneTask):
        calls = 0

        def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
            self.calls += 1
            if self.calls > stop >= 0:
                raise KilledError
            return super().loss(batch)

    torch.manual_seed(0)
    photos = CleanPhotos([np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)], "test")
    degrader = Degrader({"dim": _dim, "grain": _grain})
    return Stopping(Backbone(SIZES["tiny"]), degrader, photos, photos, settings)


def test_phase_one_learns_validates_and_resumes_exactly(tmp_path: Path) -> None:
    settings = make_settings(steps=6, batch=2, crop=32, validate_every=6, checkpoint_minutes=EVERY_STEP)
    whole = _backbone_task(settings)
    start = fingerprint(whole.module.backbone)
    train(whole, settings, tmp_path / "whole", quiet=True)
    with pytest.raises(KilledError):
        train(_backbone_task(settings, stop=3), settings, tmp_path / "killed", quiet=True)
    resumed = _backbone_task(settings)
    train(resumed, settings, tmp_path / "killed", quiet=True)
    assert fingerprint(resumed.module) == fingerprint(whole.module)
    assert fingerprint(whole.module.backbone) != start
    assert read_history(tmp_path / "whole")[-1].keys() == {"step", "seconds", "loss", "psnr", "dim", "grain", "clean"}
    written = save_backbone(whole.module.backbone, tmp_path / "b.safetensors")
    assert fingerprint(load_backbone(tmp_path / "b.safetensors")) == written


def test_phase_one_gives_batches_of_what_it_needs() -> None:
    settings = make_settings(batch=3, crop=32)
    degraded, clean, types = _backbone_task(settings).batch(4)
    assert degraded.shape == clean.shape == (3, 3, 32, 32)
    assert types.shape == (3, 3, 16, 16)
    assert torch.allclose(types.sum(1), torch.ones(3, 16, 16))
    again = _backbone_task(settings).batch(4)
    assert all(torch.equal(a, b) for a, b in zip((degraded, clean, types), again, strict=True))
    assert not torch.equal(degraded, _backbone_task(settings).batch(5)[0])
