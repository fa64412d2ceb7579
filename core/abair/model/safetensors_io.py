"""Safetensors files: checked strictly when read, written atomically.

The header is read first; then exactly the expected tensors are accepted, all of them finite. There
is no other format for weights and no fallback to one. An error names the file, what was found and
what was expected.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from abair.errors import AbairError, DeploymentError
from abair.files import atomic_write

if TYPE_CHECKING:
    from torch import Tensor

LARGEST: Final = 2 * 1024**3
"""Larger files, in bytes, are refused."""
_LARGEST_HEADER: Final = 100_000_000  # bytes; the limit of the safetensors library itself

FLOATS: Final = frozenset({"F32", "F16", "BF16"})
"""Safetensors' names of the floating-point dtypes that are read."""


@dataclass(frozen=True)
class Header:
    """The header of a safetensors file: shape and dtype per tensor, and the file's metadata."""

    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]
    metadata: dict[str, str] = field(default_factory=dict)


def read_header(path: Path, error: type[AbairError] = DeploymentError, kinds: frozenset[str] = FLOATS) -> Header:
    """Read the header alone, without torch.

    Raises:
        error: the file is missing, too large, not safetensors, or holds dtypes other than `kinds`.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = int.from_bytes(start, "little")
            found = f"a file of {size} bytes"
            if len(start) < 8 or length > min(size - 8, _LARGEST_HEADER) or size > LARGEST:
                raise error(_not_safetensors(path, found))
            header = json.loads(file.read(length))
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        shapes = {name: tuple(entry["shape"]) for name, entry in entries.items()}
        dtypes = {name: str(entry["dtype"]) for name, entry in entries.items()}
        metadata = dict(header.get("__metadata__") or {})
    except AbairError:
        raise  # some are ValueErrors too, and say more than the text below
    except OSError as reason:
        raise error(f"{path}: cannot be read ({reason.strerror}); expected a safetensors file") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise error(_not_safetensors(path, "a header that is not JSON of tensors")) from None
    strange = sorted(set(dtypes.values()) - kinds)
    if strange:
        raise error(f"{path}: found tensors of dtype {', '.join(strange)}; expected {', '.join(sorted(kinds))}")
    return Header(shapes, dtypes, metadata)


def read_tensors(
    path: Path,
    expected: Mapping[str, tuple[int, ...]],
    error: type[AbairError] = DeploymentError,
    kinds: frozenset[str] = FLOATS,
) -> dict[str, Tensor]:
    """Read exactly the `expected` tensors (name to shape), floating-point ones as float32.

    Raises:
        error: a name is missing or unknown, a shape differs, the data is cut off, or a value is NaN
            or infinite.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    from torch import float32

    header = read_header(path, error, kinds)
    missing = sorted(expected.keys() - header.shapes.keys())
    unknown = sorted(header.shapes.keys() - expected.keys())
    if missing or unknown:
        raise error(
            f"{path}: found {len(header.shapes)} tensors, expected {len(expected)}"
            + (f"; missing {_join_some(missing)}" if missing else "")
            + (f"; not expected {_join_some(unknown)}" if unknown else "")
        )
    for name, shape in expected.items():
        if header.shapes[name] != tuple(shape):
            raise error(f"{path}: tensor {name}: found shape {header.shapes[name]}, expected {tuple(shape)}")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as reason:
        raise error(
            f"{path}: damaged safetensors file ({reason}); expected complete data; get the file again"
        ) from None
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise error(f"{path}: tensor {name}: found NaN or infinite values, expected finite numbers")
    # a copy, because safetensors maps the file: overwriting it in place would change or crash a
    # server
    return {
        name: tensor.to(float32 if tensor.is_floating_point() else tensor.dtype, copy=True)
        for name, tensor in tensors.items()
    }


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors and metadata; the file that was at `path` stays if that fails.

    Raises:
        OSError: the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_write(path) as aside:
        try:
            save_file(on_cpu, aside, metadata=dict(metadata))
        except SafetensorError as error:  # raised when a disk is full
            raise OSError(f"{path}: cannot be written ({error})") from None


def _not_safetensors(path: Path, found: str) -> str:
    return f"{path}: not a safetensors file: found {found}; expected safetensors (pickles are never read)"


def _join_some(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
