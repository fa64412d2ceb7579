"""Synthesiser of low bit depth: 8 bits a channel reduced to 4 or 5, and written as 8 again.

Smooth regions break into steps with false contours. The field has one protocol for taking the bits
and several for what is put in their place (Wan et al., "Image Bit-Depth Enhancement via Maximum A
Posteriori Estimation of AC Signal", TIP 2016; Punnappurath and Brown, "A Little Bit More:
Bitplane-Wise Bit-Depth Recovery", TPAMI 2022):

- The low bits are dropped, which is a floor and no rounding, and *zeros* stand in their place. The
  picture becomes
  darker by half a step, white is 240 of 255 at 4 bits, and the high bits are those of the original.
  That is the input
  of the usual test, 4 bits restored to 8, and of half the samples here. - The low bits are dropped,
  and the high bits *replicated* into their place, as graphics hardware and image viewers do:
  black stays black, white becomes white again. - The value goes to the *nearest* of 16 or 32 evenly
  spaced levels, black and white among them, as image editors
  posterise and as encoders of palettes do: the smallest error, and no shift of brightness.

Dithering is not among them: it trades steps for grain, which is another damage.
"""

from __future__ import annotations

import torch
from torch import Tensor

from abair import chance, ensure_changed, uniform

FOUR_BITS = 0.6
"""Share of samples with 4 bits a channel, as in the usual test; the others have 5, whose steps show
in smooth skies."""
ZEROS, REPLICATED = 0.5, 0.25
"""Shares of the fillings; the rest goes to the nearest level."""
TRANSITION = (0.25, 0.5)
"""Standard deviation of the noise at a converter's thresholds, in steps of 8 bits. A threshold lies
half of such a step from the values beside it, so that of the pixels right at one some fall to the
other side and all others stay: contours are not quite clean, and samples differ although there are
only six kinds."""


def degrade(clean: Tensor, generator: torch.Generator) -> Tensor:
    """Reduce `clean` to 16 or 32 levels a channel; return a new tensor of 8-bit values.

    `clean` is (3, H, W), float32 in [0, 1], any size from 1x1; it is not modified. A picture that
    would come out as it went in is moved by one step of 8 bits. All randomness comes from
    `generator` (CPU): the same seed gives the same result.
    """
    bits = 4 if chance(generator, FOUR_BITS) else 5
    kind = uniform(generator, 0.0, 1.0)
    noise = uniform(generator, *TRANSITION) * torch.randn(clean.shape, generator=generator)
    values = clean * 255 + noise
    if kind < ZEROS:
        reduced = _drop_bits(values, bits) << (8 - bits)
    elif kind < ZEROS + REPLICATED:
        reduced = _replicate_bits(_drop_bits(values, bits), bits)
    else:
        reduced = _nearest_level(values, bits)
    return ensure_changed(reduced.float().div_(255), clean)


def _drop_bits(values: Tensor, bits: int) -> Tensor:
    """Return the high bits, integers from 0 to 2^bits - 1, of `values` on the scale 0 to 255."""
    # Half a step up: the thresholds lie between the values of 8 bits, where the noise finds them,
    # not on them.
    step = 1 << (8 - bits)
    return ((values + 0.5) / step).floor_().clamp_(0, (1 << bits) - 1).to(torch.int32)


def _replicate_bits(high: Tensor, bits: int) -> Tensor:
    """Return values of 8 bits: the `bits` high ones (4 to 8), followed by their own first bits."""
    return (high << (8 - bits)) | (high >> (2 * bits - 8))


def _nearest_level(values: Tensor, bits: int) -> Tensor:
    """Return the nearest of 2^bits even levels from 0 to 255, themselves rounded to 8 bits."""
    last = (1 << bits) - 1
    level = (values * (last / 255)).round_().clamp_(0, last)
    return level.mul_(255 / last).round_()
