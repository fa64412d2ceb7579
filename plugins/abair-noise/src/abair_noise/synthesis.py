"""Synthesiser of noise: what a sensor, an amplifier and an 8-bit file add to every pixel.

Half of the samples are the field's standard, white Gaussian noise of one level in all three
channels. A quarter are what cameras and phones leave in their JPEG files: noise of the raw sensor,
demosaiced, amplified by the white balance, smoothed in its colours, sharpened with the picture and
compressed. The others grow with the signal, are common to the channels, or are smeared. The result
is clipped to [0, 1], as every file is.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from abair import chance, compress_jpeg, convolve, ensure_changed, log_uniform, uniform

SIGMA = (5 / 255, 55 / 255)
"""Standard deviation of white noise: the standard tests use 15, 25 and 50 of 255; 5 and 55 go a
little beyond."""
WHITE, CAMERA = 0.5, 0.25
"""Shares of plain white noise, independent in the channels, and of noise as cameras leave it; the
rest is divided evenly among the other kinds."""
READ_SHARE = (0.05, 0.6)
"""Signal-dependent noise: share of the read noise in the variance at mid-grey; photon noise makes
the rest."""
GRAIN = (0.4, 0.9)
"""Correlated noise: standard deviation in pixels of the Gaussian that smears it, about what a
demosaicing does."""
CHROMA = (0.0, 0.4)
"""Grey noise: standard deviation of what each channel has of its own, relative to the common
part."""
CAMERA_SIGMA = (2 / 255, 25 / 255)
"""Noise of cameras: root mean square over the picture before it is compressed, from a base
sensitivity to a phone's at night."""
DISPLAY_GAMMA = 2.2
"""Exponent that takes encoded values to the sensor's linear light."""
BALANCE = (1.2, 2.4)
"""Range of the gains of red and blue over green by white balance."""
SMOOTHING = (0.6, 3.0)
"""Standard deviation in pixels of the Gaussian by which cameras smooth the noise's colours."""
SHARPENING = (0.2, 1.5)
"""Strength of the unsharp mask that cameras apply afterwards."""
QUALITY = (60, 97)
"""libjpeg's quality of the files."""
COMPRESSED = 0.7
"""Share of them that are compressed; the others were developed from raw files."""


def degrade(clean: Tensor, generator: torch.Generator) -> Tensor:
    """Add noise of a random kind and level to `clean` (3, H, W) in [0, 1]; return a new tensor."""
    sigma, source = uniform(generator, *SIGMA), uniform(generator, 0.0, 1.0)
    if source < WHITE:
        noise = sigma * torch.randn(clean.shape, generator=generator)
    elif source < WHITE + CAMERA:
        return ensure_changed(_photograph(clean, generator), clean)
    else:
        kind = int(torch.randint(3, (), generator=generator))
        noise = (_signal_dependent, _grey, _correlated)[kind](clean, sigma, generator)
    return ensure_changed((clean + noise).clamp_(0.0, 1.0), clean)


