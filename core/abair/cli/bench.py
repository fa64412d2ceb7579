"""`abair bench`: the paper's tables on test sets, and the speed on this machine."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from abair.cli import loading
from abair.cli.console import reporting
from abair.cli.options import PLAIN, Bundle, Device, names_in

if TYPE_CHECKING:
    from abair.evaluation.results import QualityReport

app = typer.Typer(help="Measure: quality on test sets, speed on this machine.", **PLAIN)


@app.command()
def quality(
    data: Annotated[Path, typer.Option(metavar="DIR", help="The folder of the test sets.")],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Where results.json, the table and the radar plot go.")
    ] = Path("bench"),
    sets: Annotated[
        str | None,
        typer.Option(metavar="KEY,KEY", help="Sets or tables, such as five_tasks.  [default: all that are there]"),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(metavar="FILE", dir_okay=False, help="Write the whole report there, too, as a Markdown page."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="At most so many photos a set.")] = None,
    device: Device = "cpu",
    deployment: Bundle = None,
) -> None:
    """PSNR and SSIM on test sets.

    The paper's tables: five and three tasks, unseen sets, unseen degradations, mixtures, clean photos; with the
    estimator's confusion matrix, and the protocol that they were made by. Public sets are found as they are
    distributed.
    """
    names = names_in(sets, "--sets") if sets is not None else None
    with reporting() as reporter:
        from abair.evaluation.benchmark import evaluate, weights_hash
        from abair.evaluation.datasets.find import find_sets
        from abair.evaluation.reports.radar import check_drawing

        check_drawing()
        found = find_sets(data, loading.load_synthesizers(reporter), names, limit=limit)
        for name, reason in found.missing.items():
            reporter.say(f"warning: test set {name} is not measured: {reason}")
        restorer = loading.load_restorer(deployment, device)
        marks = weights_hash(restorer.deployment)
        with reporter.progress("Measuring") as progress:
            report = evaluate(restorer, found.sets, missing=found.missing, weights_sha256=marks, progress=progress)
        paths = list(report.write(out))
        if results is not None:
            given = {"--sets": sets, "--limit": limit, "--device": device, "--deployment": deployment, "--out": out}
            paths += _write_page(report, data, results, given)
        print(report.markdown(), flush=True)
        for problem in report.problems:
            reporter.failures += 1
            reporter.say(problem)
        reporter.say(f"written: {', '.join(map(str, paths))}")


def _write_page(report: QualityReport, data: Path, page: Path, options: Mapping[str, object]) -> list[Path]:
    """The page and, beside it, its picture.

    Where the sets lie on this machine is nobody's business: an absolute path becomes one to somewhere.

    Raises:
        ImageError: a file cannot be written.
    """
    from abair.errors import ImageError
    from abair.evaluation.reports.markdown import results_page
    from abair.files import write_text

    defaults = {"--out": "bench", "--device": "cpu"}
    words = ["abair", "bench", "quality", "--data", _somewhere(data), "--results", _somewhere(page)]
    for name, value in options.items():
        if value is not None and str(value) != defaults.get(name):
            words += [name, _somewhere(Path(value)) if isinstance(value, Path) else str(value)]
    try:
        radar = report.write_radar(page.with_name(f"{page.stem}-radar.png"))
        text = results_page(report, shlex.join(words), radar[0].name if radar else None)
        write_text(page, text.replace(f"{data}{os.sep}", f"{_somewhere(data)}/"))
    except OSError as error:
        raise ImageError(f"{page}: cannot be written ({error.strerror or error}); choose another --results") from None
    return [page, *radar]


def _somewhere(path: Path) -> str:
    return f"path/to/{path.name}" if path.is_absolute() else path.as_posix()


@app.command()
def speed(
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Write speed.json and speed.md there, too.")] = None,
    deployment: Bundle = None,
) -> None:
    """Megapixels a second.

    And what the estimate and the blend cost, against the bare backbone and against PEFT.
    """
    with reporting() as reporter:
        from abair.evaluation.speed import measure_speed

        restorer = loading.load_restorer(deployment)
        with reporter.progress("Timing") as progress:
            report = measure_speed(restorer, progress=progress)
        print(report.markdown(), flush=True)
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            (out / "speed.json").write_text(report.model_dump_json(indent=1) + "\n", encoding="utf-8")
            (out / "speed.md").write_text(report.markdown(), encoding="utf-8")


@app.command()
def ablations(
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Clean photos.  [default: sample photos, dead leaves]")
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="For checkpoints and tables.")] = Path("ablations"),
    minutes: Annotated[float, typer.Option(min=0.01, help="Of each run; there are four, and four an adapter.")] = 10.0,
    labels: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="Degradations.  [default: those of the deployment]")
    ] = None,
    adapters: Annotated[
        str, typer.Option(metavar="A,B,...", help="Those that adapters are trained for.")
    ] = "noise,rain",
    deployment: Bundle = None,
) -> None:
    """What the parts of the method are worth: each is left out in turn, and all are trained for the same time.

    Phase I without CutMix and without the segmentation head, adapters of rank 2 to 16 against one network trained
    jointly, estimators that see less. What was cut off goes on.
    """
    with reporting() as reporter:
        from abair.training.inputs import read_photos

        restored_by = loading.load_restorer(deployment).deployment
        wanted = names_in(labels, "--labels") if labels is not None else restored_by.labels[:-1]
        learnt = names_in(adapters, "--adapters")
        found = loading.load_synthesizers(reporter)
        if missing := [name for name in (*wanted, *learnt) if name not in found]:
            raise typer.BadParameter(f"{missing[0]}: no usable plugin declares it; see: abair plugin list")
        from abair.evaluation.ablations import ablate
        from abair.files import write_text

        photos, held_out = read_photos(data)
        done = ablate(
            {name: found[name] for name in sorted({*wanted, *learnt})}, photos, held_out,
            restored_by.find(restored_by.backbone.file), out, minutes=minutes, adapters=learnt, say=reporter.say,
        )  # fmt: skip
        write_text(out / "ablations.json", done.model_dump_json(indent=1) + "\n")
        write_text(out / "ablations.md", done.markdown())
        print(done.markdown(), flush=True)
        reporter.say(f"written: {out / 'ablations.json'}, {out / 'ablations.md'}")


@app.command()
def joint(
    new: Annotated[
        str, typer.Option(metavar="A,B,...", help="Installed degradations, each one more than those before.")
    ] = "jpeg,bitdepth,snow",
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Clean photos.  [default: sample photos, dead leaves]")
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="For checkpoints and tables.")] = Path("joint"),
    minutes: Annotated[float, typer.Option(min=0.01, help="Of each joint training.")] = 10.0,
    deployment: Bundle = None,
) -> None:
    """What one more degradation costs: its adapter, or the whole network trained on all of them once more.

    The second begins with the backbone's weights; it is told when it is as good as the adapters. What was cut off goes
    on.
    """
    with reporting() as reporter:
        from abair.discovery import discover
        from abair.evaluation.joint_training import compare
        from abair.files import write_text
        from abair.training.inputs import read_photos

        restored_by = loading.load_restorer(deployment).deployment
        added = names_in(new, "--new")
        found = discover().found
        wanted = (*(label for label in restored_by.labels[:-1] if label not in added), *added)
        if missing := [name for name in wanted if name not in found]:
            raise typer.BadParameter(f"{missing[0]}: no usable plugin declares it; see: abair plugin list")
        photos, held_out = read_photos(data)
        costs = compare(
            {name: found[name] for name in wanted}, added, photos, held_out,
            restored_by.find(restored_by.backbone.file), out, minutes=minutes, say=reporter.say,
        )  # fmt: skip
        write_text(out / "joint.json", costs.model_dump_json(indent=1) + "\n")
        write_text(out / "joint.md", costs.markdown())
        print(costs.markdown(), flush=True)
        reporter.say(f"written: {out / 'joint.json'}, {out / 'joint.md'}")
