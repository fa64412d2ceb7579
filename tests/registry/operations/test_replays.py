"""What the samples of a new label are made of, so that those of other photos are told from them."""

from __future__ import annotations

from pathlib import Path

from abair_registry.operations.replays import source_of
from abair_registry.settings import ChallengerConfig

COUNTS = ChallengerConfig()


def test_other_photos_counts_or_seeds_are_another_source(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"1")
    first = source_of(tmp_path, COUNTS, 0)
    assert first == source_of(tmp_path, COUNTS, 0)
    others = {source_of(None, COUNTS, 0), source_of(tmp_path, COUNTS, 1)}
    others.add(source_of(tmp_path, COUNTS.model_copy(update={"training_scenes": 7}), 0))
    (tmp_path / "b.jpg").write_bytes(b"1")
    others.add(source_of(tmp_path, COUNTS, 0))
    (tmp_path / "b.jpg").write_bytes(b"12")
    others.add(source_of(tmp_path, COUNTS, 0))
    assert len(others - {first}) == 5


def test_how_gates_look_at_samples_is_no_other_source(tmp_path: Path) -> None:
    changed = COUNTS.model_copy(update={"first_look": 3, "full_steps": 9})
    assert source_of(tmp_path, changed, 0) == source_of(tmp_path, COUNTS, 0)


def test_a_link_that_leads_nowhere_is_left_to_the_reader_of_photos(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to(tmp_path / "nowhere.jpg")
    assert source_of(tmp_path, COUNTS, 0)
    assert source_of(tmp_path / "nowhere", COUNTS, 0)
