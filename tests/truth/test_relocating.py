"""Given poses refined: how wrong they are is told by the images, good ones stay, wrong ones get better."""

import dataclasses

import numpy as np
import pytest
import torch

from morphem.data.dataset import Dataset, Source
from morphem.data.simulation import Simulation
from morphem.data.synthetic import simulate
from morphem.evaluation.truth import evaluate
from morphem.inference.pose_steps import UNKNOWN, climb, derivatives, vectors, with_slopes
from morphem.inference.poses import turned
from morphem.inference.relocating import likeliest
from morphem.io import star
from morphem.methods import fit, load
from morphem.models.image_model import ImageModel
from morphem.models.volume import LinearVolume
from morphem.physics import rotations
from morphem.run import Compute, Run


def test_a_rotation_vector_turns_back_into_its_rotation():
    vector_b3 = 0.5 * torch.randn(50, 3, dtype=torch.float64)
    vector_b3[0] = 0
    torch.testing.assert_close(vectors(turned(torch.eye(3).double().expand(50, 3, 3), vector_b3)), vector_b3)


@pytest.mark.parametrize("sigma", [0.02, 0.2, 1.0])
def test_the_errors_of_poses_are_told_from_those_of_their_estimates(sigma):
    """4,000 estimates u ~ N(0, σ² + C), C of every image its own and up to ten times σ²; from 0.5 upwards and down."""
    rng = np.random.default_rng(0)
    factor_npp = sigma * rng.standard_normal((4000, 3, 3)) * rng.uniform(0.2, 2, (4000, 1, 1))
    cov_npp = factor_npp @ factor_npp.transpose(0, 2, 1)
    alone_np = sigma * rng.standard_normal((4000, 3))
    alone_np += (factor_npp @ rng.standard_normal((4000, 3, 1)))[..., 0]
    assert likeliest(0.5, alone_np, cov_npp) == pytest.approx(sigma, rel=0.06)


def moving(seed: int = 0) -> LinearVolume:
    """A smooth mean and two eigenvolumes."""
    axes = torch.meshgrid(*[torch.arange(32) - 16] * 3, indexing="ij")
    ball = torch.exp(-((torch.stack(axes).float().norm(dim=0) / 8) ** 4))
    rng = torch.Generator().manual_seed(seed)
    spectrum = torch.fft.rfftn(torch.randn(3, 32, 32, 32, generator=rng), dim=(1, 2, 3))
    k = torch.fft.fftfreq(32, 1 / 32)
    low = torch.exp(-((k[:, None, None] ** 2 + k[:, None] ** 2 + torch.arange(17) ** 2) / 30))
    return LinearVolume.of(torch.fft.irfftn(spectrum * low, s=(32,) * 3, dim=(1, 2, 3)) * ball, 8.0)


@pytest.fixture(scope="module")
def drawn(tiny_set):
    """Images of that volume at the table's poses and at z, with noise, and z."""
    volume, rng = moving(), torch.Generator().manual_seed(1)
    observed = tiny_set.within(8.0).observed(np.arange(100))
    size = ImageModel().features(volume, observed).std(1).mean(0)
    volume = LinearVolume.of(volume.map_czyx * (torch.tensor([3.0, 1.0, 1.0]) / size)[:, None, None, None], 8.0)
    z_bq = torch.randn(100, 2, generator=rng)
    pose = observed.rotation_b33[:, None], observed.shift_b2[:, None], z_bq[:, None]
    noise_bkr = torch.randn(*observed.sample_bk.shape, 2, generator=rng) * 0.5**0.5
    clean_bk = ImageModel().predict(volume, observed, *pose)[:, 0]
    return dataclasses.replace(observed, sample_bk=clean_bk + torch.view_as_complex(noise_bkr)), volume, z_bq


def test_the_image_changes_with_z_as_its_slopes_say(drawn):
    observed, volume, z_bq = drawn
    slopes = with_slopes(volume, slice(0, 3))
    here_bk, slope_bkp = derivatives(observed, slopes, z_bq)
    for q in range(2):
        there_bk, _ = derivatives(observed, slopes, z_bq + torch.eye(2)[q])
        torch.testing.assert_close(there_bk - here_bk, slope_bkp[..., 5 + q], rtol=1e-3, atol=1e-3)


