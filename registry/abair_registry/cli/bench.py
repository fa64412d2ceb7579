"""The command `abair-registry bench`: the benchmark of continual addition."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from abair.cli.console import reporting
from abair.cli.options import parse_names
from abair_registry.cli.common import Json, acting_user

app = typer.Typer()


@app.command()
def bench(
    data: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of the test sets, laid out as for `abair bench quality`.")
    ],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for the tables, the plot, and the experiment's own registry.")
    ] = Path("bench-additions"),
    plugins: Annotated[
        str, typer.Option(metavar="A,B,...", help="Installed plugins to add, in this order.")
    ] = "jpeg,bitdepth,snow",
    deployment: Annotated[
        str,
        typer.Option(
            "--deployment",
            metavar="NAME|DIR",
            help="Start from this bundle, which has none of the plugins: paper, which comes with ABAIR and has the "
            "five degradations of the paper, or a bundle's folder.",
        ),
    ] = "paper",
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Use at most N photos of each set, for a quick look.")
    ] = None,
    json: Json = False,
) -> None:
    """Measure what adding plugins one after the other costs the degradations that are live already.

    Runs in a registry of its own, so what is live here stays. Stages that were measured before are
    kept.

    Example: abair-registry bench --data testsets --out additions
    """
    names = parse_names(plugins, "--plugins")
    with reporting(json_lines=json) as reporter:
        from abair.cli.loading import load_synthesizers
        from abair.deployment import read_deployment
        from abair_registry import bench

        done = bench.run(
            data, out, names, read_deployment(deployment), load_synthesizers(reporter),
            acting_user(None, "the continual-addition experiment"), limit=limit, log=reporter.log,
        )  # fmt: skip
        if json:
            for one in done.additions:
                reporter.result(one.model_dump(mode="json"))
        else:
            print(done.markdown(), flush=True)
        reporter.log(f"written to {out}: additions.md, additions.json, additions.png")
