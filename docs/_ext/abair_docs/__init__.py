"""Replaces a line `<!-- generated: NAME -->` of a page by Markdown that is made from the code.

So the reference cannot differ from the program. An unknown NAME is a warning, which `make docs`
treats as an error.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel
from sphinx.util import logging

from abair_docs import command_line, diagrams, files, models, settings, tables

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

MARK: Final = re.compile(r"^<!-- generated: ([a-z_-]+) -->$", re.MULTILINE)
MERMAID: Final = re.compile(r"^```mermaid\nerDiagram\n.*?^```$", re.MULTILINE | re.DOTALL)
"""The diagram of the tables, which forges draw; the site shows the columns instead."""

PARTS: Final[dict[str, Callable[[], str]]] = {
    "abair": partial(command_line.reference, "abair"),
    "abair-registry": partial(command_line.reference, "abair-registry"),
    "exit-codes": command_line.exit_codes,
    "training-settings": settings.training,
    "registry-settings": settings.registry,
    "gates": settings.gates,
    "thresholds": settings.thresholds,
    "deployment": files.deployment,
    "kept": files.kept,
    "adapter-file": files.adapter,
    "backbone-file": partial(files.tensors, "backbone"),
    "estimator-file": partial(files.tensors, "estimator"),
    "replay-file": partial(files.tensors, "replay"),
    "packages": diagrams.packages,
    "layers": diagrams.layers,
}

log = logging.getLogger(__name__)


def _replace(_app: Sphinx, page: str, source: list[str]) -> None:
    def part(found: re.Match[str]) -> str:
        make = PARTS.get(found[1])
        if make is None:
            log.warning("%s: found %r, expected one of %s", page, found[1], ", ".join(PARTS), location=page)
            return ""
        return make()

    source[0] = MERMAID.sub(lambda _: models.tables(), MARK.sub(part, source[0]))


def _outdated(
    _app: Sphinx, env: BuildEnvironment, _added: set[str], _changed: set[str], _removed: set[str]
) -> list[str]:
    """Return the pages that depend on the code, which Sphinx does not watch."""
    found = []
    for page in env.found_docs:
        text = Path(env.doc2path(page)).read_text(encoding="utf-8")
        if MARK.search(text) or MERMAID.search(text) or "```{eval-rst}" in text:
            found.append(page)
    return found


def _signature(
    _app: Sphinx, _what: str, _name: str, thing: object, _options: object, _given: str, _returns: str
) -> tuple[str, None] | None:
    """Return a model's fields as they are written, without what pydantic adds to their types."""
    if not (inspect.isclass(thing) and issubclass(thing, BaseModel)):
        return None
    return f"({', '.join(f'{name}: {tables.kind(thing, name)}' for name in thing.model_fields)})", None


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect to Sphinx."""
    app.connect("source-read", _replace)
    app.connect("env-get-outdated", _outdated)
    app.connect("autodoc-process-signature", _signature)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
