"""Measure how well the estimator learns to recognise strangers: degradations it never met.

Run: python benchmarks/strangers/recognise.py --clean DIR [NAME...]

Each stranger of `damage/` is added to the factory deployment alone, as `abair-registry add` does
it: features of damaged scenes, then a refit. No adapter is needed. Printed for each: the share of
held-out scenes that get its label, what the others were taken for, and the share of known held-out
samples, undamaged or with a known degradation, that it wins.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path

import torch
from kinds import load, read_arguments

from abair.continual.collect import build_held_out, compute_features
from abair.continual.refit import refit
from abair.continual.replay import Replay
from abair.data.degrade import Degrader, Recipe
from abair.data.photos import load_clean_photos
from abair.deployment import read_deployment
from abair.labels import CLEAN
from abair.model.backbone import fingerprint, load_backbone
from abair.model.estimator import load_estimator
from abair_registry.settings import ChallengerConfig


def main(clean: Path | None, names: list[str], held_out: int) -> None:
    """Print one line of a Markdown table for each stranger."""
    deployment = read_deployment("factory")
    backbone = load_backbone(deployment.find(deployment.backbone.file))
    labels = [*deployment.labels]
    champion = load_estimator(deployment.find(deployment.estimator), labels)
    if deployment.replay is None:
        sys.exit(f"deployment {deployment.name}: found no replay; expected one to fit to")
    replay = Replay.load(deployment.find(deployment.replay))
    known = torch.stack([sample.features for sample in replay.held_out if len(sample.labels) == 1])
    train_on, judged = load_clean_photos(clean)
    print("| stranger | recall | taken for | wins of known ones | CPU seconds: scenes, refit |")
    print("|---|---:|---|---:|---:|")
    for name in names:
        began = time.process_time()
        degrader = Degrader({name: load(name)}, Recipe(cutmix=0.25, mixture=0.0, clean=0.0, gamma=0.35))
        scenes = ChallengerConfig().training_scenes
        new = compute_features(backbone, degrader, train_on, scenes, seed=0, undamaged=scenes // 2)
        looked = time.process_time()
        everything = (*labels[:-1], name, CLEAN)
        estimator = refit(champion, fingerprint(backbone), everything, [replay.features], [new])
        fitted = time.process_time()
        samples = build_held_out(backbone, degrader, judged, [(name,)], held_out, seed=0)
        with torch.inference_mode():
            features = torch.stack([sample.features for sample in samples])
            answers = Counter(everything[place] for place in estimator(features).argmax(1))
            won = sum(everything[place] == name for place in estimator(known.float()).argmax(1)) / len(known)
        others = ", ".join(f"{other} {count}" for other, count in answers.most_common() if other != name)
        print(
            f"| {name} | {answers[name] / held_out:.2f} | {others} | {won:.3f} "
            f"| {looked - began:.0f}, {fitted - looked:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*read_arguments("Measure how well strangers are recognised."))
