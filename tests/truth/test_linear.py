"""Linear volumes fitted to images drawn from the model itself: what was put in must come out, with its uncertainty."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from morphem.data.dataset import Dataset, Source
from morphem.data.simulation import Simulation
from morphem.data.synthetic import simulate
from morphem.ensemble import Ensemble
from morphem.errors import InputError
from morphem.evaluation.truth import Truth
from morphem.inference import choosing
from morphem.inference import classes as splitting
from morphem.inference.consensus import start
from morphem.inference.expectation import Model
from morphem.inference.linear import JointSpace, Latents, latents, located, placed
from morphem.inference.marching import March
from morphem.inference.reliability import believed, reliability
from morphem.inference.settings import LinearSettings
from morphem.inference.subspaces import Subspaces
from morphem.io.mrc import read_map, write_map
from morphem.methods import fit, load
from morphem.models.image_model import ImageModel
from morphem.models.volume import LinearVolume
from morphem.physics import cube as cubes
from morphem.run import Compute, Run

BOX, IMAGES, VARIANCES = 32, 1500, [9.0, 4.0, 2.0]


@dataclass
class Drawn:
    """A dataset drawn from a model, the model, and what was hidden in each image."""

    dataset: Dataset
    volume: LinearVolume
    z_nq: np.ndarray
    class_n: np.ndarray
    contrast_n: np.ndarray


@pytest.fixture(scope="module")
def still(tmp_path_factory):
    """Poses, shifts and CTFs of images of one map."""
    folder = tmp_path_factory.mktemp("drawn") / "still"
    simulate(folder, Simulation(kind="still", images=IMAGES, box=BOX, pixel_size=6.0, snr=1.0))
    return Dataset.open(Source(folder / "particles.star"))


def smooth(count: int, seed: int) -> torch.Tensor:
    """Random maps within a ball, low-passed, of norm 1."""
    rng = torch.Generator().manual_seed(seed)
    noise = cubes.lowpass(torch.randn(count, BOX, BOX, BOX, generator=rng), 6) * ball(7)
    return noise / noise.flatten(1).norm(dim=1)[:, None, None, None]


def ball(radius: float) -> torch.Tensor:
    """A density that is about 1 within a radius, and smooth."""
    axes = torch.meshgrid(*[torch.arange(BOX) - BOX // 2] * 3, indexing="ij")
    return torch.exp(-((torch.stack(axes).float().norm(dim=0) / radius) ** 4))


def drawn(still: Dataset, q: int, classes: int = 1, spread: float = 0.0, noise: float = 100.0, seed: int = 0) -> Drawn:
    """Balls with a texture of their class; eigenvolumes of variance 9, 4, 2; white noise."""
    rng = np.random.default_rng(seed)
    mean_czyx = 0.3 * ball(8) + 5 * smooth(classes, seed)
    modes = (
        [orthogonal(smooth(q, seed + 1 + c), VARIANCES[:q]) for c in range(classes)] if q else [mean_czyx[:0]] * classes
    )
    by_class = [torch.cat([mean_zyx[None], mode]) for mean_zyx, mode in zip(mean_czyx, modes, strict=True)]
    volume = LinearVolume.of(torch.cat(by_class), still.lattice.radius, padding=2)
    z_nq, class_n = rng.standard_normal((len(still), q)), rng.integers(classes, size=len(still))
    contrast_n = 1 + spread * rng.standard_normal(len(still))
    white = still.with_noise(torch.ones_like(still.noise_gs))
    parts = []
    for observed in white.batches(250):
        feature_brcj = ImageModel().features(volume, observed).unflatten(-1, (classes, -1))
        row = observed.index_b
        phi_bj = contrast_n[row, None] * np.column_stack([np.ones(len(row)), z_nq[row]])
        own_brj = feature_brcj[torch.arange(len(row)), :, class_n[row]]
        centred_br = torch.einsum("brj,bj->br", own_brj, torch.from_numpy(phi_bj).float())
        signal_bk = torch.view_as_complex(centred_br.unflatten(1, (-1, 2)).contiguous())
        parts.append(signal_bk * observed.lattice.shift_phase(observed.shift_b2))
    clean_nk = torch.cat(parts)
    random = torch.from_numpy(rng.standard_normal((*clean_nk.shape, 2)).astype(np.float32))
    packed_nk = clean_nk + torch.view_as_complex(random) * (noise / 2) ** 0.5
    dataset = dataclasses.replace(white, packed_nk=packed_nk, noise_gs=torch.full_like(still.noise_gs, noise))
    return Drawn(dataset, volume, z_nq, class_n, contrast_n)


def orthogonal(mode_qzyx: torch.Tensor, variances: list[float]) -> torch.Tensor:
    """Orthogonal maps of squared norms `variances`."""
    flat_vq = torch.linalg.qr(mode_qzyx.flatten(1).mT)[0] * torch.tensor(variances).sqrt()
    return flat_vq.mT.unflatten(1, mode_qzyx.shape[1:])


def march(truth: Drawn, tmp_path, **settings) -> March:
    run = Run(tmp_path / "run", Compute())
    dataset, consensus = start(truth.dataset, run, None)
    return March.of(dataset, dataset.halves(0), consensus, LinearSettings(**settings), run)


@pytest.fixture(scope="module")
def fitted(still, tmp_path_factory):
    """Images of a mean and three eigenvolumes, and the fit to them."""
    truth = drawn(still, 3)
    one = march(truth, tmp_path_factory.mktemp("linear"))
    model, dataset = one.finished(one.subspace(3))
    return truth, dataset, *placed(dataset, model)


def test_eigenvalues_are_those_of_the_truth(fitted):
    _, _, space, found = fitted
    variance_q = (space.volume.map_czyx[1:] ** 2).flatten(1).sum(1)
    assert ((variance_q / torch.tensor(VARIANCES) > 0.8) & (variance_q / torch.tensor(VARIANCES) < 1.25)).all()
    second_q = (found.z_nd**2).mean(0) + found.cov_ndd.diagonal(axis1=1, axis2=2).mean(0)
    np.testing.assert_allclose(second_q, 1, atol=0.08)


def covered(truth: Drawn, space: JointSpace, found: Latents, level: float) -> float:
    """The share of images whose true z, in fitted coordinates, lies within the ellipsoid that is to hold `level`."""
    fit_jv, true_jv = (volume.map_czyx.flatten(1).double() for volume in (space.volume, truth.volume))
    gram_dd = fit_jv[1:] @ fit_jv[1:].mT
    turn_dq = torch.linalg.solve(gram_dd, fit_jv[1:] @ true_jv[1:].mT).numpy()
    shift_d = torch.linalg.solve(gram_dd, fit_jv[1:] @ (true_jv[0] - fit_jv[0])).numpy()
    apart_nd = truth.z_nq @ turn_dq.T + shift_d - found.z_nd
    distance_n = np.einsum("nd,nd->n", apart_nd, np.linalg.solve(found.cov_ndd, apart_nd[..., None])[..., 0])
    return float((distance_n < chi2(apart_nd.shape[1]).ppf(level)).mean())


def test_the_uncertainty_covers_the_truth(fitted):
    truth, _, space, found = fitted
    for level, short in ((0.5, 0.09), (0.9, 0.07), (0.95, 0.05)):  # few images: what the maps lack is not in it
        assert level - short < covered(truth, space, found, level) < level + 0.02


def of_truth(truth: Drawn, scale_q: list[float]) -> tuple[Model, JointSpace]:
    """The true model and its space, axes stretched."""
    map_czyx = truth.volume.map_czyx.clone()
    map_czyx[1:] *= torch.tensor(scale_q)[:, None, None, None]
    model = Model(LinearVolume.of(map_czyx, truth.volume.radius, padding=2), Subspaces(1, len(scale_q)))
    return model, JointSpace(
        model.volume, torch.zeros(1, len(scale_q)).double(), torch.eye(len(scale_q))[None].double()
    )


def test_either_half_of_the_samples_places_images_as_surely_as_the_true_model_expects(fitted):
    truth = fitted[0]
    seen_d, told_d = reliability(truth.dataset, *of_truth(truth, [1, 1, 1]), np.arange(IMAGES))
    np.testing.assert_allclose(seen_d, told_d, atol=0.03)
    z_bd, _, _ = located(truth.dataset.observed(np.arange(IMAGES)), *of_truth(truth, [1, 1, 1]))
    true_d = [np.corrcoef(z_bd[:, d].numpy(), truth.z_nq[:, d])[0, 1] ** 2 for d in range(3)]
    np.testing.assert_allclose(seen_d, true_d, atol=0.03)


def test_an_axis_that_is_too_long_is_shortened_until_the_images_agree(still, tmp_path):
    """The second eigenvolume is three times as long as in truth: what the images say brings it back."""
    truth = drawn(still, 3, noise=3000.0)
    model, space = of_truth(truth, [1, 3, 1])
    before = latents(truth.dataset, model, space)
    space, found = believed(truth.dataset, model, space, before, Run(tmp_path, Compute()))
    length_d = space.volume.map_czyx[1:].flatten(1).norm(dim=1) / torch.tensor(VARIANCES).sqrt()
    np.testing.assert_allclose(length_d[[0, 2]], 1, rtol=1e-4)
    assert 0.8 < float(length_d[1]) < 1.7
    assert found.z_nd[:, 1].std() > 1.5 * before.z_nd[:, 1].std()
    told = Run(tmp_path, Compute()).history()[-1]
    assert told["expected"][1] - 0.05 < told["seen"][1] < 0.8


@pytest.mark.slow
def test_the_uncertainty_covers_the_truth_where_maps_are_good(tmp_path):
    simulate(tmp_path / "still", Simulation(kind="still", images=5000, box=BOX, pixel_size=6.0, snr=1.0))
    truth = drawn(Dataset.open(Source(tmp_path / "still/particles.star")), 3)
    one = march(truth, tmp_path)
    model, dataset = one.finished(one.subspace(3))
    space, found = placed(dataset, model)
    for level, tolerance in ((0.5, 0.03), (0.9, 0.02), (0.95, 0.02)):
        assert abs(covered(truth, space, found, level) - level) < tolerance


@pytest.mark.slow
@pytest.mark.parametrize("snr", [0.01, 0.1])
def test_eigenvalues_are_not_inflated_by_noise(tmp_path, snr):
    """Their sum against that of the true maps' covariance: at most half as much again, and no less than two thirds."""
    simulate(tmp_path / "hinge", Simulation(kind="hinge", images=5000, snr=snr))
    config = load("variability").Config(latent_dim=6)
    dataset = Dataset.open(Source(tmp_path / "hinge/particles.star"))
    volume = fit("variability", dataset, config, Run(tmp_path / "run", Compute())).volume
    known = Truth.open(tmp_path / "hinge")
    map_mv = np.stack([known.map(state).ravel() for state in range(len(known.maps))])
    share_m = np.bincount(known.state_n) / len(known.state_n)
    about_mv = (map_mv - share_m @ map_mv) * np.sqrt(share_m)[:, None]
    true_q = np.linalg.eigvalsh(about_mv @ about_mv.T)[-6:]
    assert 2 / 3 < float((volume.map_czyx[1:] ** 2).sum()) / true_q.sum() < 1.5


