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
from abair.commands import batch, entry, training
from abair.commands.options import PLAIN, Bundle, Device, Json, MaxMegapixels, Paths, Policy, Precision, Recursive
from abair.commands.reporting import Reporter, bars, one_line, reporting
from abair.errors import AbairError

if TYPE_CHECKING:
    from abair.discovery import Synthesizer
    from abair.restore import Restorer

SMALLEST_TILE: Final = 64
"""In pixels. Below it nearly all the work is for the tiles' overlap."""

app = typer.Typer(name="abair", pretty_exceptions_enable=False, **PLAIN)
bench = typer.Typer(help="Measure: quality on test sets, speed on this machine.", **PLAIN)
plugin = typer.Typer(help="Plugins: what is installed.", **PLAIN)
app.add_typer(bench, name="bench")
app.add_typer(training.app, name="train")
app.add_typer(plugin, name="plugin")


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
    max_megapixels: MaxMegapixels = 100.0,
    json: Json = False,
) -> None:
    """Restore photos; what is wrong is found out.

    Into a folder every photo keeps its name and format, with -r its sub-folder too; the ending of an output file
    chooses its format. A folder's own photos are restored; -r restores those below it as well.
    """
    given = batch.parse_weights(weights) if weights is not None else None
    if given is not None and policy is not None:
        raise typer.BadParameter(
            "given together with --weights, which leaves nothing to estimate", param_hint="--policy"
        )
    folder = batch.output_is_folder(out, paths)
    with reporting(json_lines=json) as reporter:
        if given is not None:
            from abair.deployment import read_deployment

            with contextlib.suppress(AbairError):  # what is wrong with a deployment is told when it is loaded
                batch.check_labels(given, read_deployment(deployment).labels)
        inputs = batch.find_inputs(paths, reporter, recursive=recursive, leave_out=Path(out) if folder else None)
        jobs = batch.plan(inputs, out, folder=folder)
        jobs = batch.ready(jobs, out, reporter, folder=folder, overwrite=overwrite)
        restorer = _load(reporter, [str(job.source) for job in jobs], deployment, device, precision)
        if restorer is None:
            return
        options = {"policy": (policy or Policy.soft).value, "weights": given, "tile": tile}
        with reporter.progress("Restoring", beside_stdout=json) as progress:
            for done, job in enumerate(jobs, 1):
                record: dict[str, Any] = {}
                with reporter.guard(str(job.source)):
                    record = _restored(restorer, job, options, max_megapixels, overwrite)
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
        inputs = []
        for found in batch.find_inputs(paths, reporter, recursive=recursive):
            with reporter.guard(str(found.path)):
                images.probe(found.path)
                inputs.append(str(found.path))
        restorer = _load(reporter, inputs, deployment, device, Precision.float32)
        if restorer is None:
            return
        with reporter.progress("Looking at", beside_stdout=True) as progress:
            for done, source in enumerate(inputs, 1):
                seen: dict[str, float] = {}
                with reporter.guard(source):
                    seen = restorer.estimate(images.read(Path(source), max_megapixels=max_megapixels).pixels)
                if seen and json:
                    reporter.result({"input": source, "weights": _rounded(seen)})
                elif seen:
                    print(one_line(source), *bars(seen), sep="\n", flush=True)
                progress(done, len(inputs), source)


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

        synthesizers = _synthesizers(reporter)
        restorer = load_restorer(deployment)
        with reporter.progress("Restoring") as progress:
            report = run_demo(restorer, synthesizers, out, progress=progress)
        print(report.markdown(), flush=True)
        reporter.say(f"written to {out}: {', '.join(FILES)}")


