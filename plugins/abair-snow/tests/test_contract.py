"""The `snow` plugin keeps ABAIR's contract."""

from abair.testing import DegradationContract


class TestSnow(DegradationContract):
    plugin = "snow"
