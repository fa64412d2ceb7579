"""LoRA adapters: read from PEFT's files, stacked, and blended into the backbone for one image.

For each adapted layer W' = W + sum_i w_i (alpha_i / r_i) B_i A_i (Hu et al., LoRA, 2022; weighted
as in Serrano-Lozano et al., section 3.3). The part of a photo that is left alone has no adapter: it
scales what the network changes, and the adapters share the rest. All A and all B of a layer are
stacked, so a blend is one small matrix product per layer for any number of adapters, and the
network then runs as fast as without any. PEFT trains adapters; it does not serve them.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from abair.contract import CONFIG_FILE, WEIGHTS_FILE
from abair.errors import AdapterError, WeightsError
from abair.model.backbone import Backbone
from abair.model.safetensors_io import read_header, read_tensors

PREFIX: Final = "base_model.model."
"""What PEFT puts before the layer's name in the name of a tensor."""
NEGLIGIBLE: Final = 1e-6
"""Largest weight of an adapter that is left out of a blend: it changes no value of a photo by as
much."""
LARGEST_RANK: Final = 64
"""Adapters of a higher rank are refused."""
PICKLES: Final = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"})
"""Suffixes of files that can run code when they are read."""


@dataclass(frozen=True)
class Adapter:
    """One LoRA: per layer A (r, inputs) and B (outputs, r); `scaling` is alpha / r.

    The weights of convolutions are flattened to matrices.
    """

    name: str
    rank: int
    scaling: float
    layers: Mapping[str, tuple[Tensor, Tensor]]

    @property
    def parameters(self) -> int:
        """How many numbers the adapter holds."""
        return sum(a.numel() + b.numel() for a, b in self.layers.values())

    def weight_delta(self, layer: str) -> Tensor:
        """Return what is added to a layer's weight, (outputs, inputs): alpha / r times B A."""
        down, up = self.layers[layer]
        return self.scaling * (up @ down)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the scaling and the tensors; independent of the name."""
        digest = hashlib.sha256(f"{self.scaling}\n".encode())
        for name, (down, up) in sorted(self.layers.items()):
            digest.update(name.encode() + down.cpu().numpy().tobytes() + up.cpu().numpy().tobytes())
        return digest.hexdigest()


def backbone_reference(size: str, fingerprint: str) -> str:
    """Return the `base_model_name_or_path` of an adapter for a backbone."""
    return f"abair/{size}@{fingerprint}"


def adaptable_layers(backbone: Backbone) -> dict[str, nn.Conv2d | nn.Linear]:
    """Return the layers that an adapter may change: linear ones and ungrouped convolutions.

    PEFT cannot merge grouped ones.
    """
    return {
        name: module
        for name, module in backbone.named_modules()
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)
    }


def read_adapter(folder: Path, backbone: Backbone, fingerprint: str | None, name: str) -> Adapter:
    """Read and check an adapter in PEFT's format.

    A `fingerprint` of None stands for every backbone of this size: training may begin from an
    adapter for an earlier one, but nothing can be restored with it.

    Raises:
        AdapterError: a pickle lies in the folder; a file is missing or damaged; the config is not a
            plain LoRA's; keys, shapes, rank or values do not fit; or it was made for another
            backbone.
    """
    pickles = (
        sorted(path.name for path in folder.iterdir() if path.suffix.lower() in PICKLES) if folder.is_dir() else []
    )
    if pickles:
        raise AdapterError(
            f"{folder / pickles[0]}: found a pickle, which can run code when it is read; expected {WEIGHTS_FILE}; "
            "save the adapter as safetensors and delete it"
        )
    return read_adapter_files(folder / CONFIG_FILE, folder / WEIGHTS_FILE, backbone, fingerprint, name)


def read_adapter_files(config: Path, weights: Path, backbone: Backbone, fingerprint: str | None, name: str) -> Adapter:
    """Read and check an adapter whose two files are named one by one.

    Raises:
        AdapterError: as `read_adapter`, but nothing is said about other files.
    """
    rank, scaling = _read_config(config, backbone_reference(backbone.size.name, fingerprint or ""))
    adaptable = adaptable_layers(backbone)
    expected: dict[str, tuple[int, ...]] = {}
    for key in read_header(weights, AdapterError).shapes:
        layer = key.removeprefix(PREFIX).removesuffix(".weight").removesuffix(".lora_A").removesuffix(".lora_B")
        if layer not in adaptable or key not in {f"{PREFIX}{layer}.lora_A.weight", f"{PREFIX}{layer}.lora_B.weight"}:
            raise AdapterError(
                f"{weights}: found tensor {key}; expected {PREFIX}<layer>.lora_A.weight and .lora_B.weight of linear "
                f"or ungrouped convolution layers of backbone {backbone.size.name}"
            )
        down, up = _lora_shapes(adaptable[layer], rank)
        expected |= {f"{PREFIX}{layer}.lora_A.weight": down, f"{PREFIX}{layer}.lora_B.weight": up}
    if not expected:
        raise AdapterError(f"{weights}: found no tensors, expected a LoRA of rank {rank}")
    tensors = read_tensors(weights, expected, AdapterError)
    layers = {
        layer: (
            tensors[f"{PREFIX}{layer}.lora_A.weight"].flatten(1),
            tensors[f"{PREFIX}{layer}.lora_B.weight"].flatten(1),
        )
        for layer in adaptable
        if f"{PREFIX}{layer}.lora_A.weight" in tensors
    }
    return Adapter(name, rank, scaling, layers)


class Blender:
    """Blends a fixed sequence of adapters into a frozen backbone; stateless, safe for threads.

    `adapters` are those that were given, as views of the stacks: once the caller lets go of its
    own, each is in memory once.
    """

    def __init__(self, backbone: Backbone, adapters: Sequence[Adapter]) -> None:
        self.backbone = backbone
        self.count = len(adapters)
        self._stacks: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
        self._columns: dict[str, dict[int, slice]] = {}  # where each adapter lies in a layer's stack
        device = next(backbone.parameters()).device
        self._scalings = torch.tensor([adapter.scaling for adapter in adapters], device=device)
        self._modules = adaptable_layers(backbone)
        views: list[dict[str, tuple[Tensor, Tensor]]] = [{} for _ in adapters]
        for layer in self._modules:
            held = [
                (i, adapter, *adapter.layers[layer]) for i, adapter in enumerate(adapters) if layer in adapter.layers
            ]
            if held:
                down = torch.cat([a for _, _, a, _ in held]).to(device)  # (sum r, inputs)
                up = torch.cat([b for _, _, _, b in held], dim=1).to(device)  # (outputs, sum r)
                owner = torch.cat([torch.full((adapter.rank,), i) for i, adapter, _, _ in held]).to(device)
                self._stacks[layer] = (down, up, owner)
                ends = itertools.accumulate(adapter.rank for _, adapter, _, _ in held)
                self._columns[layer] = {
                    i: slice(end - adapter.rank, end) for end, (i, adapter, _, _) in zip(ends, held, strict=True)
                }
                for i, columns in self._columns[layer].items():
                    views[i][layer] = down[columns], up[:, columns]
        self.adapters = tuple(replace(adapter, layers=own) for adapter, own in zip(adapters, views, strict=True))

    @torch.inference_mode()
    def blend(self, weights: Sequence[float], keep: float = 0.0) -> Backbone:
        """Return a network with the adapters blended, its residual scaled by 1 - `keep`.

        `keep` is the part of the photo that is left alone. The adapters are added by `weights`
        divided by 1 - `keep`: with weights that sum to 1 - `keep`, the part that is restored is
        restored at the adapters' full strength. Weaker adapters would leave it to the bare
        backbone, which guesses what is wrong. Without weights and `keep` it is the bare backbone.
        Weights up to `NEGLIGIBLE` count as none.

        The backbone is not changed; the network shares with it every tensor that no adapter
        changes.

        Raises:
            WeightsError: there is not one weight for each adapter.
        """
        if len(weights) != self.count:
            raise WeightsError(
                f"blending: found {len(weights)} weights, expected {self.count}: one for each adapter, in order"
            )
        copies: dict[nn.Module, nn.Module] = {}
        network: Any = _copy_sharing_tensors(self.backbone, copies)
        if any(weights) and keep < 1:
            device = next(network.parameters()).device
            used = [weight / (1 - keep) if weight > NEGLIGIBLE else 0.0 for weight in weights]
            for layer, value in self._adapted_by(used, device).items():
                _set_parameter(copies[self._modules[layer]], "weight", value)
        if keep:
            output: Any = network.output
            _set_parameter(output, "weight", output.weight * (1 - keep))
            _set_parameter(output, "bias", output.bias * (1 - keep))
        return network  # type: ignore[no-any-return]

    def blended_tensors(self, weights: Tensor, keep: Tensor) -> dict[str, Tensor]:
        """Return the tensors, by name, in which `blend(weights, keep)` differs from the backbone.

        `weights` (N,) and `keep` () are tensors, so that a graph can be made of the blend.
        """
        rest = 1 - keep
        changed = self._adapted_weights(weights / rest.clamp(min=1e-6))  # with nothing to restore, all is times 0
        tensors = {f"{layer}.weight": value for layer, value in changed.items()}
        for name in ("output.weight", "output.bias"):
            tensors[name] = tensors.get(name, self.backbone.get_parameter(name)) * rest
        return tensors

    def _adapted_by(self, factors: Sequence[float], device: torch.device) -> dict[str, Tensor]:
        """Return what `_adapted_weights` does, from the adapters alone whose factor is not 0."""
        if all(factors):
            return self._adapted_weights(torch.tensor(factors, device=device))
        adapted = {}
        scaled = [factor * adapter.scaling for factor, adapter in zip(factors, self.adapters, strict=True)]
        for layer, (down, up, _) in self._stacks.items():
            parts = [(columns, scaled[index]) for index, columns in self._columns[layer].items() if scaled[index]]
            weight: Any = self._modules[layer].weight
            sums = weight.flatten(1)
            for columns, factor in parts:
                sums = torch.addmm(sums, up[:, columns], down[columns], alpha=factor)
            if parts:
                adapted[layer] = sums.view_as(weight)
        return adapted

    def _adapted_weights(self, factors: Tensor) -> dict[str, Tensor]:
        """Return the weight of each adapted layer with the adapters added by `factors` (N,)."""
        adapted = {}
        scaled = factors * self._scalings
        for layer, (down, up, owner) in self._stacks.items():
            weight: Any = self._modules[layer].weight
            adapted[layer] = weight + ((up * scaled[owner]) @ down).view_as(weight)
        return adapted


def _copy_sharing_tensors(module: nn.Module, copies: dict[nn.Module, nn.Module]) -> nn.Module:
    """Copy the module tree around the same parameters; a deep copy takes as long as a blend.

    `copies` gets the copy of each module.
    """
    other = module.__class__.__new__(module.__class__)  # Python's `copy` takes five times as long
    other.__dict__.update(module.__dict__)
    other.__dict__["_parameters"] = dict(module._parameters)
    other.__dict__["_modules"] = {
        name: child if child is None else _copy_sharing_tensors(child, copies)
        for name, child in module._modules.items()
    }
    copies[module] = other
    return other


def _set_parameter(module: nn.Module, name: str, value: Tensor) -> None:
    if value.dim() == 4:
        value = value.contiguous(memory_format=torch.channels_last)
    module._parameters[name] = nn.Parameter(value, requires_grad=False)


def _lora_shapes(module: nn.Conv2d | nn.Linear, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes of A and B for a layer, as PEFT stores them."""
    if isinstance(module, nn.Linear):
        return (rank, module.in_features), (module.out_features, rank)
    return (rank, module.in_channels, *module.kernel_size), (module.out_channels, rank, 1, 1)


