"""Kernel decoding against what is known: likelihoods, states back-projected, linear families, independent halves."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from morphem.analysis.decoders import filtered
from morphem.data.dataset import Dataset, Source
from morphem.data.simulation import Simulation
from morphem.data.synthetic import simulate
from morphem.errors import InputError
from morphem.evaluation.fsc import auc, benchmark_fsc
from morphem.evaluation.truth import Truth
from morphem.inference.bandwidth import blend
from morphem.inference.consensus import reconstruct
from morphem.inference.kernel import Kernel, State, decoder
from morphem.inference.latents import Placed
from morphem.inference.neighbours import Latents
from morphem.inference.refitting import refitted
from morphem.inference.regression import Centred, Regression, leading_axes
from morphem.models.image_model import ImageModel
from morphem.models.volume import LinearVolume
from morphem.physics import cube as cubes
from morphem.physics.local import Cells
from morphem.physics.masks import sphere

HALF = np.arange(150) % 2 + 1


def on_circle(folder, deviation=0.05):
    """True coordinates of a hinge's images, and how far they were moved."""
    angle_n = np.deg2rad(Truth.open(folder).angle_deg_n)
    noise_n2 = deviation * np.random.default_rng(0).standard_normal((len(angle_n), 2))
    covariance_n22 = np.tile(deviation**2 * np.eye(2), (len(angle_n), 1, 1))
    return np.stack([np.cos(angle_n), np.sin(angle_n)], 1) + noise_n2, covariance_n22


@pytest.fixture(scope="module")
def kernel(tiny, tiny_set) -> Kernel:
    return Kernel(tiny_set, Latents(*on_circle(tiny)), HALF)


@pytest.fixture(scope="module")
def smooth_map() -> torch.Tensor:
    noise_zyx = gaussian_filter(np.random.default_rng(1).standard_normal((32, 32, 32)), 1.5)
    return torch.from_numpy((10 * noise_zyx * sphere(32, 10)).astype(np.float32))


def summed(regression: Regression, dataset: Dataset, rows: np.ndarray, weight_b: np.ndarray, offset_bq=None):
    """Images inserted straight into one sum."""
    observed, sum_zyxc = dataset.observed(rows), torch.zeros(regression.shape)
    offset_bq = np.zeros((len(rows), len(regression.axes_qj))) if offset_bq is None else offset_bq
    moment_bc = regression.moments(offset_bq, None) * torch.from_numpy(weight_b).float()[:, None]
    regression.add(Centred.of(observed), torch.arange(len(rows)), moment_bc, sum_zyxc)
    return sum_zyxc


def test_the_quadratic_form_is_the_summed_log_likelihood(tiny_set, smooth_map):
    """Turned by multiples of 90°, samples fall on voxels, and W is the whole normal operator."""
    turns_n33 = Rotation.create_group("O").as_matrix()[np.arange(150) % 24]
    particles = tiny_set.particles.with_poses(turns_n33, tiny_set.particles.shift_A_n2)
    dataset, radius = dataclasses.replace(tiny_set, particles=particles), tiny_set.lattice.radius
    regression, rows = Regression(dataset.lattice, np.zeros((2, 0))), np.arange(40)
    _, data_zyx, weight_zyx = regression.solve(summed(regression, dataset, rows, np.ones(40)))
    sharp_zyx = smooth_map / cubes.interpolation_window(32, 1)
    value_zyx = torch.view_as_complex(cubes.cube_of_maps(sharp_zyx[None], radius, 1).contiguous())
    once_x = torch.ones(value_zyx.shape[-1])
    once_x[0] = 0.5  # there a voxel and its mate are the same number
    form = (once_x * (2 * (value_zyx.conj() * data_zyx).real - weight_zyx * value_zyx.abs() ** 2)).sum()
    observed, model = dataset.observed(rows), ImageModel()
    hypotheses = observed.rotation_b33[:, None], observed.shift_b2[:, None], torch.zeros(40, 1, 0)
    volume = LinearVolume.of(smooth_map[None], radius, padding=1)
    log_b1 = model.log_likelihood(volume, observed, *hypotheses)
    expected = (log_b1[:, 0] + (observed.sample_bk.abs() ** 2).sum(1)).double().sum()
    assert float(form) == pytest.approx(float(expected), rel=1e-4)


