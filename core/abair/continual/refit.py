"""Refits the estimator on features alone: to a new label, or to the rest when a label goes.

With the labels' replays, neither their plugins nor their photos are needed (see
`abair.continual.replay`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from abair.continual.replay import WHOLE, Features, Mixtures
from abair.continual.transfer import transfer_damage
from abair.errors import TrainingError
from abair.model.backbone import freeze
from abair.model.estimator import LAST, Estimator

LEAST_DEVIATION: Final = 1e-3
"""Lower bound of an input's deviation: constant inputs tell nothing."""
FOLDS: Final = 4
"""Parts of the known samples, each judged by a fit to the others."""
ROUND: Final = 10
"""Iterations of the convex fit between two calls of `on_step`."""
ROUNDS: Final = 20
"""Rounds at most; most fits end after three to eight."""
SETTLED: Final = 1e-5
"""Gain of a round, in nats, below which the convex fit has settled."""

OnStep = Callable[[int, dict[str, float]], None]
"""Receives the number of the step, and its loss and accuracy."""


@dataclass(frozen=True)
class RefitConfig:
    """How the estimator is refitted."""

    new_share: float = 0.3
    """Weight of the new samples among all: as many with the new damage as without any."""
    mixture_share: float = 0.2
    """Weight of the mixtures beside the samples."""
    full_stake: float = 3.0
    """Stake in dB from which a mixture counts fully."""
    decay: float = 2e-3
    """Weight of the squared output weights of new labels, over standardised inputs."""
    false_alarms: float = 0.02
    """Share of known samples that a new label may win, at most."""
    transferred: int = 320
    """Known undamaged samples at most that get the new damage."""


