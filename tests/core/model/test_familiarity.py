"""A photo whose features lie far from all that was learnt is unknown, until that is learnt, too."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from abair.errors import DeploymentError
from abair.model.estimator import Estimator, load_estimator, save_estimator
from abair.model.familiarity import Familiarity

LABELS = ("haze", "noise", "clean")
FEATURES = 12


def known(seed: int, count: int = 400) -> torch.Tensor:
    """Features that vary together: the last half nearly repeats the first."""
    first = torch.randn((count, FEATURES // 2), generator=torch.Generator().manual_seed(seed))
    again = 0.1 * torch.randn((count, FEATURES // 2), generator=torch.Generator().manual_seed(seed + 1))
    return torch.cat([first, first + again], 1)


def strange(seed: int, count: int = 400) -> torch.Tensor:
    """Features, each as usual, but not together."""
    return torch.randn((count, FEATURES), generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def familiarity() -> Familiarity:
    return Familiarity.fit(known(0), known(10, 199))


def test_one_known_photo_in_twenty_is_taken_for_unknown_and_strange_ones_are(familiarity: Familiarity) -> None:
    assert float((familiarity.unknown(known(20)) > 0.95).float().mean()) == pytest.approx(0.05, abs=0.03)
    assert float((familiarity.unknown(strange(30)) > 0.95).float().mean()) > 0.9
    said = familiarity.unknown(torch.cat([known(20), strange(30)]))
    assert float(said.min()) >= 0
    assert float(said.max()) < 1


def test_what_is_learnt_later_is_known_then() -> None:
    later = Familiarity.fit(torch.cat([known(0), strange(30)]), torch.cat([known(10, 99), strange(40, 100)]))
    assert float((later.unknown(strange(50)) > 0.95).float().mean()) < 0.12


def test_with_too_few_held_out_samples_nothing_is_unknown() -> None:
    few = Familiarity.fit(known(0), known(10, 18))
    assert float(few.unknown(100 * strange(30)).max()) < 0.95


def test_features_that_never_vary_and_fewer_samples_than_features_are_no_obstacle() -> None:
    few = known(0, FEATURES - 4)
    few[:, 0] = 3.0
    assert bool(Familiarity.fit(few, few).unknown(strange(1)).isfinite().all())


def test_a_file_keeps_what_is_known_and_so_do_copies_for_other_labels(familiarity: Familiarity, tmp_path: Path) -> None:
    estimator = Estimator(LABELS, FEATURES)
    save_estimator(estimator, tmp_path / "before.safetensors")
    assert load_estimator(tmp_path / "before.safetensors", LABELS).known is None
    estimator.known = familiarity
    save_estimator(estimator, tmp_path / "after.safetensors")
    again = load_estimator(tmp_path / "after.safetensors", LABELS)
    copies = (
        again,
        again.with_labels(("noise", "clean")),
        again.with_hidden_units(torch.zeros(2, FEATURES), torch.zeros(2)),
    )
    for copy in copies:
        assert copy.known is not None
        assert torch.equal(copy.known.unknown(strange(5)), familiarity.unknown(strange(5)))


def test_a_file_with_a_part_of_it_alone_is_refused(familiarity: Familiarity, tmp_path: Path) -> None:
    estimator = Estimator(LABELS, FEATURES)
    estimator.known = familiarity
    estimator.known.register_buffer("factor", None)
    save_estimator(estimator, tmp_path / "estimator.safetensors")
    with pytest.raises(DeploymentError, match=r"missing known\.factor"):
        load_estimator(tmp_path / "estimator.safetensors", LABELS)
