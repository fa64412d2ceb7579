"""The network on strips gives what it gives on the whole photo, and nothing is computed twice."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch import Tensor

from abair.model.backbone import SIZES, Backbone, BackboneSize, freeze
from abair.model.strips import Strip, _StripLayers, stream_residual

DEEP = BackboneSize("deep", width=8, encoder=(2, 1, 2), middle=2, decoder=(1, 2, 1), context=16)


def network(size: BackboneSize) -> Backbone:
    """A network of random weights, so that nothing in it is zero or the identity."""
    torch.manual_seed(0)
    backbone = Backbone(size)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(0.15 * torch.randn_like(parameter))
    freeze(backbone)
    return backbone


def whole_residual(backbone: Backbone, photo: Tensor, context: Tensor) -> Tensor:
    """The residual (H, W, 3) of a photo (H, W, 3) by the path that training takes."""
    return backbone.residual(backbone.features(photo.permute(2, 0, 1)[None], context))[0].permute(1, 2, 0)


def streamed(backbone: Backbone, photo: Tensor, context: Tensor, rows: int, dtype: torch.dtype) -> list[Tensor]:
    tops = range(0, len(photo), rows)
    strips = (Strip(photo[top : top + rows], last=top + rows >= len(photo)) for top in tops)
    return list(stream_residual(backbone, strips, context, dtype))


@pytest.mark.parametrize("size", [SIZES["tiny"], DEEP], ids=["tiny", "deep"])
@pytest.mark.parametrize("rows", [16, 32, 48, 160])
@torch.inference_mode()
def test_strips_of_any_height_give_the_whole_photos_residual(size: BackboneSize, rows: int) -> None:
    backbone, photo = network(size), torch.rand(160, 64, 3)
    context = backbone.context(torch.rand(1, 3, 64, 64))
    expected = whole_residual(backbone, photo, context)
    found = torch.cat(streamed(backbone, photo, context, rows, torch.float32))
    assert expected.abs().max() > 0.1
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


@torch.inference_mode()
def test_the_smallest_photo_is_one_cell_of_the_coarsest_grid() -> None:
    backbone, photo = network(DEEP), torch.rand(16, 16, 3)
    context = backbone.context(torch.rand(1, 3, 64, 64))
    found = torch.cat(streamed(backbone, photo, context, 16, torch.float32))
    assert torch.allclose(found, whole_residual(backbone, photo, context), atol=1e-5)


@torch.inference_mode()
def test_a_skip_connection_keeps_only_the_strips_that_wait() -> None:
    """An iterator that is copied by `itertools.tee` keeps many more."""
    strips = (Strip(torch.zeros(16, 16, 3), last=index == 99) for index in range(100))
    layers = _StripLayers(torch.zeros(1, 16), torch.float32)
    ahead, behind = layers.fork(strips)
    kept = [weakref.ref(strip.rows) for strip, _ in zip(ahead, behind, strict=False)]
    assert len(kept) == 100
    assert sum(reference() is not None for reference in kept) <= 1


@torch.inference_mode()
def test_rows_come_as_soon_as_all_that_they_depend_on_is_there() -> None:
    """So memory does not grow with the height: the delay is that of the convolutions, whatever follows."""
    backbone, photo = network(DEEP), torch.rand(480, 32, 3)
    context = backbone.context(torch.rand(1, 3, 64, 64))
    asked = 0

    def strips() -> object:
        nonlocal asked
        for top in range(0, 480, 16):
            asked += 16
            yield Strip(photo[top : top + 16], last=top + 16 == 480)

    given = 0
    for residual in stream_residual(backbone, strips(), context):  # type: ignore[arg-type]
        given += len(residual)
        assert asked - given <= DEEP.reach + 16 or asked == 480
    assert given == 480


@torch.inference_mode()
def test_bfloat16_is_near() -> None:
    backbone, photo = network(SIZES["tiny"]), torch.rand(64, 64, 3)
    context = backbone.context(torch.rand(1, 3, 64, 64))
    expected = whole_residual(backbone, photo, context)
    found = streamed(backbone, photo, context, 32, torch.bfloat16)
    assert {part.dtype for part in found} == {torch.bfloat16}
    assert (torch.cat(found).float() - expected).square().mean().sqrt() < 0.02 * expected.abs().max()


@pytest.mark.parametrize("size", [SIZES["tiny"], SIZES["nano-2"], DEEP], ids=["tiny", "nano-2", "deep"])
@torch.inference_mode()
def test_nothing_beyond_its_reach_decides_on_a_pixel(size: BackboneSize) -> None:
    backbone, reach, stride = network(size).double(), size.reach, size.stride
    assert reach % stride == 0
    context = backbone.context(torch.rand(1, 3, 64, 64, dtype=torch.float64))
    photo = torch.rand(stride, 2 * reach + 5 * stride, 3, dtype=torch.float64)
    inner = slice(reach + 2 * stride, reach + 3 * stride)
    expected = whole_residual(backbone, photo, context)[:, inner]
    largest = expected.abs().max()
    for beside, same in ((reach, True), (reach - 2 * stride, False)):
        cut = photo[:, inner.start - beside : inner.stop + beside]
        difference = (whole_residual(backbone, cut, context)[:, beside:-beside] - expected).abs().max()
        assert (difference < 1e-13 * largest) == same
