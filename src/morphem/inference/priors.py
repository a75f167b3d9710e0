"""Prior precisions of a linear volume's maps, shell by shell, from the agreement of two half-sets.

    1/τ_j(s) = ½ mean_shell(W_jj of both halves) · (1 − F_j(s)) / F_j(s),   F the halves' Fourier shell correlation

Axes: c classes, s shells, j features, v voxels. Source: S. H. W. Scheres, J. Mol. Biol. 415, 406 (2012).
"""

import torch

from morphem.inference.msteps import NormalEquations
from morphem.physics import cube as cubes

LOWEST, HIGHEST = 0.001, 0.999
"""What an FSC is clipped to."""
WEAK = 1e-3
"""Of the mean weight of a shell: the prior under which halves are compared."""


Halves = tuple[NormalEquations, NormalEquations]


def precision_from_halves(halves: Halves, mask_zyx: torch.Tensor, share_c: torch.Tensor | None = None) -> torch.Tensor:
    """1/τ, (classes, shells, j), of sums over two half-sets, compared within a mask.

    With the classes' shares, first maps are compared as what they add to their mean: the part of a class that halves
    do not agree upon is then what all classes have.
    """
    weight_csj = 0.5 * (halves[0].shell_weight_csj() + halves[1].shell_weight_csj())
    first_cube, second_cube = (_cube(half, WEAK * weight_csj, mask_zyx, share_c) for half in halves)
    correlation_sc = _correlation(halves[0], first_cube, second_cube)
    correlation_csj = correlation_sc.unflatten(1, (len(weight_csj), -1)).transpose(0, 1)
    return weight_csj * (1 - correlation_csj) / correlation_csj


def _cube(
    half: NormalEquations, precision_csj: torch.Tensor, mask_zyx: torch.Tensor, share_c: torch.Tensor | None
) -> torch.Tensor:
    """The transforms (z, y, x, 2 · classes · j) of a half's maps under a prior."""
    map_czyx = half.solve(precision_csj) * mask_zyx
    if share_c is not None:
        first_czyx = map_czyx[:: half.features]
        first_czyx -= torch.einsum("c,czyx->zyx", share_c.to(map_czyx), first_czyx)
    return cubes.cube_of_maps(map_czyx, half.lattice.radius, padding=half.padding)


def _correlation(sums: NormalEquations, one_zyxc: torch.Tensor, two_zyxc: torch.Tensor) -> torch.Tensor:
    """F of every map, (shells, c), smoothed over neighbours so that no shell leaks into the next, and clipped."""
    cross_sc, first_sc, second_sc = (
        sums.shell_mean(product.unflatten(-1, (2, -1)).sum(-2))
        for product in (one_zyxc * two_zyxc, one_zyxc**2, two_zyxc**2)
    )
    raw_sc = cross_sc / (first_sc * second_sc).sqrt().clamp(min=1e-30)
    padded_sc = torch.cat([raw_sc[:1], raw_sc, raw_sc[-1:]])
    smooth_sc = 0.25 * padded_sc[:-2] + 0.5 * padded_sc[1:-1] + 0.25 * padded_sc[2:]
    return smooth_sc.clamp(LOWEST, HIGHEST)
