"""Paths through z from one image to another, and how near to images the frames of a path are.

Axes: n images, m landmarks, f frames, s stations of a path, q latent, k neighbours.
"""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from morphem.errors import InputError
from morphem.inference.nearest import LANDMARKS, landmarks, nearest

NEIGHBOURS = 10
"""Images that a graph joins with each image, and that tell of the density about a place."""
ASKED = 20_000
"""Most images that are asked how far theirs are."""
OFF = 99
"""Percentile of the images' distances to their neighbours beyond which a frame is off the data."""


@dataclass(frozen=True, eq=False)
class Surroundings:
    """Of each frame: the density of images there over that about the median image; whether it is off the data."""

    density_f: np.ndarray
    off_data_f: np.ndarray

    @property
    def facts(self) -> list[dict[str, float]]:
        """A table's columns, a row for each frame."""
        rows = zip(self.density_f, self.off_data_f, strict=True)
        return [{"density": float(density), "off_data": int(off)} for density, off in rows]

    @property
    def warning(self) -> str:
        """Which frames are off the data; empty where none is."""
        if not self.off_data_f.any():
            return ""
        numbers = ", ".join(map(str, np.flatnonzero(self.off_data_f) + 1))
        return f"{self.off_data_f.sum()} of {len(self.off_data_f)} frames lie where there are no images: {numbers}"


def surroundings(z_nq: np.ndarray, z_fq: np.ndarray, seed: int = 0) -> Surroundings:
    """(median_n r_n / r_f)^q with r the distance to the tenth nearest image; off the data is r_f above 99 % of r_n."""
    count = min(NEIGHBOURS, len(z_nq) - 1)
    asked_n = landmarks(len(z_nq), ASKED, seed)
    reach_n = nearest(z_nq, z_nq[asked_n], count + 1)[0][:, -1]  # the nearest image is the image itself
    reach_f = np.maximum(nearest(z_nq, z_fq, count)[0][:, -1], 1e-30)
    density_f = (np.median(reach_n) / reach_f) ** z_nq.shape[1]
    return Surroundings(density_f, reach_f > np.percentile(reach_n, OFF))


def path(z_nq: np.ndarray, ends: tuple[int, int], frames: int, along: str = "direct") -> np.ndarray:
    """z at equal steps from one image to another: on a straight line, or from image to image (`route`), (f, q).

    Errors: InputError where nothing joins the two.
    """
    rows = list(ends) if along == "direct" else route(z_nq, ends, along)
    return evenly(z_nq[rows], frames)


def evenly(z_sq: np.ndarray, frames: int) -> np.ndarray:
    """Frames at equal steps of length along the straight lines between stations."""
    length_s = np.append(0, np.linalg.norm(np.diff(z_sq, axis=0), axis=1).cumsum())
    asked_f = np.linspace(0, length_s[-1], frames)
    return np.stack([np.interp(asked_f, length_s, z_s) for z_s in z_sq.T], axis=1)


def route(z_nq: np.ndarray, ends: tuple[int, int], along: str) -> np.ndarray:
    """Rows of the images on the shortest path over the graph that joins each image with its nearest ten.

    The length of a step is its distance d, or along density ∫ ds/p ≈ ½ d (1/p_a + 1/p_b) with p ∝ r^−q and r the
    distance to the tenth. Of very many images the graph has `LANDMARKS`.
    Source of Dijkstra's algorithm: scipy.sparse.csgraph.
    """
    row_m = np.union1d(landmarks(len(z_nq), LANDMARKS, seed=0), ends)
    start, stop = np.searchsorted(row_m, ends)
    graph = _graph(z_nq[row_m], along == "density")
    before_m = dijkstra(graph, directed=False, indices=start, return_predecessors=True)[1]
    stations = [stop]
    while stations[-1] != start:
        stations.append(before_m[stations[-1]])
        if stations[-1] < 0:
            remedy = "take other images, or --along direct"
            raise InputError(f"--path {ends[0]} {ends[1]}: no chain of near images joins these two; {remedy}")
    return row_m[stations[::-1]]


def _graph(z_mq: np.ndarray, through_density: bool) -> csr_array:
    """Lengths of the steps from every image to its neighbours."""
    count = min(NEIGHBOURS, len(z_mq) - 1)
    distance_mk, near_mk = (found[:, 1:] for found in nearest(z_mq, z_mq, count + 1))
    length_mk = np.maximum(distance_mk, 1e-9 * z_mq.std())  # of equal latents too: a length of 0 would be no step
    if through_density:
        thin_m = (length_mk[:, -1] / np.median(length_mk[:, -1])) ** z_mq.shape[1]
        length_mk = length_mk * (thin_m[:, None] + thin_m[near_mk]) / 2
    from_mk = np.repeat(np.arange(len(z_mq)), count)
    return csr_array((length_mk.ravel(), (from_mk, near_mk.ravel())), shape=(len(z_mq), len(z_mq)))
