"""Random streams: named, each used in one place, with the values of all samples so far."""

from __future__ import annotations

import ast
import hashlib
from collections import defaultdict
from pathlib import Path
from typing import Final

import numpy as np
import pytest
import torch
from torch import Tensor

from abair.data.degrade import Degrader
from abair.data.photos import CleanPhotos
from abair.data.seeds import Stream, generator_for, generator_from
from abair.physics import uniform

ROOT: Final = Path(__file__).parents[3]

FIRST_DRAWS: Final = {
    Stream.BACKBONE_SAMPLE: 577591891,
    Stream.ADAPTER_SAMPLE: 1993624853,
    Stream.ESTIMATOR_SAMPLE: 417354580,
    Stream.ESTIMATOR_CROPS: 671136741,
    Stream.ESTIMATOR_ORDER: 147790836,
    Stream.ESTIMATOR_VALIDATION: 2098363776,
    Stream.ADAPTER_VALIDATION: 1284785623,
    Stream.ADAPTER_VALIDATION_REAL: 253189864,
    Stream.BACKBONE_VALIDATION: 1478732416,
    Stream.REPLAY_SCENE: 1636768125,
    Stream.TEMPERATURE: 182009657,
    Stream.HELD_OUT_SCENE: 1986396349,
    Stream.HELD_OUT_DAMAGE: 2142975439,
    Stream.FURTHER_DAMAGE: 1323425069,
    Stream.REPLAY_DAMAGE: 1180283657,
    Stream.ADAPTER_EFFICACY: 211175776,
    Stream.ABLATION: 80041978,
    Stream.DEGRADER_DIGEST: 1419591973,
    Stream.HELD_OUT_ORDER: 1649979327,
    Stream.FILE_ARTIFACT_VALIDATION: 1784844790,
    Stream.ADAPTER_MIXTURE: 1368457550,
    Stream.MIXTURE_SCENE: 1105941315,
    Stream.MIXTURE_DAMAGE: 1816189541,
    Stream.SYNTHESIZER_PROBE: 392357636,
    Stream.LABELLED_SAMPLE: 992351188,
    Stream.ESTIMATOR_DROPOUT: 1763846998,
    Stream.SMALL_PART: 1480100416,
    Stream.MIXTURE_VALIDATION: 106434819,
    Stream.TRANSFERRED: 1648299959,
}
"""First integers below 2**31 for seed 1, indices 2 and 3, of when streams were numbers."""


def _halve(clean: Tensor, _generator: torch.Generator) -> Tensor:
    return clean * 0.5


def _invert(clean: Tensor, _generator: torch.Generator) -> Tensor:
    return 1 - clean


def _shift(clean: Tensor, generator: torch.Generator) -> Tensor:
    return (clean + uniform(generator, -0.5, 0.5)).clamp(0, 1)


def test_every_stream_gives_the_numbers_that_it_always_gave() -> None:
    assert len(Stream) == 29
    draws = {stream: int(torch.randint(2**31, (), generator=generator_for(1, stream, 2, 3))) for stream in Stream}
    assert draws == FIRST_DRAWS


def test_samples_are_bit_for_bit_those_of_before_streams_had_names() -> None:
    random = np.random.default_rng(0)
    photos = CleanPhotos([random.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((60, 90), (40, 40))], "test")
    degrader = Degrader({"shift": _shift, "halve": _halve, "invert": _invert})
    digest = hashlib.sha256()
    for index in range(40):
        generator = generator_from(3, index)
        sample = degrader.sample(photos.crop(generator, 24) if index % 2 else photos.scene(generator, 32), generator)
        for tensor in (sample.degraded, sample.clean, sample.types):
            digest.update(tensor.mul(255).round().to(torch.uint8).numpy().tobytes())
    assert digest.hexdigest() == "67ebd95467e42395be93b4d229f3b98b90e7ff9e47fe74fe1edc665cdd78b01a"
    # part of the identity of every checkpoint
    assert degrader.digest == "f21577596e4ba5dbe44e1f59184c1703f9b46750ed44a82e8396b3f0f9ba91ef"


def test_a_generator_depends_on_the_whole_key() -> None:
    keys = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 2, 3), (3, 2, 1)]
    draws = [torch.rand(4, generator=generator_from(*key)).tolist() for key in keys]
    assert draws == [torch.rand(4, generator=generator_from(*key)).tolist() for key in keys]
    assert len({tuple(draw) for draw in draws}) == len(keys)


def test_no_two_streams_share_a_value() -> None:
    values = [member.value for member in Stream.__members__.values()]
    assert len(set(values)) == len(values) == 29


@pytest.mark.slow
def test_no_call_passes_a_bare_integer_as_the_stream_and_each_stream_has_one_user() -> None:
    users: dict[str, set[str]] = defaultdict(set)
    bare, calls = [], 0
    for folder in ("core", "registry", "plugins", "tests", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not (isinstance(node, ast.Call) and ast.unparse(node.func).endswith("generator_for")):
                    continue
                calls += 1
                if len(node.args) < 2 or isinstance(node.args[1], ast.Constant):
                    bare.append(f"{path.relative_to(ROOT)}:{node.lineno}")
                elif folder != "tests":
                    users[ast.unparse(node.args[1])].add(str(path.relative_to(ROOT)))
    assert bare == []
    assert calls > len(Stream)
    assert {stream: len(paths) for stream, paths in users.items()} == {f"Stream.{member.name}": 1 for member in Stream}
