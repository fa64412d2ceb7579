"""The network: its size, its shapes, what its fingerprint says, and the file it is kept in."""

from __future__ import annotations

import json
import pickle
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from abair.errors import DeploymentError
from abair.model.backbone import (
    GLOBAL_VIEW,
    SIZES,
    Backbone,
    fingerprint,
    freeze,
    load_backbone,
    pad_to_stride,
    pool_global_view,
    save_backbone,
)


def _backbone(seed: int = 0) -> Backbone:
    """A tiny backbone whose output layer is not zero, so that it changes what it is given."""
    torch.manual_seed(seed)
    backbone = Backbone(SIZES["tiny"])
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return backbone.eval()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "backbone.safetensors"
    save_backbone(_backbone(), path)
    return path


def _tensors(file: Path) -> dict[str, Tensor]:
    """Copies: safetensors maps the file, which the tests overwrite."""
    return {name: tensor.clone() for name, tensor in load_file(file).items()}


def _rewrite(file: Path, tensors: dict[str, Tensor] | None = None, **description: Any) -> None:
    size = json.loads(json.dumps(asdict(SIZES["tiny"]))) | description
    save_file(tensors or _tensors(file), file, metadata={"abair.backbone": json.dumps(size)})


def test_the_shipped_size_has_at_most_4_million_parameters_and_the_sizes_grow() -> None:
    with torch.device("meta"):
        counts = {name: sum(p.numel() for p in Backbone(size).parameters()) for name, size in SIZES.items()}
    assert list(counts) == ["tiny", "nano", "nano-2", "small", "base"]
    assert counts["nano"] == counts["nano-2"] <= 4_000_000
    assert list(counts.values()) == sorted(counts.values())


def test_an_untrained_network_changes_nothing() -> None:
    x = torch.rand(1, 3, 20, 28)
    assert torch.equal(Backbone(SIZES["tiny"])(x), x)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 1), (3, 5), (7, 64), (33, 31), (64, 64), (130, 70)])
@torch.inference_mode()
def test_every_size_is_restored_to_the_same_size(shape: tuple[int, int]) -> None:
    x = torch.rand(1, 3, *shape)
    restored = _backbone()(x)
    assert restored.shape == x.shape
    assert restored.isfinite().all()
    assert not torch.equal(restored, x)


@torch.inference_mode()
def test_a_batch_gives_what_its_images_give_alone() -> None:
    backbone, x = _backbone(), torch.rand(3, 3, 21, 34)
    alone = torch.cat([backbone(image[None]) for image in x])
    assert (backbone(x) - alone).abs().max() < 1e-5


@torch.inference_mode()
def test_beside_the_context_the_network_is_local() -> None:
    """What makes tiles possible: with one global view, a far-away change does not reach a pixel."""
    backbone, x = _backbone(), torch.rand(1, 3, 64, 64)
    changed = x.clone()
    changed[..., 48:, 48:] = 0
    view = pool_global_view(x)
    assert torch.allclose(backbone(x, view)[..., :16, :16], backbone(changed, view)[..., :16, :16], atol=1e-6)
    assert not torch.allclose(backbone(x)[..., :16, :16], backbone(changed)[..., :16, :16], atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (5, 200), (64, 64), (300, 90)])
def test_the_global_view_is_of_one_size_and_keeps_flat_images(shape: tuple[int, int]) -> None:
    view = pool_global_view(torch.full((2, 3, *shape), 0.3))
    assert view.shape == (2, 3, GLOBAL_VIEW, GLOBAL_VIEW)
    assert torch.allclose(view, torch.tensor(0.3))


def test_padding_reaches_the_next_multiple_by_reflection() -> None:
    x = torch.rand(1, 3, 13, 16)
    padded = pad_to_stride(x, 8)
    assert padded.shape == (1, 3, 16, 16)
    assert torch.equal(padded[..., :13, :], x)
    assert torch.equal(padded[..., 13, :], x[..., 11, :])


def test_freezing_switches_gradients_and_training_mode_off() -> None:
    backbone = Backbone(SIZES["tiny"])
    assert all(parameter.requires_grad for parameter in backbone.parameters())
    freeze(backbone)
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert not any(module.training for module in backbone.modules())


def test_the_fingerprint_is_of_names_shapes_and_values() -> None:
    base = nn.Linear(2, 3, bias=False)
    found = fingerprint(base)
    assert len(found) == 64
    assert found == fingerprint(base)

    other_value = nn.Linear(2, 3, bias=False)
    other_value.weight = nn.Parameter(base.weight.detach().clone())
    assert fingerprint(other_value) == found
    with torch.no_grad():
        other_value.weight[2, 1] = torch.nextafter(other_value.weight[2, 1], torch.tensor(9.0))
    assert fingerprint(other_value) != found

    other_shape = nn.Linear(3, 2, bias=False)
    other_shape.weight = nn.Parameter(base.weight.detach().reshape(2, 3))
    assert fingerprint(other_shape) != found

    assert fingerprint(nn.Sequential(base)) != found


