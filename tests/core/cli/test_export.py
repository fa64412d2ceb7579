"""`abair export`: what it refuses, and that a file is written only after it was compared with torch."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tests.core.cli.conftest import Abair

from abair.errors import ExportError
from abair.export import darktable, onnx_file


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for the graph, which takes long to make."""
    monkeypatch.setattr(onnx_file, "require", lambda library: None)
    monkeypatch.setattr(onnx_file, "make_onnx", lambda network, about: b"graph")
    monkeypatch.setattr(onnx_file, "check_onnx", lambda file, network: 2e-6)
    monkeypatch.setattr(darktable, "check_package", lambda file: {})


def test_a_file_is_written_and_never_replaced_unasked(abair: Abair, bundle: Path, quick: None) -> None:
    done = abair("export", "--deployment", str(bundle))
    assert done.code == 0
    assert "differs by 2e-06 at most" in done.err[-2]
    assert done.err[-1].endswith("written: abair.onnx (0.0 MB)")
    assert Path("abair.onnx").read_bytes() == b"graph"
    again = abair("export", "--deployment", str(bundle))
    assert again.code == 1
    assert again.err[-1].endswith("abair.onnx exists; choose another name, or use --overwrite to replace it")
    assert abair("export", "--deployment", str(bundle), "--overwrite").code == 0


def test_a_package_is_called_by_its_id(abair: Abair, bundle: Path, quick: None) -> None:
    assert abair("export", "--deployment", str(bundle), "--format", "dtmodel", "--weights", "noise=0.5").code == 0
    assert [path.name for path in Path().iterdir()] == ["denoise-abair-noise50.dtmodel"]


def test_nothing_is_written_if_the_file_differs(
    abair: Abair, bundle: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: bytes, network: object) -> float:
        raise ExportError("ONNX: differs from torch by 0.1")

    monkeypatch.setattr(onnx_file, "check_onnx", refuse)
    refused = abair("export", "--deployment", str(bundle), "-o", "a.onnx")
    assert (refused.code, list(Path().iterdir())) == (1, [])
    assert refused.err[-1] == "abair: ONNX: differs from torch by 0.1"


def test_a_package_needs_weights_that_change_something_and_no_view(abair: Abair, bundle: Path, quick: None) -> None:
    for options, words in (
        ((), "a dtmodel needs weights, as in noise=1"),
        (("--weights", "noise=1", "--with-view"), "darktable gives no view"),
        (("--weights", "clean=1", "--deployment", str(bundle)), "nothing to export"),
    ):
        refused = abair("export", "--format", "dtmodel", *options)
        assert refused.code == 2
        assert words in refused.err[-1]


def test_a_name_of_another_format_is_refused(abair: Abair, bundle: Path, quick: None) -> None:
    refused = abair("export", "--deployment", str(bundle), "-o", "a.dtmodel")
    assert (refused.code, list(Path().iterdir())) == (2, [])
    assert "--out: ends in .dtmodel, which is another format; use --format dtmodel" in refused.err[-1]
    assert abair("export", "--deployment", str(bundle), "-o", "a.bin").code == 0


def test_without_the_extra_one_line_says_how_to_get_it(
    abair: Abair, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    missing = abair("export", "--deployment", str(bundle))
    assert missing.code == 1
    assert missing.err[-1] == "abair: onnx is missing; install it with: pip install 'abair[onnx]'"
