"""The `bitdepth` plugin keeps ABAIR's contract."""

from abair.testing import DegradationContract


class TestBitdepth(DegradationContract):
    plugin = "bitdepth"
