"""What the latents look like: principal components, a plane to draw them on.

Axes: n images, q latent, p principal components, f frames of a path,
k neighbours, d values.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from morphem.inference.nearest import LANDMARKS, landmarks, nearest
from morphem.run import progress


@dataclass(frozen=True, eq=False)
class Principal:
    """z = mean + coordinate @ axis; axes by falling variance, the largest entry of each positive."""

    mean_q: np.ndarray
    axis_pq: np.ndarray
    coordinate_np: np.ndarray

    @property
    def share_p(self) -> np.ndarray:
        """Of the latents' variance, what each component explains."""
        variance_p = self.coordinate_np.var(0)
        return variance_p / max(variance_p.sum(), 1e-30)

    def path(self, component: int, frames: int, low: float = 5, high: float = 95) -> np.ndarray:
        """z of equal steps along a component through the mean, between percentiles of the images: (f, q)."""
        start, end = np.percentile(self.coordinate_np[:, component], [low, high])
        return self.mean_q + np.linspace(start, end, frames)[:, None] * self.axis_pq[component]

    def reliability(self, uncertainty_nqq: np.ndarray) -> np.ndarray:
        """var z̄ / (var z̄ + mean posterior variance) per component: 1, sure of every image; 0, of none."""
        posterior_p = np.einsum("pi,ij,pj->p", self.axis_pq, uncertainty_nqq.mean(0), self.axis_pq)
        variance_p = self.coordinate_np.var(0)
        return variance_p / np.maximum(variance_p + posterior_p, 1e-30)


def principal_components(z_nq: np.ndarray) -> Principal:
    """Eigenvectors of the covariance of z."""
    mean_q = z_nq.mean(0)
    centred_nq = (z_nq - mean_q).astype(np.float64)
    axis_pq = np.linalg.eigh(centred_nq.T @ centred_nq)[1].T[::-1]
    largest = np.take_along_axis(axis_pq, np.abs(axis_pq).argmax(1)[:, None], axis=1)
    axis_pq = axis_pq * np.where(largest < 0, -1, 1)
    return Principal(mean_q, axis_pq, centred_nq @ axis_pq.T)


def embed(z_nq: np.ndarray, seed: int) -> np.ndarray:
    """UMAP in two dimensions, (n, 2); equal seeds give equal planes.

    It is fitted to at most `LANDMARKS` images; the others are placed between their nearest.
    Source: L. McInnes et al., arXiv:1802.03426 (2018).
    """
    landmark = landmarks(len(z_nq), LANDMARKS, seed)
    with progress(len(z_nq), "Embedding") as bar:
        plane_m2 = _umap(z_nq[landmark], seed)
        if len(landmark) == len(z_nq):
            return plane_m2
        plane_n2 = between(z_nq[landmark], plane_m2, z_nq, bar.advance)
    plane_n2[landmark] = plane_m2
    return plane_n2


def _umap(z_nq: np.ndarray, seed: int) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Tensorflow not installed", ImportWarning)
        from umap import UMAP
    neighbours = min(15, len(z_nq) - 1)
    start = "spectral" if len(z_nq) > 4 * neighbours else "random"
    plane_n2 = UMAP(n_neighbors=neighbours, init=start, random_state=seed, n_jobs=1).fit_transform(z_nq)
    return np.asarray(plane_n2)


def between(
    known_mq: np.ndarray, value_md: np.ndarray, z_nq: np.ndarray, advance: Callable[[int], object] = lambda done: None
) -> np.ndarray:
    """Mean of the values at the five nearest known latents, weighted by 1/distance: (n, d)."""
    distance_nk, row_nk = nearest(known_mq, z_nq, min(5, len(known_mq)), advance)
    weight_nk = 1 / np.maximum(distance_nk, 1e-12)
    return np.einsum("nk,nkd->nd", weight_nk / weight_nk.sum(1, keepdims=True), value_md[row_nk])
