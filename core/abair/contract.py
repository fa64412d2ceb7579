"""The contract between ABAIR and its plugins: one model, three hooks.

A plugin is a distribution with an entry point in the group `abair` that names a module; functions
in it marked with `@abair.hookimpl` are the hooks it answers. Hooks declare, they do no work.
"""

from __future__ import annotations

import math
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pluggy
from pydantic import BaseModel, ConfigDict, Field, field_validator

from abair.labels import check_degradation_name

if TYPE_CHECKING:
    from abair.deployment import Deployment
    from abair.report import Report, Verdict

GROUP: Final = "abair"
"""The entry-point group of plugins; also pluggy's project name."""

CONFIG_FILE: Final = "adapter_config.json"
WEIGHTS_FILE: Final = "adapter_model.safetensors"
"""An adapter's two files, as PEFT names them."""
RECORD_FILE: Final = "training.toml"
"""The record of a training, beside the weights."""

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)

_IMPORT = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


class Card(BaseModel):
    """What a user must know before trusting an adapter.

    `figures` maps a measure to its value; `command` is the command that measured them.
    `recorded_figures(adapters)` returns those of the last training.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    authors: tuple[str, ...] = Field(min_length=1)
    licence: str = Field(min_length=1)
    training_data: str = Field(min_length=1)
    figures: dict[str, float] = Field(default_factory=dict)
    command: str = ""


def recorded_figures(adapters: Path) -> dict[str, float]:
    """Return the numbers that the last trainings wrote into a folder of adapters, for a card.

    They are all numbers under `[run]` in each `<backbone>/training.toml`, named `nano/psnr`,
    `nano/bare` and so on: PSNR in dB on held-out samples, minutes, steps, number of photos. A
    record that is missing or damaged is skipped.
    """
    figures: dict[str, float] = {}
    for path in sorted(adapters.glob(f"*/{RECORD_FILE}")):
        try:
            run = tomllib.loads(path.read_text(encoding="utf-8")).get("run")
            numbers = {
                f"{path.parent.name}/{measure}": float(value)
                for measure, value in (run if isinstance(run, dict) else {}).items()
                if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            }
        except (OSError, ValueError, OverflowError, RecursionError):
            continue
        figures |= numbers
    return figures


class Degradation(BaseModel):
    """A degradation: its name, the function that synthesises it, the folder of its adapters.

    `synthesizer` is an import string `package.module:function` of `degrade(clean, generator) ->
    degraded`: tensors (3, H, W) float32 in [0, 1], all randomness, severity included, from the
    `torch.Generator`; same seed, same result. It is loaded only when needed. `adapters` holds one
    sub-folder a backbone (`nano/adapter_config.json`, `nano/adapter_model.safetensors`, in PEFT's
    format).

    Raises:
        pydantic.ValidationError: a field is missing, unknown, or not of this form.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str = Field(min_length=1)
    synthesizer: str
    adapters: Path
    card: Card

    @field_validator("name")
    @classmethod
    def _name_is_a_label(cls, name: str) -> str:
        return check_degradation_name(name)

    @field_validator("synthesizer")
    @classmethod
    def _synthesizer_is_an_import_string(cls, synthesizer: str) -> str:
        if not _IMPORT.fullmatch(synthesizer):
            raise ValueError(f"found {synthesizer!r}, expected 'package.module:function'")
        return synthesizer


class Hooks:
    """The three hooks; a plugin implements those it needs.

    Each is a module function marked `@abair.hookimpl`.
    """

    @hookspec
    def abair_degradations(self) -> list[Degradation]:  # type: ignore[empty-body]
        """Return the degradations that this plugin declares; called at discovery."""

    @hookspec
    def abair_gates(self, report: Report) -> list[Verdict]:  # type: ignore[empty-body]
        """Return further verdicts on a candidate; called when it has been evaluated.

        This is how a team adds a gate of its own.
        """

    @hookspec
    def abair_deployed(self, deployment: Deployment) -> None:
        """Take notice of a deployment; called after it went live.

        An exception is logged and changes nothing.
        """
