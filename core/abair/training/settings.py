"""Settings of a training run: one class a phase, read from TOML and options, and recorded."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Annotated, ClassVar, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from abair.data.file_artifacts import FileKind
from abair.errors import MissingExtraError, TrainingError
from abair.files import write_text
from abair.text import describe_fields

Steps = Annotated[int, Field(ge=1, description="optimiser steps in all")]
Batch = Annotated[int, Field(ge=1, description="samples a step")]
Crop = Annotated[int, Field(ge=16, multiple_of=16, description="side of a training sample in pixels")]
LearningRate = Annotated[float, Field(gt=0, description="learning rate at its highest")]
Warmup = Annotated[int, Field(ge=0, description="steps over which the learning rate rises")]
Decay = Annotated[float, Field(ge=0, le=1, description="last part of the steps, over which the rate falls to zero")]
WeightDecay = Annotated[float, Field(ge=0, description="decay of the weights, a step, in parts of the learning rate")]
EmaDecay = Annotated[float, Field(ge=0, lt=1, description="decay of the weights' exponential moving average")]
Workers = Annotated[int, Field(ge=0, description="processes that make samples; 0: the training process itself")]
ValidateEvery = Annotated[int, Field(ge=1, description="steps between validations")]
AverageWeight = Annotated[
    float, Field(gt=0, lt=1, description="weight of the trained weights in the average with those of --average-with")
]


class Settings(BaseModel):
    """What a run of any phase depends on besides its data: the same settings give the same weights.

    The learning rate rises over `warmup` steps, stays, and falls to zero over the last `decay` part
    of the steps (warmup-stable-decay). While it is stable, a run can be resumed with more or fewer
    `steps`.

    `minutes` and `patience` end a run early. Both make the result depend on more than seed and
    data, so neither is set by default. Time counts as steps do: the rate has fallen to zero when
    the minutes are over. With `patience` the weights of the best validation are kept.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    phase: ClassVar[str]
    """How messages name the phase: its number and its command."""

    steps: Steps
    batch: Batch
    crop: Crop
    learning_rate: LearningRate
    optimizer: Literal["adamw", "muon"] = Field(
        default="adamw", description="how weights are updated; muon orthogonalises the updates of matrices"
    )
    warmup: Warmup = 200
    decay: Decay = 0.3
    weight_decay: WeightDecay = 1e-4
    ema_decay: EmaDecay = 0.998
    grad_clip: float = Field(default=1.0, gt=0, description="largest norm of the gradients of a step")
    seed: int = Field(default=0, ge=0, description="seed of everything that is drawn at random")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="arithmetic of the network; auto: bfloat16 where the hardware has it"
    )
    workers: Workers = 1
    validate_every: ValidateEvery = 500
    minutes: float | None = Field(default=None, gt=0, description="longest training time in minutes; unset: no limit")
    patience: int = Field(default=0, ge=0, description="validations without a better one that end the run; 0: no limit")
    checkpoint_minutes: float = Field(default=3.0, gt=0, description="minutes between checkpoints")


class ImageSettings(Settings):
    """Settings of the phases that train on images: I and II."""

    psnr_ceiling: float = Field(
        default=30.0, ge=20, le=60, description="PSNR in dB at which an image's loss levels off, in favour of others"
    )
    reuse: int = Field(
        default=1, ge=1, le=4, description="steps that each batch serves, mirrored differently, where making it is slow"
    )


class BackboneSettings(ImageSettings):
    """Settings of phase I, which trains the backbone."""

    phase: ClassVar[str] = "phase I (abair train backbone)"

    steps: Steps = 10_000
    batch: Batch = 8
    crop: Crop = 128
    learning_rate: LearningRate = 6e-4
    decay: Decay = 0.8
    compile: bool = Field(default=False, description="compile the network, which a GPU gains most from")
    sampling_weights: dict[str, float] = Field(
        default_factory=dict, description="how many times as often a degradation is drawn; unnamed ones: 1"
    )


