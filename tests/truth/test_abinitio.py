"""Poses from nothing: grids, scores, steps, frames, and whole searches on images whose poses are known."""

import dataclasses

import numpy as np
import pytest
import torch

from morphem.data.dataset import Dataset, Source
from morphem.data.simulation import Simulation
from morphem.data.synthetic import simulate
from morphem.errors import InputError, NoResultError
from morphem.evaluation.poses import Match, TruePoses
from morphem.evaluation.truth import evaluate
from morphem.inference.abinitio import reach, robust
from morphem.inference.candidates import Candidates
from morphem.inference.outcome import by_class, views_filled
from morphem.inference.pose_steps import climb, derivatives, with_slopes
from morphem.inference.poses import turned
from morphem.inference.search import Bank, Grid, PoseSearch, drawn
from morphem.io.mrc import read_map
from morphem.methods import abinitio, fit
from morphem.models.image_model import ImageModel
from morphem.models.volume import LinearVolume
from morphem.physics import cube as cubes
from morphem.physics import grids, rotations
from morphem.physics.alignment import MIRROR, align, handed, origin
from morphem.run import Run

RADIUS, BOX = 8.0, 32


@pytest.fixture(scope="module")
def still(tmp_path_factory):
    """300 images of a molecule that does not move, of 32 pixels, at SNR 1."""
    folder = tmp_path_factory.mktemp("still") / "set"
    simulate(folder, Simulation(kind="still", images=300, box=BOX, pixel_size=6.0, snr=1.0))
    return folder


@pytest.fixture(scope="module")
def seen(still):
    """Those images at their true poses up to a coarse radius, and their true map."""
    dataset = Dataset.open(Source(still / "particles.star")).within(RADIUS)
    (path,) = still.glob("vols/*.mrc")
    map_zyx = torch.from_numpy(read_map(path)[0].copy())
    return dataset.observed(np.arange(len(dataset))), LinearVolume.of(map_zyx[None], RADIUS)


def test_views_and_turns_cover_all_rotations_within_a_step_and_a_half():
    step = grids.step_rad(BOX, 6.0, 0.3 * BOX)
    bank_n33 = grids.bank(*grids.views_for(step)).reshape(-1, 3, 3)
    np.testing.assert_allclose(
        bank_n33 @ np.swapaxes(bank_n33, 1, 2), np.broadcast_to(np.eye(3), bank_n33.shape), atol=1e-12
    )
    np.testing.assert_allclose(np.linalg.det(bank_n33), 1)
    some_n33 = rotations.uniform(300, np.random.default_rng(0))
    agreement_nm = np.einsum("nij,mij->nm", some_n33, bank_n33)
    nearest_rad = np.arccos(np.clip((agreement_nm.max(1) - 1) / 2, -1, 1))
    assert nearest_rad.max() < 1.5 * step


def test_shifts_fill_a_disc_from_its_middle():
    shift_s2 = grids.shifts(3.0, 1.5)
    assert len(shift_s2) == 13 and (shift_s2[0] == 0).all()
    assert np.hypot(*shift_s2.T).max() == 3.0


def test_the_score_is_the_log_likelihood_above_an_empty_map(seen):
    """Exact at the pose that wins; in the bank to a hundredth, of bfloat16 and of the mean over shells."""
    observed, volume = seen
    grid = Grid.of(150, 24, 2.0, 1.0)
    found = PoseSearch(grid)(observed, volume, ImageModel())
    poses = found.rotation_bh33, found.shift_bh2, torch.zeros(len(observed), 1, 0)
    gain_b = ImageModel().log_likelihood(volume, observed, *poses)[:, 0] + observed.sample_bk.abs().square().sum(1)
    score_b = found.evidence_b
    torch.testing.assert_close(score_b, gain_b, rtol=0.01, atol=0.5)
    rough_b = Bank(grid, volume, observed).scores(observed).score_bv.max(1).values
    assert float((rough_b - gain_b).abs().median() / gain_b.median()) < 0.03


