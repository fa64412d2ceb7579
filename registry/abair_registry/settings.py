"""The registry's settings and its gates' thresholds, from the environment.

The defaults need no server.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from abair.errors import RegistryError
from abair.files import absolute_path
from abair.locations import home
from abair.text import describe_fields

DATABASE: Final = "registry.db"
_REGISTRY_URL: Final = "ABAIR_REGISTRY_URL"
_NOT_IN_URI: Final = re.compile(r"\?|%[0-9A-Fa-f]{2}")
"""What MLflow reads as the end of a SQLite file's path, or as another character.

If it is quoted, MLflow makes a second folder (findings/mlflow_quoted_sqlite_path.sh).
"""


MOST_DB: Final = 100.0
"""At which PSNR is capped (`abair.metrics`, which is not imported here, because numpy is slow)."""
_AT_LEAST: Final = frozenset({"gain", "clean", "recall"})
"""Thresholds that a value must reach; the others are those that it must not exceed."""
_COUNTS: Final = ("none", "one", "two", "three", "four", "five", "six", "seven")


class Thresholds(BaseModel):
    """The gates' thresholds for a challenger, in dB; `recall` is a share."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    gain: float = Field(default=0.3, ge=0, le=MOST_DB, description="a new adapter over the bare backbone, at least")
    loss: float = Field(default=0.1, ge=0, le=MOST_DB, description="of any live degradation or mixture, at most")
    mixed_loss: float = Field(
        default=0.5, ge=0, le=MOST_DB, description="of live damage with a new one over it, at most"
    )
    clean: float = Field(default=38.0, ge=0, le=MOST_DB, description="of undamaged photos, at least")
    clean_loss: float = Field(
        default=0.3, ge=0, le=MOST_DB, description="of undamaged photos against the champion, at most"
    )
    oracle_gap: float = Field(default=0.3, ge=0, le=MOST_DB, description="from SW to Oracle for a new label, at most")
    recall: float = Field(default=0.8, ge=0, le=1, description="of a new label, at least")

    def lowered(self) -> dict[str, tuple[float, float]]:
        """Return the thresholds that let more pass than ABAIR's: by name, the value and ABAIR's."""
        ours = Thresholds()
        pairs = {name: (getattr(self, name), getattr(ours, name)) for name in Thresholds.model_fields}
        return {
            name: (value, default)
            for name, (value, default) in pairs.items()
            if (value < default if name in _AT_LEAST else value > default)
        }


def describe_lowered(lowered: Mapping[str, tuple[float, float]]) -> str:
    """Return lowered thresholds in words, as `two lowered: recall 0.8 (0.9), loss 0.2 (0.1)`."""
    if not lowered:
        return ""
    values = ", ".join(f"{name} {value:g} ({default:g})" for name, (value, default) in lowered.items())
    return f"{_COUNTS[len(lowered)]} lowered: {values}"


class ChallengerConfig(BaseModel):
    """How much is made and trained for a challenger; the defaults are those of the platform.

    Samples are those of one new label. Mixtures are samples with its damage over that of a live
    one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    training_scenes: int = Field(default=160, ge=1, description="damaged scenes; half as many are left undamaged")
    held_out: int = Field(default=80, ge=1, description="held-out samples, all of which are looked at")
    held_out_clean: int = Field(default=24, ge=1, description="undamaged held-out samples of the same photos")
    held_out_of_mixture: int = Field(default=12, ge=1, description="held-out samples of a mixture")
    first_look: int = Field(
        default=12, ge=1, description="samples of each kind that are restored at first, of a mixture half as many"
    )
    further_looks: int = Field(default=160, ge=0, description="samples that are restored at most where gates stay open")
    held_out_mixtures: int = Field(default=5, ge=0, description="live labels at most in held-out mixtures")
    mixtures: int = Field(default=160, ge=1, description="mixtures to train on, however many labels are live")
    mixtures_labels: int = Field(default=16, ge=0, description="live labels at most in those")
    full_steps: int = Field(default=1200, ge=1, description="training steps of the full route")
    validation: int = Field(default=40, ge=1, description="held-out samples a label for the full route's curves")
    temperature: int = Field(default=200, ge=1, description="held-out samples that choose the full route's temperature")


def _variable(place: tuple[int | str, ...]) -> str:
    """Return the environment variable of a setting."""
    names = [str(part).upper() for part in place]
    return names[0] if names[0] == "MLFLOW_TRACKING_URI" else "ABAIR_" + "__".join(names)


Folder = Annotated[Path, AfterValidator(absolute_path)]
"""A folder whose path holds in worker processes, too, which work in folders of their own."""


class Settings(BaseSettings):
    """The variables `ABAIR_*` and MLflow's own `MLFLOW_TRACKING_URI`."""

    model_config = SettingsConfigDict(
        env_prefix="ABAIR_", env_nested_delimiter="__", env_ignore_empty=True, extra="ignore", frozen=True,
        populate_by_name=True,
    )  # fmt: skip

    def __init__(self, **given: Any) -> None:
        """Read the environment; `given` values come first. An empty variable is as good as none.

        Raises:
            RegistryError: a variable has an invalid value, or the home's path a sign of URIs.
            DeploymentError: `ABAIR_HOME` names no folder.
        """
        if os.environ.get(_REGISTRY_URL) == "":  # of all others nothing is the default, too
            raise RegistryError(
                f"{_REGISTRY_URL}: found nothing, expected the URL of a database; unset it for the file in the home"
            )
        try:
            super().__init__(**{"home": home()} | given)  # the variable is read there alone
        except ValidationError as error:
            raise RegistryError(f"{describe_fields(error, _variable)}; correct or unset it") from None
        except SettingsError as error:  # whose text names the field and its source in Python's words
            variable = _variable(tuple(str(error).split('"')[1:2]))
            raise RegistryError(
                f'{variable}: found no JSON object, expected one such as {{"name": 1}}, or variables such as '
                f"{variable}__NAME; correct or unset it"
            ) from None
        if self.tracking_uri is None and (found := _NOT_IN_URI.search(str(self.home.absolute()))):
            raise RegistryError(
                f"ABAIR_HOME: found {found[0]!r} in {self.home}; expected a path without ? and without % before two "
                "hexadecimal digits, which mean something else in the address of MLflow's store; name another folder, "
                "or MLflow's server with MLFLOW_TRACKING_URI"
            )

    home: Folder = Field(default_factory=home, description="folder of the database, blobs and runs")
    registry_url: SecretStr | None = Field(
        default=None, description="URL of a PostgreSQL database; without it, a SQLite file in the home. Never printed"
    )
    shared_url: str | None = Field(
        default=None,
        description="folder for blobs that hosts with one registry share: `file:///...`, `s3://...`, `gs://...` or "
        "another URL that fsspec knows",
    )
    clean_dir: Folder | None = Field(
        default=None,
        description="folder of clean photos to damage; without it, those in installed packages and drawn pictures",
    )
    samples: int = Field(default=1500, ge=100, description="samples that the full route makes")
    gates: Thresholds = Thresholds()
    challenger: ChallengerConfig = ChallengerConfig()
    tracking_uri: str | None = Field(
        default=None,
        validation_alias="MLFLOW_TRACKING_URI",
        description="MLflow's server or store; without it, a SQLite file in the home",
    )
