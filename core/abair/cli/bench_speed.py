"""`abair bench speed`: what restoring costs on this machine, also against another build."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from abair.cli import loading
from abair.cli.bench_reports import write_and_print
from abair.cli.console import Progress, Reporter, reporting
from abair.cli.options import Bundle, Precision, PrecisionOption, parse_numbers

if TYPE_CHECKING:
    from abair.evaluation.speed_profile import SpeedProfile


def speed(
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Also write speed.json and speed.md, or against.json and against.md, to it."),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="Compare with this build: a checkout of ABAIR, an environment, or its python."
        ),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", dir_okay=False, help="Measure time and memory against size, and write a page with plots."
        ),
    ] = None,
    megapixels: Annotated[
        str, typer.Option(metavar="N,N", help="With --against or --results: sizes of the photos in megapixels.")
    ] = "1,24",
    threads: Annotated[str, typer.Option(metavar="N,N", help="With --against or --results: numbers of threads.")] = "1",
    rounds: Annotated[int, typer.Option(min=1, help="With --against or --results: measurements of each.")] = 3,
    precision: PrecisionOption = Precision.float32,
    deployment: Bundle = None,
) -> None:
    """Measure the speed on this machine in megapixels per second.

    Compares the blended network with the bare backbone and with PEFT, and times the estimator and
    the blend. With --against it restores photos by this build and another one in turn, each in a
    process of its own, and prints time and memory of both; --precision is this build's. With
    --results it measures this build so, in float32 and by `auto`, and blends of many adapters.
    """
    sizes = parse_numbers(megapixels, "--megapixels")
    counts = [int(count) for count in parse_numbers(threads, "--threads", whole=True)]
    if against is not None and results is not None:
        raise typer.BadParameter("cannot be used with --against; call the command twice", param_hint="--results")
    with reporting() as reporter:
        if against is not None:
            from abair.deployment import read_deployment
            from abair.evaluation.compare_builds import compare_builds

            folder = read_deployment(deployment).folder
            with reporter.progress("Timing") as progress:
                comparison = compare_builds(
                    against, folder, megapixels=sizes, threads=counts, rounds=rounds,
                    precision=precision.value, progress=progress,
                )  # fmt: skip
            write_and_print(comparison, comparison.markdown(), out, "against", reporter)
            return
        if results is not None:
            given = f"--megapixels {megapixels} --threads {threads} --rounds {rounds}"
            given += f" --deployment {deployment}" if deployment else ""
            restorer = loading.load_restorer(deployment)

            def measure(progress: Progress) -> SpeedProfile:
                from abair.evaluation.speed_profile import measure_profile

                return measure_profile(restorer, megapixels=sizes, threads=counts, rounds=rounds, progress=progress)

            _write_page(measure, results, given, out, reporter)
            return
        from abair.evaluation.speed import measure_speed

        restorer = loading.load_restorer(deployment)
        with reporter.progress("Timing") as progress:
            report = measure_speed(restorer, progress=progress)
        write_and_print(report, report.markdown(), out, "speed", reporter)


def _write_page(
    measure: Callable[[Progress], SpeedProfile], page: Path, given: str, out: Path | None, reporter: Reporter
) -> None:
    """Measure, and write the page with its plots beside it; `given` are the command's options.

    Raises:
        ImageError: a file cannot be written.
        MissingExtraError: matplotlib is not installed.
    """
    from abair.errors import ImageError
    from abair.evaluation.reports.drawing import require_matplotlib
    from abair.evaluation.reports.speed_page import draw, write_page
    from abair.files import atomic_write, write_text

    require_matplotlib("plots of speed")
    with reporter.progress("Timing", lines_every=60) as progress:
        profile = measure(progress)
    name = f"path/to/{page.name}" if page.is_absolute() else os.fspath(page)
    plots = page.with_suffix(".png")
    text = write_page(profile, f"abair bench speed --results {name} {given}", plots.name)
    try:
        with atomic_write(plots) as aside:
            draw(profile).savefig(aside, format="png", dpi=130)
        write_text(page, text)
    except OSError as error:
        raise ImageError(f"{page}: cannot be written ({error.strerror or error}); choose another --results") from None
    write_and_print(profile, text, out, "profile", reporter)
    reporter.log(f"written: {page}, {plots}")
