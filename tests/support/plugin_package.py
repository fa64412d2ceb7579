"""Makes plugin packages where a test says: real ones with a `.dist-info` folder; nothing is installed.

All are called `frost` (distribution `abair-frost`, module `abair_frost`) unless a test says otherwise, so a process
that imports one of them is found out.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import torch
from safetensors.torch import save_file

from abair.contract import CONFIG_FILE, WEIGHTS_FILE
from abair.model.backbone import SIZES, Backbone, fingerprint, save_backbone
from abair.model.lora import PREFIX, adaptable_layers, backbone_reference
from abair_registry.plugins.admission import Limits

HEAD = """
import os, signal, subprocess, sys, time
from pathlib import Path
from abair import Card, Degradation, hookimpl

HERE = Path(__file__).parent

def declare(**changes):
    card = Card(authors=("A",), licence="MIT", training_data="none", figures={"tiny/psnr": 31.25, "tiny/bare": 29.5})
    given = dict(name="frost", title="Frost", synthesizer="abair_frost.synthesis:degrade",
                 adapters=HERE / "adapters", card=card)
    return Degradation(**(given | changes))
"""
HOOK = """
@hookimpl
def abair_degradations():
    return [declare()]
"""
SYNTHESIS = """
import os, signal, subprocess, sys, time
from pathlib import Path
import torch

def degrade(clean, generator):
    grain = torch.rand(clean.shape, generator=generator)
    return clean * 0.7 + grain * 0.25 + 0.01
"""
GOOD = HEAD + HOOK
CHANGED_LATER = (
    GOOD
    + "\nlater = HERE.parent / 'frost-later.py'\n"
    + "if later.is_file(): exec(compile(later.read_text(), 'later', 'exec'))\n"
)
"""A good plugin whose code does what a file beside its package says, as a changed dependency would."""


def hook(body: str) -> str:
    """A plugin whose hook does `body`."""
    return f"{HEAD}\n@hookimpl\ndef abair_degradations():\n    {body}\n"


def declaring(changes: str) -> str:
    """A plugin that declares the good degradation with these changes."""
    return hook(f"return [declare({changes})]")


def degrading(body: str, before: str = "") -> str:
    """A synthesiser that calls the good one for `damaged` and then does `body`."""
    good = SYNTHESIS.replace("def degrade", "def good")
    return f"{good}\n{before}\n\ndef degrade(clean, generator):\n    damaged = good(clean, generator)\n    {body}\n"


@dataclass(frozen=True)
class Tiny:
    """An untrained `tiny` backbone in a file, and the two files of an adapter for it."""

    path: Path
    config: dict[str, object]
    adapter: Path

    @classmethod
    def make(cls, folder: Path) -> Tiny:
        """Write them."""
        torch.manual_seed(0)
        backbone = Backbone(SIZES["tiny"])
        save_backbone(backbone, folder / "backbone.safetensors")
        tensors = {}
        for name, layer in adaptable_layers(backbone).items():
            shape = layer.weight.shape
            tensors[f"{PREFIX}{name}.lora_A.weight"] = torch.rand((4, *shape[1:]))
            tensors[f"{PREFIX}{name}.lora_B.weight"] = torch.rand((shape[0], 4, *(1 for _ in shape[2:])))
        save_file(tensors, folder / WEIGHTS_FILE)
        reference = backbone_reference("tiny", fingerprint(backbone))
        config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "bias": "none", "base_model_name_or_path": reference}
        return cls(folder / "backbone.safetensors", config, folder / WEIGHTS_FILE)

    @classmethod
    def read(cls, backbone: Path, folder: Path) -> Tiny:
        """A backbone's file and the folder of an adapter for it."""
        return cls(backbone, json.loads((folder / CONFIG_FILE).read_text()), folder / WEIGHTS_FILE)


@dataclass(frozen=True)
class Plugin:
    """What a plugin is made of; `says` is a part of the line that refuses it."""

    says: str = ""
    module: str = GOOD
    synthesis: str = SYNTHESIS
    change: Callable[[Path], object] = field(default=lambda folder: None)
    """Called with the package's folder before the RECORD is written."""
    taken: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    groups: tuple[str, ...] = ()
    """Further groups of entry points that its distribution is in."""
    beside: str = ""
    """Name of a further file, next to the package's folder."""

    def make(self, root: Path, tiny: Tiny, name: str = "frost", distribution: str = "abair-frost") -> Path:
        """Write the package and its metadata into `root`, as an installer does; returns the package's folder."""
        folder = root / f"abair_{name}"
        adapter = folder / "adapters" / "tiny"
        adapter.mkdir(parents=True)
        (folder / "__init__.py").write_text(self.module.replace("frost", name))
        (folder / "synthesis.py").write_text(self.synthesis)
        (adapter / CONFIG_FILE).write_text(json.dumps(tiny.config))
        (adapter / WEIGHTS_FILE).write_bytes(tiny.adapter.read_bytes())
        self.change(folder)
        if self.beside:
            (root / self.beside).touch()
        files = [folder, *filter(Path.is_file, [root / self.beside])]
        write_metadata(root, distribution, {name: f"abair_{name}"}, files, self.groups)
        return folder


def write_metadata(
    root: Path, distribution: str, points: Mapping[str, str], parts: list[Path], groups: tuple[str, ...] = ()
) -> Path:
    """Write a `.dist-info` folder whose RECORD lists the files in `parts` and in the folders there."""
    info = root / f"{distribution.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    lines = "".join(f"{name} = {value}\n" for name, value in points.items())
    (info / "entry_points.txt").write_text("\n".join(f"[{group}]\n{lines}" for group in ("abair", *groups)))
    (info / "INSTALLER").write_text("test\n")
    files = [path for part in [*parts, info] for path in [part, *sorted(part.rglob("*"))] if path.is_file()]
    rows = []
    for path in files:
        digest = urlsafe_b64encode(sha256(path.read_bytes()).digest()).decode().rstrip("=")
        rows.append(f"{path.relative_to(root).as_posix()},sha256={digest},{path.stat().st_size}")
    record = info.relative_to(root) / "RECORD"
    (root / record).write_text("\n".join([*rows, f"{record.as_posix()},,", ""]))
    return info
