"""ONNX: a network as one file, compared with torch before it is written."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import abair
from abair.deployment import Deployment
from abair.errors import ExportError, MissingExtraError
from abair.export.network import IMAGE, RESTORED, VIEW, WEIGHTS, PhotoNetwork
from abair.model.backbone import GLOBAL_VIEW
from abair.physics import smooth_field

OPSET: Final = 18
IR_VERSION: Final = 8
"""Versions of ONNX that programs of 2023 read, too; the library would write its newest."""
HALO: Final = 96
"""Pixels around a tile that a program has to compute with it: beyond them nothing is visible."""
TOLERANCE: Final = 1e-4
"""Largest difference from torch, in [0, 1], with which a file is written; 8 bits have steps of
0.004."""
SIZES: Final = ((64, 64), (97, 130), (40, 200), (1, 1), (515, 1100))
"""Heights and widths in pixels that are compared: multiples of the stride and not, small ones, and
one whose global view leaves pixels out."""
TRACED: Final = (70, 100)
"""Height and width of the image that the graph is made with; none that is compared."""


class Value(Protocol):
    """An input or output of a session."""

    name: str
    type: str
    shape: Sequence[int | str]


class Session(Protocol):
    """What is used of an ONNX Runtime session."""

    def get_inputs(self) -> Sequence[Value]:
        """Return the inputs."""

    def get_outputs(self) -> Sequence[Value]:
        """Return the outputs."""

    def run(self, outputs: None, inputs: Mapping[str, NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """Return all outputs for the inputs."""


def make_onnx(network: PhotoNetwork, about: Mapping[str, str]) -> bytes:
    """Return the network as an ONNX file with dynamic `height` and `width`.

    `about` becomes the file's metadata.

    Raises:
        MissingExtraError: a library of the extra `onnx` is missing.
        ExportError: torch cannot make a graph of the network.
    """
    for library in ("onnx", "onnxscript", "onnxruntime"):
        require(library)
    inputs = _inputs(network, TRACED, 0)
    shapes = {name: {2: "height", 3: "width"} if name == IMAGE else None for name in inputs}
    try:
        with _quiet():
            program: Any = torch.onnx.export(
                network.eval(),
                kwargs=inputs,
                input_names=list(inputs),
                output_names=[RESTORED],
                dynamic_shapes=shapes,
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise ExportError(
            f"ONNX: torch {torch.__version__} makes no graph of the network ({str(error).splitlines()[0]}); install "
            "another version of torch or onnxscript, and report this"
        ) from error
    model = program.model_proto
    _drop_traces(model)
    model.ir_version = IR_VERSION
    for key, value in about.items():
        model.metadata_props.add(key=key, value=value)
    file: bytes = model.SerializeToString()
    return file


def describe(deployment: Deployment, weights: Mapping[str, float] | None) -> dict[str, str]:
    """Return the metadata of a file: what it was made from, and the order of its `weights`."""
    about = {
        "abair.version": abair.__version__,
        "abair.deployment": deployment.name,
        "abair.backbone": deployment.backbone.fingerprint,
        "abair.labels": json.dumps(deployment.labels),
        "abair.halo": str(HALO),
    }
    return about if weights is None else about | {"abair.weights": json.dumps(weights)}


def check_onnx(file: bytes, network: PhotoNetwork) -> float:
    """Return the largest difference between a file in ONNX Runtime and the network in torch.

    It is taken over images of all `SIZES`, in [0, 1].

    Raises:
        MissingExtraError: a library of the extra `onnx` is missing.
        ExportError: it is above `TOLERANCE`, or the file is no valid ONNX model.
    """
    onnx = require("onnx")
    try:
        onnx.checker.check_model(onnx.load_model_from_string(file), full_check=True)
    except onnx.checker.ValidationError as error:
        raise ExportError(f"ONNX: the file is not valid ({str(error).splitlines()[0]}); report this") from error
    session = open_session(file)
    largest = 0.0
    for seed, size in enumerate(SIZES):
        inputs = _inputs(network, size, seed)
        with torch.inference_mode():
            expected = network(**inputs).numpy()
        (found,) = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
        difference = float(np.abs(found - expected).max()) if found.shape == expected.shape else float("inf")
        if not difference <= TOLERANCE:
            raise ExportError(
                f"ONNX: an image of {size[1]}x{size[0]} pixels differs from torch by {difference:.2g}, expected at "
                f"most {TOLERANCE:g}; nothing was written; install another version of onnxruntime or torch"
            )
        largest = max(largest, difference)
    return largest


def open_session(file: bytes, threads: int = 0) -> Session:
    """Return an ONNX Runtime session on the CPU; `threads` is 0 for one thread a core.

    Raises:
        MissingExtraError: onnxruntime is missing.
    """
    runtime = require("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session: Session = runtime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return session


def require(library: str) -> ModuleType:
    """Import a library of the extra `onnx`.

    Raises:
        MissingExtraError: it is missing.
    """
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise MissingExtraError(f"{library} is missing; install it with: pip install 'abair[onnx]'") from error


def _inputs(network: PhotoNetwork, size: tuple[int, int], seed: int) -> dict[str, Tensor]:
    """Return inputs for an image of a height and width: a smooth one with noise."""
    generator = torch.Generator().manual_seed(seed)
    smooth = torch.stack([smooth_field(generator, *size, 5) for _ in range(3)])
    inputs = {IMAGE: (smooth + 0.1 * torch.randn(smooth.shape, generator=generator)).clamp(0, 1)[None]}
    if network.fixed is None:
        drawn = torch.rand(len(network.labels), generator=generator) ** 3 + 0.01
        inputs[WEIGHTS] = drawn / drawn.sum()
    if network.with_view:
        inputs[VIEW] = torch.rand((1, 3, GLOBAL_VIEW, GLOBAL_VIEW), generator=generator)
    return inputs


def _drop_traces(model: object) -> None:
    """Remove what torch notes at each node: lines of code with the paths of this machine.

    findings/torch_onnx_paths.sh shows it.
    """
    proto: Any = model
    graph, calls = proto.graph, [node for function in proto.functions for node in function.node]
    values = (*graph.value_info, *graph.input, *graph.output, *graph.initializer)
    for part in (*graph.node, *calls, *values, *proto.functions, graph, proto):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what torch prints and warns of during an export; users can do nothing about it."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
