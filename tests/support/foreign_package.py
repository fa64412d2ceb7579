"""Writes packages that ask to be loaded by everybody, and packages with damaged metadata; all are harmless."""

from __future__ import annotations

from pathlib import Path

GROUPS = {
    "abair": ("noise", "trap"),
    "abair.checkers": ("plugins", "trap"),
    "abair.fetchers": ("models", "trap"),
    "abair.trackers": ("mlflow", "trap"),
    "alembic.plugins": ("trap",),
    "fsspec.specs": ("file", "memory", "trap"),
    "mlflow.artifact_repository": ("", "file", "http", "mlflow-artifacts"),
    "mlflow.dataset_constructor": ("load_trap",),
    "mlflow.dataset_source": ("trap",),
    "mlflow.default_experiment_provider": ("trap",),
    "mlflow.model_registry_store": ("sqlite", "file", "http"),
    "mlflow.request_header_provider": ("trap",),
    "mlflow.run_context_provider": ("trap",),
    "mlflow.tracking_store": ("sqlite", "file", "http"),
    "networkx.backend_info": ("trap",),
    "networkx.backends": ("trap",),
    "opentelemetry_context": ("contextvars_context",),
    "opentelemetry_resource_detector": ("otel",),
    "opentelemetry_tracer_provider": ("default_tracer_provider",),
    "pydantic": ("trap",),
    "pytest11": ("trap",),
    "skimage_backend_infos": ("trap",),
    "skimage_backends": ("trap",),
    "sqlalchemy.dialects": ("sqlite", "trap"),
    "torch.backends": ("trap",),
    "torch_dynamo_backends": ("inductor", "trap"),
    "torchrun.handlers": ("trap",),
}
"""The groups that the trap is in, and the names that it answers to there."""
MODULE = """
from pathlib import Path

marker = Path(__file__).parent / "ran" / {group!r}
marker.parent.mkdir(exist_ok=True)
marker.touch()

def answer(*given, **named):
    pass

answer.new_schema_validator = lambda *given, **named: (None, None, None)  # a plugin of pydantic's has this
"""


def write_info(site: Path, folder: str, name: str = "", entry_points: bytes = b"") -> Path:
    """Write a folder of metadata; without a name, its METADATA is empty."""
    info = site / folder
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n" if name else "")
    (info / "entry_points.txt").write_bytes(entry_points)
    return info


def write_trap(site: Path, folder: str = "trap-1.0.dist-info", name: str = "trap") -> None:
    """Write a package into all groups; each of its modules leaves a marker when it is imported."""
    lines = []
    for number, (group, names) in enumerate(GROUPS.items()):
        lines += [f"[{group}]", *(f"{each} = trap_{number}:answer" for each in names)]
        (site / f"trap_{number}.py").parent.mkdir(parents=True, exist_ok=True)
        (site / f"trap_{number}.py").write_text(MODULE.format(group=group))
    write_info(site, folder, name, "\n".join(lines).encode())


def write_damaged(site: Path) -> dict[str, str]:
    """Write distributions that each are damaged in a way of its own; returns by name a part of what is told of each.

    Those of which nothing is told have no entry points that ABAIR would miss.
    """
    write_info(site, "aa_malformed-1.0.dist-info", "aa-malformed", b"[console_scripts]\nno entry point\n")
    write_info(site, "aa_binary-1.0.dist-info", "aa-binary", b"\xff\xfe\x00[abair]\n")
    (write_info(site, "aa_folder-1.0.dist-info", "aa-folder") / "entry_points.txt").unlink()
    (site / "aa_folder-1.0.dist-info" / "entry_points.txt").mkdir()
    write_info(site, "aa_nameless-1.0.dist-info", "", b"[abair]\nnameless = trap_0\n")
    write_info(site, "aa_empty-1.0.dist-info")
    (site / "aa_bare-1.0.dist-info").mkdir()
    (site / "aa_file-1.0.dist-info").write_text("")
    write_info(site, "~a_interrupted-1.0.dist-info", "aa-interrupted", b"[abair]\ninterrupted = trap_0\n")
    write_info(site, "~a_malformed-1.0.dist-info", "aa-interrupted", b"[console_scripts]\nno entry point\n")
    return {
        "aa-malformed": "entry_points.txt cannot be read",
        "aa-binary": "entry_points.txt cannot be read (UnicodeDecodeError",
        "aa-folder": "entry_points.txt cannot be read (IsADirectoryError",
        "aa-nameless": "METADATA has no name",
    }


def what_ran(site: Path) -> list[str]:
    """Return the groups from which the trap was loaded."""
    return sorted(path.name for path in site.glob("ran/*"))
