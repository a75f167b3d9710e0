"""Refinement of poses by gradient, beside whatever else is fitted.

Axes: b images, n all images, h hypotheses (one). x_image = exp([ω]×) R₀ x_map; shifts in pixels.
"""

import dataclasses

import numpy as np
import torch

from morphem.data.dataset import Dataset, Observed
from morphem.inference.esteps import EStep, Hypotheses
from morphem.inference.rows import Rows
from morphem.inference.settings import REFINE
from morphem.models.image_model import ImageModel
from morphem.models.volume import Volume

TURN_STEP, MOVE_STEP = 1e-3, 1e-2
"""Adam's steps, in radians and pixels."""
TURN_PRIOR, MOVE_PRIOR = np.radians(3.0), 1.0
"""Standard deviations of what the given poses lack, in radians and pixels."""


class PoseTable(EStep):
    """Another E-step at poses R = exp([ω]×) R₀ and t = t₀ + δ, with ω and δ of every image in tables.

    The penalty grows by |ω|²/2σ_ω² + |δ|²/2σ_t². In the first epoch the poses are those given.
    """

    def __init__(self, estep: EStep, count: int, refine: REFINE):
        super().__init__()
        self.estep, self.refine = estep, refine
        self.turn = Rows(count, 3, TURN_STEP)
        self.move = Rows(count, 2, MOVE_STEP)

    def forward(self, observed: Observed, volume: Volume | None, model: ImageModel) -> Hypotheses:
        turn_b3, move_b2 = self._changes(observed)
        rotation_b33 = turned(observed.rotation_b33, turn_b3)
        shift_b2 = observed.shift_b2 + move_b2
        here = dataclasses.replace(observed, rotation_b33=rotation_b33.detach(), shift_b2=shift_b2.detach())
        found = self.estep(here, volume, model)
        penalty_b = (turn_b3**2).sum(1) / (2 * TURN_PRIOR**2) + (move_b2**2).sum(1) / (2 * MOVE_PRIOR**2)
        return dataclasses.replace(
            found,
            rotation_bh33=rotation_b33[:, None],
            shift_bh2=shift_b2[:, None],
            penalty_b=found.penalty_b + penalty_b,
        )

    def _changes(self, observed: Observed) -> tuple[torch.Tensor, torch.Tensor]:
        """(ω, δ) of a batch; what is not refined is 0."""
        index_b = torch.as_tensor(observed.index_b, device=self.turn.weight.device)
        turn_b3, move_b2 = self.turn(index_b), self.move(index_b)
        if not (self.epochs >= 1 and self.refine in ("rotation", "both")):
            turn_b3 = torch.zeros_like(turn_b3)
        if not (self.epochs >= 1 and self.refine in ("shift", "both")):
            move_b2 = torch.zeros_like(move_b2)
        return turn_b3, move_b2

    def locate(self, observed: Observed, volume: Volume, model: ImageModel, steps: int = 30) -> None:
        """What the wrapped E-step looks for, at the poses given: images that training leaves out keep theirs."""
        self.estep.locate(observed, volume, model, steps)

    def refined(self, dataset: Dataset) -> Dataset:
        table = dataset.particles
        turn_n3, move_n2 = (rows.weight.detach().cpu().double() for rows in (self.turn, self.move))
        rotation_n33 = turned(torch.from_numpy(table.rotation_n33), turn_n3).numpy()
        shift_A_n2 = table.shift_A_n2 + move_n2.numpy() * table.pixel_A_n[:, None]
        return dataclasses.replace(dataset, particles=table.with_poses(rotation_n33, shift_A_n2))

    def summary(self, row_n: np.ndarray) -> str:
        tables = [rows.weight.detach().cpu()[row_n] for rows in (self.turn, self.move)]
        turn_n, move_n = (table.norm(dim=1).numpy() for table in tables)
        far = (turn_n > 2 * TURN_PRIOR) | (move_n > 2 * MOVE_PRIOR)
        return (
            f"Poses refined: turned by {np.degrees(turn_n.mean()):.2f}° and moved by {move_n.mean():.2f} pixels in the"
            f" mean of {len(row_n):,} images, {far.sum():,} of them by more than {np.degrees(2 * TURN_PRIOR):.0f}° or"
            f" {2 * MOVE_PRIOR:.0f} pixels; held-out images keep theirs"
        )


def with_refinement(estep: EStep, refine: REFINE, count: int) -> EStep:
    """The E-step at poses that are refined, or as it is."""
    return estep if refine == "none" else PoseTable(estep, count, refine)


def turned(rotation_b33: torch.Tensor, turn_b3: torch.Tensor) -> torch.Tensor:
    """exp([ω]×) R."""
    x, y, z = turn_b3.unbind(-1)
    zero = torch.zeros_like(x)
    cross_b33 = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    return torch.linalg.matrix_exp(cross_b33) @ rotation_b33
