"""Trains an adapter and shows what it is worth: curves, a table, pictures, the card's figures, a tracked run."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from abair import __version__
from abair.backbone import fingerprint, load_backbone
from abair.contract import Degradation
from abair.deployment import FACTORY, read_deployment
from abair.discovery import discover, load_synthesizer
from abair.lora import Adapter, read_adapter, read_adapter_files
from abair.plugin_kit import card
from abair.plugin_kit.efficacy import COUNT, SIDE, Efficacy, measure
from abair.plugin_kit.tracking import Tracker, tracker
from abair.synthesis import Degrader
from abair.training import processes
from abair.training.commands import photos_of, train_adapter
from abair.wholefile import write_text, written_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

History = list[tuple[int, dict[str, float]]]


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
    if track and processes.is_first():
        given = {key: value for key, value in options.items() if value is not None}
        opened = tracker()(
            f"train adapter {name}",
            params={"degradation": name, "photos": data.name if data else "samples", "abair": __version__, **given},
            tags={"abair.kind": "train adapter", "abair.degradation": name},
        )
    history: History = []
    with opened as tracked:

        def watch(step: int, figures: dict[str, float]) -> None:
            history.append((step, figures))
            if tracked is not None:
                tracked.metrics({f"train/{key}": value for key, value in figures.items()}, step)

        folder = train_adapter(name=name, data=data, run=run, backbone=backbone, out=out, watch=watch, **options)
        if not processes.is_first():
            return None
        say(f"measuring {COUNT} held-out samples with every adapter")
        efficacy = judge(degradation, folder, backbone, data)
        text = _summary(degradation, efficacy, folder, data)
        _write_evidence(run, name, history, efficacy, text, tracked, say)
        filled = None if out is not None else _fill(degradation, text, say)
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
    photos = f"photos of {data.name}" if data else "the sample photos"
    lines = [
        f"Means of {efficacy.count} held-out samples of {SIDE} x {SIDE} pixels, made from {photos} by this plugin's "
        f"synthesiser, over its whole range. By `abair train adapter {degradation.name}` (settings in "
        f"`adapters/{folder.name}/training.toml`).",
        "",
        efficacy.markdown(),
    ]
    return "\n".join(lines)


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
        from abair.plugin_kit.figures import before_after, curves
    except ImportError:
        say("warning: no pictures, because matplotlib is missing; pip install 'abair[train]'")
        return
    pictures = {"before-after.png": before_after(efficacy)}
    if history:  # a run that was over already has none
        pictures["curves.png"] = curves(name, history)
    for file, figure in pictures.items():
        with written_whole(run / file) as aside:
            aside.write_bytes(_png(figure))
        if tracked is not None:
            tracked.figure(figure, f"figures/{file}")


def _png(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _fill(degradation: Degradation, text: str, say: Callable[[str], None]) -> Path | None:
    readme = card.card_of(degradation.adapters)
    if readme is None:
        return None
    if not card.fill(readme, text):
        say(f"warning: {readme}: its figures were not filled: found no {card.BEGIN} and {card.END}; expected both")
        return None
    return readme
