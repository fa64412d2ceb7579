"""Two true labels share the softmax; the hypotheses of one and of two labels tell them apart."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from abair.model.confidence import hypotheses, label_probabilities
from abair.model.estimator import CONFIDENCE_PAIRS, Estimator, load_estimator, save_estimator
from abair.model.safetensors_io import read_header, write_tensors


def test_the_hypotheses_are_each_label_and_every_two_degradations_without_clean() -> None:
    members, pairs = hypotheses(4)
    assert members.tolist() == [
        *torch.eye(4).tolist(),
        [1, 1, 0, 0],
        [1, 0, 1, 0],
        [0, 1, 1, 0],
    ]
    assert pairs.tolist() == [0, 0, 0, 0, 1, 1, 1]


def test_without_pairs_the_probabilities_are_the_softmax() -> None:
    logits = torch.randn((5, 4), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(label_probabilities(logits, 0.5, 0.0), (logits / 0.5).softmax(1))


def test_two_labels_that_stand_out_are_both_likely_and_a_doubt_stays_a_doubt() -> None:
    both = label_probabilities(torch.tensor([[5.0, 5.0, 0.0, 0.0]]), 0.5, 8.0)[0]
    assert both[:2].tolist() == pytest.approx([0.9, 0.9], abs=0.01)
    # between a degradation and `clean` there is no blend that is right
    doubt = label_probabilities(torch.tensor([[5.0, 0.0, 0.0, 5.0]]), 0.5, 8.0)[0]
    assert doubt[[0, 3]].tolist() == pytest.approx([0.5, 0.5], abs=0.05)
    one = label_probabilities(torch.tensor([[5.0, 0.0, 0.0, 0.0]]), 0.5, 8.0)[0]
    assert one[0] > 0.99


def test_a_single_degradation_has_no_pairs() -> None:
    assert label_probabilities(torch.zeros((1, 2)), 1.0, 8.0).tolist() == [[0.5, 0.5]]


def test_a_file_from_before_the_pairs_keeps_the_largest_softmax_as_confidence(tmp_path: Path) -> None:
    labels, now, before = ("haze", "noise", "clean"), tmp_path / "now.safetensors", tmp_path / "before.safetensors"
    torch.manual_seed(0)
    estimator = Estimator(labels, 12)
    estimator.confidence_temperature.fill_(0.5)
    save_estimator(estimator, now)
    tensors = load_file(now)
    del tensors[CONFIDENCE_PAIRS]
    write_tensors(before, tensors, dict(read_header(now).metadata))
    features = torch.randn((20, 12), generator=torch.Generator().manual_seed(1))
    largest = (estimator(features) / 0.5).softmax(1).amax(1)
    torch.testing.assert_close(load_estimator(before, labels).confidence(features), largest)
    assert not torch.allclose(load_estimator(now, labels).confidence(features), largest, atol=0.01)
