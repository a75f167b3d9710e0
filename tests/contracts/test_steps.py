"""What every E-step and M-step keeps to, and what the present ones promise."""

import dataclasses

import numpy as np
import pytest
import torch

from morphem.data.dataset import Dataset
from morphem.inference.candidates import AtCandidates, Candidates
from morphem.inference.esteps import EStep, Hypotheses, Known
from morphem.inference.gradient import DivergedError, Gradient
from morphem.inference.latents import Encoder, Placed, Table
from morphem.inference.msteps import NormalEquations
from morphem.inference.poses import PoseTable, turned, with_refinement
from morphem.inference.rows import RowAdam, Rows
from morphem.inference.schedules import BetaSchedule
from morphem.inference.search import Grid, PoseSearch
from morphem.inference.solving import solve_symmetric
from morphem.inference.subspaces import Subspaces
from morphem.inference.views import ImageView, MapView, PictureView
from morphem.inference.windows import Weighted
from morphem.io.mrc import read_map
from morphem.models.field import FieldVolume
from morphem.models.image_model import ImageModel
from morphem.models.nets import ResidualTrunk
from morphem.models.volume import LinearVolume

MODEL = ImageModel()
VOLUME = LinearVolume.of(10 * torch.randn(6, 32, 32, 32, generator=torch.Generator().manual_seed(0)), 15.0, padding=1)
"""Two classes of a mean and two modes, for E-steps that read slices of them."""


def esteps(dataset: Dataset) -> dict[str, EStep]:
    torch.manual_seed(0)
    image, half = ImageView(dataset.lattice, 31), BetaSchedule("constant", 0.5)
    table = Table(torch.randn(len(dataset), 3), beta=0.5, learning_rate=0.1)
    poses = PoseTable(Table(torch.randn(len(dataset), 3), 0.5, 0.1), len(dataset), "both")
    poses.arrive(1)
    torch.nn.init.normal_(poses.turn.weight, std=0.02)
    torch.nn.init.normal_(poses.move.weight, std=0.5)
    rotation_nh33 = turned(torch.eye(3).expand(len(dataset), 2, 3, 3), 0.5 * torch.randn(len(dataset), 2, 3))
    shape = len(dataset), 2
    class_nh, shift_nh2 = torch.zeros(shape, dtype=torch.long), torch.zeros(*shape, 2)
    candidates = Candidates(class_nh, rotation_nh33, shift_nh2, torch.randn(shape))
    return {
        "PoseSearch": PoseSearch(Grid.of(20, 8, 2.0, 1.0), keep=3, apart_rad=0.3),
        "AtCandidates": AtCandidates(candidates, 1.0, torch.ones(len(dataset))),
        "Known": Known(),
        "Placed": Placed(np.ones((len(dataset), 3)), np.tile(0.1 * np.eye(3), (len(dataset), 1, 1))),
        "Encoder (image)": Encoder(image, 3, 16, 2, half).eval(),
        "Encoder (map)": Encoder(MapView(6, torch.linspace(1, 0.1, 17)), 3, 16, 2, half).eval(),
        "Encoder (conv)": Encoder(PictureView(dataset.lattice, 31), 3, 16, 2, half).eval(),
        "Encoder (full)": Encoder(image, 3, 16, 2, half, full=True).eval(),
        "Table": table.eval(),
        "PoseTable": poses.eval(),
        "Subspaces": Subspaces(2, 2, 0.04),
        "Weighted": Weighted(np.full((len(dataset), 2), 0.5)),
    }


NAMES = (
    "Known",
    "Placed",
    *(f"Encoder ({kind})" for kind in ("image", "map", "conv", "full")),
    "Table",
    "PoseTable",
    "Subspaces",
    "Weighted",
    "PoseSearch",
    "AtCandidates",
)


@pytest.fixture(params=NAMES)
def estep(request, tiny_set):
    return esteps(tiny_set)[request.param]


def test_every_estep_is_tested(tiny_set):
    def final(cls):
        return {sub for child in cls.__subclasses__() for sub in (final(child) or {child})}

    assert final(EStep) == {type(estep) for estep in esteps(tiny_set).values()}


