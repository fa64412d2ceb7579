"""The command line `abair`."""
