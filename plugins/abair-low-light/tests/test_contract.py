"""The `low-light` plugin keeps ABAIR's contract."""

from abair.testing import DegradationContract


class TestLowLight(DegradationContract):
    plugin = "low-light"
