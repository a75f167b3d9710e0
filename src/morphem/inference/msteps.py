"""M-steps: the contract, and the normal equations of a linear volume.

Axes: b images, h hypotheses, k samples, j l features φ = s·[1, z], z y x cube, s shells, c channels.
"""

import abc

import numpy as np
import torch

from morphem.data.dataset import Observed
from morphem.inference.esteps import Hypotheses
from morphem.physics import cube as cubes
from morphem.physics.lattice import Lattice
from morphem.physics.slice import cube_shape, fold, insert


class MStep(abc.ABC):
    """`update` once a batch, `merge` another device's sums, `finish` once a sweep."""

    @abc.abstractmethod
    def update(self, observed: Observed, hypotheses: Hypotheses) -> None: ...

    @abc.abstractmethod
    def merge(self, other: "MStep") -> None: ...

    @abc.abstractmethod
    def finish(self) -> None: ...


class NormalEquations(MStep):
    """Weighted back-projection: per voxel (W + T) V = Y, with a = CTF/σ and centred, whitened samples y,

        W_jl = Σ w E[φ_j φ_l] Sᵀ(a²),   Y_j = Σ w E[φ_j] Sᵀ(a y),   T = diag(1/τ_j(shell)).

    Sᵀ is `insert`, so W is the diagonal of the normal operator as trilinear interpolation spreads it. A map with the
    symmetry V(g x) = V(x) looks alike from R and R g: every image is inserted at all of them.
    """

    def __init__(
        self,
        lattice: Lattice,
        features: int = 1,
        padding: int = 2,
        device: str = "cpu",
        symmetry_g33: np.ndarray | None = None,
    ):
        self.lattice, self.features, self.padding = lattice, features, padding
        self.symmetry_g33 = torch.eye(3)[None] if symmetry_g33 is None else torch.from_numpy(symmetry_g33).float()
        self.pairs = [(j, i) for j in range(features) for i in range(j + 1)]
        self.odd_c = torch.cat([cubes.odd_channels(features), torch.zeros(len(self.pairs), dtype=torch.bool)])
        self.sum_zyxc = torch.zeros(cube_shape(padding * lattice.radius, len(self.odd_c)), device=device)
        self.weight_zyxjj: torch.Tensor | None = None
        self.data_zyxj: torch.Tensor | None = None

    def update(self, observed: Observed, hypotheses: Hypotheses) -> None:
        weight_bh = hypotheses.logw_bh.exp()
        ratio_b1 = observed.ratio_b[:, None]
        a_bk = observed.ctf_bk * ratio_b1**2
        for h in range(weight_bh.shape[1]):
            back_bk = observed.lattice.shift_phase(-hypotheses.shift_bh2[:, h])
            data_bk = torch.view_as_real(a_bk * observed.sample_bk * back_bk)
            weight_b = weight_bh[:, h]
            channels = [
                weight_b[:, None, None] * hypotheses.phi_bhj[:, h, j, None, None] * data_bk
                for j in range(self.features)
            ]
            phiphi_bjj = weight_b[:, None, None] * hypotheses.phiphi_bhjj[:, h]
            channels += [(phiphi_bjj[:, j, i, None] * a_bk**2)[..., None] for j, i in self.pairs]
            matrix_b33 = self.padding * ratio_b1[..., None] * hypotheses.rotation_bh33[:, h]
            value_bkc = torch.cat(channels, dim=-1)
            for turn_33 in self.symmetry_g33.to(matrix_b33):
                insert(value_bkc, matrix_b33 @ turn_33, observed.lattice.coords_k2, self.odd_c, self.sum_zyxc)

    def merge(self, other: "NormalEquations") -> None:
        self.sum_zyxc += other.sum_zyxc

    def finish(self) -> None:
        """Add Friedel mates and lay the sums out as matrices; solving may follow, more than once."""
        sum_zyxc = fold(self.sum_zyxc, self.odd_c)
        split = 2 * self.features
        self.data_zyxj = torch.view_as_complex(sum_zyxc[..., :split].unflatten(-1, (-1, 2)).contiguous())
        self.weight_zyxjj = sum_zyxc.new_zeros(*sum_zyxc.shape[:3], self.features, self.features)
        for c, (j, i) in enumerate(self.pairs, start=split):
            self.weight_zyxjj[..., j, i] = self.weight_zyxjj[..., i, j] = sum_zyxc[..., c]

    def shell_weight_sj(self) -> torch.Tensor:
        """Mean of W_jj over every shell of |k|, (shells, j)."""
        assert self.weight_zyxjj is not None
        shell_v = self._radius_zyx().round().long().flatten()
        diagonal_vj = self.weight_zyxjj.diagonal(dim1=-2, dim2=-1).flatten(0, 2)
        total_sj = diagonal_vj.new_zeros(int(shell_v.max()) + 1, self.features).index_add_(0, shell_v, diagonal_vj)
        return total_sj / torch.bincount(shell_v)[:, None]

    def solve(self, precision_sj: torch.Tensor) -> torch.Tensor:
        """The maps (j, d, d, d) for prior precisions 1/τ_j at every shell, interpolated between shells.

        The window of trilinear interpolation is divided out; what prepared images do not tell is 0.
        """
        assert self.weight_zyxjj is not None and self.data_zyxj is not None
        radius_zyx = self._radius_zyx()
        below_zyx = radius_zyx.long().clamp(max=len(precision_sj) - 2)
        part_zyx1 = (radius_zyx - below_zyx).clamp(max=1)[..., None]
        ridge_zyxj = precision_sj[below_zyx] ** (1 - part_zyx1) * precision_sj[below_zyx + 1] ** part_zyx1
        value_zyxj = _eliminate(self.weight_zyxjj + torch.diag_embed(ridge_zyxj), self.data_zyxj)
        value_zyxj[radius_zyx > self.lattice.radius + 0.5] = 0
        cube_zyxc = torch.view_as_real(value_zyxj).flatten(-2)
        map_jzyx = cubes.maps_of_cube(cube_zyxc, self.lattice.box, self.padding)
        window_zyx = cubes.interpolation_window(self.lattice.box, self.padding).to(map_jzyx.device)
        return cubes.within_sphere(map_jzyx / window_zyx)

    def _radius_zyx(self) -> torch.Tensor:
        """|k| of every voxel, in units of the unpadded lattice."""
        h = self.sum_zyxc.shape[2] - 1
        z = torch.arange(-h, h + 1) / self.padding
        x = torch.arange(h + 1) / self.padding
        return (z[:, None, None] ** 2 + z[:, None] ** 2 + x**2).sqrt().to(self.sum_zyxc.device)


def _eliminate(matrix_vjj: torch.Tensor, data_vj: torch.Tensor) -> torch.Tensor:
    """Solve positive definite J × J systems, all voxels at once, by Gaussian elimination; empty systems give 0."""
    matrix_vjj, data_vj = matrix_vjj.clone(), data_vj.clone()
    count = data_vj.shape[-1]
    for j in range(count):
        pivot_v = matrix_vjj[..., j, j].clamp(min=1e-30)
        for i in range(j + 1, count):
            factor_v = matrix_vjj[..., i, j] / pivot_v
            matrix_vjj[..., i, :] -= factor_v[..., None] * matrix_vjj[..., j, :]
            data_vj[..., i] -= factor_v * data_vj[..., j]
    for j in reversed(range(count)):
        rest_v = (matrix_vjj[..., j, j + 1 :] * data_vj[..., j + 1 :]).sum(-1)
        data_vj[..., j] = (data_vj[..., j] - rest_v) / matrix_vjj[..., j, j].clamp(min=1e-30)
    return data_vj
