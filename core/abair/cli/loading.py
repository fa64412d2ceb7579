"""What several commands load before their work: the restorer, and the plugins' synthesisers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from abair.cli.console import Reporter
from abair.cli.options import Precision

if TYPE_CHECKING:
    from abair.data.synthesizers import Synthesizer
    from abair.inference.restorer import Restorer


def load_restorer(deployment: str | None, device: str = "cpu", precision: Precision = Precision.float32) -> Restorer:
    """Import torch and load a deployment, which takes most of a command's start-up time.

    Raises:
        AbairError: the deployment, one of its files, or the device cannot be used.
    """
    from abair.inference.memory import set_up_memory
    from abair.inference.restorer import Restorer

    set_up_memory()
    return Restorer.load(deployment, device=device, precision=precision.value)


def warn_of_live(deployment: str | None, reporter: Reporter) -> str:
    """Say why what serves may not be what was deployed, if so; return that."""
    from abair.deployment import live_warning

    warning = live_warning() if deployment is None else ""
    if warning:
        reporter.log(f"warning: {warning}")
    return warning


def load_synthesizers(reporter: Reporter) -> dict[str, Synthesizer]:
    """Load the synthesiser of every usable plugin; log a warning for each of the others."""
    from abair.data.synthesizers import load_synthesizer
    from abair.discovery import discover
    from abair.errors import PluginError

    plugins = discover()
    for problem in plugins.problems:
        reporter.log(f"warning: {problem}")
    synthesizers = {}
    for degradation in plugins.degradations:
        try:
            synthesizers[degradation.name] = load_synthesizer(degradation)
        except PluginError as error:
            reporter.log(f"warning: {error}")
    return synthesizers
