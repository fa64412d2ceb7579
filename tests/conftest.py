"""Settings that must stand before anything imports torch."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    # Every worker is a process of its own: with threads in each they would only wait for one another.
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
