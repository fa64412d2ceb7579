"""`abair plugin`: what is installed, and for those who write one a package to begin with and a look at what it does."""

from __future__ import annotations

import shlex
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from abair.cli import inputs
from abair.cli.console import Reporter, reporting
from abair.cli.options import PLAIN, Json, MaxMegapixels
from abair.errors import MissingExtraError, PluginError
from abair.plugin_kit.scaffold import LONGEST_AUTHOR, Licence, Made, check_author, make_package
from abair.text import one_line

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

app = typer.Typer(help="Plugins: list what is installed, begin a new one, look at it, check it.", **PLAIN)

CHECKERS: Final = "abair.checkers"
"""The entry-point group of what probes plugins."""
MOST_PHOTOS: Final = 12
"""Rows of a sheet: more would not be looked at."""


@app.command("list")
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
            reporter.log("found no usable plugin; install one, for example: pip install abair-noise")
        for problem in plugins.problems:
            reporter.failures += 1
            reporter.log(str(problem))


def _author(author: str | None) -> str | None:
    try:
        return author if author is None else check_author(author)
    except PluginError as error:
        raise typer.BadParameter(str(error)) from None


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="The degradation's, as film-grain: all other names follow from it.")],
    parent: Annotated[Path, typer.Option("--dir", metavar="DIR", help="Where its folder goes.")] = Path(),
    licence: Annotated[Licence, typer.Option(help="Of the package's code.")] = Licence.apache,
    author: Annotated[
        str | None, typer.Option(metavar="TEXT", callback=_author, help="Of the package.  [default: git's user.name]")
    ] = None,
    json: Json = False,
) -> None:
    """Begin a plugin: a complete package that works.

    It fades photos like old colour prints, until you put your own damage into its synthesis.py.
    """
    from abair.plugin_kit.naming import names_of

    try:
        names = names_of(name)
    except PluginError as error:
        raise typer.BadParameter(str(error), param_hint="NAME") from None
    with reporting(json_lines=json) as reporter, reporter.guard(name):
        made = make_package(names, parent, licence=licence, author=author or _git_user())
        _warn_of_namesakes(name, reporter)
        if json:
            reporter.result(
                {
                    "name": names.name,
                    "distribution": names.distribution,
                    "module": names.module,
                    "folder": str(made.folder),
                    "files": list(made.files),
                }
            )
        else:
            print(*_told(made), sep="\n", flush=True)


