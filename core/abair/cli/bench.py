"""`abair bench`: quality on test sets, speed on this machine, and experiments on the method."""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from abair.cli import bench_speed, loading
from abair.cli.bench_reports import write_and_print
from abair.cli.console import reporting
from abair.cli.options import (
    PLAIN,
    Bundle,
    Device,
    Precision,
    PrecisionOption,
    Quality,
    QualityOption,
    parse_names,
)

if TYPE_CHECKING:
    from abair.evaluation.results import QualityReport

app = typer.Typer(help="Measure quality on test sets and speed on this machine.", **PLAIN)
app.command()(bench_speed.speed)

CleanPhotoFolder = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        help="Folder of clean photos for training and evaluation.  [default: sample photos, dead leaves]",
    ),
]


@app.command()
def quality(
    data: Annotated[Path, typer.Option(metavar="DIR", help="Folder that holds the test sets.")],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for results.json, table.md and the radar plot.")
    ] = Path("bench"),
    sets: Annotated[
        str | None,
        typer.Option(
            metavar="KEY,KEY", help="Measure only these sets or tables, such as five_tasks.  [default: all found]"
        ),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(metavar="FILE", dir_okay=False, help="Also write the report to this file, as a Markdown page."),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Measure only the first N photos of each set, for a quick try."),
    ] = None,
    restore_quality: QualityOption = Quality.standard,
    precision: PrecisionOption = Precision.float32,
    device: Device = "cpu",
    deployment: Bundle = None,
) -> None:
    """Measure PSNR and SSIM on test sets.

    Prints the paper's tables (five and three tasks, unseen sets, unseen degradations, mixtures,
    clean photos), the estimator's confusion matrix, and the protocol. Public test sets are found in
    the layout in which they are distributed; any other folder of pairs is measured under its name.
    """
    names = parse_names(sets, "--sets") if sets is not None else None
    with reporting() as reporter:
        from abair.evaluation.benchmark import evaluate, weights_hash
        from abair.evaluation.datasets.find import find_sets
        from abair.evaluation.reports.drawing import require_matplotlib
        from abair.evaluation.reports.markdown import overview
        from abair.evaluation.reports.write import write_results

        require_matplotlib("radar plot")
        found = find_sets(data, loading.load_synthesizers(reporter), names, limit=limit)
        for name, reason in found.missing.items():
            reporter.log(f"warning: test set {name} is not measured: {reason}")
        restorer = loading.load_restorer(deployment, device, precision)
        digest = weights_hash(restorer.deployment)
        with reporter.progress("Measuring") as progress:
            report = evaluate(
                restorer,
                found.sets,
                missing=found.missing,
                weights_sha256=digest,
                quality=restore_quality.value,
                progress=progress,
            )
        paths = write_results(report, out)
        if results is not None:
            options = {
                "--sets": sets,
                "--limit": limit,
                "--quality": restore_quality,
                "--precision": precision,
                "--device": device,
                "--deployment": deployment,
                "--out": out,
            }
            paths += _write_page(report, data, results, options)
        print(overview(report), flush=True)
        for problem in report.problems:
            reporter.failures += 1
            reporter.log(problem)
        reporter.log(f"written: {', '.join(map(str, paths))}")


def _write_page(report: QualityReport, data: Path, page: Path, options: Mapping[str, object]) -> list[Path]:
    """Write the page and its radar plot beside it; absolute paths are shortened to `path/to/NAME`.

    Raises:
        ImageError: a file cannot be written.
    """
    from abair.errors import ImageError
    from abair.evaluation.reports.markdown import results_page
    from abair.evaluation.reports.write import write_radar
    from abair.files import write_text

    defaults = {"--out": "bench", "--quality": "standard", "--precision": "float32", "--device": "cpu"}
    words = ["abair", "bench", "quality", "--data", _shorten(data), "--results", _shorten(page)]
    for name, value in options.items():
        if value is not None and str(value) != defaults.get(name):
            words += [name, _shorten(Path(value)) if isinstance(value, Path) else str(value)]
    try:
        radar = write_radar(report, page.with_name(f"{page.stem}-radar.png"))
        text = results_page(report, shlex.join(words), radar.name if radar else None)
        write_text(page, text.replace(f"{data}{os.sep}", f"{_shorten(data)}/"))
    except OSError as error:
        raise ImageError(f"{page}: cannot be written ({error.strerror or error}); choose another --results") from None
    return [page, *([radar] if radar else [])]


def _shorten(path: Path) -> str:
    """Return an absolute path without the folders of this machine, which nobody else has."""
    return f"path/to/{path.name}" if path.is_absolute() else path.as_posix()


