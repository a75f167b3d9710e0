"""Fitted latents against true ones.

Axes: n images, q latent, t true coordinates, m a block of images, k neighbourhood sizes.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score
from sklearn.neighbors import NearestNeighbors

NEIGHBOURHOODS = range(200, 4001, 200)
EVERY = 5
"""Neighbourhoods are compared among every fifth image; the five offsets give the spread."""
BLOCK = 512


@dataclass(frozen=True, eq=False)
class Similarity:
    """100·|N_true ∩ N_fitted|/k, averaged over images, per size k of the neighbourhood; spread over the offsets."""

    size_k: np.ndarray
    percent_k: np.ndarray
    spread_k: np.ndarray


def neighbourhood_similarity(
    true_nt: np.ndarray, z_nq: np.ndarray, sizes=NEIGHBOURHOODS, seed: int = 0
) -> Similarity | None:
    """How many of the k + 1 nearest images, itself included, are the same in true and fitted coordinates.

    Equal true coordinates are told apart by 1e-3 of noise. Chance is 500·k/n; k is cut at the images there are, and
    None says that there are too few for the smallest. Source: Jeon et al., CryoBench (2024), and its public code.
    """
    size_k = np.array([k for k in sizes if k < len(z_nq) // EVERY])
    if not len(size_k):
        return None
    scale = max(float(true_nt.std()), 1e-12)
    true_nt = true_nt + 1e-3 * scale * np.random.default_rng(seed).standard_normal(true_nt.shape)
    percent_ok = [_shared(true_nt[start::EVERY], z_nq[start::EVERY], size_k) for start in range(EVERY)]
    return Similarity(size_k, np.mean(percent_ok, 0), np.std(percent_ok, 0))


def _shared(true_nt: np.ndarray, z_nq: np.ndarray, size_k: np.ndarray) -> np.ndarray:
    """An image is in both neighbourhoods of size k where the larger of its two ranks is at most k."""
    found_k = np.zeros(len(size_k))
    for start in range(0, len(z_nq), BLOCK):
        block = slice(start, start + BLOCK)
        rank_mn = np.maximum(_ranks(true_nt[block], true_nt), _ranks(z_nq[block], z_nq))
        found_k += np.searchsorted(np.sort(rank_mn, axis=None), size_k, side="right")
    return 100 * found_k / (size_k * len(z_nq))


def _ranks(from_mq: np.ndarray, to_nq: np.ndarray) -> np.ndarray:
    """Rank of every point by distance, (m, n); the point itself, or one that lies on it, has rank 0."""
    order_mn = np.argsort(cdist(from_mq, to_nq), axis=1, kind="stable")
    rank_mn = np.empty_like(order_mn)
    np.put_along_axis(rank_mn, order_mn, np.arange(len(to_nq))[None], axis=1)
    return rank_mn


def information_imbalance(from_nq: np.ndarray, to_nq: np.ndarray, neighbours: int = 30) -> float:
    """Δ = (2/n) · mean rank in `to` of the nearest neighbours in `from`: 1 without information, (k + 1)/n with all.

    Columns of `to` are put on one scale. Source: A. Glielmo et al., PNAS Nexus 1, pgac039 (2022).
    """
    scale_q, ranks = np.maximum(to_nq.std(0), 1e-12), []
    for start in range(0, len(from_nq), BLOCK):
        block = slice(start, start + BLOCK)
        near_mk = np.argsort(cdist(from_nq[block], from_nq), axis=1, kind="stable")[:, 1 : neighbours + 1]
        ranks.append(np.take_along_axis(_ranks(to_nq[block] / scale_q, to_nq / scale_q), near_mk, axis=1))
    return float(2 * np.concatenate(ranks).mean() / len(from_nq))


def clusters(z_nq: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Labels of k-means on z; fewer where there are fewer distinct z."""
    count = min(count, len(np.unique(z_nq, axis=0)))
    return KMeans(count, n_init=10, random_state=seed).fit_predict(z_nq)  # pyright: ignore[reportArgumentType]


def class_agreement(true_n: np.ndarray, found_n: np.ndarray) -> tuple[float, float]:
    """Adjusted Rand index and adjusted mutual information (arithmetic mean) of labels."""
    return float(adjusted_rand_score(true_n, found_n)), float(adjusted_mutual_info_score(true_n, found_n))


def angle_error(angle_deg_n: np.ndarray, z_nq: np.ndarray, neighbours: int = 50, seed: int = 0) -> np.ndarray:
    """Per image, |predicted − true| in degrees on the circle: the mean unit vector of its nearest neighbours in z.

    Half the images, drawn at random, predict the other half and the other way round. 90° on average is chance.
    """
    unit_n2 = np.stack([np.cos(np.deg2rad(angle_deg_n)), np.sin(np.deg2rad(angle_deg_n))], axis=1)
    order_n = np.random.default_rng(seed).permutation(len(z_nq))
    halves = np.array_split(order_n, 2)
    predicted_deg_n = np.empty(len(z_nq))
    for known, asked in (halves, halves[::-1]):
        near = NearestNeighbors(n_neighbors=min(neighbours, len(known))).fit(z_nq[known])
        mean_n2 = unit_n2[known[near.kneighbors(z_nq[asked], return_distance=False)]].mean(1)
        predicted_deg_n[asked] = np.rad2deg(np.arctan2(mean_n2[:, 1], mean_n2[:, 0]))
    return np.abs((predicted_deg_n - angle_deg_n + 180) % 360 - 180)
