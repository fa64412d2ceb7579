"""Fixtures for the command line: a quick restorer, an empty working directory, a caller."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from abair.cli import app, loading

LABELS = ("noise", "blur", "clean")

Abair = Callable[..., SimpleNamespace]
"""Calls the command line; gives the exit code, the lines on stdout and stderr, and stdout's JSON."""


class Judged(NamedTuple):
    """As the platform's: importing that would import torch."""

    weights: dict[str, float]
    confidence: float | None
    unknown: float | None


class FakeRestorer:
    """Inverts a photo, and keeps what it was called with."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.loaded: list[tuple[Any, ...]] = []
        self.invert = True
        self.confidence: float | None = 0.98
        self.unknown: float | None = 0.4
        self.warnings: tuple[str, ...] = ()
        self.before: Callable[[np.ndarray], None] = lambda pixels: None

    def load(self, *given: Any) -> FakeRestorer:
        self.loaded.append(given)
        return self

    def estimate(self, image: np.ndarray) -> dict[str, float]:
        return self.judge(image).weights

    def judge(self, image: np.ndarray) -> Judged:
        self.before(image)
        return Judged({"noise": 0.75, "blur": 0.25, "clean": 0.0}, self.confidence, self.unknown)

    def __call__(self, image: np.ndarray, **options: Any) -> Any:
        self.before(image)
        self.calls.append({"pixels": image, **options})
        weights = options["weights"] if options["weights"] is not None else self.estimate(image)
        return SimpleNamespace(
            image=np.iinfo(image.dtype).max - image if self.invert else image,
            weights=weights,
            policy=options["policy"] if options["weights"] is None else "given",
            quality=options["quality"],
            deployment="fake-1",
            seconds=0.5,
            megapixels=image.shape[0] * image.shape[1] / 1e6,
            confidence=self.confidence if options["weights"] is None else None,
            unknown=self.unknown if options["weights"] is None else None,
            warnings=self.warnings,
            further_looks=({"noise": 0.9, "blur": 0.0, "clean": 0.1},) if options["looks"] != 1 else (),
        )


@pytest.fixture
def restorer(monkeypatch: pytest.MonkeyPatch) -> FakeRestorer:
    fake = FakeRestorer()
    monkeypatch.setattr(loading, "load_restorer", fake.load)
    return fake


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ABAIR_DEBUG", raising=False)


@pytest.fixture
def abair(capsys: pytest.CaptureFixture[str]) -> Iterator[Abair]:
    """Calls the command line; gives the exit code, the lines on stdout and on stderr, and stdout's JSON."""

    def call(*arguments: str) -> SimpleNamespace:
        code = app.run(arguments)
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        records = [json.loads(line) for line in said.out.splitlines()] if "--json" in arguments else []
        return SimpleNamespace(code=code, out=said.out.splitlines(), err=said.err.splitlines(), records=records)

    yield call
    assert logging.getLogger("abair").handlers == []


def photo(path: str, *, seed: int = 0, size: tuple[int, int] = (6, 5)) -> Path:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file)
    return file


def pixels(path: str | Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def files(folder: str | Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())


def write_manifest(folder: str) -> str:
    zero = {"path": "x", "size": 0, "sha256": "0" * 64}
    adapters = [
        {"degradation": d, "title": d, "distribution": "x", "version": "1", "config": zero, "weights": zero}
        for d in LABELS[:-1]
    ]
    backbone = {"size": "nano", "fingerprint": "0" * 64, "file": zero}
    found = {"name": "d", "created": "2026-01-01T00:00:00Z", "labels": LABELS, "backbone": backbone,
             "adapters": adapters, "estimator": zero}  # fmt: skip
    Path(folder).mkdir()
    Path(folder, "deployment.json").write_text(json.dumps(found))
    return folder
