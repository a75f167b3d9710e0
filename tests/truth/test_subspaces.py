"""The linear engine's E-step and M-step against dense Gaussians and their own laws."""

import dataclasses

import numpy as np
import pytest
import torch

from morphem.data.dataset import Observed
from morphem.inference.msteps import NormalEquations
from morphem.inference.subspaces import Subspaces
from morphem.models.image_model import ImageModel
from morphem.models.volume import LinearVolume
from morphem.physics.lattice import Lattice
from morphem.physics.rotations import uniform

MODEL, BOX, RADIUS = ImageModel(), 12, 4.0


def drawn(images: int, classes: int, q: int, seed: int = 0) -> tuple[Observed, LinearVolume]:
    """A volume of random smooth maps and images of random classes, z and contrasts, all in float64."""
    rng = torch.Generator().manual_seed(seed)
    lattice = Lattice.disc(BOX, RADIUS)
    noise = torch.randn(classes * (q + 1), BOX, BOX, BOX, generator=rng, dtype=torch.float64)
    volume = LinearVolume.of(0.3 * noise, RADIUS, padding=1)
    rotation = torch.from_numpy(uniform(images, np.random.default_rng(seed))).double()
    shape = images, len(lattice)
    observed = Observed(
        lattice,
        torch.complex(*torch.randn(2, *shape, generator=rng, dtype=torch.float64)) * 0.5**0.5,
        torch.rand(*shape, generator=rng, dtype=torch.float64) - 0.3,
        rotation,
        torch.randn(images, 2, generator=rng, dtype=torch.float64),
        torch.ones(images, dtype=torch.float64),
        np.arange(images),
    )
    feature = MODEL.features(volume, observed).unflatten(-1, (classes, -1))
    kind = torch.randint(classes, (images,), generator=rng)
    phi = torch.nn.functional.pad(torch.randn(images, q, generator=rng, dtype=torch.float64), (1, 0), value=1.0)
    clean = torch.einsum("brj,bj->br", feature[torch.arange(images), :, kind], phi)
    signal = torch.view_as_complex(clean.unflatten(1, (-1, 2)))
    there = signal * lattice.shift_phase(observed.shift_b2)
    return dataclasses.replace(observed, sample_bk=observed.sample_bk + there), volume


def dense(observed: Observed, volume: LinearVolume, prior: torch.Tensor, s: float = 1.0) -> torch.Tensor:
    """log Σ_c π_c N(y; s·A μ, s²·A Uᵀ U A + noise) by the dense covariance, without P log π."""
    classes = len(prior)
    feature = MODEL.features(volume, observed).unflatten(-1, (classes, -1))
    y = MODEL.centred(observed)
    noise = 0.5 * torch.eye(y.shape[1], dtype=torch.float64)
    joint = []
    for c in range(classes):
        mean, modes = s * feature[:, :, c, 0], s * feature[:, :, c, 1:]
        gaussian = torch.distributions.MultivariateNormal(mean, modes @ modes.mT + noise)
        joint.append(gaussian.log_prob(y) + prior[c].log())
    return torch.stack(joint, 1).logsumexp(1) + 0.5 * y.shape[1] * np.log(np.pi)


@pytest.mark.parametrize(("classes", "q"), [(1, 0), (1, 3), (4, 0), (3, 2)])
def test_the_evidence_is_that_of_the_dense_covariance(classes, q):
    observed, volume = drawn(20, classes, q)
    estep = Subspaces(classes, q)
    estep.prior_h = torch.arange(1.0, classes + 1).double() / sum(range(1, classes + 1))
    found = estep(observed, volume, MODEL)
    torch.testing.assert_close(found.evidence_b, dense(observed, volume, estep.prior_h), atol=1e-6, rtol=1e-10)


def test_the_contrast_is_integrated_out():
    observed, volume = drawn(20, 2, 2)
    estep = Subspaces(2, 2, contrast_variance=0.04)
    found = estep(observed, volume, MODEL).evidence_b
    s_n = np.linspace(0.1, 2.2, 801)
    log_prior_n = -0.5 * (s_n - 1) ** 2 / 0.04 - 0.5 * np.log(2 * np.pi * 0.04)
    joint = torch.stack([dense(observed, volume, estep.prior_h, s) + p for s, p in zip(s_n, log_prior_n, strict=True)])
    torch.testing.assert_close(found, joint.logsumexp(0) + np.log(s_n[1] - s_n[0]), atol=2e-3, rtol=1e-5)


def test_the_posterior_is_that_of_least_squares():
    """z̄ solves (1 + G) z = Aᵀ(y − m), and Cov z = (1 + G)⁻¹."""
    observed, volume = drawn(5, 1, 3)
    found = Subspaces(1, 3)(observed, volume, MODEL)
    feature, y = MODEL.features(volume, observed), MODEL.centred(observed)
    modes = feature[..., 1:]
    q_bqq = torch.eye(3, dtype=torch.float64) + 2 * modes.mT @ modes
    z_bq = torch.linalg.solve(q_bqq, 2 * modes.mT @ (y - feature[..., 0])[..., None])[..., 0]
    torch.testing.assert_close(found.z_bhq[:, 0], z_bq)
    torch.testing.assert_close(found.z_cov_bhqq[:, 0], torch.linalg.inv(q_bqq))


@pytest.mark.parametrize("contrast", [0.0, 0.04])
def test_the_penalised_likelihood_never_falls(contrast):
    observed, truth = drawn(60, 2, 2)
    rng = torch.Generator().manual_seed(1)
    start = truth.map_czyx + 0.5 * truth.map_czyx.std() * torch.randn(truth.map_czyx.shape, generator=rng).double()
    volume, estep = LinearVolume.of(start, RADIUS, padding=1), Subspaces(2, 2, contrast)
    precision_csj = torch.full((2, 5, 3), 0.3, dtype=torch.float64)
    scores = []
    for _ in range(15):
        found = estep(observed, volume, MODEL)
        sums = NormalEquations(observed.lattice, 3, 2, padding=1, around=volume, dtype=torch.float64)
        sums.update(observed, found)
        scores.append(sums.evidence - 0.3 * half_norm(volume))
        volume = LinearVolume.of(sums.solve(precision_csj, longest=1), RADIUS, padding=1)
    assert min(np.diff(scores)) > -1e-7 * abs(scores[-1])
    assert scores[-1] > scores[0] + 100


def half_norm(volume: LinearVolume) -> float:
    """Σ |V|² over voxels of the cube, each Friedel pair once; the centre, which no image reaches, left out."""
    power_zyx = (volume.cube_zyxc() ** 2).sum(-1)
    h = power_zyx.shape[2] - 1
    return float(power_zyx[:, :, 1:].sum() + 0.5 * power_zyx[:, :, 0].sum() - 0.5 * power_zyx[h, h, 0])
