"""Linear volumes filtered where half-sets agree: every map, every band of shells, every region of space.

Either half-set makes the maps anew at the latents of the fit. With F_cb the local FSC of map c's halves in band b

    V_c ← Σ_b 2F_cb/(1 + F_cb) · β_b V_c

so that what moves is sharp where it moves and the solvent is empty: a filter by shells has one gain for both.
Axes: c maps, h half-sets, z y x.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch

from morphem.data.dataset import Dataset
from morphem.inference.bandwidth import local_fsc
from morphem.inference.consensus import Consensus
from morphem.inference.latents import Placed
from morphem.inference.linear import JointSpace, Latents
from morphem.inference.refitting import refitted
from morphem.models.volume import LinearVolume
from morphem.physics import cube as cubes
from morphem.physics.local import Cells

MOST_AXES = 12
"""Of a volume that is filtered: to make it anew takes sums that grow as their square."""


@torch.inference_mode()
def locally_filtered(
    space: JointSpace,
    found: Latents,
    dataset: Dataset,
    consensus: Consensus,
    halves: Sequence[np.ndarray],
) -> JointSpace:
    """The same space with its maps filtered; one of very many axes is left as it is.

    A mask that was given still holds.
    """
    volume = space.volume
    if volume.latent_dim > MOST_AXES:
        return space
    placed = Placed(found.z_nd, found.cov_ndd).to(dataset.device)
    half_hczyx = half_maps(volume, dataset, placed, halves, np.stack(consensus.half_zyx))
    map_czyx = filtered(volume.map_czyx, half_hczyx, lambda fsc_uvw: 2 * fsc_uvw / (1 + fsc_uvw))
    if consensus.masked:
        map_czyx *= (volume.map_czyx != 0).any(0)
    return dataclasses.replace(space, volume=LinearVolume.of(map_czyx, volume.radius, volume.padding))


@torch.inference_mode()
def half_maps(
    volume: LinearVolume, dataset: Dataset, placed: Placed, halves: Sequence[np.ndarray], fine_hzyx: np.ndarray
) -> torch.Tensor:
    """A linear volume's maps made anew of either half-set, (h, c, z, y, x).

    Beyond the fitted radius the mean is the consensus, whose half-maps are `fine_hzyx`.
    """
    made = [refitted(volume, dataset, placed, rows, seed).map_czyx for seed, rows in enumerate(halves)]
    half_hczyx, fine = torch.stack(made), torch.from_numpy(fine_hzyx).to(volume.map_czyx)
    half_hczyx[:, 0] += fine - cubes.lowpass(fine, volume.radius)
    return half_hczyx


@torch.inference_mode()
def filtered(map_czyx: torch.Tensor, half_hczyx: torch.Tensor, gain: Callable) -> torch.Tensor:
    """Σ_b g(F_cb) β_b V_c, F_cb of every region the local FSC of the halves of map c."""
    cells, kept_czyx = Cells.of(map_czyx.shape[-1], str(map_czyx.device)), torch.zeros_like(map_czyx)
    for map_zyx, kept_zyx, half_hzyx in zip(map_czyx, kept_czyx, half_hczyx.unbind(1), strict=True):
        spectrum_zyx, halves_hzyx = (torch.fft.rfftn(value, dim=(-3, -2, -1)) for value in (map_zyx, half_hzyx))
        for b in range(len(cells)):
            gain_uvw = gain(local_fsc(cells, cells.band(halves_hzyx, b)))
            kept_zyx += cells.spread(gain_uvw[None])[0] * cells.band(spectrum_zyx, b)
    return kept_czyx