def _read_config(path: Path, reference: str) -> tuple[int, float]:
    """Check an `adapter_config.json`; return the rank and the scaling.

    A `reference` without a fingerprint stands for every backbone of its size.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise AdapterError(f"{path}: cannot be read as JSON ({error}); expected PEFT's adapter config") from None
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        found = config.get("peft_type") if isinstance(config, dict) else type(config).__name__
        raise AdapterError(f"{path}: found peft_type {found!r}, expected 'LORA'")
    refused = (
        "use_dora",
        "use_rslora",
        "rank_pattern",
        "alpha_pattern",
        "modules_to_save",
        "fan_in_fan_out",
        "lora_bias",
    )
    used = [key for key in refused if config.get(key)]
    if config.get("bias", "none") != "none":
        used.append("bias")
    if isinstance(config.get("init_lora_weights"), str) and config["init_lora_weights"] != "gaussian":
        used.append(f"init_lora_weights={config['init_lora_weights']}")  # PiSSA, OLoRA: they change the backbone
    if used:
        raise AdapterError(f"{path}: found {', '.join(used)} switched on, expected a plain LoRA (A and B alone)")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or isinstance(rank, bool) or not 1 <= rank <= LARGEST_RANK:
        raise AdapterError(f"{path}: found rank r = {rank!r}, expected a whole number from 1 to {LARGEST_RANK}")
    if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not 0 < alpha < 1e4:
        raise AdapterError(f"{path}: found lora_alpha = {alpha!r}, expected a number above 0")
    found = config.get("base_model_name_or_path")
    if not (found == reference or (reference.endswith("@") and str(found).startswith(reference))):
        raise AdapterError(
            f"{path}: made for backbone {found!r}, expected {reference!r}; "
            "an adapter belongs to one backbone: train it again for this one (abair train adapter)"
        )
    return rank, alpha / rank
