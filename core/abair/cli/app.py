"""The command line `abair`: parse, call, print.

Heavy modules are imported only by the commands that need them, so that `--help` answers at once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, cast

import typer

import abair
from abair.batch.photo import Choices
from abair.cli import batching, bench, export, gallery, inputs, loading, outputs, plugin, serve, train, watching
from abair.cli.console import Reporter, reporting, tell_doubt, weight_bars
from abair.cli.options import (
    PLAIN,
    Bundle,
    Device,
    Engine,
    EngineOption,
    Json,
    Looks,
    Manifest,
    MaxMegapixels,
    Paths,
    Policy,
    Precision,
    PrecisionOption,
    Quality,
    QualityOption,
    Recursive,
    Workers,
    check_estimate,
)
from abair.cli.restoring import FileRestorer
from abair.cli.run import run_app
from abair.cli.streams import MARK, check_streams, named_streams
from abair.errors import AbairError
from abair.labels import round_confidence, round_weights
from abair.text import one_line

if TYPE_CHECKING:
    from abair.inference.restorer import Restorer

SMALLEST_TILE: Final = 64
"""In pixels. A copy: importing `abair.inference.tiling` takes seconds. A test compares the two."""

app = typer.Typer(name="abair", pretty_exceptions_enable=False, **PLAIN)
app.command(name="serve")(serve.serve)
app.add_typer(bench.app, name="bench")
app.add_typer(train.app, name="train")
app.add_typer(plugin.app, name="plugin")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"abair {abair.__version__}", flush=True)
        raise typer.Exit


@app.callback()
def _start(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """Restore damaged photos, without being told what is wrong with them."""


@app.command()
def restore(
    paths: Paths,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE|DIR",
            help="Output file, or a folder, which is made if needed; - is stdout.  [default: beside each photo, as "
            "photo.restored.jpg]",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="{stem}_fixed{suffix}",
            help="Pattern of the outputs' names; another suffix chooses another format, as in {stem}.png.",
        ),
    ] = None,
    recursive: Recursive = False,
    policy: Annotated[
        Policy | None,
        typer.Option(
            help="Blend all adapters (soft), use only the likeliest one (one-hot), or none (backbone).  [default: soft]"
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="noise=0.7,blur=0.3",
            help="Use these weights instead of the estimate, if you know what is wrong; each is a part of the photo, "
            "and the rest is left alone.",
        ),
    ] = None,
    strength: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, metavar="0..1", help="Strength of the restoration; 0.5 is halfway."),
    ] = 1.0,
    quality: QualityOption = Quality.standard,
    looks: Looks = None,
    tile: Annotated[
        int | None,
        typer.Option(
            min=SMALLEST_TILE,
            metavar="N",
            help="Width in pixels of the panels of a wide photo; choose a smaller one if memory runs out.",
        ),
    ] = None,
    device: Device = "cpu",
    precision: PrecisionOption = Precision.auto,
    deployment: Bundle = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")] = False,
    skip_existing: Annotated[
        bool,
        typer.Option(
            "--skip-existing", help="Skip photos whose output exists and is not older: goes on after an interruption."
        ),
    ] = False,
    keep_times: Annotated[
        bool, typer.Option("--keep-times", help="Give each output the modification time of its photo, not of now.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write nothing; print each photo's output and estimate.")
    ] = False,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch", help="Go on with photos that are put into the folders, until Ctrl-C; needs the extra watch."
        ),
    ] = False,
    jpeg_quality: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=100,
            metavar="1..100",
            help="Quality of JPEG outputs.  [default: that of the photo, never below 90; 95 for other formats]",
        ),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(
            "--page", metavar="FILE.html", help="Also write a page that compares all photos before and after."
        ),
    ] = None,
    max_megapixels: MaxMegapixels = 100.0,
    json: Json = False,
    engine: EngineOption = Engine.local,
    workers: Workers = None,
    manifest: Manifest = None,
) -> None:
    """Restore photos; the damage is estimated for each photo.

    Without -o, photo.jpg is restored as photo.restored.jpg beside it. In an output folder, every
    photo keeps its name and format, and with -r its sub-folder; photo.heic, a format that is not
    written, becomes photo.heic.jpg. The suffix of an output file chooses its format: JPEG, PNG,
    WebP, TIFF or BMP.
    """
    given_weights = inputs.parse_weights(weights) if weights is not None else None
    check_estimate(policy, looks, given=given_weights is not None)
    batching.check_options(
        engine.value,
        {"--watch": watch, "--page": page, "--dry-run": dry_run, "--manifest": manifest, "--workers": workers},
        [*paths, *([out] if out else [])],
    )
    with_files = {"--watch": watch, "--name": name, "--skip-existing": skip_existing, "--keep-times": keep_times}
    with_files["--engine"] = engine is Engine.ray
    check_streams(paths, out, [option for option, given in with_files.items() if given], json=json)
    if watch:
        without_end = [option for option, given in {"--dry-run": dry_run, "--page": page}.items() if given]
        watching.check_folders(paths, None if name else out, without_end, overwrite=overwrite)
    with reporting(json_lines=json) as reporter, named_streams(paths, out, reporter) as (named, target):
        choices = Choices(
            policy=(policy or Policy.soft).value,
            weights=given_weights,
            strength=strength,
            tile=tile,
            quality=quality.value,
            looks=looks,
            max_megapixels=max_megapixels,
            overwrite=overwrite,
            keep_times=keep_times,
            jpeg_quality=jpeg_quality,
            warning=loading.warn_of_live(deployment, reporter),
        )
        if engine is Engine.ray:
            request = batching.Request(
                paths, out, name, recursive, skip_existing, manifest, workers, deployment, device, precision
            )
            batching.restore_by_ray(request, choices, reporter)
            return
        folder = Path(target) if target is not None and outputs.output_is_folder(target, named) else None
        outputs.check_order(target, named)
        outputs.check_name(name, for_file=target is not None and folder is None)
        gallery.check_page(page, out, overwrite=overwrite, dry_run=dry_run)
        _check_labels(given_weights, deployment)

        def plan(found: Sequence[inputs.Input]) -> list[inputs.Job]:
            return inputs.plan_jobs(found, named, target, folder=folder is not None, name=name)

        if watch:
            arriving = watching.watched_jobs(
                named, reporter, plan, recursive=recursive, leave_out=folder, max_megapixels=max_megapixels
            )
            restorer = _load_restorer(reporter, named, deployment, device, precision)
            for one in arriving if restorer is not None else ():
                for job in inputs.check_jobs([one], folder, reporter, overwrite=overwrite):
                    FileRestorer(cast("Restorer", restorer), choices, reporter).restore(job)
            return
        found = inputs.find_inputs(named, reporter, recursive=recursive, leave_out=folder)
        jobs = plan(found)
        inputs.check_clashes(jobs)
        if found and not jobs:
            reporter.log("found nothing but results of earlier runs; name them to restore them again")
        if skip_existing:
            jobs = inputs.drop_done(jobs, reporter)
        jobs = inputs.check_jobs(jobs, folder, reporter, overwrite=overwrite, make_folders=not dry_run)
        restorer = _load_restorer(reporter, [str(job.source) for job in jobs], deployment, device, precision)
        if restorer is None:
            gallery.say_that_none_is_written(page, reporter)
            return
        if dry_run:
            for job in jobs:
                FileRestorer(restorer, choices, reporter).print_plan(job)
            return
        open_page = gallery.open_gallery(page) if page is not None else contextlib.nullcontext()
        with open_page as pictures, reporter.progress("Restoring", beside_stdout=json) as progress:
            files = FileRestorer(restorer, choices, reporter, pictures)
            for done, job in enumerate(files.restore_all(jobs), 1):
                progress(done, len(jobs), str(job.source))


@app.command()
def estimate(
    paths: Paths,
    recursive: Recursive = False,
    device: Device = "cpu",
    deployment: Bundle = None,
    max_megapixels: MaxMegapixels = 100.0,
    json: Json = False,
) -> None:
    """Estimate what is wrong with photos, without restoring them.

    Prints the weight of each known degradation as a bar, or as JSON.
    """
    from abair import images

    batching.check_no_urls(paths)
    if MARK in paths:
        check_streams(paths, MARK, (), json=False)
    with reporting(json_lines=json) as reporter, named_streams(paths, None, reporter) as (named, _):
        loading.warn_of_live(deployment, reporter)
        sources = []
        for found in inputs.find_inputs(named, reporter, recursive=recursive):
            with reporter.guard(str(found.path)):
                images.probe(found.path)
                sources.append(str(found.path))
        restorer = _load_restorer(reporter, sources, deployment, device, Precision.float32)
        if restorer is None:
            return
        with reporter.progress("Estimating", beside_stdout=True) as progress:
            for done, source in enumerate(sources, 1):
                weights: dict[str, float] = {}
                with reporter.guard(source):
                    photo = images.read(Path(source), max_megapixels=max_megapixels).visible
                    weights, confidence, unknown = restorer.judge(photo)
                if weights and json:
                    doubts = {"confidence": round_confidence(confidence), "unknown": round_confidence(unknown)}
                    reporter.result({"input": source, "weights": round_weights(weights)} | doubts)
                elif weights:
                    name = reporter.aliases.get(source, one_line(source))
                    print(name + tell_doubt(confidence, unknown), *weight_bars(weights), sep="\n", flush=True)
                progress(done, len(sources), source)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the tables and pictures.")] = Path("demo"),
    deployment: Bundle = None,
) -> None:
    """Damage sample photos, restore them blind, and measure the result.

    The damage is made by every installed plugin and by two mixtures. Prints a table and writes a
    contact sheet.
    """
    with reporting() as reporter:
        from abair.evaluation.benchmark import weights_hash
        from abair.evaluation.demo import FILES, run_demo
        from abair.evaluation.reports.markdown import overview

        synthesizers = loading.load_synthesizers(reporter)
        restorer = loading.load_restorer(deployment)
        digest = weights_hash(restorer.deployment)
        with reporter.progress("Restoring") as progress:
            report = run_demo(restorer, synthesizers, out, weights_sha256=digest, progress=progress)
        print(overview(report), flush=True)
        reporter.log(f"written to {out}: {', '.join(FILES)}")


app.command()(export.export)


def _check_labels(weights: Mapping[str, float] | None, deployment: str | None) -> None:
    """Check given weights against the deployment before it is loaded, which takes seconds.

    Raises:
        typer.BadParameter: it lacks a label.
    """
    if weights is not None:
        from abair.deployment import read_deployment

        with contextlib.suppress(AbairError):  # loading reports what is wrong with a deployment
            inputs.check_labels(weights, read_deployment(deployment).labels)


def _load_restorer(
    reporter: Reporter, sources: Sequence[str], deployment: str | None, device: str, precision: Precision
) -> Restorer | None:
    """Load the restorer; return None if there is nothing to do.

    If loading fails, that fails all `sources`; return None then, too.
    """
    from abair.inference.lean_torch import import_torch

    try:
        if not sources:
            return None
        import_torch()
        return loading.load_restorer(deployment, device, precision)
    except Exception as error:
        reporter.fail(error, *sources)
        return None


def run(arguments: Sequence[str]) -> int:
    """Call the command line and return its exit code; raises nothing but `SystemExit`."""
    return run_app(app, "abair", arguments)