def refit(
    champion: Estimator,
    backbone: str,
    labels: Sequence[str],
    known: Sequence[Features],
    new: Sequence[Features],
    on_step: OnStep = lambda _step, _metrics: None,
    *,
    mixtures: Sequence[Mixtures] = (),
    config: RefitConfig | None = None,
) -> Estimator:
    """Fit the champion, for `labels` with `clean` last, to features; return a frozen estimator.

    Each label that no `known` features have gets an output of its own, a linear function of the
    normalised features and the hidden units. Only these outputs are fitted, so the logits of known
    labels do not change, and known labels can lose to new ones only. The fit is a multinomial
    logistic regression with the known logits given: convex, so it has one answer and takes seconds.
    If nothing is known, all outputs are fitted so. `mixtures` teach it which share of the best
    blend is the new label's, each by its stake.

    The new labels are shown more often than each known one, on their own photos and, by
    `abair.continual.transfer`, on the known undamaged ones. In the end their logits are lowered
    until they win no more than `false_alarms` of the known samples, each of which is judged by a
    fit that did not see it.

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
    shown = [transfer_damage(features, known, config.transferred) or features for features in new]
    rows = _Rows.gather(labels, known, shown, config)
    if missing := [label for label, share in zip(labels, rows.truth.sum(0).tolist(), strict=True) if share == 0]:
        raise TrainingError(f"label {missing[0]}: found no features, expected some; train the estimator anew")
    novel = torch.tensor([all(label not in features.labels for features in known) for label in labels])
    start = champion.with_labels(labels)
    with _one_thread():
        return _fit_outputs(start, rows, _mixture_rows(labels, mixtures, config), novel, on_step, config)


class _Rows(NamedTuple):
    """Features (N, F), their truth (N, L), their weights (N,), which are new (N,)."""

    values: Tensor
    truth: Tensor
    weights: Tensor
    new: Tensor

    @classmethod
    def gather(
        cls, labels: Sequence[str], known: Sequence[Features], new: Sequence[Features], config: RefitConfig
    ) -> _Rows:
        """Join all features; all labels weigh the same, however many samples each has."""
        parts: list[_Rows] = []
        for group, share in ((known, 1 - config.new_share), (new, config.new_share)):
            if not group:
                continue
            values, truth = (
                torch.cat([one.values for one in group]),
                torch.cat([_reorder(one, labels) for one in group]),
            )
            whole = truth.sum(1) > WHOLE  # samples that also show a label no longer in use teach nothing
            values, truth = values[whole], truth[whole]
            balanced = (truth / truth.sum(0).clamp(min=1)).sum(1)
            weights = balanced * share / balanced.sum().clamp_min(1e-12)
            parts.append(cls(values, truth, weights, torch.full((len(values),), group is new)))
        return cls(*map(torch.cat, zip(*parts, strict=True)))


def _mixture_rows(labels: Sequence[str], mixtures: Sequence[Mixtures], config: RefitConfig) -> _Rows | None:
    """Return the mixtures, weighted by stake; blends with a label no longer in use get none."""
    if not mixtures:
        return None
    truth = torch.cat([_reorder(one.features, labels) for one in mixtures])
    stakes = torch.cat([one.stakes for one in mixtures]) / config.full_stake
    weights = stakes.clamp_max(1) * (truth.sum(1) > WHOLE) * config.mixture_share / len(truth)
    values = torch.cat([one.features.values for one in mixtures])
    return _Rows(values, truth, weights, torch.ones(len(truth), dtype=torch.bool))


def _fit_outputs(
    start: Estimator, rows: _Rows, mixed: _Rows | None, novel: Tensor, on_step: OnStep, config: RefitConfig
) -> Estimator:
    """Fit the outputs of the novel labels (L,), and lower their logits to few false alarms."""
    everything = rows if mixed is None else _Rows(*map(torch.cat, zip(rows, mixed, strict=True)))
    normal, hidden, given = _look(start, everything.values)
    inputs = torch.cat([normal, hidden], 1)
    mean, deviation = inputs.mean(0), inputs.std(0).clamp_min(LEAST_DEVIATION)
    task = _Outputs((inputs - mean) / deviation, given, everything.truth, everything.weights, novel, config)
    weight, bias = task.fit(torch.ones(len(inputs), dtype=torch.bool), on_step)
    if not bool(novel.all()):
        bias = bias - _surplus(task, ~everything.new)
    weight = weight / deviation[:, None]
    return _with_outputs(start, weight, bias - mean @ weight, novel)


def _surplus(task: _Outputs, known: Tensor) -> Tensor:
    """Return by how much the novel logits must be lowered for few false alarms.

    That is the weighted quantile of how far they exceed the known logits on known samples.
    """
    excess = torch.zeros(len(known))
    folds = torch.arange(len(known)) % FOLDS
    for fold in range(FOLDS):
        weight, bias = task.fit(folds != fold)
        judged = folds == fold
        logits = task.inputs[judged] @ weight + bias
        excess[judged] = logits.amax(1) - task.given[judged].amax(1)
    values, order = excess[known].sort(descending=True)
    shares = task.weights[known][order].cumsum(0) / task.weights[known].sum()
    beyond = int((shares <= task.config.false_alarms).sum())
    return values[min(beyond, len(values) - 1)].clamp_min(0)


class _Outputs:
    """The convex fit of the novel labels' linear outputs, with the logits of the others given."""

    def __init__(
        self, inputs: Tensor, given: Tensor, truth: Tensor, weights: Tensor, novel: Tensor, config: RefitConfig
    ) -> None:
        self.inputs, self.weights, self.config = inputs, weights, config
        self.given = given[:, ~novel]
        # what matters to the novel outputs is their own shares; the known labels keep theirs
        self.shares = truth[:, novel]
        # all known labels together, one column of logits and shares, or none
        together = slice(None) if self.given.shape[1] else slice(0)
        self.rest = self.given.logsumexp(1, keepdim=True)[:, together]
        self.rest_shares = (1 - self.shares.sum(1, keepdim=True))[:, together]

    def fit(self, taken: Tensor, on_step: OnStep = lambda _step, _metrics: None) -> tuple[Tensor, Tensor]:
        """Return weights (I, U) and biases (U,) of the U novel outputs, for the samples taken."""
        inputs, shares, weights = self.inputs[taken], self.shares[taken], self.weights[taken]
        weights = weights / weights.sum()
        rest = self.rest[taken]
        target = torch.cat([shares, self.rest_shares[taken]], 1)
        weight = torch.zeros(inputs.shape[1], shares.shape[1], requires_grad=True)
        bias = torch.zeros(shares.shape[1], requires_grad=True)
        optimizer = torch.optim.LBFGS(
            [weight, bias], max_iter=ROUND, line_search_fn="strong_wolfe", tolerance_change=1e-7
        )

        def closure() -> Tensor:
            optimizer.zero_grad()
            logits = torch.cat([inputs @ weight + bias, rest], 1)
            loss = (weights * F.cross_entropy(logits, target, reduction="none")).sum()
            loss = loss + self.config.decay * weight.square().sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        before = float("inf")
        for number in range(1, ROUNDS + 1):
            loss = float(optimizer.step(closure).detach())  # type: ignore[no-untyped-call]
            with torch.no_grad():
                answers = torch.cat([inputs @ weight + bias, rest], 1).argmax(1)
            accuracy = float((weights * (answers == target.argmax(1))).sum())
            on_step(number * ROUND, {"loss": loss, "accuracy": accuracy})
            if before - loss < SETTLED:
                break
            before = loss
        return weight.detach(), bias.detach()


@torch.no_grad()
def _look(estimator: Estimator, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the normalised features (N, F), the hidden units (N, H) and the logits (N, L)."""
    norm, first, _, last = cast("tuple[Any, Any, Any, Any]", estimator.head)
    normal = norm(values)
    hidden = F.gelu(first(normal))
    return normal, hidden, last(hidden)


@torch.no_grad()
def _with_outputs(start: Estimator, weight: Tensor, bias: Tensor, novel: Tensor) -> Estimator:
    """Return a frozen estimator whose novel outputs are linear (F + H, U) with biases (U,).

    A linear function u of the normalised features is GELU(u) - GELU(-u): two hidden units.
    """
    direct, through = weight[: start.features].T, weight[start.features :].T
    count = len(direct)
    grown = start.with_hidden_units(torch.cat([direct, -direct]), torch.zeros(2 * count))
    state = grown.state_dict()
    last, biases = state[f"{LAST}.weight"], state[f"{LAST}.bias"]
    last[novel, : start.hidden] = through
    last[novel, start.hidden : start.hidden + count] = torch.eye(count)
    last[novel, start.hidden + count :] = -torch.eye(count)
    biases[novel] = bias
    grown.load_state_dict(state)
    freeze(grown)
    return grown


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
