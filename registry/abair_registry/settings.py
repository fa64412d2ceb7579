"""Where the registry keeps its state: from the environment, with defaults that need no server."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from abair.deployment import home

DATABASE: Final = "registry.db"


class Settings(BaseSettings):
    """`ABAIR_HOME`, `ABAIR_REGISTRY_URL`, `ABAIR_SHARED_URL`, and MLflow's own `MLFLOW_TRACKING_URI`.

    `registry_url` may hold a password, so it is never printed as it is. `shared_url` (`file:///...`) is a folder that
    hosts with one PostgreSQL registry share; blobs are put there and fetched from there.
    """

    model_config = SettingsConfigDict(env_prefix="ABAIR_", extra="ignore", frozen=True, populate_by_name=True)

    home: Path = Field(default_factory=home)
    registry_url: SecretStr | None = None
    shared_url: str | None = None
    tracking_uri: str | None = Field(default=None, validation_alias="MLFLOW_TRACKING_URI")
