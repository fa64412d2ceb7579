"""Where the registry keeps its state and what its gates ask for: from the environment; the defaults need no server."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from abair.deployment import home
from abair.errors import RegistryError

DATABASE: Final = "registry.db"


class Thresholds(BaseModel):
    """What a gate asks of a challenger: in dB but for `recall`, a share."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gain: float = Field(default=0.3, description="a new adapter over the bare backbone, at least")
    loss: float = Field(default=0.1, ge=0, description="of any live degradation or mixture, at most")
    mixed_loss: float = Field(default=0.5, ge=0, description="of live damage with a new one over it, at most")
    clean: float = Field(default=38.0, description="of undamaged photos, at least")
    clean_loss: float = Field(default=0.3, ge=0, description="of undamaged photos against the champion, at most")
    oracle_gap: float = Field(default=0.3, ge=0, description="from SW to Oracle for a new label, at most")
    recall: float = Field(default=0.9, ge=0, le=1, description="of a new label, at least")


class Settings(BaseSettings):
    """`ABAIR_HOME`, `ABAIR_REGISTRY_URL` and so on, and MLflow's own `MLFLOW_TRACKING_URI`.

    `registry_url` may hold a password, so it is never printed as it is. `shared_url` (`file:///...`) is a folder that
    hosts with one PostgreSQL registry share; blobs are put there and fetched from there. `clean_dir` holds clean photos
    that new damage is tried on (default: those of scikit-image's wheel, and drawn pictures); `samples` are what the
    full route makes, `refit_steps` the training steps of the route by features. A gate's threshold is set by
    `ABAIR_GATES__LOSS=0.2` and the like.
    """

    model_config = SettingsConfigDict(
        env_prefix="ABAIR_", env_nested_delimiter="__", extra="ignore", frozen=True, populate_by_name=True
    )

    def __init__(self, **given: Any) -> None:
        """Raises RegistryError: a variable has a value that it cannot have."""
        try:
            super().__init__(**given)
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise RegistryError(
                f"settings: {wrong}; expected values as docs/registry.md names them; look at the variables ABAIR_*"
            ) from None

    home: Path = Field(default_factory=home)
    registry_url: SecretStr | None = None
    shared_url: str | None = None
    clean_dir: Path | None = None
    samples: int = Field(default=1500, ge=100)
    refit_steps: int = Field(default=1500, ge=1)
    gates: Thresholds = Thresholds()
    tracking_uri: str | None = Field(default=None, validation_alias="MLFLOW_TRACKING_URI")
