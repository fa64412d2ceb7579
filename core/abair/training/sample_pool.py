"""Phase III's training samples on disk: making one takes 1000 times longer than its use."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from abair.files import atomic_write
from abair.model import views


class PooledSample(NamedTuple):
    """What the estimator learns from one sample.

    `features` (16, F) are the backbone's, one row a crop, `target` (L,) the blend that the labels
    should get, `costs` (L, L) what other blends lose, and `is_mixture` () whether the sample
    carries one degradation over another.
    """

    features: Tensor
    target: Tensor
    costs: Tensor
    is_mixture: Tensor


class SamplePool:
    """A file of `size` samples that processes share.

    A sample is in it once one of them has put it there. The file is made at its full size, and
    takes space only where it is written to.
    """

    def __init__(self, path: Path, size: int, features: int, labels: int) -> None:
        record = np.dtype(
            [
                ("features", np.float16, (views.CROPS**2, features)),
                ("target", np.float32, (labels,)),
                ("costs", np.float32, (labels, labels)),
                ("is_mixture", np.bool_),
                ("present", np.bool_),
            ]
        )
        if not path.is_file() or path.stat().st_size != size * record.itemsize:
            with atomic_write(path) as aside:  # two processes may begin at once
                os.truncate(aside, size * record.itemsize)
        self._records = np.memmap(path, record, "r+", shape=(size,))

    def __len__(self) -> int:
        return len(self._records)

    def get(self, index: int) -> PooledSample | None:
        """Return the sample at `index`; None if none was put there yet."""
        return self._read(index) if self._records[index]["present"] else None

    def put(self, index: int, sample: PooledSample) -> PooledSample:
        """Keep a sample, its features in 16 bits, and return it as `get` will."""
        record = self._records[index]
        for name, tensor in sample._asdict().items():
            record[name] = tensor.numpy()
        record["present"] = True
        return self._read(index)

    def _read(self, index: int) -> PooledSample:
        record = self._records[index]
        features = torch.from_numpy(record["features"].astype(np.float32))
        rest = (torch.from_numpy(np.array(record[name])) for name in PooledSample._fields[1:])
        return PooledSample(features, *rest)
