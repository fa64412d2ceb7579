"""Refits the estimator on features alone: to a new label, or to the rest when a label goes.

With the labels' replays, neither their plugins nor their photos are needed (see
`abair.continual.replay`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from abair.continual.replay import Features, Mixtures
from abair.errors import TrainingError
from abair.labels import CLEAN
from abair.model.backbone import freeze
from abair.model.estimator import Estimator

LEAST_DEVIATION: Final = 1e-3
"""Lower bound of a feature's deviation after the layer norm: constant features tell nothing."""
WHOLE: Final = 0.99
"""Share of a sample above which it counts as all of it."""
SHIFT_STEP: Final = 0.05
"""Step in which a new label's logit is lowered."""

OnStep = Callable[[int, dict[str, float]], None]
"""Receives the number of the step, and the mean loss and accuracy since the last call."""


@dataclass(frozen=True)
class RefitConfig:
    """How the estimator is refitted."""

    steps: int = 1500
    report_every: int = 100
    """Steps between two calls of `on_step`."""
    batch: int = 256
    learning_rate: float = 1e-3
    units: int = 16
    """Hidden units that a new label brings: 14 thousand parameters for `nano`."""
    new_share: float = 0.5
    """Share of a batch that is new samples: as many with the new damage as without any."""
    moved_share: float = 0.5
    """Share of the new samples whose change is put on another scene; see `refit`."""
    mixup_share: float = 0.25
    """Share of a batch that is the mean of two samples; it stands for mixtures without samples."""
    mixture_share: float = 0.25
    """Mixtures in a step besides the batch, as a share of it."""
    full_stake: float = 3.0
    """Stake in dB from which a mixture counts fully."""
    jitter: float = 0.7
    """Noise on the few mixtures' features, and on those learnt with them, in deviations."""
    tolerated_loss: float = 0.03
    """Mean weight that a new label may lose where it is alone, for others' sake elsewhere."""
    largest_shift: float = 1.0
    """Largest amount by which its logit is lowered for that."""


def refit(
    champion: Estimator,
    backbone: str,
    labels: Sequence[str],
    known: Sequence[Features],
    new: Sequence[Features],
    seed: int,
    on_step: OnStep = lambda _step, _metrics: None,
    *,
    mixtures: Sequence[Mixtures] = (),
    whole: bool = False,
    config: RefitConfig | None = None,
) -> Estimator:
    """Fit the champion, for `labels` with `clean` last, to features; return a frozen estimator.

    `new` features teach the truth. `known` ones teach the champion's output, right or wrong (Li,
    Hoiem, "Learning without Forgetting", 2016).

    A new label gets hidden units and an output of its own, and only these are fitted, as in
    *progressive networks* (Rusu et al., 2016). So the logits of known labels do not change, and
    known labels can lose to the new one only. New photos are few. Therefore a share `moved_share`
    of the new samples show the change that the new damage made to one scene's features on another
    scene's features.

    The new label is shown more often than any old one. In the end its logit is lowered to what it
    would be at an equal share (*logit adjustment*, Menon et al., 2021), or it would win against
    labels that it resembles.

    A softmax that separates single labels does not give the best blend of two. That is learnt from
    `mixtures`, at the estimator's temperature, each weighted by its stake. Samples of the new
    damage alone are learnt with them, or the new label would lose to those that it was mixed with.

    To take another label's damage for the new one may cost many decibels. Where the new damage is
    alone and plain, a little less weight costs little. So in the end each new logit is lowered
    until the label's own samples lose `tolerated_loss` of their weight.

    Some damage cannot be learnt in this way, because its effect depends on the scene and other
    labels claim it. If `whole`, all parameters are fitted, no change is moved to other scenes and
    no logit is lowered. The same holds if there are no known features.

    The temperature stays. The same arguments give the same estimator.

    Raises:
        TrainingError: Features are of another backbone, or a label has none.
    """
    config = config or RefitConfig()
    for features in (*known, *new, *(mixture.features for mixture in mixtures)):
        if features.backbone != backbone:
            raise TrainingError(
                f"features of {', '.join(features.labels)}: made by backbone {features.backbone[:12]}, expected "
                f"{backbone[:12]}; train the estimator anew"
            )
    rows = _Rows(labels, known, new, config)
    if missing := [label for label, share in zip(labels, rows.truth.sum(0).tolist(), strict=True) if share == 0]:
        raise TrainingError(f"label {missing[0]}: found no features, expected some; train the estimator anew")
    generator = torch.Generator().manual_seed(seed)
    teacher = champion.with_labels(labels)
    whole = whole or bool(rows.novel.all())
    student = (
        champion.with_labels(labels).requires_grad_(True) if whole else _Grown(teacher, rows, config.units, generator)
    )
    parameters = [parameter for parameter in student.parameters() if parameter.requires_grad]
    blends = _Blends(labels, mixtures, config) if mixtures else None
    temperature = float(champion.temperature)
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=0.0)
    losses, correct = [], []
    with _one_thread():
        for step in range(config.steps):
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * min(1.0, (step + 1) / 20, 1.5 * (1 - step / config.steps))
            x, truth, is_new = rows.batch(generator, 0.0 if whole else config.moved_share)
            logits = student(x)
            # a grown estimator gives old labels the teacher's logits anyway
            teacher_logits = logits.detach() if isinstance(student, _Grown) else teacher(x).detach()
            taught = teacher_logits.masked_fill(rows.novel, -torch.inf).softmax(1)
            target = torch.where(is_new[:, None], truth, taught)
            loss = F.cross_entropy(logits, target)
            if blends is not None:
                alone = (truth * rows.novel).amax(1) > WHOLE
                mixed, best, weight = blends.batch(generator, x[alone], truth[alone])
                mixed_logits = student.adjusted(mixed) if isinstance(student, _Grown) else student(mixed)
                blend_loss = F.cross_entropy(mixed_logits / temperature, best, reduction="none")
                loss += temperature * (weight * blend_loss).mean()  # unscaled, a cold softmax would dominate
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(float(loss.detach()))
            correct.append(float((logits.detach().argmax(1) == target.argmax(1)).float().mean()))
            if (step + 1) % config.report_every == 0:
                on_step(step + 1, {"loss": sum(losses) / len(losses), "accuracy": sum(correct) / len(correct)})
                losses, correct = [], []
    estimator = student.joined() if isinstance(student, _Grown) else student
    freeze(estimator)
    if not whole:
        _lower_logits(estimator, rows, config)
    return estimator


