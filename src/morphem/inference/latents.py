"""E-steps over the latent z at known poses: an encoder, a table, or what a fit has left.

Axes: b images, n all images, k samples, q latent, h width, m entries below a triangle's diagonal.
"""

import numpy as np
import torch
from torch import nn

from morphem.data.dataset import Observed
from morphem.inference.esteps import EStep, Hypotheses
from morphem.inference.rows import RowAdam, Rows
from morphem.inference.schedules import BetaSchedule
from morphem.inference.views import ImageView, MapView, PictureView
from morphem.models.image_model import ImageModel
from morphem.models.nets import ResidualTrunk
from morphem.models.volume import Volume


class Encoder(EStep):
    """q(z | X) = N(μ, L Lᵀ) by a residual network; the penalty is the schedule's of

        KL = ½ Σ_i (μ_i² + (L Lᵀ)_ii − 1 − log L_ii²),

    L diagonal, or lower triangular with `full`. Its input is what `view` makes of an image.
    """

    below_mqq: torch.Tensor

    def __init__(
        self,
        view: ImageView | PictureView | MapView,
        latent_dim: int,
        width: int,
        layers: int,
        schedule: BetaSchedule,
        full: bool = False,
    ):
        super().__init__()
        self.view, self.latent_dim, self.schedule = view, latent_dim, schedule
        row_m, column_m = torch.tril_indices(latent_dim, latent_dim, -1) if full else torch.empty(2, 0).long()
        entry_m = torch.arange(len(row_m))
        below_mqq = torch.zeros(len(row_m), latent_dim, latent_dim)
        below_mqq[entry_m, row_m, column_m] = 1
        self.inlet = nn.Linear(view.inputs, width)
        self.trunk = ResidualTrunk(width, layers, 2 * latent_dim + len(row_m))
        self.register_buffer("below_mqq", below_mqq, persistent=False)

    def forward(self, observed: Observed, volume: Volume | None, model: ImageModel) -> Hypotheses:
        x_bh = self.inlet(self.view(observed, volume, model)).relu_()
        q = self.latent_dim
        mean_bq, log_variance_bq, below_bm = self.trunk(x_bh.to(self.dtype)).tensor_split([q, 2 * q], dim=1)
        log_variance_bq = log_variance_bq.clamp(-20, 10)
        factor_bqq = torch.diag_embed((0.5 * log_variance_bq).exp())
        factor_bqq = factor_bqq + torch.einsum("bm,mij->bij", below_bm, self.below_mqq)
        kl_b = 0.5 * (mean_bq**2 + (factor_bqq**2).sum(2) - 1 - log_variance_bq).sum(1)
        return Hypotheses.at_given_poses(observed, mean_bq, factor_bqq, self.schedule.penalty(kl_b, self.epochs))


class Placed(EStep):
    """z of every image as a fit has left it: its mean and covariance."""

    z_nq: torch.Tensor
    factor_nqq: torch.Tensor

    def __init__(self, z_nq: np.ndarray, covariance_nqq: np.ndarray):
        super().__init__()
        value_nq, vector_nqq = np.linalg.eigh(covariance_nqq.astype(float))
        self.register_buffer("z_nq", torch.from_numpy(z_nq).float())
        self.register_buffer("factor_nqq", torch.from_numpy(vector_nqq * np.sqrt(value_nq.clip(0))[:, None]).float())

    def forward(self, observed: Observed, volume: Volume | None, model: ImageModel) -> Hypotheses:
        index_b = torch.as_tensor(observed.index_b, device=self.z_nq.device)
        return Hypotheses.at_given_poses(observed, self.z_nq[index_b], self.factor_nqq[index_b])


class Table(EStep):
    """z of every image in a table; penalty β·½|z|². In training z is a point; `measure` then gives its covariance."""

    factor_nqq: torch.Tensor

    def __init__(self, start_nq: torch.Tensor, beta: float, learning_rate: float):
        super().__init__()
        self.beta = beta
        self.rows = Rows(len(start_nq), start_nq.shape[1], learning_rate)
        self.rows.weight.data = start_nq.float().clone()
        self.register_buffer("factor_nqq", torch.zeros(0), persistent=False)

    def forward(self, observed: Observed, volume: Volume | None, model: ImageModel) -> Hypotheses:
        index_b = torch.as_tensor(observed.index_b, device=self.factor_nqq.device)
        z_bq = self.rows(index_b)
        factor_bqq = self.factor_nqq[index_b] if len(self.factor_nqq) else None
        return Hypotheses.at_given_poses(observed, z_bq, factor_bqq, 0.5 * self.beta * (z_bq**2).sum(1))

    def locate(self, observed: Observed, volume: Volume, model: ImageModel, steps: int = 30) -> None:
        optimizer = RowAdam([self.rows])
        for _ in range(steps):
            found = self(observed, volume, model)
            poses = found.rotation_bh33, found.shift_bh2
            misfit = found.penalty_b.sum() - model.log_likelihood(volume, observed, *poses, found.z_bhq).sum()
            self.rows.weight.grad = None
            misfit.backward(inputs=[self.rows.weight])
            optimizer.step()

    @torch.no_grad()
    def measure(self, observed: Observed, volume: Volume, model: ImageModel, step: float = 0.05) -> None:
        """Laplace's covariance of z: (2 Re JᴴJ + β)⁻¹ with J = ∂X̂/∂z by differences of `step`."""
        if not len(self.factor_nqq):
            self.factor_nqq = torch.diag_embed(torch.zeros_like(self.rows.weight))
        found = self(observed, volume, model)
        poses = found.rotation_bh33, found.shift_bh2
        here_bk = model.predict(volume, observed, *poses, found.z_bhq)[:, 0]
        moved = found.z_bhq + step * torch.eye(found.z_bhq.shape[-1], device=here_bk.device)[:, None, None]
        there_qbk = torch.stack([model.predict(volume, observed, *poses, z_bhq)[:, 0] for z_bhq in moved])
        slope_qbk = torch.view_as_real((there_qbk - here_bk) / step).flatten(2)
        curvature_bqq = 2 * torch.einsum("ibk,jbk->bij", slope_qbk, slope_qbk)
        prior_qq = self.beta * torch.eye(len(slope_qbk), device=here_bk.device)
        covariance_bqq = torch.linalg.inv((curvature_bqq + prior_qq).double())
        index_b = torch.as_tensor(observed.index_b, device=self.factor_nqq.device)
        self.factor_nqq[index_b] = torch.linalg.cholesky(covariance_bqq).float()
