"""Everything that touches other people's code, always in another process."""
