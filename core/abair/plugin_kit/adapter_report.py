"""Trains an adapter and shows what it is worth: curves, a table, pictures, the card's figures, a tracked run."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from abair import __version__
from abair.contract import RECORD_FILE, Degradation
from abair.data.degrade import Degrader
from abair.data.photos import SAMPLE_SOURCE
from abair.data.synthesizers import load_synthesizer
from abair.deployment import FACTORY, read_deployment
from abair.discovery import discover
from abair.files import atomic_write, write_text
from abair.model.backbone import fingerprint, load_backbone
from abair.model.lora import Adapter, read_adapter, read_adapter_files
from abair.plugin_kit import readme
from abair.plugin_kit.efficacy import COUNT, SIDE, Efficacy, measure
from abair.plugin_kit.tracking import Tracker, tracker
from abair.text import markdown_table
from abair.training import distributed
from abair.training.loop import HISTORY
from abair.training.run import photos_of, train_adapter
from abair.training.settings import ADAPTING, Settings, read_settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

History = list[tuple[int, dict[str, float]]]
WORTH_IT: Final = 0.3
"""dB over the bare backbone below which a registry refuses an adapter, unless it was told otherwise."""


@dataclass(frozen=True)
class Outcome:
    """The adapter's folder, what it is worth, the folder with the evidence, and the card that was filled, if any."""

    adapter: Path
    efficacy: Efficacy
    evidence: Path
    card: Path | None
    run_id: str | None


def train(
    *,
    name: str,
    data: Path | None,
    run: Path | None,
    backbone: Path | None,
    out: Path | None,
    track: bool,
    say: Callable[[str], None],
    **options: Any,
) -> Outcome | None:
    """Train the adapter of an installed degradation, then measure it against the bare backbone and other adapters.

    Curves, pictures and the table go into the run's folder, to the tracker if `track`, and the table into the plugin's
    README, where that has the marks and the adapter goes to the plugin's own folder. None in all processes but the
    first.

    Raises:
        AbairError: as `train_adapter`; or tracking was asked for and cannot be had.
    """
    degradation = discover().get(name)
    run = run or Path("runs") / f"adapter-{name}"
    opened: AbstractContextManager[Tracker | None] = nullcontext(None)
    if track and distributed.is_first():
        photos, held_out = photos_of(data)
        file = options.get("settings_file")
        settings = read_settings(ADAPTING, file, **{k: v for k, v in options.items() if k in Settings.model_fields})
        opened = tracker()(
            f"train adapter {name}",
            params={
                "degradation": name, "photos": _called(photos.source), "count of photos": len(photos),
                "SHA-256 of photos": photos.digest(), "SHA-256 of photos held out": held_out.digest(),
                "start": str(options.get("start") or "nothing"),
                "mean with": str(options.get("mean_with") or "nothing"),
                "adapters beside": str(options.get("adapters") or "the plugins' own")
                if settings.beside and settings.blended
                else "none",
                "backbone": read_deployment(FACTORY).backbone.fingerprint if backbone is None else backbone.name,
                "abair": __version__, "torch": torch.__version__, **settings.model_dump(),
            },
            tags={"abair.kind": "train adapter", "abair.degradation": name},
        )  # fmt: skip
    with opened as tracked:

        def watch(step: int, figures: dict[str, float]) -> None:
            if tracked is not None:
                tracked.metrics({f"train/{key}": value for key, value in figures.items()}, step)

        folder = train_adapter(
            name=name, data=data, run=run, backbone=backbone, out=out, watch=watch, say=say, **options
        )
        if not distributed.is_first():
            return None
        say(f"measuring {COUNT} held-out samples with every adapter")
        efficacy = judge(degradation, folder, backbone, data)
        if efficacy.gain < WORTH_IT:
            say(
                f"warning: {efficacy.gain:+.2f} dB over the bare backbone; a registry asks for {WORTH_IT}: train longer"
            )
        text = _summary(degradation, efficacy, folder, data)
        _write_evidence(run, name, _history(run), efficacy, text, tracked, say)
        filled = None if out is not None else _fill(degradation, text, data, say)
        return Outcome(folder, efficacy, run, filled, tracked.run_id if tracked else None)


