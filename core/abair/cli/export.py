"""`abair export`: write the network for programs that know neither Python nor ABAIR."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from abair.cli import inputs, loading
from abair.cli.console import reporting
from abair.cli.options import Bundle


class Format(StrEnum):
    """What is written."""

    onnx = "onnx"
    dtmodel = "dtmodel"


def export(
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="The file.  [default: abair.onnx, or the package's id and .dtmodel, in this folder]",
        ),
    ] = None,
    form: Annotated[
        Format,
        typer.Option("--format", help="An ONNX model, or a package that darktable 5.6 imports from a file (dtmodel)."),
    ] = Format.onnx,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="noise=0.7,blur=0.3",
            help="Blend these weights for good; what is left of 1 leaves the photo alone. dtmodel needs them.  "
            "[default: the weights are an input of the file]",
        ),
    ] = None,
    with_view: Annotated[
        bool,
        typer.Option(
            "--with-view",
            help="The photo's global view is an input of the file, for programs that restore a photo in tiles.",
        ),
    ] = False,
    deployment: Bundle = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that exists.")] = False,
) -> None:
    """Write the network as a file for other programs; needs the extra onnx.

    The file takes images of any size. It is run on images of several sizes and compared with torch;
    if a value differs by more than 0.0001, nothing is written. The estimator is not in it.
    """
    given = inputs.parse_weights(weights) if weights is not None else None
    if form is Format.dtmodel and given is None:
        raise typer.BadParameter(
            "is missing; darktable gives the network nothing but the photo, so a dtmodel needs weights, as in noise=1",
            param_hint="--weights",
        )
    if form is Format.dtmodel and with_view:
        raise typer.BadParameter(
            "cannot be used with --format dtmodel: darktable gives no view", param_hint="--with-view"
        )
    if out is not None and out.suffix in {f".{other.value}" for other in Format if other is not form}:
        raise typer.BadParameter(
            f"ends in {out.suffix}, which is another format; use --format {out.suffix[1:]} or another name",
            param_hint="--out",
        )
    with reporting() as reporter:
        from abair.errors import ExportError
        from abair.export import darktable, onnx_file
        from abair.export.network import PhotoNetwork
        from abair.files import atomic_write

        loading.warn_of_live(deployment, reporter)
        for library in ("onnx", "onnxscript", "onnxruntime"):
            onnx_file.require(library)
        restorer = loading.load_restorer(deployment)
        if given is not None:
            inputs.check_labels(given, restorer.labels)
        used = restorer.complete_weights(given) if given is not None else None
        if form is Format.dtmodel and used is not None and not darktable.has_id(used):
            raise typer.BadParameter("leave the photo alone, so there is nothing to export", param_hint="--weights")
        default = f"{darktable.model_id(used)}.dtmodel" if form is Format.dtmodel and used is not None else "abair.onnx"
        path = out or Path(default)
        if path.exists() and not overwrite:
            raise ExportError(f"{path} exists; choose another name, or use --overwrite to replace it")
        network = PhotoNetwork(restorer.blender, restorer.labels, used, with_view=with_view)
        reporter.log("making the graph")
        file = onnx_file.make_onnx(network, onnx_file.describe(restorer.deployment, used))
        difference = onnx_file.check_onnx(file, network)
        if form is Format.dtmodel and used is not None:
            file = darktable.make_package(file, used, restorer.deployment.name)
        try:
            with atomic_write(path, replace=overwrite) as aside:
                aside.write_bytes(file)
        except OSError as error:
            raise ExportError(f"{path}: cannot be written ({error.strerror or error}); choose another --out") from None
        sizes = ", ".join(f"{width}x{height}" for height, width in onnx_file.SIZES)
        reporter.log(f"compared with torch on {sizes} pixels: differs by {difference:.1g} at most")
        reporter.log(f"written: {path} ({len(file) / 1e6:.1f} MB)")