def test_weighted_rings_are_the_weighted_images(kernel, tiny_set):
    z_q = kernel.latents.z_nq[7]
    near = kernel.latents.near(z_q)
    (sum_hrzyxc,) = kernel.sums(z_q[None], [near])
    at_bandwidths = kernel.at_bandwidths(near, sum_hrzyxc)
    for half in (1, 2):
        rows = np.flatnonzero(half == HALF)
        for level in (0, len(near.bandwidth_l) - 1):
            direct = summed(kernel.regression, tiny_set, rows, near.weight_lr[level, near.ring_n[rows]])
            torch.testing.assert_close(at_bandwidths[half - 1, level], direct, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["posterior", "epanechnikov"])
def test_bandwidths_lead_from_few_images_to_all(tiny, kind):
    z_nq, covariance_nqq = on_circle(tiny)
    latents = Latents(z_nq, covariance_nqq, kind)
    near = latents.near(z_nq[0])
    assert (np.diff(near.images_l) > 0).all() and (np.diff(near.bandwidth_l) > 0).all()
    assert 30 < near.images_l[0] < 60 and near.images_l[-1] == pytest.approx(150)
    assert np.isinf(near.bandwidth_l[-1]) and (near.weight_lr[-1] == 1).all()
    assert (near.weight_lr <= 1).all() and (np.diff(near.weight_lr[0]) <= 1e-9).all()
    distance_n = np.linalg.norm(z_nq - z_nq[0], axis=1)
    assert distance_n[near.ring_n == 0].max() <= distance_n[near.ring_n == near.ring_n.max()].min()


def test_weights_are_the_density_of_the_blurred_posterior():
    rng = np.random.default_rng(0)
    z_nq, factor_nqq = rng.standard_normal((20, 3)), rng.standard_normal((20, 3, 3))
    covariance_nqq = factor_nqq @ factor_nqq.transpose(0, 2, 1) + np.eye(3)
    latents, z_q, h = Latents(z_nq, covariance_nqq), rng.standard_normal(3), 0.7
    metric_qq = np.linalg.inv(covariance_nqq).mean(0)
    blurred_nqq = covariance_nqq + h**2 * np.linalg.inv(metric_qq)
    offset_nq = z_nq - z_q
    quadratic_n = np.einsum("nq,nqp,np->n", offset_nq, np.linalg.inv(blurred_nqq), offset_nq)
    expected_n = np.exp(-0.5 * quadratic_n) / np.sqrt(np.linalg.det(blurred_nqq))
    found_n = latents.weights(latents.offset(z_q), h)
    np.testing.assert_allclose(found_n, expected_n / expected_n.max(), rtol=2e-3)


def test_latents_without_any_uncertainty_are_served():
    z_nq = np.random.default_rng(0).integers(0, 2, (80, 2)).astype(float)
    for covariance in (None, np.zeros((80, 2, 2))):
        near = Latents(z_nq, covariance).near(z_nq[0])
        assert np.isfinite(near.weight_lr).all() and np.isfinite(near.images_l).all()


def test_a_half_map_knows_its_own_images_only(kernel, tiny_set):
    """Other images in half 2: the sums and maps of half 1 stay as they are, bit for bit, at every bandwidth."""
    packed_nk = tiny_set.packed_nk.clone()
    packed_nk[HALF == 2] = packed_nk[HALF == 2].flip(0)
    other = dataclasses.replace(kernel, dataset=dataclasses.replace(tiny_set, packed_nk=packed_nk))
    z_1q = kernel.latents.z_nq[:1]
    near = kernel.latents.near(z_1q[0])
    ours, theirs = (one.at_bandwidths(near, one.sums(z_1q, [near])[0]) for one in (kernel, other))
    assert torch.equal(kernel.regression.maps(ours[0]), kernel.regression.maps(theirs[0]))
    assert not torch.equal(ours[1], theirs[1])


