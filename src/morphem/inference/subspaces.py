"""The E-step of linear volumes: which of K classes, and where in its q-dimensional subspace, in closed form.

    y = s·A φ + n,   A_j = CTF/σ · S(R) V_j,   φ = [1, z],   z ~ N(0, 1),   P(class) = π,   E|n_k|² = 1

With ⟨u, v⟩ = 2 Re Σ ū v, the Gram matrix ⟨A_j, A_l⟩ = [[mm, hᵀ], [h, G]] and ⟨A, y⟩ = [ym, p], at contrast s

    Q = 1 + s²G,   g = s·p − s²h,   z̄ = Q⁻¹g,   Cov z = Q⁻¹
    log p(y | class, s) = −½(⟨y, y⟩ − 2s·ym + s²·mm) + ½ gᵀz̄ − ½ log det Q + const

One eigendecomposition of G serves every s. The constant −P log π − Σ log σ² is left out.
Axes: b images, h classes, k samples, j l features, q latent, n contrasts. Derivation: docs/notes/linear.md.
Sources: M. E. Tipping and C. M. Bishop, Neural Comput. 11, 443 (1999); A. Punjani and D. J. Fleet, J. Struct. Biol.
213, 107702 (2021).
"""

from dataclasses import dataclass

import numpy as np
import torch

from morphem.data.dataset import Observed
from morphem.inference.esteps import EStep, Hypotheses
from morphem.models.image_model import ImageModel
from morphem.models.volume import LinearVolume, Volume

NODES = 9
"""Of the quadrature over the contrast."""
SMALLEST_CONTRAST = 0.1


@dataclass(frozen=True, eq=False)
class Overlaps:
    """⟨A, A⟩, ⟨A, y⟩ and ⟨y, y⟩ of every image and class, float64."""

    gram_bhjj: torch.Tensor
    data_bhj: torch.Tensor
    power_b: torch.Tensor

    @classmethod
    def of(cls, data_br: torch.Tensor, feature_brc: torch.Tensor, classes: int) -> "Overlaps":
        """Those of centred whitened images with the slices of a volume's classes · features maps."""
        by_class_bhrj = feature_brc.unflatten(-1, (classes, -1)).movedim(2, 1)
        gram_bhjj = by_class_bhrj.mT @ by_class_bhrj
        data_bhj = (feature_brc.mT @ data_br[..., None])[..., 0].unflatten(1, (classes, -1))
        return cls(2 * gram_bhjj.double(), 2 * data_bhj.double(), 2 * (data_br**2).sum(1).double())

    def tempered(self, exponent: float) -> "Overlaps":
        """Those whose likelihood is raised to a power."""
        return Overlaps(exponent * self.gram_bhjj, exponent * self.data_bhj, exponent * self.power_b)


