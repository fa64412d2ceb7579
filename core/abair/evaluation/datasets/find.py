"""Find the standard test sets below a folder.

`abair.evaluation.datasets.layouts` finds pairs and clean pictures on disk;
`abair.evaluation.datasets.synthetic` makes test sets from clean pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from abair.errors import ImageError
from abair.evaluation.datasets.items import EvaluationSet, Float, Item, picture_sha256, read_pixels
from abair.evaluation.datasets.layouts import CLEAN_SETS, PAIRED_SETS, DataFolder, Pairs
from abair.evaluation.datasets.paper import FIVE_TASKS, RESAVED, STAND_INS, TABLES
from abair.evaluation.datasets.synthetic import SYNTHETIC_SETS, make_set, resaved_set
from abair.labels import CLEAN

if TYPE_CHECKING:
    from abair.data.synthesizers import Synthesizer


@dataclass(frozen=True)
class FoundSets:
    """The sets that were found; `missing` maps the key of each other one to the reason."""

    sets: tuple[EvaluationSet, ...]
    missing: Mapping[str, str]


STANDARD_SETS: Final = (*FIVE_TASKS, CLEAN, "mix_blur_noise", "mix_haze_low-light")
_FIRST: Final = (*STANDARD_SETS, "CBSD68_s15", "CBSD68_s50", "CBSD68_s25_8bit")
ALL_SETS: Final = (*_FIRST, *(key for key in (*PAIRED_SETS, *SYNTHETIC_SETS, *RESAVED) if key not in _FIRST))


def find_sets(
    data: Path,
    synthesizers: Mapping[str, Synthesizer],
    names: Sequence[str] | None = STANDARD_SETS,
    *,
    limit: int | None = None,
) -> FoundSets:
    """Find the sets of `names` below `data`, in that order, each with at most `limit` pictures.

    A name is the key of a set (of `ALL_SETS`) or of a table (all its sets), or a folder of pairs
    right below `data`. None finds everything that is there. `synthesizers` maps labels to the
    functions that damage clean pictures. Sets that were not found or cannot be made are in
    `missing`.

    Raises:
        ImageError: the folder does not exist, a name is unknown, or none of the sets was found.
    """
    if not data.is_dir():
        raise ImageError(f"{data}: found no such folder, expected the folder of the test sets; name it with --data")
    folder = DataFolder(data)
    other_pairs = folder.other_pairs()
    sets: list[EvaluationSet] = []
    missing: dict[str, str] = {}
    for key in _resolve_names(folder, names, other_pairs):
        result = _pairs_of_a_folder(key, other_pairs[key]) if key in other_pairs else _find(folder, key, synthesizers)
        if isinstance(result, str):
            missing[key] = result
        else:
            sets.append(result if limit is None else replace(result, names=result.names[:limit]))
    if not sets:
        known = ", ".join(dict.fromkeys(["CBSD68", *PAIRED_SETS, *CLEAN_SETS]))
        raise ImageError(
            f"{data}: found none of the test sets; expected one or more of {known}, "
            "with clean/ and degraded/ in each, or as they are distributed (sets of clean pictures: clean/ alone); "
            "name the folder that holds them with --data DIR"
            + "".join(f"; {name}: {missing[name]}" for name in other_pairs if name in missing)
        )
    return FoundSets(tuple(sets), missing)


def _resolve_names(
    folder: DataFolder, names: Sequence[str] | None, other_pairs: Mapping[str, Pairs | str]
) -> list[str]:
    """Return the keys of the sets that `names` ask for, each once."""
    if names is None:
        return list(dict.fromkeys([*ALL_SETS, *other_pairs]))
    tables = {table.key: table for table in TABLES}
    present = [key for key in (*STAND_INS, *STAND_INS.values()) if isinstance(folder.pairs(key), Pairs)]
    keys: list[str] = []
    for name in names:
        if name in tables:
            keys += tables[name].members(present, list(other_pairs))
        elif name in ALL_SETS or name in other_pairs:
            keys.append(name)
        else:
            raise ImageError(
                f"test set {name}: not known; expected some of {', '.join([*ALL_SETS, *other_pairs])}, or the tables "
                f"{', '.join(tables)}"
            )
    return list(dict.fromkeys(keys))


def _find(folder: DataFolder, key: str, synthesizers: Mapping[str, Synthesizer]) -> EvaluationSet | str:
    """Return one set, or why it is not there."""
    if key in PAIRED_SETS:
        pairs, known = folder.pairs(key), PAIRED_SETS[key]
        return pairs if isinstance(pairs, str) else _paired_set(key, known.title, (known.label,), pairs, known.luma)
    if key in RESAVED:
        damaged = _find(folder, RESAVED[key], synthesizers)
        return damaged if isinstance(damaged, str) else resaved_set(key, damaged)
    return make_set(folder, key, synthesizers)


def _pairs_of_a_folder(name: str, pairs: Pairs | str) -> EvaluationSet | str:
    return pairs if isinstance(pairs, str) else _paired_set(name, name, (), pairs)


def _paired_set(key: str, title: str, labels: tuple[str, ...], pairs: Pairs, luma: bool = False) -> EvaluationSet:
    def load(name: str) -> Item:
        degraded_path, clean_path = pairs.degraded[name], pairs.clean[name]
        degraded, clean = read_pixels(degraded_path), read_pixels(clean_path)
        if pairs.border:
            clean = _crop_border(clean, degraded)
        if degraded.shape != clean.shape:
            (h, w), (ch, cw) = degraded.shape[:2], clean.shape[:2]
            raise ImageError(
                f"{degraded_path}: found {w} x {h} pixels, expected {cw} x {ch} as {clean_path}; it is left out"
            )
        hashes = {"degraded": picture_sha256(degraded_path), "clean": picture_sha256(clean_path)}
        return Item(name, degraded, clean, hashes)

    note = f"pairs as published ({pairs.layout})" + (", true labels not known" if not labels else "")
    return EvaluationSet(key, title, labels, note, tuple(pairs.degraded), load, pairs.unpaired, luma)


def _crop_border(clean: Float, degraded: Float) -> Float:
    """Crop the clean picture if height and width exceed the other by the same even number."""
    down, across = (c - d for c, d in zip(clean.shape[:2], degraded.shape[:2], strict=True))
    if down == across and down > 0 and down % 2 == 0:
        return clean[down // 2 : -(down // 2), down // 2 : -(down // 2)]
    return clean