def test_hypotheses_keep_to_the_contract(estep, tiny_set):
    found = estep(tiny_set.observed(np.arange(5)), VOLUME, MODEL)
    b, h, j = found.phi_bhj.shape
    assert (b, found.class_bh.shape, found.logw_bh.shape) == (5, (5, h), (5, h))
    assert found.rotation_bh33.shape == (5, h, 3, 3)
    assert found.shift_bh2.shape == (5, h, 2)
    assert found.phiphi_bhjj.shape == (5, h, j, j)
    torch.testing.assert_close(found.logw_bh.exp().sum(1).float(), torch.ones(5))
    torch.testing.assert_close(found.rotation_bh33 @ found.rotation_bh33.mT, torch.eye(3).expand(5, h, 3, 3))
    assert (torch.linalg.eigvalsh(found.phi_cov_bhjj) >= -1e-5).all()
    assert (found.penalty_b >= 0).all()


@pytest.mark.parametrize("size", [1, 3, 7])
def test_28_an_image_is_judged_alone(estep, tiny_set, size):
    whole = estep(tiny_set.observed(np.arange(14)), VOLUME, MODEL)
    parts = [estep(o, VOLUME, MODEL) for o in tiny_set.batches(size, np.arange(14))]
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


@pytest.mark.parametrize("name", ["image", "map", "conv", "full"])
def test_37_the_penalty_is_beta_times_the_kl_of_gaussians(tiny_set, name):
    encoder = esteps(tiny_set)[f"Encoder ({name})"]
    found = encoder(tiny_set.observed(np.arange(6)), None, MODEL)
    normal = torch.distributions.MultivariateNormal
    one = normal(torch.zeros(3), torch.eye(3))
    kl_b = torch.distributions.kl_divergence(normal(found.z_bhq[:, 0], found.z_cov_bhqq[:, 0]), one)
    assert (kl_b >= 0).all()
    torch.testing.assert_close(found.penalty_b, 0.5 * kl_b, atol=1e-4, rtol=1e-4)


def test_a_full_posterior_correlates_and_a_diagonal_one_does_not(tiny_set):
    observed, eye = tiny_set.observed(np.arange(6)), torch.eye(3, dtype=torch.bool)
    diagonal, full = (esteps(tiny_set)[f"Encoder ({name})"](observed, None, MODEL) for name in ("image", "full"))
    assert (diagonal.z_cov_bhqq[:, 0][:, ~eye] == 0).all()
    assert (full.z_cov_bhqq[:, 0][:, ~eye].abs() > 1e-4).all()


SCHEDULES = {
    "constant": ([2.0] * 5, [6.0] * 5),
    "linear": ([0.5, 0.5, 1.25, 2.0, 2.0], [1.5, 1.5, 3.75, 6.0, 6.0]),
    "cyclic": ([0.5, 0.5, 1.25, 0.5, 1.25], [1.5, 1.5, 3.75, 1.5, 3.75]),
    "capacity": ([2.0] * 5, [18.0, 18.0, 8.0, 2.0, 2.0]),
}


@pytest.mark.parametrize("kind", SCHEDULES)
def test_beta_follows_its_schedule(kind):
    """β = 2 from ½ between epochs 1 and 3, KL = 3 nats, capacity 2; after 0 to 4 epochs."""
    schedule = BetaSchedule(kind, 2.0, 0.5 if kind in ("linear", "cyclic") else 0.0, (1, 3), 2.0)
    weights, penalties = SCHEDULES[kind]
    assert [schedule.weight(n) for n in range(5)] == pytest.approx(weights)
    assert [schedule.penalty(torch.tensor([3.0]), n).item() for n in range(5)] == pytest.approx(penalties)


def test_beta_rises_with_the_epochs(tiny_set):
    encoder = Encoder(ImageView(tiny_set.lattice, 31), 2, 16, 1, BetaSchedule("linear", 1.0, rise=(0, 2)))
    observed = tiny_set.observed(np.arange(10))
    penalties = []
    for epochs in (1, 2, 3):
        encoder.arrive(epochs)
        penalties.append(encoder(observed, None, MODEL).penalty_b.sum().item())
    half, full, later = penalties
    assert half == pytest.approx(full / 2, rel=1e-4)
    assert later == pytest.approx(full, rel=1e-4)


@pytest.mark.parametrize("name", ["image", "map", "conv"])
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
    ridge_csj = 0.01 * whole.shell_weight_csj()
    map_jzyx = whole.solve(ridge_csj)
    for shards in (2, 7):
        again_jzyx = summed(tiny_set, shards).solve(ridge_csj)
        assert (again_jzyx - map_jzyx).norm() < 1e-5 * map_jzyx.norm()


