"""`abair restore --engine ray`: plan many photos, hand them to workers, keep a manifest."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from abair.batch import manifest, places, ray_engine
from abair.batch.photo import Choices
from abair.batch.worker import Orders, Task
from abair.cli import inputs, outputs
from abair.cli.console import Reporter, explain
from abair.cli.options import Precision
from abair.deployment import read_deployment
from abair.errors import AbairError
from abair.text import one_line

MANIFEST = "manifest.parquet"
"""The manifest's name in the output folder."""


@dataclass(frozen=True)
class Request:
    """What was asked for: photos, where their results go, and the manifest."""

    paths: Sequence[str]
    out: str | None
    name: str | None
    recursive: bool
    skip_existing: bool
    manifest: Path | None
    workers: int | None
    deployment: str | None
    device: str
    precision: Precision


def check_options(engine: str, given: dict[str, object], named: Sequence[str]) -> None:
    """Check that options fit the engine, and inputs and output, which `named` has.

    Args:
        engine: the engine's name.
        given: the values of options that fit only one engine.
        named: inputs and output.

    Raises:
        typer.BadParameter: one does not.
    """
    if engine != "ray" and (urls := list(filter(places.is_url, named))):
        raise typer.BadParameter(f"found the URL {urls[0]}, which needs --engine ray", param_hint="PATHS")
    for option in ("--watch", "--page", "--dry-run") if engine == "ray" else ("--manifest", "--workers"):
        if given.get(option):
            reason = "cannot be used with --engine ray" if engine == "ray" else "needs --engine ray"
            raise typer.BadParameter(reason, param_hint=option)


def check_no_urls(paths: Sequence[str]) -> None:
    """Check that all inputs of a command that only reads files are paths.

    Raises:
        typer.BadParameter: one is a URL.
    """
    if urls := list(filter(places.is_url, paths)):
        raise typer.BadParameter(
            f"found the URL {urls[0]}, expected files and folders: only restore with --engine ray reads URLs",
            param_hint="PATHS",
        )


def restore_by_ray(request: Request, choices: Choices, reporter: Reporter) -> None:
    """Restore photos by the workers of a Ray cluster; report failures, and the end in one line.

    Raises:
        AbairError: Ray, the deployment or the manifest cannot be used.
        typer.BadParameter: the options do not fit each other or the photos.
    """
    paths, out = [places.as_path(path) for path in request.paths], _output_folder(request)
    outputs.check_name(request.name, for_file=False)
    if choices.keep_times and any(map(places.is_url, [*paths, out or ""])):
        raise typer.BadParameter("cannot be used with URLs, whose times cannot be set", param_hint="--keep-times")
    ray_engine.check_installed()
    file = _manifest_file(request, out)
    if file.exists() and not (choices.overwrite or request.skip_existing):
        raise typer.BadParameter(
            f"found an existing file {file}, expected a free name; use --skip-existing to go on, or --overwrite",
            param_hint="--manifest",
        )
    deployment = read_deployment(request.deployment)
    if choices.weights is not None:
        inputs.check_labels(choices.weights, deployment.labels)
    bundle = ray_engine.Bundle.read(deployment, request.device, request.precision.value)
    tasks = plan(paths, out, request.name, reporter, recursive=request.recursive)
    if not tasks:
        return
    orders = Orders(choices, os.getcwd(), request.skip_existing, explain)
    gpus = 1.0 if request.device.startswith("cuda") else 0.0
    counts = dict.fromkeys(("restored", "skipped", "failed"), 0)
    records = ray_engine.restore(tasks, bundle, orders, workers=request.workers, gpus=gpus)
    with (
        manifest.open_manifest(file, go_on=request.skip_existing) as kept,
        reporter.progress("Restoring", beside_stdout=reporter.json_lines) as progress,
        contextlib.closing(records),
    ):
        for done, record in enumerate(records, 1):
            kept.add(record)
            counts["failed" if "error" in record else "skipped" if record.get("skipped") else "restored"] += 1
            _report(record, reporter, 1 if choices.warning else 0)
            progress(done, len(tasks), record["input"])
    told = ", ".join(f"{number} {what}" for what, number in counts.items())
    reporter.log(f"{told}; manifest: {file}")


