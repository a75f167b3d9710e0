"""How strongly a latent is held to its prior as training goes on.

Axes: b images. n counts epochs, parts of one too.
"""

from dataclasses import dataclass
from typing import Literal

import torch

SCHEDULES = Literal["constant", "linear", "cyclic", "capacity"]


@dataclass(frozen=True)
class BetaSchedule:
    """What the divergence KL(q(z|X) ‖ N(0, 1)) costs after n epochs, with r = (n − n₀)/(n₁ − n₀) and `rise` = (n₀, n₁):

    constant β·KL · linear (β₀ + (β − β₀)·min(1, r))·KL · cyclic the same with r mod 1 · capacity β·(KL − C·min(1, r))².
    Sources: Fu et al., Cyclical annealing schedule, NAACL (2019); Burgess et al., arXiv:1804.03599 (2018).
    """

    kind: SCHEDULES
    beta: float
    start: float = 0.0
    rise: tuple[float, float] = (0.0, 0.0)
    capacity: float = 0.0

    def weight(self, epochs: float) -> float:
        """The factor of the divergence, or of its squared distance from the capacity."""
        if self.kind in ("constant", "capacity"):
            return self.beta
        return self.start + (self.beta - self.start) * self._risen(epochs)

    def penalty(self, kl_b: torch.Tensor, epochs: float) -> torch.Tensor:
        """The cost of each image's divergence."""
        if self.kind == "capacity":
            return self.beta * (kl_b - self.capacity * self._risen(epochs)) ** 2
        return self.weight(epochs) * kl_b

    def _risen(self, epochs: float) -> float:
        """0 up to n₀, 1 from n₁; again and again where the schedule is cyclic."""
        first, last = self.rise
        if last <= first:
            return float(epochs >= first)
        share = max(0.0, (epochs - first) / (last - first))
        return share % 1 if self.kind == "cyclic" else min(1.0, share)
