"""What a deployment knows, by what its labels left behind."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from abair.continual.replay import Replay
from abair.model.familiarity import Familiarity


@torch.inference_mode()
def familiarity_of(replays: Sequence[Replay]) -> Familiarity:
    """Return how to tell what none of these replays has shown: see `abair.model.familiarity`.

    All samples of all labels count, undamaged ones and mixtures among them.
    """
    features = [replay.features for replay in replays]
    features += [replay.mixtures.features for replay in replays if replay.mixtures is not None]
    held_out = [sample.features for replay in replays for sample in replay.held_out]
    return Familiarity.fit(torch.cat([one.values.float() for one in features]), torch.stack(held_out).float())
