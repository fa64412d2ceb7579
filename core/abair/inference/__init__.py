"""Restoration: an image in, an image out."""
