"""Trainings of a few steps, as the tests of the three phases run them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from abair.discovery import discover
from abair.training.bundle_replay import BundleReplayCounts
from abair.training.inputs import read_photos
from abair.training.run import SampleCounts, train_adapter
from abair.training.settings import ADAPTING, AdapterSettings, read_settings

DEGRADATIONS: Final = ("blur", "haze", "low-light", "noise", "rain")
QUICK: Final = {"batch": 2, "crop": 32, "workers": 0, "warmup": 1, "validate_every": 100}
FEW_SAMPLES: Final = SampleCounts(
    validation=2, temperature=4, replay=BundleReplayCounts(features=3, held_out=1, gamma=1, artifacts=2)
)


def train_named_adapter(*, data: Path, settings_file: Path | None = None, **given: Any) -> Path:
    """Train an installed degradation's adapter on a folder; settings go by their names."""
    overrides = {name: value for name, value in given.items() if name in AdapterSettings.model_fields}
    others = {name: value for name, value in given.items() if name not in overrides}
    settings = read_settings(ADAPTING, settings_file, **overrides)
    photos, held_out = read_photos(data)
    return train_adapter(plugins=discover(), photos=photos, held_out=held_out, settings=settings, **others)