def test_the_noise_is_measured_beneath_what_moves(fitted):
    _, dataset, space, _ = fitted
    np.testing.assert_allclose(dataset.noise_gs[0, 1 : int(space.volume.radius)], 100, rtol=0.04)


def test_contrast_does_not_leak_into_z(still, tmp_path):
    truth = drawn(still, 2, spread=0.2)
    one = march(truth, tmp_path, free_contrast=True)
    model, dataset = one.finished(one.subspace(2))
    _, found = placed(dataset, model)
    design = np.column_stack([np.ones(len(found.z_nd)), found.z_nd])
    explained = design @ np.linalg.lstsq(design, truth.contrast_n, rcond=None)[0]
    assert np.corrcoef(explained, truth.contrast_n)[0, 1] ** 2 < 0.05
    assert model.estep.contrast_variance == pytest.approx(0.04, rel=0.3)


def test_held_out_images_choose_the_dimensions_that_were_put_in(still, tmp_path, monkeypatch):
    monkeypatch.setattr(choosing, "DIMENSIONS", (1, 2, 3))
    assert choosing.dimensions(march(drawn(still, 2), tmp_path, starts=1)).estep.latent_dim == 2


def test_held_out_images_choose_the_classes_that_were_put_in(still, tmp_path):
    one = march(drawn(still, 0, classes=3), tmp_path, starts=1)
    assert choosing.classes(*one.wide()).classes == 3