@pytest.mark.parametrize("astigmatic", [False, True])
def test_the_true_map_finds_poses_within_the_grid(seen, astigmatic):
    observed, volume = seen
    if astigmatic:  # the same images under a CTF that is not round
        kx, ky = observed.lattice.coords_k2.unbind(1)
        ctf_bk = observed.ctf_bk * torch.cos(0.02 * (kx**2 - ky**2))
        pose = observed.rotation_b33[:, None], observed.shift_b2[:, None], torch.zeros(len(observed), 1, 0)
        bent = dataclasses.replace(observed, ctf_bk=ctf_bk)
        observed = dataclasses.replace(bent, sample_bk=ImageModel().predict(volume, bent, *pose)[:, 0])
    step = grids.step_rad(BOX, RADIUS, 0.3 * BOX)
    found = PoseSearch(Grid.of(*grids.views_for(step), 2.0, 0.5))(observed, volume, ImageModel())
    off_b = rotations.distance_rad(found.rotation_bh33[:, 0].numpy(), observed.rotation_b33.numpy())
    assert np.median(off_b) < 0.75 * step
    assert float((found.shift_bh2[:, 0] - observed.shift_b2).norm(dim=1).median()) < 0.5


def test_candidates_lie_apart_and_the_best_comes_first(seen):
    observed, volume = seen
    apart = np.radians(30)
    found = PoseSearch(Grid.of(150, 24, 2.0, 1.0), keep=4, apart_rad=apart)(observed, volume, ImageModel())
    rotation_bh33 = found.rotation_bh33.numpy()
    for one in range(4):
        for other in range(one):
            assert rotations.distance_rad(rotation_bh33[:, one], rotation_bh33[:, other]).min() > apart - 1e-3
    single = PoseSearch(Grid.of(150, 24, 2.0, 1.0))(observed, volume, ImageModel())
    torch.testing.assert_close(found.rotation_bh33[:, 0], single.rotation_bh33[:, 0])


def test_balance_takes_every_view_equally_often():
    """Of scores that all prefer few views; Sinkhorn's masses within 5 %, drawn ones within chance."""
    rng = torch.Generator().manual_seed(0)
    score_bv = 3 * torch.randn(2000, 10, generator=rng) + torch.linspace(0, 12, 10)
    count_v = torch.bincount(drawn(score_bv, rng), minlength=10)
    assert score_bv.argmax(1).bincount(minlength=10)[0] < 20
    assert (count_v - 200).abs().max() < 5 * 200**0.5


def test_slopes_are_those_of_the_image(seen):
    """Differences of a map that linear interpolation reads well: padded four times."""
    observed, volume = seen[0][slice(0, 20)], LinearVolume.of(seen[1].map_czyx, RADIUS, 4)
    slopes, step = with_slopes(volume), 0.02
    _, slope_bkp = derivatives(observed, slopes)
    for p in range(5):
        move_bp = torch.zeros(20, 5)
        move_bp[:, p] = step
        up, down = (
            dataclasses.replace(
                observed,
                rotation_b33=turned(observed.rotation_b33, sign * move_bp[:, :3]),
                shift_b2=observed.shift_b2 + sign * move_bp[:, 3:],
            )
            for sign in (1, -1)
        )
        difference_bk = (derivatives(up, slopes)[0] - derivatives(down, slopes)[0]) / (2 * step)
        error = (difference_bk - slope_bkp[..., p]).norm() / difference_bk.norm()
        assert error < (0.05 if p < 3 else 1e-3)


