"""Test sets: on disk, made, and those of the paper's tables."""
