"""The contract suite: what every plugin's tests hold, by subclassing one class.

    from abair.testing import DegradationContract


    class TestSnow(DegradationContract):
        plugin = "snow"

pytest collects the subclass and runs the tests below on it. A failure says what was found and what
was expected. How good an adapter is, and how fast a synthesiser, is measured elsewhere.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, ClassVar, Final
from unittest import mock

from abair.contract import GROUP, Degradation
from abair.data.synthesizers import import_synthesizer
from abair.discovery import discover, installed_points
from abair.errors import AdapterError

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from abair.data.synthesizers import Synthesizer

SIZES: Final = ((1, 1), (1, 7), (33, 47), (128, 128), (211, 512), (512, 512))
"""Heights and widths in pixels that every synthesiser is tried on: one pixel, one row, odd sides, a
training crop, and scenes as a registry damages them."""
SEEDS: Final = range(4)
"""Seeds that every size is tried with, scenes with half of them: severities and kinds are drawn, so
one sample shows little."""
CALLS: Final = 100
"""Calls in a row that must all give a sample: training makes thousands."""

_REFERENCE: Final = re.compile(r"abair/([a-z0-9-]+)@([0-9a-f]{64})")
_IMPORTS: Final = """
import importlib, json, sys
sys.path[:] = json.loads(sys.argv[1])
before = "torch" in sys.modules
importlib.import_module(sys.argv[2])
sys.exit(3 if "torch" in sys.modules and not before else 0)
"""


class DegradationContract:
    """What ABAIR expects of a plugin, as tests.

    Subclass it in a class named `Test...` and set one of two attributes.
    `plugin` is the name of the plugin's entry point in the group `abair`, and the plugin must be
    installed; `module` is the plugin's module itself (or its dotted name), for one that is not.
    """

    plugin: ClassVar[str] = ""
    module: ClassVar[ModuleType | str | None] = None

    def test_it_declares_degradations_that_can_be_used(self) -> None:
        """Discovery finds the plugin without a problem, with at least one valid degradation."""
        declared = self._declared()
        assert declared, (
            f"{self._point().value}: found no degradations, expected at least one from abair_degradations()"
        )
        for degradation in declared:
            again = Degradation.model_validate(degradation.model_dump())
            assert again == degradation, (
                f"{degradation.name}: found {degradation!r}, expected what the model makes of it"
            )

    def test_declaring_it_imports_no_torch(self) -> None:
        """Commands that list plugins answer at once: only the synthesiser may import torch."""
        module = self._point().module
        command = [sys.executable, "-c", _IMPORTS, json.dumps(sys.path), module]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode != 3, (
            f"{module}: importing it imports torch; expected that only in the synthesiser's module"
        )
        assert done.returncode == 0, f"{module}: cannot be imported by itself:\n{done.stderr}"

    def test_its_synthesisers_load(self) -> None:
        """The import string leads to a function."""
        names = []
        self._each(lambda name, _: names.append(name))
        assert names, "found no synthesiser, expected one for each degradation"

    def test_the_same_seed_gives_the_same_result_and_another_seed_another(self) -> None:
        """All randomness, severity included, comes from the generator."""
        self._each(_check_seeds)

    def test_shape_type_and_range_are_kept(self) -> None:
        """(3, H, W) float32 in [0, 1] comes back, whatever the size."""
        self._each(_check_form)

    def test_the_photo_given_is_not_modified(self) -> None:
        """Training damages one clean photo several times and compares with it."""
        self._each(_check_given)

    def test_it_always_damages_the_photo(self) -> None:
        """An undamaged sample with a degradation's label would mislead the estimator."""
        self._each(_check_damage)

    def test_neither_the_calls_before_nor_threads_nor_the_hour_count(self) -> None:
        """Training draws thousands of samples, with as many threads as there are, at any time."""
        self._each(_check_calls)

    def test_torchs_global_generator_is_neither_used_nor_moved(self) -> None:
        """Otherwise a run that is resumed would see other samples than one that was not cut off."""
        self._each(_check_generator)

    def test_its_adapters_can_be_used(self) -> None:
        """Every sub-folder of `adapters` is a plain LoRA in PEFT's format for a named backbone."""
        folders = [
            (degradation.name, folder)
            for degradation in self._declared()
            if degradation.adapters.is_dir()
            for folder in sorted(degradation.adapters.iterdir())
            if folder.is_dir()
        ]
        if not folders:
            import pytest

            names = ", ".join(f"abair train adapter {degradation.name}" for degradation in self._declared())
            pytest.skip(f"found no adapters yet; train one: {names}")
        for name, folder in folders:
            check_adapter(folder, name)

    def _point(self) -> EntryPoint:
        """Return the plugin's entry point."""
        if self.module is not None:
            value = self.module if isinstance(self.module, str) else self.module.__name__
            return EntryPoint(self.plugin or value, value, GROUP)
        assert self.plugin, (
            f"{type(self).__name__}: found neither attribute; set plugin = 'name' or module = your_module"
        )
        installed = installed_points([])
        points = sorted((point for point in installed if point.name == self.plugin), key=lambda point: point.value)
        there = ", ".join(sorted({point.name for point in installed})) or "none"
        assert points, (
            f"found no entry point {self.plugin!r} in the group {GROUP!r} (there: {there}); expected the plugin to be "
            "installed: pip install -e . in its folder"
        )
        assert len(points) == 1, (
            f"found {len(points)} entry points named {self.plugin!r} ({', '.join(point.value for point in points)}), "
            "expected one; uninstall the others"
        )
        return points[0]

    def _declared(self) -> list[Degradation]:
        """Return what the plugin declares; fail with the reason if discovery refuses it."""
        plugins = discover([self._point()])
        assert not plugins.problems, "; ".join(map(str, plugins.problems))
        return plugins.degradations

    def _each(self, check: Callable[[str, Synthesizer], None]) -> None:
        """Hold every declared degradation's function to a check."""
        for degradation in self._declared():
            check(degradation.name, import_synthesizer(degradation))


