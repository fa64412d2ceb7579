"""Files of weights are read fail-closed."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from abair.errors import AbairError, AdapterError, DeploymentError
from abair.model import safetensors_io
from abair.model.safetensors_io import read_header, read_tensors

SHAPES = {"a": (2, 3), "b": (4,)}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "w.safetensors"
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.bfloat16)}
    save_file(tensors, path, metadata={"made": "here"})
    return path


def _with_header(path: Path, header: Any, data: bytes = bytes(64)) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def test_the_header_says_shapes_dtypes_and_metadata(file: Path) -> None:
    header = read_header(file)
    assert header.shapes == SHAPES
    assert header.dtypes == {"a": "F32", "b": "BF16"}
    assert header.metadata == {"made": "here"}


def test_tensors_come_as_float32_and_no_others(file: Path) -> None:
    tensors = read_tensors(file, SHAPES)
    assert tensors.keys() == SHAPES.keys()
    assert torch.equal(tensors["a"], torch.arange(6.0).reshape(2, 3))
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}


def test_the_header_is_read_without_torch(file: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from abair.model.safetensors_io import read_header\n"
        "read_header(Path(sys.argv[1])); sys.exit('torch' in sys.modules)"
    )
    root = str(Path(safetensors_io.__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", code, file], env={"PYTHONPATH": root}, timeout=60, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("error", [DeploymentError, AdapterError])
def test_the_caller_chooses_the_error(tmp_path: Path, error: type[AbairError]) -> None:
    with pytest.raises(error, match="none: cannot be read"):
        read_header(tmp_path / "none", error)
    with pytest.raises(error, match="cannot be read"):
        read_tensors(tmp_path, SHAPES, error)


@pytest.mark.parametrize("content", [b"", b"1234567", b"\x80\x04}.", b"PK\x03\x04" + bytes(60), b"\xff" * 64])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(DeploymentError, match=r"not a safetensors file: found .*expected safetensors"):
        read_header(path)


@pytest.mark.parametrize(
    "header",
    [
        b"{",
        b"\xff\xfe",
        [],
        7,
        None,
        {"a": 1},
        {"a": {"dtype": "F32"}},
        {"a": {"dtype": "F32", "shape": 3}},
        {"__metadata__": 5},
        b"[" * 100_000,
    ],
)
def test_a_header_of_another_form_is_refused(tmp_path: Path, header: Any) -> None:
    with pytest.raises(DeploymentError, match="header that is not JSON of tensors"):
        read_header(_with_header(tmp_path / "x", header))


def test_a_header_that_claims_more_than_the_file_holds_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(struct.pack("<Q", 2**60) + b"{}")
    with pytest.raises(DeploymentError, match="found a file of 10 bytes"):
        read_header(tmp_path / "x")


def test_a_file_beyond_the_cap_is_refused(file: Path) -> None:
    os.truncate(file, safetensors_io.LARGEST + 1)
    with pytest.raises(DeploymentError, match="not a safetensors file"):
        read_header(file)


@pytest.mark.parametrize("dtype", [torch.int64, torch.float64, torch.bool, torch.uint8])
def test_other_types_of_numbers_are_refused(tmp_path: Path, dtype: torch.dtype) -> None:
    save_file({"a": torch.zeros(2, dtype=dtype)}, tmp_path / "x")
    with pytest.raises(DeploymentError, match=r"found tensors of dtype .*; expected BF16, F16, F32"):
        read_tensors(tmp_path / "x", {"a": (2,)})


def test_missing_unknown_and_misshapen_tensors_are_named(file: Path) -> None:
    with pytest.raises(DeploymentError, match=r"found 2 tensors, expected 3; missing c$"):
        read_tensors(file, SHAPES | {"c": (1,)})
    with pytest.raises(DeploymentError, match=r"found 2 tensors, expected 1; not expected b$"):
        read_tensors(file, {"a": (2, 3)})
    with pytest.raises(DeploymentError, match=r"tensor a: found shape \(2, 3\), expected \(3, 2\)"):
        read_tensors(file, SHAPES | {"a": (3, 2)})
    with pytest.raises(DeploymentError, match=r"missing m00, m01, m02 and 17 more"):
        read_tensors(file, SHAPES | {f"m{i:02}": (1,) for i in range(20)})


@pytest.mark.parametrize("cut", [1, 8, 20])
def test_cut_data_is_refused(file: Path, cut: int) -> None:
    file.write_bytes(file.read_bytes()[:-cut])
    with pytest.raises(DeploymentError, match="damaged safetensors file"):
        read_tensors(file, SHAPES)


def test_overlapping_tensors_are_refused(tmp_path: Path) -> None:
    entry = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    path = _with_header(tmp_path / "x", {"a": entry, "b": entry}, bytes(16))
    with pytest.raises(DeploymentError, match="damaged safetensors file"):
        read_tensors(path, {"a": (4,), "b": (4,)})


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    save_file({"a": torch.tensor([1.0, float("inf")], dtype=torch.float16)}, tmp_path / "x")
    with pytest.raises(DeploymentError, match="tensor a: found NaN or infinite values, expected finite numbers"):
        read_tensors(tmp_path / "x", {"a": (2,)})


def test_what_was_read_does_not_follow_the_file(file: Path) -> None:
    """Neither a file that is overwritten nor one that is cut changes (or crashes) what was loaded and checked."""
    tensors = read_tensors(file, SHAPES)
    size = file.stat().st_size
    with file.open("r+b") as opened:
        opened.write(b"\xff" * size)
    assert torch.equal(tensors["a"], torch.arange(6.0).reshape(2, 3))
    file.write_bytes(b"")
    assert torch.equal(tensors["b"], torch.ones(4))
