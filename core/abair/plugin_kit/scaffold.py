"""Making a plugin package from the template: rendered in memory, written aside, then renamed.

In `template/` a file `*.jinja` is rendered and loses that ending, every other is copied byte for
byte, and the folder `module` takes the package's name. Jinja's delimiters are `[[ ]]` and `[% %]`,
since Python files are full of braces. `licences/` holds the texts of the licences, each named by
its SPDX id.
"""

from __future__ import annotations

import json
import secrets
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Final

import abair
from abair.errors import PluginError
from abair.plugin_kit.naming import Names

TEMPLATE: Final = Path(__file__).parent / "template"
LICENCES: Final = Path(__file__).parent / "licences"
RENDERED: Final = ".jinja"
MODULE: Final = "module"

LONGEST_AUTHOR: Final = 80
"""In characters: the name stands in lines of Python that a formatter does not break."""


class Licence(StrEnum):
    """The licences that the kit has the text of, by their SPDX ids."""

    apache = "Apache-2.0"
    mit = "MIT"
    bsd = "BSD-3-Clause"


@dataclass(frozen=True)
class Package:
    """A package that was written: its folder, and its files' names below it."""

    names: Names
    folder: Path
    files: tuple[str, ...]


def make_package(
    names: Names, parent: Path, *, licence: Licence = Licence.apache, author: str = "The authors"
) -> Package:
    """Write the package into a new folder of `parent`, all of it or nothing.

    Raises:
        PluginError: the folder exists already (it stays as it is), it cannot be written, or
            `author` is invalid.
    """
    folder = parent / names.distribution
    if folder.exists() or folder.is_symlink():
        raise PluginError(f"{folder}: found it there already, expected a free name; choose another --dir or name")
    files = render(names, licence=licence, author=author)
    aside = parent / f".{names.distribution}-{secrets.token_hex(4)}"
    try:
        for name, content in files.items():
            path = aside / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        aside.rename(folder)
    except OSError as error:
        raise PluginError(
            f"{folder}: cannot be written ({error.strerror or error}), expected a writable folder; choose another --dir"
        ) from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return Package(names, folder, tuple(files))


def render(
    names: Names,
    *,
    licence: Licence = Licence.apache,
    author: str = "The authors",
    template: Path = TEMPLATE,
) -> dict[str, bytes]:
    """Return the package's files by their names below its folder, in the order of the names.

    Raises:
        PluginError: `author` is empty, longer than `LONGEST_AUTHOR`, or holds control characters.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    author = check_author(author)
    environment = Environment(
        loader=FileSystemLoader([template, LICENCES]),
        undefined=StrictUndefined,
        variable_start_string="[[",
        variable_end_string="]]",
        block_start_string="[%",
        block_end_string="%]",
        comment_start_string="[#",
        comment_end_string="#]",
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["quoted"] = _quote
    major, minor = (int(part) for part in abair.__version__.split(".")[:2])
    context = {
        "names": names,
        "licence": licence.value,
        "author": author,
        "year": datetime.now(UTC).year,
        "abair": f">={major}.{minor},<{major}.{minor + 1}",
    }
    files = {}
    for path in template.rglob("*"):
        if path.is_file():
            relative = path.relative_to(template)
            name = PurePosixPath(*(names.module if part == MODULE else part for part in relative.parts)).as_posix()
            if path.suffix == RENDERED:
                text = environment.get_template(relative.as_posix()).render(context)
                files[name.removesuffix(RENDERED)] = text.encode()
            else:
                files[name] = path.read_bytes()
    return dict(sorted(files.items()))


def check_author(author: str) -> str:
    """Return the author's name without surrounding whitespace.

    Raises:
        PluginError: it is empty, longer than `LONGEST_AUTHOR`, or holds control characters.
    """
    stripped = author.strip()
    if not 0 < len(stripped) <= LONGEST_AUTHOR or not stripped.isprintable():
        raise PluginError(
            f"author: found {author[: LONGEST_AUTHOR + 20]!r}, "
            f"expected a name of 1 to {LONGEST_AUTHOR} printable characters"
        )
    return stripped


def _quote(text: str) -> str:
    """Return a string literal of TOML and of Python alike, in the quotes of a formatter."""
    return f"'{text}'" if '"' in text and not set(text) & {"'", "\\"} else json.dumps(text, ensure_ascii=False)