@torch.no_grad()
def _lower_logits(estimator: Estimator, rows: _Rows, config: RefitConfig) -> None:
    """Lower the logit of each novel label until its own samples lose the tolerated weight."""
    last: Any = estimator.head[-1]
    for place in rows.novel.nonzero()[:, 0].tolist():
        own = rows.values[rows.truth[:, place] > WHOLE]
        if not len(own):
            continue
        logits = estimator(own) / estimator.temperature
        least = float(logits.softmax(1)[:, place].mean()) - config.tolerated_loss
        shift = 0.0
        while shift < config.largest_shift:
            logits[:, place] -= SHIFT_STEP / estimator.temperature
            if float(logits.softmax(1)[:, place].mean()) < least:
                break
            shift += SHIFT_STEP
        last.bias[place] -= shift


class _Grown(nn.Module):
    """A frozen estimator with trainable hidden units and outputs for novel labels.

    The outputs read all units. The new units read each feature less its mean and over its
    deviation. Otherwise the faint features that identify a new kind of damage would hardly be
    learnt from few samples.
    """

    def __init__(self, estimator: Estimator, rows: _Rows, units: int, generator: torch.Generator) -> None:
        super().__init__()
        self.old, self.novel = estimator, rows.novel
        self.norm, self.first, _, self.last = cast("tuple[Any, Any, Any, Any]", estimator.head)
        count = int(rows.novel.sum())
        with torch.no_grad():
            normal = self.norm(rows.values)
        self.mean, self.deviation = normal.mean(0), normal.std(0).clamp_min(LEAST_DEVIATION)
        shown = (rows.weights[:, None] * rows.truth[:, self.novel]).sum(0) / rows.weights.sum()
        self.adjustment = shown.mul(rows.truth.shape[1]).log().clamp_min(0)
        self.units = nn.Linear(estimator.features, units * count)
        nn.init.kaiming_uniform_(self.units.weight, a=5**0.5, generator=generator)  # PyTorch's default, seeded
        nn.init.zeros_(self.units.bias)
        self.outputs = nn.Linear(estimator.hidden + units * count, count)
        with torch.no_grad():
            self.outputs.weight.zero_()[:, : estimator.hidden] = self.last.weight[self.novel]
            self.outputs.bias.copy_(self.last.bias[self.novel])

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, F) to logits (B, L)."""
        normal = self.norm(features)
        hidden = F.gelu(self.first(normal))
        new = F.gelu(self.units((normal - self.mean) / self.deviation))
        logits: Tensor = self.last(hidden).clone()
        logits[:, self.novel] = self.outputs(torch.cat([hidden, new], dim=1))
        return logits

    def adjusted(self, features: Tensor) -> Tensor:
        """Map features (B, F) to the logits (B, L) of the joined estimator."""
        logits: Tensor = self(features)
        logits[:, self.novel] -= self.adjustment
        return logits

    @torch.no_grad()
    def joined(self) -> Estimator:
        """Return all units in one estimator, the novel logits lowered by the logit adjustment."""
        weight = self.units.weight / self.deviation
        grown = self.old.with_hidden_units(weight, self.units.bias - weight @ self.mean)
        last: Any = grown.head[-1]
        last.weight[self.novel] = self.outputs.weight
        last.bias[self.novel] = self.outputs.bias - self.adjustment
        return grown


class _Rows:
    """All features with their truth over `labels` and their probability in a batch."""

    def __init__(
        self, labels: Sequence[str], known: Sequence[Features], new: Sequence[Features], config: RefitConfig
    ) -> None:
        values, truth, scenes, count = [], [], [], 0
        for features in (*known, *new):
            targets = _reorder(features, labels)
            whole = targets.sum(1) > WHOLE  # samples that also show a label no longer in use teach nothing
            scene = torch.full((len(targets),), -1)
            if features.paired and bool(whole.all()):
                scene[: len(targets) // 2] = torch.arange(count + len(targets) // 2, count + len(targets))
            values.append(features.values[whole])
            truth.append(targets[whole])
            scenes.append(scene[whole])
            count += int(whole.sum())
        self.config = config
        self.values, self.truth, self.scene = torch.cat(values), torch.cat(truth), torch.cat(scenes)
        begin = sum(map(len, truth[: len(known)]))
        # all labels are equally likely, however many samples each has
        balanced = [(part / part.sum(0).clamp(min=1)).sum(1) for part in (self.truth[:begin], self.truth[begin:])]
        shares = (1 - config.new_share, config.new_share)
        self.weights = torch.cat(
            [part * share / part.sum() for part, share in zip(balanced, shares, strict=True) if len(part)]
        )
        self.new = torch.arange(count) >= begin
        self.novel = torch.tensor([all(label not in features.labels for features in known) for label in labels])
        self.clean = self.truth[:, labels.index(CLEAN)].gt(WHOLE).nonzero()[:, 0]

    def batch(self, generator: torch.Generator, moved_share: float) -> tuple[Tensor, Tensor, Tensor]:
        """Draw features (B, F), the truth (B, L), and which of them (B,) show new samples."""
        size, others_size = self.config.batch, round(self.config.mixup_share * self.config.batch)
        chosen = torch.multinomial(self.weights, size, replacement=True, generator=generator)
        x, truth = self.values[chosen], self.truth[chosen]
        moved = (self.scene[chosen] >= 0) & self.new[chosen] & (torch.rand(size, generator=generator) < moved_share)
        onto = self.clean[torch.randint(len(self.clean), (size,), generator=generator)]
        x = torch.where(moved[:, None], self.values[onto] + x - self.values[self.scene[chosen]], x)
        others = torch.multinomial(self.weights, others_size, replacement=True, generator=generator)
        x[:others_size] = (x[:others_size] + self.values[others]) / 2
        truth[:others_size] = (truth[:others_size] + self.truth[others]) / 2
        is_new = self.new[chosen]
        is_new[:others_size] |= self.new[others]
        return x, truth, is_new


class _Blends:
    """Mixtures with the blends that restore them best, and the weight of each in the loss."""

    def __init__(self, labels: Sequence[str], mixtures: Sequence[Mixtures], config: RefitConfig) -> None:
        self.config = config
        self.values = torch.cat([one.features.values for one in mixtures])
        self.targets = torch.cat([_reorder(one.features, labels) for one in mixtures])
        stakes = torch.cat([one.stakes for one in mixtures])
        # a blend with a label no longer in use teaches nothing
        self.weights = (stakes / config.full_stake).clamp_max(1) * (self.targets.sum(1) > WHOLE)
        self.deviation = self.values.std(0)

    def batch(self, generator: torch.Generator, alone: Tensor, truth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Draw features (B, F), blends (B, L), weights (B,): mixtures, then those `alone`."""
        count = round(self.config.mixture_share * self.config.batch)
        chosen = torch.randint(len(self.values), (count,), generator=generator)
        values = torch.cat([self.values[chosen], alone])
        noise = torch.randn(values.shape, generator=generator)
        weights = torch.cat([self.weights[chosen], torch.ones(len(alone))])
        values += self.config.jitter * self.deviation * noise
        return values, torch.cat([self.targets[chosen], truth]), weights


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute in one thread: faster for small products, and the same result on any machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _reorder(features: Features, labels: Sequence[str]) -> Tensor:
    """Return the targets (N, L) over `labels`; absent ones are 0, others are dropped."""
    targets = torch.zeros((len(features.targets), len(labels)))
    for position, label in enumerate(features.labels):
        if label in labels:
            targets[:, labels.index(label)] = features.targets[:, position]
    return targets