def test_equal_calls_give_equal_maps_whatever_else_is_decoded(kernel):
    z_mq = kernel.latents.z_nq[[3, 60]]
    one, two = kernel.states(z_mq)
    (again,) = kernel.states(z_mq[1:])
    np.testing.assert_array_equal(two.map_zyx, again.map_zyx)
    np.testing.assert_array_equal(two.half_hzyx, again.half_hzyx)
    assert np.abs(one.map_zyx - two.map_zyx).max() > 0


def test_two_discrete_states_are_back_projected_apart(tmp_path):
    """At the narrowest bandwidth a state's map is that of its own images; the blend is nearer to its truth than all."""
    simulate(tmp_path / "set", Simulation(images=300, box=32, pixel_size=6.0, snr=2.0, states=2))
    dataset, truth = Dataset.open(Source(tmp_path / "set" / "particles.star")), Truth.open(tmp_path / "set")
    z_n1 = (2.0 * truth.state_n - 1)[:, None]
    consensus = reconstruct(dataset, 0)
    kernel = decoder(dataset, Latents(z_n1), np.arange(300) % 2 + 1, consensus.map_zyx)
    for state, z_1q in enumerate(np.array([[[-1.0]], [[1.0]]])):
        near = kernel.latents.near(z_1q[0])
        of_state_n = truth.state_n == state
        weight_n = near.weight_lr[0, near.ring_n]
        assert weight_n[of_state_n].min() > 0.5 and weight_n[~of_state_n].max() < 1e-6
        level = kernel.at_bandwidths(near, kernel.sums(z_1q, [near])[0])[:, 0].sum(0)
        direct = summed(kernel.regression, kernel.dataset, np.flatnonzero(of_state_n), weight_n[of_state_n])
        ours, theirs = kernel.regression.maps(torch.stack([level, direct]))
        assert (ours - theirs).abs().max() < 1e-3 * theirs.abs().max()
        (found,) = kernel.states(z_1q)
        areas = [auc(benchmark_fsc(one, truth.map(state))) for one in (found.map_zyx, consensus.map_zyx)]
        assert areas[0] > areas[1] + 0.02
        scale = (found.map_zyx * truth.map(state)).sum() / (truth.map(state) ** 2).sum()
        assert 0.8 < scale < 1.1


def test_a_continuous_motion_is_followed(tmp_path):
    simulate(tmp_path / "set", Simulation(images=600, box=32, pixel_size=6.0, snr=1.0))
    dataset, truth = Dataset.open(Source(tmp_path / "set" / "particles.star")), Truth.open(tmp_path / "set")
    consensus, latents = reconstruct(dataset, 0), Latents(*on_circle(tmp_path / "set"))
    kernel = decoder(dataset, latents, np.arange(600) % 2 + 1, consensus.map_zyx)
    rows = np.arange(0, 600, 100)
    maps = [state.map_zyx for state in kernel.states(latents.z_nq[rows])]
    areas_n2 = [
        [auc(benchmark_fsc(one, truth.map(state))) for one in (map_zyx, consensus.map_zyx)]
        for map_zyx, state in zip(maps, truth.state_n[rows], strict=True)
    ]
    ours, all_images = np.mean(areas_n2, axis=0)
    assert ours > all_images + 0.02


