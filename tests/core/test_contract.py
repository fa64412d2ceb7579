"""The contract's model, and that the contract suite notices what it is there to notice."""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file

import abair
from abair.contract import Hooks
from abair.errors import AdapterError
from abair.testing import DegradationContract, check_adapter

CARD = abair.Card(authors=("A",), licence="MIT", training_data="none")


def degradation(**changed: Any) -> abair.Degradation:
    """A valid degradation, with some fields changed."""
    fields: dict[str, Any] = {
        "name": "snow",
        "title": "Snow",
        "synthesizer": "abair_snow.synthesis:degrade",
        "adapters": Path("adapters"),
        "card": CARD,
    }
    return abair.Degradation(**fields | changed)


@pytest.mark.parametrize("name", ["snow", "low-light", "jpeg2000", "a", "a" * 40])
def test_names_are_lower_case_words(name: str) -> None:
    assert degradation(name=name).name == name


@pytest.mark.parametrize(
    "name", ["", "clean", "Snow", "snow_wet", "-snow", "snow-", "a--b", "2snow", "a" * 41, "snow\n"]
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="expected up to 40 lower-case letters"):
        degradation(name=name)


@pytest.mark.parametrize("synthesizer", ["", "abair_snow", "abair_snow:", ":degrade", "a.b:c.d", "a/b:c", "a..b:c"])
def test_a_synthesiser_is_an_import_string(synthesizer: str) -> None:
    with pytest.raises(ValidationError, match=r"expected 'package\.module:function'"):
        degradation(synthesizer=synthesizer)


def test_fields_are_complete_known_and_frozen() -> None:
    with pytest.raises(ValidationError, match="card"):
        abair.Degradation(name="snow", title="Snow", synthesizer="a:b", adapters=Path())
    with pytest.raises(ValidationError, match="colour"):
        degradation(colour="white")
    with pytest.raises(ValidationError, match="authors"):
        abair.Card(authors=(), licence="MIT", training_data="none")
    with pytest.raises(ValidationError, match="frozen"):
        degradation().name = "rain"


def test_there_are_three_hooks_each_with_a_sentence() -> None:
    hooks = {name: hook for name, hook in vars(Hooks).items() if not name.startswith("_")}
    assert sorted(hooks) == ["abair_degradations", "abair_deployed", "abair_gates"]
    assert all(hook.__doc__ for hook in hooks.values())


