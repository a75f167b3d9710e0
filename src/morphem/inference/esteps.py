"""E-steps: guess what is hidden in each image.

Axes: b images, h hypotheses, j features φ = s·[1, z], q latent.
"""

import abc
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from morphem.data.dataset import Dataset, Observed
from morphem.models.image_model import ImageModel
from morphem.models.volume import Volume


@dataclass(frozen=True, eq=False)
class Hypotheses:
    """What an E-step believes of each image: weighted guesses of class, pose, shift, and a Gaussian over φ = s·[1, z].

    The covariance of φ is central: φφᵀ's mean is `phi_cov + φφᵀ`, and no small variance is lost to a difference.
    """

    class_bh: torch.Tensor
    rotation_bh33: torch.Tensor
    shift_bh2: torch.Tensor
    logw_bh: torch.Tensor
    phi_bhj: torch.Tensor
    phi_cov_bhjj: torch.Tensor
    evidence_b: torch.Tensor
    """log p(image); what an E-step does not compute is 0."""
    penalty_b: torch.Tensor
    """What the M-step adds to −log p(image | z), such as β·KL."""
    z_factor_bqq: torch.Tensor | None = None
    """L with L Lᵀ the covariance of z, of one hypothesis an image: what a draw needs, and a covariance has lost."""
    feature_brc: torch.Tensor | None = None
    """The slices of a linear volume's maps that the E-step has read (`ImageModel.features`), at the given poses."""

    @property
    def z_bhq(self) -> torch.Tensor:
        """The latent's mean."""
        return self.phi_bhj[..., 1:] / self.phi_bhj[..., :1]

    @property
    def z_cov_bhqq(self) -> torch.Tensor:
        """The latent's covariance (for a contrast s that is known)."""
        return self.phi_cov_bhjj[..., 1:, 1:] / self.phi_bhj[..., :1, None] ** 2

    @property
    def phiphi_bhjj(self) -> torch.Tensor:
        """E[φφᵀ]."""
        return self.phi_cov_bhjj + self.phi_bhj[..., :, None] * self.phi_bhj[..., None, :]

    @classmethod
    def at_given_poses(
        cls,
        observed: Observed,
        z_bq: torch.Tensor | None = None,
        z_factor_bqq: torch.Tensor | None = None,
        penalty_b: torch.Tensor | None = None,
    ) -> "Hypotheses":
        """One hypothesis an image: the table's pose, s = 1, and z ~ N(z, L Lᵀ); without L it is certain."""
        batch, zero_b = len(observed), observed.sample_bk.real.new_zeros(len(observed))
        z_bq = zero_b.new_zeros(batch, 0) if z_bq is None else z_bq
        factor_bqq = torch.diag_embed(torch.zeros_like(z_bq)) if z_factor_bqq is None else z_factor_bqq
        phi_bj = torch.cat([torch.ones_like(zero_b)[:, None], z_bq], dim=1)
        return cls(
            torch.zeros(batch, 1, dtype=torch.long, device=zero_b.device),
            observed.rotation_b33[:, None],
            observed.shift_b2[:, None],
            zero_b[:, None],
            phi_bj[:, None],
            torch.nn.functional.pad(factor_bqq @ factor_bqq.mT, (1, 0, 1, 0))[:, None],
            zero_b,
            zero_b if penalty_b is None else penalty_b,
            z_factor_bqq,
        )


class EStep(nn.Module, abc.ABC):
    """`estep(observed, volume, model) -> Hypotheses`; parameters and state as any torch module has them."""

    dtype: torch.dtype = torch.float32
    """Of network products, where there are any."""
    epochs: float = 0.0
    """How many epochs training has been through, parts of one too: what schedules follow."""

    @abc.abstractmethod
    def forward(self, observed: Observed, volume: Volume | None, model: ImageModel) -> Hypotheses: ...

    def arrive(self, epochs: float) -> None:
        """Training has come so far."""
        for part in self.modules():
            if isinstance(part, EStep):
                part.epochs = epochs

    def compute_in(self, dtype: torch.dtype) -> None:
        """The dtype of network products, here and in what is wrapped."""
        for part in self.modules():
            if isinstance(part, EStep):
                part.dtype = dtype

    def locate(self, observed: Observed, volume: Volume, model: ImageModel, steps: int = 30) -> None:
        """Find, with the volume held, what training keeps of each image, for images that it has not been through."""

    def summary(self, row_n: np.ndarray) -> str:
        """What the user should know of the E-step after training on these images, or nothing."""
        return ""

    def refined(self, dataset: Dataset) -> Dataset:
        """The dataset at the poses that the E-step has found; those given, where it looks for none."""
        return dataset


class Known(EStep):
    """Nothing is hidden: the table's poses, one map."""

    def forward(self, observed: Observed, volume: Volume | None, model: ImageModel) -> Hypotheses:
        return Hypotheses.at_given_poses(observed)