def test_a_linear_family_is_met_by_local_linear_regression(tiny_set, smooth_map):
    """V = V_0 + z V_1 without noise, at the largest z: an average of all images lags behind, the intercept does not."""
    second_zyx = smooth_map.flip(0) * 0.5
    volume = LinearVolume.of(torch.stack([smooth_map, second_zyx]), tiny_set.lattice.radius)
    z_n1 = np.linspace(-1, 1, 150)[:, None]
    observed, model = tiny_set.observed(np.arange(150)), ImageModel()
    hypotheses = observed.rotation_b33[:, None], observed.shift_b2[:, None], torch.from_numpy(z_n1).float()[:, None]
    clean = dataclasses.replace(observed, sample_bk=model.predict(volume, observed, *hypotheses)[:, 0])
    found_z = []
    for directions in (0, 1):
        regression = Regression(tiny_set.lattice, leading_axes(z_n1, directions))
        sum_zyxc = torch.zeros(regression.shape)
        regression.add(Centred.of(clean), torch.arange(150), regression.moments(z_n1 - 1, None), sum_zyxc)
        moved_zyx = regression.maps(sum_zyxc[None])[0] - smooth_map
        found_z.append(float((moved_zyx * second_zyx).sum() / (second_zyx**2).sum()))
    assert found_z == pytest.approx([0, 1], abs=0.2)


def test_uncertain_latents_enter_the_second_moments():
    regression = Regression(None, np.eye(2), device="cpu")  # type: ignore[arg-type]
    offset_bq, covariance_bqq = np.array([[1.0, 2.0]]), np.array([[[0.3, 0.1], [0.1, 0.2]]])
    found = regression.moments(offset_bq, covariance_bqq)[0].tolist()
    assert found == pytest.approx([1, 1, 1, 1, 2, 2, 1, 1, 1.3, 2, 2.1, 4.2])


def test_bands_and_regions_add_up_to_the_map():
    cells = Cells.of(32)
    map_czyx = torch.randn(1, 32, 32, 32, generator=torch.Generator().manual_seed(0))
    spectrum_czyx = torch.fft.rfftn(map_czyx, dim=(-3, -2, -1))
    total_czyx = sum(cells.band(spectrum_czyx, b) for b in range(len(cells)))
    torch.testing.assert_close(total_czyx, map_czyx, rtol=1e-4, atol=1e-4)
    ones = torch.ones(1, 32, 32, 32)
    torch.testing.assert_close(cells.spread(cells.measure(ones, 0.1)), ones)
    spot = torch.zeros(1, 32, 32, 32)
    spot[0, 8, 20, 14] = 1
    place = np.unravel_index(int(cells.measure(spot, 0.05).argmax()), (16,) * 3)
    assert place == (4, 10, 7)


def test_regions_where_halves_differ_by_noise_alone_take_all_images():
    """Narrow bandwidths are noisier; on the left they also hold what all images lack."""
    rng = np.random.default_rng(0)
    left_zyx = np.zeros((32, 32, 32), np.float32)
    left_zyx[:, :, :14] = sphere(32, 12)[:, :, :14]
    signal_zyx = 3 * left_zyx * rng.standard_normal((32, 32, 32))
    noise_hlzyx = rng.standard_normal((2, 2, 32, 32, 32)) * np.array([1.0, 0.3])[:, None, None, None]
    half_hlzyx = noise_hlzyx + np.stack([signal_zyx, 0 * signal_zyx])
    half = torch.from_numpy(half_hlzyx.astype(np.float32))
    found = blend(half, half.mean(0))
    level_uvw = found.level_buvw[4]
    assert level_uvw[6:10, 6:10, 4].mean() < 0.2 and level_uvw[6:10, 6:10, 11:14].mean() > 0.8
    assert found.fsc_buvw[4][6:10, 6:10, 4].mean() > 0.6 and found.fsc_buvw[4][6:10, 6:10, 12].mean() < 0.3