def test_a_lower_radius_gives_the_low_passed_map(tiny_set):
    map_zyx = summed(tiny_set.within(8), 1).solve(torch.full((1, 9, 1), 1e-3))[0]
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
    ridge = torch.rand(50, features, generator=rng)
    row, column = torch.tril_indices(features, features)
    found = solve_symmetric(matrix[:, row, column], ridge, data.mT).mT
    expected = torch.linalg.solve(matrix + torch.diag_embed(ridge), data)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
    empty = torch.zeros(1, len(row)), torch.zeros(1, features), torch.zeros(1, 2, features)
    assert (solve_symmetric(*empty) == 0).all()


def test_a_mean_and_a_mode_are_found_together(tiny, tiny_set):
    """Images drawn as V₀ + z V₁: the normal equations with E[φ] = [1, z] give both maps back."""
    rng = np.random.default_rng(0)
    maps = torch.stack([torch.tensor(read_map(tiny / f"vols/{i:03d}.mrc")[0]) for i in (0, 2)])
    truth = LinearVolume.of(torch.stack([maps.mean(0), maps[0] - maps[1]]), tiny_set.lattice.radius)
    z_nq = torch.from_numpy(rng.standard_normal((150, 1))).float()
    sums = NormalEquations(tiny_set.lattice, features=2)
    for observed in tiny_set.batches(50):
        z_bq = z_nq[observed.index_b]
        known = Hypotheses.at_given_poses(observed, z_bq)
        clean = MODEL.predict(truth, observed, known.rotation_bh33, known.shift_bh2, known.z_bhq)[:, 0]
        sums.update(dataclasses.replace(observed, sample_bk=clean), known)
    sums.finish()
    found = sums.solve(1e-4 * sums.shell_weight_csj())
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
    encoder = Encoder(ImageView(dataset.lattice, 31), 2, 16, 1, BetaSchedule("constant", 0.25))
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
        mstep.begin(15)
        for observed in tiny_set.batches(50):
            mstep.update(observed, encoder(observed, volume, MODEL))
        mstep.finish()
        losses.append(mstep.last.loss)
    assert losses[-1] < losses[0] - 0.02
    assert mstep.last.images == 150
    assert mstep.last.power_gs.shape == (1, 16)


def test_a_smaller_radius_is_a_prefix_of_the_loss(tiny_set):
    """Marching sees the first samples alone: its power per shell is that of the whole, cut."""
    observed, powers = tiny_set.observed(np.arange(20)), []
    for radius in (15, 8):
        volume, encoder, mstep = trained(tiny_set, 4096)
        mstep.begin(radius)
        mstep.update(observed, encoder(observed, volume, MODEL))
        mstep.finish()
        powers.append(mstep.last.power_gs)
    assert powers[1].shape == (1, 9)
    torch.testing.assert_close(powers[1][:, :8], powers[0][:, :8])


def test_26_a_poisoned_batch_is_skipped_and_a_hundredth_of_an_epoch_ends_it(tiny_set):
    volume, encoder, mstep = trained(tiny_set, 4096)
    mstep.begin(15, batches=400)
    good = tiny_set.observed(np.arange(8))
    bad = dataclasses.replace(good, sample_bk=good.sample_bk * float("nan"))
    before = [p.clone() for p in [*volume.parameters(), *encoder.parameters()]]
    mstep.update(bad, encoder(good, volume, MODEL))
    assert all(torch.equal(p, q) for p, q in zip(before, [*volume.parameters(), *encoder.parameters()], strict=True))
    mstep.update(good, encoder(good, volume, MODEL))
    assert any(not torch.equal(p, q) for p, q in zip(before, volume.parameters(), strict=True))
    mstep.finish()
    assert (mstep.last.skipped, mstep.last.images) == (1, 8)
    for _ in range(3):
        mstep.update(bad, encoder(good, volume, MODEL))
    with pytest.raises(DivergedError, match="batch that starts with row 1"):
        mstep.update(bad, encoder(good, volume, MODEL))


def with_table(dataset, refine="none", learning_rate=0.1):
    torch.manual_seed(0)
    volume = FieldVolume(dataset.box, dataset.lattice.radius, 2, width=16, layers=1)
    estep = with_refinement(Table(torch.randn(len(dataset), 2), 1.0, learning_rate), refine, len(dataset))
    return volume, estep, Gradient(volume, estep, MODEL, 1e-3, dataset)


