"""Make each stranger of `damage/` a plugin, add it to a fresh registry, and measure what it does.

Run: python benchmarks/strangers/run.py --data PHOTOS [--clean DIR]... [--minutes 10] [--only NAME]

Each stranger goes the way of a team from outside, by the public commands: a package from the
template, an adapter of some minutes, `plugin check`, and `abair-registry add` in a home of its own
for each folder of clean photos. The packages are installed with `pip install --target`, so nothing
is left in the environment. Then whole photos that nobody trained on are damaged and restored.

A stranger that was finished is not done again, and a training that was stopped goes on. What was
found is in each stranger's `result.json`, and on a page in Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from abair import Restorer, images
from abair.data.degrade import to_8_bit
from abair.data.photos import find_photos
from abair.data.synthesizers import load_synthesizer
from abair.deployment import read_deployment
from abair.discovery import discover
from abair.errors import AbairError
from abair.files import write_text
from abair.images.pixels import reduce_to_8_bit
from abair.metrics import psnr

sys.path.insert(0, str(Path(__file__).parent))
from kinds import DAMAGE, load
from verdicts_page import SAMPLES, page

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]
    Degrade = Callable[[torch.Tensor, torch.Generator], torch.Tensor]

BAD = frozenset({"harmful", "look_alike", "useless"})
"""Strangers that are to be refused."""
UNSEEN = 0.005
"""Weight of a stranger below which a photo counts as restored as before."""
LEFT_OPEN = re.compile(r"TODO\(plugin\).*")
NOT_INHERITED = frozenset({"ABAIR_CLEAN_DIR", "ABAIR_REGISTRY_URL", "ABAIR_SHARED_URL", "MLFLOW_TRACKING_URI"})
"""Variables that would lead out of a stranger's own home."""


def main(given: argparse.Namespace) -> None:
    """Run what is not finished, and write the page of all that is."""
    photos = list(read_photos(given.data, given.photos))
    known = OldLabels(photos[: given.old_photos])
    clean = [*given.clean, None] if given.sample_photos or not given.clean else given.clean
    for name in given.only or sorted(path.stem for path in DAMAGE.glob("*.py")):
        folder = given.out / name
        if not (folder / "result.json").exists() or given.again:
            print(f"{name}: {folder}", file=sys.stderr, flush=True)
            found = run_stranger(name, folder, clean, given.minutes, photos, known)
            write_text(folder / "result.json", json.dumps(found, indent=2) + "\n")
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(given.out.glob("*/result.json"))]
    given.page.parent.mkdir(parents=True, exist_ok=True)
    write_text(given.page, page(results))
    print(f"written: {given.page}", file=sys.stderr)


def run_stranger(
    name: str, folder: Path, clean: Sequence[Path | None], minutes: float, photos: Sequence[Pixels], known: OldLabels
) -> dict[str, Any]:
    """Make, train, check, add and measure one stranger; return what was found as JSON values."""
    plugin = name.replace("_", "-")
    package, site = folder / f"abair-{plugin}", folder / "site"
    folder.mkdir(parents=True, exist_ok=True)
    commands = Commands(folder, site)
    if not package.exists():
        commands.run("new", "abair", "plugin", "new", plugin, "--dir", str(folder), "--author", "A stranger")
        shutil.rmtree(next(package.glob("src/*/adapters")))  # that of the template's own damage
    complete(package, (DAMAGE / f"{name}.py").read_text(encoding="utf-8"))
    commands.install(package)
    adapters = next(package.glob("src/*")) / "adapters"
    training = ["abair", "train", "adapter", plugin, "--out", str(adapters), "--checkpoints", str(folder / "training")]
    first = clean[0]
    commands.run("train", *training, "--time-budget", f"{max(1, round(60 * minutes))}s", clean=first)
    complete(package)
    commands.install(package)
    checked = commands.run("check", "abair", "plugin", "check", str(package), "--json", clean=first, may_fail=True)
    additions = []
    live: Path | None = None
    for place, photos_of in enumerate(clean):
        home = folder / f"home-{place}"
        shutil.rmtree(home, ignore_errors=True)  # of a run that was stopped
        added = commands.run(
            f"add-{place}", "abair_registry", "add", plugin, "--json", clean=photos_of, home=home, may_fail=True
        )
        outcome = added.answer.get("outcome", "failed")
        live = live or (home if outcome == "live" else None)
        additions.append(
            {
                "clean": photos_of.name if photos_of else SAMPLES,
                "outcome": outcome,
                "route": added.answer.get("route"),
                "gates": added.answer.get("gates", []),
                "said": added.said[-2000:] if outcome != "live" else "",
                "seconds": added.seconds,
                "cpu_seconds": added.cpu_seconds,
            }
        )
    return {
        "name": plugin,
        "expected": "refused" if name in BAD else "live",
        "training": read_training(adapters),
        "check": {"passed": checked.code == 0, "said": checked.said[-2000:] if checked.code else ""},
        "additions": additions,
        "figures": measure(plugin, load(name), live, photos, known) if live else None,
    }


