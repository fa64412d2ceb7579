"""The `blur` plugin keeps ABAIR's contract."""

from abair.testing import DegradationContract


class TestBlur(DegradationContract):
    plugin = "blur"
