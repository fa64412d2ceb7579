"""The package of a network that darktable 5.6 imports from a file: a zip archive, `*.dtmodel`.

It holds one folder, named by the model's id, with `config.json` and `model.onnx`. There is no
schema. What darktable asks of it is in its source: `dt_ai_models_install_local` in
`src/common/ai_models.c`, `_scan_directory` in `src/ai/backend_common.c`, `_load` in
`src/common/ai/restore.c`, `dt_restore_run_patch` in `restore_rgb.c` beside it; and, for models that
darktable publishes, in `models/validate.py` of darktable-ai. `check_package` asks the same.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Mapping
from typing import Any, Final

import abair
from abair.errors import ExportError
from abair.export.network import IMAGE, RESTORED
from abair.export.onnx_file import open_session
from abair.labels import CLEAN

CONFIG: Final = "config.json"
MODEL: Final = "model.onnx"
TASK: Final = "denoise"
"""The task of darktable in which a network maps RGB to RGB of the same size."""
SMALLEST_TILE: Final = 256
"""Side in pixels of the smallest tile that darktable gives a network."""
_REQUIRED: Final = ("id", "name", "description", "task", "backend", "version")
_TIME: Final = (1980, 1, 1, 0, 0, 0)  # the same network gives the same bytes


def model_id(weights: Mapping[str, float]) -> str:
    """Return the id of a package, such as `denoise-abair-noise` or `denoise-abair-noise70-blur30`.

    Numbers are hundredths. A package of the same id replaces an earlier one in darktable.
    """
    used = _used(weights)
    if len(used) == 1 and next(iter(used.values())) == 1:
        return f"{TASK}-abair-{next(iter(used))}"
    return "-".join([TASK, "abair", *(f"{label}{100 * weight:.0f}" for label, weight in used.items())])


def has_id(weights: Mapping[str, float]) -> bool:
    """Return whether any degradation has a weight that the id can name, 0.01 or more."""
    return bool(_used(weights))


def make_package(network: bytes, weights: Mapping[str, float], deployment: str) -> bytes:
    """Return the package of an ONNX file with the only input `image` and the output `restored`.

    Raises:
        MissingExtraError: onnxruntime is missing.
        ExportError: darktable would not take it.
    """
    blend = ", ".join(f"{label} {weight:g}" for label, weight in _used(weights).items())
    name = model_id(weights)
    config = {
        "id": name,
        "name": f"abair {blend}",
        "description": f"Restores photos: {blend} (deployment {deployment})",
        "task": TASK,
        "arch": "abair",
        "backend": "onnx",
        "version": abair.__version__,
        "tiling": True,
        "num_inputs": 1,
        "model_card": {
            "long_description": "A NAFNet-style network with LoRA adapters that are blended by fixed weights. It works "
            "on sRGB and sees each tile as a photo of its own.",
            "scope": "single-image restoration",
            "author": "The ABAIR authors",
            "paper": "https://arxiv.org/abs/2411.18412",
            "license": "Apache-2.0 for the code; see the training data",
            "training_data": "see the limitations in ABAIR's documentation",
            "training_data_license": "in part for non-commercial research only; see the README of ABAIR",
            "notes": f"exported by abair {abair.__version__} from the deployment {deployment}",
        },
    }
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in ((CONFIG, json.dumps(config, indent=2).encode() + b"\n"), (MODEL, network)):
            entry = zipfile.ZipInfo(f"{name}/{member}", _TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o100644 << 16  # darktable keeps permissions; zipfile's are the owner's alone
            archive.writestr(entry, content)
    check_package(file.getvalue())
    return file.getvalue()


def check_package(file: bytes) -> dict[str, Any]:
    """Check what darktable asks of a package, and return its `config.json`.

    Raises:
        MissingExtraError: onnxruntime is missing.
        ExportError: it would not be imported, or could not be run.
    """
    with zipfile.ZipFile(io.BytesIO(file)) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        folder, _, _ = next(iter(entries)).partition("/")
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9.]+)*", folder) or ".." in folder:
            raise ExportError(f"dtmodel: found the folder {folder!r}, expected an id such as denoise-abair-noise")
        if set(entries) != {f"{folder}/{CONFIG}", f"{folder}/{MODEL}"}:
            raise ExportError(f"dtmodel: found {sorted(entries)}, expected {CONFIG} and {MODEL} in {folder}/")
        unreadable = [name for name, entry in entries.items() if not entry.external_attr >> 16 & 0o400]
        if unreadable:
            raise ExportError(f"dtmodel: {unreadable[0]} would be unpacked as a file that nobody can read")
        config: dict[str, Any] = json.loads(archive.read(f"{folder}/{CONFIG}"))
        session = open_session(archive.read(f"{folder}/{MODEL}"))
    if missing := [key for key in _REQUIRED if not (isinstance(config.get(key), str) and config[key])]:
        raise ExportError(f"dtmodel: {CONFIG} lacks {', '.join(missing)}, or they are no text")
    expected = {"id": folder, "task": TASK, "backend": "onnx"}
    if wrong := [key for key, value in expected.items() if config[key] != value]:
        raise ExportError(f"dtmodel: found {wrong[0]} {config[wrong[0]]!r}, expected {expected[wrong[0]]!r}")
    shape = [1, 3, "height", "width"]  # darktable sets these two names to the sides of its tiles
    found = [(value.name, value.type, value.shape) for value in (*session.get_inputs(), *session.get_outputs())]
    if found != [(name, "tensor(float)", shape) for name in (IMAGE, RESTORED)]:
        raise ExportError(f"dtmodel: found {found}, expected one input and one output of float, {shape}")
    return config


def _used(weights: Mapping[str, float]) -> dict[str, float]:
    return {label: weight for label, weight in weights.items() if weight >= 0.005 and label != CLEAN}
