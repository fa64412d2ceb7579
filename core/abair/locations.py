"""Where bundles lie: in this machine's home, inside the wheel, or wherever a name leads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from platformdirs import user_data_path

from abair.errors import DeploymentError
from abair.files import absolute_path
from abair.foreign_points import foreign_kept_out
from abair.own_points import find_own

FILE_NAME: Final = "deployment.json"
"""The file that makes a folder a bundle."""
SHIPPED: Final = Path(__file__).parent / "weights"
"""The folder of the complete bundles inside the wheel, each known by its folder's name."""
FACTORY: Final = SHIPPED / "factory"
"""The bundle that restores when nothing else was deployed."""
FACTORY_VARIABLE: Final = "ABAIR_FACTORY"
"""The variable that names another bundle to start from; the default is `FACTORY`."""

_FETCHED_AS: Final = {"runs": "models"}
"""Schemes that another one's fetcher knows, too: MLflow's two."""
FETCHERS: Final = "abair.fetchers"
"""The entry-point group of functions that bring a deployment from elsewhere, each named by its
scheme: called with what was asked for, returns the bundle's folder."""

HOME: Final = "ABAIR_HOME"
"""The variable that names the folder of what this machine has deployed; the default is the user's
data folder."""


def home() -> Path:
    """Return the folder of the live deployment and the registry's state; it need not exist.

    Raises:
        DeploymentError: its path begins with `~` of an unknown user, or is not UTF-8.
    """
    return _named_folder(HOME) or user_data_path("abair", appauthor=False)


def _named_folder(variable: str) -> Path | None:
    """Return the folder that a variable of the environment names, or None if it is empty."""
    given = os.environ.get(variable)
    try:
        return absolute_path(given) if given else None
    except ValueError as error:
        raise DeploymentError(f"{variable}: {error}") from None


def factory_folder() -> Path:
    """Return the bundle that every home starts from: the wheel's, or the one of `ABAIR_FACTORY`.

    Raises:
        DeploymentError: the variable names no bundle.
    """
    given = os.environ.get(FACTORY_VARIABLE)
    if not given:
        return FACTORY
    folder = find_shipped(given) or _named_folder(FACTORY_VARIABLE) or FACTORY
    if not (folder / FILE_NAME).is_file():
        raise DeploymentError(
            f"{FACTORY_VARIABLE}: found {given}, which holds no {FILE_NAME}; expected a bundle's folder, or one of "
            f"{', '.join(shipped_names())}; correct or unset it"
        )
    return folder


def shipped_names() -> list[str]:
    """Return the names of the bundles inside the wheel."""
    return sorted(file.parent.name for file in SHIPPED.glob(f"*/{FILE_NAME}"))


def find_shipped(name: str) -> Path | None:
    """Return the folder of the bundle of this name inside the wheel, or None if none has it.

    Raises:
        DeploymentError: a bundle in the working folder has the same name.
    """
    if name not in shipped_names():
        return None
    if Path(name, FILE_NAME).is_file():
        raise DeploymentError(
            f"{name}: found a bundle in this folder and one that comes with ABAIR; expected only one of this name; "
            f"use ./{name} for the one in this folder, or rename it"
        )
    return SHIPPED / name


def live() -> Path:
    """Return the default bundle: what the home's registry published, or else the factory's.

    Raises:
        DeploymentError: the home may not be read, or `ABAIR_FACTORY` names no bundle.
    """
    return home() if home_serves() else factory_folder()


def home_serves() -> bool:
    """Return whether the home has a bundle.

    Raises:
        DeploymentError: it may not be read.
    """
    try:
        return (home() / FILE_NAME).is_file()
    except OSError as error:
        raise DeploymentError(
            f"{home()}: cannot be read ({error.strerror or error}); expected a folder that you may read; change its "
            f"permissions, or set {HOME} to another one"
        ) from None


def missing_live() -> str:
    """Return why the factory serves where another deployment is expected, in one line, or nothing.

    Nothing is expected of a home that was never used, unless its variable names it.

    Raises:
        DeploymentError: the home may not be read.
    """
    place = home()
    if home_serves():
        return ""
    if place.exists() and not place.is_dir():
        return f"{place} is no folder; restoring with the deployment that comes with ABAIR; set {HOME} to a folder"
    if os.environ.get(HOME) and not place.exists():
        return f"{HOME} names {place}, which does not exist; restoring with the deployment that comes with ABAIR"
    if (place / "registry.db").exists() or (place / "blobs").exists():
        return (
            f"{place} has no {FILE_NAME}; restoring with the deployment that comes with ABAIR; run: abair-registry "
            "doctor"
        )
    return ""


def locate(path: Path | str) -> Path:
    """Return a path as it is, or the folder of what is named otherwise.

    That is a bundle that comes with ABAIR, or `scheme:/...`, fetched as installed for the scheme.
    """
    if isinstance(path, str) and (found := find_shipped(path)):
        return found
    scheme, colon, _ = str(path).partition(":/")
    if isinstance(path, Path) or not colon or len(scheme) < 2:  # C:/ is a drive
        return Path(path)
    fetcher = find_own(FETCHERS, _FETCHED_AS.get(scheme, scheme))
    if fetcher is None:
        raise DeploymentError(
            f"{path}: nothing that is installed fetches {scheme}:/; expected a bundle's folder, models:/... or "
            "runs:/..."
        )
    with foreign_kept_out():
        fetched: Path = fetcher.load()(path)
    return fetched