class AdapterSettings(ImageSettings):
    """Settings of phase II, which trains one degradation's adapter.

    The probabilities of scenes, darkened photos and second degradations are those of the synthetic
    samples, not of those with real damage.
    """

    phase: ClassVar[str] = "phase II (abair train adapter)"

    steps: Steps = 1000
    batch: Batch = 8
    crop: Crop = 128
    learning_rate: LearningRate = 6e-3
    warmup: Warmup = 50
    decay: Decay = 0.8
    ema_decay: EmaDecay = 0.99
    validate_every: ValidateEvery = 100
    real_probability: float = Field(
        default=0.5, ge=0, le=1, description="share of the samples with real damage, where pairs or layers are given"
    )
    file_artifacts: float = Field(
        default=0.0, ge=0, le=1, description="share of the samples that went through a lossy file afterwards"
    )
    rank: int = Field(default=16, ge=1, le=64, description="rank of the adapter's matrices")
    scene_size: int = Field(
        default=0, ge=0, description="longest side in pixels of the scenes that samples are cut from; 0: no scenes"
    )
    scene_probability: float = Field(default=0.6, ge=0, le=1, description="share of the samples cut from scenes")
    darken_probability: float = Field(default=0.0, ge=0, le=1, description="share of the samples of darkened photos")
    mix_with: tuple[str, ...] = Field(default=(), description="degradations that some samples carry as well")
    mix_probability: float = Field(
        default=0.25, gt=0, le=1, description="share of the samples that carry a degradation of mix_with as well"
    )
    blended: bool = Field(
        default=True, description="restore those by a blend with the other degradation's adapter, not by this one alone"
    )
    average_weight: AverageWeight = 0.5
    start_scale: float = Field(
        default=1.0, gt=0, le=1, description="part of the adapter to begin from (--start) that is kept"
    )

    @field_validator("scene_size")
    @classmethod
    def _check_scene_size(cls, size: int, info: ValidationInfo) -> int:
        if 0 < size < 2 * info.data.get("crop", 0):
            raise ValueError("expected 0, or at least twice the crop")
        return size


class EstimatorSettings(Settings):
    """Settings of phase III, which trains the estimator.

    Its samples are scenes of at most `crop` pixels a side.
    """

    phase: ClassVar[str] = "phase III (abair train estimator)"

    steps: Steps = 3_000
    batch: Batch = 64
    crop: Crop = 512
    learning_rate: LearningRate = 2e-3
    warmup: Warmup = 100
    decay: Decay = 0.9
    weight_decay: WeightDecay = 0.1
    dropout: float = Field(default=0.5, ge=0, lt=1, description="share of the hidden units left out at each sample")
    label_smoothing: float = Field(
        default=0.05, ge=0, lt=1, description="share of each target that is spread evenly over the labels"
    )
    workers: Workers = 2
    labelled_probability: float = Field(
        default=0.35, ge=0, le=1, description="share of the samples that are labelled real photos, where some are given"
    )
    file_degradations: dict[FileKind, str] = Field(
        default_factory=dict, description="the degradation that a kind of lossy file is, jpeg or bits; unnamed: none"
    )
    likely_mixtures: tuple[tuple[str, str], ...] = Field(
        default=(), description="pairs of degradations that half of the mixtures are, the first to arise first"
    )
    average_weight: AverageWeight = 0.5


PRETRAINING: Final = BackboneSettings()
ADAPTING: Final = AdapterSettings()
ESTIMATING: Final = EstimatorSettings()
"""The defaults of phases I, II and III."""

AnySettings = TypeVar("AnySettings", bound=Settings)

PHASES: Final[tuple[type[Settings], ...]] = (BackboneSettings, AdapterSettings, EstimatorSettings)

RENAMED: Final = {
    "averaging": "ema_decay",
    "clip": "grad_clip",
    "emphasis": "sampling_weights",
    "scene": "scene_size",
    "scenes": "scene_probability",
    "dim": "darken_probability",
    "beside": "mix_with",
    "mixed": "mix_probability",
    "trained_part": "average_weight",
}
"""Settings by the names that records, checkpoints and files of earlier builds have for them."""


