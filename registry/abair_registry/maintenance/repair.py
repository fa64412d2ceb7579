"""Put back what the registry's deployments need, write `deployment.json` again, and record it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from abair.errors import AbairError, RegistryError
from abair.files import file_sha256
from abair.locations import FILE_NAME
from abair_registry.db import audit, queries
from abair_registry.db.audit import Actor
from abair_registry.maintenance.integrity import Finding, find_damage, what_helps
from abair_registry.maintenance.sources import Sources
from abair_registry.registry import Registry, live_file_problem, sync_live_file
from abair_registry.tracking.mlflow_client import Runs
from abair_registry.tracking.model_versions import MODEL


def repair(registry: Registry, runs: Runs) -> tuple[list[str], list[str]]:
    """Put back missing and changed files, then write the live deployment's file if it differs.

    They come from the package, an installed plugin, a bundle of MLflow's, or the shared folder.

    Returns:
        A line for each thing mended, and one for each problem that is left, with what helps.
    """
    mended, failed = [], dict[str, str]()
    sources = Sources(registry.settings)
    _, findings = find_damage(registry)
    first = {finding.file.sha256: finding for finding in findings[::-1]}  # of equal files, the live deployment's
    for finding in [finding for finding in findings if finding is first[finding.file.sha256]]:
        source = sources.find(finding.file.sha256)
        if source is None:
            continue
        try:
            sources.put_back(finding.file.sha256, source, registry.blobs)
            mended.append(f"{finding.file.description}: put back from {source.name}")
        except RegistryError as error:
            failed[finding.file.sha256] = str(error)
    remarks = list(sources.remarks)
    _, findings = find_damage(registry)
    if findings and registry.settings.tracking_uri is not None:
        try:
            mended += _fetch_from_server(registry, runs, findings)
        except (AbairError, OSError) as error:
            remarks.append(str(error))
        _, findings = find_damage(registry)
    problems = [
        f"{finding}; {failed.get(finding.file.sha256) or what_helps(registry, finding, findings)}"
        for finding in findings
    ]
    serving = [finding for finding in findings if finding.file.serves and finding.file.deployment is None]
    if problem := live_file_problem(registry):
        path = registry.settings.home / FILE_NAME
        if serving:
            problems.append(f"{path}: {problem}; it is written again once the files of the live deployment are back")
        else:
            try:
                if sync_live_file(registry):
                    mended.append(f"{FILE_NAME}: written again, because it {problem}")
            except RegistryError as error:
                problems.append(str(error))
    return mended, problems + remarks


def record_mended(registry: Registry, mended: Sequence[str], actor: Actor) -> None:
    """Record what was mended as one event of the audit trail; nothing if there is nothing."""
    if mended:
        with registry.database.write() as session:
            number = queries.live_number(session)
            audit.record_event(session, actor, "mend", "registry", {"mended": list(mended)}, deployment=number)


def _fetch_from_server(registry: Registry, runs: Runs, findings: Sequence[Finding]) -> list[str]:
    """Put back what the bundles of MLflow's server hold, of the deployments that need it."""
    mended = []
    with registry.database.read() as session:
        live = queries.live_number(session)
    wanted = {finding.file.sha256: finding for finding in findings if finding.file.serves}
    numbers = dict.fromkeys(str(finding.file.deployment or live) for finding in wanted.values())
    for version in runs.versions():
        if version.tags.get("abair.deployment") not in numbers or not wanted:
            continue
        with TemporaryDirectory(dir=registry.settings.home, prefix=".fetching-", ignore_cleanup_errors=True) as folder:
            fetched = runs.fetch(f"models:/{MODEL}/{version.number}", Path(folder))
            for path in sorted(path for path in fetched.rglob("*") if path.is_file()):
                if (finding := wanted.pop(file_sha256(path), None)) is not None:
                    registry.blobs.add(path, finding.file.sha256)
                    mended.append(
                        f"{finding.file.description}: put back from version {version.number} on MLflow's server"
                    )
    return mended
