"""What is told of a plugin that is to be added."""

from __future__ import annotations

from pathlib import Path

import pytest

from abair_registry.db.snapshot import DeploymentSnapshot, Member
from abair_registry.operations.releases import describe_candidate
from abair_registry.plugins.installed import Candidate


@pytest.mark.parametrize(
    ("version", "groups", "told"),
    [
        ("1.0", (), "frost 1.0, older than 1.10, which is live"),
        ("1.10", (), "frost 1.10"),
        ("2.0", ("pytest11",), "frost 2.0, which also has entry points in pytest11"),
        ("odd", (), "frost odd"),
    ],
)
def test_an_older_version_than_the_live_one_and_further_groups_are_told(
    version: str, groups: tuple[str, ...], told: str
) -> None:
    candidate = Candidate("frost", "abair_frost", "abair-frost", version, {}, Path(), Path(), groups)
    members = tuple(
        Member(name, 1, name, f"abair-{name}", number, "0" * 64, "0" * 64, None)
        for name, number in (("frost", "1.10"), ("rain", "3.0"))
    )
    live = DeploymentSnapshot(1, 1, "0" * 64, "1" * 64, "2" * 64, members, None)
    assert describe_candidate(candidate, live) == told
