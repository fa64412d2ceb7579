"""Blobs in shared folders of any kind: stored whole, verified when they are fetched."""

from __future__ import annotations

import secrets
import sys
from hashlib import sha256
from pathlib import Path

import fsspec
import pytest

from abair.errors import MissingExtraError, RegistryError
from abair_registry.maintenance import remote
from abair_registry.maintenance.integrity import live_files
from abair_registry.registry import Registry
from abair_registry.storage.shared import SharedBlobs

DATA = b"an adapter's weights"
DIGEST = sha256(DATA).hexdigest()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "weights"
    path.write_bytes(DATA)
    return path


@pytest.fixture(params=["file", "memory"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> SharedBlobs:
    """An empty shared folder, on disk under a name with a blank, or in memory."""
    if request.param == "memory":
        return SharedBlobs(f"memory://{secrets.token_hex(4)}/abair")
    (tmp_path / "shared by all").mkdir()
    return SharedBlobs((tmp_path / "shared by all").as_uri())


def test_a_stored_blob_comes_back_and_nothing_else_is_left(shared: SharedBlobs, source: Path, tmp_path: Path) -> None:
    assert shared.problem(DIGEST) == f"{shared._path(DIGEST)} is missing"
    shared.store(source, DIGEST)
    shared.store(source, DIGEST)
    assert shared.problem(DIGEST) is None
    shared.fetch(DIGEST, tmp_path / "fetched")
    assert (tmp_path / "fetched").read_bytes() == DATA
    assert [path.rpartition("/")[2] for path in shared._files.find(shared._root)] == [DIGEST]


def test_a_folder_that_cannot_be_reached_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: str) -> None:
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(fsspec.core, "url_to_fs", refuse)  # as ftp:// does, which connects at once
    with pytest.raises(RegistryError, match=r"shared folder ftp://host/x: cannot be reached .*Connection refused"):
        SharedBlobs("ftp://host/x")


def test_a_blob_that_was_changed_or_is_missing_is_not_fetched(
    shared: SharedBlobs, source: Path, tmp_path: Path
) -> None:
    with pytest.raises(RegistryError, match="is missing"):
        shared.fetch(DIGEST, tmp_path / "fetched")
    shared.store(source, DIGEST)
    shared._files.pipe_file(shared._path(DIGEST), DATA[:-1])
    assert "was changed: found SHA-256" in str(shared.problem(DIGEST))
    with pytest.raises(RegistryError, match="was changed: found SHA-256"):
        shared.fetch(DIGEST, tmp_path / "fetched")
    shared.store(source, DIGEST)
    assert shared.problem(DIGEST) is None


def test_an_upload_that_breaks_off_leaves_no_blob_and_no_other_file(
    shared: SharedBlobs, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = type(shared._files).put_file

    def broken(files: object, local: str, path: str, **options: object) -> None:
        put(files, local, path, **options)
        raise ConnectionError("the line went dead")

    shared._files.makedirs(shared._path(DIGEST).rpartition("/")[0], exist_ok=True)
    monkeypatch.setattr(type(shared._files), "put_file", broken)
    with pytest.raises(RegistryError, match=r"cannot be written \(the line went dead\)"):
        shared.store(source, DIGEST)
    assert shared._files.find(shared._root) == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://bucket/abair", "shared folder s3://bucket/abair: needs s3fs; install it with: pip install s3fs"),
        ("gs://bucket/abair", "shared folder gs://bucket/abair: needs gcsfs; install it with: pip install gcsfs"),
        ("nothing://x", "shared folder nothing://x: Protocol not known: nothing; expected a URL such as file:///"),
        ("/srv/abair", "shared folder /srv/abair: read as a path of this host; expected a URL such as file:///"),
        ("s3:/bucket/x", "shared folder s3:/bucket/x: read as a path of this host; expected a URL such as file:///"),
        ("ftp:/bad", "shared folder ftp:/bad: read as a path of this host; expected a URL"),
        ("memory:x", "shared folder memory:x: read as a path of this host; expected a URL"),
        ("local:///srv", "shared folder local:///srv: read as a path of this host; expected a URL such as file:///"),
        ("simplecache::s3:/bucket", "simplecache::s3:/bucket: read as a path of this host; expected a URL"),
        ("dir::/srv", "shared folder dir::/srv: read as a path of this host; expected a URL"),
        ("s3:/me:secret@bucket", "shared folder s3:/***@bucket: read as a path"),
        ("simplecache::nothing://me:secret@host/x", "shared folder simplecache::nothing://***@host/x: "),
        ("file://host/srv", "shared folder file://host/srv: expected a URL such as file:///"),
        ("file:///no/such/folder", "no such folder; expected one that this host reaches"),
        ("nothing://me:secret@host/x", "shared folder nothing://***@host/x: "),
    ],
)
def test_a_url_that_cannot_be_used_is_one_line_that_says_what_to_do(
    url: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for driver in ("s3fs", "gcsfs"):
        monkeypatch.setitem(sys.modules, driver, None)
    with pytest.raises((RegistryError, MissingExtraError)) as refusal:
        SharedBlobs(url)
    line = str(refusal.value)
    assert message in line
    assert line.isprintable()
    assert "secret" not in line
    assert list(tmp_path.iterdir()) == []


def test_blobs_go_through_any_file_system(registry: Registry) -> None:
    url = f"memory://{secrets.token_hex(4)}"
    number, files = live_files(registry)
    blobs = {file.sha256 for file in files}  # adapters may have equal configurations
    assert remote.push(registry, url) == (len(blobs), number)
    assert remote.push(registry, url) == (0, number)
    assert len(fsspec.filesystem("memory").find(url)) == len(blobs)
    for file in files:
        registry.blobs.path(file.sha256).unlink(missing_ok=True)
    assert remote.pull(registry, url) == (len(blobs), number)
    assert not [file for file in files if registry.blobs.problem(file.sha256)]