@pytest.mark.parametrize("noise", [100.0, 1e5], ids=["homogeneous", "noise"])
def test_held_out_images_choose_one_map_where_nothing_moves(still, tmp_path, noise):
    model = choosing.dimensions(march(drawn(still, 0, noise=noise), tmp_path, starts=1))
    assert (model.classes, model.estep.latent_dim) == (1, 0)


@pytest.mark.parametrize("name", ["classify", "mixture"])
def test_classes_are_found(still, tmp_path, name):
    truth = drawn(still, 0 if name == "classify" else 1, classes=3)
    settings = {"latent_dim": 1} if name == "mixture" else {}
    config = load(name).Config(classes=3, starts=1, **settings)
    ensemble = fit(name, truth.dataset, config, Run(tmp_path / "run", Compute()))
    assert agreement(truth.class_n, ensemble) > 0.98


def agreement(class_n: np.ndarray, ensemble: Ensemble) -> float:
    """The share of images in the class that most of theirs are in."""
    label_n = ensemble.weight_nc.argmax(1)
    return sum(np.bincount(label_n[class_n == c]).max() for c in np.unique(class_n)) / len(class_n)


def test_classes_start_from_given_maps(still, tmp_path):
    from morphem.io.mrc import write_map

    truth = drawn(still, 0, classes=2)
    paths = tuple(tmp_path / f"{c}.mrc" for c in range(2))
    for path, map_zyx in zip(paths, truth.volume.map_czyx.numpy(), strict=True):
        write_map(path, map_zyx, 6.0)
    config = load("classify").Config(init=paths)
    assert agreement(truth.class_n, fit("classify", truth.dataset, config, Run(tmp_path / "run", Compute()))) > 0.98