def test_the_fingerprint_does_not_depend_on_the_memory_format_or_on_gradients() -> None:
    backbone = _backbone()
    found = fingerprint(backbone)
    backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert not backbone.stem.weight.is_contiguous()
    freeze(backbone)
    assert fingerprint(backbone) == found


def test_saved_in_16_bits_and_read_back_it_is_the_same_network(tmp_path: Path) -> None:
    backbone, path = _backbone(), tmp_path / "new folder" / "b.safetensors"
    unrounded = fingerprint(backbone)
    written = save_backbone(backbone, path)
    read = load_backbone(path)
    assert {tensor.dtype for tensor in load_file(path).values()} == {torch.float16}
    assert written == fingerprint(read) == fingerprint(backbone) != unrounded
    assert read.size == backbone.size
    assert not any(parameter.requires_grad or parameter.is_meta for parameter in read.parameters())
    assert {parameter.dtype for parameter in read.parameters()} == {torch.float32}
    x = torch.rand(1, 3, 24, 24)
    with torch.inference_mode():
        assert torch.allclose(read(x), backbone(x), atol=1e-5)
    assert save_backbone(read, tmp_path / "again.safetensors") == written


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DeploymentError, match=r"none\.safetensors: cannot be read"):
        load_backbone(tmp_path / "none.safetensors")


def test_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    for name in ("backbone.safetensors", "backbone.pt"):
        (tmp_path / name).write_bytes(pickle.dumps(Trap()))
        with pytest.raises(DeploymentError, match="not a safetensors file"):
            load_backbone(tmp_path / name)
    torch.save(_backbone().state_dict(), tmp_path / "weights.pth")
    with pytest.raises(DeploymentError, match="not a safetensors file"):
        load_backbone(tmp_path / "weights.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kept", [0, 4, 100, 2000, -1])
def test_a_truncated_file_is_refused(file: Path, kept: int) -> None:
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(DeploymentError, match=r"backbone\.safetensors: (not a|damaged) safetensors file"):
        load_backbone(file)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_refused(file: Path, value: float) -> None:
    tensors = _tensors(file)
    tensors["stem.weight"].view(-1)[7] = value
    _rewrite(file, tensors)
    with pytest.raises(DeploymentError, match=r"stem\.weight: found NaN or infinite values, expected finite"):
        load_backbone(file)


def test_a_wrong_shape_is_refused(file: Path) -> None:
    _rewrite(file, _tensors(file) | {"output.bias": torch.zeros(13)})
    with pytest.raises(DeploymentError, match=r"output\.bias: found shape \(13,\), expected \(12,\)"):
        load_backbone(file)


def test_missing_and_unknown_tensors_are_refused_by_name(file: Path) -> None:
    tensors = _tensors(file)
    del tensors["output.bias"]
    _rewrite(file, tensors | {"extra.bias": torch.zeros(1)})
    with pytest.raises(DeploymentError, match=r"missing output\.bias; not expected extra\.bias"):
        load_backbone(file)


def test_a_file_without_a_backbones_metadata_is_refused(file: Path) -> None:
    save_file(_tensors(file), file)
    with pytest.raises(DeploymentError, match="no backbone in this file"):
        load_backbone(file)


@pytest.mark.parametrize(
    "description",
    [
        {"width": 16},
        {"width": 0},
        {"width": -8},
        {"width": 8.0},
        {"width": 10**9},
        {"width": None},
        {"middle": 10**9},
        {"middle": True},
        {"encoder": 1},
        {"encoder": [1, 1]},
        {"encoder": ["1"]},
        {"decoder": [10**6]},
        {"colour": 3},
    ],
)
def test_metadata_of_another_network_is_refused(file: Path, description: dict[str, Any]) -> None:
    _rewrite(file, **description)
    with pytest.raises(DeploymentError, match=r"backbone\.safetensors: "):
        load_backbone(file)


@pytest.mark.parametrize("text", ["", "not JSON", "[]", "3", "null", "{}", "[" * 100_000])
def test_metadata_that_is_no_description_is_refused(file: Path, text: str) -> None:
    save_file(_tensors(file), file, metadata={"abair.backbone": text})
    with pytest.raises(DeploymentError, match="description cannot be used"):
        load_backbone(file)
