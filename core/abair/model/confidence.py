"""How sure an estimate is: which labels are true, one or two of them, and how likely.

The softmax over the labels counts on one true label. A dark photo that was saved as JPEG has two,
which share it, so a right answer looks like a doubtful one. Here the hypotheses are each label
alone and every two degradations together. The logit of two is the mean of theirs.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Hypotheses(NamedTuple):
    """Which labels are true by each of H hypotheses over L labels, of which the last is `clean`.

    `members` (H, L) holds 1 for a label that is true; `pairs` (H,) is 1 where two are.
    """

    members: Tensor
    pairs: Tensor


def hypotheses(labels: int) -> Hypotheses:
    """Return each label alone, in order, then every two degradations together."""
    alone = torch.eye(labels)
    one, other = torch.triu_indices(labels - 1, labels - 1, 1)
    members = torch.cat([alone, alone[one] + alone[other]])
    return Hypotheses(members, members.sum(1) - 1)


def label_probabilities(logits: Tensor, temperature: float, pair_odds: float) -> Tensor:
    """Return how likely each label is true, (N, L) in [0, 1], for logits (N, L).

    `pair_odds` is how much likelier two equally likely labels are together than one of them alone;
    at 0 one label is true, and the result is the softmax.
    """
    members, pairs = hypotheses(logits.shape[1])
    scores = (logits / temperature) @ (members / members.sum(1, keepdim=True)).T
    odds = torch.where(pairs.bool(), torch.tensor(pair_odds), torch.tensor(1.0))
    return ((scores + odds.log()).softmax(1) @ members).clamp_max(1)
