"""The versions of the registry's schema. Nothing of ours is imported here: a migration describes the past."""

HEAD = "0001"
"""The newest revision, for those who only want to compare: reading it from the versions takes half a second."""

VERSION_TABLE = "abair_alembic_version"
"""Of our own: another tool that lives in the same database keeps its revisions in `alembic_version`."""
