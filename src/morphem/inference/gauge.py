"""One linear volume among the many that give the same images: z of mean 0 and covariance 1, orthogonal eigenvolumes.

Axes: c classes, j features, q latent, z y x maps.
"""

import torch

from morphem.models.volume import LinearVolume

DEAD = 1e-12
"""Of the mean's power: an eigenvolume of less is 0. One that nothing supports shrinks with every sweep, and numbers too
small to be normal make all arithmetic slow."""


def orthogonalised(volume: LinearVolume, moment_cjj: torch.Tensor) -> LinearVolume:
    """μ + U E[z], and U·chol(Cov z) turned to principal axes, largest first; moments Σ w E[φφᵀ] of every class."""
    classes = len(moment_cjj)
    by_class = volume.map_czyx.unflatten(0, (classes, -1))
    maps = [_principal(map_jzyx, moment_jj) for map_jzyx, moment_jj in zip(by_class, moment_cjj, strict=True)]
    return LinearVolume.of(torch.cat(maps), volume.radius, volume.padding)


def _principal(map_jzyx: torch.Tensor, moment_jj: torch.Tensor) -> torch.Tensor:
    if len(map_jzyx) == 1 or moment_jj[0, 0] <= 0:
        return map_jzyx
    mean_q, turn_qq = frame(map_jzyx, moment_jj / moment_jj[0, 0])
    turned_jzyx = in_frame(map_jzyx, mean_q, turn_qq)
    power_j = turned_jzyx.flatten(1).square().sum(1)
    turned_jzyx[power_j < DEAD * power_j[0]] = 0
    return turned_jzyx


def frame(map_jzyx: torch.Tensor, moment_jj: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(m, T) with z = m + T z', such that z' has mean 0, covariance 1 and U T orthogonal columns, the longest first.

    `moment_jj` is the mean of φφᵀ, φ = [1, z].
    """
    mean_q = moment_jj[0, 1:]
    cov_qq = moment_jj[1:, 1:] - mean_q[:, None] * mean_q
    factor_qq = torch.linalg.cholesky(cov_qq + 1e-9 * cov_qq.trace() * torch.eye(len(cov_qq)).to(cov_qq))
    flat_qv = map_jzyx[1:].flatten(1)
    gram_qq = factor_qq.mT @ (flat_qv @ flat_qv.mT).double() @ factor_qq
    return mean_q, factor_qq @ torch.linalg.eigh(gram_qq).eigenvectors.flip(1)


def in_frame(map_jzyx: torch.Tensor, mean_q: torch.Tensor, turn_qq: torch.Tensor) -> torch.Tensor:
    """The maps [μ + U m, U T]."""
    flat_jv = map_jzyx.flatten(1)
    mean_v = flat_jv[0] + mean_q.to(flat_jv) @ flat_jv[1:]
    return torch.cat([mean_v[None], turn_qq.mT.to(flat_jv) @ flat_jv[1:]]).unflatten(1, map_jzyx.shape[1:])


def variances(volume: LinearVolume, classes: int) -> torch.Tensor:
    """λ_j = |U_j|², (classes, q): what every component adds to the squared norm of a map, in map units."""
    return (volume.map_czyx.unflatten(0, (classes, -1))[:, 1:] ** 2).flatten(2).sum(-1)
