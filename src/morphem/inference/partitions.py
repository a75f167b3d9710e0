"""Three ways to part latents into clusters: each gives the clusters' centres and the cluster of every image, from 0.

Axes: n images, m landmarks, q latent, k clusters.
"""

import numpy as np
from scipy.spatial.distance import pdist, squareform
from sklearn.cluster import KMeans
from sklearn.mixture import GaussianMixture

from morphem.inference.nearest import LANDMARKS, landmarks, nearest

PEAK_LANDMARKS = 5_000
"""Density peaks compare all pairs of so many images."""
WITHIN = 0.02
"""Share of all pairs that are closer than the width of the kernel of a density."""

Partition = tuple[np.ndarray, np.ndarray]


def kmeans(z_nq: np.ndarray, count: int, seed: int, start_kq: np.ndarray | None = None) -> Partition:
    """The best of ten starts, or what `start_kq` leads to. Of very many images the ten see a part, all the best."""
    if start_kq is None and len(z_nq) > LANDMARKS:
        start_kq = kmeans(z_nq[landmarks(len(z_nq), LANDMARKS, seed)], count, seed)[0]
    again = {"n_init": 10} if start_kq is None else {"init": start_kq, "n_init": 1}
    fitted = KMeans(count, random_state=seed, **again).fit(z_nq)  # pyright: ignore[reportArgumentType]
    return fitted.cluster_centers_, np.asarray(fitted.labels_)


def gaussians(z_nq: np.ndarray, count: int, seed: int) -> Partition:
    """The best mixture of three starts, covariances of their own; an image goes to the likeliest, some may get none.

    Starts are points far from each other: those of k-means cut long clusters, and EM stays there.
    """
    least = 1e-6 * max(float(z_nq.var()), 1e-30)
    starts = {"n_init": 3, "init_params": "k-means++", "random_state": seed}
    mixture = GaussianMixture(count, max_iter=500, reg_covar=least, **starts)
    mixture.fit(z_nq[landmarks(len(z_nq), LANDMARKS, seed)].astype(np.float64))
    present_k, group_n = np.unique(mixture.predict(z_nq.astype(np.float64)), return_inverse=True)
    return np.asarray(mixture.means_)[present_k], group_n


def density_peaks(z_nq: np.ndarray, count: int, seed: int) -> Partition:
    """Centres are the images of greatest ρ·δ; all others go where the nearest image of higher density goes.

    ρ_m = Σ_l exp(−d_ml²/w²) with w such that `WITHIN` of all pairs are closer, δ_m the distance to the nearest image of
    higher ρ. Images that are no landmarks go with the nearest landmark.
    Source: A. Rodriguez, A. Laio, Science 344, 1492 (2014).
    """
    z_mq = z_nq[landmarks(len(z_nq), PEAK_LANDMARKS, seed)].astype(np.float64)
    distance_mm = squareform(pdist(z_mq))
    width = max(float(np.quantile(distance_mm, WITHIN)), 1e-30)
    density_m = np.exp(-((distance_mm / width) ** 2)).sum(1)
    falling_m = np.argsort(-density_m, kind="stable")
    above_m, delta_m = _higher(distance_mm, falling_m)
    peak_k = np.argsort(-density_m * delta_m, kind="stable")[:count]
    group_m = np.empty(len(z_mq), int)
    group_m[peak_k] = np.arange(count)
    for m in falling_m[~np.isin(falling_m, peak_k)]:
        group_m[m] = group_m[above_m[m]]
    return z_mq[peak_k], group_m[nearest(z_mq, z_nq, 1)[1][:, 0]]


def _higher(distance_mm: np.ndarray, falling_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest image of higher density and its distance; the densest has itself, and the greatest distance."""
    above_m, delta_m = falling_m[[0] * len(falling_m)], np.full(len(falling_m), distance_mm[falling_m[0]].max())
    for place, m in enumerate(falling_m[1:], start=1):
        higher = falling_m[:place]
        above_m[m] = higher[distance_mm[m, higher].argmin()]
        delta_m[m] = distance_mm[m, above_m[m]]
    return above_m, delta_m


PARTITIONS = {"kmeans": kmeans, "gaussians": gaussians, "density": density_peaks}
