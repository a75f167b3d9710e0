"""Which bandwidth a map takes where: in every band of shells and region of space, the one that the other half's images
find likeliest.

Images of half B near the state, with sums W and Y of Sᵀa² and Sᵀay, have under a map V the log-likelihood

    Σ_i w_i log p(y_i | V) = 2 Re⟨V, Y⟩ − ⟨V, W V⟩ + const = −‖V − Y/W‖²_W + const

as far as W stands for the normal operator.
So V = Y_A/W_A at bandwidth l is judged by its distance from Y_B/W_B at the narrowest bandwidth, cell by cell, where W
is nearly constant; A judges B alike, and both verdicts add.
Axes: h half-sets, l bandwidths, b bands, z y x voxels, u v w regions, c maps.
"""

from dataclasses import dataclass

import numpy as np
import torch

from morphem.physics.local import Cells

JUDGED_IN = 0.1
"""σ of the windows in which bandwidths are judged, of the box's side."""
FILTERED_IN = 0.07
"""σ of the windows of the local filter."""


@dataclass(frozen=True, eq=False)
class Blend:
    """Maps made of the bandwidths chosen, and what was chosen in every cell."""

    map_zyx: torch.Tensor
    """Of all images, locally filtered."""
    half_hzyx: torch.Tensor
    """Of each half, unfiltered."""
    level_buvw: torch.Tensor
    """The number of the bandwidth."""
    fsc_buvw: torch.Tensor
    """Of the half maps at it."""


def blend(half_hlzyx: torch.Tensor, whole_lzyx: torch.Tensor, mask_zyx: np.ndarray | None = None) -> Blend:
    """Choose in every cell, and add up bands; the map of all images is filtered by g = 2F/(1 + F), F the local FSC.

    Only bandwidths and the filter cross between half-sets: each half map holds its own images alone, and no filter.
    A mask multiplies the maps at last.
    """
    cells = Cells.of(whole_lzyx.shape[-1], str(whole_lzyx.device))
    spectra_h = [torch.fft.rfftn(level_lzyx, dim=(-3, -2, -1)) for level_lzyx in (*half_hlzyx, whole_lzyx)]
    half_hzyx, map_zyx = torch.zeros_like(half_hlzyx[:, 0]), torch.zeros_like(whole_lzyx[0])
    chosen = []
    for b in range(len(cells)):
        *parts_h, whole_part_lzyx = [cells.band(spectrum_lzyx, b) for spectrum_lzyx in spectra_h]
        level_uvw = judge(cells, parts_h)
        level_zyx = cells.spread(level_uvw[None])[0]
        own_hzyx = torch.stack([_pick(part_lzyx, level_zyx) for part_lzyx in parts_h])
        fsc_uvw = local_fsc(cells, own_hzyx)
        half_hzyx += own_hzyx
        map_zyx += cells.spread((2 * fsc_uvw / (1 + fsc_uvw))[None])[0] * _pick(whole_part_lzyx, level_zyx)
        chosen.append((level_uvw, fsc_uvw))
    mask = 1 if mask_zyx is None else torch.from_numpy(mask_zyx).to(map_zyx)
    return Blend(map_zyx * mask, half_hzyx * mask, *map(torch.stack, zip(*chosen, strict=True)))


def judge(cells: Cells, parts_h: list[torch.Tensor]) -> torch.Tensor:
    """The likeliest bandwidth (u, v, w) of one band, by its number, a fraction where neighbouring regions differ."""
    one_lzyx, other_lzyx = parts_h
    misfit_lzyx = (one_lzyx - other_lzyx[0]) ** 2 + (other_lzyx - one_lzyx[0]) ** 2
    best_uvw = cells.measure(misfit_lzyx, JUDGED_IN).argmin(0)
    return cells.smooth(best_uvw[None].float(), JUDGED_IN / 2)[0]


def local_fsc(cells: Cells, half_hzyx: torch.Tensor) -> torch.Tensor:
    """⟨A, B⟩/√(⟨A, A⟩⟨B, B⟩) of one band in every region, 0 to 1."""
    one_zyx, other_zyx = half_hzyx
    products_czyx = torch.stack([one_zyx * other_zyx, one_zyx**2, other_zyx**2])
    cross_uvw, one_uvw, other_uvw = cells.measure(products_czyx, FILTERED_IN)
    return (cross_uvw / (one_uvw * other_uvw).sqrt().clamp(min=1e-30)).clamp(0, 1)


def _pick(part_lzyx: torch.Tensor, level_zyx: torch.Tensor) -> torch.Tensor:
    """At every voxel the map of its bandwidth, linear between two."""
    last = len(part_lzyx) - 1
    below_zyx = level_zyx.long().clamp(max=max(last - 1, 0))
    share_zyx = level_zyx - below_zyx
    above_zyx = (below_zyx + 1).clamp(max=last)
    low_zyx, high_zyx = (part_lzyx.gather(0, index_zyx[None])[0] for index_zyx in (below_zyx, above_zyx))
    return low_zyx + share_zyx * (high_zyx - low_zyx)
