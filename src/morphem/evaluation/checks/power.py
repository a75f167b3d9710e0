"""How well can such images show such motion? The method fitted to images that are simulated from its own states.

The truth being known, this tells: the share of the states' variance that images' places recover; how likely two
particles drawn at random are put in order along what tells them apart, (m̂_i − m̂_j)·(m_i − m_j) > 0; the resolution to
expect of a state (FSC 0.5 against its true map).
Axes: n images, j components, k states, s shells.
"""

import numpy as np

from morphem.evaluation.checks.halves import spread
from morphem.evaluation.imaging import ERRORS
from morphem.evaluation.refits import Fit, simulated
from morphem.evaluation.validation import OTHER_START, Check, Found, Subject, explained, some
from morphem.physics.fsc import fsc, resolution

TITLE = "Such images can show such motion"
REFITS = True
LATENT = True
GOOD, FAIR = 0.75, 0.3
"""Pairs in the right order, and share of the variance."""


def check(subject: Subject) -> Check:
    """Holds where three of four pairs are put in order, and 0.3 of the variance is recovered."""
    fit, asked_n, _ = subject.unseen[0]
    fitted_n = some(fit.rows, subject.settings.images, subject.run.seed)
    rng, rows = np.random.default_rng([subject.run.seed, 9]), np.union1d(fitted_n, asked_n)
    true_nj = fit.states.phi_mj[rng.choice(len(fit.states.weight_m), len(rows), p=fit.states.weight_m)]
    images = simulated(fit, rows, true_nj, np.zeros(len(ERRORS)), subject.run.seed)
    again = subject.again("power", np.searchsorted(rows, fitted_n), 3 * OTHER_START, images)
    judge_n = np.searchsorted(rows, asked_n)
    found_nj, true_nj = again.seen(judge_n).placed(again.states), true_nj[judge_n]
    (share, error), ordered = recovered(fit, again, true_nj, found_nj, rng)
    reached_A = float(np.median(_resolutions(subject, fit, again, true_nj, found_nj)))
    told = f"two particles are told apart with probability {ordered:.2f}, states resolved to {reached_A:.0f} Å"
    bars = {"variance recovered": share, "pairs in order": ordered}
    plot = {"kind": "bars", "of": bars, "x_title": "Share"}
    found = Found.mean(share, error, "of the variance recovered", plot)
    if ordered > GOOD and share > FAIR:
        return Check("holds", f"If the states are as fitted, {told}.", found)
    return Check("doubtful", f"Even if the states are as fitted, {told}: single images say little.", found)


def recovered(
    fit: Fit, again: Fit, true_nj: np.ndarray, found_nj: np.ndarray, rng: np.random.Generator
) -> tuple[tuple[float, float], float]:
    """1 − E|m̂ − m|²/E|m − m̄|² and its error, and the share of random pairs in order; maps about their means."""
    one_jv, other_jv = (f.states.volume.map_czyx.flatten(1).double().numpy() for f in (fit, again))
    true_nj, found_nj = _about_mean(true_nj), _about_mean(found_nj)
    own, cross = true_nj @ (one_jv @ one_jv.T), true_nj @ (one_jv @ other_jv.T)
    power_n = (own * true_nj).sum(1)
    left_n = power_n - 2 * (cross * found_nj).sum(1) + (found_nj @ (other_jv @ other_jv.T) * found_nj).sum(1)
    i, j = rng.integers(len(true_nj), size=(2, 5000))
    ordered = ((cross[i] - cross[j]) * (found_nj[i] - found_nj[j])).sum(1)
    differ = ((own[i] - own[j]) * (true_nj[i] - true_nj[j])).sum(1) > 0
    return explained(left_n, power_n), float((ordered[differ] > 0).mean()) if differ.any() else 0.5


def _about_mean(value_nj: np.ndarray) -> np.ndarray:
    return value_nj - value_nj.mean(0)


def _resolutions(subject: Subject, fit: Fit, again: Fit, true_nj: np.ndarray, found_nj: np.ndarray) -> list[float]:
    """Å of spread states: the mean found map of the images nearest to each, against their mean true map."""
    voxel_A = subject.images.pixel_A * subject.images.box / fit.states.volume.box
    near = spread(true_nj[:, 1:] * np.sqrt(fit.states.power_j), subject.run.seed)
    true_k, found_k = (
        f.states.maps(np.stack([place_nj[rows].mean(0) for rows in near]))
        for f, place_nj in ((fit, true_nj), (again, found_nj))
    )
    return [resolution(fsc(a, b), voxel_A, 0.5) or 2 * voxel_A for a, b in zip(true_k, found_k, strict=True)]
