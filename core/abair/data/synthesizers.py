"""Synthesisers: the plugins' functions that damage a clean photo, imported on demand."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from abair.contract import Degradation
from abair.errors import PluginError
from abair.text import describe_error

if TYPE_CHECKING:  # plugins are discovered where torch must not be imported
    from torch import Generator, Tensor

    Synthesizer = Callable[[Tensor, Generator], Tensor]
    """`degrade(clean, generator)`: (3, H, W) float32 in [0, 1], randomness from the generator."""


def load_synthesizer(degradation: Degradation) -> Synthesizer:
    """Import the function that synthesises a degradation.

    Raises:
        PluginError: The module cannot be imported, or has no such function.
    """
    module, _, function = degradation.synthesizer.partition(":")
    try:
        synthesizer = getattr(importlib.import_module(module), function)
    except (Exception, SystemExit) as error:
        raise PluginError(
            f"degradation {degradation.name}: synthesizer {degradation.synthesizer} cannot be loaded "
            f"({describe_error(error)})"
        ) from error
    if not callable(synthesizer):
        raise PluginError(f"degradation {degradation.name}: synthesizer {degradation.synthesizer} is not a function")
    return cast("Synthesizer", synthesizer)
