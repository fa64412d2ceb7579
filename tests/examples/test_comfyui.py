"""The ComfyUI nodes, without ComfyUI: what it reads of them, and images as it hands them over."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

from abair import Restorer

FILE = Path(__file__).parents[2] / "examples" / "comfyui" / "__init__.py"


@pytest.fixture(scope="module")
def pack() -> ModuleType:
    spec = importlib.util.spec_from_file_location("comfyui_abair", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pack_stays_short() -> None:
    assert len(FILE.read_text(encoding="utf-8").splitlines()) <= 150


def test_every_node_has_what_comfyui_reads(pack: ModuleType) -> None:
    assert set(pack.NODE_CLASS_MAPPINGS) == set(pack.NODE_DISPLAY_NAME_MAPPINGS)
    for node in pack.NODE_CLASS_MAPPINGS.values():
        inputs = node.INPUT_TYPES()
        assert set(inputs) <= {"required", "optional", "hidden"}
        names = {name for group in inputs.values() for name in group}
        code = getattr(node, node.FUNCTION).__code__
        assert names == set(code.co_varnames[1 : code.co_argcount]), "each input is a parameter"
        assert len(node.RETURN_TYPES) == len(node.RETURN_NAMES)
        assert node.CATEGORY


def test_images_are_restored_as_the_restorer_does(pack: ModuleType, bundle: Path) -> None:
    restorer = Restorer.load(bundle)
    label = restorer.labels[0]
    images = torch.rand((2, 40, 50, 3), generator=torch.Generator().manual_seed(0))
    restored, said = pack.AbairRestore().restore(images, 1.0, "soft", f"{label}=0.5", deployment=str(bundle))
    assert restored.shape == images.shape
    expected = restorer(images[1].permute(2, 0, 1), weights={label: 0.5}).image
    assert torch.equal(restored[1].permute(2, 0, 1), expected)
    assert said.splitlines() == [f"{label} 0.50, clean 0.50"] * 2


def test_an_alpha_channel_is_kept(pack: ModuleType, bundle: Path) -> None:
    images = torch.rand((1, 40, 50, 4), generator=torch.Generator().manual_seed(1))
    restored, _ = pack.AbairRestore().restore(images, 0.5, "one-hot", deployment=str(bundle))
    assert torch.equal(restored[..., 3], images[..., 3])


def test_the_estimate_is_a_line_for_each_image(pack: ModuleType, bundle: Path) -> None:
    (said,) = pack.AbairEstimate().estimate(torch.rand(2, 40, 50, 3), deployment=str(bundle))
    assert len(said.splitlines()) == 2


@pytest.mark.parametrize("text", ["noise", "noise=much", "=1=2"])
def test_weights_of_another_form_are_refused_in_one_line(pack: ModuleType, text: str) -> None:
    with pytest.raises(ValueError, match="expected label=number"):
        pack.parse_weights(text)
