"""The radar plot: where a policy lies on an axis, what is written beside it, and when there is none."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from PIL import Image

from abair.errors import MissingExtraError
from abair.evaluation.policies import POLICIES, Score
from abair.evaluation.reports.radar import LONGEST_AXIS, axis_position, draw_radar


def _mean(*values: float) -> dict:
    return {policy: Score(psnr=value, ssim=0.5) for policy, value in zip(POLICIES, values, strict=True)}


def test_an_axis_goes_from_the_input_to_the_oracle() -> None:
    mean = _mean(20, 24, 28, 30, 30)
    assert [axis_position(mean, policy) for policy in POLICIES] == pytest.approx([0, 0.4, 0.8, 1, 1])


def test_what_is_worse_than_the_input_is_the_centre_and_what_beats_the_oracle_stays_in_the_picture() -> None:
    mean = _mean(20, 12, 20.5, 29, 21)
    assert [axis_position(mean, policy) for policy in POLICIES] == pytest.approx([0, 0, 0.5, LONGEST_AXIS, 1])
    assert axis_position(_mean(20, 19, 18, 21, 20), "SW") == 0, "an axis without length has one point"


def test_every_axis_is_labelled_with_its_range_and_every_policy_with_its_mean(tmp_path: Path) -> None:
    axes = [(f"set {i}", _mean(20 + i, 22, 24, 25, 30 + i)) for i in range(5)]
    figure = draw_radar(axes, _mean(20, 21, 22, 23.456, 24), "factory, backbone nano")
    texts = [text.get_text() for text in figure.axes[0].texts] + [text.get_text() for text in figure.texts]
    for i in range(5):
        assert f"set {i}" in texts
        assert f"{20 + i}.00 to {30 + i}.00 dB" in texts
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["bare backbone  21.00 dB", "OH  22.00 dB", "SW  23.46 dB", "Oracle  24.00 dB"]
    figure.savefig(tmp_path / "radar.png", dpi=40)
    assert len(Image.open(tmp_path / "radar.png").convert("RGB").getcolors(1 << 20) or []) > 20


def test_fewer_than_three_axes_are_refused() -> None:
    with pytest.raises(ValueError, match="found 2 axes, expected three or more"):
        draw_radar([("a", _mean(1, 2, 3, 4, 5))] * 2, {}, "")


def test_without_matplotlib_the_error_names_the_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'abair\[bench\]'"):
        draw_radar([], {}, "")
