"""The command line `abair`."""

from abair.foreign_points import keep_foreign_out

keep_foreign_out()  # before anything imports a library that loads plugins of its own
