"""Measure how well damage of kinds that were never learnt is told from known photos.

Run: python benchmarks/strangers/unknown.py --clean DIR [NAME...]

Known are the held-out samples of the factory's replay, one degradation or two, and undamaged
scenes of the folder. Unknown are the same scenes with a stranger of `damage/`. Printed for each
stranger: the area under the receiver operating characteristic (AUROC), and the share that is taken
for unknown; in the end the same for all together, and the share of known ones.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from kinds import load, read_arguments

from abair.continual.collect import build_held_out
from abair.continual.known import familiarity_of
from abair.continual.replay import HeldOut, Replay
from abair.data.degrade import Degrader
from abair.data.photos import load_clean_photos
from abair.deployment import read_deployment
from abair.evaluation.field import area_above
from abair.labels import CLEAN, UNKNOWN
from abair.model.backbone import load_backbone


def main(clean: Path | None, names: list[str], scenes: int) -> None:
    """Print one line of a Markdown table for each stranger, and two for all."""
    deployment = read_deployment("factory")
    backbone = load_backbone(deployment.find(deployment.backbone.file))
    if deployment.replay is None:
        sys.exit(f"deployment {deployment.name}: found no replay; expected one that says what is known")
    replay = Replay.load(deployment.find(deployment.replay))
    known = familiarity_of([replay])
    _, photos = load_clean_photos(clean)
    degrader = Degrader({name: load(name) for name in names})

    def said(samples: Sequence[HeldOut]) -> list[float]:
        features = torch.stack([sample.features for sample in samples]).float()
        return [float(one) for one in known.unknown(features)]

    def unknown(label: str) -> list[float]:
        samples = build_held_out(backbone, degrader, photos, [(label,)], scenes, seed=0)
        return said(samples)

    usual = [*said(replay.held_out), *unknown(CLEAN)]
    print("| stranger | AUROC | taken for unknown |")
    print("|---|---:|---:|")
    everything: list[float] = []
    for name in names:
        strange = unknown(name)
        everything += strange
        print(_line(name, strange, usual), flush=True)
    print(_line("all", everything, usual))
    print(f"| known | - | {_share(usual):.2f} |")


def _line(name: str, strange: list[float], usual: list[float]) -> str:
    return f"| {name} | {area_above(strange, usual):.2f} | {_share(strange):.2f} |"


def _share(said: list[float]) -> float:
    return sum(one > UNKNOWN for one in said) / len(said)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*read_arguments("Measure how well unknown damage is told from known photos."))