def test_steps_at_the_true_pose_find_z_as_the_closed_form_does(drawn):
    """Poses held: z = (1 + G)⁻¹ g of the linear Gaussian."""
    observed, volume, _ = drawn
    place = climb(observed, with_slopes(volume, slice(0, 3)), sigma_p=torch.full((5,), 1e-6))
    model = ImageModel()
    feature_brj, data_br = model.features(volume, observed), model.centred(observed)
    left_br = data_br - feature_brj[..., 0]
    precision_bqq = 2 * feature_brj[..., 1:].mT @ feature_brj[..., 1:] + torch.eye(2)
    expected_bq = torch.linalg.solve(precision_bqq, 2 * (feature_brj[..., 1:].mT @ left_br[..., None])[..., 0])
    torch.testing.assert_close(place.z_bq, expected_bq, rtol=1e-2, atol=1e-2)
    assert place.moved_bp.abs().max() < 1e-3


@pytest.mark.parametrize(("free", "stays"), [("shift", slice(3)), ("rotation", slice(3, 5))])
def test_what_is_not_refined_stays(drawn, free, stays):
    observed, volume, _ = drawn
    place = climb(observed, with_slopes(volume, slice(0, 3)), free=free)
    assert place.moved_bp[:, stays].abs().max() < 1e-5
    assert place.moved_bp.abs().max() > 0.01


def test_steps_on_pose_and_z_lead_back_together(drawn):
    observed, volume, z_bq = drawn
    off_b3 = 0.1 * torch.randn(100, 3, generator=torch.Generator().manual_seed(2))
    start = dataclasses.replace(observed, rotation_b33=turned(observed.rotation_b33, off_b3))
    place = climb(start, with_slopes(volume, slice(0, 3)), 8, sigma_p=UNKNOWN)
    left_b = rotations.distance_rad(place.rotation_b33.numpy(), observed.rotation_b33.numpy())
    assert np.median(left_b) < 0.35 * float(off_b3.norm(dim=1).median())
    assert np.corrcoef(place.z_bq[:, 0], z_bq[:, 0])[0, 1] > 0.8


@pytest.fixture(scope="module")
def misplaced(tmp_path_factory):
    """Images whose table errs by 6°, 3.46° along each axis, and by 0.8 pixels."""
    folder = tmp_path_factory.mktemp("misplaced") / "set"
    errors = {"rotation_error": 6.0, "shift_error": 0.8}
    simulate(folder, Simulation(kind="still", images=400, box=32, pixel_size=6.0, snr=1.0, **errors))
    return folder


@pytest.mark.parametrize("name", ["backproject", "variability", "classify", "mixture"])
def test_wrong_poses_get_better(misplaced, tmp_path, name):
    module = load(name)
    shape = {"variability": {"latent_dim": 2}, "classify": {"classes": 2}, "mixture": {"classes": 2, "latent_dim": 2}}
    config = module.Config(refine_poses="both", **shape.get(name, {}))
    dataset = Dataset.open(Source(misplaced / "particles.star"))
    ensemble = fit(name, dataset, config, Run(tmp_path / "run", Compute()))
    scores = evaluate(ensemble, misplaced)
    assert scores["rotation_error_median_deg"] < 4 and scores["shift_error_A"] < 5  # given: 5.4° and 5.7 Å
    kept = star.read(misplaced / "particles.star")["particles"]
    found = star.read(ensemble.folder / "particles.star")["particles"]
    assert (kept["rlnAngleRot"] != found["rlnAngleRot"]).mean() > 0.9
    log = (ensemble.folder / "run.log").read_text()
    assert "by the images those given err by 3." in log or "by the images those given err by 4." in log


def test_good_poses_stay_near(tmp_path):
    simulate(tmp_path / "set", Simulation(kind="still", images=400, box=32, pixel_size=6.0, snr=1.0))
    dataset = Dataset.open(Source(tmp_path / "set/particles.star"))
    config = load("backproject").Config(refine_poses="rotation")
    ensemble = fit("backproject", dataset, config, Run(tmp_path / "run", Compute()))
    scores = evaluate(ensemble, tmp_path / "set")
    assert scores["rotation_error_median_deg"] < 2 and scores["shift_error_A"] < 1e-3
    told = [line for line in (ensemble.folder / "run.log").read_text().splitlines() if "Poses refined" in line]
    assert len(told) == 3 and all("pixels" not in line for line in told)


def test_halves_refine_their_poses_apart(misplaced, tmp_path):
    """Each image has the pose that its own half's maps gave it."""
    dataset = Dataset.open(Source(misplaced / "particles.star"))
    config = load("variability").Config(refine_poses="both", latent_dim=2, halves=True)
    ensemble = fit("variability", dataset, config, Run(tmp_path / "run", Compute()))
    assert evaluate(ensemble, misplaced)["rotation_error_median_deg"] < 4.5
