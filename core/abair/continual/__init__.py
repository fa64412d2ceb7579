"""Continual learning: one more degradation without retraining the others."""
