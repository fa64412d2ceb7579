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
    """Import the function that synthesises a degradation; calls of it are checked.

    A call raises PluginError if the function raises, or returns no finite image of the same shape.

    Raises:
        PluginError: The module cannot be imported, or has no such function.
    """
    degrade, name = import_synthesizer(degradation), degradation.name

    def checked(clean: Tensor, generator: Generator) -> Tensor:
        try:
            damaged = degrade(clean, generator)
        except (Exception, SystemExit) as error:
            raise PluginError(
                f"degradation {name}: its synthesiser failed ({describe_error(error)}); expected a damaged image"
            ) from error
        if wrong := _wrong_image(damaged, clean):
            raise PluginError(
                f"degradation {name}: its synthesiser returned {wrong}; expected a tensor of finite floats, "
                f"{tuple(clean.shape)}"
            )
        return damaged

    return checked


def import_synthesizer(degradation: Degradation) -> Synthesizer:
    """Import the function that synthesises a degradation, as it is.

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


def _wrong_image(damaged: object, clean: Tensor) -> str:
    """Return what is wrong with what a synthesiser returned for `clean`; empty if nothing is."""
    if not isinstance(damaged, type(clean)):
        return "None" if damaged is None else type(damaged).__name__
    if damaged.shape != clean.shape or not damaged.is_floating_point():
        return f"{str(damaged.dtype).removeprefix('torch.')}, {tuple(damaged.shape)}"
    return "" if bool(damaged.isfinite().all()) else "NaN or infinite values"
