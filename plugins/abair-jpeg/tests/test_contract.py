"""The `jpeg` plugin keeps ABAIR's contract."""

from abair.testing import DegradationContract


class TestJpeg(DegradationContract):
    plugin = "jpeg"