def read_settings(
    defaults: AnySettings, file: Path | None, *, log: Callable[[str], None] = lambda _: None, **given: object
) -> AnySettings:
    """Return the `defaults`, overridden by a TOML file, overridden by what was `given`.

    A given None means not given. `log` receives one line if the file uses old names.

    Raises:
        TrainingError: the file cannot be read, or a setting is unknown, out of its range, or
            another phase's.
        MissingExtraError: the library that writes the settings beside the weights is not installed.
    """
    _toml_writer()  # asked for before the training, not after it
    phase, origin = type(defaults), f"settings of {file}" if file else "settings"
    values = defaults.model_dump()
    if file is not None:
        values |= _own_settings(_read_table(file), phase, origin, log)
    options = {name: value for name, value in given.items() if value is not None}
    for name, value in options.items():
        _check_phase(name, value, phase, origin)
    try:
        return phase.model_validate(values | options)
    except ValidationError as error:
        raise TrainingError(f"{origin}: {describe_fields(error)}") from None


def with_current_names(table: Mapping[str, object]) -> dict[str, object]:
    """Return a record's settings under the names of today.

    Raises:
        TrainingError: a setting is given by both its old and its new name.
    """
    for old, new in RENAMED.items():
        if old in table and new in table:
            raise TrainingError(f"found {old} and {new}, two names of one setting; expected {new} alone; remove {old}")
    return {RENAMED.get(name, name): value for name, value in table.items()}


def write_settings(path: Path, settings: Settings, **facts: object) -> None:
    """Write the settings as TOML, with tables of further facts beside them."""
    table = settings.model_dump(exclude_none=True)
    write_text(path, _toml_writer().dumps({"settings": table, **facts}))


def _read_table(file: Path) -> dict[str, object]:
    """Read the table [settings] of a TOML file."""
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TrainingError(f"{file}: cannot be read as TOML ({error}); expected a table [settings]") from None
    if not isinstance(table := content.get("settings"), dict):
        found = ", ".join(content) or "nothing"
        raise TrainingError(f"{file}: found {found}, expected a table [settings] with the settings in it")
    return table


def _own_settings(
    table: Mapping[str, object], phase: type[Settings], origin: str, log: Callable[[str], None]
) -> dict[str, object]:
    """Return the settings of a file that belong to the phase.

    Records of earlier builds hold the settings of all phases. Another phase's setting is ignored
    at its default and refused at any other value, which would have no effect.
    """
    try:
        values = with_current_names(table)
    except TrainingError as error:
        raise TrainingError(f"{origin}: {error}") from None
    values = {name: value for name, value in values.items() if not _is_default_elsewhere(name, value, phase)}
    for name, value in values.items():
        _check_phase(name, value, phase, origin)
    if renamed := [f"{old} is now {new}" for old, new in RENAMED.items() if old in table and new in values]:
        log(f"warning: {origin}: {', '.join(renamed)}; the old names will be refused after this release")
    return values


def _is_default_elsewhere(name: str, value: object, phase: type[Settings]) -> bool:
    """Tell whether the value is the default of a setting that only other phases have."""
    if name in phase.model_fields:
        return False
    defaults = [
        other.model_fields[name].get_default(call_default_factory=True)
        for other in PHASES
        if name in other.model_fields
    ]
    return value in [list(default) if isinstance(default, tuple) else default for default in defaults]


def _check_phase(name: str, value: object, phase: type[Settings], origin: str) -> None:
    """Refuse a setting that only other phases have."""
    owners = [other.phase for other in PHASES if name in other.model_fields]
    if owners and name not in phase.model_fields:
        raise TrainingError(
            f"{origin}: {name}: found {value!r}, a setting of {' and '.join(owners)}, expected settings of "
            f"{phase.phase}; remove it"
        )


def _toml_writer() -> ModuleType:
    try:
        import tomli_w
    except ImportError as error:
        raise MissingExtraError("training: tomli-w is missing; install it with: pip install 'abair[train]'") from error
    return tomli_w