def check_synthesizer(name: str, degrade: Synthesizer) -> None:
    """Hold one synthesiser to the whole contract; `name` is the degradation's.

    Raises:
        AssertionError: what was found, and what was expected.
    """
    for check in (_check_form, _check_given, _check_damage, _check_seeds, _check_generator, _check_calls):
        check(name, degrade)


def _check_form(name: str, degrade: Synthesizer) -> None:
    for where, clean, degraded in _samples(name, degrade):
        _check_sample(where, clean, degraded)


def _check_sample(where: str, clean: Tensor, degraded: object) -> None:
    import torch

    assert isinstance(degraded, torch.Tensor), f"{where}: found {type(degraded).__name__}, expected a tensor"
    assert degraded.shape == clean.shape, f"{where}: found shape {tuple(degraded.shape)}, expected {tuple(clean.shape)}"
    assert degraded.dtype == torch.float32, f"{where}: found {degraded.dtype}, expected torch.float32"
    assert bool(degraded.isfinite().all()), f"{where}: found NaN or infinite values, expected finite ones"
    low, high = float(degraded.min()), float(degraded.max())
    assert 0 <= low <= high <= 1, f"{where}: found values from {low:.4g} to {high:.4g}, expected [0, 1]"


def _check_given(name: str, degrade: Synthesizer) -> None:
    for where, clean, _ in _samples(name, degrade):
        assert clean.equal(_photo(*clean.shape[1:])), f"{where}: the clean photo was modified in place"


def _check_damage(name: str, degrade: Synthesizer) -> None:
    for where, clean, degraded in _samples(name, degrade):
        assert not degraded.equal(clean), f"{where}: the photo came back unchanged; end with abair.ensure_changed"
    for value in (0.0, 1.0):
        flat = _photo(33, 47).fill_(value)
        assert not degrade(flat, _generator(0)).equal(flat), (
            f"{name}: a photo of nothing but {value} came back unchanged; end with abair.ensure_changed"
        )


def _check_seeds(name: str, degrade: Synthesizer) -> None:
    clean = _photo(33, 47)
    results = [degrade(clean, _generator(seed)) for seed in SEEDS]
    for seed, result in zip(SEEDS, results, strict=True):
        assert degrade(clean, _generator(seed)).equal(result), (
            f"{name}: two results for seed {seed}, expected one; draw from the generator alone"
        )
    kinds = len({result.numpy().tobytes() for result in results})
    assert kinds == len(results), f"{name}: {kinds} different results for {len(results)} seeds; expected one for each"


def _check_generator(name: str, degrade: Synthesizer) -> None:
    import torch

    clean, results = _photo(33, 47), []
    with torch.random.fork_rng(devices=[]):
        for global_seed in (1, 2):
            torch.manual_seed(global_seed)
            before = torch.get_rng_state()
            results.append(degrade(clean, _generator(0)))
            assert torch.get_rng_state().equal(before), (
                f"{name}: it draws from torch's global generator; expected the one it was given alone"
            )
    assert results[0].equal(results[1]), f"{name}: the result depends on torch.manual_seed; expected the generator"


def _check_calls(name: str, degrade: Synthesizer) -> None:
    import torch

    small, scene, threads = _photo(48, 64), _photo(384, 512), torch.get_num_threads()
    for call in range(CALLS):
        _check_sample(f"{name}, call {call + 1}", small, degrade(small, _generator(call)))
    results, now = [], time.time
    try:
        for count, hours in ((1, 0), (4, 7)):
            torch.set_num_threads(count)
            with mock.patch("time.time", lambda later=hours: now() + 3600 * later):
                results.append(degrade(scene, _generator(0)))
    finally:
        torch.set_num_threads(threads)
    assert float((results[0] - results[1]).abs().max()) <= 1 / 255, (
        f"{name}: one seed gives two results with 1 and 4 threads or at another time; expected one"
    )


