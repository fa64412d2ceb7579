"""The paper's tables: which test sets stand in which, in which order."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from abair.labels import CLEAN

FIVE_TASKS: Final = ("CBSD68_s25", "Rain100L", "SOTS_indoor", "GoPro", "LOL_eval15")
"""The sets of the five-task mean."""

STAND_INS: Final = {"SOTS_indoor": "SOTS_outdoor"}
"""The paper's haze is that of the outdoor scenes: where they are there, they take the place of the indoor ones."""


SAVED: Final = {f"{key}_jpeg30": key for key in ("Rain100L", "SOTS_indoor", "GoPro", "LOL_eval15")}
"""Damaged pictures that were saved as JPEG since, as people's are, by the set that they are of; no table of a paper."""


@dataclass(frozen=True)
class PaperTable:
    """A table: key, title, and the keys of its sets in order; `open_end`: sets of unknown damage follow them."""

    key: str
    title: str
    sets: tuple[str, ...]
    open_end: bool = False

    def members(self, present: Collection[str], unknown: Collection[str] = ()) -> tuple[str, ...]:
        """The keys of all sets that it is made of, given those that are `present`, and of those the `unknown` ones."""
        keys = [STAND_INS[key] if STAND_INS.get(key) in present else key for key in self.sets]
        if self.open_end:
            keys += [key for key, better in STAND_INS.items() if {key, better} <= set(present)]
            keys += unknown
        return tuple(keys)


TABLES: Final = (
    PaperTable("five_tasks", "five tasks", FIVE_TASKS),
    PaperTable("three_tasks", "three tasks", ("SOTS_indoor", "Rain100L", "CBSD68_s15", "CBSD68_s25", "CBSD68_s50")),
    PaperTable(
        "unseen_sets",
        "unseen sets",
        ("Rain100H", "Kodak24_s25", "Urban100_s25", "McMaster_s25", "HIDE"),
        open_end=True,
    ),
    PaperTable("unseen_degradations", "unseen degradations", ("CBSD68_jpeg20", "CBSD68_4bit", "CBSD68_snow")),
    PaperTable(
        "mixtures",
        "mixtures",
        ("mix_blur_noise", "mix_blur_jpeg", "mix_haze_snow", "mix_low-light_noise", "mix_haze_low-light"),
    ),
    PaperTable("clean", "clean photos", (CLEAN,)),
    PaperTable("saved", "damage saved as JPEG", tuple(SAVED)),
    PaperTable("files", "noise in 8-bit files", ("CBSD68_s25_8bit",)),
)
