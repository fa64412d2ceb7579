"""The layouts of the public test sets on disk, as distributed and as we keep them.

`PAIRED_SETS` and `CLEAN_SETS` list everything that is recognised. Patterns are case-insensitive
regular expressions for a whole path with `/`. Folder patterns match a set's folder below the folder
that is searched, at any depth. Picture patterns match a path below the set's folder without the
file's suffix.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Final

from abair import images
from abair.errors import ImageError

_NAME: Final = "(?P<name>[^/]+)"
MAX_DEPTH: Final = 3
"""Levels of folders that are searched below the data folder, and again below a set's own folder."""


@dataclass(frozen=True)
class Layout:
    """Patterns of damaged and clean pictures; a pair agrees in all named groups except `level`.

    `level` distinguishes several damaged copies of one clean picture. With `border`, clean pictures
    may be larger by a border of the same width on all sides.
    """

    description: str
    degraded: str
    clean: str
    border: bool = False


OURS: Final = Layout("degraded/ and clean/", f"degraded/{_NAME}", f"clean/{_NAME}")
TARGETS: Final = Layout("input/ and target/", f"input/{_NAME}", f"target/{_NAME}")
RAIN: Final = Layout(
    "rain-* and norain-*, in rain/ or rainy/ and norain/ or side by side",
    r"(?:rainy?/(?:x2/)?(?:(?:no)?rain-)?|rain-)(?P<name>[^/]+?)(?:x2)?",
    f"(?:norain/(?:norain-)?|norain-){_NAME}",
)
HAZE: Final = Layout(
    "hazy/ and gt/ or clear/", "hazy/(?P<name>[^/_]+)(?P<level>_[^/]*)?", f"(?:gt|clear)/{_NAME}", border=True
)
LOW_LIGHT: Final = Layout("low/ and high/", f"low/{_NAME}", f"high/{_NAME}")
SEQUENCES: Final = Layout(
    "blur/ and sharp/ in a folder a sequence",
    f"(?P<sequence>[^/]+)/blur/{_NAME}",
    f"(?P<sequence>[^/]+)/sharp/{_NAME}",
)
HIDE: Final = Layout("test/ and GT/", f"test/(?:test-[^/]+/)?{_NAME}", f"gt/{_NAME}")


@dataclass(frozen=True)
class PairedSet:
    """A set of pairs; with `luma`, its papers measure on Y."""

    title: str
    label: str
    folder: str
    layouts: tuple[Layout, ...]
    luma: bool = False


PAIRED_SETS: Final = {
    "Rain100L": PairedSet("Rain100L", "rain", "rain100l|rain_data_test_light", (OURS, TARGETS, RAIN), luma=True),
    "SOTS_indoor": PairedSet("SOTS indoor", "haze", "sots[/_-]indoor(/nyuhaze500)?", (OURS, TARGETS, HAZE)),
    "GoPro": PairedSet("GoPro", "blur", "gopro([_-]large)?(/test)?", (OURS, TARGETS, SEQUENCES)),
    "LOL_eval15": PairedSet(
        "LOL eval15", "low-light", "lol_eval15|lol([_-]?v1|[_-]?dataset)?/eval15", (OURS, TARGETS, LOW_LIGHT)
    ),
    "SOTS_outdoor": PairedSet("SOTS outdoor", "haze", "sots[/_-]outdoor", (OURS, TARGETS, HAZE)),
    "Rain100H": PairedSet("Rain100H", "rain", "rain100h|rain_data_test_heavy", (OURS, TARGETS, RAIN), luma=True),
    "HIDE": PairedSet("HIDE", "blur", "hide([_-]dataset)?", (OURS, TARGETS, HIDE)),
}

CLEAN_SETS: Final = {
    "CBSD68": ("cbsd68", ("clean/", "original_png/", "")),
    "Kodak24": ("kodak(24)?", ("clean/", "")),
    "Urban100": ("urban100", ("clean/", "hr/", "")),
    "McMaster": ("mcmaster", ("clean/", "")),
}
"""Sets of clean pictures: folder pattern, and sub-folders; the first one with pictures is used."""


@dataclass(frozen=True)
class Pairs:
    """A set's pictures by name, and one error for each file that has no partner."""

    layout: str
    degraded: Mapping[str, Path]
    clean: Mapping[str, Path]
    border: bool
    unpaired: tuple[ImageError, ...]


