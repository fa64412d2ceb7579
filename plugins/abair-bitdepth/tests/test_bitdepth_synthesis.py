"""The bit-depth synthesiser: the levels and the fillings of the field."""

import math

import pytest
import torch

from abair_bitdepth.synthesis import FOUR_BITS, REPLICATED, ZEROS, _drop_bits, _nearest_level, _replicate_bits, degrade

RAMP = torch.arange(256.0)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def every_value() -> torch.Tensor:
    """A picture (3, 16, 256) in whose every row every value of 8 bits occurs once."""
    return (RAMP / 255).expand(3, 16, 256).contiguous()


def psnr(one: torch.Tensor, other: torch.Tensor) -> float:
    return -10 * math.log10(float((one - other).square().mean()))


def test_a_picture_has_16_or_32_levels_and_each_filling_its_share() -> None:
    clean = every_value()
    found = {}
    for seed in range(300):
        degraded = (degrade(clean, seeded(seed)) * 255).round().int()
        levels = degraded.unique()
        assert len(levels) in (16, 32)
        zeros = int(levels[-1]) < 255
        # At 4 bits repetition and the nearest level have the same values: 8 is nearer to 0, 15 is
        # dropped to 0.
        nearest = int(degraded[:, :, 15 if len(levels) == 16 else 7].median()) > 0
        kind = (len(levels), "zeros" if zeros else "nearest" if nearest else "replicated")
        found[kind] = found.get(kind, 0) + 1
    assert len(found) == 6
    for (levels, kind), count in found.items():
        bits = FOUR_BITS if levels == 16 else 1 - FOUR_BITS
        filling = {"zeros": ZEROS, "replicated": REPLICATED, "nearest": 1 - ZEROS - REPLICATED}[kind]
        assert count / 300 == pytest.approx(bits * filling, abs=0.07), (levels, kind)


@pytest.mark.parametrize("bits", [4, 5])
def test_dropped_bits_are_the_low_ones_of_the_usual_protocol(bits: int) -> None:
    assert torch.equal(_drop_bits(RAMP, bits), RAMP.int() >> (8 - bits))


@pytest.mark.parametrize("bits", [4, 5])
def test_replication_keeps_the_high_bits_and_reaches_from_black_to_white(bits: int) -> None:
    high = torch.arange(2**bits, dtype=torch.int32)
    values = _replicate_bits(high, bits)
    assert torch.equal(values >> (8 - bits), high)
    assert (int(values[0]), int(values[-1])) == (0, 255)
    assert int((values - high * 255 / (2**bits - 1)).abs().amax()) <= 1


@pytest.mark.parametrize("bits", [4, 5])
def test_the_nearest_level_is_at_most_half_a_step_away(bits: int) -> None:
    values = _nearest_level(RAMP, bits)
    assert len(values.unique()) == 2**bits
    assert float((values - RAMP).abs().amax()) <= 255 / (2**bits - 1) / 2 + 0.5


def test_contours_stay_where_the_protocol_puts_them_but_for_the_pixels_at_a_threshold() -> None:
    clean = every_value()
    seen = 0
    for seed in range(60):
        degraded = (degrade(clean, seeded(seed)) * 255).round().int()
        if int(degraded.max()) == 240:  # 4 bits, zeros
            seen += 1
            wrong = degraded != (RAMP.int() >> 4 << 4)
            assert 0 < float(wrong.float().mean()) < 0.03
            value = RAMP.int()[wrong.flatten(0, 1).any(dim=0)]
            assert set((value % 16).tolist()) <= {0, 1, 14, 15}
    assert seen > 10


def test_severity_is_that_of_the_protocols() -> None:
    clean = every_value()
    figures = sorted(psnr(degrade(clean, seeded(seed)), clean) for seed in range(60))
    assert figures[0] == pytest.approx(29.2, abs=0.2), "4 bits and zeros: a mean square error of 77.5"
    assert figures[-1] > 38, "5 bits, nearest"


def test_values_are_those_of_an_8_bit_file_whatever_the_input() -> None:
    for seed in range(12):
        degraded = degrade(torch.rand((3, 20, 20), generator=seeded(9)), seeded(seed)) * 255
        assert torch.allclose(degraded, degraded.round(), atol=1e-3)
