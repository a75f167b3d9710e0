"""What the latents look like: principal components, clusters, a plane to draw them on.

Axes: n images, q latent, p principal components, k clusters, f frames of a path.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from scipy.cluster.hierarchy import leaves_list, linkage
from sklearn.cluster import KMeans
from sklearn.neighbors import NearestNeighbors

from morphem.errors import InputError

LANDMARKS = 50_000
"""UMAP is fitted to at most so many images; the others are placed between their nearest."""


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


@dataclass(frozen=True, eq=False)
class Clusters:
    """Label n, from 1, is map n, is the map at the latent of image `centre_k[n − 1]`."""

    label_n: np.ndarray
    centre_k: np.ndarray

    @property
    def images_k(self) -> np.ndarray:
        """How many images have each label."""
        return np.bincount(self.label_n, minlength=len(self.centre_k) + 1)[1:]


def cluster(z_nq: np.ndarray, count: int, seed: int) -> Clusters:
    """k-means; every centre moves to its nearest image, and similar centres get neighbouring numbers.

    Errors: InputError where there are fewer distinct latents than clusters.
    """
    distinct = len(np.unique(z_nq, axis=0))
    if not 1 <= count <= distinct:
        raise InputError(
            f"--clusters {count}: {len(z_nq)} images have {distinct} distinct latents; give 1 to {distinct}"
        )
    fitted = KMeans(count, n_init=10, random_state=seed).fit(z_nq)  # pyright: ignore[reportArgumentType]
    place_k = np.argsort(_by_similarity(fitted.cluster_centers_))
    distance_n = ((z_nq - fitted.cluster_centers_[fitted.labels_]) ** 2).sum(1)
    label_n = place_k[fitted.labels_] + 1
    nearest_first_n = np.argsort(distance_n, kind="stable")
    first_k = np.unique(label_n[nearest_first_n], return_index=True)[1]
    return Clusters(label_n, nearest_first_n[first_k])


def _by_similarity(centre_kq: np.ndarray) -> np.ndarray:
    """An order in which neighbours are alike: the leaves of a tree, turned for the shortest way along them."""
    if len(centre_kq) < 3:
        return np.arange(len(centre_kq))
    return leaves_list(linkage(centre_kq, "average", optimal_ordering=True))


def embed(z_nq: np.ndarray, seed: int) -> np.ndarray:
    """UMAP in two dimensions, (n, 2); equal seeds give equal planes.

    Source: L. McInnes et al., arXiv:1802.03426 (2018).
    """
    landmark = np.sort(np.random.default_rng(seed).permutation(len(z_nq))[:LANDMARKS])
    plane_m2 = _umap(z_nq[landmark], seed)
    if len(landmark) == len(z_nq):
        return plane_m2
    plane_n2 = _between(z_nq[landmark], plane_m2, z_nq)
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


def _between(known_mq: np.ndarray, plane_m2: np.ndarray, z_nq: np.ndarray, neighbours: int = 5) -> np.ndarray:
    """Mean of the nearest known places, weighted by 1/distance."""
    near = NearestNeighbors(n_neighbors=neighbours).fit(known_mq)
    distance_nk, index_nk = near.kneighbors(z_nq)
    weight_nk = 1 / np.maximum(distance_nk, 1e-12)
    return np.einsum("nk,nkd->nd", weight_nk / weight_nk.sum(1, keepdims=True), plane_m2[index_nk])
