"""The paper's tables: the test sets of each, in order."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from abair.labels import CLEAN

FIVE_TASKS: Final = ("CBSD68_s25", "Rain100L", "SOTS_indoor", "GoPro", "LOL_eval15")
"""The sets of the five-task mean."""

STAND_INS: Final = {"SOTS_indoor": "SOTS_outdoor"}
"""Sets that another one replaces if it is there: the paper's haze is that of outdoor scenes."""

RESAVED: Final = {f"{key}_jpeg30": key for key in ("Rain100L", "SOTS_indoor", "GoPro", "LOL_eval15")}
"""Sets of damaged pictures saved as JPEG afterwards, and their sources; in no paper's table."""


@dataclass(frozen=True)
class PaperTable:
    """A table: key, title, and the keys of its sets in order.

    With `open_end`, replaced sets and sets of unknown damage follow.
    """

    key: str
    title: str
    sets: tuple[str, ...]
    open_end: bool = False

    def members(self, present: Collection[str], unknown: Collection[str] = ()) -> tuple[str, ...]:
        """Return the keys of the table's sets, given the `present` and the `unknown` ones."""
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
    PaperTable("saved", "damage saved as JPEG", tuple(RESAVED)),
    PaperTable("files", "noise in 8-bit files", ("CBSD68_s25_8bit",)),
)
