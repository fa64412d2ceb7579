"""The `haze` plugin keeps ABAIR's contract."""

from abair.testing import DegradationContract


class TestHaze(DegradationContract):
    plugin = "haze"
