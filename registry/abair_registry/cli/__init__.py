"""The command line `abair-registry`."""