def judge(degradation: Degradation, folder: Path, backbone: Path | None, data: Path | None) -> Efficacy:
    """What the adapter in `folder` is worth, against those of the factory's deployment where they fit the backbone.

    Raises:
        AdapterError: it does not fit the backbone.
        TrainingError, PluginError: no photos, or no synthesiser.
    """
    factory = read_deployment(FACTORY)
    network = load_backbone(backbone or factory.find(factory.backbone.file))
    mark = fingerprint(network)
    own = read_adapter(folder, network, mark, degradation.name)
    others: dict[str, Adapter] = {}
    if mark == factory.backbone.fingerprint:
        for entry in factory.adapters:
            if entry.degradation != degradation.name:
                files = factory.find(entry.config), factory.find(entry.weights)
                others[entry.degradation] = read_adapter_files(*files, network, mark, entry.degradation)
    degrader = Degrader({degradation.name: load_synthesizer(degradation)})
    return measure(network, own, others, degrader, photos_of(data)[1])


def _summary(degradation: Degradation, efficacy: Efficacy, folder: Path, data: Path | None) -> str:
    held_out = photos_of(data)[1]
    photos = f"{_called(held_out.source)}, {len(held_out)} photos, SHA-256 {held_out.digest()[:12]}"
    lines = [
        f"Means of {efficacy.count} held-out samples of {SIDE} x {SIDE} pixels, made from photos ({photos}) by this "
        f"plugin's synthesiser, over its whole range. By `abair train adapter {degradation.name}"
        f"{''.join(f' {option} ...' for option in _began(folder))}` (settings in "
        f"`adapters/{folder.name}/training.toml`, to be given with `--settings`).",
        "",
        efficacy.markdown(),
    ]
    return "\n".join(lines)


def _began(folder: Path) -> list[str]:
    """The options with other adapters that this one was made with, by its record."""
    record = tomllib.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))["run"]
    return [f"--{key.replace('_', '-')}" for key in ("start", "mean_with") if key in record]


def _called(source: str) -> str:
    """Where photos are from, without the folders of this machine."""
    return Path(source).name


def _history(run: Path) -> History:
    """All validations of the run, of those before it was resumed, too."""
    told = [json.loads(line) for line in (run / HISTORY).read_text(encoding="utf-8").splitlines()]
    return [(int(one["step"]), {k: v for k, v in one.items() if k not in ("step", "seconds")}) for one in told]


def _write_evidence(
    run: Path,
    name: str,
    history: History,
    efficacy: Efficacy,
    text: str,
    tracked: Tracker | None,
    say: Callable[[str], None],
) -> None:
    write_text(run / "report.md", f"# Adapter `{name}`\n\n{text}\n")
    if tracked is not None:
        verdict = f"{efficacy.gain:+.2f} dB over the bare backbone"
        tracked.describe(f"## Adapter `{name}`: {verdict}\n\n{text}")
        tracked.metrics({"held out/gain": efficacy.gain} | {
            f"held out/{way.removeprefix('the ')}": value for way, (value, _) in efficacy.means.items()
        })  # fmt: skip
    try:
        from abair.plugin_kit.charts import before_after, curves
    except ImportError:
        say("warning: no pictures, because matplotlib is missing; pip install 'abair[train]'")
        return
    pictures = {"before-after.png": before_after(efficacy), "curves.png": curves(name, history)}
    for file, figure in pictures.items():
        with atomic_write(run / file) as aside:
            aside.write_bytes(_png(figure))
        if tracked is not None:
            tracked.figure(figure, f"figures/{file}")


def _png(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _fill(degradation: Degradation, text: str, data: Path | None, say: Callable[[str], None]) -> Path | None:
    card = readme.card_of(degradation.adapters)
    if card is None:
        return None
    photos = photos_of(data)[0]
    terms = "say here what they allow" if photos.source != SAMPLE_SOURCE else "public domain, CC0 and similar, by photo"
    row = [_called(photos.source), str(len(photos)), photos.digest()[:12], terms]
    table = markdown_table(["set", "photos", "SHA-256 of their pixels", "terms"], [row], left=range(4))
    readme.fill(card, readme.DATA, table)  # who has a table of their own has no marks
    if not readme.fill(card, readme.FIGURES, text):
        begin, end = readme.marks(readme.FIGURES)
        say(f"warning: {card}: its figures were not filled: found no {begin} and {end}; expected both")
        return None
    return card