def test_38_rows_that_are_not_in_the_batch_do_not_move(tiny_set):
    """Also after they have been in one, when a dense Adam would let them drift on."""
    volume, table, mstep = with_table(tiny_set)
    first, second = tiny_set.observed(np.arange(10)), tiny_set.observed(np.arange(5, 20))
    for observed in (first, second, second):
        before = table.rows.weight.detach().clone()
        mstep.update(observed, table(observed, volume, MODEL))
        moved_n = (table.rows.weight.detach() != before).any(1)
        assert moved_n[observed.index_b].all()
        assert moved_n.sum() == len(observed)
    assert (
        mstep.row_optimizer.state[table.rows.weight]["steps_taken"].tolist() == [1] * 5 + [3] * 5 + [2] * 10 + [0] * 130
    )


def test_row_adam_is_adam_where_all_rows_are_present():
    torch.manual_seed(1)
    rows = Rows(6, 3, learning_rate=0.05)
    dense = torch.zeros(6, 3, requires_grad=True)
    ours, adam = RowAdam([rows]), torch.optim.Adam([dense], lr=0.05)
    for _ in range(20):
        gradient = torch.randn(6, 3)
        (rows(torch.arange(6)) * gradient).sum().backward()
        dense.grad = gradient
        ours.step()
        adam.step()
        ours.zero_grad()
    torch.testing.assert_close(rows.weight.detach(), dense.detach(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("on_map", [False, True], ids=["network", "map and network"])
def test_the_gradient_of_a_pose_is_that_of_finite_differences(tiny, tiny_set, on_map):
    """∂/∂ω and ∂/∂t of Σ|X̃ − X̂|², in float64 but for the map's interpolation."""
    torch.manual_seed(0)
    volume = FieldVolume(32, 6.0, 2, width=16, layers=1, on_map=on_map)
    if on_map:
        volume.start_from(true_linear(tiny))
    observed, z_bhq = tiny_set.observed(np.arange(3)).prefix(6), torch.randn(3, 1, 2)

    def misfit(turn_b3, move_b2):
        rotation_b33 = turned(observed.rotation_b33, turn_b3)
        shift_b2 = observed.shift_b2 + move_b2
        return -MODEL.log_likelihood(volume, observed, rotation_b33[:, None], shift_b2[:, None], z_bhq)[:, 0]

    turn_b3, move_b2 = (torch.zeros(3, n, requires_grad=True) for n in (3, 2))
    misfit(turn_b3, move_b2).sum().backward()
    step = 2e-3
    for found, variable in ((turn_b3.grad, 0), (move_b2.grad, 1)):
        for axis in range(found.shape[1]):
            change = torch.zeros_like(found)
            change[:, axis] = step
            ends = []
            for sign in (1, -1):
                moved = [torch.zeros(3, 3), torch.zeros(3, 2)]
                moved[variable] = sign * change
                with torch.no_grad():
                    ends.append(misfit(*moved))
            slope_b = (ends[0] - ends[1]) / (2 * step)
            assert (slope_b - found[:, axis]).norm() < 0.05 * found.norm() / found.shape[1] ** 0.5


def test_a_turned_image_is_turned_by_the_angle():
    turn = torch.tensor([[0.0, 0.0, 0.3], [0.0, 0.0, 0.0], [1e-9, 0.0, 0.0]])
    rotation = turned(torch.eye(3).expand(3, 3, 3), turn)
    assert rotation[0, 1, 0].item() == pytest.approx(np.sin(0.3))
    torch.testing.assert_close(rotation[1], torch.eye(3))
    assert rotation[2, 2, 1].item() == pytest.approx(1e-9)


def test_poses_are_refined_back(tiny, tiny_set):
    """Known map, poses spoilt by 3° and a pixel: gradient steps on the tables alone bring most of it back."""
    volume = true_linear(tiny)
    rng = torch.Generator().manual_seed(0)
    estep = PoseTable(Known(), len(tiny_set), "both")
    estep.arrive(1)
    clean = tiny_set.observed(np.arange(60)).prefix(10)
    known = Known()(clean, volume, MODEL)
    sample_bk = MODEL.predict(volume, clean, known.rotation_bh33, known.shift_bh2, known.z_bhq)[:, 0]
    wrong = dataclasses.replace(
        clean,
        sample_bk=30 * sample_bk,
        ctf_bk=30 * clean.ctf_bk,
        rotation_b33=turned(clean.rotation_b33, 0.05 * torch.randn(60, 3, generator=rng)),
        shift_b2=clean.shift_b2 + torch.randn(60, 2, generator=rng),
    )
    optimizer = RowAdam([estep.turn, estep.move])
    for _ in range(200):
        found = estep(wrong, volume, MODEL)
        residual = MODEL.residual(volume, wrong, found.rotation_bh33, found.shift_bh2, found.z_bhq)
        (residual.abs() ** 2).sum().add(found.penalty_b.sum()).backward()
        optimizer.step()
        optimizer.zero_grad()

    def errors(rotation_b33, shift_b2):
        trace_b = (rotation_b33 * clean.rotation_b33).sum((1, 2))
        return torch.rad2deg(((trace_b - 1) / 2).clamp(-1, 1).arccos()).median(), (shift_b2 - clean.shift_b2).norm(
            dim=1
        ).median()

    found = estep(wrong, volume, MODEL)
    before, after = (
        errors(wrong.rotation_b33, wrong.shift_b2),
        errors(found.rotation_bh33[:, 0], found.shift_bh2[:, 0]),
    )
    assert after[0] < 0.4 * before[0]
    assert after[1] < 0.2 * before[1]


def test_a_table_finds_z_and_its_covariance(tiny, tiny_set):
    """V = V₀ + z V₁ and unit noise: Laplace's covariance is (2 Re JᴴJ + β)⁻¹, and z errs by as much."""
    rng = torch.Generator().manual_seed(2)
    maps = torch.stack([torch.tensor(read_map(tiny / f"vols/{i:03d}.mrc")[0]) for i in (0, 2)])
    volume = LinearVolume.of(torch.stack([maps.mean(0), 0.5 * (maps[0] - maps[1])]), 15.0)
    true_nq = torch.randn(150, 1, generator=rng)
    observed = tiny_set.observed(np.arange(150))
    known = Hypotheses.at_given_poses(observed, true_nq)
    clean = MODEL.predict(volume, observed, known.rotation_bh33, known.shift_bh2, known.z_bhq)[:, 0]
    noise = torch.view_as_complex(torch.randn(*clean.shape, 2, generator=rng) / 2**0.5)
    observed = dataclasses.replace(observed, sample_bk=clean + noise)
    table = Table(torch.zeros(150, 1), beta=1.0, learning_rate=0.1)
    for _ in range(7):
        table.locate(observed, volume, MODEL)
    table.measure(observed, volume, MODEL)
    error_n = (table.rows.weight.detach() - true_nq)[:, 0]
    deviation_n = table(observed, volume, MODEL).z_cov_bhqq[:, 0, 0, 0].sqrt()
    score_n = error_n / deviation_n
    assert deviation_n.min() > 0
    assert 0.8 < score_n.std().item() < 1.2


def test_going_back_to_the_start_forgets_the_moments(tiny_set):
    """A state saved before the first step, loaded after some: the next step is a first step again."""
    ends = []
    for steps in (0, 5):
        volume, encoder, mstep = trained(tiny_set, 4096)
        start = {name: value.clone() for name, value in volume.state_dict().items()}
        state = {name: value.clone() for name, value in mstep.state().items()}
        for _ in range(steps):
            observed = tiny_set.observed(np.arange(20, 40))
            mstep.update(observed, encoder(observed, volume, MODEL))
        volume.load_state_dict(start)
        encoder.load_state_dict(trained(tiny_set, 4096)[1].state_dict())
        mstep.load(state)
        observed = tiny_set.observed(np.arange(8))
        mstep.update(observed, encoder(observed, volume, MODEL))
        ends.append(torch.cat([p.detach().flatten() for p in volume.parameters()]))
    assert torch.equal(*ends)


def test_heads_are_exact_to_float32():
    trunk = ResidualTrunk(16, 1, 2)
    value = trunk(torch.randn(50, 16).bfloat16())
    assert value.dtype == torch.float32
    assert (value != value.bfloat16().float()).float().mean() > 0.9


@pytest.mark.parametrize("conditioning", ["input", "film"])
def test_z_acts_in_either_conditioning(conditioning):
    torch.manual_seed(0)
    volume = FieldVolume(32, 15.0, 2, width=16, layers=2, conditioning=conditioning)
    point_bk3 = torch.randn(3, 50, 3)
    here, there = (volume(point_bk3, z_bq) for z_bq in (torch.zeros(3, 2), torch.ones(3, 2)))
    assert (here - there).norm() > 1e-3 * here.norm()
