"""How many molecules are where: densities and populations corrected for how surely each image's z is known.

Under the run's prior N(0, I) image n has the posterior N(z̄, C). Its likelihood is posterior over prior,

    p(y_n | z) ∝ N(z; z̄_n, C_n) / N(z; 0, I) ∝ exp(zᵀh − ½ zᵀPz),   P = C⁻¹ − I,  h = C⁻¹ z̄,

and the shares p_g of places z_g that make Σ_n log Σ_g p_g p(y_n | z_g) greatest are found by EM
(docs/notes/densities.md).
Axes: n images, g places, d coordinates, q latent, k quantities, r replicates.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from morphem.analysis.latent import Principal
from morphem.inference.nearest import landmarks
from morphem.run import tracked

IMAGES = 10_000
"""Densities and intervals are those of at most so many images, drawn at random."""
REPLICATES = 100
STEPS = 200
SUREST = 0.05
"""No image is placed more finely than this share of the latents' deviation."""


@dataclass(frozen=True, eq=False)
class Blurred:
    """Images with Gaussian posteriors N(mean_n, cov_n) under the prior N(prior, I)."""

    mean_nd: np.ndarray
    cov_ndd: np.ndarray
    prior_d: np.ndarray

    @classmethod
    def of(cls, z_nq: np.ndarray, cov_nqq: np.ndarray, seed: int) -> "Blurred":
        """A random part of a run's images."""
        row_n = landmarks(len(z_nq), IMAGES, seed)
        return cls(z_nq[row_n].astype(float), cov_nqq[row_n].astype(float), np.zeros(z_nq.shape[1]))

    def along(self, principal: Principal, count: int) -> "Blurred":
        """On the first principal components. The others are integrated out under their prior."""
        axis_dq = principal.axis_pq[:count]
        mean_nd, prior_d = ((x - principal.mean_q) @ axis_dq.T for x in (self.mean_nd, self.prior_d))
        return Blurred(mean_nd, np.einsum("di,nij,ej->nde", axis_dq, self.cov_ndd, axis_dq), prior_d)

    def likelihood(self, place_gd: np.ndarray) -> np.ndarray:
        """p(y_n | place g), each image's largest 1: (n, g)."""
        least = (SUREST * self.mean_nd.std()) ** 2
        value_nd, vector_ndd = np.linalg.eigh(self.cov_ndd)
        inverse_ndd = (vector_ndd / np.clip(value_nd, least, 1)[:, None]) @ vector_ndd.swapaxes(1, 2)
        x_gd = place_gd - self.prior_d
        h_nd = np.einsum("nde,ne->nd", inverse_ndd, self.mean_nd - self.prior_d)
        precision_nd2 = (inverse_ndd - np.eye(len(self.prior_d))).reshape(len(h_nd), -1)
        square_gd2 = np.einsum("gd,ge->gde", x_gd, x_gd).reshape(len(x_gd), -1)
        log_ng = h_nd @ x_gd.T - 0.5 * precision_nd2 @ square_gd2.T
        return np.exp(log_ng - log_ng.max(1, keepdims=True)).astype(np.float32)

    def drawn(self, seed: int) -> np.ndarray:
        """A place from each image's posterior: together they reach as far as the truth does, (n, d)."""
        noise_nd = np.random.default_rng(seed).standard_normal(self.mean_nd.shape)
        value_nd, vector_ndd = np.linalg.eigh(self.cov_ndd)
        return self.mean_nd + np.einsum("nde,ne->nd", vector_ndd, np.sqrt(np.maximum(value_nd, 0)) * noise_nd)


def shares(
    likelihood_ng: np.ndarray, count_rn: np.ndarray, smooth: Callable[[np.ndarray], np.ndarray] = lambda p_rg: p_rg
) -> np.ndarray:
    """p_g ← smooth( Σ_n c_n p_g L_ng / Σ_g' p_g' L_ng' / Σ_n c_n ) from equal shares, `STEPS` times; a row each of c.

    The likelihood never falls where nothing is smoothed. Sources: W. H. Richardson, JOSA 62, 55 (1972); N. Laird,
    JASA 73, 805 (1978); with smoothing B. W. Silverman et al., JRSS B 52, 271 (1990).
    """
    count_rn = (count_rn / count_rn.sum(1, keepdims=True)).astype(np.float32)
    share_rg = np.full((len(count_rn), likelihood_ng.shape[1]), 1 / likelihood_ng.shape[1], np.float32)
    for _ in tracked(range(STEPS), STEPS, "Correcting densities", "steps"):
        seen_rn = np.maximum(share_rg @ likelihood_ng.T, 1e-30)
        share_rg = smooth(share_rg * ((count_rn / seen_rn) @ likelihood_ng))
    return share_rg


def resampled(images: int, seed: int) -> np.ndarray:
    """How often each image counts: once, and in every bootstrap replicate, (1 + r, n)."""
    drawn_rn = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), REPLICATES)
    return np.concatenate([np.ones((1, images), int), drawn_rn])


def interval(value_rk: np.ndarray) -> dict[str, np.ndarray]:
    """The estimate and the 95 % interval of its replicates, as columns."""
    low_k, high_k = np.percentile(value_rk[1:], [2.5, 97.5], axis=0)
    return {"corrected": value_rk[0], "low": low_k, "high": high_k}
