"""What the parts of ABAIR's own wheel that the core does not import offer to it.

They are declared as entry points. Only those of the distribution `abair` are looked at: what
another package declares under the same names is never loaded, and a malformed list of its entry
points disturbs nobody.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, PackageNotFoundError, distribution
from typing import Final

DISTRIBUTION: Final = "abair"


def find_own(group: str, name: str | None = None) -> EntryPoint | None:
    """Return the entry point of ABAIR's own in a group, of this name if one is given, or None."""
    try:
        points = distribution(DISTRIBUTION).entry_points.select(group=group)
    except PackageNotFoundError:  # run from a folder, without being installed
        return None
    return next((point for point in points if name in {None, point.name}), None)
