"""The estimator of the bundle that tests share: a whole head, trained by gradient steps on features."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from abair.continual.replay import Features
from abair.model.backbone import freeze
from abair.model.estimator import Estimator

STEPS = 400
BATCH = 256
RATE = 1e-3


def train_head(untrained: Estimator, features: Features) -> Estimator:
    """Train all parameters in one thread, so that any machine gets the same; frozen in the end."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    student = untrained.with_labels(untrained.labels).requires_grad_(True)
    optimizer = torch.optim.AdamW(student.parameters(), lr=RATE, weight_decay=0.0)
    truth = features.targets
    weights = (truth / truth.sum(0).clamp(min=1)).sum(1)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / 20, 1.5 * (1 - step / STEPS))
        chosen = torch.multinomial(weights, BATCH, replacement=True, generator=generator)
        loss = F.cross_entropy(student(features.values[chosen]), truth[chosen])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    torch.set_num_threads(threads)
    freeze(student)
    return student
