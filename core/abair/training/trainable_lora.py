"""A LoRA in training on a frozen backbone, through PEFT (nothing else in training imports it).

It changes the linear and the ungrouped convolution layers. The paper's best rank of 4, 8, 16 was 4,
for a backbone of 26 million weights; for `nano`, a tenth of that, 16 is better.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from abair.contract import CONFIG_FILE, WEIGHTS_FILE
from abair.errors import MissingExtraError, TrainingError
from abair.model.backbone import Backbone, fingerprint, freeze
from abair.model.lora import Adapter, adaptable_layers, backbone_reference

if TYPE_CHECKING:
    from peft import PeftModel

SCALE: Final = 2
"""LoRA's alpha over its rank: the factor of what the adapter adds."""


class TrainableLora:
    """A LoRA of `rank` on `backbone`, which is changed in place and frozen.

    `module` is PEFT's model of both.

    Raises:
        MissingExtraError: PEFT is not installed.
    """

    def __init__(self, backbone: Backbone, rank: int) -> None:
        self.size, self.rank = backbone.size, rank
        self.fingerprint = fingerprint(backbone)
        layers = adaptable_layers(backbone)
        self.module = _peft_model(backbone, sorted(layers), rank, backbone_reference(self.size.name, self.fingerprint))
        self._layers: dict[str, Any] = {name: self.module.get_base_model().get_submodule(name) for name in layers}

    def weight_changes(self) -> dict[str, Tensor]:
        """Return what the adapter adds to each layer's weight, by the layer's name, in float32."""
        with torch.autocast(next(self.module.parameters()).device.type, enabled=False):
            return {name: layer.get_delta_weight("default") for name, layer in self._layers.items()}

    def check_fit(self, adapter: Adapter, purpose: str) -> None:
        """Refuse an adapter whose weights cannot be combined with these.

        Raises:
            TrainingError: it is of another rank or leaves layers out; the text names the `purpose`.
        """
        if adapter.rank != self.rank:
            raise TrainingError(
                f"{adapter.name}, {purpose}: found rank {adapter.rank}, expected {self.rank}; "
                f"give --rank {adapter.rank}"
            )
        if set(adapter.layers) != set(self._layers):
            raise TrainingError(
                f"{adapter.name}, {purpose}: found {len(adapter.layers)} layers, expected all {len(self._layers)} that "
                "an adapter may change; name another, or none"
            )

    @torch.no_grad()
    def interpolate(self, adapter: Adapter, weight: float) -> None:
        """Move the weights towards those of an adapter that fits; `weight` is 0 to 1."""
        for name, (down, up) in adapter.layers.items():
            for matrix, tensor in (("lora_A", down), ("lora_B", up * (adapter.scaling / SCALE))):
                parameter = self._layers[name].get_submodule(matrix).get_parameter("default.weight")
                parameter.lerp_(tensor.view_as(parameter).to(parameter), weight)

    @torch.no_grad()
    def begin_from(self, adapter: Adapter, scale: float) -> None:
        """Take over an adapter that fits, and the part `scale` of what it adds to each weight."""
        self.interpolate(adapter, 1.0)
        for layer in self._layers.values():
            for matrix in ("lora_A", "lora_B"):
                layer.get_submodule(matrix).get_parameter("default.weight").mul_(math.sqrt(scale))

    def base_fingerprint(self) -> str:
        """Return the fingerprint of the backbone under the adapter as it is now."""
        base = Backbone(self.size)
        state = self.module.get_base_model().state_dict()
        base.load_state_dict(
            {name.replace(".base_layer.", "."): tensor for name, tensor in state.items() if ".lora_" not in name}
        )
        return fingerprint(base)

    def export(self, folder: Path) -> Path:
        """Write the adapter in PEFT's format, in 16 bits, and return `folder/<backbone>`.

        Raises:
            TrainingError: the backbone was changed by the training, which must never happen.
        """
        if (found := self.base_fingerprint()) != self.fingerprint:
            raise TrainingError(
                f"{folder}: the frozen backbone changed: found fingerprint {found}, expected {self.fingerprint}; "
                "do not use this adapter"
            )
        out = folder / self.size.name
        aside = folder / f".{self.size.name}.partial"
        lora = {name: tensor.half() for name, tensor in self.module.state_dict().items() if ".lora_" in name}
        # PEFT would ask a model hub about embeddings, which this network has none of
        self.module.save_pretrained(str(aside), safe_serialization=True, save_embedding_layers=False, state_dict=lora)
        out.mkdir(parents=True, exist_ok=True)
        # PEFT writes a set in the order of its hashes: equal runs shall give equal files
        config = json.loads((aside / CONFIG_FILE).read_text(encoding="utf-8"))
        config["target_modules"] = sorted(config["target_modules"])
        (aside / CONFIG_FILE).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        for name in (WEIGHTS_FILE, CONFIG_FILE):
            (aside / name).chmod(0o644)  # safetensors makes files that only their owner reads
            (aside / name).replace(out / name)
        shutil.rmtree(aside)
        return out


def blended_weights(
    network: Backbone, changes: Mapping[str, Tensor], partner: Mapping[str, Tensor] | None = None, share: float = 1.0
) -> dict[str, Tensor]:
    """Return the weights W + B A with which `network` is to be called, by their names.

    With a `partner`'s changes they are W + share * B A + (1 - share) * its own. PEFT would run each
    layer's two small matrices beside the layer, which takes a third longer.
    """
    weights = {}
    for name, own_change in changes.items():
        weight, change = network.get_submodule(name).get_parameter("weight"), own_change
        if partner is not None:
            change = share * change
            if name in partner:
                change += (1 - share) * partner[name].view_as(weight).to(weight.device)
        weights[f"{name}.weight"] = weight + change
    return weights


def _peft_model(backbone: Backbone, layers: list[str], rank: int, reference: str) -> PeftModel:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise MissingExtraError(
            "training an adapter: peft is missing; install it with: pip install 'abair[train]'"
        ) from error
    freeze(backbone)
    model = get_peft_model(backbone, LoraConfig(r=rank, lora_alpha=SCALE * rank, target_modules=layers))
    # only now: get_peft_model overwrites it with the model's own name, of which a plain module has
    # none
    model.peft_config["default"].base_model_name_or_path = reference
    return model
