"""M-steps: improve the volume, given what the E-step believes.

Axes: b images, h hypotheses, k samples, q latent, j l features φ = s·[1, z], z y x cube, s shells, c channels.
"""

import abc
from dataclasses import dataclass

import numpy as np
import torch

from morphem.data.dataset import Dataset, Observed
from morphem.errors import RunError
from morphem.inference.esteps import EStep, Hypotheses
from morphem.models.image_model import ImageModel
from morphem.models.volume import Volume
from morphem.physics import cube as cubes
from morphem.physics.lattice import Lattice
from morphem.physics.noise import ShellPower
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

    Sᵀ is `insert`, so W is the diagonal of the normal operator as trilinear interpolation spreads it.
    """

    def __init__(self, lattice: Lattice, features: int = 1, padding: int = 2, device: str = "cpu"):
        self.lattice, self.features, self.padding = lattice, features, padding
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
            insert(torch.cat(channels, dim=-1), matrix_b33, observed.lattice.coords_k2, self.odd_c, self.sum_zyxc)

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


@dataclass(frozen=True)
class SweepLoss:
    """Means of one sweep: Σ|X̃ − X̂|²/P (1 at the truth), the penalty per image, and |X̃ − X̂|² per group and shell."""

    images: int
    loss: float
    penalty: float
    power_gs: torch.Tensor
    skipped: int
    """Batches whose loss or gradient was not finite."""


class Gradient(MStep):
    """One Adam step a batch on (Σ|X̃ − X̂(z)|² + penalty)/P with one draw z = μ + Lε, LLᵀ = Cov z.

    The volume works on about `tile` samples at a time, so that activations stay in cache; the E-step's own gradient
    follows from the draws'. A batch whose loss or gradient is not finite is skipped; ten in a row
    end the run.
    """

    def __init__(
        self,
        volume: Volume,
        estep: EStep,
        model: ImageModel,
        learning_rate: float,
        dataset: Dataset,
        tile: int = 4096,
    ):
        self.volume, self.model, self.tile = volume, model, tile
        self.lattice, self.particles = dataset.lattice, dataset.particles
        self.optimizer = torch.optim.Adam([*volume.parameters(), *estep.parameters()], lr=learning_rate)
        self.draw_nq = torch.zeros(0)
        self.bad_in_a_row = 0
        self.last: SweepLoss | None = None
        self._start()

    def _start(self) -> None:
        self.images, self.loss, self.penalty, self.skipped = 0, 0.0, 0.0, 0
        self.power = ShellPower(self.lattice, len(self.particles.optics_names))

    def update(self, observed: Observed, hypotheses: Hypotheses) -> None:
        z_bq = self._draw(observed, hypotheses)
        leaf_bq = z_bq.detach().requires_grad_(z_bq.requires_grad)
        self.optimizer.zero_grad(set_to_none=True)
        tiles = [self._tile(observed, hypotheses, leaf_bq, rows) for rows in self._rows(observed)]
        penalty = hypotheses.penalty_b.sum()
        if leaf_bq.grad is not None:
            scale = 1 / (len(observed) * len(observed.lattice))
            torch.autograd.backward([z_bq, penalty * scale], [leaf_bq.grad, None])
        self._step(observed, torch.cat(tiles), float(penalty.detach()))

    def _draw(self, observed: Observed, hypotheses: Hypotheses) -> torch.Tensor:
        """z = μ + Lε; the caller sets `draw_nq`, so that ε is a function of seed, epoch and image."""
        mean_bq = hypotheses.z_bhq[:, 0]
        if mean_bq.shape[1] == 0:
            return mean_bq
        factor_bqq = torch.linalg.cholesky_ex(hypotheses.z_cov_bhqq[:, 0]).L  # not a number shows in the loss
        draw_bq = self.draw_nq[torch.as_tensor(observed.index_b)].to(mean_bq)
        return mean_bq + torch.einsum("bij,bj->bi", factor_bqq, draw_bq)

    def _rows(self, observed: Observed) -> list[slice]:
        size = max(1, self.tile // len(observed.lattice))
        return [slice(start, start + size) for start in range(0, len(observed), size)]

    def _tile(self, observed: Observed, hypotheses: Hypotheses, z_bq: torch.Tensor, rows: slice) -> torch.Tensor:
        """Add some images' gradient; |X̃ − X̂|², (rows, k)."""
        poses = hypotheses.rotation_bh33[rows], hypotheses.shift_bh2[rows]
        residual_bk = self.model.residual(self.volume, observed[rows], *poses, z_bq[rows, None])[:, 0]
        power_bk = residual_bk.real**2 + residual_bk.imag**2
        (power_bk.sum() / (len(observed) * len(observed.lattice))).backward()
        return power_bk.detach()

    def _step(self, observed: Observed, power_bk: torch.Tensor, penalty: float) -> None:
        loss = float(power_bk.mean())
        steepness = torch.nn.utils.get_total_norm([p.grad for p in self._parameters() if p.grad is not None])
        if not np.isfinite(loss + penalty + float(steepness)):
            self._skip(observed)
            return
        self.bad_in_a_row = 0
        self.optimizer.step()
        self.images += len(observed)
        self.loss += loss * len(observed)
        self.penalty += penalty
        self.power.add_power(power_bk, self.particles.optics_n[observed.index_b])

    def _parameters(self) -> list[torch.Tensor]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def _skip(self, observed: Observed) -> None:
        self.bad_in_a_row += 1
        self.skipped += 1
        if self.bad_in_a_row >= 10:
            rows = ", ".join(str(row + 1) for row in observed.index_b[:5])
            raise RunError(
                f"the loss was not a number for ten batches in a row, last on rows {rows} …; lower --learning-rate"
            )

    def merge(self, other: "Gradient") -> None:
        self.images += other.images
        self.loss += other.loss
        self.penalty += other.penalty
        self.skipped += other.skipped
        self.power.merge(other.power)

    def finish(self) -> None:
        """Close the sweep's sums: their means are in `last`."""
        if self.images == 0:
            raise RunError("the loss was not a number in any batch; lower --learning-rate")
        means = self.loss / self.images, self.penalty / self.images
        self.last = SweepLoss(self.images, *means, self.power.mean(), self.skipped)
        self._start()
