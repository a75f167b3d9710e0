"""What every E-step and M-step keeps to, and what the present ones promise."""

import dataclasses

import numpy as np
import pytest
import torch

from morphem.data.dataset import Dataset
from morphem.errors import RunError
from morphem.inference.esteps import EStep, Hypotheses, Known
from morphem.inference.latents import Encoder, ImageView, MapView
from morphem.inference.msteps import Gradient, NormalEquations, _eliminate
from morphem.io.mrc import read_map
from morphem.models.field import FieldVolume
from morphem.models.image_model import ImageModel
from morphem.models.volume import LinearVolume

MODEL = ImageModel()


def esteps(dataset: Dataset) -> dict[str, EStep]:
    torch.manual_seed(0)
    views = {"image": ImageView(dataset.lattice, 31), "map": MapView(6, torch.linspace(1, 0.1, 17))}
    encoders = {f"Encoder ({name})": Encoder(view, 3, 16, 2, beta=0.5).eval() for name, view in views.items()}
    return {"Known": Known(), **encoders}


@pytest.fixture(params=["Known", "Encoder (image)", "Encoder (map)"])
def estep(request, tiny_set):
    return esteps(tiny_set)[request.param]


def test_every_estep_is_tested(tiny_set):
    def final(cls):
        return {sub for child in cls.__subclasses__() for sub in (final(child) or {child})}

    assert final(EStep) == {type(estep) for estep in esteps(tiny_set).values()}


def test_hypotheses_keep_to_the_contract(estep, tiny_set):
    found = estep(tiny_set.observed(np.arange(5)), None, MODEL)
    b, h, j = found.phi_bhj.shape
    assert (b, found.class_bh.shape, found.logw_bh.shape) == (5, (5, h), (5, h))
    assert found.rotation_bh33.shape == (5, h, 3, 3)
    assert found.shift_bh2.shape == (5, h, 2)
    assert found.phiphi_bhjj.shape == (5, h, j, j)
    torch.testing.assert_close(found.logw_bh.exp().sum(1), torch.ones(5))
    assert (torch.linalg.eigvalsh(found.phi_cov_bhjj) >= 0).all()
    assert (found.penalty_b >= 0).all()


@pytest.mark.parametrize("size", [1, 3, 7])
def test_an_image_is_judged_alone(estep, tiny_set, size):
    whole = estep(tiny_set.observed(np.arange(14)), None, MODEL)
    parts = [estep(o, None, MODEL) for o in tiny_set.batches(size, np.arange(14))]
    for name in ("phi_bhj", "phi_cov_bhjj", "penalty_b"):
        joined = torch.cat([getattr(part, name) for part in parts])
        torch.testing.assert_close(joined, getattr(whole, name), atol=1e-5, rtol=1e-5)


def test_small_variances_survive():
    """A central covariance keeps what a difference of moments would lose in float32."""
    phi = torch.tensor([[[1.0, 100.0]]])
    cov = torch.tensor([[[[0.0, 0.0], [0.0, 1e-6]]]])
    zero = torch.zeros(1, 1)
    found = Hypotheses(
        zero.long(), torch.eye(3)[None, None], zero[..., None].expand(1, 1, 2), zero, phi, cov, zero[0], zero[0]
    )
    assert found.z_cov_bhqq.item() == pytest.approx(1e-6)
    assert found.phiphi_bhjj[0, 0, 1, 1].item() == pytest.approx(1e4)


