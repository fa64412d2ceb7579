"""A plugin's synthesiser that fails, or returns no image, is named wherever it is used."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Generator, Tensor

from abair.contract import Card, Degradation
from abair.data.degrade import Degrader
from abair.data.synthesizers import import_synthesizer, load_synthesizer
from abair.errors import PluginError

CLEAN = torch.rand((3, 8, 9), generator=Generator().manual_seed(0))


def degradation(monkeypatch: pytest.MonkeyPatch, degrade: object) -> Degradation:
    module = ModuleType("abair_frost_synthesis")
    module.degrade = degrade  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    card = Card(authors=("A",), licence="MIT", training_data="none")
    return Degradation(
        name="frost", title="Frost", synthesizer=f"{module.__name__}:degrade", adapters=Path("adapters"), card=card
    )


def raising(error: BaseException) -> Callable[[Tensor, Generator], Tensor]:
    def degrade(clean: Tensor, generator: Generator) -> Tensor:
        raise error

    return degrade


def test_an_image_comes_back_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    found = degradation(monkeypatch, lambda clean, generator: clean / 2)
    assert torch.equal(load_synthesizer(found)(CLEAN, Generator()), CLEAN / 2)


@pytest.mark.parametrize(
    ("degrade", "says"),
    [
        (lambda clean, generator: None, r"returned None; expected a tensor of finite floats, \(3, 8, 9\)"),
        (lambda clean, generator: clean.tolist(), "returned list; expected"),
        (lambda clean, generator: clean[:, :1], r"returned float32, \(3, 1, 9\); expected"),
        (lambda clean, generator: (255 * clean).byte(), r"returned uint8, \(3, 8, 9\); expected"),
        (lambda clean, generator: clean / 0 * 0, "returned NaN or infinite values; expected"),
        (lambda clean, generator: -clean / 0, "returned NaN or infinite values; expected"),
        (raising(ZeroDivisionError("by zero")), r"failed \(ZeroDivisionError: by zero\); expected a damaged image"),
        (raising(SystemExit(0)), r"failed \(SystemExit: 0\)"),
        (raising(StopIteration()), r"failed \(StopIteration\)"),
    ],
)
def test_what_is_no_image_is_refused_by_its_name(
    monkeypatch: pytest.MonkeyPatch, degrade: Callable[[Tensor, Generator], Tensor], says: str
) -> None:
    found = degradation(monkeypatch, degrade)
    with pytest.raises(PluginError, match=f"degradation frost: its synthesiser {says}"):
        load_synthesizer(found)(CLEAN, Generator())
    with pytest.raises(PluginError, match="degradation frost"):
        Degrader({"frost": load_synthesizer(found)}).single(CLEAN, "frost", Generator())


def test_ctrl_c_passes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt):
        load_synthesizer(degradation(monkeypatch, raising(KeyboardInterrupt())))(CLEAN, Generator())


def test_what_is_imported_is_the_function_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    degrade = raising(ValueError())
    assert import_synthesizer(degradation(monkeypatch, degrade)) is degrade
