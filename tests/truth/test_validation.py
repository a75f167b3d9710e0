"""Validation against sets whose truth is known, and its arithmetic against dense Gaussians."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from morphem import methods
from morphem.cli import main
from morphem.data.dataset import Dataset, Source
from morphem.data.simulation import Simulation
from morphem.data.synthetic import simulate
from morphem.ensemble import Ensemble
from morphem.evaluation import Validation, scores
from morphem.evaluation.checks import CHECKS, DECISIVE, load
from morphem.evaluation.checks.collapse import reliabilities
from morphem.evaluation.checks.halves import canonical, reproducible
from morphem.evaluation.checks.junk import probabilities
from morphem.evaluation.checks.leakage import predicted, whitened
from morphem.evaluation.checks.maps import _mirror, _mirrored
from morphem.evaluation.checks.seeds import foretold
from morphem.evaluation.imaging import ERRORS, of_errors
from morphem.evaluation.latents import information_imbalance
from morphem.evaluation.refits import Fit, simulated
from morphem.evaluation.states import States
from morphem.evaluation.truth import Truth
from morphem.evaluation.validation import Check, validate, whole_verdict
from morphem.inference.clusters import cluster
from morphem.io.mrc import read_map
from morphem.models.image_model import ImageModel
from morphem.models.volume import LinearVolume
from morphem.physics import cube as cubes
from morphem.physics.fsc import fsc, resolution
from morphem.physics.rotations import about
from morphem.run import Compute, Run

CONTROLS = {
    "hinge": ({"kind": "hinge"}, ("holds",)),
    "assembly": ({"kind": "assembly"}, ("holds",)),
    "junk": ({"kind": "hinge", "junk": 0.2}, ("holds",)),
    "still": ({"kind": "still"}, ("doubtful", "fails")),
    "noise": ({"kind": "still", "snr": 1e-6}, ("doubtful", "fails")),
    "poses": ({"kind": "still", "rotation_error": 5.0}, ("doubtful", "fails")),
    "optics": ({"kind": "still", "contrast_spread": 0.2, "defocus_error": 1500.0}, ("doubtful", "fails")),
    "shuffled": ({"kind": "hinge"}, ("doubtful", "fails")),
}
"""What is simulated, and what may be said of it."""


@pytest.fixture(scope="module")
def still(tiny) -> tuple[LinearVolume, Dataset]:
    """A map and 40 images, whitened by noise of power 1."""
    dataset = Dataset.open(Source(tiny / "particles.star"), radius=9).take(np.arange(40))
    dataset = dataset.with_noise(torch.ones_like(dataset.noise_gs))
    map_zyx = torch.tensor(read_map(tiny / "vols" / "000.mrc")[0])
    return LinearVolume.of(map_zyx[None], 9.0), dataset


def test_states_are_the_same_maps_about_their_mean_in_uncorrelated_components():
    rng = np.random.default_rng(0)
    volume = LinearVolume.of(torch.from_numpy(rng.normal(size=(4, 16, 16, 16))).float(), 5.0)
    z_nq = rng.normal(size=(50, 3)).astype(np.float32) + 1
    found = States.of(volume, z_nq)
    moment_jj = (found.phi_mj * found.weight_m[:, None]).T @ found.phi_mj
    np.testing.assert_allclose(moment_jj, np.eye(4), atol=1e-6)
    assert (np.diff(found.power_j) < 0).all()
    drawn = np.random.default_rng(0).permutation(50)
    there = cubes.resampled(volume.maps(torch.from_numpy(z_nq[drawn])), 16)
    np.testing.assert_allclose(found.maps(found.phi_mj), there, atol=2e-5)


def test_states_of_a_network_are_its_decoded_maps(tmp_path, tiny):
    main_ok("fit", "vae", tiny / "particles.star", "-o", tmp_path / "run", "--epochs", 1, "--width", 16, "--zdim", 2)
    ensemble = Ensemble.open(tmp_path / "run")
    found = States.of(ensemble.volume, ensemble.z_nq)
    assert found.weight_m.sum() == pytest.approx(1)
    mean_zyx = np.average(found.maps(found.phi_mj), axis=0, weights=found.weight_m)
    np.testing.assert_allclose(mean_zyx, found.volume.map_czyx[0], atol=1e-4 * float(found.volume.map_czyx.abs().max()))


@pytest.mark.parametrize(
    ("error", "amount"), [(name, 0.02) for name in ERRORS[:3]] + [("shift_x", 0.1), ("shift_y", 0.1)]
)
def test_errors_of_imaging_are_what_a_moved_molecule_adds(still, error, amount):
    volume, dataset = still
    observed, model, e = dataset.observed(np.arange(40)), ImageModel(), ERRORS.index(error)
    here = model.features(volume, observed)[..., 0]
    slope_bre = of_errors(volume, dataset, observed, here)
    if e < 3:
        turn = torch.from_numpy(about(amount * np.eye(3)[e : e + 1])[0]).float()
        moved = model.features(volume, dataclasses.replace(observed, rotation_b33=turn @ observed.rotation_b33))[..., 0]
    else:
        phase = observed.lattice.shift_phase(amount * torch.eye(2)[e - 3].expand(40, 2))
        moved = torch.view_as_real(torch.view_as_complex(here.unflatten(1, (-1, 2)).contiguous()) * phase).flatten(1)
    added, told = moved - here, amount * slope_bre[..., e]
    assert float((added - told).norm() / added.norm()) < 0.1


def test_errors_of_contrast_and_defocus_are_slopes_of_the_image(still):
    volume, dataset = still
    observed, model = dataset.observed(np.arange(40)), ImageModel()
    here = model.features(volume, observed)[..., 0]
    slope_bre = of_errors(volume, dataset, observed, here)
    torch.testing.assert_close(slope_bre[..., ERRORS.index("contrast")], here)
    nearer = dataclasses.replace(observed, ctf_bk=dataset.transfer(observed.index_b, 50.0))
    added = model.features(volume, nearer)[..., 0] - here
    assert float((added - 50 * slope_bre[..., ERRORS.index("defocus")]).norm() / added.norm()) < 0.1


def test_the_gain_of_features_is_that_of_dense_gaussians(still):
    volume, dataset = still
    several = States.of(
        LinearVolume.of(torch.cat([volume.map_czyx, volume.map_czyx.roll(3, 3) / 3]), 9.0), np.eye(2)[:, :1]
    )
    seen, model = scores.Seen.of(several, dataset, np.arange(40)), ImageModel()
    which, width = np.array([1, 7]), np.array([0.7, 0.2])
    observed = dataset.observed(np.arange(40))
    feature = model.features(several.volume, observed)
    feature = torch.cat(
        [feature, of_errors(LinearVolume.of(several.volume.map_czyx[:1], 9.0), dataset, observed, feature[..., 0])], -1
    )
    common = feature[..., 0] + feature[..., which] @ torch.tensor([0.3, -0.1])
    left, data = (model.centred(observed)[None] - torch.stack([common, feature[..., 0]])).double()
    design = (feature[..., which].double() * torch.from_numpy(width)).unflatten(1, (-1, 2))

    def log_density(samples: slice) -> torch.Tensor:
        a, y = design[:, samples].flatten(1, 2), left.unflatten(1, (-1, 2))[:, samples].flatten(1, 2)
        cov = a @ a.mT + 0.5 * torch.eye(a.shape[1], dtype=torch.float64)
        return torch.distributions.MultivariateNormal(torch.zeros_like(y), cov).log_prob(y)

    noise = torch.distributions.Normal(0.0, 0.5**0.5).log_prob(data).sum(1)
    halves = [log_density(slice(half, None, 2)) for half in (0, 1)]
    expected = 2 * log_density(slice(None)) - halves[0] - halves[1] - noise
    np.testing.assert_allclose(
        scores.Amounts(which, np.array([0.3, -0.1]), width).gain(seen), expected, rtol=1e-4, atol=0.02
    )


def test_the_gain_of_states_is_bayes_rule(still):
    volume, dataset = still
    maps = torch.cat([volume.map_czyx, volume.map_czyx.roll(2, 3) - volume.map_czyx])
    two = States.of(LinearVolume.of(maps, 9.0), np.array([[0.0], [1.0], [1.0]], np.float32))
    seen, model, observed = scores.Seen.of(two, dataset, np.arange(40)), ImageModel(), dataset.observed(np.arange(40))
    data, feature = model.centred(observed).double(), model.features(two.volume, observed).double()

    def likelihood(samples: slice) -> torch.Tensor:
        a, y = feature.unflatten(1, (-1, 2))[:, samples], data.unflatten(1, (-1, 2))[:, samples]
        left = y[..., None] - torch.einsum("brij,mj->brim", a, torch.from_numpy(two.phi_mj))
        return -(left**2).sum((1, 2))

    one, other = (likelihood(slice(half, None, 2)) for half in (0, 1))
    log_w = torch.from_numpy(np.log(two.weight_m))
    told = 2 * (one + other + log_w).logsumexp(1) - (one + log_w).logsumexp(1) - (other + log_w).logsumexp(1)
    along, left = feature[..., 1], data - feature[..., 0]
    common = (along * left).sum() / (along**2).sum()
    still = -((left - common * along) ** 2).sum(1)
    np.testing.assert_allclose(scores.gain_of_states(seen, two), told - still, rtol=1e-4, atol=0.02)


def test_widths_of_errors_are_those_of_simulated_images(tiny):
    dataset = Dataset.open(Source(tiny / "particles.star"))
    particles = dataset.particles.take(np.tile(np.arange(150), 10))
    packed = dataset.packed_nk[np.tile(np.arange(150), 10)]
    many = dataclasses.replace(
        dataset, particles=particles, packed_nk=packed, noise_gs=torch.ones_like(dataset.noise_gs)
    )
    volume = LinearVolume.of(torch.tensor(read_map(tiny / "vols" / "000.mrc")[0])[None] * 0.5, 12.0)
    fit = Fit(volume, np.zeros((1500, 0), np.float32), np.arange(1500), many)
    fit.__dict__["dataset"] = many
    width = np.array([0.02, 0.02, 0.02, 0.25, 0.25, 0.1, 0.0])
    seen = scores.Seen.of(fit.states, simulated(fit, np.arange(1500), np.ones((1500, 1)), width, 0), np.arange(1500))
    first = np.array([0.1, 0.1, 0.1, 1, 1, 0.5, 0.0])
    told = scores.Amounts.fitted(seen, seen.errors, first, np.arange(7) < 6)
    np.testing.assert_allclose(told.width_j[:6], width[:6], rtol=0.15)
    np.testing.assert_allclose(told.mean_j[:6], 0, atol=5 * width.max() / 1500**0.5)


def test_information_imbalance_is_1_for_strangers_and_near_0_for_the_same():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 1000, 3))
    assert information_imbalance(one, other) == pytest.approx(1, abs=0.03)
    assert information_imbalance(one, one * [1, 5, 0.2]) < 0.35
    assert information_imbalance(one[:, :1], 3 * one[:, :1] + 1) == pytest.approx(31 / 1000, rel=0.1)
    assert information_imbalance(one, one[:, :1]) < 0.5 < information_imbalance(one[:, :1], one)


def test_leaks_are_found_straight_or_bent():
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 2 * np.pi, 1500)
    z_nq = whitened(np.column_stack([np.cos(angle), rng.normal(size=(1500, 7)) * 0.5]))
    assert predicted(angle[:, None], z_nq)[0] > 0.9
    assert predicted(rng.normal(size=(1500, 2)), z_nq)[0] < 0.02
    assert predicted(angle[:, None], z_nq[:, :1])[0] > 0.5
    group = rng.integers(100, size=1500)
    assert predicted(group, z_nq)[0] < 0.04
    assert predicted(group, z_nq + rng.normal(size=(100, 8))[group])[0] == pytest.approx(0.45, abs=0.15)


def test_only_directions_that_fits_share_are_reproducible():
    rng = np.random.default_rng(0)
    shared, ones = rng.normal(size=(800, 1)), np.ones((800, 1))
    one, other = (
        np.hstack([ones, shared + 0.3 * rng.normal(size=(800, 1)), rng.normal(size=(800, 2))]) for _ in range(2)
    )
    assert reproducible(one, other, 0) == 1
    assert canonical(one, other)[0] == pytest.approx(1 / 1.09, abs=0.02)
    reliability = reliabilities(one, other)
    assert reliability[0] == pytest.approx(2 * (1 / 1.09) / (1 + 1 / 1.09), abs=0.02)
    assert (reliability[1:] < 0.2).all()
    assert foretold(one[:, 1:], other[:, 1:] @ np.diag([3.0, 0, 0]), np.ones(3))[0] == pytest.approx(0.84, abs=0.05)


def test_a_map_among_its_mirror_images_is_found(tiny):
    map_zyx = read_map(tiny / "vols" / "000.mrc")[0]
    other = read_map(tiny / "vols" / "002.mrc")[0]
    assert _mirrored(np.stack([map_zyx, other]), 0) == 0
    lopsided = sum(
        np.roll(map_zyx, shift, axes) * k for k, (shift, axes) in enumerate([(0, 0), (6, 0), (9, 1), (11, 2)])
    )
    assert _mirrored(np.stack([lopsided, _mirror(lopsided)]), 0) == 1


def test_the_share_of_junk_is_found():
    rng = np.random.default_rng(0)
    power = 30.0
    shown = np.concatenate([rng.normal(power / 2, power**0.5, 800), rng.normal(-power / 2, power**0.5, 200)])
    junk, share = probabilities(shown)
    assert share == pytest.approx(0.2, abs=0.01)
    assert junk[:800].mean() < 0.01 < 0.97 < junk[800:].mean()


def test_one_decisive_failure_fails_the_whole_and_another_leaves_doubt():
    fine = dict.fromkeys(CHECKS, Check("holds", ""))
    assert whole_verdict(fine)[0] == "holds"
    assert whole_verdict(fine | {"drift": Check("doubtful", "")})[0] == "holds"
    assert whole_verdict(fine | {"seeds": Check("fails", "why")}) == ("doubtful", "why")
    assert whole_verdict(fine | {"halves": Check("doubtful", "a"), "null": Check("fails", "b")}) == ("fails", "b")
    assert whole_verdict({"drift": Check("holds", "")})[0] == "cannot tell"


@pytest.mark.parametrize("name", CHECKS)
def test_every_check_says_what_it_asks(name):
    page = load(name)
    assert (
        page.__doc__
        and page.TITLE[0].isupper()
        and not page.TITLE.endswith(".")
        and {page.REFITS, page.LATENT} <= {True, False}
    )


def main_ok(*words: object) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*map(str, words), "--threads", "1"])
    assert not ended.value.code


def control(folder: Path, name: str, seed: int, **changes) -> Path:
    """A control set of 32 pixels; its table."""
    shape = {"images": 3000, "box": 32, "pixel_size": 6.0, "snr": 0.1, "seed": seed, "molecule_seed": seed}
    simulate(folder, Simulation(**(shape | changes | CONTROLS[name][0])))
    if name == "shuffled":
        source = Source(folder / "particles.star").open()
        order = np.random.default_rng(seed).permutation(len(source))
        dataclasses.replace(source, ctf=source.ctf.take(order), table=None).write(folder / "particles.star")
    return folder / "particles.star"


def judged(folder: Path, table: Path, method: str, **settings) -> tuple[dict, Ensemble]:
    config = methods.load(method).Config(latent_dim=4, **settings)
    dataset, run = Dataset.open(Source(table)), Run(folder, Compute(threads=1))
    ensemble = methods.fit(method, dataset, config, run)
    return validate(ensemble, Validation(), run.compute), ensemble


def found_A(told: dict) -> float:
    """The resolution of states that half-sets tell."""
    return next(check["value"] for check in told["checks"] if check["name"] == "halves")


def true_A(ensemble: Ensemble, folder: Path) -> float:
    """Where the FSC of decoded states with the true maps falls below 0.5, the median of 20 states."""
    truth, rows = Truth.open(folder), cluster(ensemble.z_nq, 20, 0).centre_k
    decoded = zip(rows, ensemble.decode(ensemble.z_nq[rows]), strict=True)
    curves = [fsc(map_zyx, truth.map(truth.state_n[n])) for n, map_zyx in decoded if truth.state_n[n] >= 0]
    return float(np.median([resolution(fsc_s, ensemble.pixel_A, 0.5) for fsc_s in curves]))


def test_motion_is_believed_and_a_still_molecule_is_not(tmp_path):
    told, ensemble = judged(tmp_path / "hinge", control(tmp_path / "sim", "hinge", 0, images=1500), "variability")
    assert told["verdict"] == "holds", told
    assert json.loads((ensemble.folder / "validation" / "validation.json").read_text()) == told
    assert all(check["plot"] for check in told["checks"])
    assert found_A(told) == pytest.approx(true_A(ensemble, tmp_path / "sim"), rel=0.15)
    told, _ = judged(tmp_path / "still", control(tmp_path / "sim2", "still", 0, images=1500), "variability")
    by_name = {check["name"]: check for check in told["checks"]}
    assert told["verdict"] in ("doubtful", "fails")
    assert by_name["signal"]["verdict"] == by_name["ctf"]["verdict"] == "holds"
    assert by_name["halves"]["verdict"] != "holds"
    assert {by_name[name]["verdict"] for name in DECISIVE} != {"holds"}


@pytest.mark.slow
@pytest.mark.parametrize("name", CONTROLS)
@pytest.mark.parametrize(("method", "seed"), [("variability", 0), ("variability", 1), ("variability", 2), ("vae", 0)])
def test_controls_are_judged_rightly(tmp_path, name, method, seed):
    settings = {"epochs": 10, "width": 128, "map_every": 0} if method == "vae" else {}
    told, ensemble = judged(tmp_path / "run", control(tmp_path / "sim", name, seed), method, **settings)
    assert told["verdict"] in CONTROLS[name][1], [(c["name"], c["verdict"], c["sentence"]) for c in told["checks"]]
    if name in ("hinge", "assembly"):
        assert found_A(told) == pytest.approx(true_A(ensemble, tmp_path / "sim"), rel=0.15)
    if name == "junk":
        truth = pd.read_parquet(tmp_path / "sim" / "truth.parquet")["junk"]
        found = pd.read_parquet(ensemble.folder / "validation" / "particles.parquet")["junk"]
        assert roc_auc_score(truth, found) > 0.99
