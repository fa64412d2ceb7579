"""Processes that others started: which are alive, which end together, and what ends them."""
