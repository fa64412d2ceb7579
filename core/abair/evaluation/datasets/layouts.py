"""How the public test sets lie on disk, as they are distributed and as we keep them; the pictures found below a folder.

What is recognised stands in `PAIRS` and `CLEAN_SETS`, and nowhere else. Patterns are regular expressions, upper and
lower case alike, of a whole path with `/`: of a set's folder below the folder that is searched (any folders may stand
before it), and of a picture below its set's folder, without the ending.
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
DEEPEST: Final = 3
"""Folders below the one that is searched, and below a set's own, are looked into down to this depth."""


@dataclass(frozen=True)
class Layout:
    """How damaged and clean pictures are paired: those whose patterns' groups agree; `level` only tells copies apart.

    `border`: clean pictures may be larger by a border of the same width on opposite sides.
    """

    told: str
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
    """A set of pairs: title, true label, its folder's pattern, its layouts; `luma`: its papers measure on Y."""

    title: str
    label: str
    folder: str
    layouts: tuple[Layout, ...]
    luma: bool = False


PAIRS: Final = {
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
"""Sets of clean pictures: the folder's pattern, and in which folder below it they lie, the first that holds any."""


@dataclass(frozen=True)
class Pairs:
    """A set's pictures by name, and one error for each file that has no partner."""

    told: str
    degraded: Mapping[str, Path]
    clean: Mapping[str, Path]
    border: bool
    unpaired: tuple[ImageError, ...]


class DataFolder:
    """A folder that holds test sets. What is not there is told by a line in place of what was looked for."""

    def __init__(self, data: Path) -> None:
        self.data = data

    def pairs(self, key: str) -> Pairs | str:
        """The pairs of a set of `PAIRS`."""
        wanted = PAIRS[key]
        folders = self._folders(wanted.folder)
        for folder in folders:
            if found := _pairs(folder, wanted.layouts):
                return found
        first = folders[0] if folders else self.data / key
        layouts = "; ".join(layout.told for layout in wanted.layouts[1:])
        return (
            f"found no pairs in {first / 'clean'} and {first / 'degraded'}, nor in another layout ({layouts})"
            + self._similar(key)
        )

    def clean(self, key: str) -> dict[str, Path] | str:
        """The pictures of a set of `CLEAN_SETS` by name."""
        pattern, places = CLEAN_SETS[key]
        folders = self._folders(pattern)
        for folder in folders:
            files = _pictures(folder)
            for place in places:
                if named := _matching(files, place + _NAME):
                    return dict(sorted(named.items()))
        first = folders[0] if folders else self.data / key
        return f"found no pictures in {first / places[0]} nor in {first}" + self._similar(key)

    def others(self) -> dict[str, Pairs | str]:
        """The folders right below that are none of the known sets but hold pictures: their pairs by their names."""
        found: dict[str, Pairs | str] = {}
        for name in self._strangers:
            folder = self.data / name
            if pairs := _pairs(folder, (OURS, TARGETS)):
                found[name] = pairs
            elif _pictures(folder, deepest=1):
                found[name] = (
                    f"found pictures in {folder}, but neither in {OURS.told} nor in {TARGETS.told}; "
                    f"expected one of these, or a known set's name and layout"
                )
        return found

    def _folders(self, pattern: str) -> list[Path]:
        """Deepest first: of a set that is split into training and test, the test part has the set's name and more."""
        whole = re.compile(f"(?:.*/)?(?:{pattern})", re.IGNORECASE)
        matching = [name for name in self._names if whole.fullmatch(name)]
        return [self.data / name for name in sorted(matching, key=lambda name: (-name.count("/"), name))]

    @cached_property
    def _names(self) -> list[str]:
        return [folder for folder, _ in _walk(self.data, DEEPEST) if folder]

    @cached_property
    def _strangers(self) -> list[str]:
        """Folders right below that neither are nor hold a known set."""
        patterns = [wanted.folder for wanted in PAIRS.values()] + [pattern for pattern, _ in CLEAN_SETS.values()]
        known = {folder.relative_to(self.data).parts[0] for pattern in patterns for folder in self._folders(pattern)}
        return [name for name in self._names if "/" not in name and name not in known]

    def _similar(self, key: str) -> str:
        """What to say where a folder's name nearly fits."""
        plain = {re.sub("[^a-z0-9]", "", name.lower()): name for name in self._strangers}
        wanted = re.sub("[^a-z0-9]", "", key.lower())
        near = [name for name in plain if name.startswith(wanted)] or get_close_matches(wanted, plain, 1, 0.8)
        return f"; if {plain[near[0]]} is this set, call it {key}" if near else ""


def _pairs(folder: Path, layouts: tuple[Layout, ...]) -> Pairs | None:
    """The pairs of the first layout that has any."""
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
            ImageError(f"{path}: found no picture of that name to pair it with ({layout.told}); it is left out")
            for path in alone
        )
        return Pairs(
            layout.told,
            {name: mine for name, (mine, _) in sorted(both.items())},
            {name: other for name, (_, other) in sorted(both.items())},
            layout.border,
            unpaired,
        )
    return None


def _matching(files: Mapping[str, Path], pattern: str) -> dict[str, Path]:
    """The files that a pattern fits, by what its groups hold; behind a `level` stands a zero byte."""
    whole, named = re.compile(pattern, re.IGNORECASE), {}
    for name, path in files.items():
        if match := whole.fullmatch(name):
            groups = match.groupdict()
            level = groups.pop("level", None)
            named["/".join(groups.values()) + (f"\0{level}" if level else "")] = path
    return named


def _pictures(folder: Path, deepest: int = DEEPEST) -> dict[str, Path]:
    """The picture files of a folder by their path below it, with `/` and without the ending."""
    found = {}
    for below, names in _walk(folder, deepest):
        for name in names:
            path = folder / below / name
            if path.suffix.lower() in images.SUFFIXES:
                found[f"{below}/{path.stem}" if below else path.stem] = path
    return found


def _walk(folder: Path, deepest: int) -> Iterator[tuple[str, list[str]]]:
    """Every folder by its path below `folder` with `/`, and the names of its files; hidden ones are passed over."""
    for here, folders, files in os.walk(folder, followlinks=True):
        below = Path(here).relative_to(folder)
        yield "" if below == Path() else below.as_posix(), sorted(files)
        folders[:] = sorted(name for name in folders if name[:1] != ".") if len(below.parts) < deepest else []
