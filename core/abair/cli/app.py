"""The command line `abair`: parse, call, print.

Nothing heavy is imported before a command needs it, so that `--help` answers at once.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

import abair
from abair.cli import bench, gallery, inputs, plugin, train
from abair.cli.console import Reporter, bars, reporting
from abair.cli.loading import load_restorer, load_synthesizers
from abair.cli.options import PLAIN, Bundle, Device, Json, MaxMegapixels, Paths, Policy, Precision, Recursive
from abair.cli.run import run_app
from abair.errors import AbairError
from abair.text import one_line

if TYPE_CHECKING:
    from abair.inference.restorer import Restorer

SMALLEST_TILE: Final = 64
"""In pixels: that of `abair.inference.tiling`, whose import takes seconds and is spared here. A test holds them
equal."""

app = typer.Typer(name="abair", pretty_exceptions_enable=False, **PLAIN)
app.add_typer(bench.app, name="bench")
app.add_typer(train.app, name="train")
app.add_typer(plugin.app, name="plugin")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"abair {abair.__version__}", flush=True)
        raise typer.Exit


@app.callback()
def _start(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Say the version and exit.")
    ] = False,
) -> None:
    """Blind restoration of photos with noise, rain, haze, blur, low light, or several of them at once."""


@app.command()
def restore(
    paths: Paths,
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="FILE|DIR", help="One photo's file, or a folder, which is made.")
    ],
    recursive: Recursive = False,
    policy: Annotated[
        Policy | None, typer.Option(help="Blend all adapters, or use the likeliest alone.  [default: soft]")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(metavar="noise=0.7,blur=0.3", help="Your weights instead of an estimate; others are 0."),
    ] = None,
    tile: Annotated[
        int | None,
        typer.Option(min=SMALLEST_TILE, metavar="N", help="Side of a tile in pixels: smaller needs less memory."),
    ] = None,
    device: Device = "cpu",
    precision: Annotated[Precision, typer.Option(help="Of the network's arithmetic.")] = Precision.float32,
    deployment: Bundle = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")] = False,
    show: Annotated[
        Path | None, typer.Option("--page", metavar="FILE.html", help="Write a page of all photos before and after.")
    ] = None,
    max_megapixels: MaxMegapixels = 100.0,
    json: Json = False,
) -> None:
    """Restore photos; what is wrong is found out.

    Into a folder every photo keeps its name and format, with -r its sub-folder too; the ending of an output file
    chooses its format. A folder's own photos are restored; -r restores those below it as well.
    """
    given = inputs.parse_weights(weights) if weights is not None else None
    if given is not None and policy is not None:
        raise typer.BadParameter(
            "given together with --weights, which leaves nothing to estimate", param_hint="--policy"
        )
    folder = inputs.output_is_folder(out, paths)
    if show is not None:
        gallery.check(show, out, overwrite=overwrite)
    with reporting(json_lines=json) as reporter:
        if given is not None:
            from abair.deployment import read_deployment

            with contextlib.suppress(AbairError):  # what is wrong with a deployment is told when it is loaded
                inputs.check_labels(given, read_deployment(deployment).labels)
        found = inputs.find_inputs(paths, reporter, recursive=recursive, leave_out=Path(out) if folder else None)
        jobs = inputs.plan(found, out, folder=folder)
        jobs = inputs.ready(jobs, out, reporter, folder=folder, overwrite=overwrite)
        restorer = _load(reporter, [str(job.source) for job in jobs], deployment, device, precision)
        if restorer is None:
            return
        options = {"policy": (policy or Policy.soft).value, "weights": given, "tile": tile}
        shown = gallery.opened(show) if show is not None else contextlib.nullcontext()
        with shown as pictures, reporter.progress("Restoring", beside_stdout=json) as progress:
            for done, job in enumerate(jobs, 1):
                record: dict[str, Any] = {}
                with reporter.guard(str(job.source)):
                    record = _restored(restorer, job, options, max_megapixels, overwrite, pictures)
                if record and json:
                    reporter.result(record)
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
    """Say what is wrong with photos.

    The weights of the degradations that are known, as bars or as JSON.
    """
    from abair import images

    with reporting(json_lines=json) as reporter:
        sources = []
        for found in inputs.find_inputs(paths, reporter, recursive=recursive):
            with reporter.guard(str(found.path)):
                images.probe(found.path)
                sources.append(str(found.path))
        restorer = _load(reporter, sources, deployment, device, Precision.float32)
        if restorer is None:
            return
        with reporter.progress("Looking at", beside_stdout=True) as progress:
            for done, source in enumerate(sources, 1):
                seen: dict[str, float] = {}
                with reporter.guard(source):
                    seen = restorer.estimate(images.read(Path(source), max_megapixels=max_megapixels).pixels)
                if seen and json:
                    reporter.result({"input": source, "weights": _rounded(seen)})
                elif seen:
                    print(one_line(source), *bars(seen), sep="\n", flush=True)
                progress(done, len(sources), source)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the table and the contact sheet go.")] = Path("demo"),
    deployment: Bundle = None,
) -> None:
    """Damage sample photos, restore and measure them.

    By every installed plugin and two mixtures; restored blind; a table and a contact sheet.
    """
    with reporting() as reporter:
        from abair.evaluation.demo import FILES, run_demo

        synthesizers = load_synthesizers(reporter)
        restorer = load_restorer(deployment)
        with reporter.progress("Restoring") as progress:
            report = run_demo(restorer, synthesizers, out, progress=progress)
        print(report.markdown(), flush=True)
        reporter.say(f"written to {out}: {', '.join(FILES)}")


def _load(
    reporter: Reporter, sources: Sequence[str], deployment: str | None, device: str, precision: Precision
) -> Restorer | None:
    """The restorer if there is anything to do and it can be loaded; the latter fails all `sources` at once."""
    try:
        return load_restorer(deployment, device, precision) if sources else None
    except Exception as error:
        reporter.fail(error, *sources)
        return None


def _restored(
    restorer: Restorer,
    job: inputs.Job,
    options: Mapping[str, Any],
    max_megapixels: float,
    overwrite: bool,
    pictures: gallery.Page | None,
) -> dict[str, Any]:
    """Restore one file; a function of its own, so that nothing of one photo is kept while the next is read."""
    from abair import images

    photo = images.read(job.source, max_megapixels=max_megapixels)
    restored = restorer(photo.pixels, **options)
    images.write(job.target, photo, restored.image, overwrite=overwrite, keep_format=job.keep_format)
    if pictures is not None:
        pictures.add(str(job.source), photo, restored.image, restored.weights)
    return {
        "input": str(job.source),
        "output": str(job.target),
        "weights": _rounded(restored.weights),
        "policy": restored.policy,
        "seconds": round(restored.seconds, 4),
        "megapixels": restored.megapixels,
        "deployment": restored.deployment,
    }


def _rounded(weights: Mapping[str, float]) -> dict[str, float]:
    return {label: round(float(weight), 6) for label, weight in weights.items()}


def run(arguments: Sequence[str]) -> int:
    """One call of the command line; returns the exit code and never raises for anything but `SystemExit`."""
    return run_app(app, "abair", arguments)


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":  # torchrun -m abair train ...
    main()
