"""Sums of weighted images, and the maps that solve them: local averages, or local-linear regression.

With φ = [1, δ], δ = (z_i − z*) A the offset along a few axes A of latent space, per voxel

    W_jl = Σ w E[φ_j φ_l] Sᵀ(a²),   Y_j = Σ w φ_j Sᵀ(a y),   E[φφᵀ] = φφᵀ + diag(0, Aᵀ Σ_i A),   (W + T) V = Y,

a = CTF/σ, y the whitened samples with their shift undone. V_0 is the map at z*; without axes it is Y/(W + T).
Axes: b images, k samples, c channels (Re Y_0, Im Y_0, Re Y_1, …, W_00, W_10, …), j i features, q latent, l maps, z y x.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from morphem.data.dataset import Observed
from morphem.inference.solving import solve_symmetric
from morphem.physics import cube as cubes
from morphem.physics.lattice import Lattice
from morphem.physics.slice import cube_shape, fold, insert

RIDGE = 1e-3
"""T, of a shell's mean weight: what voxels that hardly any sample has reached are divided by."""


def leading_axes(z_nq: np.ndarray, count: int) -> np.ndarray:
    """A (q, j): the `count` principal axes of z, such that offsets along them have unit deviation."""
    left_qp, size_p, _ = np.linalg.svd((z_nq - z_nq.mean(0, dtype=float)).T, full_matrices=False)
    return left_qp[:, :count] * (np.sqrt(len(z_nq)) / np.maximum(size_p[:count], 1e-30))


@dataclass(frozen=True, eq=False)
class Regression:
    """What is summed, and how it is solved; sums are half cubes (z, y, x, c) that start as zeros."""

    lattice: Lattice
    axes_qj: np.ndarray
    """No columns: a local average."""
    padding: int = 1
    device: str = "cpu"

    @property
    def features(self) -> int:
        return 1 + self.axes_qj.shape[1]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of a sum."""
        return cube_shape(self.padding * self.lattice.radius, len(self._odd_c))

    @cached_property
    def _pairs(self) -> list[tuple[int, int]]:
        return [(j, i) for j in range(self.features) for i in range(j + 1)]

    @cached_property
    def _odd_c(self) -> torch.Tensor:
        return torch.tensor([False, True] * self.features + [False] * len(self._pairs))

    def moments(self, offset_bq: np.ndarray, covariance_bqq: np.ndarray | None) -> torch.Tensor:
        """What each channel of an image is multiplied by, (b, c): φ twice, then E[φφᵀ]."""
        phi_bj = np.hstack([np.ones((len(offset_bq), 1)), offset_bq @ self.axes_qj])
        second_bji = phi_bj[:, :, None] * phi_bj[:, None]
        if covariance_bqq is not None:
            second_bji[:, 1:, 1:] += self.axes_qj.T @ covariance_bqq @ self.axes_qj
        pairs_bc = [second_bji[:, j, i] for j, i in self._pairs]
        moment_bc = np.column_stack([phi_bj.repeat(2, axis=1), *pairs_bc])
        return torch.from_numpy(moment_bc).float().to(self.device)

    def add(self, images: "Centred", rows: torch.Tensor, moment_bc: torch.Tensor, sum_zyxc: torch.Tensor) -> None:
        """Insert some of a batch's images into a sum."""
        phi_bc, second_bp = moment_bc[rows].tensor_split([2 * self.features], dim=1)
        value_bkc = images.data_bk2[rows].repeat(1, 1, self.features) * phi_bc[:, None]
        matrix_b33 = self.padding * images.matrix_b33[rows]
        insert(value_bkc, matrix_b33, images.coords_k2, self._odd_c, sum_zyxc, images.power_bk[rows], second_bp)

    def maps(self, sum_lzyxc: torch.Tensor) -> torch.Tensor:
        """V_0 (l, d, d, d) of several sums; the window of trilinear reading is divided out."""
        box = self.lattice.box
        values = (torch.view_as_real(self.solve(sum_zyxc)[0]) for sum_zyxc in sum_lzyxc)
        map_lzyx = torch.cat([cubes.maps_of_cube(value_zyxc, box, self.padding) for value_zyxc in values])
        return cubes.within_sphere(map_lzyx / cubes.interpolation_window(box, self.padding).to(map_lzyx.device))

    def solve(self, sum_zyxc: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """V_0, Y_0, W_00 at every voxel, (z, y, x), after mates are added; V is 0 beyond the lattice."""
        folded_zyxc, j = fold(sum_zyxc, self._odd_c), self.features
        data_zyxj = torch.view_as_complex(folded_zyxc[..., : 2 * j].unflatten(-1, (j, 2)).contiguous())
        weight_zyxp = folded_zyxc[..., 2 * j :]
        diagonal = [self._pairs.index((i, i)) for i in range(j)]
        ridge_zyxj = torch.stack([self._ridge(weight_zyxp[..., p]) for p in diagonal], -1)
        solved_zyx2j = solve_symmetric(weight_zyxp, ridge_zyxj, torch.view_as_real(data_zyxj).mT)
        value_zyx = torch.view_as_complex(solved_zyx2j[..., 0].contiguous())
        within_zyx = self._radius_zyx <= self.lattice.radius + 0.5
        return value_zyx * within_zyx, data_zyxj[..., 0], weight_zyxp[..., 0]

    def _ridge(self, weight_zyx: torch.Tensor) -> torch.Tensor:
        """`RIDGE` of the mean weight of each voxel's shell."""
        shell_v = self._radius_zyx.round().long().flatten()
        total_s = weight_zyx.new_zeros(int(shell_v.max()) + 1).index_add_(0, shell_v, weight_zyx.flatten())
        return (RIDGE * total_s / torch.bincount(shell_v)).clamp(min=1e-30)[shell_v].view(weight_zyx.shape)

    @cached_property
    def _radius_zyx(self) -> torch.Tensor:
        return cubes.voxel_radius(torch.empty(self.shape[:3], device=self.device), self.padding)


@dataclass(frozen=True, eq=False)
class Centred:
    """A batch as it is inserted: a y with shifts undone as real pairs, a², and the matrices that place the samples."""

    data_bk2: torch.Tensor
    power_bk: torch.Tensor
    matrix_b33: torch.Tensor
    coords_k2: torch.Tensor

    @classmethod
    def of(cls, observed: Observed) -> "Centred":
        ratio_b1 = observed.ratio_b[:, None]
        a_bk = observed.ctf_bk * ratio_b1**2
        back_bk = observed.lattice.shift_phase(-observed.shift_b2)
        data_bk2 = torch.view_as_real(a_bk * observed.sample_bk * back_bk)
        return cls(data_bk2, a_bk**2, ratio_b1[..., None] * observed.rotation_b33, observed.lattice.coords_k2)
