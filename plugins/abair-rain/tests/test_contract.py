"""The `rain` plugin keeps ABAIR's contract."""

from abair.testing import DegradationContract


class TestRain(DegradationContract):
    plugin = "rain"
