"""Images on a plane, counted in cells: a page shows a million of them as fast as a thousand.

Axes: n images, k clusters, s occupied pairs of cell and cluster; y x cells; the last axis of a plane is (right, up).
"""

from dataclasses import dataclass

import numpy as np

from morphem.inference.clusters import Clusters

FEWEST_CELLS, MOST_CELLS = 40, 220
"""Along a side."""
OUTLYING = 0.05
"""Percent of the images at either end that the frame need not hold; it is wider than the rest by a margin."""
MARGIN = 0.08


@dataclass(frozen=True, eq=False)
class Plane:
    """How many images each cell holds, and the cluster that most of them belong to: 0, none."""

    count_yx: np.ndarray
    label_yx: np.ndarray
    low_2: np.ndarray
    high_2: np.ndarray
    centre_k2: np.ndarray
    """Where each map was decoded."""

    @classmethod
    def of(cls, point_n2: np.ndarray, clusters: Clusters) -> "Plane":
        low_2, high_2 = _frame(point_n2)
        side = int(np.clip(1.5 * np.sqrt(len(point_n2)), FEWEST_CELLS, MOST_CELLS))
        cell_n2 = np.floor((point_n2 - low_2) / (high_2 - low_2) * side).astype(int)
        inside_n = np.all((cell_n2 >= 0) & (cell_n2 < side), axis=1)
        cell_n = cell_n2[inside_n] @ [1, side]
        count = np.bincount(cell_n, minlength=side * side).reshape(side, side)
        label = _commonest(cell_n, clusters.label_n[inside_n], side * side).reshape(side, side)
        return cls(count, label, low_2, high_2, point_n2[clusters.centre_k])


def _frame(point_n2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    low_2, high_2 = np.percentile(point_n2, [OUTLYING, 100 - OUTLYING], axis=0)
    margin_2 = np.maximum(MARGIN * (high_2 - low_2), 1e-9)
    return low_2 - margin_2, high_2 + margin_2


def _commonest(cell_n: np.ndarray, label_n: np.ndarray, cells: int) -> np.ndarray:
    """The label that most images of each cell have; 0 where there are none."""
    labels = int(label_n.max(initial=0)) + 1
    pair_s, images_s = np.unique(cell_n * labels + label_n, return_counts=True)
    pair_s = pair_s[np.argsort(images_s, kind="stable")]
    found = np.zeros(cells, int)
    found[pair_s // labels] = pair_s % labels  # the last of a cell, its commonest, stays
    return found