def read_training(adapters: Path) -> dict[str, Any]:
    """Return minutes and steps of an adapter's training, however often it was taken up again."""
    record = tomllib.loads(next(adapters.rglob("training.toml")).read_text(encoding="utf-8"))["run"]
    return {"minutes": record["minutes"], "steps": record["steps"]}


class Done:
    """A command that ended: its answer in JSON, what it said on stderr, and what it took."""

    def __init__(self, code: int, out: str, said: str, seconds: float, cpu_seconds: float) -> None:
        self.code, self.said = code, said
        self.seconds, self.cpu_seconds = round(seconds, 1), round(cpu_seconds, 1)
        lines = [line for line in out.splitlines() if line.startswith("{")]
        self.answer: dict[str, Any] = json.loads(lines[-1]) if lines else {}


class Commands:
    """Runs the public commands with a stranger's packages on the path; what they say is kept."""

    def __init__(self, folder: Path, site: Path) -> None:
        self.folder, self.site = folder, site

    def install(self, package: Path) -> None:
        """Install a package into the stranger's own folder."""
        options = ["--quiet", "--no-deps", "--no-build-isolation", "--upgrade", "--target", str(self.site)]
        self.run("install", "pip", "install", *options, str(package))

    def run(
        self, step: str, *command: str, clean: Path | None = None, home: Path | None = None, may_fail: bool = False
    ) -> Done:
        """Run a module as a command; leave the program if it fails and may not."""
        environment = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
        environment["ABAIR_HOME"] = str(home or self.folder / "no-home")
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(self.site)]))
        if clean is not None:
            environment["ABAIR_CLEAN_DIR"] = str(clean)
        began, busy = time.monotonic(), cpu_of_children()
        done = subprocess.run(
            [sys.executable, "-m", *command], env=environment, capture_output=True, text=True, check=False
        )
        (self.folder / f"{step}.log").write_text(done.stdout + done.stderr, encoding="utf-8")
        if done.returncode and not may_fail:
            sys.exit(f"{' '.join(command)}: ended with {done.returncode}:\n{done.stderr[-2000:]}")
        return Done(done.returncode, done.stdout, done.stderr, time.monotonic() - began, cpu_of_children() - busy)


def cpu_of_children() -> float:
    """Return the processor seconds of all processes that were started here and ended."""
    times = os.times()
    return times.children_user + times.children_system


def complete(package: Path, synthesis: str | None = None) -> None:
    """Fill in what the template leaves to an author, and write the damage if it is given."""
    (module,) = (path for path in (package / "src").iterdir() if path.is_dir())
    if synthesis is not None:
        (module / "synthesis.py").write_text(synthesis, encoding="utf-8")
    for path in (package / "README.md", module / "__init__.py"):
        text = path.read_text(encoding="utf-8")
        end = '",' if path.suffix == ".py" else ""
        path.write_text(LEFT_OPEN.sub(f"see benchmarks/strangers of ABAIR{end}", text), encoding="utf-8")