@app.command()
def preview(
    name: Annotated[str, typer.Argument(help="The degradation, as an installed plugin names it.")],
    paths: Annotated[
        list[str] | None, typer.Argument(metavar="IMAGES", help="Clean photos, or folders.  [default: sample photos]")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The sheet.")] = Path("sheet.png"),
    seeds: Annotated[int, typer.Option(min=2, max=12, metavar="N", help="Damaged versions of each photo.")] = 6,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a sheet that exists.")] = False,
    max_megapixels: MaxMegapixels = 100.0,
) -> None:
    """Look at what a synthesiser does, on one sheet.

    Clean photos, each beside damaged versions from mild to strong, with their seeds and PSNR.
    """
    with reporting() as reporter:
        from abair import images
        from abair.data.synthesizers import load_synthesizer
        from abair.discovery import discover
        from abair.plugin_kit.preview import preview as sheet_of

        images.check_output(out, overwrite=overwrite)
        plugins = discover()
        synthesizer = load_synthesizer(plugins.get(name))
        photos = _photos(paths, max_megapixels, reporter)
        if not photos:
            return
        with reporter.progress("Damaging") as progress:
            pixels = sheet_of(plugins.found[name], synthesizer, photos, seeds, progress)
        sheet = images.Photo(pixels, alpha=None, grey=False, format="PNG", exif=None, icc_profile=None)
        images.write(out, sheet, pixels, overwrite=overwrite)
        reporter.log(f"written: {out}")


@app.command()
def check(
    target: Annotated[
        str, typer.Argument(metavar="NAME|DIR|WHEEL", help="An installed plugin, a project's folder, or a wheel.")
    ],
    json: Json = False,
) -> None:
    """Ask of a plugin what adding it will ask of the package and its adapter.

    Its wheel and what is in it, the probe, the card, and what its adapter is worth on held-out samples. Nothing is
    installed; its code runs as yours does.
    """
    with reporting() as reporter:
        checked = _checker()(target, (lambda text: None) if json else reporter.log)
        if json:
            reporter.result(checked.as_json())
        else:
            print(*_verdicts(checked), sep="\n", flush=True)
        if not checked.passed:
            reporter.failures += 1


def _checker() -> Any:
    """What probes plugins: a part of the registry, which the core does not import."""
    from importlib.metadata import entry_points

    for point in entry_points(group=CHECKERS):
        return point.load()
    raise MissingExtraError("plugin check: found no probe; install it with: pip install 'abair[registry]'")


def _verdicts(checked: Any) -> list[str]:
    """A line a check, what to do below those that did not pass, and how many those are."""
    widest = max(len(one.name) for one in checked.checks)
    lines = []
    for one in checked.checks:
        lines.append(f"{'passed ' if one.passed else 'REFUSED'}  {one.name:<{widest}}  {one_line(one.found)}")
        if not one.passed and one.advice:
            lines.append(f"         {'':<{widest}}  {one_line(one.advice)}")
    refused = sum(not one.passed for one in checked.checks)
    about = " ".join(filter(None, (checked.distribution or checked.plugin, checked.version)))
    lines.append(f"{about}: {len(checked.checks)} checks, " + (f"{refused} refused" if refused else "all passed"))
    return lines


def _photos(paths: list[str] | None, max_megapixels: float, reporter: Reporter) -> dict[str, NDArray[np.uint8]]:
    """Photos (H, W, 3) uint8 by name; one that cannot be read is reported, and the others go on."""
    from abair import images
    from abair.data.sample_photos import sample_photos
    from abair.images.pixels import reduce_to_8_bit

    if not paths:
        return sample_photos()
    photos: dict[str, NDArray[np.uint8]] = {}
    for found in inputs.find_inputs(paths, reporter):
        if len(photos) == MOST_PHOTOS:
            reporter.log(f"warning: the sheet holds the first {MOST_PHOTOS} photos; name others to see them")
            break
        with reporter.guard(str(found.path)):
            pixels = images.read(found.path, max_megapixels=max_megapixels).pixels
            photos[one_line(str(found.path))] = reduce_to_8_bit(pixels) if pixels.dtype.itemsize > 1 else pixels
    return photos


def _warn_of_namesakes(name: str, reporter: Reporter) -> None:
    """Say that a plugin of this name is installed; none is imported for it."""
    from abair.discovery import distribution_of, installed_points

    for point in installed_points([]):
        if point.name == name:
            distribution = " ".join(distribution_of(point))
            reporter.log(
                f"warning: plugin {name} is installed already (distribution {distribution}); of two plugins of one "
                "name neither is used, so choose another name or uninstall that one"
            )


def _git_user() -> str:
    """Whom git thinks it works for; nobody in particular where that cannot be had."""
    with suppress(OSError, subprocess.SubprocessError, PluginError):
        done = subprocess.run(
            ["git", "config", "user.name"],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=5,
            check=True,
        )
        return check_author(done.stdout[: LONGEST_AUTHOR + 1])
    return "The authors"


def _told(made: Made) -> list[str]:
    """What was made, and the commands that come next."""
    folder = made.folder if made.folder.is_absolute() or made.folder.parts[0] == ".." else f"./{made.folder}"
    where = shlex.quote(str(folder))
    return [
        f"{one_line(str(made.folder))}: a plugin that works; what it does to photos is in "
        f"src/{made.names.module}/synthesis.py",
        *(f"  {file}" for file in made.files),
        "next:",
        f"  pip install -e {where}",
        f"  pytest {where}",
        f"  abair plugin preview {made.names.name}",
        f"  abair train adapter {made.names.name}",
        f"  abair plugin check {where}",
    ]
