"""`abair plugin`: list the installed plugins; make, preview and check one's own."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Protocol, cast

import typer

from abair.cli import inputs
from abair.cli.console import LINE_SECONDS, Reporter, reporting
from abair.cli.options import PLAIN, Json, MaxMegapixels
from abair.errors import ImageError, MissingExtraError, PluginError
from abair.own_points import find_own
from abair.plugin_kit.scaffold import LONGEST_AUTHOR, Licence, Package, check_author, make_package
from abair.text import one_line, quote_foreign

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

app = typer.Typer(help="List the installed plugins; make, preview and check your own.", **PLAIN)

CHECKERS: Final = "abair.checkers"
"""The entry-point group of the function that checks plugins."""
MOST_PHOTOS: Final = 12
"""Rows of a preview."""


class CheckResult(Protocol):
    """One thing that was checked: what was found, and what to do if it did not pass."""

    name: str
    passed: bool
    found: str
    advice: str


class CheckReport(Protocol):
    """What the registry's checker returns."""

    plugin: str
    distribution: str
    version: str
    checks: list[CheckResult]

    @property
    def passed(self) -> bool:
        """Whether all checks passed."""

    def as_json(self) -> dict[str, object]:
        """Return the report as JSON values."""


Checker = Callable[[str, Callable[[str], None]], CheckReport]
"""Checks a plugin, a project or a wheel; says on the way what it is doing."""


@app.command("list")
def list_plugins() -> None:
    """List the degradations of the installed plugins.

    A plugin that cannot be used is one line on stderr, and so is a distribution whose entry points
    cannot be read.
    """
    with reporting() as reporter:
        from abair.discovery import discover

        plugins = discover()
        rows = [["degradation", "title", "distribution", "adapters for"]]
        for name, found in sorted(plugins.found.items()):
            folder = found.degradation.adapters
            sizes = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
            provided_by = f"{found.distribution} {found.version}"
            cells = [name, found.degradation.title, provided_by, ", ".join(sizes) or "none"]
            rows.append([quote_foreign(cell, 100) for cell in cells])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows if plugins.found else ():
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip(), flush=True)
        if not plugins.found:
            reporter.log("found no usable plugin; install one, as from a checkout: pip install ./plugins/abair-noise")
        for problem in plugins.problems:
            reporter.failures += bool(problem.name)
            reporter.log(str(problem) if problem.name else f"warning: {problem}")


def _author(author: str | None) -> str | None:
    """Check the option --author."""
    try:
        return author if author is None else check_author(author)
    except PluginError as error:
        raise typer.BadParameter(str(error)) from None


@app.command()
def new(
    name: Annotated[
        str, typer.Argument(help="Name of the degradation, for example film-grain; all other names follow from it.")
    ],
    parent: Annotated[
        Path, typer.Option("--dir", metavar="DIR", help="Make the package's folder in this one.")
    ] = Path(),
    licence: Annotated[Licence, typer.Option(help="Licence of the package's code.")] = Licence.apache,
    author: Annotated[
        str | None,
        typer.Option(metavar="TEXT", callback=_author, help="Author of the package.  [default: git's user.name]"),
    ] = None,
    json: Json = False,
) -> None:
    """Make a plugin package that works, with tests, README and an adapter.

    It fades photos like old colour prints; replace that in its synthesis.py by your own
    degradation.
    """
    from abair.plugin_kit.naming import derive_names

    try:
        names = derive_names(name)
    except PluginError as error:
        raise typer.BadParameter(str(error), param_hint="NAME") from None
    with reporting(json_lines=json) as reporter, reporter.guard(name):
        package = make_package(names, parent, licence=licence, author=author or _git_user())
        _warn_of_namesakes(name, reporter)
        if json:
            reporter.result(
                {
                    "name": names.name,
                    "distribution": names.distribution,
                    "module": names.module,
                    "folder": str(package.folder),
                    "files": list(package.files),
                }
            )
        else:
            print(*_next_steps(package), sep="\n", flush=True)


