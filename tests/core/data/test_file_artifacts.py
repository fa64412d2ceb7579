"""What happens to photos before and after they are damaged: tones, and files."""

from __future__ import annotations

import pytest
import torch

from abair.data import file_artifacts
from abair.data.degrade import Degrader, Recipe, SampleKind
from abair.data.file_artifacts import FileKind
from abair.data.seeds import generator_from
from abair.errors import TrainingError


def _picture() -> torch.Tensor:
    rows, columns = torch.linspace(0, 1, 90)[:, None], torch.linspace(0, 1, 70)[None]
    return torch.stack([rows.expand(90, 70), columns.expand(90, 70), rows * columns])


@pytest.mark.parametrize("shape", [(3, 1, 1), (3, 7, 200), (3, 64, 64)])
def test_a_file_gives_back_nearly_the_same_picture_in_8_bits(shape: tuple[int, ...]) -> None:
    image = torch.rand(shape, generator=generator_from(1)) * 0.1 + 0.4
    kept = image.clone()
    for seed in range(20):
        made = file_artifacts.apply_file_artifacts(image, generator_from(seed))
        assert made.shape == image.shape
        assert torch.allclose(made * 255, (made * 255).round(), atol=1e-4)
        assert float((made - image).abs().mean()) < 0.06
        assert torch.equal(made, file_artifacts.apply_file_artifacts(image, generator_from(seed)))
    assert torch.equal(image, kept)


def test_files_are_of_many_qualities_and_depths() -> None:
    image = _picture()
    levels, errors = [], []
    for seed in range(100):
        made = file_artifacts.apply_file_artifacts(image, generator_from(seed))
        levels.append(len(made.unique()))
        errors.append(float((made - image).square().mean()))
    few = [count for count in levels if count <= 2 ** file_artifacts.BITS[1]]
    assert len(few) == pytest.approx(100 * (1 - file_artifacts.JPEG_SHARE), abs=12)
    assert min(few) <= 2 ** file_artifacts.BITS[0]
    assert max(errors) > 10 * min(errors)


def test_a_picture_too_long_for_jpeg_loses_bits_instead() -> None:
    image = torch.rand((3, 1, file_artifacts.JPEG_LONGEST + 1), generator=generator_from(0))
    assert all(
        len(file_artifacts.apply_file_artifacts(image, generator_from(seed)).unique()) <= 2 ** file_artifacts.BITS[1]
        for seed in range(4)
    )


def test_samples_in_a_file_keep_their_labels_and_their_clean_photo() -> None:
    image = _picture()
    plain, often = (
        Degrader({"halve": lambda clean, _: clean * 0.5}, Recipe(file_artifacts=share)) for share in (0.0, 0.5)
    )
    changed = 0
    for seed in range(60):
        one, other = (degrader.sample(image, generator_from(seed)) for degrader in (plain, often))
        assert torch.equal(one.types, other.types)
        assert torch.equal(one.clean, other.clean)
        changed += not torch.equal(one.degraded, other.degraded)
    assert changed == pytest.approx(30, abs=12)


def test_samples_in_other_tones_are_to_come_back_in_those() -> None:
    image = _picture() * 0.5 + 0.2
    toned = Degrader({"halve": lambda clean, _: clean * 0.5}, Recipe(cutmix=0, mixture=0, clean=0, gamma=0.5))
    means = []
    for seed in range(60):
        sample = toned.sample(image, generator_from(seed))
        assert torch.allclose(sample.degraded, sample.clean * 0.5, atol=0.51 / 255)
        means.append(float(sample.clean.mean() / image.mean()))
    same = [abs(mean - 1) < 1e-5 for mean in means]
    assert sum(same) == pytest.approx(30, abs=12)
    assert 0.5 < min(means) < 0.85
    assert 1.15 < max(means) < 1.5


def test_a_file_that_is_a_degradation_makes_a_mixture_with_it() -> None:
    image = _picture()
    names = ((FileKind.JPEG, "blocks"), (FileKind.BITS, "bands"))
    damage = {"halve": lambda clean, _: clean * 0.5, "blocks": lambda clean, _: clean, "bands": lambda clean, _: clean}
    plain, named = (
        Degrader(damage, Recipe(file_artifacts=0.6, clean=0.3, file_degradations=given)) for given in ((), names)
    )
    seen = set()
    for seed in range(200):
        one, other = (degrader.sample(image, generator_from(seed)) for degrader in (plain, named))
        assert torch.equal(one.degraded, other.degraded)
        if other.labels == one.labels:
            assert torch.equal(one.types, other.types)
            continue
        *before, added = other.labels
        assert (tuple(before), len(before)) == (one.labels, 1)
        assert other.kind is SampleKind.MIXTURE
        shares = dict(zip(named.labels, other.types[:, 0, 0].tolist(), strict=True))
        assert {label: share for label, share in shares.items() if share} == {before[0]: 0.5, added: 0.5}
        seen.add((before[0], added))
    assert seen >= {("clean", "blocks"), ("clean", "bands"), ("halve", "blocks"), ("halve", "bands")}
    assert not any(first == second for first, second in seen)
    with pytest.raises(TrainingError, match=r"file_degradations: found fax, expected one of .* halve, blocks, bands"):
        Degrader(damage, Recipe(file_degradations=((FileKind.JPEG, "fax"),)))