@bench.command()
def quality(
    data: Annotated[Path, typer.Option(metavar="DIR", help="The folder of the test sets.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where results.json and the table go.")] = Path("bench"),
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="At most so many photos a set.")] = None,
    device: Device = "cpu",
    deployment: Bundle = None,
) -> None:
    """PSNR and SSIM on test sets.

    The table of five tasks, with clean photos, two mixtures, and the protocol that it was made by.
    """
    with reporting() as reporter:
        from abair.evaluation.tables import evaluate
        from abair.evaluation.testsets import ALL, find_sets

        found = find_sets(data, _synthesizers(reporter), ALL, limit=limit)
        for name, reason in found.missing.items():
            reporter.say(f"warning: test set {name} is not measured: {reason}")
        restorer = load_restorer(deployment, device)
        with reporter.progress("Measuring") as progress:
            report = evaluate(restorer, found.sets, missing=found.missing, progress=progress)
        paths = report.write(out)
        print(report.markdown(), flush=True)
        for problem in report.problems:
            reporter.failures += 1
            reporter.say(problem)
        reporter.say(f"written: {', '.join(map(str, paths))}")


@bench.command()
def speed(
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Write speed.json and speed.md there, too.")] = None,
    deployment: Bundle = None,
) -> None:
    """Megapixels a second.

    And what the estimate and the blend cost, against the bare backbone and against PEFT.
    """
    with reporting() as reporter:
        from abair.evaluation.speed import measure_speed

        restorer = load_restorer(deployment)
        with reporter.progress("Timing") as progress:
            report = measure_speed(restorer, progress=progress)
        print(report.markdown(), flush=True)
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            (out / "speed.json").write_text(report.model_dump_json(indent=1) + "\n", encoding="utf-8")
            (out / "speed.md").write_text(report.markdown(), encoding="utf-8")


@plugin.command("list")
def list_plugins() -> None:
    """The degradations that installed plugins declare; a plugin that cannot be used is one line on stderr."""
    with reporting() as reporter:
        from abair.discovery import discover

        plugins = discover()
        rows = [("degradation", "title", "distribution", "adapters for")]
        for name, found in sorted(plugins.found.items()):
            folder = found.degradation.adapters
            sizes = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
            made_by = f"{found.distribution} {found.version}"
            rows.append((name, found.degradation.title, made_by, ", ".join(sizes) or "none"))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows if plugins.found else ():
            cells = (one_line(cell).ljust(width) for cell, width in zip(row, widths, strict=True))
            print("  ".join(cells).rstrip(), flush=True)
        if not plugins.found:
            reporter.say("found no usable plugin; install one, for example: pip install abair-noise")
        for problem in plugins.problems:
            reporter.failures += 1
            reporter.say(str(problem))


def load_restorer(deployment: str | None, device: str = "cpu", precision: Precision = Precision.float32) -> Restorer:
    """Import torch and load a deployment: the slow part of a start.

    Raises:
        AbairError: the deployment, its files or the device cannot be used.
    """
    from abair.hardware import keep_freed_memory
    from abair.restore import Restorer

    keep_freed_memory()
    return Restorer.load(deployment, device=device, precision=precision.value)


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
    restorer: Restorer, job: batch.Job, options: Mapping[str, Any], max_megapixels: float, overwrite: bool
) -> dict[str, Any]:
    """Restore one file; a function of its own, so that nothing of one photo is kept while the next is read."""
    from abair import images

    photo = images.read(job.source, max_megapixels=max_megapixels)
    restored = restorer(photo.pixels, **options)
    images.write(job.target, photo, restored.image, overwrite=overwrite, keep_format=job.keep_format)
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


def _synthesizers(reporter: Reporter) -> dict[str, Synthesizer]:
    """Of every usable plugin; what cannot be used is said and left out."""
    from abair.discovery import discover, load_synthesizer
    from abair.errors import PluginError

    plugins = discover()
    for problem in plugins.problems:
        reporter.say(f"warning: {problem}")
    synthesizers = {}
    for degradation in plugins.degradations:
        try:
            synthesizers[degradation.name] = load_synthesizer(degradation)
        except PluginError as error:
            reporter.say(f"warning: {error}")
    return synthesizers


def run(arguments: Sequence[str]) -> int:
    """One call of the command line; returns the exit code and never raises for anything but `SystemExit`."""
    return entry.run(app, "abair", arguments)


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":  # torchrun -m abair.cli train ...
    main()