def plan(paths: Sequence[str], out: str | None, name: str | None, reporter: Reporter, *, recursive: bool) -> list[Task]:
    """Return what to do with the photos found in paths and URLs, in order, with indices from 0.

    Names are as without Ray.

    Raises:
        typer.BadParameter: an output is another photo's output or input.
    """
    from abair import images

    jobs: list[tuple[str, str, bool]] = []
    for path in inputs.drop_duplicates(paths):
        if places.is_url(path):
            with reporter.guard(path):
                jobs.extend(_plan_url(path, out, name, recursive=recursive))
            continue
        if not (Path(path).suffix or os.path.exists(path)):
            with reporter.guard(path):  # a mistyped folder: says so, and starts no worker
                images.read(Path(path))
            continue
        local_out = None if out is None or places.is_url(out) else Path(out)
        found = inputs.find_inputs([path], reporter, recursive=recursive, leave_out=local_out)
        if out is None or not places.is_url(out):
            planned = inputs.plan_jobs(found, [path], out, folder=out is not None, name=name)
            jobs.extend((str(job.source), str(job.target), job.keep_format) for job in planned)
        else:
            jobs.extend(_plan_one(str(one.path), one.relative.as_posix(), out, name) for one in found)
    _check_clashes(jobs)
    first: dict[str, tuple[str, str, bool]] = {}
    for job in jobs:
        first.setdefault(_key(job[0]), job)
    return [Task(index, *job) for index, job in enumerate(first.values())]


def _plan_url(url: str, out: str | None, name: str | None, *, recursive: bool) -> Iterator[tuple[str, str, bool]]:
    for source, relative in places.find_photos(url, recursive=recursive):
        beside = source.removesuffix(relative)
        job = _plan_one(
            source, relative, beside if out is None else out, name or (inputs.BESIDE if out is None else None)
        )
        if source == url or not Path(relative).stem.endswith(inputs.BESIDE_END):
            yield job


def _plan_one(source: str, relative: str, folder: str, name: str | None) -> tuple[str, str, bool]:
    """Return source, output and whether the format stays, for an output in a folder or its URL."""
    one = inputs.Input(Path(relative), Path(relative))
    (job,) = inputs.plan_jobs([one], [relative], os.curdir, folder=True, name=name)
    return source, places.join(folder, job.target.as_posix()), job.keep_format


def _check_clashes(jobs: Sequence[tuple[str, str, bool]]) -> None:
    first: dict[str, str] = {}
    sources = {_key(source): source for source, _, _ in jobs}
    for source, target, _ in jobs:
        other = first.setdefault(_key(target), source)
        if _key(other) != _key(source):
            raise typer.BadParameter(
                f"{one_line(other)} and {one_line(source)} would both be written to {one_line(target)}; restore them "
                "into different folders or give other names",
                param_hint="PATHS",
            )
        if _key(sources.get(_key(target), source)) != _key(source):
            raise typer.BadParameter(
                f"{one_line(source)} would be written to {one_line(target)}, which is to be restored itself; choose "
                "another folder or name",
                param_hint="PATHS",
            )


def _key(place: str) -> str:
    return place if places.is_url(place) else os.path.normcase(os.path.abspath(place))


def _output_folder(request: Request) -> str | None:
    """Return the output folder or its URL; None is beside each photo.

    Raises:
        typer.BadParameter: the output is a file.
    """
    if request.out is None:
        return None
    from abair.images import SUFFIXES

    out = places.as_path(request.out)
    path = Path(out)
    named_so = out.endswith(tuple(filter(None, (os.sep, os.altsep)))) or path.is_dir()
    if out and (places.is_url(out) or named_so or not (path.exists() or path.suffix.lower() in SUFFIXES)):
        return out
    raise typer.BadParameter(f"found {out!r}, expected a folder with --engine ray", param_hint="-o")


def _manifest_file(request: Request, out: str | None) -> Path:
    """Return where the manifest goes.

    Raises:
        typer.BadParameter: it must be named, as there is no output folder on this machine.
    """
    if request.manifest is not None:
        return request.manifest
    if out is None or places.is_url(out):
        raise typer.BadParameter(
            "missing without an output folder on this machine, expected a file, as in manifest.parquet",
            param_hint="--manifest",
        )
    return Path(out, MANIFEST)


def _report(record: dict[str, object], reporter: Reporter, known: int) -> None:
    source = str(record["input"])
    if error := record.get("error"):
        reporter.fail(AbairError(str(error)), source)
        return
    warnings = record.get("warnings")
    for warning in warnings[known:] if isinstance(warnings, list) else ():
        reporter.log(f"warning: {source}: {warning}")
    if reporter.json_lines:
        reporter.result(record)
