"""The linear engine's E-step and M-step against dense Gaussians and their own laws."""

import dataclasses

import numpy as np
import pytest
import torch

from morphem.data.dataset import Observed
from morphem.inference import solving
from morphem.inference.msteps import NormalEquations
from morphem.inference.subspaces import Subspaces
from morphem.models.image_model import ImageModel
from morphem.models.volume import LinearVolume
from morphem.physics.cube import cube_of_maps, interpolation_window, maps_of_cube, voxel_radius
from morphem.physics.lattice import Lattice
from morphem.physics.noise import radii, window
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
@pytest.mark.parametrize("masked", [False, True])
def test_the_penalised_likelihood_never_falls(contrast, masked):
    observed, truth = drawn(60, 2, 2)
    rng = torch.Generator().manual_seed(1)
    mask = window(radii(BOX, 3)).double() if masked else None
    truth_czyx = truth.map_czyx if mask is None else truth.map_czyx * mask
    start = truth_czyx * (1 + 0.5 * torch.randn(truth.map_czyx.shape, generator=rng).double())
    volume, estep = LinearVolume.of(start, RADIUS, padding=1), Subspaces(2, 2, contrast)
    precision_csj = torch.full((2, 5, 3), 0.3, dtype=torch.float64)
    scores = []
    for _ in range(15):
        found = estep(observed, volume, MODEL)
        sums = NormalEquations(observed.lattice, 3, 2, padding=1, around=volume, dtype=torch.float64)
        sums.update(observed, found)
        scores.append(sums.evidence - 0.3 * half_norm(volume))
        volume = LinearVolume.of(sums.solve(precision_csj, longest=1, mask_zyx=mask), RADIUS, padding=1)
    assert min(np.diff(scores)) > -1e-7 * abs(scores[-1])
    assert scores[-1] > scores[0] + 100
    if mask is not None:
        assert (volume.map_czyx[:, mask == 0] == 0).all()


def half_norm(volume: LinearVolume) -> float:
    """Σ |V|² over the voxels within the radius, each Friedel pair once; not the centre, which no image reaches."""
    cube_zyxc = volume.cube_zyxc()
    power_zyx = (cube_zyxc**2).sum(-1) * (voxel_radius(cube_zyxc, 1) <= RADIUS + 0.5)
    h = power_zyx.shape[2] - 1
    return float(power_zyx[:, :, 1:].sum() + 0.5 * power_zyx[:, :, 0].sum() - 0.5 * power_zyx[h, h, 0])


def test_every_gradient_within_a_mask_is_a_step_up(monkeypatch):
    """Of maps that vanish outside the mask, 2⟨Bδ, Y⟩ − ⟨Bδ, (W + T) Bδ⟩ rises with every gradient."""
    observed, truth = drawn(40, 1, 1)
    mask = window(radii(BOX, 3)).double()
    sums = NormalEquations(observed.lattice, 2, 1, padding=1, dtype=torch.float64, around=truth)
    sums.update(observed, Subspaces(1, 1)(observed, truth, MODEL))
    system = sums.system(0, torch.full((5, 2), 0.3, dtype=torch.float64))
    inside_zyx2j = ~system.outside_zyx[..., None, None]

    def pull(value_zyx2j: torch.Tensor) -> torch.Tensor:
        return mask / interpolation_window(BOX, 1) * maps_of_cube((value_zyx2j * inside_zyx2j).flatten(-2), BOX, 1)

    reached, slope = [], []
    for gradients in (1, 2, 4, 8, 300):
        monkeypatch.setattr(solving, "GRADIENTS", gradients)
        found = system.step(mask)
        assert (found[:, mask == 0] == 0).all()
        within = torch.where(mask > 0, found / mask, 0)
        bent_zyx2j = system._times(cube_of_maps(found / interpolation_window(BOX, 1), RADIUS, 1).unflatten(-1, (2, -1)))
        reached.append(float((within * (2 * pull(system.data_zyx2j) - pull(bent_zyx2j))).sum()))
        slope.append(float(pull(system.data_zyx2j - bent_zyx2j).norm()))
    assert (np.diff(reached) > 0).all()
    assert slope[-1] < 0.1 * float(pull(system.data_zyx2j).norm())
