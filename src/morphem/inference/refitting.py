"""The maps of a linear volume, made anew of some of the images at latents that are known.

Axes: n images, q latent, j features [1, z], z y x maps.
"""

import numpy as np
import torch

from morphem.data.dataset import Dataset
from morphem.inference.latents import Placed
from morphem.inference.msteps import NormalEquations
from morphem.inference.priors import precision_from_halves
from morphem.inference.sweep import sweep
from morphem.models.image_model import ImageModel
from morphem.models.volume import LinearVolume


@torch.inference_mode()
def refitted(volume: LinearVolume, dataset: Dataset, placed: Placed, rows: np.ndarray, seed: int) -> LinearVolume:
    """(W + T) V = Y of those images alone, where the volume has anything; two halves of them set the prior T."""
    order, features = np.random.default_rng(seed).permutation(rows), placed.z_nq.shape[1] + 1
    dataset = dataset.within(volume.radius)
    sums = tuple(NormalEquations(dataset.lattice, features, padding=1, device=dataset.device) for _ in range(2))
    for part, half in enumerate(sums):
        sweep(dataset, np.sort(order[part::2]), 100, placed, half, None, ImageModel(), "Refitting")
    mask_zyx = (volume.map_czyx != 0).any(0).to(dataset.device)
    precision_csj = precision_from_halves((sums[0], sums[1]), mask_zyx)
    sums[0].merge(sums[1])
    return LinearVolume.of(sums[0].solve(precision_csj) * mask_zyx, volume.radius, padding=1)