def _signal_dependent(clean: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Draw Poisson-Gaussian noise as Gaussian of variance a x + b, which is sigma^2 at mid-grey."""
    share = uniform(generator, *READ_SHARE)
    variance = sigma**2 * (share + (1 - share) * 2 * clean)
    return variance.sqrt_() * torch.randn(clean.shape, generator=generator)


def _grey(clean: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Draw noise that the channels mostly share, as in scanned film or files of smoothed chroma."""
    own = uniform(generator, *CHROMA)
    common = torch.randn((1, *clean.shape[-2:]), generator=generator)
    noise = common + own * torch.randn(clean.shape, generator=generator)
    return noise * (sigma / math.hypot(1.0, own))


def _correlated(clean: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Draw noise that neighbouring pixels share, as after demosaicing, of the level asked for."""
    spread = uniform(generator, *GRAIN)
    offset = torch.arange(-2, 3, dtype=torch.float32)
    profile = torch.exp(-0.5 * (offset / spread) ** 2)
    kernel = torch.outer(profile, profile)
    # White noise filtered with a kernel of unit energy (not unit sum) keeps its standard deviation.
    kernel = kernel / kernel.norm()
    return sigma * convolve(torch.randn(clean.shape, generator=generator), kernel)


def _photograph(clean: Tensor, generator: torch.Generator) -> Tensor:
    """Return `clean` (3, H, W) as a camera saves it: with its noise, and mostly as JPEG."""
    noisy = (clean + _camera_noise(clean, generator)).clamp_(0.0, 1.0)
    if not chance(generator, COMPRESSED):
        return noisy
    quality = int(torch.randint(QUALITY[0], QUALITY[1] + 1, (), generator=generator))
    return compress_jpeg(noisy, quality, "4:2:0" if chance(generator, 0.5) else "4:4:4")


def _camera_noise(clean: Tensor, generator: torch.Generator) -> Tensor:
    """Draw noise (3, H, W) of a raw sensor after demosaicing, white balance, tone and sharpening.

    The steps are nearly linear, so the noise goes through them alone and the picture keeps its
    sharpness.
    """
    height, width = clean.shape[-2:]
    # Poisson-Gaussian in linear light, one colour a pixel (Bayer), white balance after it
    linear = clean.clamp_min(0.0) ** DISPLAY_GAMMA
    share = uniform(generator, *READ_SHARE)
    variance = share + (1 - share) * linear / 0.5**DISPLAY_GAMMA
    noise = variance.sqrt_() * torch.randn((1, height, width), generator=generator)
    row, column = torch.randint(2, (2,), generator=generator).tolist()
    noise = _demosaic(noise * _bayer_mask(height, width, row, column))
    gains = torch.ones(3, 1, 1)
    gains[0], gains[2] = uniform(generator, *BALANCE), uniform(generator, *BALANCE)
    noise = noise * gains
    # what the tone curve makes of a small change; its slope is bounded in the shadows
    noise = noise * clean.clamp_min(0.2) ** (1 - DISPLAY_GAMMA)
    if chance(generator, 0.7):
        common = noise.mean(dim=0, keepdim=True)
        smoothed = convolve(noise - common, _gaussian(uniform(generator, *SMOOTHING)))
        noise = common * uniform(generator, 0.5, 1.0) + smoothed
    if chance(generator, 0.6):
        blurred = convolve(noise, _gaussian(uniform(generator, 0.6, 1.4)))
        noise = noise + uniform(generator, *SHARPENING) * (noise - blurred)
    level = log_uniform(generator, *CAMERA_SIGMA)
    return noise * (level / noise.square().mean().sqrt().clamp_min(1e-6))


def _bayer_mask(height: int, width: int, row: int, column: int) -> Tensor:
    """Return where each colour is measured, (3, H, W) of 0 and 1; red begins at (row, column)."""
    mask = torch.zeros(3, height, width)
    mask[0, row::2, column::2] = 1
    mask[1, row::2, 1 - column :: 2] = 1
    mask[1, 1 - row :: 2, column::2] = 1
    mask[2, 1 - row :: 2, 1 - column :: 2] = 1
    return mask


def _demosaic(mosaic: Tensor) -> Tensor:
    """Fill in the colours that a pixel did not measure, bilinearly, in a mosaic (3, H, W)."""
    plus = torch.tensor([[0.0, 0.25, 0.0], [0.25, 1.0, 0.25], [0.0, 0.25, 0.0]])
    square = torch.tensor([[0.25, 0.5, 0.25], [0.5, 1.0, 0.5], [0.25, 0.5, 0.25]])
    kernels = torch.stack([square, plus, square])[:, None]
    return F.conv2d(mosaic[None], kernels, padding=1, groups=3)[0]


def _gaussian(spread: float) -> Tensor:
    """Return a Gaussian kernel of sum 1 for a standard deviation in pixels."""
    reach = math.ceil(3 * spread)
    profile = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=torch.float32) / spread) ** 2)
    kernel = torch.outer(profile, profile)
    return kernel / kernel.sum()
