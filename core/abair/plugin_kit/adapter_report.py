"""`abair train adapter`: train an adapter, measure it, and write charts, a table and the card."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from abair import __version__
from abair.contract import RECORD_FILE, Degradation
from abair.data.degrade import Degrader
from abair.data.photos import SAMPLE_SOURCE, CleanPhotos
from abair.data.synthesizers import load_synthesizer
from abair.deployment import read_deployment
from abair.discovery import discover
from abair.files import atomic_write, write_text
from abair.locations import factory_folder
from abair.model.backbone import fingerprint, load_backbone
from abair.model.lora import Adapter, read_adapter, read_adapter_files
from abair.plugin_kit import readme
from abair.plugin_kit.efficacy import COUNT, SIDE, Efficacy, measure
from abair.plugin_kit.placeholders import MARK
from abair.plugin_kit.tracking import Tracker, tracker
from abair.text import markdown_paragraph
from abair.training import distributed
from abair.training.inputs import read_photos
from abair.training.report import read_history
from abair.training.run import train_adapter
from abair.training.settings import ADAPTING, AdapterSettings, read_settings

LEAST_GAIN: Final = 0.3
"""dB over the bare backbone below which a registry refuses an adapter, by default."""

Log = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """The adapter's folder, its efficacy, the charts' folder, and card and tracked run, if any."""

    adapter: Path
    efficacy: Efficacy
    charts: Path
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
    log: Log,
    pairs: Sequence[Path] = (),
    layers: Sequence[Path] = (),
    settings_file: Path | None = None,
    start: Path | None = None,
    adapters: Path | None = None,
    average_with: Path | None = None,
    device: str = "cpu",
    **overrides: object,
) -> Outcome | None:
    """Train an installed degradation's adapter, then compare it with backbone and other adapters.

    Charts and table go into the run's folder and, if `track`, to the tracker. The table also goes
    into the plugin's README, where that has the markers and the adapter goes to the plugin's own
    folder. The other arguments are those of `train_adapter`; `overrides` override settings.

    Returns:
        None in all processes but that of rank zero.

    Raises:
        AbairError: as `train_adapter` and `read_settings`, or no tracker is installed.
    """
    log = distributed.on_rank_zero(log)
    plugins = discover()
    degradation = plugins.get(name)
    settings = read_settings(ADAPTING, settings_file, log=log, **overrides)
    open_tracker = tracker() if track and distributed.is_rank_zero() else None
    photos, held_out = read_photos(data)
    run = run or Path("runs") / f"adapter-{name}"
    opened: AbstractContextManager[Tracker | None] = nullcontext(None)
    if open_tracker is not None:
        params = {
            "degradation": name,
            "photos": _folder_name(photos),
            "count of photos": len(photos),
            "SHA-256 of photos": photos.digest(),
            "SHA-256 of photos held out": held_out.digest(),
            "start": str(start or "nothing"),
            "average with": str(average_with or "nothing"),
            "partner adapters": _describe_partners(settings, adapters),
            "backbone": read_deployment(factory_folder()).backbone.fingerprint if backbone is None else backbone.name,
            "abair": __version__,
            "torch": torch.__version__,
            **settings.model_dump(),
        }
        tags = {"abair.kind": "train adapter", "abair.degradation": name}
        opened = open_tracker(
            f"train adapter {name}", params=params, tags=tags, warn=lambda text: log(f"warning: {text}")
        )
    with opened as tracked:

        def track_metrics(step: int, metrics: dict[str, float]) -> None:
            if tracked is not None:
                tracked.metrics({f"train/{key}": value for key, value in metrics.items()}, step)

        folder = train_adapter(
            name=name,
            plugins=plugins,
            photos=photos,
            held_out=held_out,
            settings=settings,
            pairs=pairs,
            layers=layers,
            backbone=backbone,
            out=out,
            start=start,
            adapters=adapters,
            average_with=average_with,
            run=run,
            device=device,
            on_validation=track_metrics,
            log=log,
        )
        if not distributed.is_rank_zero():
            return None
        log(f"measuring {COUNT} held-out samples with every adapter")
        efficacy = evaluate_adapter(degradation, folder, held_out, backbone)
        if efficacy.gain < LEAST_GAIN:
            log(
                f"warning: {efficacy.gain:+.2f} dB over the bare backbone; a registry asks for {LEAST_GAIN}: train "
                "longer"
            )
        text = _summary(degradation, efficacy, folder, held_out)
        write_text(run / "report.md", f"# Adapter `{name}`\n\n{text}\n")
        if tracked is not None:
            _track_efficacy(tracked, name, efficacy, text)
        _write_charts(run, name, efficacy, tracked, log)
        card = None if out is not None else _write_card(degradation, text, photos, log)
        return Outcome(folder, efficacy, run, card, tracked.run_id if tracked else None)


def evaluate_adapter(
    degradation: Degradation, folder: Path, held_out: CleanPhotos, backbone: Path | None = None
) -> Efficacy:
    """Measure the adapter in `folder` on samples of held-out photos.

    It is compared with the bare backbone, and with the factory deployment's adapters if `backbone`
    is that deployment's, which is the default.

    Raises:
        AdapterError: the adapter does not fit the backbone.
        PluginError: the synthesiser cannot be imported.
    """
    factory = read_deployment(factory_folder())
    network = load_backbone(backbone or factory.find(factory.backbone.file))
    network_fingerprint = fingerprint(network)
    own = read_adapter(folder, network, network_fingerprint, degradation.name)
    others: dict[str, Adapter] = {}
    if network_fingerprint == factory.backbone.fingerprint:
        for entry in factory.adapters:
            if entry.degradation != degradation.name:
                files = factory.find(entry.config), factory.find(entry.weights)
                others[entry.degradation] = read_adapter_files(*files, network, network_fingerprint, entry.degradation)
    degrader = Degrader({degradation.name: load_synthesizer(degradation)})
    return measure(network, own, others, degrader, held_out)


def _describe_partners(settings: AdapterSettings, adapters: Path | None) -> str:
    if not settings.mix_with or not settings.blended:
        return "none"
    return str(adapters or "the plugins' own")


def _folder_name(photos: CleanPhotos) -> str:
    """Return the name of the photos' folder without the path to it, which is this machine's."""
    return Path(photos.source).name


def _summary(degradation: Degradation, efficacy: Efficacy, folder: Path, held_out: CleanPhotos) -> str:
    """Return how the adapter was measured, and the table, in Markdown."""
    photos = f"{_folder_name(held_out)}, {len(held_out)} photos, SHA-256 {held_out.digest()[:12]}"
    options = "".join(f" {option} ..." for option in _adapter_options(folder))
    how = (
        f"Means of {efficacy.count} held-out samples of {SIDE} x {SIDE} pixels, made from photos ({photos}) by this "
        f"plugin's synthesiser, over its whole range. By `abair train adapter {degradation.name}{options}` (settings "
        f"in `adapters/{folder.name}/training.toml`, to be given with `--settings`)."
    )
    return f"{markdown_paragraph(how)}\n\n{efficacy.markdown()}"


def _adapter_options(folder: Path) -> list[str]:
    """Return the options that named other adapters for the one in `folder`, by its record."""
    record = tomllib.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))["run"]
    return [f"--{key.replace('_', '-')}" for key in ("start", "average_with") if key in record]


def _track_efficacy(tracked: Tracker, name: str, efficacy: Efficacy, text: str) -> None:
    tracked.describe(f"## Adapter `{name}`: {efficacy.gain:+.2f} dB over the bare backbone\n\n{text}")
    means = {f"held out/{way.removeprefix('the ')}": decibels for way, (decibels, _) in efficacy.means.items()}
    tracked.metrics({"held out/gain": efficacy.gain} | means)


def _write_charts(run: Path, name: str, efficacy: Efficacy, tracked: Tracker | None, log: Log) -> None:
    try:
        from abair.plugin_kit.charts import before_after, training_curves
    except ImportError:
        log("warning: no charts, because matplotlib is missing; pip install 'abair[train]'")
        return
    charts = {"before-after.png": before_after(efficacy), "curves.png": training_curves(name, read_history(run))}
    for file, chart in charts.items():
        with atomic_write(run / file) as aside:
            chart.savefig(aside, format="png", dpi=110)
        if tracked is not None:
            tracked.figure(chart, f"figures/{file}")


def _write_card(degradation: Degradation, text: str, photos: CleanPhotos, log: Log) -> Path | None:
    """Write results and training data into the plugin's README; None if it has no markers."""
    card = readme.find_card(degradation.adapters)
    if card is None:
        return None
    terms = "public domain, CC0, CC BY and similar, by photo"
    if photos.source != SAMPLE_SOURCE:
        terms = readme.terms_of(card, photos.digest()[:12]) or f"{MARK}: say what they allow"
    rows = ["| set | photos | SHA-256 of their pixels | terms |", "|---|---|---|---|"]
    rows.append(f"| {_folder_name(photos)} | {len(photos)} | {photos.digest()[:12]} | {terms} |")
    readme.replace_section(card, readme.DATA, "\n".join(rows))  # an author's own table has no markers
    if not readme.replace_section(card, readme.RESULTS, text):
        first, last = readme.section_markers(readme.RESULTS)
        log(f"warning: {card}: the results were not written: found no {first} and {last}; expected both")
        return None
    return card
