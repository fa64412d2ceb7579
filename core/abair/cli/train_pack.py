"""`abair train pack`: clean photos as one file, for training on another machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from abair.cli.console import reporting
from abair.cli.train_options import Data


def pack(
    out: Annotated[Path, typer.Argument(metavar="FILE", help="Write this ZIP file.")],
    data: Data = None,
    limit: Annotated[int, typer.Option(min=1, metavar="MiB", help="Largest size of the file in MiB.")] = 40,
) -> None:
    """Pack clean photos as one file, to train on another machine: --data takes it as a folder.

    Photos are reduced to 768 pixels and stored as WebP of the best quality that the limit allows.
    """
    with reporting() as reporter:
        from abair.data.packing import pack_photos
        from abair.training.inputs import photo_folder

        folder = photo_folder(data)
        if folder is None:
            raise typer.BadParameter(
                "expected a folder of clean photos, here or in $ABAIR_CLEAN_DIR", param_hint="--data"
            )
        packed = pack_photos(folder, out, limit << 20)
        reporter.log(f"written: {out}: {packed.photos} photos, {packed.size / 2**20:.1f} MiB, quality {packed.quality}")
