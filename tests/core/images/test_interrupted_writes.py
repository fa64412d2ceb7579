"""Whatever goes wrong while writing, the old file stays complete and nothing is left behind."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.support.image_files import noise, save

from abair import images
from abair.errors import ImageError
from abair.images import writer


def fail_with(code: int) -> object:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_appears_during_the_writing_is_not_replaced(
    folder: Path, photo: images.Photo, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    monkeypatch.setattr(writer, "check_output", lambda *_, **__: None)  # as if the file came just after the check
    if not links:
        monkeypatch.setattr(os, "link", fail_with(errno.EPERM))
    (folder / "a.png").write_bytes(b"precious")
    with pytest.raises(ImageError, match="existing file"):
        images.write(folder / "a.png", images.finish(photo, photo.pixels))
    assert (folder / "a.png").read_bytes() == b"precious"
    assert [path.name for path in folder.iterdir()] == ["a.png"]


def test_writing_works_where_there_are_no_hard_links(
    folder: Path, photo: images.Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", fail_with(errno.EPERM))
    images.write(folder / "a.png", images.finish(photo, photo.pixels))
    assert np.array_equal(images.read(folder / "a.png").pixels, photo.pixels)
    assert [path.name for path in folder.iterdir()] == ["a.png"]


@pytest.mark.parametrize("where", ["fsync", "replace", "link"])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".bmp"])
def test_a_full_disk_leaves_nothing_behind_and_the_old_output_whole(
    folder: Path, photo: images.Photo, monkeypatch: pytest.MonkeyPatch, suffix: str, where: str
) -> None:
    path = folder / f"a{suffix}"
    overwrite = where != "link"
    if overwrite:
        path.write_bytes(b"precious")
    monkeypatch.setattr(os, where, fail_with(errno.ENOSPC))
    if where == "link":
        monkeypatch.setattr(os, "replace", fail_with(errno.ENOSPC))
    with pytest.raises(ImageError, match="No space left") as caught:
        images.write(path, images.finish(photo, photo.pixels), overwrite=overwrite)
    assert "\n" not in str(caught.value)
    assert [found.name for found in folder.iterdir()] == ([path.name] if overwrite else [])
    if overwrite:
        assert path.read_bytes() == b"precious"


def test_a_file_size_limit_really_met_leaves_nothing_behind(tmp_path: Path) -> None:
    """The kernel itself cuts the writing short in the middle of the file."""
    resource = pytest.importorskip("resource")
    assert resource
    save(tmp_path / "a.png", noise(256, 256))
    (tmp_path / "out").mkdir()
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from abair import images; from abair.errors import ImageError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (50000, 50000))\n"
        "photo = images.read(Path(sys.argv[1]))\n"
        "try: images.write(Path(sys.argv[2]), images.finish(photo, photo.pixels))\n"
        "except ImageError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "a.png", tmp_path / "out" / "b.png"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(images.__file__).parents[2])},
    )
    assert "File too large" in done.stdout
    assert list((tmp_path / "out").iterdir()) == []


def test_an_interrupt_leaves_nothing_behind(folder: Path, photo: images.Photo, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        images.write(folder / "a.png", images.finish(photo, photo.pixels))
    assert list(folder.iterdir()) == []


def test_the_file_is_complete_before_it_has_its_name(
    folder: Path, photo: images.Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, sizes = os.link, []

    def watching(source: Path, target: Path) -> None:
        with Image.open(io.BytesIO(Path(source).read_bytes())) as complete:
            complete.load()
        sizes.append(complete.size)
        link(source, target)

    monkeypatch.setattr(os, "link", watching)
    images.write(folder / "a.png", images.finish(photo, photo.pixels))
    assert sizes == [(48, 64)]
