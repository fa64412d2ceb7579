"""JPEG on a clean photograph: compressed by libjpeg at a low quality, and decoded again.

Nothing is imitated: libjpeg does it, through Pillow, with its standard tables and chroma at half
the resolution (4:2:0). What comes back has the 8x8 blocks, the ringing at edges and the smeared
colours of real files. The field measures at quality 10, 20, 30 and 40 (since Dong et al.,
"Compression Artifacts Reduction by a Deep Convolutional Network", ICCV 2015).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from abair import chance, compress_jpeg, ensure_changed

QUALITY = (10, 40)
"""libjpeg's quality, evenly drawn: from every block showing to artefacts that only edges show.
Quality 20 is the usual test."""
CROPPED = 0.5
"""Share of photos that were cropped after they had been compressed: their blocks do not begin in
the corner."""
UNIT = 16
"""Side in pixels of what 4:2:0 codes together, four blocks of brightness and one of each chroma:
the grid's period."""


def degrade(clean: Tensor, generator: torch.Generator) -> Tensor:
    """Compress `clean` as JPEG of a random quality; return a new tensor of 8-bit values.

    `clean` is (3, H, W), float32 in [0, 1], any size from 1x1 up to JPEG's own limit of 65,500
    pixels a side, less the part of a unit that a crop takes; it is not modified. All randomness
    comes from `generator` (CPU): the same seed gives the same file.

    Raises:
        OSError: a side is longer than the format allows.
    """
    quality = int(torch.randint(QUALITY[0], QUALITY[1] + 1, (), generator=generator))
    top, left = torch.randint(UNIT, (2,), generator=generator).tolist() if chance(generator, CROPPED) else (0, 0)
    # What was cropped away lies above and to the left; the photo's own border goes on there.
    whole = F.pad(clean, (left, 0, top, 0), mode="replicate")
    return ensure_changed(compress_jpeg(whole, quality)[:, top:, left:].contiguous(), clean)
