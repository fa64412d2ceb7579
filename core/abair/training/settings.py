"""Settings of a training run: from a TOML file and the command line, written beside the weights they made."""

from __future__ import annotations

import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from abair.errors import MissingExtraError, TrainingError
from abair.files import write_text


class Settings(BaseModel):
    """What one run depends on besides the data: the same settings, the same weights.

    The learning rate rises over `warmup` steps, stays, and falls to zero over the last `decay` part of the steps
    ("warm-up, stable, decay"): while it is stable, a run can be resumed with more or fewer `steps`. Phase I draws the
    labels in `emphasis` so many times as often as the others; phase II trains an adapter of `rank`. The part `mixed` of
    its synthetic samples carries one of the degradations in `beside`, too, if there are any; if `blended`, these are
    restored by a blend with that one's adapter. With `scene`, the part `scenes` of the synthetic samples is cut from
    scenes of at most that size, which is at least twice the crop; the part `dim` of them shows photos that were made
    darker first. Where what was trained is averaged with another of its kind, `trained_part` is its part in the mean.

    With `minutes`, time counts as steps do: the run ends, its rate fallen to zero, after whichever is over first. With
    `patience`, it ends when so many validations in a row have found nothing better, and the best weights are kept. Both
    make the result depend on more than seed and data, so by default there is neither.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(ge=1)
    batch: int = Field(ge=1)
    crop: int = Field(ge=16, multiple_of=16)
    learning_rate: float = Field(gt=0)
    warmup: int = Field(default=200, ge=0)
    decay: float = Field(default=0.3, ge=0, le=1)
    weight_decay: float = Field(default=1e-4, ge=0)
    averaging: float = Field(default=0.998, ge=0, lt=1)
    clip: float = Field(default=1.0, gt=0)
    seed: int = Field(default=0, ge=0)
    emphasis: dict[str, float] = Field(
        default_factory=dict, description="phase I: labels drawn more often, and by how much"
    )
    rank: int = Field(default=16, ge=1, le=64, description="phase II: the adapter's rank")
    scene: int = Field(default=0, ge=0, description="phase II: longest side of what samples are cut from; 0: the crop")
    scenes: float = Field(default=0.6, ge=0, le=1, description="phase II: part of the samples cut from scenes")
    dim: float = Field(default=0.0, ge=0, le=1, description="phase II: part of the samples that show darker photos")
    beside: tuple[str, ...] = Field(default=(), description="phase II: degradations that some samples carry, too")
    mixed: float = Field(default=0.25, gt=0, le=1, description="phase II: part of the samples that carry one")
    blended: bool = Field(default=True, description="phase II: restore these by a blend with that one's adapter")
    trained_part: float = Field(
        default=0.5, gt=0, lt=1, description="phases II, III: part of the trained weights in a mean with others"
    )
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    workers: int = Field(default=1, ge=0)
    validate_every: int = Field(default=500, ge=1)
    minutes: float | None = Field(default=None, gt=0)
    patience: int = Field(default=0, ge=0)
    checkpoint_minutes: float = Field(default=3.0, gt=0)

    @field_validator("scene")
    @classmethod
    def _wide_enough(cls, scene: int, info: ValidationInfo) -> int:
        if 0 < scene < 2 * info.data.get("crop", 0):
            raise ValueError("expected 0, or at least twice the crop")
        return scene


PRETRAINING = Settings(steps=10_000, batch=8, crop=128, learning_rate=6e-4, decay=0.8)
ADAPTING = Settings(
    steps=1000, batch=8, crop=128, learning_rate=6e-3, warmup=50, decay=0.8, averaging=0.99, validate_every=100
)
ESTIMATING = Settings(
    steps=2_500, batch=128, crop=512, learning_rate=1e-3, warmup=100, decay=0.9, weight_decay=1e-2, workers=2
)


def read_settings(defaults: Settings, file: Path | None, **given: Any) -> Settings:
    """The `defaults`, overridden by a TOML file, overridden by what was `given` (None means not given).

    Raises:
        TrainingError: the file cannot be read or a setting is unknown or out of its range.
        MissingExtraError: what writes the settings beside the weights is not installed.
    """
    _writer()
    values = defaults.model_dump()
    if file is not None:
        try:
            read = tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise TrainingError(f"{file}: cannot be read as TOML ({error}); expected a table [settings]") from None
        if not isinstance(table := read.get("settings"), dict):
            found = ", ".join(read) or "nothing"
            raise TrainingError(f"{file}: found {found}, expected a table [settings] with the settings in it")
        values |= table
    values |= {name: value for name, value in given.items() if value is not None}
    try:
        return Settings(**values)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}, found {e['input']!r}" for e in error.errors())
        raise TrainingError(f"settings{f' of {file}' if file else ''}: {wrong}") from None


def write_settings(path: Path, settings: Settings, **facts: Any) -> None:
    """Write the settings as TOML, with tables of further facts (data, hours, fingerprint) beside them."""
    given = settings.model_dump(exclude_none=True)
    write_text(path, _writer().dumps({"settings": given, **facts}))


def _writer() -> ModuleType:
    """Asked for before the training, not after it."""
    try:
        import tomli_w
    except ImportError as error:
        raise MissingExtraError("training: tomli-w is missing; install it with: pip install 'abair[train]'") from error
    return tomli_w
