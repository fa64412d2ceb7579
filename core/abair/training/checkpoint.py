"""Checkpoints: everything that a run needs to go on where it was stopped, in one safetensors file.

Its tensors are the weights (`model.*`), their moving average (`average.*`), the best ones where
patience is limited (`best.*`), and what the optimiser keeps of each (`adam.*`). Its metadata say
which run it is of.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from abair.errors import TrainingError
from abair.model.safetensors_io import write_tensors
from abair.training.settings import RENAMED, Settings
from abair.training.task import State, Task

CHECKPOINT: Final = "checkpoint.safetensors"
"""The file's name in a run's folder."""
STATE: Final = ("step", "exp_avg", "exp_avg_sq", "momentum")
"""What the optimisers keep of a parameter: AdamW the first three, Muon the last."""
METADATA: Final = "abair.checkpoint"
"""The key of its metadata, a JSON object."""

CHANGEABLE: Final = frozenset(
    {
        "steps",
        "minutes",
        "patience",
        "precision",
        "compile",
        "workers",
        "validate_every",
        "checkpoint_minutes",
        "average_weight",
    }
)
"""Settings with which a run may go on changed: they say when it ends, how it computes, or what is
done afterwards."""


@dataclass(frozen=True)
class Checkpoint:
    """The checkpoint file of one run: `parameters` are those that it trains, by their names."""

    path: Path
    task: Task
    settings: Settings
    parameters: dict[str, nn.Parameter]
    optimizer: torch.optim.Optimizer

    def save(self, state: State) -> None:
        """Write the file; a kill meanwhile leaves the one before."""
        tensors: dict[str, Tensor] = {f"model.{name}": p for name, p in self.parameters.items()}
        tensors |= {f"average.{name}": tensor for name, tensor in state.average.items()}
        tensors |= {f"best.{name}": tensor for name, tensor in state.best.items()}
        for name, parameter in self.parameters.items():
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"adam.{key}.{name}"] = torch.as_tensor(value)
        facts = {"task": self.task.name, "step": state.step, "seconds": state.seconds, "of": self._identity()}
        if state.best:
            facts |= {"figure": state.best_score, "stale": state.stale}
        write_tensors(self.path, tensors, {METADATA: json.dumps(facts)})

    def restore(self, state: State) -> None:
        """Read the file into parameters, optimiser and `state`.

        Raises:
            TrainingError: the file is damaged, belongs to another run, or is further than the steps
                of this one.
        """
        facts, tensors = self._read()
        self._check_identity(facts, tensors)
        if facts["step"] > self.settings.steps:
            raise TrainingError(
                f"{self.path}: found step {facts['step']}, expected at most {self.settings.steps}; raise --steps"
            )
        state.step, state.seconds = facts["step"], facts["seconds"]
        state.best_score, state.stale = facts.get("figure", state.best_score), facts.get("stale", 0)
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(tensors[f"model.{name}"])
                state.average[name].copy_(tensors[f"average.{name}"])
                if f"best.{name}" in tensors:
                    state.best[name] = torch.empty_like(parameter).copy_(tensors[f"best.{name}"])
                self.optimizer.state[parameter] = {
                    key: value if value.ndim == 0 else torch.empty_like(parameter).copy_(value)
                    for key in STATE
                    if (value := tensors.get(f"adam.{key}.{name}")) is not None
                }

    def _read(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        try:
            with safe_open(self.path, "pt") as file:
                facts = json.loads((file.metadata() or {}).get(METADATA, "{}"))
                return facts, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise TrainingError(
                f"{self.path}: damaged ({error}), expected a whole checkpoint; remove it to start anew"
            ) from None

    def _identity(self) -> dict[str, str]:
        """Return what the weights depend on besides the number of steps."""
        settings = self.settings.model_dump(exclude=set(CHANGEABLE))
        return {key: str(value) for key, value in settings.items()} | self.task.depends

    def _check_identity(self, facts: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Refuse the checkpoint of another run, or of parameters of other shapes."""
        expected, found = self._identity(), self._identity_in(facts)
        differing = sorted(key for key in expected if expected[key] != found.get(key))
        shapes = {name.removeprefix("model."): t.shape for name, t in tensors.items() if name.startswith("model.")}
        same_shapes = shapes == {name: parameter.shape for name, parameter in self.parameters.items()}
        if facts.get("task") == self.task.name and not differing and same_shapes:
            return
        differences = "; ".join(f"{key}: found {found.get(key)}, expected {expected[key]}" for key in differing[:3])
        raise TrainingError(
            f"{self.path}: found a checkpoint of another run ({facts.get('task')}{'; ' if differences else ''}"
            f"{differences}), expected one of {self.task.name} with these settings and data; name another folder, or "
            "remove it to start anew"
        )

    def _identity_in(self, facts: dict[str, Any]) -> dict[str, str]:
        """Return the identity that a checkpoint states, under the names of today.

        What an earlier build did not state yet was as it then always was: at the setting's default,
        without another adapter, and until samples were blended a second degradation was drawn for
        three in ten.
        """
        stated = {RENAMED.get(key, key): value for key, value in facts.get("of", {}).items()}
        defaults = {
            key: str(field.get_default(call_default_factory=True))
            for key, field in type(self.settings).model_fields.items()
        }
        unstated = defaults | {"start": "", "blended_with": ""}
        if stated.get("mix_with", "()") != "()":
            unstated["mix_probability"] = "0.3 by chance"
        return unstated | stated
