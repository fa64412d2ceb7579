"""Training data: clean photos, degradations put on them, random streams."""
