"""Do two fits that share no image show the same states? The resolution of the states, and of what differs in them.

Both fits place the same images. Where image i lies at a_i in one and b_i in the other, the maps at the means of a and b
over the nearest neighbours of a state are half-maps of that state: their FSC is its resolution (0.143), and that of
what is left without either's mean map is the resolution of the difference. A direction is reproducible where a, from
one half of the images' samples, and b, from the other, correlate more than with rows mixed up.
Axes: n images, k states, j components, s shells.
"""

import numpy as np
from sklearn.neighbors import NearestNeighbors

from morphem.evaluation.states import States
from morphem.evaluation.validation import Check, Found, Subject
from morphem.inference.clusters import cluster, count_distinct
from morphem.physics.fsc import GOLD, fsc, resolution

TITLE = "Independent halves show the same states"
REFITS = True
LATENT = True
STATES, NEIGHBOURS = 20, 50
LEAST = 0.2
"""Canonical correlation of a direction that is reproducible."""
COARSE = 4
"""Periods in the box: a difference that is resolved no finer is none."""


def check(subject: Subject) -> Check:
    """Holds where a direction is reproducible and differences are resolved beyond four periods in the box."""
    (one, other), (seen, by_other) = subject.fits, subject.seen_by_both
    split = seen.placed(one.states, (0,)), by_other.placed(other.states, (1,))
    dimensions = reproducible(*split, subject.run.seed)
    states = spread(subject.ensemble.z_nq[subject.common], subject.run.seed)
    state_ks, difference_ks = correlations((one.states, other.states), subject.places, states)
    voxel_A = subject.images.pixel_A * subject.images.box / one.states.volume.box
    state_A, difference_A = (resolutions(fsc_ks, voxel_A) for fsc_ks in (state_ks, difference_ks))
    reach = int(one.states.volume.radius) + 1
    plot = _plot(state_ks[:, :reach], difference_ks[:, :reach], voxel_A * one.states.volume.box)
    found = Found(np.median(state_A), state_A.min(), state_A.max(), "Å, resolution of the states", plot)
    told = f"{dimensions} direction{'' if dimensions == 1 else 's'} of variation"
    finest = " or better" if np.median(difference_A) <= 2.01 * voxel_A and voxel_A > subject.images.pixel_A else ""
    coarse_A, middle_A = voxel_A * one.states.volume.box / COARSE, float(np.median(difference_A))
    if dimensions and middle_A < coarse_A:
        sentence = (
            f"Two fits without a common image agree on {told}; what differs is resolved to {middle_A:.0f} Å{finest}."
        )
        return Check("holds", sentence, found)
    if dimensions:
        return Check("doubtful", f"Two fits without a common image agree on {told}, but not on its maps.", found)
    return Check("fails", "Two fits without a common image show different things: nothing is reproducible.", found)


def reproducible(one_nj: np.ndarray, other_nj: np.ndarray, seed: int) -> int:
    """How many canonical correlations exceed `LEAST` and those of mixed rows."""
    mixed_nj = np.random.default_rng(seed).permutation(other_nj)
    chance = canonical(one_nj, mixed_nj).max(initial=0)
    return int((canonical(one_nj, other_nj) > max(LEAST, 2 * chance)).sum())


def canonical(one_nj: np.ndarray, other_nj: np.ndarray) -> np.ndarray:
    """Canonical correlations of the components of two placements, the largest first."""
    return np.linalg.svd(_white(one_nj[:, 1:]).T @ _white(other_nj[:, 1:]), compute_uv=False)


def _white(value_nj: np.ndarray) -> np.ndarray:
    left_nj, size_j, _ = np.linalg.svd(value_nj - value_nj.mean(0), full_matrices=False)
    return left_nj[:, size_j > 1e-6 * max(size_j.max(initial=0), 1e-30)]


def spread(z_nq: np.ndarray, seed: int) -> list[np.ndarray]:
    """The images around each of some states that are spread over z."""
    centre_k = cluster(z_nq, min(STATES, count_distinct(z_nq)), seed).centre_k
    near = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(z_nq) // 4)).fit(z_nq)
    return list(near.kneighbors(z_nq[centre_k], return_distance=False))


def correlations(
    fits: tuple[States, States], place_hnj: tuple[np.ndarray, np.ndarray], states: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """FSC between both fits of every state, and of its difference from the mean, (k, s)."""
    phi = [np.stack([place_nj[near].mean(0) for near in states]) for place_nj in place_hnj]
    without_mean = [phi_kj * (np.arange(phi_kj.shape[1]) > 0) for phi_kj in phi]
    state, difference = (
        np.stack(
            [fsc(one, other) for one, other in zip(*(f.maps(p) for f, p in zip(fits, phis, strict=True)), strict=True)]
        )
        for phis in (phi, without_mean)
    )
    return state, difference


def resolutions(fsc_ks: np.ndarray, voxel_A: float) -> np.ndarray:
    """Å where each falls below 0.143; Nyquist where it does not."""
    return np.array([resolution(fsc_s, voxel_A, GOLD) or 2 * voxel_A for fsc_s in fsc_ks])


def _plot(state_ks: np.ndarray, difference_ks: np.ndarray, side_A: float) -> dict:
    frequency = (np.arange(state_ks.shape[1]) / side_A).tolist()
    curves = {"states": np.median(state_ks, 0).tolist(), "differences": np.median(difference_ks, 0).tolist()}
    titles = {"x_title": "Spatial frequency (1/Å)", "y_title": "FSC between halves"}
    return {"kind": "curves", "x": frequency, "of": curves, **titles, "level": GOLD}