@app.command()
def preview(
    name: Annotated[str, typer.Argument(help="The degradation, by the name that `abair plugin list` shows.")],
    paths: Annotated[
        list[str] | None, typer.Argument(metavar="IMAGES", help="Clean photos, or folders.  [default: sample photos]")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="Write the preview to this PNG file.  [default: NAME.png]"),
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=2, max=12, metavar="N", help="Show this many degraded versions of each photo.")
    ] = 6,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the file even if it is no earlier preview.")
    ] = False,
    max_megapixels: MaxMegapixels = 100.0,
) -> None:
    """Write a contact sheet of what a plugin's synthesiser does to photos.

    It shows each clean photo beside degraded versions from mild to strong, with their seeds and
    PSNR. An earlier preview is replaced.
    """
    with reporting() as reporter:
        from abair.discovery import discover

        plugins = discover()
        degradation = plugins.get(name)  # before anything that takes seconds to import

        from abair import images
        from abair.plugin_kit.sheet import is_preview, save_preview

        out = out or Path(f"{name}.png")
        images.check_output(out, overwrite=overwrite or is_preview(out))
        if out.suffix.lower() != ".png":
            raise ImageError(f"{out}: found suffix {out.suffix}, expected .png; rename the output")

        from abair.data.synthesizers import load_synthesizer
        from abair.plugin_kit.preview import preview as draw_preview

        synthesizer = load_synthesizer(degradation)
        photos = _photos(paths, max_megapixels, reporter)
        if not photos:
            return
        with reporter.progress("degrading photos", lines_every=LINE_SECONDS) as progress:
            pixels = draw_preview(plugins.found[name], synthesizer, photos, seeds, progress)
        save_preview(pixels, out)
        reporter.log(f"written: {out}")


@app.command()
def check(
    target: Annotated[
        str, typer.Argument(metavar="NAME|DIR|WHEEL", help="An installed plugin, a project's folder, or a wheel file.")
    ],
    json: Json = False,
) -> None:
    """Check a plugin as `abair-registry add` does.

    It checks the wheel, its contents, the declaration, the card, and the adapter. The adapter is
    measured on held-out samples. Nothing is installed, but the plugin's code runs with your rights.
    """
    with reporting() as reporter:
        checked = _checker()(target, (lambda _: None) if json else reporter.log)
        if json:
            reporter.result(checked.as_json())
        else:
            print(*_verdicts(checked), sep="\n", flush=True)
        if not checked.passed:
            reporter.failures += 1


def _checker() -> Checker:
    """Return the function that checks plugins, which the registry provides."""
    if (point := find_own(CHECKERS)) is not None:
        return cast("Checker", point.load())
    raise MissingExtraError("plugin check: found no checker; install it with: pip install 'abair[registry]'")


def _verdicts(checked: CheckReport) -> list[str]:
    """Return a line a check, advice below those that did not pass, and a line with their number."""
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
    """Return photos (H, W, 3) uint8 by name; one that cannot be read is reported and left out."""
    from abair import images
    from abair.data.sample_photos import sample_photos
    from abair.images.pixels import reduce_to_8_bit

    if not paths:
        return sample_photos()
    photos: dict[str, NDArray[np.uint8]] = {}
    for found in inputs.find_inputs(paths, reporter):
        if len(photos) == MOST_PHOTOS:
            reporter.log(f"warning: the preview shows the first {MOST_PHOTOS} photos; name others to see them")
            break
        with reporter.guard(str(found.path)):
            pixels = images.read(found.path, max_megapixels=max_megapixels).pixels
            photos[one_line(str(found.path))] = reduce_to_8_bit(pixels) if pixels.dtype.itemsize > 1 else pixels
    return photos


def _warn_of_namesakes(name: str, reporter: Reporter) -> None:
    """Warn if a plugin of this name is installed; none is imported for it."""
    from abair.discovery import distribution_of, installed_points

    for point in installed_points([]):
        if point.name == name:
            distribution = " ".join(distribution_of(point))
            reporter.log(
                f"warning: plugin {name} is installed already (distribution {distribution}); of two plugins of one "
                "name neither is used, so choose another name or uninstall that one"
            )


def _git_user() -> str:
    """Return git's user.name, or `The authors` where there is none."""
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


def _next_steps(package: Package) -> list[str]:
    """Return lines with the package's files and the commands that come next."""
    folder = (
        package.folder if package.folder.is_absolute() or package.folder.parts[0] == ".." else f"./{package.folder}"
    )
    where = shlex.quote(str(folder))
    return [
        f"{one_line(str(package.folder))}: a plugin that works; what it does to photos is in "
        f"src/{package.names.module}/synthesis.py",
        *(f"  {file}" for file in package.files),
        "next:",
        f"  pip install -e {where}",
        f"  pytest {where}",
        f"  abair plugin preview {package.names.name}",
        f"  abair train adapter {package.names.name}",
        f"  abair plugin check {where}",
    ]
