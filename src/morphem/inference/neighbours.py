"""Which images tell of a state z*, and how much: kernels in latent space at a ladder of bandwidths.

    posterior:     w_i(h) = N(z*; z_i, Σ_i + h²M⁻¹)         the probability that image i shows z*, blurred by h
    epanechnikov:  w_i(h) = max(0, 1 − d_i/h²),  d_i = (z_i − z*)ᵀ M (z_i − z*)

Σ_i is the posterior covariance of z_i and M = mean Σ_i⁻¹, so that h counts in posterior deviations. Without covariances
Σ_i = 0 and M = 1/(mean variance of z) in all directions: no direction is trusted more than it is long.
With M^½ Σ_i M^½ = E diag(D) Eᵀ and u = Eᵀ M^½ (z* − z_i):  −2 log w_i(h) = Σ u²/(D + h²) + log(D + h²).
Axes: n images, q latent, l bandwidths, r rings.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

KERNELS = ("posterior", "epanechnikov")
NARROWEST = 300
"""Effective number of images at the narrowest bandwidth: those of both half-sets."""
STEP = 1.8
"""Each bandwidth has about so many times as many images as the one before, the last one all."""
MOST_BANDWIDTHS = 10
SUREST = 0.01
"""No image's place is known better than this share of the latents' deviation: a covariance may be singular."""
RINGS = 12
"""Images are summed in so many groups of falling weight; each bandwidth weighs the groups."""


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The images about one state: at bandwidth l an image of ring r has the weight `weight_lr[l, r]`, at most 1."""

    ring_n: np.ndarray
    weight_lr: np.ndarray
    bandwidth_l: np.ndarray
    """h, ascending; the last is infinite."""
    images_l: np.ndarray
    """(Σw)²/Σw² of each bandwidth: how many images of weight 1 would leave as much noise."""


@dataclass(frozen=True, eq=False)
class Latents:
    """Where every image lies and how surely; the coordinates' metric."""

    z_nq: np.ndarray
    covariance_nqq: np.ndarray | None = None
    kernel: Literal["posterior", "epanechnikov"] = "posterior"

    def __len__(self) -> int:
        return len(self.z_nq)

    @cached_property
    def _variance(self) -> float:
        """Of z, the mean over its directions."""
        return max(float(self.z_nq.var(0, dtype=float).mean()), 1e-30)

    @cached_property
    def _sure_nqq(self) -> np.ndarray:
        """Σ_i, none narrower than `SUREST` of the latents' own deviation."""
        assert self.covariance_nqq is not None
        return self.covariance_nqq.astype(float) + SUREST**2 * self._variance * np.eye(self.z_nq.shape[1])

    @cached_property
    def root_qq(self) -> np.ndarray:
        """M^½, symmetric."""
        if self.covariance_nqq is None:
            return np.eye(self.z_nq.shape[1]) / np.sqrt(self._variance)
        value_q, vector_qq = np.linalg.eigh(np.linalg.inv(self._sure_nqq).mean(0))
        return (vector_qq * np.sqrt(value_q)) @ vector_qq.T

    @cached_property
    def _eigen(self) -> tuple[np.ndarray, np.ndarray]:
        """D (n, q) and M^½ E (n, q, q)."""
        if self.covariance_nqq is None or self.kernel == "epanechnikov":
            return np.zeros((1, self.z_nq.shape[1])), self.root_qq[None]
        scaled_nqq = self.root_qq @ self._sure_nqq @ self.root_qq
        value_nq, vector_nqq = np.linalg.eigh(scaled_nqq)
        return np.maximum(value_nq, 0), self.root_qq @ vector_nqq

    @cached_property
    def rings(self) -> np.ndarray:
        """The rank at which each ring of a state starts, from 0; equal factors apart."""
        first = max(1, min(NARROWEST, len(self) // 4) // 3)
        return np.unique(np.append(0, np.geomspace(first, len(self), RINGS)[:-1].astype(int)))

    def offset(self, z_q: np.ndarray) -> np.ndarray:
        """u² of every image, (n, q)."""
        return ((z_q - self.z_nq)[:, None] @ self._eigen[1])[:, 0] ** 2

    def weights(self, offset_nq: np.ndarray, h: float) -> np.ndarray:
        """w_n(h), the largest 1; all are 1 at an infinite bandwidth."""
        if np.isinf(h):
            return np.ones(len(offset_nq))
        if self.kernel == "epanechnikov":
            return np.maximum(0, 1 - offset_nq.sum(1) / h**2)
        variance_nq = self._eigen[0] + h**2
        log_n = -0.5 * (offset_nq / variance_nq + np.log(variance_nq)).sum(1)
        return np.exp(log_n - log_n.max())

    def near(self, z_q: np.ndarray) -> Neighbours:
        """The images about one state, at bandwidths from about `NARROWEST` images to all.

        Images are ranked by the mean of log w over the ladder; a ring's weight is the mean of its images'.
        """
        offset_nq = self.offset(np.asarray(z_q, float))
        bandwidth_l = self._ladder(offset_nq)
        weight_ln = np.stack([self.weights(offset_nq, h) for h in bandwidth_l])
        cost_n = -np.log(weight_ln + 1e-30).mean(0)
        order_n = np.argsort(cost_n, kind="stable")
        ring_n = np.empty(len(self), int)
        ring_n[order_n] = np.searchsorted(self._at_gaps(cost_n[order_n]), np.arange(len(self)), side="right") - 1
        count_r = np.bincount(ring_n)
        weight_lr = np.stack([np.bincount(ring_n, weight_n) for weight_n in weight_ln]) / count_r
        images_l = (weight_lr @ count_r) ** 2 / (weight_lr**2 @ count_r)
        return Neighbours(ring_n, weight_lr, bandwidth_l, images_l)

    def _at_gaps(self, cost_n: np.ndarray) -> np.ndarray:
        """The rings' starts, each moved to the widest gap of the sorted costs halfway to its neighbours: where images
        fall into groups, no ring has images of two.
        """
        start_r, gap_n = self.rings, np.diff(cost_n, prepend=cost_n[0])
        limit_r = np.append((start_r[:-1] + start_r[1:] + 1) // 2, len(self))
        moved = [low + int(gap_n[low:high].argmax()) for low, high in zip(limit_r[:-1], limit_r[1:], strict=True)]
        return np.array([0, *moved])

    def _ladder(self, offset_nq: np.ndarray) -> np.ndarray:
        """Bandwidths whose effective numbers of images grow by equal factors, and infinity."""
        scale = max(float(np.sqrt(offset_nq.sum(1).mean())), 1e-12)
        h_g = scale * np.geomspace(1e-3, 30, 48)
        images_g = np.maximum.accumulate([_effective(self.weights(offset_nq, h)) for h in h_g])
        fewest = max(min(NARROWEST, len(self) / 4), images_g[0])
        steps = int(np.clip(np.ceil(np.log(len(self) / fewest) / np.log(STEP)), 1, MOST_BANDWIDTHS - 1))
        wanted_l = np.geomspace(fewest, len(self), steps + 1)[:-1]
        return np.append(np.exp(np.interp(np.log(wanted_l), np.log(images_g), np.log(h_g))), np.inf)


def _effective(weight_n: np.ndarray) -> float:
    return float(weight_n.sum() ** 2 / max((weight_n**2).sum(), 1e-300))
