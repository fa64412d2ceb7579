"""The layers of both packages as a drawing and a table, from the contracts in pyproject.toml."""

from __future__ import annotations

import importlib
import tomllib
from pathlib import Path
from xml.sax.saxutils import escape

from abair_docs.tables import code, sentence, table

ROOT = Path(__file__).parents[3]
WIDTH, HEIGHT, GAP = 700, 34, 10
"""Of the drawing, of a layer, and between layers, in pixels."""


def _contracts() -> dict[str, list[list[str]]]:
    """Return per package its layers from top to bottom, each a list of modules."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    found = {}
    for contract in settings["contracts"]:
        if contract["type"] == "layers":
            (package,) = contract["containers"]
            found[package] = [[name.strip() for name in layer.split("|")] for layer in contract["layers"]]
    return found


def layers() -> str:
    """Return one drawing per package; a module may import what lies lower."""
    drawn = []
    for package, found in _contracts().items():
        height = len(found) * (HEIGHT + GAP) + 30
        parts = [
            f'<svg class="layers" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="Layers of {package}">',
            f'<text x="0" y="16" class="package">{package}</text>',
        ]
        for place, names in enumerate(found):
            top = 26 + place * (HEIGHT + GAP)
            width = (WIDTH - GAP * (len(names) - 1)) / len(names)
            for column, name in enumerate(names):
                left = column * (width + GAP)
                parts += [
                    f'<rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="{HEIGHT}" rx="6"/>',
                    f'<text x="{left + width / 2:.1f}" y="{top + 22}" text-anchor="middle">{escape(name)}</text>',
                ]
        drawn.append("\n".join([*parts, "</svg>"]))
    return "\n\n".join(f"```{{raw}} html\n{drawing}\n```" for drawing in drawn)


def packages() -> str:
    """Return one row for each module of a layer, with what its docstring says."""
    parts = []
    for package, found in _contracts().items():
        rows = [
            [code(name), _path(package, name), sentence(importlib.import_module(f"{package}.{name}"))]
            for layer in found
            for name in layer
        ]
        parts += [f"### `{package}`", table(["module", "source", "what it does"], rows)]
    return "\n\n".join(parts)


def _path(package: str, name: str) -> str:
    root = {"abair": "core", "abair_registry": "registry"}[package]
    path = f"{root}/{package}/{name}"
    return code(f"{path}/" if (ROOT / path).is_dir() else f"{path}.py")