def test_the_joint_space_of_one_map_is_a_point(still):
    assert len(JointSpace.of(Model(drawn(still, 0).volume, Subspaces(1, 0))).volume.map_czyx) == 1


def test_a_cluster_has_no_more_axes_than_its_space():
    """A cluster that is flat along one of two axes, and asked for three."""
    z_nw = np.column_stack([np.random.default_rng(0).standard_normal(500), np.full(500, 2.0)])
    found = splitting._frame(z_nw, 3)
    assert found.shape == (2, 4) and (found[:, 3] == 0).all()
    np.testing.assert_allclose(found[:, 0], [0, 2], atol=0.2)
    np.testing.assert_allclose(found[:, 1:] @ found[:, 1:].T, [[1, 0], [0, 0]], atol=0.2)


def test_few_images_are_fitted_or_refused(tmp_path):
    simulate(tmp_path / "few", Simulation(kind="hinge", images=20, box=BOX, pixel_size=6.0, snr=1.0))
    config = load("variability").Config(latent_dim=1, starts=1, held_out=0.001, halves=True)
    dataset = Dataset.open(Source(tmp_path / "few/particles.star"))
    assert np.isfinite(fit("variability", dataset, config, Run(tmp_path / "run", Compute())).z_nq).all()
    with pytest.raises(InputError, match="19 images are too few"):
        config.check(range(19))


def test_half_sets_fitted_apart_share_nothing(still, tmp_path):
    """Other images in the second half leave the first half's maps as they are, bit for bit."""
    truth = drawn(still, 2)
    config = load("variability").Config(latent_dim=2, halves=True, starts=1)
    ensemble = fit("variability", truth.dataset, config, Run(tmp_path / "one", Compute()))
    for z_n, true_n in zip(ensemble.z_nq.T, truth.z_nq.T, strict=True):
        assert abs(np.corrcoef(z_n, true_n)[0, 1]) > 0.9
    other_nk = truth.dataset.packed_nk.clone()
    other_nk[truth.dataset.halves(0)[1]] *= 0.5
    other = dataclasses.replace(truth.dataset, packed_nk=other_nk)
    fit("variability", other, config, Run(tmp_path / "two", Compute()))
    for name in ("mean.mrc", "eigenvolume_001.mrc"):
        first, again = (tmp_path / run / "maps/half1" / name for run in ("one", "two"))
        assert first.read_bytes() == again.read_bytes()
        second, changed = (tmp_path / run / "maps/half2" / name for run in ("one", "two"))
        assert second.read_bytes() != changed.read_bytes()


def maps_of(tmp_path, half: int, name: str, count: int) -> np.ndarray:
    """(count, voxels) of a half-set."""
    folder = tmp_path / "run" / "maps" / f"half{half}"
    return np.stack([read_map(folder / f"{name}_{number:03d}.mrc")[0].ravel() for number in range(1, count + 1)])


def test_half_sets_that_share_no_axes_leave_each_other_their_size(still, tmp_path):
    """More dimensions than there are: axes of noise are turned, not stretched, and z keeps its variance."""
    truth = drawn(still, 1)
    config = load("variability").Config(latent_dim=4, halves=True, starts=1)
    ensemble = fit("variability", truth.dataset, config, Run(tmp_path / "run", Compute()))
    norms = [np.linalg.norm(maps_of(tmp_path, half, "eigenvolume", 4)) for half in (1, 2)]
    assert np.linalg.norm(norms[1]) < 2 * np.linalg.norm(norms[0])
    for half in (1, 2):
        rows = ensemble.half_n == half
        power = (ensemble.z_nq[rows] ** 2).mean(0) + ensemble.uncertainty_nqq[rows].diagonal(axis1=1, axis2=2).mean(0)
        np.testing.assert_allclose(power, 1, atol=0.35)