def read_photos(folder: Path, count: int) -> Iterator[Pixels]:
    """Read photos that are evenly spread over a folder, as 8-bit pixels (H, W, 3)."""
    paths = find_photos(folder)
    for path in (paths[place * len(paths) // min(count, len(paths))] for place in range(min(count, len(paths)))):
        pixels = images.read(path).pixels
        yield pixels if pixels.dtype == "uint8" else reduce_to_8_bit(pixels)


def damaged(degrade: Degrade, clean: Pixels, seed: int) -> Pixels:
    """Damage a photo (H, W, 3) as its file would be."""
    image = torch.from_numpy(clean.copy()).permute(2, 0, 1).float() / 255
    worse = to_8_bit(degrade(image, torch.Generator().manual_seed(seed)))
    return (worse * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


class OldLabels:
    """Photos with the damage that is live already, as the deployment before restores them."""

    def __init__(self, photos: Sequence[Pixels]) -> None:
        self.before = Restorer.load(os.environ.get("ABAIR_FACTORY") or "factory")
        self.samples: list[tuple[str, Pixels, Pixels, float]] = []
        plugins = discover()
        for label in self.before.labels:
            try:
                degrade = load_synthesizer(plugins.get(label)) if label != "clean" else lambda image, _: image
            except AbairError:
                continue  # its plugin is not installed: the gates judge it by kept samples
            for seed, clean in enumerate(photos):
                worse = damaged(degrade, clean, seed)
                self.samples.append((label, worse, clean, score(self.before(worse).image, clean)))

    def losses(self, after: Restorer, newcomer: str) -> dict[str, float]:
        """Return by label how many dB a deployment loses on the mean."""
        lost: dict[str, list[float]] = {}
        for label, worse, clean, was in self.samples:
            touched = after.estimate(worse)[newcomer] >= UNSEEN
            lost.setdefault(label, []).append(was - score(after(worse).image, clean) if touched else 0.0)
        return {label: round(sum(found) / len(found), 3) for label, found in lost.items()}


def score(restored: Pixels, clean: Pixels) -> float:
    """Return the PSNR in dB, at most 50: beyond that nobody sees a difference."""
    return min(50.0, psnr(restored / 255, clean / 255))


def measure(plugin: str, degrade: Degrade, home: Path, photos: Sequence[Pixels], known: OldLabels) -> dict[str, Any]:
    """Restore damaged photos before and after, and by the stranger's own adapter alone."""
    after = Restorer.load(home)
    rows: list[tuple[float, ...]] = []
    tops = []
    for seed, clean in enumerate(photos):
        worse = damaged(degrade, clean, 1000 + seed)
        weights = after.estimate(worse)
        tops.append(max(weights, key=weights.__getitem__))
        pictures = (worse, known.before(worse).image, after(worse).image, after(worse, weights={plugin: 1.0}).image)
        rows.append(tuple(score(picture, clean) for picture in pictures))
    means = (round(sum(column) / len(rows), 2) for column in zip(*rows, strict=True))
    return {
        "photos": len(rows),
        "recognised": tops.count(plugin),
        "taken for": {top: tops.count(top) for top in sorted(set(tops)) if top != plugin},
        **dict(zip(("damaged", "before", "after", "own adapter"), means, strict=True)),
        "losses": known.losses(after, plugin),
        "backbone": read_deployment(home).backbone.size,
    }


if __name__ == "__main__":
    everyone = sorted(path.stem for path in DAMAGE.glob("*.py"))
    parser = argparse.ArgumentParser(description="Make strangers plugins, add them, and measure them.")
    parser.add_argument("--data", type=Path, required=True, help="folder of photos to damage and restore at the end")
    parser.add_argument("--clean", type=Path, action="append", default=[], help="folder of clean photos to add with; "
                        "may be given several times; the first is trained on, too")  # fmt: skip
    parser.add_argument("--sample-photos", action="store_true", help="add with the photos of scikit-image, too, as "
                        "without any folder")  # fmt: skip
    parser.add_argument("--minutes", type=float, default=10, help="training of each adapter")
    parser.add_argument("--only", action="append", choices=everyone, help="one stranger; may be given several times")
    parser.add_argument("--photos", type=int, default=24, help="photos to restore at the end, spread over the folder")
    parser.add_argument("--old-photos", type=int, default=4, help="of these, photos that get each old damage, too")
    parser.add_argument("--out", type=Path, default=Path("runs/strangers"), help="folder of packages, homes, results")
    parser.add_argument("--page", type=Path, default=Path("docs/results/strangers.md"), help="the page to write")
    parser.add_argument("--again", action="store_true", help="do those again that are finished")
    try:
        main(parser.parse_args())
    except AbairError as error:
        sys.exit(str(error))