@app.command()
def field(
    data: Annotated[
        Path,
        typer.Option(
            metavar="DIR", help="Folder of photos: damaged/KIND, tricky/KIND (undamaged), bursts/NAME, or any others."
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for field.json, field.md and field.html.")] = Path(
        "bench-field"
    ),
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Judge only the first N photos of each folder.")
    ] = None,
    device: Device = "cpu",
    deployment: Bundle = None,
) -> None:
    """Judge a deployment on real photographs, which have no reference.

    Counts right labels, undamaged photos that come back changed, labels that change when the photo
    is mirrored, turned, cropped or a little brighter, frames of a burst that come back differently
    bright, and damage that comes back otherwise inside a border. The page field.html shows every
    photo before and after.
    """
    with reporting() as reporter:
        from abair.cli.gallery import open_gallery
        from abair.errors import ImageError
        from abair.evaluation.field import choose_photos, judge
        from abair.evaluation.reports.field import PICTURES_FILE, field_page, write_field

        found = choose_photos(data, limit)
        restorer = loading.load_restorer(deployment, device)
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ImageError(f"{out}: no folder can be made there ({error.strerror}); choose another --out") from None
        with open_gallery(out / PICTURES_FILE) as pictures, reporter.progress("Judging") as progress:
            report = judge(restorer, data, found, progress=progress, on_photo=pictures.add)
        paths = [*write_field(report, out), out / PICTURES_FILE]
        print(field_page(report), flush=True)
        for problem in report.problems:
            reporter.failures += 1
            reporter.log(problem)
        reporter.log(f"written: {', '.join(map(str, paths))}")


@app.command()
def ablations(
    data: CleanPhotoFolder = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for checkpoints and tables.")] = Path("ablations"),
    minutes: Annotated[
        float, typer.Option(min=0.01, help="Training time of each run: four runs, and four more per adapter.")
    ] = 10.0,
    labels: Annotated[
        str | None,
        typer.Option(metavar="A,B,...", help="Degradations to train on.  [default: those of the deployment]"),
    ] = None,
    adapters: Annotated[
        str, typer.Option(metavar="A,B,...", help="Degradations to train adapters for.")
    ] = "noise,rain",
    deployment: Bundle = None,
) -> None:
    """Measure what each part of the method contributes.

    Trains variants for the same time: phase I without CutMix and without the segmentation head,
    adapters of rank 2 to 16 against one network trained jointly, estimators with fewer features.
    Run the command again to continue after an interruption.
    """
    adapter_labels = parse_names(adapters, "--adapters")
    chosen_labels = parse_names(labels, "--labels") if labels is not None else None
    with reporting() as reporter:
        from abair.training.inputs import read_photos

        base = loading.load_restorer(deployment).deployment
        trained_labels = chosen_labels or base.labels[:-1]
        found = loading.load_synthesizers(reporter)
        _check_declared([*trained_labels, *adapter_labels], found)
        from abair.evaluation.ablations import ablate

        photos, held_out = read_photos(data)
        report = ablate(
            {name: found[name] for name in sorted({*trained_labels, *adapter_labels})}, photos, held_out,
            base.find(base.backbone.file), out, minutes=minutes, adapters=adapter_labels, log=reporter.log,
        )  # fmt: skip
        write_and_print(report, report.markdown(), out, "ablations", reporter)


@app.command()
def joint(
    new: Annotated[
        str, typer.Option(metavar="A,B,...", help="Installed degradations to add, one after the other.")
    ] = "jpeg,bitdepth,snow",
    data: CleanPhotoFolder = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for checkpoints and tables.")] = Path("joint"),
    minutes: Annotated[float, typer.Option(min=0.01, help="Time of each joint training.")] = 10.0,
    deployment: Bundle = None,
) -> None:
    """Measure what one more degradation costs, by an adapter and by joint training.

    Joint training starts from the backbone's weights and trains the whole network on all
    degradations; the table says when it is as good as the adapters. Run the command again to
    continue after an interruption.
    """
    added = parse_names(new, "--new")
    with reporting() as reporter:
        from abair.discovery import discover
        from abair.evaluation.joint_training import compare_costs
        from abair.training.inputs import read_photos

        base = loading.load_restorer(deployment).deployment
        found = discover().found
        names = (*(label for label in base.labels[:-1] if label not in added), *added)
        _check_declared(names, found)
        photos, held_out = read_photos(data)
        report = compare_costs(
            {name: found[name] for name in names}, added, photos, held_out, base.find(base.backbone.file), out,
            minutes=minutes, log=reporter.log,
        )  # fmt: skip
        write_and_print(report, report.markdown(), out, "joint", reporter)


def _check_declared(names: Sequence[str], declared: Collection[str]) -> None:
    if missing := [name for name in names if name not in declared]:
        raise typer.BadParameter(f"{missing[0]}: no usable plugin declares it; see: abair plugin list")