def keeps(clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A degradation that keeps the contract."""
    return (clean + 0.1 * torch.randn(clean.shape, generator=generator)).clamp(0, 1)


def unseeded(clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return (clean + 0.1 * torch.randn(clean.shape)).clamp(0, 1)


def constant(clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return 1 - clean


def in_place(clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return clean.copy_(keeps(clean, generator))


def out_of_range(clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return clean + 0.5 * torch.randn(clean.shape, generator=generator)


def other_type(clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return keeps(clean, generator).double()


def other_shape(clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return keeps(clean, generator)[:, :1]


def identity(clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return clean.clone()


def nothing_left(clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return keeps(clean, generator) / 0 - 1 / torch.zeros(1)


def seeds_all(clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    torch.manual_seed(int(torch.randint(1000, (), generator=generator)))
    return (clean + 0.1 * torch.randn(clean.shape)).clamp(0, 1)


SAMPLES = {
    keeps: set(),
    unseeded: {"the_same_seed", "torchs_global"},
    constant: {"the_same_seed"},
    in_place: {"the_photo_given", "it_always"},
    out_of_range: {"shape_type"},
    other_type: {"shape_type"},
    other_shape: {"shape_type"},
    identity: {"the_same_seed", "it_always"},
    nothing_left: {"shape_type"},
    seeds_all: {"torchs_global"},
}


def suite(synthesizer: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> DegradationContract:
    """The contract suite for a plugin in memory whose synthesiser is the given function of this file."""
    module = ModuleType("abair_snow_in_memory")
    module.degrade = synthesizer

    @abair.hookimpl
    def abair_degradations() -> list[abair.Degradation]:
        return [degradation(synthesizer="abair_snow_in_memory:degrade", adapters=tmp_path)]

    module.abair_degradations = abair_degradations
    monkeypatch.setitem(sys.modules, module.__name__, module)

    class Snow(DegradationContract):
        pass

    Snow.module = module
    return Snow()


def failures(contract: DegradationContract) -> set[str]:
    """The tests of the suite that fail; the one that needs the module on disk is left out."""
    failed: dict[str, str] = {}
    for name in dir(contract):
        if name.startswith("test_") and not name.startswith(("test_declaring", "test_its_adapters")):
            try:
                getattr(contract, name)()
            except AssertionError as error:
                failed[name.removeprefix("test_")] = str(error)
    assert all(failed.values()), "a test fails without a word"
    return set(failed)


@pytest.mark.parametrize("synthesizer", SAMPLES, ids=lambda function: function.__name__)
def test_the_suite_notices(synthesizer: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    failed = failures(suite(synthesizer, monkeypatch, tmp_path))
    expected = SAMPLES[synthesizer]
    assert all(any(name.startswith(start) for name in failed) for start in expected), failed
    assert bool(failed) == bool(expected)


@pytest.mark.slow
def test_the_suite_notices_torch_at_import(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "abair_heavy_snow.py").write_text("import torch\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))

    class Snow(DegradationContract):
        module = "abair_heavy_snow"

    with pytest.raises(AssertionError, match="abair_heavy_snow: importing it imports torch"):
        Snow().test_declaring_it_imports_no_torch()


def test_the_suite_says_that_a_plugin_is_not_installed_or_not_named() -> None:
    class Snow(DegradationContract):
        plugin = "no-such-plugin"

    with pytest.raises(AssertionError, match=r"no entry point 'no-such-plugin' .*pip install -e \."):
        Snow().test_its_synthesisers_load()
    with pytest.raises(AssertionError, match="found neither attribute"):
        DegradationContract().test_its_synthesisers_load()


def test_the_suite_skips_adapters_that_are_not_there_yet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(pytest.skip.Exception, match="abair train adapter snow"):
        suite(keeps, monkeypatch, tmp_path).test_its_adapters_can_be_used()


CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "base_model_name_or_path": f"abair/nano@{'0' * 64}"}
LAYER = "base_model.model.stem"


def write_adapter(folder: Path, config: dict[str, Any] | None = None, **tensors: torch.Tensor) -> Path:
    """An adapter of one layer in `folder`/nano, with the config changed, and tensors replaced by `A` or `B`."""
    folder = folder / "nano"
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG | (config or {})), encoding="utf-8")
    sides = {"A": torch.ones(2, 12), "B": torch.ones(8, 2)} | tensors
    save_file({f"{LAYER}.lora_{side}.weight": t for side, t in sides.items()}, folder / "adapter_model.safetensors")
    return folder


def test_a_good_adapter_passes(tmp_path: Path) -> None:
    check_adapter(write_adapter(tmp_path), "snow")


@pytest.mark.parametrize(
    ("config", "tensors", "reason"),
    [
        ({"base_model_name_or_path": "nano"}, {}, "found base_model_name_or_path 'nano', expected abair/<size>@"),
        ({"base_model_name_or_path": f"abair/base@{'0' * 64}"}, {}, "made for backbone base, expected nano"),
        ({"peft_type": "IA3"}, {}, "found peft_type 'IA3'"),
        ({"r": 4}, {}, r"found shape \(2, 12\), expected rank 4"),
        ({}, {"B": torch.ones(8, 3)}, r"found shape \(8, 3\), expected rank 2"),
        ({}, {"A": torch.full((2, 12), float("nan"))}, "found NaN or infinite"),
        ({}, {"C": torch.ones(1)}, "lora_C.weight does not fit"),
    ],
)
def test_a_faulty_adapter_is_refused(
    config: dict[str, object], tensors: dict[str, torch.Tensor], reason: str, tmp_path: Path
) -> None:
    folder = write_adapter(tmp_path, config, **tensors)
    with pytest.raises(AdapterError, match=reason):
        check_adapter(folder, "snow")


def test_missing_files_and_pickles_are_refused(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path)
    (folder / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(AdapterError, match=r"adapter_model\.bin, which can run code"):
        check_adapter(folder, "snow")
    (folder / "adapter_model.bin").unlink()
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(AdapterError, match=r"expected adapter_model\.safetensors; train the adapter"):
        check_adapter(folder, "snow")


def test_a_card_shows_what_the_training_recorded(tmp_path: Path) -> None:
    assert abair.recorded_figures(tmp_path / "none") == {}
    for backbone, text in (
        ("nano", '[run]\npsnr = 31.5\nbare = 29\nphotos = "many"\nfine = true\nlost = nan\n[run.others]\nrain = 1.0\n'),
        ("base", "[run]\npsnr = 33.25\n"),
        ("small", "psnr = "),
        ("tiny", "run = 3"),
        ("huge", f"[run]\npsnr = {10**400}\n"),
        ("deep", "[run]\npsnr = " + "[" * 10_000),
    ):
        (tmp_path / backbone).mkdir()
        (tmp_path / backbone / "training.toml").write_text(text)
    (tmp_path / "tiny" / "odd").mkdir()
    figures = abair.recorded_figures(tmp_path)
    assert figures == {"base/psnr": 33.25, "nano/psnr": 31.5, "nano/bare": 29.0}
    assert CARD.model_copy(update={"figures": figures}).model_dump(mode="json")["figures"] == figures
