"""Files for other programs: dynamic size, one file, nothing of this machine in it, refused if they differ."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from abair import Restorer
from abair.errors import ExportError
from abair.export import darktable, onnx_file
from abair.export.network import PhotoNetwork

ONNX = "needs ONNX: pip install 'abair[onnx]'"
onnx = pytest.importorskip("onnx", reason=ONNX)
pytest.importorskip("onnxscript", reason=ONNX)
pytest.importorskip("onnxruntime", reason=ONNX)

# Making a graph takes ten seconds; those of this file share one.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("onnx")]


@pytest.fixture(scope="module")
def restorer(bundle: Path) -> Restorer:
    return Restorer.load(bundle)


@pytest.fixture(scope="module")
def fixed(restorer: Restorer) -> tuple[bytes, PhotoNetwork]:
    """A file of fixed weights, and its network."""
    weights = restorer.complete_weights({restorer.labels[0]: 0.75})
    network = PhotoNetwork(restorer.blender, restorer.labels, weights)
    return onnx_file.make_onnx(network, onnx_file.describe(restorer.deployment, weights)), network


def test_a_file_of_fixed_weights_takes_images_of_any_size(
    fixed: tuple[bytes, PhotoNetwork], restorer: Restorer
) -> None:
    file, network = fixed
    assert onnx_file.check_onnx(file, network) <= 1e-5
    session = onnx_file.open_session(file)
    (image,) = session.get_inputs()
    assert (image.name, image.shape) == ("image", [1, 3, "height", "width"])
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["abair.labels"]) == list(restorer.labels)
    assert json.loads(about["abair.weights"])["clean"] == 0.25


@pytest.mark.rare
@pytest.mark.exhaustive
def test_weights_and_the_view_can_be_inputs(restorer: Restorer) -> None:
    network = PhotoNetwork(restorer.blender, restorer.labels, with_view=True)
    file = onnx_file.make_onnx(network, {})
    assert onnx_file.check_onnx(file, network) <= 1e-5
    session = onnx_file.open_session(file)
    assert [value.name for value in session.get_inputs()] == ["image", "weights", "view"]
    alone = np.eye(len(restorer.labels), dtype=np.float32)[-1]  # clean: nothing is changed
    photo, view = np.random.default_rng(0).random((1, 3, 33, 47), np.float32), np.zeros((1, 3, 64, 64), np.float32)
    (same,) = session.run(None, {"image": photo, "weights": alone, "view": view})
    assert np.array_equal(same, photo)


def test_a_file_holds_nothing_of_the_machine_that_made_it(fixed: tuple[bytes, PhotoNetwork]) -> None:
    file, _ = fixed
    assert str(Path(onnx_file.__file__).parents[1]).encode() not in file
    assert b".py" not in file
    model = onnx.load_model_from_string(file)
    assert (model.ir_version, model.opset_import[0].version) == (8, 18)
    assert not any(tensor.external_data for tensor in model.graph.initializer)


def test_a_file_that_differs_from_torch_is_refused(fixed: tuple[bytes, PhotoNetwork], restorer: Restorer) -> None:
    file, _ = fixed
    other = PhotoNetwork(restorer.blender, restorer.labels, restorer.complete_weights({restorer.labels[1]: 1.0}))
    with pytest.raises(ExportError, match=r"differs from torch by .* expected at most 0\.0001; nothing was written"):
        onnx_file.check_onnx(file, other)


def test_a_package_is_what_darktable_imports(fixed: tuple[bytes, PhotoNetwork]) -> None:
    file, network = fixed
    assert network.fixed is not None
    package = darktable.make_package(file, network.fixed, "factory")
    config = darktable.check_package(package)
    assert config["id"] == f"denoise-abair-{network.labels[0]}75"
    assert package == darktable.make_package(file, network.fixed, "factory"), "the same network gives the same bytes"
    with zipfile.ZipFile(io.BytesIO(package)) as archive:
        assert [entry.filename for entry in archive.infolist()] == [
            f"{config['id']}/{n}" for n in ("config.json", "model.onnx")
        ]
        assert all(entry.external_attr >> 16 == 0o100644 for entry in archive.infolist())


def test_a_tile_of_darktable_is_restored_with_the_sides_set_by_name(fixed: tuple[bytes, PhotoNetwork]) -> None:
    import onnxruntime

    file, network = fixed
    options = onnxruntime.SessionOptions()
    for name, side in {"batch_size": 1, "batch": 1, "height": 256, "width": 256}.items():
        options.add_free_dimension_override_by_name(name, side)
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    tile = np.random.default_rng(1).random((1, 3, 256, 256), np.float32)
    (restored,) = session.run(None, {"image": tile})
    with torch.inference_mode():
        assert np.abs(restored - network(torch.from_numpy(tile)).numpy()).max() <= 1e-5


def test_a_package_that_darktable_would_not_take_is_refused(fixed: tuple[bytes, PhotoNetwork]) -> None:
    def package(folder: str, config: dict[str, object], mode: int = 0o644) -> bytes:
        whole = io.BytesIO()
        with zipfile.ZipFile(whole, "w") as archive:
            for name, content in (("config.json", json.dumps(config)), ("model.onnx", fixed[0])):
                entry = zipfile.ZipInfo(f"{folder}/{name}")
                entry.external_attr = mode << 16
                archive.writestr(entry, content)
        return whole.getvalue()

    text = dict.fromkeys(("id", "name", "description", "version"), "denoise-x")
    config = text | {"task": "denoise", "backend": "onnx"}
    assert darktable.check_package(package("denoise-x", config)) == config
    for folder, changes, mode, words in (
        ("..", {}, 0o644, "expected an id"),
        ("denoise-y", {}, 0o644, "found id 'denoise-x', expected 'denoise-y'"),
        ("denoise-x", {"task": "mask"}, 0o644, "found task 'mask'"),
        ("denoise-x", {"version": ""}, 0o644, "config.json lacks version"),
        ("denoise-x", {}, 0o200, "nobody can read"),
    ):
        with pytest.raises(ExportError, match=words):
            darktable.check_package(package(folder, config | changes, mode))


def test_ids_name_the_blend() -> None:
    assert darktable.model_id({"noise": 1.0, "rain": 0.0, "clean": 0.0}) == "denoise-abair-noise"
    assert darktable.model_id({"noise": 0.7, "low-light": 0.25, "clean": 0.05}) == "denoise-abair-noise70-low-light25"


@pytest.mark.rare
@pytest.mark.exhaustive
def test_the_shipped_network_is_exported(tmp_path: Path) -> None:
    shipped = Restorer.load("factory")
    weights = shipped.complete_weights({"noise": 0.6, "blur": 0.4})
    network = PhotoNetwork(shipped.blender, shipped.labels, weights)
    file = onnx_file.make_onnx(network, {})
    assert onnx_file.check_onnx(file, network) <= 1e-4
