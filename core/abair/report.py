"""Measurements of a candidate on held-out samples, and verdicts: the input and output of gates."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from abair.labels import CLEAN

Way = Literal["input", "backbone", "OH", "SW", "Oracle", "champion"]
"""What a sample went through: nothing; the bare backbone; the challenger by its likeliest label, by
its soft weights, by the true labels; the deployment that is live, by its soft weights."""


class Group(BaseModel):
    """Held-out samples with one kind of damage: a label, a mixture, or none.

    `psnr` holds for each way the PSNR in dB of each sample that was restored, `ssim` the structural
    similarity, the same samples in the same order for all ways; `champion` goes by the labels that
    it knows, and is missing where nothing is live. `top` is the challenger's likeliest label for
    each sample. Looking costs less than restoring: there may be more samples in `top`, after those
    that were restored. `strength` is the PSNR in dB of each sample of `top` before restoration, if
    that was measured; faint damage has a high one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    labels: tuple[str, ...] = Field(min_length=1)
    psnr: dict[Way, tuple[FiniteFloat, ...]]
    ssim: dict[Way, tuple[FiniteFloat, ...]] = Field(default_factory=dict)
    top: tuple[str, ...] = Field(min_length=1)
    strength: tuple[FiniteFloat, ...] = ()

    @property
    def count(self) -> int:
        """How many samples were restored."""
        return len(self.psnr["SW"])

    @property
    def name(self) -> str:
        """The label, or those of a mixture in the order of the damage: `blur + noise`."""
        return " + ".join(self.labels)

    @model_validator(mode="after")
    def _same_samples(self) -> Group:
        if missing := {"input", "backbone", "OH", "SW", "Oracle"} - self.psnr.keys():
            raise ValueError(f"{self.name}: found no {', '.join(sorted(missing))}")
        for measure in (self.psnr, self.ssim):
            counts = {way: len(values) for way, values in measure.items()}
            if set(counts.values()) - {self.count}:
                raise ValueError(f"{self.name}: found {counts} samples, expected as many for each way")
        if not 1 <= self.count <= len(self.top):
            raise ValueError(f"{self.name}: found {self.count} restored samples, expected 1 to {len(self.top)}")
        if self.strength and len(self.strength) != len(self.top):
            raise ValueError(f"{self.name}: found {len(self.strength)} strengths, expected {len(self.top)}")
        return self

    def mean(self, way: Way) -> float:
        """Return the mean PSNR in dB."""
        return sum(self.psnr[way]) / len(self.psnr[way])

    @property
    def recall(self) -> float:
        """Share of the samples whose likeliest label is one of the true ones."""
        return sum(label in self.labels for label in self.top) / len(self.top)


class Report(BaseModel):
    """All groups, and which labels the candidate brings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    new: tuple[str, ...]
    groups: tuple[Group, ...]

    @model_validator(mode="after")
    def _complete(self) -> Report:
        names = [group.name for group in self.groups]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"found {twice[0]} more than once")
        if missing := [label for label in (*self.new, CLEAN) if label not in names]:
            raise ValueError(f"found no samples of {', '.join(missing)}")
        return self

    def group(self, name: str) -> Group:
        """Return the group of this name.

        Raises:
            KeyError: there is none.
        """
        return {group.name: group for group in self.groups}[name]


class Verdict(BaseModel):
    """A gate's verdict: what was measured, in `unit`, the threshold, advice if it did not pass.

    `detail` is shown beside the measured value: its interval, the number of samples.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    passed: bool
    measured: FiniteFloat
    threshold: FiniteFloat
    unit: str = ""
    advice: str = ""
    detail: str = ""
