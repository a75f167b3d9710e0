"""Weighted back-projections: maps of parts of the images that latents choose, all in one pass.

Axes: n images, b images of a batch, w windows (parts), q latent, z y x maps.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from morphem.data.dataset import Dataset, Observed
from morphem.inference.consensus import merged
from morphem.inference.esteps import EStep, Hypotheses
from morphem.inference.msteps import NormalEquations
from morphem.inference.sweep import sweep
from morphem.models.image_model import ImageModel
from morphem.models.volume import Volume

NEVER = 1e-30
"""The weight of an image that a window does not hold."""


class Weighted(EStep):
    """Every image belongs to windows by known weights, which need not add to 1."""

    weight_nw: torch.Tensor

    def __init__(self, weight_nw: np.ndarray):
        super().__init__()
        self.register_buffer("weight_nw", torch.from_numpy(weight_nw).float())

    def forward(self, observed: Observed, volume: Volume | None, model: ImageModel) -> Hypotheses:
        known = Hypotheses.at_given_poses(observed)
        weight_bw = self.weight_nw[torch.as_tensor(observed.index_b)].to(observed.ctf_bk.device)
        b, w = weight_bw.shape
        return Hypotheses(
            torch.arange(w, device=weight_bw.device).expand(b, w),
            known.rotation_bh33.expand(b, w, 3, 3),
            known.shift_bh2.expand(b, w, 2),
            weight_bw.clamp(min=NEVER).log(),
            known.phi_bhj.expand(b, w, 1),
            known.phi_cov_bhjj.expand(b, w, 1, 1),
            known.evidence_b,
            known.penalty_b,
        )


@dataclass(frozen=True, eq=False)
class Window:
    """The map of a part of the images, its half-maps, and how many images' worth of weight it holds."""

    map_zyx: np.ndarray
    half_hzyx: np.ndarray
    images: float


def reconstruct_windows(
    dataset: Dataset, halves: tuple[np.ndarray, np.ndarray], weight_nw: np.ndarray, at_once: int = 8
) -> Iterator[Window]:
    """The map of every window, (Σ w)²/Σ w² images each; `at_once` of them in a pass over the images."""
    for start in range(0, weight_nw.shape[1], at_once):
        part_nw = weight_nw[:, start : start + at_once]
        sums = []
        for rows in halves:
            held = rows[part_nw[rows].any(1)]
            sums.append(NormalEquations(dataset.lattice, classes=part_nw.shape[1], device=dataset.device))
            sweep(dataset, held, 200, Weighted(part_nw), sums[-1], None, ImageModel(), "Back-projecting")
        both = merged(*sums)
        count_w = part_nw.sum(0) ** 2 / (part_nw**2).sum(0).clip(1e-12)
        for number, map_zyx in enumerate(both.maps()):
            yield Window(map_zyx, both.half_hczyx[:, number], float(count_w[number]))


def triangles(z_n: np.ndarray, count: int, low: float = 3.0, high: float = 97.0) -> np.ndarray:
    """Overlapping triangles along one component, (n, w): centred from one percentile to another, as wide as apart."""
    first, last = np.percentile(z_n, [low, high])
    centre_w = np.linspace(first, last, count)
    step = centre_w[1] - centre_w[0]
    return np.clip(1 - np.abs(z_n[:, None] - centre_w) / step, 0, None)
