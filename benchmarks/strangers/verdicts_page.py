"""The page on the strangers' verdicts and figures, as Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from abair.text import markdown_table

SAMPLES = "sample photos"
"""The clean photos that come along, where no folder is given."""


def page(results: Sequence[Mapping[str, Any]]) -> str:
    """Return the page on all results as Markdown."""
    good = [one for one in results if one["expected"] == "live"]
    bad = [one for one in results if one["expected"] == "refused"]
    folders = dict.fromkeys(added["clean"] for one in results for added in one["additions"])
    options = " ".join("--sample-photos" if folder == SAMPLES else f"--clean path/to/{folder}" for folder in folders)
    agree = sum(len({added["outcome"] for added in one["additions"]}) == 1 for one in results)
    return "\n\n".join(
        [
            "# Strangers",
            "Plugins for damage that ABAIR was not made with, each made from the template with an adapter of\n"
            "some minutes, and added with the default gates. Three are bad and must be refused. This page was\n"
            "written by",
            f"```sh\npython benchmarks/strangers/run.py --data path/to/photos \\\n  {options}\n```",
            f"Of {len(good)} good ones go live: {_count_by_folder(good, 'live')}.\nOf {len(bad)} bad ones are refused: "
            f"{_count_by_folder(bad, 'rejected')}.\n\n"
            f"The verdicts of {agree} of {len(results)} agree over the folders.",
            "PSNR in dB of whole photos that nobody trained on, at most 50: damaged, restored by what was live\n"
            "before, by what is live now, and by the stranger's own adapter. *Lost* is the largest mean loss of\n"
            "a label that was live.",
            markdown_table(
                ["stranger", "is", "verdicts", "recognised", "damaged", "before", "after", "own adapter", "lost",
                 "training: minutes", "adding: processor seconds"],
                [_row(one) for one in results], left=range(3),
            ),
            "## What was refused",
            "\n".join(_reasons(results)) or "Nothing.",
            "",
        ]
    )  # fmt: skip


def _count_by_folder(results: Sequence[Mapping[str, Any]], outcome: str) -> str:
    """Return how many ended so with each folder of clean photos, in words."""
    folders = dict.fromkeys(added["clean"] for one in results for added in one["additions"])
    counts = {
        folder: sum(
            (added["clean"], added["outcome"]) == (folder, outcome) for one in results for added in one["additions"]
        )
        for folder in folders
    }
    return ", ".join(f"{count} with {folder}" for folder, count in counts.items())


def _row(one: Mapping[str, Any]) -> list[str]:
    verdicts = "; ".join(f"{added['outcome']} ({added['clean']})" for added in one["additions"])
    took = ", ".join(f"{added['cpu_seconds']:.0f}" for added in one["additions"])
    figures = one["figures"]
    shown = ["-"] * 6
    if figures:
        lost = max(figures["losses"].items(), key=lambda pair: pair[1], default=("-", 0.0))
        shown = [f"{figures['recognised']} of {figures['photos']}"]
        shown += [f"{figures[way]:.2f}" for way in ("damaged", "before", "after", "own adapter")]
        shown.append(f"{lost[1]:.2f} ({lost[0]})")
    return [
        one["name"], "good" if one["expected"] == "live" else "bad", verdicts, *shown,
        f"{one['training']['minutes']:.0f}", took,
    ]  # fmt: skip


def _reasons(results: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield an item for each addition that did not go live: by which gates, and their figures."""
    for one in results:
        for added in one["additions"]:
            by = [
                f"{gate['name']} {gate['measured']:.2f} (threshold {gate['threshold']:g})"
                for gate in added["gates"]
                if not gate["passed"]
            ]
            if added["outcome"] != "live":
                found = ", ".join(by) or (added["said"].strip().splitlines() or ["no reason was told"])[-1]
                yield textwrap.fill(f"- {one['name']} ({added['clean']}): {found}", 100, subsequent_indent="  ")