def test_half_sets_number_their_classes_alike(still, tmp_path):
    truth = drawn(still, 0, classes=3)
    config = load("classify").Config(classes=3, halves=True, starts=1)
    ensemble = fit("classify", truth.dataset, config, Run(tmp_path / "run", Compute()))
    maps = np.stack([maps_of(tmp_path, half, "class", 3) for half in (1, 2)])
    apart = maps - maps.mean(1, keepdims=True)
    for number in range(3):
        assert np.corrcoef(apart[0, number], apart[1, number])[0, 1] > 0.5
    found_n = ensemble.weight_nc.argmax(1)
    pair_n = 3 * truth.class_n + found_n
    tables = [np.bincount(pair_n[ensemble.half_n == half], minlength=9).reshape(3, 3) for half in (1, 2)]
    assert (tables[0].argmax(1) == tables[1].argmax(1)).all()


def test_a_soft_mask_is_not_multiplied_on_after_convergence(still, tmp_path):
    """One that is given, of a half everywhere, says where maps may be, and no more."""
    truth = drawn(still, 1)
    one = march(truth, tmp_path)
    model = one.climb(one.subspace(1))
    one = dataclasses.replace(one, consensus=dataclasses.replace(one.consensus, masked=True))
    half_zyx = 0.5 * (one.consensus.mask_zyx > 0).astype(np.float32)
    completed = one._completed(model, half_zyx)
    inside = torch.from_numpy(half_zyx > 0)
    before, after = (m.on(BOX).volume.map_czyx[:, inside] for m in (model, completed))
    assert float((before[1] - after[1]).norm() / before[1].norm()) < 1e-5
    assert float(after[0].norm() / before[0].norm()) > 0.9


def test_a_mask_of_one_voxel_breaks_nothing(still, tmp_path):
    truth = drawn(still, 1)
    mask_zyx = np.zeros((BOX,) * 3, np.float32)
    mask_zyx[BOX // 2, BOX // 2, BOX // 2] = 1
    write_map(tmp_path / "mask.mrc", mask_zyx, truth.dataset.pixel_A)
    config = load("variability").Config(latent_dim=1, starts=1, mask=tmp_path / "mask.mrc")
    ensemble = fit("variability", truth.dataset, config, Run(tmp_path / "run", Compute()))
    assert np.isfinite(ensemble.z_nq).all()


@pytest.mark.parametrize("seed", range(4))
def test_noise_has_no_dimensions(tmp_path, seed):
    simulate(tmp_path / "set", Simulation(kind="still", images=400, box=BOX, pixel_size=6.0, snr=1e-9, seed=seed))
    dataset = Dataset.open(Source(tmp_path / "set" / "particles.star"))
    ensemble = fit(
        "variability", dataset, load("variability").Config(starts=1), Run(tmp_path / "run", Compute(seed=seed))
    )
    assert ensemble.latent_dim == 0


@pytest.mark.parametrize("given", [{"classes": 2}, {"latent_dim": 2}])
def test_a_mixture_chooses_what_is_not_given(still, tmp_path, monkeypatch, given):
    monkeypatch.setattr(choosing, "BOTH", (2, 4))
    monkeypatch.setattr(choosing, "CLASSES", (2, 3))
    truth = drawn(still, 2, classes=2)
    config = load("mixture").Config(starts=1, **given)
    fit("mixture", truth.dataset, config, Run(tmp_path / "run", Compute()))
    maps = tmp_path / "run" / "maps"
    assert len(list(maps.glob("class_00?.mrc"))) == 2
    assert len(list(maps.glob("class_001_eigenvolume_*.mrc"))) >= 2


def test_maps_with_holes_are_refused(still, tmp_path):
    map_zyx = np.zeros((BOX,) * 3, np.float32)
    map_zyx[3, 3, 3] = np.nan
    write_map(tmp_path / "holes.mrc", map_zyx, still.pixel_A)
    config = load("classify").Config(init=(tmp_path / "holes.mrc",))
    with pytest.raises(InputError, match="holds a voxel that is not finite"):
        fit("classify", still, config, Run(tmp_path / "run", Compute()))


def test_classes_that_no_images_fill_are_said(still, tmp_path, capsys):
    truth = drawn(still, 0, classes=2)
    ensemble = fit("classify", truth.dataset, load("classify").Config(classes=60, starts=1), Run(tmp_path / "run"))
    assert ensemble.weight_nc.shape[1] < 60
    assert "--classes 60: the images fill only" in capsys.readouterr().err
