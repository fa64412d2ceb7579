"""Looking at a registry, checking it, mending it, sharing it."""
