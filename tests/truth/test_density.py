"""Populations and free energies of molecules whose places are known, from posteriors that blur them."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from morphem.analysis import density
from morphem.analysis.density import Blurred, shares
from morphem.analysis.free_energy import free_energy, populations, smoothed
from morphem.analysis.latent import principal_components
from morphem.inference.clusters import cluster


def posteriors(true_nq: np.ndarray, variance: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """z̄ and C under the prior N(0, I) of images that see z with noise of variance C/(1 − C)."""
    noise_nq = np.random.default_rng(seed).standard_normal(true_nq.shape)
    mean_nq = (1 - variance) * (true_nq + np.sqrt(variance / (1 - variance)) * noise_nq)
    return mean_nq, np.tile(variance * np.eye(true_nq.shape[1]), (len(true_nq), 1, 1))


def two_peaks(images: int, dimensions: int, seed: int) -> np.ndarray:
    """Of every five molecules one is at +1 and four at −1 of the first coordinate."""
    rng = np.random.default_rng(seed)
    true_nq = np.concatenate([np.zeros((images, 1)), 0.5 * rng.standard_normal((images, dimensions - 1))], axis=1)
    true_nq[:, 0] = np.where(np.arange(images) % 5, -1, 1) + 0.1 * rng.standard_normal(images)
    return true_nq


@pytest.mark.parametrize("dimensions", [1, 3])
def test_corrected_populations_hold_the_truth_within_their_interval_where_labels_do_not(dimensions):
    z_nq, cov_nqq = posteriors(two_peaks(2000, dimensions, seed=1), 0.3, seed=2)
    clusters = cluster(z_nq, 2, seed=0)
    rare = int(z_nq[clusters.centre_k, 0].argmax())
    row = populations(z_nq, clusters, Blurred.of(z_nq, cov_nqq, 0), seed=0).iloc[rare]
    assert row["low"] <= 0.2 <= row["high"] and row["high"] - row["low"] < 0.06
    assert row["share"] == (clusters.label_n == rare + 1).mean() > row["high"]


def test_a_likelihood_is_the_posterior_over_the_prior():
    rng = np.random.default_rng(0)
    factor_nqq = rng.standard_normal((5, 2, 2)) * 0.4
    cov_nqq = factor_nqq @ factor_nqq.swapaxes(1, 2) + 0.1 * np.eye(2)
    cov_nqq /= 1.1 * np.linalg.eigvalsh(cov_nqq).max()
    blurred = Blurred(rng.standard_normal((5, 2)), cov_nqq, np.array([0.3, -0.2]))
    place_gd = rng.standard_normal((7, 2))
    prior_g = multivariate_normal(blurred.prior_d, np.eye(2)).pdf(place_gd)
    for mean_d, cov_dd, found_g in zip(blurred.mean_nd, cov_nqq, blurred.likelihood(place_gd), strict=True):
        expected_g = multivariate_normal(mean_d, cov_dd).pdf(place_gd) / prior_g
        assert found_g == pytest.approx(expected_g / expected_g.max(), rel=1e-4)


def test_a_projection_has_the_prior_and_covariance_of_its_coordinates():
    z_nq, cov_nqq = posteriors(two_peaks(500, 3, seed=0) + [2, 0, 1], 0.2, seed=0)
    principal = principal_components(z_nq)
    line = Blurred.of(z_nq, cov_nqq, 0).along(principal, 2)
    assert line.mean_nd == pytest.approx(principal.coordinate_np[:, :2])
    assert line.prior_d @ principal.axis_pq[:2] == pytest.approx(
        -principal.mean_q @ principal.axis_pq[:2].T @ principal.axis_pq[:2]
    )
    assert line.cov_ndd[0] == pytest.approx(0.2 * np.eye(2))


def test_the_likelihood_never_falls(monkeypatch):
    z_nq, cov_nqq = posteriors(two_peaks(400, 1, seed=0), 0.3, seed=0)
    likelihood_ng = Blurred.of(z_nq, cov_nqq, 0).likelihood(np.linspace(-3, 3, 40)[:, None])
    found = []
    for steps in range(1, 30):
        monkeypatch.setattr(density, "STEPS", steps)
        share_g = shares(likelihood_ng, np.ones((1, 400)))[0]
        assert share_g.sum() == pytest.approx(1, abs=1e-5)
        found.append(np.log(likelihood_ng.astype(float) @ share_g).sum())
    assert np.all(np.diff(found) > -1e-3) and found[-1] > found[0] + 10


def test_a_barrier_that_the_blur_has_filled_is_found():
    rng = np.random.default_rng(0)
    true_nq = np.where(rng.random((8000, 1)) < 0.6, -0.9, 0.9) + 0.3 * rng.standard_normal((8000, 1))
    z_nq, cov_nqq = posteriors(true_nq, 0.25, seed=1)
    principal = principal_components(z_nq)
    table = free_energy(Blurred.of(z_nq, cov_nqq, 0), principal, seed=0)
    x_g = table["pc1"] + principal.mean_q[0]
    p_g = 0.6 * np.exp(-((x_g + 0.9) ** 2) / 0.18) + 0.4 * np.exp(-((x_g - 0.9) ** 2) / 0.18)
    known = -np.log(p_g / p_g.max())
    near = known < 3.5
    error = {name: np.sqrt(np.mean((table[name] - known)[near] ** 2)) for name in ("corrected", "uncorrected")}
    assert error["corrected"] < 0.6 < 1 < error["uncorrected"]
    assert np.mean((table["low"] <= table["corrected"]) & (table["corrected"] <= table["high"])) > 0.9


def test_smoothing_keeps_the_sum():
    p_rxy = np.random.default_rng(0).random((2, 6, 7))
    assert smoothed(p_rxy, (1, 2)).sum((1, 2)) == pytest.approx(p_rxy.sum((1, 2)), rel=1e-5)
