"""ABAIR in ComfyUI: a node that restores images and one that says what is wrong with them.

Copy or link this folder into `ComfyUI/custom_nodes` as `abair`, and install ABAIR into ComfyUI's
Python: `pip install abair`. Nodes are found by `NODE_CLASS_MAPPINGS`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

if TYPE_CHECKING:
    from abair import Restorer

Inputs = dict[str, dict[str, tuple[Any, ...]]]


@lru_cache(maxsize=2)
def load(deployment: str, device: str) -> Restorer:
    """Load a deployment once; "" is the live one."""
    from abair import Restorer

    return Restorer.load(deployment or None, device=device)


def parse_weights(text: str) -> dict[str, float] | None:
    """Parse `noise=0.7, blur=0.3`; None for an empty text.

    Raises:
        ValueError: the text has another form.
    """
    weights: dict[str, float] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        label, equals, number = part.partition("=")
        try:
            weights[label.strip()] = float(number)
        except ValueError:
            equals = ""
        if not equals:
            raise ValueError(f"weights: found {part!r}, expected label=number, as in noise=0.7, blur=0.3")
    return weights or None


def describe(weights: dict[str, float]) -> str:
    """Return weights as one line, the largest first."""
    ordered = sorted(weights.items(), key=lambda item: -item[1])
    return ", ".join(f"{label} {weight:.2f}" for label, weight in ordered if weight >= 0.005)


def common_inputs() -> dict[str, tuple[Any, ...]]:
    """Return the inputs that both nodes have."""
    return {
        "deployment": ("STRING", {"default": "", "tooltip": "factory, paper, or a folder; empty for the live one"}),
        "device": (["cpu", "cuda", "mps", "xpu"],),
    }


class AbairRestore:
    """Restores images; the damage is estimated for each, unless weights are given."""

    RETURN_TYPES: ClassVar = ("IMAGE", "STRING")
    RETURN_NAMES: ClassVar = ("image", "weights")
    FUNCTION = "restore"
    CATEGORY = "image/restoration"
    DESCRIPTION = "Restores photos with noise, rain, haze, blur or low light."

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:  # noqa: N802 - ComfyUI asks for this name
        """Return the inputs, as ComfyUI reads them."""
        number = {"default": 1.0, "min": 0.0, "max": 1.0, "step": 0.05}
        return {
            "required": {
                "image": ("IMAGE",),
                "strength": ("FLOAT", number),
                "policy": (["soft", "one-hot", "backbone"],),
            },
            "optional": {
                "weights": ("STRING", {"default": "", "tooltip": "noise=0.7, blur=0.3; empty to estimate"}),
                "quality": (["standard", "best"],),
            }
            | common_inputs(),
        }

    def restore(
        self,
        image: Tensor,
        strength: float,
        policy: str,
        weights: str = "",
        quality: str = "standard",
        deployment: str = "",
        device: str = "cpu",
    ) -> tuple[Tensor, str]:
        """Restore images (B, H, W, 3) in [0, 1]; an alpha channel is kept as it is."""
        restorer = load(deployment, device)
        options: dict[str, Any] = {"policy": policy, "weights": parse_weights(weights), "strength": strength}
        results = [restorer(one[..., :3].permute(2, 0, 1), quality=quality, **options) for one in image]
        restored = torch.stack([result.image.permute(1, 2, 0) for result in results])
        said = "\n".join(describe(result.weights) for result in results)
        return torch.cat([restored, image[..., 3:]], dim=-1), said


class AbairEstimate:
    """Says what is wrong with images."""

    RETURN_TYPES: ClassVar = ("STRING",)
    RETURN_NAMES: ClassVar = ("weights",)
    FUNCTION = "estimate"
    CATEGORY = "image/restoration"

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:  # noqa: N802 - ComfyUI asks for this name
        """Return the inputs, as ComfyUI reads them."""
        return {"required": {"image": ("IMAGE",)}, "optional": common_inputs()}

    def estimate(self, image: Tensor, deployment: str = "", device: str = "cpu") -> tuple[str]:
        """Estimate images (B, H, W, 3) in [0, 1]; one line each."""
        restorer = load(deployment, device)
        return ("\n".join(describe(restorer.estimate(one[..., :3].permute(2, 0, 1))) for one in image),)


NODE_CLASS_MAPPINGS = {"AbairRestore": AbairRestore, "AbairEstimate": AbairEstimate}
NODE_DISPLAY_NAME_MAPPINGS = {"AbairRestore": "ABAIR: restore", "AbairEstimate": "ABAIR: what is wrong"}
