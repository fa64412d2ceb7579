"""The versions of the registry's schema.

A migration describes the past, so nothing of ours is imported here.
"""

HEAD = "0002"
"""The newest revision, stated here because reading it from the versions takes half a second."""

VERSION_TABLE = "abair_alembic_version"
"""Our own table: another tool in the same database may keep its revisions in `alembic_version`."""


class MigrationError(Exception):
    """Says why a migration stops, in one line; its transaction is rolled back."""
