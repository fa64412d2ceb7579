"""Image files: read and written with everything a photo carries."""
