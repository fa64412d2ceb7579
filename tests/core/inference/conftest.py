"""A restorer that the tests of restoring share."""

from __future__ import annotations

from pathlib import Path

import pytest

from abair.inference.restorer import Restorer


@pytest.fixture(scope="module")
def restorer(bundle: Path) -> Restorer:
    return Restorer.load(bundle)