def _samples(name: str, degrade: Synthesizer) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Which sample it is, the photo given, and its damaged version, for every size and seed."""
    for size in SIZES:
        for seed in SEEDS if max(size) < 200 else SEEDS[::2]:
            clean = _photo(*size)
            yield f"{name}, size {size}, seed {seed}", clean, degrade(clean, _generator(seed))


def check_adapter(folder: Path, name: str) -> None:
    """Check an adapter's files; with its backbone too if that is the factory's.

    Raises:
        AdapterError: a file is missing, a pickle, damaged, not a plain LoRA's, or made for no named
            backbone.
    """
    from abair.contract import CONFIG_FILE, WEIGHTS_FILE
    from abair.deployment import read_deployment
    from abair.locations import FILE_NAME, factory_folder
    from abair.model.backbone import load_backbone
    from abair.model.lora import PICKLES, PREFIX, read_adapter
    from abair.model.safetensors_io import read_header, read_tensors

    config, weights = folder / CONFIG_FILE, folder / WEIGHTS_FILE
    files = sorted(path.name for path in folder.rglob("*") if path.is_file())
    pickles = [file for file in files if Path(file).suffix.lower() in PICKLES]
    if pickles:
        raise AdapterError(f"{folder}: found {', '.join(pickles)}, which can run code; expected {WEIGHTS_FILE} alone")
    missing = [path.name for path in (config, weights) if not path.is_file()]
    if missing:
        raise AdapterError(
            f"{folder}: found {', '.join(files) or 'no files'}, expected {', '.join(missing)}; "
            f"train the adapter (abair train adapter {name}) or remove the folder"
        )
    size, mark, rank = _read_config(config)
    if size != folder.name:
        raise AdapterError(f"{config}: made for backbone {size}, expected {folder.name}, as its folder is named")
    header = read_header(weights, AdapterError)
    layers = {re.sub(r"\.lora_[AB]\.weight$", "", key) for key in header.shapes}
    expected = {f"{layer}.lora_{side}.weight" for layer in layers for side in "AB"}
    strange = sorted(set(header.shapes) ^ expected | {k for k in header.shapes if not k.startswith(PREFIX)})
    if strange or not layers:
        found = strange[0] if strange else "no tensors"
        raise AdapterError(
            f"{weights}: {found} does not fit; expected {PREFIX}<layer>.lora_A.weight and .lora_B.weight in pairs"
        )
    for key, shape in header.shapes.items():
        found_rank = dict(enumerate(shape)).get(0 if key.endswith("lora_A.weight") else 1)
        if found_rank != rank:
            raise AdapterError(
                f"{weights}: tensor {key}: found shape {shape}, expected rank {rank} as {CONFIG_FILE} says"
            )
    read_tensors(weights, header.shapes, AdapterError)  # refuses NaN and infinity
    if (factory_folder() / FILE_NAME).is_file():
        factory = read_deployment(factory_folder())
        if (factory.backbone.size, factory.backbone.fingerprint) == (size, mark):
            read_adapter(folder, load_backbone(factory.find(factory.backbone.file)), mark, name)


def _read_config(path: Path) -> tuple[str, str, int]:
    """Size and fingerprint of the backbone that an adapter was made for, and its rank."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AdapterError(f"{path}: cannot be read as JSON ({error}); expected PEFT's adapter config") from None
    given = config if isinstance(config, dict) else {}
    base, rank = given.get("base_model_name_or_path"), given.get("r")
    match = _REFERENCE.fullmatch(str(base))
    if not match:
        raise AdapterError(f"{path}: found base_model_name_or_path {base!r}, expected abair/<size>@<fingerprint>")
    if given.get("peft_type") != "LORA" or not isinstance(rank, int):
        raise AdapterError(
            f"{path}: found peft_type {given.get('peft_type')!r}, r = {rank!r}; expected 'LORA' and its rank"
        )
    return match[1], match[2], rank


def _photo(height: int, width: int) -> Tensor:
    """Return a fixed picture (3, H, W) with light, dark, a ramp, an edge and texture."""
    import torch

    rows = torch.linspace(0.1, 0.9, height).view(1, height, 1)
    columns = torch.linspace(0.2, 0.8, width).view(1, 1, width)
    tint = torch.tensor([1.0, 0.85, 0.7]).view(3, 1, 1)
    photo = 0.5 * tint * (rows + columns) + 0.05 * torch.rand((3, height, width), generator=_generator(99))
    photo[:, height // 2 :, : width // 2] *= 0.4
    return photo.clamp(0.0, 1.0)


def _generator(seed: int) -> Generator:
    import torch

    return torch.Generator().manual_seed(seed)
