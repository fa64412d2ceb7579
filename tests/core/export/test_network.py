"""The network for other programs: the same images as the restorer's, from a graph that knows no size."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from abair import Restorer
from abair.export.network import PhotoNetwork, global_view
from abair.model import views

SIZES = ((1, 1), (1, 17), (5, 70), (63, 64), (64, 64), (100, 333), (600, 1100))


@pytest.fixture(scope="module")
def restorer(bundle: Path) -> Restorer:
    return Restorer.load(bundle)


@pytest.mark.parametrize("size", SIZES)
def test_the_view_of_the_graph_is_that_of_the_restorer(size: tuple[int, int]) -> None:
    image = torch.rand((1, 3, *size), generator=torch.Generator().manual_seed(0))
    expected = views.global_view(image[0].permute(1, 2, 0).numpy())
    assert torch.allclose(global_view(image), expected, atol=2e-6)


@pytest.mark.parametrize("size", SIZES[1:])  # of a single pixel the restorer keeps the tone
def test_a_network_of_fixed_weights_restores_as_the_restorer_does(restorer: Restorer, size: tuple[int, int]) -> None:
    image = torch.rand((3, *size), generator=torch.Generator().manual_seed(1))
    weights = restorer.complete_weights({restorer.labels[0]: 0.7})
    network = PhotoNetwork(restorer.blender, restorer.labels, weights)
    expected = restorer(image, weights=weights, tile=4096).image
    with torch.inference_mode():
        assert torch.allclose(network(image[None])[0], expected, atol=1e-5)


def test_weights_as_an_input_blend_as_the_restorer_does(restorer: Restorer) -> None:
    image = torch.rand((1, 3, 70, 90), generator=torch.Generator().manual_seed(2))
    network = PhotoNetwork(restorer.blender, restorer.labels)
    count = len(restorer.labels)
    for given in ([1.0, *[0.0] * (count - 1)], [1 / count] * count, [*[0.0] * (count - 1), 1.0]):
        fixed = PhotoNetwork(restorer.blender, restorer.labels, dict(zip(restorer.labels, given, strict=True)))
        with torch.inference_mode():
            assert torch.allclose(network(image, torch.tensor(given)), fixed(image), atol=1e-5)
    assert torch.equal(network(image, torch.tensor([*[0.0] * (count - 1), 1.0])), image)


def test_a_given_view_takes_the_place_of_the_images_own(restorer: Restorer) -> None:
    image = torch.rand((1, 3, 70, 90), generator=torch.Generator().manual_seed(3))
    weights = restorer.complete_weights({restorer.labels[0]: 1.0})
    network = PhotoNetwork(restorer.blender, restorer.labels, weights, with_view=True)
    with torch.inference_mode():
        own = network(image, view=global_view(image))
        assert torch.equal(own, network(image))
        assert not torch.allclose(network(image, view=torch.ones(1, 3, 64, 64)), own)
