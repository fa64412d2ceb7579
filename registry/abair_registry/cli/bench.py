"""The command `abair-registry bench`: plugins added one after the other, and what that does to all the others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from abair.cli.console import reporting
from abair.cli.options import names_in
from abair_registry.cli.common import Json, acting_user

app = typer.Typer()


@app.command()
def bench(
    data: Annotated[Path, typer.Option(metavar="DIR", help="The folder of the test sets.")],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="For tables, plot, and the experiment's own registry.")
    ] = Path("bench-additions"),
    plugins: Annotated[
        str, typer.Option(metavar="A,B,...", help="The plugins to add, in this order.")
    ] = "jpeg,bitdepth,snow",
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="At most so many photos a set.")] = None,
    json: Json = False,
) -> None:
    """Add plugins one after the other to a registry of its own and measure everything after each.

    What was done before is not done again. Example: abair-registry bench --data testsets --out additions
    """
    names = names_in(plugins, "--plugins")
    with reporting(json_lines=json) as reporter:
        from abair.cli.loading import load_synthesizers
        from abair_registry import bench

        done = bench.run(
            data, out, names, load_synthesizers(reporter), acting_user(None, "the continual-addition experiment"),
            limit=limit, log=reporter.say,
        )  # fmt: skip
        if json:
            for one in done.additions:
                reporter.result(one.model_dump(mode="json"))
        else:
            print(done.markdown(), flush=True)
        reporter.say(f"written to {out}: additions.md, additions.json, additions.png")
