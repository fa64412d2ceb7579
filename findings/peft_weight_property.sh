#!/usr/bin/env bash
# A layer that PEFT has wrapped still answers to `.weight`, with the weight of the base layer. A
# module that reads a child's weight instead of calling the child (to fold, tie or normalise it)
# runs on, and its adapter is silently left out: the output is the same with the adapter on and off,
# and the adapter gets no gradient.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 peft==0.21.2
"$folder/venv/bin/python" - <<'PY'
import peft
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn import functional as F


class Folded(nn.Module):
    """Reads the layer's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, 2 * self.layer.weight, self.layer.bias)


class Called(Folded):
    """Calls the layer."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


print("peft", peft.__version__, "torch", torch.__version__)
x = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
for kind in (Called, Folded):
    model = get_peft_model(kind(), LoraConfig(r=2, target_modules=["layer"], init_lora_weights=False))
    adapted = model(x)
    with model.disable_adapter():
        bare = model(x)
    change = float((adapted - bare).detach().abs().max())
    print(f"{kind.__name__}: largest change by the adapter {change:.3f}; needs a gradient: {adapted.requires_grad}")
    assert (change == 0) == (kind is Folded)
    assert adapted.requires_grad == (kind is Called)
PY
