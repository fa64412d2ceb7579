"""What fails costs one line on stderr, exit code 1, and nothing else."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.core.cli.conftest import Abair, FakeRestorer, files, photo

from abair.cli import app, console, loading
from abair.errors import DeploymentError, ImageError


@pytest.mark.parametrize("error", [RuntimeError("odd\nthing"), MemoryError(), OSError(errno.ENOSPC, "disk is full"),
                                   ImageError("a.png: damaged"), KeyError("x"), RecursionError()])  # fmt: skip
def test_a_failure_costs_one_line_and_one_photo(abair: Abair, restorer: FakeRestorer, error: Exception) -> None:
    for index, name in enumerate(("a.png", "b.png", "c.png")):
        photo(name, size=(6, 5 + index))

    def fail(image: np.ndarray) -> None:
        if len(image) == 5:
            raise error

    restorer.before = fail
    done = abair("restore", "a.png", "b.png", "c.png", "-o", "fixed", "--json")
    assert done.code == 1
    assert files("fixed") == ["b.png", "c.png"]
    assert len(done.err) == 1
    assert done.err[0].startswith("abair: a.png: ")
    assert [("error" in record) for record in done.records] == [True, False, False]


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("sqlalchemy", "sqlalchemy is missing; install it with: pip install 'abair[registry]'"),
        ("tomli_w", "tomli_w is missing; install it with: pip install 'abair[train]'"),
        ("nowhere", "unexpected ModuleNotFoundError"),
    ],
)
def test_a_module_that_an_extra_brings_is_named_with_the_extra(module: str, said: str) -> None:
    error = ModuleNotFoundError(f"No module named '{module}'", name=module)
    assert console.explain(error).startswith(said)


def test_memory_that_torch_lacks_is_said_as_such() -> None:
    error = RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: not enough memory: you tried ...")
    assert "--tile" in console.explain(error, "a.png")


def test_every_unusable_input_is_named_before_the_network_is_loaded(abair: Abair, restorer: FakeRestorer) -> None:
    Path("text.png").write_text("words")
    Path("empty.jpg").write_bytes(b"")
    Path("nothing").mkdir()
    done = abair("restore", "text.png", "empty.jpg", "gone.png", "nothing", "-o", "fixed", "--json")
    assert done.code == 1
    assert len(done.err) == 4
    assert {record["input"] for record in done.records} == {"text.png", "empty.jpg", "gone.png", "nothing"}
    assert restorer.loaded == []


def test_a_photo_beyond_the_cap_is_refused_and_the_option_is_named(abair: Abair, restorer: FakeRestorer) -> None:
    photo("a.png", size=(200, 100))
    refused = abair("restore", "a.png", "-o", "b.png", "--max-megapixels", "0.01")
    assert refused.code == 1
    assert "--max-megapixels" in refused.err[0]
    assert abair("restore", "a.png", "-o", "b.png", "--max-megapixels", "0.02").code == 0


def test_a_folder_that_cannot_be_made_is_one_line_for_all(abair: Abair, restorer: FakeRestorer) -> None:
    photo("a.png")
    photo("b.png")
    Path("file").write_text("")
    done = abair("restore", "a.png", "b.png", "-o", "file/fixed", "--json")
    assert done.code == 1
    assert len(done.err) == 1
    assert [record["input"] for record in done.records] == ["a.png", "b.png"]


def test_a_deployment_that_cannot_be_loaded_is_one_line_for_all(abair: Abair, monkeypatch: pytest.MonkeyPatch) -> None:
    photo("a.png")
    photo("b.png")

    def load(*_: Any) -> None:
        raise DeploymentError("deployment x: a file was changed")

    monkeypatch.setattr(loading, "load_restorer", load)
    done = abair("estimate", "a.png", "b.png", "--json")
    assert done.code == 1
    assert done.err == ["abair: deployment x: a file was changed"]
    assert len(done.records) == 2


def test_ctrl_c_is_one_line_and_leaves_no_partial_file(
    abair: Abair, restorer: FakeRestorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo("a.png")
    photo("b.png", size=(6, 9))

    def stop(_file: int) -> None:
        if len(restorer.calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", stop)
    done = abair("restore", "a.png", "b.png", "-o", "fixed")
    assert done.code == 130
    assert len(done.err) == 1
    assert files("fixed") == ["a.png"]


def test_a_deployment_that_cannot_be_loaded_is_not_said_to_be_the_photo(
    abair: Abair, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo("a.png")

    def load(*_: Any) -> None:
        raise DeploymentError("device cuda: cannot be used")

    monkeypatch.setattr(loading, "load_restorer", load)
    assert abair("restore", "a.png", "-o", "b.png").err == ["abair: device cuda: cannot be used"]


def test_abair_debug_shows_the_traceback(
    capsys: pytest.CaptureFixture[str], restorer: FakeRestorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo("a.png")
    monkeypatch.setenv("ABAIR_DEBUG", "1")

    def fail(_: np.ndarray) -> None:
        raise RuntimeError("odd")

    restorer.before = fail
    assert app.run(["restore", "a.png", "-o", "b.png"]) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert said.splitlines()[-1].startswith("abair: a.png: unexpected RuntimeError (odd)")
