"""Finding what was recorded under a name that a person typed; imports nothing heavy."""

from __future__ import annotations

from sqlalchemy.orm import Session

from abair.errors import RegistryError
from abair.text import near_misses
from abair_registry.db import queries
from abair_registry.db.models import PluginRow


def recorded(session: Session, name: str) -> PluginRow:
    """Return a plugin that was added, by its name or its distribution.

    Raises:
        RegistryError: Nothing was added under the name; the text suggests near misses.
    """
    everything = queries.plugins(session)
    for found in everything:
        if name in {found.name, found.distribution}:
            return found
    near = near_misses(name, [found.name for found in everything])
    raise RegistryError(
        f"plugin {name}: never added; "
        + (f"did you mean {', '.join(near)}? " if near else "")
        + f"found {', '.join(found.name for found in everything) or 'none'}; see: abair-registry list"
    )