def test_the_penalty_is_beta_times_the_kl_of_gaussians(tiny_set):
    encoder = esteps(tiny_set)["Encoder (image)"]
    found = encoder(tiny_set.observed(np.arange(6)), None, MODEL)
    mean_bq, variance_bq = found.z_bhq[:, 0], found.z_cov_bhqq[:, 0].diagonal(dim1=-2, dim2=-1)
    normal = torch.distributions.Normal
    kl_b = torch.distributions.kl_divergence(normal(mean_bq, variance_bq.sqrt()), normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(found.penalty_b, 0.5 * kl_b, atol=1e-5, rtol=1e-4)


def test_beta_rises_over_the_warm_up(tiny_set):
    encoder = Encoder(ImageView(tiny_set.lattice, 31), 2, 16, 1, beta=1.0, warmup=20)
    observed = tiny_set.observed(np.arange(10))
    half, full, later = (encoder(observed, None, MODEL).penalty_b.sum().item() for _ in range(3))
    assert half == pytest.approx(full / 2, rel=1e-4)
    assert later == pytest.approx(full, rel=1e-4)


@pytest.mark.parametrize("name", ["image", "map"])
def test_the_encoder_sees_centred_images(tiny_set, name):
    """An image and its shift, both moved, look the same."""
    encoder, observed = esteps(tiny_set)[f"Encoder ({name})"], tiny_set.observed(np.arange(4))
    move_b2 = torch.tensor([[3.0, -2.0]]).expand(4, 2)
    moved = dataclasses.replace(
        observed,
        sample_bk=observed.sample_bk * observed.lattice.shift_phase(move_b2),
        shift_b2=observed.shift_b2 + move_b2,
    )
    here, there = (encoder(o, None, MODEL).phi_bhj for o in (observed, moved))
    torch.testing.assert_close(here, there, atol=1e-3, rtol=1e-3)


def test_a_map_view_does_not_depend_on_the_frame_of_the_image(tiny_set):
    """Turned in its plane by 90°, with the pose turned alike, an image says the same of the map."""
    view, observed = MapView(6, torch.linspace(1, 0.1, 17)), tiny_set.observed(np.arange(4))
    k = observed.lattice.k_k2
    place = {tuple(k_2): i for i, k_2 in enumerate(k)}
    turned = [place.get((-y, x), place.get((y, -x))) for x, y in k]
    conjugate = torch.tensor([(-y, x) not in place for x, y in k])

    def turn(value_bk):
        return torch.where(conjugate, value_bk[:, turned].conj(), value_bk[:, turned])

    quarter = torch.tensor([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    moved = dataclasses.replace(
        observed,
        sample_bk=turn(observed.sample_bk * observed.lattice.shift_phase(-observed.shift_b2)),
        ctf_bk=turn(observed.ctf_bk.cfloat()).real,
        rotation_b33=quarter @ observed.rotation_b33,
        shift_b2=torch.zeros(4, 2),
    )
    torch.testing.assert_close(view(moved, None, MODEL), view(observed, None, MODEL), atol=1e-2, rtol=1e-3)


def test_calibrated_inputs_have_variance_one(tiny, tiny_set):
    view, observed = MapView(6, torch.linspace(1, 0.1, 17)), tiny_set.observed(np.arange(100))
    view.calibrate(observed, true_linear(tiny), MODEL)
    input_bc = view(observed, true_linear(tiny), MODEL)
    assert input_bc[input_bc != 0].std().item() == pytest.approx(1.0, rel=1e-3)


def summed(dataset, shards):
    parts = []
    for rows in np.array_split(np.arange(len(dataset)), shards):
        part = NormalEquations(dataset.lattice)
        for observed in dataset.batches(40, rows):
            part.update(observed, Known()(observed, None, MODEL))
        parts.append(part)
    for other in parts[1:]:
        parts[0].merge(other)
    parts[0].finish()
    return parts[0]


def test_shards_merge_into_the_whole(tiny_set):
    whole = summed(tiny_set, 1)
    ridge_sj = 0.01 * whole.shell_weight_sj()
    map_jzyx = whole.solve(ridge_sj)
    for shards in (2, 7):
        again_jzyx = summed(tiny_set, shards).solve(ridge_sj)
        assert (again_jzyx - map_jzyx).norm() < 1e-5 * map_jzyx.norm()


def test_a_lower_radius_gives_the_low_passed_map(tiny_set):
    map_zyx = summed(tiny_set.within(8), 1).solve(torch.full((9, 1), 1e-3))[0]
    spectrum = torch.fft.fftn(map_zyx)
    k = torch.fft.fftfreq(32, 1 / 32)
    radius = (k[:, None, None] ** 2 + k[:, None] ** 2 + k**2).sqrt()
    assert spectrum[radius > 10].abs().max() < 0.05 * spectrum.abs().max()


@pytest.mark.parametrize("features", [1, 2, 4])
def test_elimination_solves(features):
    rng = torch.Generator().manual_seed(0)
    half = torch.randn(50, features, features, generator=rng)
    matrix = half @ half.mT + 0.1 * torch.eye(features)
    data = torch.randn(50, features, 2, generator=rng)
    found = torch.view_as_real(_eliminate(matrix, torch.view_as_complex(data)))
    torch.testing.assert_close(found, torch.linalg.solve(matrix, data), atol=1e-3, rtol=1e-3)
    assert (_eliminate(torch.zeros(1, features, features), torch.zeros(1, features, dtype=torch.complex64)) == 0).all()


def test_a_mean_and_a_mode_are_found_together(tiny, tiny_set):
    """Images drawn as V₀ + z V₁: the normal equations with E[φ] = [1, z] give both maps back."""
    rng = np.random.default_rng(0)
    maps = torch.stack([torch.tensor(read_map(tiny / f"vols/{i:03d}.mrc")[0]) for i in (0, 2)])
    truth = LinearVolume.of(torch.stack([maps.mean(0), maps[0] - maps[1]]), tiny_set.lattice.radius)
    z_nq = torch.from_numpy(rng.standard_normal((150, 1))).float()
    sums = NormalEquations(tiny_set.lattice, features=2)
    for observed in tiny_set.batches(50):
        z_bq = z_nq[observed.index_b]
        known = Hypotheses.at_given_poses(observed, z_bq, torch.zeros_like(z_bq))
        clean = MODEL.predict(truth, observed, known.rotation_bh33, known.shift_bh2, known.z_bhq)[:, 0]
        sums.update(dataclasses.replace(observed, sample_bk=clean), known)
    sums.finish()
    found = sums.solve(1e-4 * sums.shell_weight_sj())
    for j in range(2):
        correlation = torch.corrcoef(torch.stack([found[j].flatten(), truth.map_czyx[j].flatten()]))[0, 1]
        assert correlation > 0.95


def true_linear(tiny):
    return LinearVolume.of(torch.tensor(read_map(tiny / "vols/000.mrc")[0])[None], 15.0)


def test_the_loss_is_one_at_the_truth(tiny, tiny_set):
    """Σ|X̃ − X̂|²/P = 1.00 for images drawn from the model with unit noise."""
    volume, rng = true_linear(tiny), torch.Generator().manual_seed(1)
    losses = []
    for observed in tiny_set.batches(50):
        known = Known()(observed, volume, MODEL)
        clean = MODEL.predict(volume, observed, known.rotation_bh33, known.shift_bh2, known.z_bhq)[:, 0]
        noise = torch.view_as_complex(torch.randn(*clean.shape, 2, generator=rng) / 2**0.5)
        drawn = dataclasses.replace(observed, sample_bk=clean + noise)
        losses.append(-MODEL.log_likelihood(volume, drawn, known.rotation_bh33, known.shift_bh2, known.z_bhq))
    loss = torch.cat(losses).mean() / len(tiny_set.lattice)
    assert loss.item() == pytest.approx(1.0, abs=0.01)


def trained(dataset, tile, learning_rate=1e-3):
    torch.manual_seed(0)
    volume = FieldVolume(dataset.box, dataset.lattice.radius, 2, width=16, layers=1)
    encoder = Encoder(ImageView(dataset.lattice, 31), 2, 16, 1, beta=0.25)
    mstep = Gradient(volume, encoder, MODEL, learning_rate, dataset, tile)
    mstep.draw_nq = torch.randn(len(dataset), 2, generator=torch.Generator().manual_seed(3))
    return volume, encoder, mstep


def test_tiles_do_not_change_the_gradient(tiny_set):
    gradients = []
    for tile in (1, 1000, 10**6):
        volume, encoder, mstep = trained(tiny_set, tile)
        observed = tiny_set.observed(np.arange(8))
        mstep.update(observed, encoder(observed, volume, MODEL))
        gradients.append(torch.cat([p.grad.flatten() for p in [*volume.parameters(), *encoder.parameters()]]))
    for gradient in gradients[1:]:
        assert (gradient - gradients[0]).norm() < 1e-4 * gradients[0].norm()


def test_gradient_lowers_the_loss(tiny_set):
    volume, encoder, mstep = trained(tiny_set, 4096, learning_rate=1e-2)
    losses = []
    for _ in range(15):
        for observed in tiny_set.batches(50):
            mstep.update(observed, encoder(observed, volume, MODEL))
        mstep.finish()
        losses.append(mstep.last.loss)
    assert losses[-1] < losses[0] - 0.02
    assert mstep.last.images == 150
    assert mstep.last.power_gs.shape == (1, 16)


def test_a_poisoned_batch_is_skipped_and_ten_end_the_run(tiny_set):
    volume, encoder, mstep = trained(tiny_set, 4096)
    good = tiny_set.observed(np.arange(8))
    bad = dataclasses.replace(good, sample_bk=good.sample_bk * float("nan"))
    before = [p.clone() for p in volume.parameters()]
    mstep.update(bad, encoder(good, volume, MODEL))
    assert all(torch.equal(p, q) for p, q in zip(before, volume.parameters(), strict=True))
    mstep.update(good, encoder(good, volume, MODEL))
    assert any(not torch.equal(p, q) for p, q in zip(before, volume.parameters(), strict=True))
    assert mstep.skipped == 1
    with pytest.raises(RunError, match="not a number"):
        for _ in range(10):
            mstep.update(bad, encoder(good, volume, MODEL))
