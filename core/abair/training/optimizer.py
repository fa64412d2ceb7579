"""The optimisers of a training run: AdamW, or Muon for matrices beside AdamW for all else.

Muon (Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024) replaces the
momentum of a weight matrix by the nearest orthogonal matrix, so that all its directions learn
alike. The update is scaled as by Liu et al. ("Muon is scalable for LLM training", arXiv
2502.16982), so that one learning rate serves both. `torch.optim.Muon` takes matrices alone, always
in bfloat16; here the filters of a convolution are matrices, too, equal shapes are one product, and
the processes of a group share the work.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, overload

import torch
from torch import Tensor, nn

from abair.training import distributed
from abair.training.settings import Settings

BETAS: Final = (0.9, 0.99)
"""AdamW's decay rates of the two moments."""
MOMENTUM: Final = 0.95
"""Muon's decay rate of the momentum."""
SMALLEST_MATRIX: Final = 16
"""Least rows and columns of what Muon updates: depthwise filters and scales are no matrices."""
UPDATE_RMS: Final = 0.2
"""Root mean square of Muon's update at a learning rate of 1, about that of AdamW's."""
COEFFICIENTS: Final = (3.4445, -4.7750, 2.0315)
"""Of the polynomial that each Newton-Schulz iteration applies to the singular values (Jordan)."""
ITERATIONS: Final = 5
"""Newton-Schulz iterations: singular values end between about 0.7 and 1.2."""


def make_optimizer(
    parameters: Iterable[nn.Parameter], settings: Settings, *, in_bf16: bool = False
) -> torch.optim.Optimizer:
    """Return the optimiser that the settings name; the loop sets its rate at each step.

    With `in_bf16`, Muon multiplies in bfloat16, as its authors do: that moves the singular values
    less than its polynomial does.
    """
    if settings.optimizer == "muon":
        return Muon(parameters, settings.weight_decay, torch.bfloat16 if in_bf16 else torch.float32)
    return torch.optim.AdamW(parameters, lr=0.0, betas=BETAS, weight_decay=settings.weight_decay, fused=True)


class Muon(torch.optim.Optimizer):
    """Muon for weights that are matrices of at least 16x16, AdamW for all others.

    The state of a matrix is its `momentum`, that of the others is AdamW's.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], weight_decay: float, products: torch.dtype = torch.float32
    ) -> None:
        parameters = list(parameters)
        self._products = products
        others = [parameter for parameter in parameters if not _is_matrix(parameter)]
        self._matrices = [parameter for parameter in parameters if _is_matrix(parameter)]
        super().__init__(parameters, {"lr": 0.0, "weight_decay": weight_decay})
        self._adamw = torch.optim.AdamW(others, betas=BETAS, weight_decay=weight_decay, fused=True) if others else None
        if self._adamw is not None:
            self._adamw.state = self.state  # one state, as checkpoints save it

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update all parameters from their gradients, which all processes must have alike."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        group: dict[str, Any] = self.param_groups[0]
        if self._adamw is not None:
            self._adamw.param_groups[0]["lr"] = group["lr"]
            self._adamw.step()
        gradients = {parameter: parameter.grad for parameter in self._matrices if parameter.grad is not None}
        for parameter, update in zip(gradients, self._orthogonal_momenta(gradients), strict=True):
            scale = UPDATE_RMS * math.sqrt(max(update.shape))
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(update.view(parameter.shape), alpha=-group["lr"] * scale)
        return loss

    def _orthogonal_momenta(self, gradients: Mapping[nn.Parameter, Tensor]) -> list[Tensor]:
        """Return the update of each matrix (rows, columns); every process makes its share."""
        momenta = []
        for parameter, gradient in gradients.items():
            momentum = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
            momentum.lerp_(gradient, 1 - MOMENTUM)
            momenta.append(torch.lerp(gradient, momentum, MOMENTUM).flatten(1))  # Nesterov's
        by_shape: dict[torch.Size, list[int]] = {}
        for index, momentum in enumerate(momenta):
            by_shape.setdefault(momentum.shape, []).append(index)
        updates = [torch.zeros_like(momentum) for momentum in momenta]
        for indices in by_shape.values():
            if own := distributed.share_of(indices):
                stacked = orthogonalise(torch.stack([momenta[index] for index in own]), self._products)
                for index, update in zip(own, stacked, strict=True):
                    updates[index] = update
        distributed.add_up(updates)
        return updates


def orthogonalise(matrices: Tensor, products: torch.dtype = torch.float32) -> Tensor:
    """Return matrices (N, rows, columns) with the same singular vectors and values near 1.

    The iterations compute in the type `products`; the result has the type of `matrices`.
    """
    first, second, third = COEFFICIENTS
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if is_tall else matrices
    x = x / x.flatten(1).norm(dim=1).clamp_min(1e-7)[:, None, None]
    x = x.to(products)
    for _ in range(ITERATIONS):
        square = x @ x.mT
        x = first * x + (second * square + third * square @ square) @ x
    orthogonal: Tensor = (x.mT if is_tall else x).to(matrices.dtype)
    return orthogonal


def _is_matrix(parameter: Tensor) -> bool:
    rows = parameter.shape[0] if parameter.ndim > 1 else 0
    return rows >= SMALLEST_MATRIX and parameter.numel() // rows >= SMALLEST_MATRIX
