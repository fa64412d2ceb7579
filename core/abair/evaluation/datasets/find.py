"""The standard test sets below a folder, one picture at a time, with what was done to each.

Where pairs and clean pictures lie is found by `abair.evaluation.datasets.layouts`; what is made from clean pictures is
made by `abair.evaluation.datasets.synthetic`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from abair.errors import ImageError
from abair.evaluation.datasets.items import (
    SEED,
    EvaluationSet,
    Float,
    Item,
    Problems,
    degrade,
    picture_seed,
    picture_sha256,
    read_pixels,
)
from abair.evaluation.datasets.layouts import CLEAN_SETS, PAIRS, DataFolder, Pairs
from abair.evaluation.datasets.paper import FIVE_TASKS, SAVED, STAND_INS, TABLES
from abair.evaluation.datasets.severities import SAVED_QUALITY, saved
from abair.evaluation.datasets.synthetic import MADE, make_set
from abair.labels import CLEAN

if TYPE_CHECKING:
    from abair.data.synthesizers import Synthesizer

__all__ = [
    "ALL",
    "FIVE_TASKS",
    "SAVED",
    "SEED",
    "STANDARD",
    "EvaluationSet",
    "FoundSets",
    "Item",
    "Problems",
    "degrade",
    "find_sets",
    "picture_seed",
]


@dataclass(frozen=True)
class FoundSets:
    """The sets that are there, and for each that is not, why (`missing`, key to reason)."""

    sets: tuple[EvaluationSet, ...]
    missing: Mapping[str, str]


STANDARD: Final = (*FIVE_TASKS, CLEAN, "mix_blur_noise", "mix_haze_low-light")
_FIRST: Final = (*STANDARD, "CBSD68_s15", "CBSD68_s50", "CBSD68_s25_8bit")
ALL: Final = (*_FIRST, *(key for key in (*PAIRS, *MADE, *SAVED) if key not in _FIRST))


def find_sets(
    data: Path,
    synthesizers: Mapping[str, Synthesizer],
    names: Sequence[str] | None = STANDARD,
    *,
    limit: int | None = None,
) -> FoundSets:
    """The sets of `names` below `data`, in that order, each with at most `limit` pictures.

    A name is that of a set (of `ALL`), of a table (all its sets), or of a folder of pairs right below `data`; None
    asks for all that there are. `synthesizers` (label to function) damage clean pictures. A set that is not there, or
    cannot be made, is named in `missing`.

    Raises:
        ImageError: no such folder, an unknown name, or none of the sets is there.
    """
    if not data.is_dir():
        raise ImageError(f"{data}: no such folder; expected the folder of the test sets (--data DIR)")
    folder = DataFolder(data)
    others = folder.others()
    sets: list[EvaluationSet] = []
    missing: dict[str, str] = {}
    for name in _wanted(folder, names, others):
        found = _other(name, others[name]) if name in others else _find(folder, name, synthesizers)
        if isinstance(found, str):
            missing[name] = found
        else:
            sets.append(found if limit is None else replace(found, names=found.names[:limit]))
    if not sets:
        known = ", ".join(dict.fromkeys(["CBSD68", *PAIRS, *CLEAN_SETS]))
        raise ImageError(
            f"{data}: found none of the test sets; expected one or more of {known}, "
            "with clean/ and degraded/ in each, or as they are distributed (sets of clean pictures: clean/ alone); "
            "name the folder that holds them with --data DIR"
            + "".join(f"; {name}: {missing[name]}" for name in others if name in missing)
        )
    return FoundSets(tuple(sets), missing)


def _wanted(folder: DataFolder, names: Sequence[str] | None, others: Mapping[str, Pairs | str]) -> list[str]:
    """The keys of the sets that are asked for, each once."""
    if names is None:
        return list(dict.fromkeys([*ALL, *others]))
    tables = {table.key: table for table in TABLES}
    doubtful = [key for key in (*STAND_INS, *STAND_INS.values()) if isinstance(folder.pairs(key), Pairs)]
    keys: list[str] = []
    for name in names:
        if name in tables:
            keys += tables[name].members(doubtful, list(others))
        elif name in ALL or name in others:
            keys.append(name)
        else:
            raise ImageError(
                f"test set {name}: not known; expected some of {', '.join([*ALL, *others])}, or the tables "
                f"{', '.join(tables)}"
            )
    return list(dict.fromkeys(keys))


def _find(folder: DataFolder, name: str, synthesizers: Mapping[str, Synthesizer]) -> EvaluationSet | str:
    """One set, or why it is not there."""
    if name in PAIRS:
        pairs, known = folder.pairs(name), PAIRS[name]
        return pairs if isinstance(pairs, str) else _paired(name, known.title, (known.label,), pairs, luma=known.luma)
    if name in SAVED:
        found = _find(folder, SAVED[name], synthesizers)
        return found if isinstance(found, str) else _saved(name, found)
    return make_set(folder, name, synthesizers)


def _saved(key: str, damaged: EvaluationSet) -> EvaluationSet:
    def load(name: str) -> Item:
        item = damaged.load(name)
        return replace(item, degraded=degrade(item.degraded, [saved], picture_seed(key, name)))

    return replace(
        damaged,
        key=key,
        title=f"{damaged.title}, as JPEG Q{SAVED_QUALITY}",
        labels=(*damaged.labels, "jpeg"),
        note=f"{damaged.note}; the degraded ones saved as JPEG of quality {SAVED_QUALITY} with 4:2:0 colours (Pillow)",
        load=load,
        luma=False,
    )


def _other(name: str, pairs: Pairs | str) -> EvaluationSet | str:
    return pairs if isinstance(pairs, str) else _paired(name, name, (), pairs)


def _paired(key: str, title: str, labels: tuple[str, ...], pairs: Pairs, *, luma: bool = False) -> EvaluationSet:
    def load(name: str) -> Item:
        mine, other = pairs.degraded[name], pairs.clean[name]
        degraded, clean = read_pixels(mine), read_pixels(other)
        if pairs.border:
            clean = _without_border(clean, degraded)
        if degraded.shape != clean.shape:
            (h, w), (ch, cw) = degraded.shape[:2], clean.shape[:2]
            raise ImageError(f"{mine}: found {w} x {h} pixels, expected {cw} x {ch} as {other}; it is left out")
        return Item(name, degraded, clean, {"degraded": picture_sha256(mine), "clean": picture_sha256(other)})

    note = f"pairs as published ({pairs.told})" + (", true labels not known" if not labels else "")
    return EvaluationSet(key, title, labels, note, tuple(pairs.degraded), load, pairs.unpaired, luma)


def _without_border(clean: Float, degraded: Float) -> Float:
    """The middle of the clean picture, where it is larger by the same even number of pixels on both sides."""
    down, across = (c - d for c, d in zip(clean.shape[:2], degraded.shape[:2], strict=True))
    if down == across and down > 0 and down % 2 == 0:
        return clean[down // 2 : -(down // 2), down // 2 : -(down // 2)]
    return clean
