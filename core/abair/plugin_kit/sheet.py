"""The file of a preview, which knows itself: a preview replaces an earlier one and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from abair.files import atomic_write

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_WRITER: Final = ("Software", "abair plugin preview")
"""The text in a preview's PNG by which it is known."""


def is_preview(path: Path) -> bool:
    """Return whether a file is a preview that `save_preview` wrote."""
    try:
        with Image.open(path, formats=("PNG",)) as picture:
            return bool(picture.info.get(_WRITER[0]) == _WRITER[1])
    except Exception:  # whatever else lies there
        return False


def save_preview(pixels: NDArray[np.uint8], path: Path) -> None:
    """Write a preview (H, W, 3) as a PNG file.

    Raises:
        OSError: it cannot be written.
    """
    written_by = PngInfo()
    written_by.add_text(*_WRITER)
    with atomic_write(path) as aside:
        Image.fromarray(pixels).save(aside, format="PNG", pnginfo=written_by)
