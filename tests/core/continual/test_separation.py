"""What features tell apart, and what they do not."""

from __future__ import annotations

import pytest
import torch

from abair.continual.replay import Features
from abair.continual.separation import describe_separation, measure_separation

COUNT, WIDTH = 60, 12
KNOWN = ("dark", "noise", "clean")


def drawn(labels: tuple[str, ...], centres: list[torch.Tensor], seed: int) -> Features:
    generator = torch.Generator().manual_seed(seed)
    values = [centre + torch.randn(COUNT, WIDTH, generator=generator) for centre in centres]
    return Features("x", labels, torch.cat(values), torch.eye(len(labels)).repeat_interleave(COUNT, 0))


def centre(place: int, distance: float = 6.0) -> torch.Tensor:
    return distance * torch.eye(WIDTH)[place]


@pytest.fixture
def known() -> Features:
    return drawn(KNOWN, [centre(place) for place in range(3)], 0)


def test_a_label_with_a_look_of_its_own_is_told_from_all_others(known: Features) -> None:
    found = measure_separation("red", drawn(("red", "clean"), [centre(5), centre(2)], 1), [known])
    assert sorted(one.other for one in found) == sorted(KNOWN)
    assert found[0].area > 0.97
    assert describe_separation(found).startswith("red: features tell it from each other label")


def test_a_look_alike_is_named_with_the_measure_and_what_to_do(known: Features) -> None:
    found = measure_separation("hiss", drawn(("hiss", "clean"), [centre(1), centre(2)], 1), [known])
    assert found[0].other == "noise"
    assert found[0].area == pytest.approx(0.5, abs=0.15)
    assert not any(one.hard for one in found[1:])
    said = describe_separation(found)
    assert said.startswith(
        f"hiss: features hardly tell it from noise {found[0].area:.2f} (area under the curve; 0.5 is"
    )
    assert "show more of hiss that does not look like noise" in said
    assert "mildest" not in said


def test_faint_damage_is_told_to_be_stronger(known: Features) -> None:
    faint = drawn(("faint", "clean"), [centre(2) + 0.5 * centre(6, 1.0), centre(2)], 1)
    found = measure_separation("faint", faint, [known])
    assert found[0].other == "clean"
    assert "let the mildest damage of faint be stronger" in describe_separation(found)


def test_samples_of_parts_and_labels_with_few_samples_say_nothing(known: Features) -> None:
    new = drawn(("red", "clean"), [centre(5), centre(2)], 1)
    halves = Features("x", new.labels, new.values, torch.full((2 * COUNT, 2), 0.5))
    assert measure_separation("red", halves, [known]) == []
    assert describe_separation([]) == ""
    few = Features("x", ("rare",), known.values[:3], torch.ones(3, 1))
    assert "rare" not in [one.other for one in measure_separation("red", new, [known, few])]