def test_steps_lead_back_to_the_true_poses(seen):
    observed, volume = seen
    rng = torch.Generator().manual_seed(1)
    away_bp = torch.randn(len(observed), 5, generator=rng) * torch.tensor([0.06, 0.06, 0.06, 0.4, 0.4])
    start = dataclasses.replace(
        observed,
        rotation_b33=turned(observed.rotation_b33, away_bp[:, :3]),
        shift_b2=observed.shift_b2 + away_bp[:, 3:],
    )
    place, at_truth = (climb(batch, with_slopes(volume), 8) for batch in (start, observed))
    off = [
        np.median(rotations.distance_rad(one.rotation_b33.numpy(), observed.rotation_b33.numpy()))
        for one in (start, place, at_truth)
    ]
    assert off[1] < 0.7 * off[0] and off[1] < 1.1 * off[2]
    assert (place.cost_b <= climb(start, with_slopes(volume), 0).cost_b).all()


@pytest.mark.parametrize(("mirrored", "wrong", "error"), [(False, 0, 1e-6), (True, 0, 1e-6), (True, 200, 5e-4)])
def test_scrambled_poses_are_brought_back(mirrored, wrong, error):
    """A known frame, hand and centre; a third of 600 poses may be wrong."""
    rng = np.random.default_rng(0)
    true_n33, frame_33, u_3 = rotations.uniform(600, rng), rotations.uniform(1, rng)[0], np.array([3.0, -2.0, 1.0])
    found_n33 = handed(true_n33 @ frame_33.T, mirrored)
    found_n33[:wrong] = rotations.uniform(wrong, rng) if wrong else found_n33[:0]
    frame = align(found_n33, true_n33)
    assert frame.mirrored is mirrored
    np.testing.assert_allclose(frame.poses(found_n33)[wrong:], true_n33[wrong:], atol=error)
    moved_n2 = (true_n33[:, :2] @ u_3) + 50 * (np.arange(600) < wrong)[:, None] * rng.normal(size=(600, 2))
    np.testing.assert_allclose(origin(true_n33, moved_n2), u_3, atol=1e-3)


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_map_goes_where_its_poses_go(seen, mirrored):
    """V at poses R, made into another frame, hand and centre, comes back: correlation .99."""
    (map_zyx,), rng = seen[1].map_czyx.numpy(), np.random.default_rng(2)
    true_n33, turn_33, u_A_3 = rotations.uniform(100, rng), rotations.uniform(1, rng)[0], np.array([9.0, -6.0, 4.0])
    found = Match(align(handed(true_n33 @ turn_33.T, mirrored), true_n33), u_A_3, *np.zeros((3, 1)))
    hand_33 = MIRROR if mirrored else np.eye(3)
    away = Match(align(true_n33, true_n33), np.zeros(3), *np.zeros((3, 1)))
    there = dataclasses.replace(away, frame=dataclasses.replace(away.frame, rotation_33=turn_33.T @ hand_33))
    moved_zyx = there.to_truth(map_zyx, 6.0)
    moved = dataclasses.replace(found, origin_A_3=np.zeros(3)).to_truth(moved_zyx, 6.0)
    assert np.corrcoef(moved.ravel(), map_zyx.ravel())[0, 1] > 0.98
    pixels = tuple(np.round(u_A_3[::-1] / 6.0).astype(int))
    shifted = dataclasses.replace(away, origin_A_3=6.0 * np.array(pixels[::-1])).to_truth(map_zyx, 6.0)
    np.testing.assert_allclose(
        shifted[8:24, 8:24, 8:24], np.roll(map_zyx, [-p for p in pixels], (0, 1, 2))[8:24, 8:24, 8:24], atol=1e-4
    )


def test_views_fill_the_sphere_or_a_cap():
    rotation_n33 = rotations.uniform(5000, np.random.default_rng(0))
    assert views_filled(rotation_n33) > 0.95
    assert views_filled(rotation_n33[rotation_n33[:, 2, 2] > 0.95]) < 0.15
    np.testing.assert_allclose(views_filled(rotation_n33), views_filled(handed(rotation_n33, True)), atol=0.02)


def test_the_worst_images_weigh_less():
    left_n = torch.cat([torch.linspace(0.98, 1.02, 500), torch.tensor([2.0])])
    weight_n = robust(left_n)
    assert (weight_n[:-1] == 1).all() and weight_n[-1] < 0.1


