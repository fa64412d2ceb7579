"""Where the registry keeps its state: from the environment, with defaults that need no server."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from abair.deployment import home

DATABASE: Final = "registry.db"


class Settings(BaseSettings):
    """`ABAIR_HOME`, `ABAIR_REGISTRY_URL` and `ABAIR_SHARED_URL`.

    `registry_url` may hold a password, so it is never printed as it is. `shared_url` (`file:///...`) is a folder that
    hosts with one PostgreSQL registry share; blobs are put there and fetched from there.
    """

    model_config = SettingsConfigDict(env_prefix="ABAIR_", extra="ignore", frozen=True)

    home: Path = Field(default_factory=home)
    registry_url: SecretStr | None = None
    shared_url: str | None = None
