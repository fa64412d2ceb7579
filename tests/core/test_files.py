"""Files appear completely or not at all."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from abair.files import atomic_write, file_sha256, write_text


def test_a_file_is_written_into_a_new_folder_and_nothing_else_is_left(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "a.txt", "grün\n")
    assert (tmp_path / "new" / "a.txt").read_text(encoding="utf-8") == "grün\n"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.txt"]


def test_an_exception_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def interrupted() -> None:
        with atomic_write(path) as aside:
            aside.write_text("new")
            assert path.read_text() == "old"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_without_replace_an_existing_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with atomic_write(path, replace=False) as aside:
        aside.write_text("first")
    with pytest.raises(FileExistsError), atomic_write(path, replace=False) as aside:
        aside.write_text("second")
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_a_replaced_file_keeps_its_permissions_and_a_new_one_has_the_usual_ones(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    path = tmp_path / "a.txt"
    with atomic_write(path) as aside:
        aside.chmod(0o600)  # as safetensors leaves its files
    assert path.stat().st_mode == (tmp_path / "usual").stat().st_mode
    path.chmod(0o640)
    write_text(path, "new")
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_symbolic_link_is_replaced_and_its_target_left_alone(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_text(tmp_path / "link", "new")
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "link").read_text() == "new"
    assert (tmp_path / "target").read_text() == "precious"


def test_the_suffix_of_the_file_aside_is_that_of_the_path(tmp_path: Path) -> None:
    longest = tmp_path / ("a" * 251 + ".png")  # the longest name that file systems allow
    with atomic_write(longest) as aside:
        assert (aside.suffix, aside.parent) == (".png", tmp_path)
    assert longest.is_file()


def test_a_files_hash_is_the_sha256_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    assert file_sha256(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()