def test_the_radius_goes_as_far_as_half_maps_agree():
    assert reach(np.array([1, 0.9, 0.8, 0.6, 0.4, 0.7])) == 3
    assert reach(np.array([1, 0.9, 0.8])) == 2


def test_candidates_far_from_the_best_are_none():
    log_nh = torch.tensor([[0.0, -5.0, -50.0], [-3.0, -40.0, 0.0]])
    rotation_nh33 = torch.eye(3).expand(2, 3, 3, 3).clone()
    candidates = Candidates(torch.tensor([[0, 1, 2], [0, 1, 2]]), rotation_nh33, torch.zeros(2, 3, 2), log_nh)
    best = candidates.best(2)
    assert best.class_nh.tolist() == [[0, 1], [2, 0]]
    assert candidates.best(3).log_nh.isinf().tolist() == [[False, False, True], [False, False, True]]


def searched(folder, out, run=None, **settings):
    dataset = Dataset.open(Source(folder / "particles.star"), require_poses=False)
    return fit("abinitio", dataset, abinitio.Config(**settings), run or Run(out))


def without_poses(folder):
    """The table loses its poses: nothing may look at them."""
    lines = (folder / "particles.star").read_text()
    for name in ("AngleRot", "AngleTilt", "AnglePsi", "OriginXAngst", "OriginYAngst"):
        lines = lines.replace(f"_rln{name}", f"_old{name}")
    (folder / "particles.star").write_text(lines)
    return folder


@pytest.fixture(scope="module")
def unposed(tmp_path_factory):
    """600 images at SNR 1 in a table without poses."""
    folder = tmp_path_factory.mktemp("unposed") / "set"
    simulate(folder, Simulation(kind="still", images=600, box=BOX, pixel_size=6.0, snr=1.0))
    return without_poses(folder)


def test_poses_are_found_from_nothing_and_a_run_goes_on_where_it_stopped(unposed, tmp_path):
    settings = {"starts": 2, "schedule": "short"}
    ensemble = searched(unposed, tmp_path / "run", **settings)
    scores = evaluate(ensemble, unposed)
    assert scores["rotation_error_median_deg"] < 5 and scores["rotation_error_90_deg"] < 10
    assert scores["shift_error_A"] < 2 and scores["hand"] in ("same", "mirrored")
    assert scores["consensus_auc_masked"] > 0.35
    checkpoints = sorted((tmp_path / "run" / "checkpoints").iterdir())
    checkpoints[-1].unlink()
    again = searched(unposed, None, Run(tmp_path / "run", resume=True), **settings)
    np.testing.assert_array_equal(again.poses.rotation_n33, ensemble.poses.rotation_n33)


def test_both_hands_give_the_same_images(unposed, tmp_path):
    ensemble = searched(unposed, tmp_path / "run", starts=1, schedule="short")
    dataset = ensemble.refined_dataset()
    mirror = Dataset.open(Source(tmp_path / "run" / "particles_mirror.star", datadir=unposed))
    maps = [read_map(tmp_path / "run" / "maps" / f"{name}.mrc")[0] for name in ("consensus", "mirror")]
    for own, map_zyx in zip((dataset, mirror), maps, strict=True):
        observed = own.within(8.0).observed(np.arange(50))
        volume = LinearVolume.of(torch.from_numpy(map_zyx.copy())[None], 8.0)
        pose = observed.rotation_b33[:, None], observed.shift_b2[:, None], torch.zeros(50, 1, 0)
        predicted = ImageModel().predict(volume, observed, *pose)[:, 0]
        if map_zyx is maps[0]:
            first = predicted
    assert float((predicted - first).norm() / first.norm()) < 0.02


def test_noise_has_no_structure(tmp_path):
    simulate(tmp_path / "set", Simulation(kind="still", images=300, box=BOX, pixel_size=6.0, snr=1e-6))
    with pytest.raises(NoResultError, match="no structure found: held-out images fit the map only"):
        searched(without_poses(tmp_path / "set"), tmp_path / "run", starts=2, schedule="short")
    assert (tmp_path / "run" / "maps" / "consensus.mrc").is_file()
    assert "not gold standard" in (said := (tmp_path / "run" / "run.log").read_text().splitlines()[-1])
    assert "Notice: Poses found" in said and "no structure found" in said