def test_half_maps_are_filtered_by_what_they_share_where_they_share_it():
    """Signal and noise alike in one half of space, noise alone in the other."""
    rng = np.random.default_rng(0)
    shared_zyx, noise_h1zyx = rng.standard_normal((32, 32, 32)), rng.standard_normal((2, 1, 32, 32, 32))
    shared_zyx[16:] = 0
    half_hlzyx = torch.from_numpy(shared_zyx + noise_h1zyx).float().repeat(1, 2, 1, 1, 1)
    state = State.of(blend(half_hlzyx, half_hlzyx.mean(0)), Latents(rng.standard_normal((600, 2))).near(np.zeros(2)))
    found_zyx = filtered(state)[0]
    assert np.sum(found_zyx[:12] * shared_zyx[:12]) / np.sum(shared_zyx[:12] ** 2) == pytest.approx(0.5, abs=0.05)
    assert np.mean(found_zyx[20:] ** 2) < 0.05 * np.mean(state.half_hzyx[0, 20:] ** 2)


def test_a_linear_model_is_made_anew_of_some_images_alone(tiny, tiny_set):
    """At true coordinates and SNR 1 its maps are the molecule's; images that are left out do not touch them."""
    z_n2, covariance_n22 = on_circle(tiny, 0.01)
    placed, rows = Placed(z_n2, covariance_n22), np.arange(0, 150, 2)
    shape = LinearVolume.of(torch.ones(3, 32, 32, 32), 8)
    volume = refitted(shape, tiny_set, placed, rows, 0)
    known = Truth.open(tiny)
    true_zyx = known.map(int(known.state_n[0]))
    (found_zyx,) = volume.maps(placed.z_nq[:1])
    low_zyx = cubes.lowpass(torch.tensor(true_zyx), 8).flatten()
    assert float(torch.corrcoef(torch.stack([found_zyx.flatten(), low_zyx]))[0, 1]) > 0.8
    placed.z_nq[1::2] = 7.0
    torch.testing.assert_close(refitted(shape, tiny_set, placed, rows, 0).map_czyx, volume.map_czyx, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("latents", "half_n", "directions", "sentence"),
    [
        (Latents(np.zeros((3, 2))), HALF, 0, "150 images, but 3 latents"),
        (Latents(np.eye(150)[:, :2]), np.ones(150), 0, "a half-set holds fewer than 2 of 150 images"),
        (Latents(np.eye(150)[:, :2]), HALF, 3, "3 directions: expected 0 to 3"),
    ],
)
def test_what_is_not_of_these_images_is_refused(tiny_set, latents, half_n, directions, sentence):
    with pytest.raises(InputError, match=sentence):
        Kernel(tiny_set, latents, half_n, directions=directions)


def test_the_local_resolution_is_where_the_local_fsc_falls_below_its_threshold():
    """One half of space agrees up to band 2 and the other everywhere; threshold 0.143, voxels of 4 Å."""
    cells = Cells.of(32)
    fsc_buvw = np.ones((len(cells), 16, 16, 16), np.float32)
    fsc_buvw[3:, :8] = 0.0
    images_buvw = np.full_like(fsc_buvw, 1000.0)
    images_buvw[2] = 300.0
    empty_zyx = np.zeros((32, 32, 32), np.float32)
    state = State(empty_zyx, np.zeros((2, 32, 32, 32), np.float32), images_buvw, images_buvw, fsc_buvw)
    local = state.local(4.0)
    crossing = float(cells.frequency(2 + (1 - 0.143), 4.0))
    np.testing.assert_allclose(local["resolution"][:12], 1 / crossing, rtol=1e-5)
    np.testing.assert_allclose(local["resolution"][20:], 1 / float(cells.frequency(len(cells) - 1, 4.0)), rtol=1e-5)
    np.testing.assert_allclose(local["images"][:12], 300, rtol=1e-4)
    np.testing.assert_allclose(local["images"][20:], 1000, rtol=1e-4)
    nothing = dataclasses.replace(state, fsc_buvw=np.zeros_like(fsc_buvw)).local(4.0, 16)["resolution"]
    assert nothing.shape == (16, 16, 16) and (nothing > 1 / float(cells.frequency(0, 4.0))).all()
