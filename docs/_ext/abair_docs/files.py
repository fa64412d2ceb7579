"""File formats as Markdown: from the pydantic models, and from the files that ship."""

from __future__ import annotations

import json
from pathlib import Path

from abair.deployment import AdapterRef, BackboneRef, Deployment, FileRef, read_deployment
from abair.images.kept import KEPT
from abair.locations import FACTORY
from abair.model.safetensors_io import Header, read_header
from abair_docs.tables import code, fields, paragraphs, table

KINDS = frozenset({"U8", "F16", "F32", "BF16"})


def deployment() -> str:
    """Return the parts of `deployment.json`."""
    parts = []
    for model in (Deployment, BackboneRef, AdapterRef, FileRef):
        parts += [f"### {model.__name__}", paragraphs(model), fields(model)]
    return "\n\n".join(parts)


def kept() -> str:
    """Return what each format of photos holds beside the pixels."""
    names = list(dict.fromkeys(name for held in KEPT.values() for name in sorted(held)))
    rows = [[name, *("yes" if name in held else "" for held in KEPT.values())] for name in names]
    return table(["", *({"WEBP": "WebP"}.get(kind, kind) for kind in KEPT)], rows)


def adapter() -> str:
    """Return the configuration and the tensors of an adapter that ships."""
    shipped = read_deployment(FACTORY)
    chosen = shipped.adapters[0]
    config = json.loads(shipped.find(chosen.config).read_text(encoding="utf-8"))
    rows = [[code(key), code(json.dumps(value))] for key, value in config.items() if value not in (None, False, {}, [])]
    shown = [row if len(row[1]) < 100 else [row[0], f"{row[1][:80]}…`"] for row in rows]
    return "\n\n".join(
        [
            f"`adapter_config.json` of the shipped adapter `{chosen.degradation}`, without keys that are off or empty:",
            table(["key", "value"], shown),
            "`adapter_model.safetensors`, the first layers:",
            _tensors(shipped.find(chosen.weights), first=6),
        ]
    )


def tensors(part: str) -> str:
    """Return the tensors and the metadata of the shipped backbone, estimator or replay."""
    shipped = read_deployment(FACTORY)
    file = {"backbone": shipped.backbone.file, "estimator": shipped.estimator, "replay": shipped.replay}[part]
    if file is None:
        raise LookupError(f"{FACTORY}: found no {part}, expected one, which the reference describes")
    path = shipped.find(file)
    found = read_header(path, kinds=KINDS)
    rows = [[code(key), code(value if len(value) < 100 else f"{value[:80]}…")] for key, value in found.metadata.items()]
    parts = [_tensors(path, first=8)]
    if rows:
        parts += ["Metadata of the file:", table(["key", "value in the shipped file"], rows)]
    return "\n\n".join(parts)


def _tensors(path: Path, first: int) -> str:
    header: Header = read_header(path, kinds=KINDS)
    names = sorted(header.shapes)
    rows = [[code(name), header.dtypes[name], code(list(header.shapes[name]))] for name in names[:first]]
    text = table(["tensor", "dtype", "shape"], rows)
    return (
        text if len(names) <= first else f"{text}\n\n{len(names)} tensors in all; the first {first} by name are shown."
    )
