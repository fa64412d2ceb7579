"""Refits the estimator on features alone: to a new label, or to what is left when one goes.

Whoever has the labels' replays needs neither their plugins nor their photos (see `abair.continual.replay`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from abair.continual.replay import Chains, Features
from abair.errors import TrainingError
from abair.labels import CLEAN
from abair.model.backbone import freeze
from abair.model.estimator import Estimator

STEPS: Final = 1500
EPOCH: Final = 100
"""Steps after which progress is told."""
BATCH: Final = 256
LEARNING_RATE: Final = 1e-3
UNITS: Final = 16
"""Hidden units that a new label brings: 14 thousand numbers for `nano`."""
LEAST_SPREAD: Final = 1e-3
"""Of a feature, after the layer norm: what never varies tells nothing."""
NEW: Final = 0.5
"""Share of a batch that is new samples: as many with the new damage as without any."""
MOVED: Final = 0.5
"""Share of the new samples whose change is put upon another scene; see `refit`."""
MIXED: Final = 0.25
"""Share of a batch that is half one sample's features, half another's: it stands for mixtures that nobody made."""

WHOLE: Final = 0.99
"""Share of a sample above which it counts as all of it."""
CHAINED: Final = 0.25
"""Chains a step, as a share of the batch, which they come beside."""
ENOUGH: Final = 3.0
"""dB at stake from which on a chain counts fully."""
JITTER: Final = 0.7
"""Noise on the features of chains, and of what is learnt beside them, in parts of their deviation: they are few."""
BORNE: Final = 0.03
"""Mean weight that a new label may lose where it is alone, to leave more to the others where it is not."""
STEP, FARTHEST = 0.05, 1.0
"""Steps in which its logit is lowered for that, and how far at most."""

Watch = Callable[[int, dict[str, float]], None]


def refit(
    champion: Estimator,
    backbone: str,
    labels: Sequence[str],
    known: Sequence[Features],
    new: Sequence[Features],
    seed: int,
    watch: Watch = lambda step, figures: None,
    *,
    chains: Sequence[Chains] = (),
    whole: bool = False,
) -> Estimator:
    """The champion for `labels` (`clean` last), fitted to features of the `backbone`; frozen.

    `new` features teach the truth, `known` ones what the champion says of them, right or wrong (Li, Hoiem, "Learning
    without Forgetting", 2016). A new label gets hidden units and an output of its own, and only these are fitted (as
    *progressive networks* grow, Rusu et al., 2016): what is said of the labels that are known stays as it is, so they
    lose to nothing but the new label. New photos are few, so a share `MOVED` of the time the change that the new damage
    made in one scene's features is put upon another's. It is shown more often than any old label, so in the end it is
    taken back to what it would say if it had been shown as one of so many labels (*logit adjustment*, Menon et al.,
    2021): else it would take from those it resembles.

    A softmax that tells single labels apart says nothing of how two are to be blended. That is learnt from `chains`, at
    the temperature at which it will be asked, each by what is at stake. Beside them is what shows the new damage alone:
    else the new label would be left to those that it was seen together with.

    Where another label's damage is, taking it for the new one may cost many decibels; where the new one is alone and
    plain to see, it can bear to be less sure. So in the end each new logit is lowered until the label's own samples
    lose `BORNE` of their weight.

    Some damage cannot be told so: what it does depends on what is in the scene, and the other labels claim it. If
    `whole`, everything is fitted, and nothing is put upon other scenes or taken back; so it is where there are no known
    features.

    The temperature stays. The same arguments give the same estimator. `watch` gets loss and accuracy each `EPOCH`
    steps.

    Raises:
        TrainingError: features are another backbone's, or a label has none.
    """
    for features in (*known, *new, *(chain.features for chain in chains)):
        if features.backbone != backbone:
            raise TrainingError(
                f"features of {', '.join(features.labels)}: made by backbone {features.backbone[:12]}, expected "
                f"{backbone[:12]}; train the estimator anew"
            )
    rows = _Rows(labels, known, new)
    if missing := [label for label, share in zip(labels, rows.truth.sum(0).tolist(), strict=True) if share == 0]:
        raise TrainingError(f"label {missing[0]}: found no features, expected some; train the estimator anew")
    generator = torch.Generator().manual_seed(seed)
    teacher = champion.with_labels(labels)
    whole = whole or bool(rows.novel.all())
    fitted = champion.with_labels(labels).requires_grad_(True) if whole else _Grown(teacher, rows, generator)
    parameters = [parameter for parameter in fitted.parameters() if parameter.requires_grad]
    blends = _Blends(labels, chains) if chains else None
    temperature = float(champion.temperature)
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=0.0)
    losses, right = [], []
    with _one_thread():
        for step in range(STEPS):
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_RATE * min(1.0, (step + 1) / 20, 1.5 * (1 - step / STEPS))
            x, truth, fresh = rows.batch(generator, 0.0 if whole else MOVED)
            logits = fitted(x)
            # what has grown says of old labels what its teacher says
            said = logits.detach() if isinstance(fitted, _Grown) else teacher(x).detach()
            taught = said.masked_fill(rows.novel, -torch.inf).softmax(1)
            target = torch.where(fresh[:, None], truth, taught)
            loss = F.cross_entropy(logits, target)
            if blends is not None:
                alone = (truth * rows.novel).amax(1) > WHOLE
                seen, best, weight = blends.batch(generator, x[alone], truth[alone])
                asked = fitted.served(seen) if isinstance(fitted, _Grown) else fitted(seen)
                named = F.cross_entropy(asked / temperature, best, reduction="none")
                loss = loss + temperature * (weight * named).mean()  # or a cold softmax would outweigh all the rest
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(float(loss.detach()))
            right.append(float((logits.detach().argmax(1) == target.argmax(1)).float().mean()))
            if (step + 1) % EPOCH == 0:
                watch(step + 1, {"loss": sum(losses) / len(losses), "accuracy": sum(right) / len(right)})
                losses, right = [], []
    estimator = fitted.joined() if isinstance(fitted, _Grown) else fitted
    freeze(estimator)
    if not whole:
        _lower(estimator, rows)
    return estimator


@torch.no_grad()
def _lower(estimator: Estimator, rows: _Rows) -> None:
    """Lower the logit of each novel label as far as its own samples bear."""
    last: Any = estimator.head[-1]
    for place in rows.novel.nonzero()[:, 0].tolist():
        own = rows.values[rows.truth[:, place] > WHOLE]
        if not len(own):
            continue
        logits = estimator(own) / estimator.temperature
        least = float(logits.softmax(1)[:, place].mean()) - BORNE
        lowered = 0.0
        while lowered < FARTHEST:
            logits[:, place] -= STEP / estimator.temperature
            if float(logits.softmax(1)[:, place].mean()) < least:
                break
            lowered += STEP
        last.bias[place] -= lowered


class _Grown(nn.Module):
    """An estimator with what novel labels bring: hidden units, and outputs that hear all units. The rest is frozen.

    The new units see each feature less its mean and over its spread: beside those that vary most, the faint ones that
    tell a new kind of damage would hardly be learnt from few samples.
    """

    def __init__(self, estimator: Estimator, rows: _Rows, generator: torch.Generator) -> None:
        super().__init__()
        self.old, self.novel = estimator, rows.novel
        self.norm, self.first, _, self.last = cast("tuple[Any, Any, Any, Any]", estimator.head)
        count = int(rows.novel.sum())
        with torch.no_grad():
            seen = self.norm(rows.values)
        self.mean, self.spread = seen.mean(0), seen.std(0).clamp_min(LEAST_SPREAD)
        shown = (rows.weights[:, None] * rows.truth[:, self.novel]).sum(0) / rows.weights.sum()
        self.ahead = shown.mul(rows.truth.shape[1]).log().clamp_min(0)
        self.units = nn.Linear(estimator.features, UNITS * count)
        nn.init.kaiming_uniform_(self.units.weight, a=5**0.5, generator=generator)  # as PyTorch begins a linear layer
        nn.init.zeros_(self.units.bias)
        self.outputs = nn.Linear(estimator.hidden + UNITS * count, count)
        with torch.no_grad():
            self.outputs.weight.zero_()[:, : estimator.hidden] = self.last.weight[self.novel]
            self.outputs.bias.copy_(self.last.bias[self.novel])

    def forward(self, features: Tensor) -> Tensor:
        """(B, F) to logits (B, L)."""
        normal = self.norm(features)
        hidden = F.gelu(self.first(normal))
        new = F.gelu(self.units((normal - self.mean) / self.spread))
        logits: Tensor = self.last(hidden).clone()
        logits[:, self.novel] = self.outputs(torch.cat([hidden, new], dim=1))
        return logits

    def served(self, features: Tensor) -> Tensor:
        """(B, F) to logits (B, L) as `joined` has them."""
        logits: Tensor = self(features)
        logits[:, self.novel] = logits[:, self.novel] - self.ahead
        return logits

    @torch.no_grad()
    def joined(self) -> Estimator:
        """The same as one estimator, new labels taken back by what their part of the batches made them likelier."""
        weight = self.units.weight / self.spread
        grown = self.old.with_hidden_units(weight, self.units.bias - weight @ self.mean)
        last: Any = grown.head[-1]
        last.weight[self.novel] = self.outputs.weight
        last.bias[self.novel] = self.outputs.bias - self.ahead
        return grown


class _Rows:
    """All features with their truth over `labels`; how often each is drawn; which show damage that is new."""

    def __init__(self, labels: Sequence[str], known: Sequence[Features], new: Sequence[Features]) -> None:
        values, truth, scenes, count = [], [], [], 0
        for features in (*known, *new):
            rows = _in_order(features, labels)
            whole = rows.sum(1) > WHOLE  # what also shows a label that is asked for no more teaches nothing
            scene = torch.full((len(rows),), -1)
            if features.paired and bool(whole.all()):
                scene[: len(rows) // 2] = torch.arange(count + len(rows) // 2, count + len(rows))
            values.append(features.values[whole])
            truth.append(rows[whole])
            scenes.append(scene[whole])
            count += int(whole.sum())
        self.values, self.truth, self.scene = torch.cat(values), torch.cat(truth), torch.cat(scenes)
        begin = sum(map(len, truth[: len(known)]))
        # a label is drawn as often as any other, however many samples of it there are
        balanced = [(part / part.sum(0).clamp(min=1)).sum(1) for part in (self.truth[:begin], self.truth[begin:])]
        shares = [part * share / part.sum() for part, share in zip(balanced, (1 - NEW, NEW), strict=True) if len(part)]
        self.weights = torch.cat(shares)
        self.new = torch.arange(count) >= begin
        self.novel = torch.tensor([all(label not in features.labels for features in known) for label in labels])
        self.clean = self.truth[:, labels.index(CLEAN)].gt(0.99).nonzero()[:, 0]

    def batch(self, generator: torch.Generator, moved: float) -> tuple[Tensor, Tensor, Tensor]:
        """Features (B, F), the truth (B, L), and which of them (B,) show what is new."""

        def drawn(count: int) -> Tensor:
            return torch.multinomial(self.weights, count, replacement=True, generator=generator)

        chosen = drawn(BATCH)
        x, truth = self.values[chosen], self.truth[chosen]
        away = (self.scene[chosen] >= 0) & self.new[chosen] & (torch.rand(BATCH, generator=generator) < moved)
        onto = self.clean[torch.randint(len(self.clean), (BATCH,), generator=generator)]
        x = torch.where(away[:, None], self.values[onto] + x - self.values[self.scene[chosen]], x)
        others = drawn(round(MIXED * BATCH))
        x[: len(others)] = (x[: len(others)] + self.values[others]) / 2
        truth[: len(others)] = (truth[: len(others)] + self.truth[others]) / 2
        fresh = self.new[chosen]
        fresh[: len(others)] |= self.new[others]
        return x, truth, fresh


class _Blends:
    """Chains with the blends over `labels` that restore them best, and how much each counts."""

    def __init__(self, labels: Sequence[str], chains: Sequence[Chains]) -> None:
        self.values = torch.cat([one.features.values for one in chains])
        self.targets = torch.cat([_in_order(one.features, labels) for one in chains])
        stakes = torch.cat([one.stakes for one in chains])
        # a blend with a label that is asked for no more teaches nothing
        self.weights = (stakes / ENOUGH).clamp_max(1) * (self.targets.sum(1) > WHOLE)
        self.spread = self.values.std(0)

    def batch(self, generator: torch.Generator, alone: Tensor, truth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features (B, F), the best blends (B, L), how much they count (B,): chains, and what is damaged `alone`."""
        chosen = torch.randint(len(self.values), (round(CHAINED * BATCH),), generator=generator)
        values = torch.cat([self.values[chosen], alone])
        jitter = torch.randn(values.shape, generator=generator)
        weights = torch.cat([self.weights[chosen], torch.ones(len(alone))])
        return values + JITTER * self.spread * jitter, torch.cat([self.targets[chosen], truth]), weights


@contextmanager
def _one_thread() -> Iterator[None]:
    """Products this small are slower on more, and with one the same numbers come out on any number of cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _in_order(features: Features, labels: Sequence[str]) -> Tensor:
    targets = torch.zeros((len(features.targets), len(labels)))
    for position, label in enumerate(features.labels):
        if label in labels:
            targets[:, labels.index(label)] = features.targets[:, position]
    return targets