class DataFolder:
    """A folder of test sets. For what is not there, methods return the reason as a string."""

    def __init__(self, data: Path) -> None:
        self.data = data

    def pairs(self, key: str) -> Pairs | str:
        """Return the pairs of a set of `PAIRED_SETS`, or why there are none."""
        wanted = PAIRED_SETS[key]
        folders = self._folders(wanted.folder)
        for folder in folders:
            if found := _pairs(folder, wanted.layouts):
                return found
        first = folders[0] if folders else self.data / key
        layouts = "; ".join(layout.description for layout in wanted.layouts[1:])
        return (
            f"found no pairs in {first / 'clean'} and {first / 'degraded'}, nor in another layout ({layouts})"
            + self._similar(key)
        )

    def clean(self, key: str) -> dict[str, Path] | str:
        """Return the pictures of a set of `CLEAN_SETS` by name, or why there are none."""
        pattern, places = CLEAN_SETS[key]
        folders = self._folders(pattern)
        for folder in folders:
            files = _pictures(folder)
            for place in places:
                if named := _matching(files, place + _NAME):
                    return dict(sorted(named.items()))
        first = folders[0] if folders else self.data / key
        return f"found no pictures in {first / places[0]} nor in {first}" + self._similar(key)

    def other_pairs(self) -> dict[str, Pairs | str]:
        """Return the pairs of each folder right below that holds pictures but is no known set."""
        found: dict[str, Pairs | str] = {}
        for name in self._unknown_folders:
            folder = self.data / name
            if pairs := _pairs(folder, (OURS, TARGETS)):
                found[name] = pairs
            elif _pictures(folder, max_depth=1):
                found[name] = (
                    f"found pictures in {folder}, but neither in {OURS.description} nor in {TARGETS.description}; "
                    f"expected one of these, or a known set's name and layout"
                )
        return found

    def _folders(self, pattern: str) -> list[Path]:
        """Return the matching folders, deepest first: test splits lie below a set's folder."""
        whole = re.compile(f"(?:.*/)?(?:{pattern})", re.IGNORECASE)
        matching = [name for name in self._names if whole.fullmatch(name)]
        return [self.data / name for name in sorted(matching, key=lambda name: (-name.count("/"), name))]

    @cached_property
    def _names(self) -> list[str]:
        return [folder for folder, _ in _walk(self.data, MAX_DEPTH) if folder]

    @cached_property
    def _unknown_folders(self) -> list[str]:
        """The folders right below that neither are nor contain a known set."""
        patterns = [wanted.folder for wanted in PAIRED_SETS.values()] + [pattern for pattern, _ in CLEAN_SETS.values()]
        known = {folder.relative_to(self.data).parts[0] for pattern in patterns for folder in self._folders(pattern)}
        return [name for name in self._names if "/" not in name and name not in known]

    def _similar(self, key: str) -> str:
        """Return advice for the case that a folder's name nearly matches a set's."""
        plain = {re.sub("[^a-z0-9]", "", name.lower()): name for name in self._unknown_folders}
        wanted = re.sub("[^a-z0-9]", "", key.lower())
        near = [name for name in plain if name.startswith(wanted)] or get_close_matches(wanted, plain, 1, 0.8)
        return f"; if {plain[near[0]]} is this set, rename it to {key}" if near else ""


def _pairs(folder: Path, layouts: tuple[Layout, ...]) -> Pairs | None:
    """Return the pairs of the first layout that has any."""
    files = _pictures(folder)
    for layout in layouts:
        degraded, clean = _matching(files, layout.degraded), _matching(files, layout.clean)
        copies: dict[str, list[str]] = {}
        for name in sorted(degraded):
            copies.setdefault(name.split("\0")[0], []).append(name)
        if not copies.keys() & clean.keys():
            continue
        both = {name.replace("\0", ""): (degraded[name], clean[key])
                for key, names in copies.items() if key in clean for name in names}  # fmt: skip
        alone = [path for key, path in clean.items() if key not in copies]
        alone += [degraded[name] for key, names in copies.items() if key not in clean for name in names]
        unpaired = tuple(
            ImageError(f"{path}: found no picture of that name to pair it with ({layout.description}); it is left out")
            for path in alone
        )
        return Pairs(
            layout.description,
            {name: mine for name, (mine, _) in sorted(both.items())},
            {name: other for name, (_, other) in sorted(both.items())},
            layout.border,
            unpaired,
        )
    return None


def _matching(files: Mapping[str, Path], pattern: str) -> dict[str, Path]:
    """Return the matching files, keyed by the pattern's groups; a zero byte precedes a `level`."""
    whole, named = re.compile(pattern, re.IGNORECASE), {}
    for name, path in files.items():
        if match := whole.fullmatch(name):
            groups = match.groupdict()
            level = groups.pop("level", None)
            named["/".join(groups.values()) + (f"\0{level}" if level else "")] = path
    return named


def _pictures(folder: Path, max_depth: int = MAX_DEPTH) -> dict[str, Path]:
    """Return the picture files below a folder by relative path with `/` and without suffix."""
    found = {}
    for below, names in _walk(folder, max_depth):
        for name in names:
            path = folder / below / name
            if path.suffix.lower() in images.SUFFIXES:
                found[f"{below}/{path.stem}" if below else path.stem] = path
    return found


def _walk(folder: Path, max_depth: int) -> Iterator[tuple[str, list[str]]]:
    """Yield the relative path with `/` of every folder that is not hidden, and its files' names."""
    for here, folders, files in os.walk(folder, followlinks=True):
        below = Path(here).relative_to(folder)
        yield "" if below == Path() else below.as_posix(), sorted(files)
        folders[:] = sorted(name for name in folders if name[:1] != ".") if len(below.parts) < max_depth else []
