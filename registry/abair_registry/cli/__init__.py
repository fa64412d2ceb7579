"""The command line `abair-registry`."""

from abair.foreign_points import keep_foreign_out

keep_foreign_out()  # before anything imports a library that loads plugins of its own
