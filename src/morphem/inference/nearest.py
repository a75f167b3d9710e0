"""The nearest of some known latents, for as many others as there are.

Axes: n latents asked for, m known ones, q latent, k neighbours.
"""

from collections.abc import Callable

import numpy as np
from scipy.spatial import KDTree
from sklearn.neighbors import NearestNeighbors

LANDMARKS = 50_000
"""What would be slow on all images is done on so many of them."""
CHUNK = 50_000
TREE_AXES = 10
"""Beyond so many dimensions a tree looks at nearly everything, and comparing all pairs is faster."""


def nearest(
    known_mq: np.ndarray, z_nq: np.ndarray, count: int, advance: Callable[[int], object] = lambda done: None
) -> tuple[np.ndarray, np.ndarray]:
    """Distances, ascending, and rows of the `count` nearest known latents of each z: (n, k) and (n, k)."""
    query = _tree(known_mq) if known_mq.shape[1] <= TREE_AXES else _pairs(known_mq)
    distance_nk, row_nk = np.empty((len(z_nq), count)), np.empty((len(z_nq), count), int)
    for start in range(0, len(z_nq), CHUNK):
        chunk = slice(start, start + CHUNK)
        distance_nk[chunk], row_nk[chunk] = query(z_nq[chunk], count)
        advance(len(z_nq[chunk]))
    return distance_nk, row_nk


Query = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]


def _tree(known_mq: np.ndarray) -> Query:
    tree = KDTree(known_mq)
    return lambda z_nq, count: tree.query(z_nq, list(range(1, count + 1)), workers=-1)  # pyright: ignore


def _pairs(known_mq: np.ndarray) -> Query:
    near = NearestNeighbors(algorithm="brute", n_jobs=-1).fit(known_mq)
    return lambda z_nq, count: near.kneighbors(z_nq, count)


def landmarks(count: int, most: int, seed: int) -> np.ndarray:
    """Rows of at most so many of `count` images, ascending, each as likely as any other."""
    return np.sort(np.random.default_rng(seed).permutation(count)[:most])
