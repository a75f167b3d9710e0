"""How strongly a latent is held to its prior as training goes on.

Axes: b images. n counts the images seen.
"""

from dataclasses import dataclass
from typing import Literal

import torch

SCHEDULES = Literal["constant", "linear", "cyclic", "capacity"]


@dataclass(frozen=True)
class BetaSchedule:
    """What the divergence KL(q(z|X) ‖ N(0, 1)) costs after n images, with r = (n − n₀)/(n₁ − n₀), n from `images`:

    constant β·KL · linear (β₀ + (β − β₀)·min(1, r))·KL · cyclic the same with r mod 1 · capacity β·(KL − C·min(1, r))².
    Sources: Fu et al., Cyclical annealing schedule, NAACL (2019); Burgess et al., arXiv:1804.03599 (2018).
    """

    kind: SCHEDULES
    beta: float
    start: float = 0.0
    images: tuple[float, float] = (0, 0)
    capacity: float = 0.0

    def weight(self, seen: int) -> float:
        """The factor of the divergence, or of its squared distance from the capacity."""
        if self.kind in ("constant", "capacity"):
            return self.beta
        return self.start + (self.beta - self.start) * self._rise(seen)

    def penalty(self, kl_b: torch.Tensor, seen: int) -> torch.Tensor:
        """The cost of each image's divergence."""
        if self.kind == "capacity":
            return self.beta * (kl_b - self.capacity * self._rise(seen)) ** 2
        return self.weight(seen) * kl_b

    def _rise(self, seen: int) -> float:
        """0 before the first of `images`, 1 after the second; again and again where the schedule is cyclic."""
        first, last = self.images
        if last <= first:
            return 1.0
        share = max(0.0, (seen - first) / (last - first))
        return share % 1 if self.kind == "cyclic" else min(1.0, share)