def test_another_method_goes_on_from_the_poses(unposed, tmp_path):
    settings = {"starts": 1, "schedule": "short", "then": "variability", "latent_dim": 2, "refreshes": 1}
    ensemble = searched(unposed, tmp_path / "run", **settings)
    assert ensemble.latent_dim == 2 and ensemble.method == "abinitio"
    assert evaluate(ensemble, unposed)["rotation_error_median_deg"] < 5
    assert "punjani2017" in (tmp_path / "run" / "citations.bib").read_text()


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"starts": 0}, "--starts 0"),
        ({"classes": 7}, "300 images are too few to find poses from; give 350 or more"),
        ({"particle_diameter": 500.0}, "--particle-diameter 500: is larger than the box, 192 Å"),
        ({"particle_diameter": -1.0}, "--particle-diameter -1: expected a positive number"),
        ({"shift": 0.5}, "--shift 0.5: expected a share"),
        ({"latent_dim": 3}, "--latent-dim: belongs to a method that goes on"),
    ],
)
def test_what_cannot_be_is_refused(still, tmp_path, settings, complaint):
    with pytest.raises(InputError, match=complaint):
        searched(still, tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


def test_true_poses_are_read_with_the_truth(still):
    given, row_n = Dataset.open(Source(still / "particles.star")).particles, np.arange(299, 99, -1)
    true, given = TruePoses.read(still, row_n), given.take(row_n)
    assert true is not None
    np.testing.assert_allclose(true.rotation_n33, given.rotation_n33, atol=1e-6)
    np.testing.assert_allclose(true.shift_A_n2, given.shift_A_n2, atol=1e-4)


def test_a_coarse_grid_holds_the_same_samples(seen):
    """Slices of a map on a coarse grid, shifts in its pixels: the same images."""
    observed, volume = seen
    box = cubes.coarse_box(RADIUS, BOX)
    coarse = LinearVolume.of(cubes.resampled(volume.map_czyx, box), RADIUS)
    images = []
    for at, maps in ((observed, volume), (observed.on(box), coarse)):
        pose = at.rotation_b33[:, None], at.shift_b2[:, None], torch.zeros(len(at), 1, 0)
        images.append(ImageModel().predict(maps, at, *pose))
    assert box < BOX
    assert float((images[0] - images[1]).norm() / images[0].norm()) < 0.05


def test_classes_with_their_poses_become_an_ensemble(tmp_path):
    """From true classes and poses: the maps of the molecules, and every image in the class that it was given."""
    simulate(tmp_path / "set", Simulation(kind="molecules", states=2, images=300, box=BOX, pixel_size=6.0, snr=1.0))
    dataset = Dataset.open(Source(tmp_path / "set" / "particles.star"))
    class_n, table = np.load(tmp_path / "set" / "labels.npy"), dataset.particles
    shift_n12 = torch.from_numpy(table.shift_A_n2 / dataset.pixel_A).float()[:, None]
    rotation_n133 = torch.from_numpy(table.rotation_n33).float()[:, None]
    known = Candidates(torch.from_numpy(class_n)[:, None].long(), rotation_n133, shift_n12, torch.zeros(300, 1))
    _, found = by_class(dataset, known, 2, None, Run(tmp_path / "run"))
    assert (found.weight_nc.argmax(1) == class_n).mean() > 0.98
    for c, path in enumerate(sorted((tmp_path / "set" / "vols").glob("*.mrc"))):
        own_zyx, true_zyx = read_map(tmp_path / "run" / "maps" / f"class_{c + 1:03d}.mrc")[0], read_map(path)[0]
        assert np.corrcoef(own_zyx.ravel(), true_zyx.ravel())[0, 1] > 0.9