@dataclass(frozen=True, eq=False)
class AtContrasts:
    """The posterior of z in the eigenbasis of G, as a function of the contrast: G = E diag(d) Eᵀ."""

    overlaps: Overlaps
    basis_bhqq: torch.Tensor
    d_bhq: torch.Tensor
    p_bhq: torch.Tensor
    h_bhq: torch.Tensor

    @classmethod
    def of(cls, overlaps: Overlaps) -> "AtContrasts":
        d_bhq, basis_bhqq = torch.linalg.eigh(overlaps.gram_bhjj[..., 1:, 1:])

        def turned(value_bhq: torch.Tensor) -> torch.Tensor:
            return (basis_bhqq.mT @ value_bhq[..., None])[..., 0]

        return cls(
            overlaps,
            basis_bhqq,
            d_bhq.clamp(min=0),
            turned(overlaps.data_bhj[..., 1:]),
            turned(overlaps.gram_bhjj[..., 1:, 0]),
        )

    def log_likelihood(self, s_bhn: torch.Tensor) -> torch.Tensor:
        """log p(y | class, s), (b, h, n)."""
        ym_bh1, mm_bh1 = self.overlaps.data_bhj[..., :1], self.overlaps.gram_bhjj[..., 0, :1]
        rest_bhn = self.overlaps.power_b[:, None, None] - 2 * s_bhn * ym_bh1 + s_bhn**2 * mm_bh1
        q_bhnq, g_bhnq = self._solved(s_bhn)
        return 0.5 * ((g_bhnq**2 / q_bhnq - q_bhnq.log()).sum(-1) - rest_bhn)

    def moments(self, s_bhn: torch.Tensor, weight_bhn: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean (b, h, j) and covariance (b, h, j, j) of φ = s·[1, z] over weighted contrasts."""
        q_bhnq, g_bhnq = self._solved(s_bhn)
        z_bhnq = (g_bhnq / q_bhnq) @ self.basis_bhqq.mT
        phi_bhnj = s_bhn[..., None] * torch.nn.functional.pad(z_bhnq, (1, 0), value=1.0)
        mean_bhj = (weight_bhn[..., None] * phi_bhnj).sum(2)
        spread_bhnj = phi_bhnj - mean_bhj[:, :, None]
        between_bhjj = (weight_bhn[..., None] * spread_bhnj).mT @ spread_bhnj
        variance_bhq = (weight_bhn[..., None] * s_bhn[..., None] ** 2 / q_bhnq).sum(2)
        within_bhqq = (self.basis_bhqq * variance_bhq[..., None, :]) @ self.basis_bhqq.mT
        return mean_bhj, between_bhjj + torch.nn.functional.pad(within_bhqq, (1, 0, 1, 0))

    def _solved(self, s_bhn: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The diagonal of Q, and g."""
        s_bhn1 = s_bhn[..., None]
        return 1 + s_bhn1**2 * self.d_bhq[..., None, :], s_bhn1 * self.p_bhq[..., None, :] - s_bhn1**2 * self.h_bhq[
            ..., None, :
        ]


class Subspaces(EStep):
    """P(class | image), and z | class as a Gaussian; the contrast is 1, or hidden and integrated out."""

    prior_h: torch.Tensor

    def __init__(self, classes: int, latent_dim: int, contrast_variance: float = 0.0):
        super().__init__()
        self.classes, self.latent_dim, self.contrast_variance = classes, latent_dim, contrast_variance
        self.register_buffer("prior_h", torch.full((classes,), 1 / classes, dtype=torch.float64))
        self.exponent = 1.0
        """The likelihood's; below 1 it lets starts that stall move on."""

    def forward(self, observed: Observed, volume: Volume | None, model: ImageModel) -> Hypotheses:
        assert isinstance(volume, LinearVolume)
        feature_brc = model.features(volume, observed)
        overlaps = Overlaps.of(model.centred(observed), feature_brc, self.classes)
        at = AtContrasts.of(overlaps.tempered(self.exponent))
        s_bhn, logw_bhn = self._contrasts(at)
        joint_bhn = at.log_likelihood(s_bhn) + logw_bhn
        joint_bh = joint_bhn.logsumexp(2)
        phi_bhj, cov_bhjj = at.moments(s_bhn, (joint_bhn - joint_bh[..., None]).exp())
        class_bh = joint_bh + self.prior_h.log()
        evidence_b = class_bh.logsumexp(1)
        b, h = class_bh.shape
        return Hypotheses(
            torch.arange(h, device=class_bh.device).expand(b, h),
            observed.rotation_b33[:, None].expand(b, h, 3, 3),
            observed.shift_b2[:, None].expand(b, h, 2),
            class_bh - evidence_b[:, None],
            phi_bhj,
            cov_bhjj,
            evidence_b,
            torch.zeros_like(evidence_b),
            feature_brc=feature_brc,
        )

    @property
    def contrast(self) -> bool:
        """Whether it is hidden."""
        return self.contrast_variance > 0

    def _contrasts(self, at: AtContrasts) -> tuple[torch.Tensor, torch.Tensor]:
        """Nodes and log weights of ∫ ds p(s): Gauss–Hermite about the mode of p(y, s), scaled by its curvature."""
        one_bh1 = torch.ones_like(at.d_bhq.new_empty(*at.overlaps.data_bhj.shape[:2], 1))
        variance = self.contrast_variance
        if variance == 0:
            return one_bh1, torch.zeros_like(one_bh1)

        def joint(s_bhn: torch.Tensor) -> torch.Tensor:
            return at.log_likelihood(s_bhn) - 0.5 * ((s_bhn - 1) ** 2 / variance + np.log(2 * np.pi * variance))

        width = variance**0.5
        grid_n = torch.linspace(max(SMALLEST_CONTRAST, 1 - 4 * width), 1 + 4 * width, 49, dtype=torch.float64)
        step = float(grid_n[1] - grid_n[0])
        best_bh1 = grid_n[joint(grid_n.to(one_bh1) * one_bh1).argmax(2, keepdim=True).cpu()].to(one_bh1)
        low, here, high = (joint(best_bh1 + turn * step) for turn in (-1, 0, 1))
        bend = (2 * here - low - high).clamp(min=1e-9) / step**2
        mode_bh1 = best_bh1 + ((high - low) / (2 * step * bend)).clamp(-step, step)
        scale_bh1 = bend.rsqrt().clamp(max=width)
        node_n, weight_n = (torch.as_tensor(value).to(one_bh1) for value in np.polynomial.hermite.hermgauss(NODES))
        s_bhn = (mode_bh1 + 2**0.5 * scale_bh1 * node_n).clamp(min=SMALLEST_CONTRAST)
        prior_bhn = joint(s_bhn) - at.log_likelihood(s_bhn)
        return s_bhn, prior_bhn + weight_n.log() + node_n**2 + (2**0.5 * scale_bh1).log()
