"""What was refused: why, for the audit trail, and the challenger itself, in its run.

So it can be looked at: `abair restore --deployment runs:/ID` restores with it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from abair.errors import RegistryError
from abair.locations import FILE_NAME
from abair_registry.db.snapshot import DeploymentSnapshot
from abair_registry.operations.gates import GateResult, summarize
from abair_registry.registry import Registry
from abair_registry.settings import Thresholds
from abair_registry.storage import publish
from abair_registry.tracking.model_versions import BUNDLE
from abair_registry.tracking.outbox import OperationRun
from abair_registry.tracking.sync import export_bundle


def judgement(results: Sequence[GateResult], thresholds: Thresholds, *, forced: bool) -> dict[str, Any]:
    """Return what the audit trail keeps of the gates, as JSON values.

    `forced` is whether refusals change nothing.
    """
    refused = [result for result in results if not result.passed]
    detail: dict[str, Any] = {}
    if refused:
        detail |= {"refused": [result.name for result in refused], "why": explain(refused)}
        detail |= {"forced": True} if forced else {}
    verdicts = [result.verdict for result in results]
    detail["gates"] = summarize(verdicts, thresholds, forced=forced and bool(refused))
    lowered = thresholds.lowered()
    return detail | ({"lowered": lowered} if lowered else {})


def explain(results: Sequence[GateResult]) -> list[dict[str, Any]]:
    """Return of each gate that refused what it found and what to do, as JSON values."""
    return [
        {"gate": result.name, "found": result.found, "threshold": result.asked}
        | result.verdict.model_dump(include={"detail", "advice"})
        for result in results
    ]


def keep(
    run: OperationRun,
    registry: Registry,
    proposed: DeploymentSnapshot,
    estimator_sha256: str,
    operation: int,
    warn: Callable[[str], object],
) -> None:
    """Keep a refused challenger in its run, as a complete bundle; what fails is a warning."""
    try:
        with registry.database.read() as session:
            bundle = publish.make_proposed_bundle(
                session, proposed, estimator_sha256, registry.blobs, name=f"refused-{operation}"
            )
        with tempfile.TemporaryDirectory() as folder:
            export_bundle(bundle, registry.blobs, Path(folder))
            files = [path for path in sorted(Path(folder).rglob("*")) if path.is_file()]
            for path in sorted(files, key=lambda path: path.name == FILE_NAME):  # last: then all others are there
                run.file(path.read_bytes(), f"{BUNDLE}/{path.relative_to(folder).as_posix()}")
    except (RegistryError, OSError) as error:
        warn(f"what was refused is not kept in the run: {error}")
