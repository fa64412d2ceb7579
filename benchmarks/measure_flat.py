"""Measure the time of adding the N-th plugin, with a tiny backbone.

Run: python benchmarks/measure_flat.py [LAST]

Generates up to LAST (default 50) plugins, each with a synthesiser of its own. Each is added and
then uninstalled, so that later ones can use only what it left in the registry. Gates are forced,
because only the time is measured.
"""

from __future__ import annotations

import importlib
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.conftest import make_bundle, pictures, write_adapter
from tests.support.plugin_package import Plugin, Tiny

from abair_registry.db.audit import Actor
from abair_registry.operations.lifecycle import Add
from abair_registry.operations.requests import OperationOptions
from abair_registry.registry import open_registry
from abair_registry.settings import Settings

if TYPE_CHECKING:
    from abair.model.backbone import Backbone

SYNTHESIS = """
import torch

def degrade(clean, generator):
    rows = torch.arange(clean.shape[-2])[:, None] * {a} + torch.arange(clean.shape[-1])[None] * {b}
    much = 0.1 + 0.1 * torch.rand((), generator=generator)
    return (clean * 0.8 + much * (1 + torch.sin(rows * {c})) / 2 + 0.001).clamp(0, 1)
"""


def main(last: int) -> None:
    """Add the plugins up to number `last`; print the time of the sixth and of the last."""
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        bundle = make_bundle(root / "bundle")
        clean, site = root / "clean", root / "site"
        clean.mkdir()
        site.mkdir()
        for place, picture in enumerate(pictures(range(20, 32)).photos):
            Image.fromarray(picture).save(clean / f"{place:02}.png")
        sys.path.insert(0, str(site))
        times: dict[int, float] = {}
        settings = Settings(home=root / "home", registry_url=None, clean_dir=clean)
        for number in range(4, last + 1):  # the bundle has three
            name = f"wave{number}"
            write_adapter(root / name, _backbone(bundle), seed=number)
            tiny = Tiny.read(bundle / "backbone.safetensors", root / name)
            text = SYNTHESIS.format(a=number % 7, b=1 + number % 5, c=0.2 + 0.03 * number)
            Plugin(synthesis=text).make(site, tiny, name=name, distribution=f"abair-{name}")
            importlib.invalidate_caches()
            with open_registry(settings, bundle) as registry:
                started = time.monotonic()
                Add(name, Actor("bench", "flat"), OperationOptions(route="features", force=True)).run(registry)
                times[number] = time.monotonic() - started
            for path in site.iterdir():
                shutil.rmtree(path)
            print(f"{number:>3} {times[number]:6.1f} s", flush=True)
        early = statistics.median(times[n] for n in range(5, 8))
        late = statistics.median(times[n] for n in range(last - 2, last + 1))
        print(f"the 6th {early:.1f} s, the {last}th {late:.1f} s (medians of three): {late / early:.2f} times")


def _backbone(bundle: Path) -> Backbone:
    from abair.model.backbone import load_backbone

    return load_backbone(bundle / "backbone.safetensors")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50)
