"""The `noise` plugin keeps ABAIR's contract."""

from abair.testing import DegradationContract


class TestNoise(DegradationContract):
    plugin = "noise"
