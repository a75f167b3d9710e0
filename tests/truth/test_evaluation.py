"""Scores against a truth that is known exactly."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from morphem.config import write_yaml
from morphem.data.latent_table import LatentTable
from morphem.ensemble import Ensemble
from morphem.errors import InputError
from morphem.evaluation.latents import angle_error, class_agreement, clusters, neighbourhood_similarity
from morphem.evaluation.truth import Truth, evaluate
from morphem.io.mrc import write_map
from morphem.models import save_volume
from morphem.models.volume import LinearVolume

BOX, PIXEL_A, STATES, IMAGES = 16, 2.0, 8, 160


def blob(centre_xyz, sigma: float = 1.5) -> np.ndarray:
    x, y, z = ((np.arange(BOX) - BOX // 2 - c) ** 2 for c in centre_xyz)
    return np.exp(-(z[:, None, None] + y[:, None] + x) / (2 * sigma**2)).astype(np.float32)


def turning(angle: float) -> np.ndarray:
    """A core, and an arm at an angle."""
    return blob((0, 0, 0)) + blob((4 * np.cos(angle), 4 * np.sin(angle), 0))


TRUE_MAPS = np.stack([turning(2 * np.pi * state / STATES) for state in range(STATES)])


def particles_star(rows: range, stack: str = "particles.mrcs") -> str:
    optics = f"data_optics\n\nloop_\n_rlnOpticsGroup\n_rlnImagePixelSize\n_rlnImageSize\n1 {PIXEL_A} {BOX}\n"
    names = ("rlnImageName", "rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst")
    header = "".join(f"_{name}\n" for name in (*names, "rlnOpticsGroup"))
    lines = "".join(f"{row + 1:06d}@{stack} 0 0 0 0 0 1\n" for row in rows)
    return f"{optics}\ndata_particles\n\nloop_\n{header}{lines}"


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    """A hinge of eight states in turn, without the optional files but its settings."""
    folder = tmp_path / "truth"
    folder.mkdir()
    for state, map_zyx in enumerate(TRUE_MAPS):
        write_map(folder / "vols" / f"{state:03d}.mrc", map_zyx, PIXEL_A)
    np.save(folder / "labels.npy", np.arange(IMAGES) % STATES)
    (folder / "particles.star").write_text(particles_star(range(IMAGES)))
    write_yaml(folder / "simulation.yaml", {"kind": "hinge"})
    return folder


def write_run(folder: Path, latent_dim: int, rows: range = range(IMAGES), stack: str = "particles.mrcs") -> Ensemble:
    """A run that knows the truth: z spans the principal components of the true maps."""
    mean = TRUE_MAPS.mean(0)
    left, size, right = np.linalg.svd((TRUE_MAPS - mean).reshape(STATES, -1), full_matrices=False)
    z_nq = (left * size)[np.array(rows) % STATES, :latent_dim]
    maps = np.concatenate([mean[None], right[:latent_dim].reshape(-1, BOX, BOX, BOX)])
    write_map(folder / "maps" / "consensus.mrc", mean, PIXEL_A)
    save_volume(folder / "weights.safetensors", LinearVolume.of(torch.from_numpy(maps), BOX // 2 - 1))
    cov_nqq, halves_n = np.zeros((*z_nq.shape, z_nq.shape[1])), 1 + np.arange(len(z_nq)) % 2
    LatentTable(z_nq, cov_nqq, np.ones((len(z_nq), 1)), halves_n).write(folder / "latents.parquet")
    (folder / "particles.star").write_text(particles_star(rows, stack))
    source = {"particles": str(folder / "particles.star"), "no_ctf": True}
    described = {"method": "variability", "version": "0", "seed": 0, "source": source, "settings": {}}
    write_yaml(folder / "config.yaml", described | {"box": BOX, "pixel_A": PIXEL_A, "radius": BOX / 2 - 1})
    return Ensemble.open(folder)


def test_a_perfect_run_scores_highest(truth, tmp_path):
    scores = evaluate(write_run(tmp_path / "run", STATES - 1), truth)
    best = (BOX / 2 - 1) / BOX
    assert scores["per_image_auc"] == pytest.approx(best, abs=1e-3)
    assert scores["per_image_auc_masked"] == pytest.approx(best, abs=1e-3)
    assert scores["per_conformation_auc"] == pytest.approx(best, abs=1e-3)
    assert scores["consensus_auc"] < best - 0.01
    assert scores["adjusted_rand_index"] == scores["adjusted_mutual_information"] == pytest.approx(1)
    assert scores["images"] == IMAGES
    assert any("mask" in note for note in scores["notes"])


def test_what_the_truth_or_the_run_lacks_is_none(truth, tmp_path):
    (truth / "simulation.yaml").unlink()
    scores = evaluate(write_run(tmp_path / "run", 0), truth)
    assert scores["per_image_auc"] == pytest.approx(scores["consensus_auc"], abs=1e-6)
    for name in ("per_conformation_auc", "neighbourhood_similarity", "adjusted_rand_index", "motion_error_deg"):
        assert scores[name] is None
    assert evaluate(write_run(tmp_path / "other", 2), truth)["motion_error_deg"] is None


def test_a_run_on_some_rows_is_matched_by_image_name(truth, tmp_path):
    backwards = write_run(tmp_path / "run", 3, range(IMAGES - 1, 20, -1))
    scores = evaluate(backwards, truth)
    assert scores["images"] == IMAGES - 21
    assert scores["adjusted_rand_index"] == pytest.approx(1)


def test_other_images_are_refused(truth, tmp_path):
    with pytest.raises(InputError, match="under other names"):
        evaluate(write_run(tmp_path / "run", 2, range(50), "other.mrcs"), truth)


def test_equally_many_renamed_images_are_matched_in_order(truth, tmp_path):
    scores = evaluate(write_run(tmp_path / "run", 3, stack="other.mrcs"), truth)
    assert scores["adjusted_rand_index"] == pytest.approx(1)
    assert any("order" in note for note in scores["notes"])


def test_maps_of_another_size_are_refused(truth, tmp_path):
    for state, map_zyx in enumerate(TRUE_MAPS):
        write_map(truth / "vols" / f"{state:03d}.mrc", map_zyx, 1.5 * PIXEL_A)
    with pytest.raises(InputError, match="3 Å.*2 Å"):
        evaluate(write_run(tmp_path / "run", 2), truth)


def test_a_state_without_a_map_is_refused(truth, tmp_path):
    np.save(truth / "labels.npy", np.arange(IMAGES))
    with pytest.raises(InputError, match="names state 159"):
        evaluate(write_run(tmp_path / "run", 2), truth)


def test_junk_is_left_out(truth, tmp_path):
    label_n = np.arange(IMAGES) % STATES
    label_n[:10] = -1
    np.save(truth / "labels.npy", label_n)
    scores = evaluate(write_run(tmp_path / "run", 2), truth)
    assert scores["images"] == IMAGES - 10


def test_the_motion_column_wins_over_the_states(truth):
    pd.DataFrame({"motion": np.full(IMAGES, 33.0)}).to_parquet(truth / "truth.parquet")
    assert np.all(Truth.open(truth).angle_deg_n == 33)
    (truth / "truth.parquet").unlink()
    assert np.array_equal(Truth.open(truth).angle_deg_n[:3], [0, 45, 90])


def test_true_coordinates_have_the_distances_of_true_maps(truth):
    (truth / "simulation.yaml").unlink()
    known = Truth.open(truth)
    inside = known.mask_zyx > 0.5
    place_nt = known.coordinates(seed=0)
    expected = np.linalg.norm((TRUE_MAPS[0] - TRUE_MAPS[3])[inside])
    assert np.linalg.norm(place_nt[0] - place_nt[3]) == pytest.approx(expected, rel=1e-4)


def circle(count: int, spread: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Angles in degrees, and z on the circle with Gaussian noise."""
    rng = np.random.default_rng(seed)
    angle_n = rng.uniform(0, 360, count)
    z_n2 = np.stack([np.cos(np.deg2rad(angle_n)), np.sin(np.deg2rad(angle_n))], axis=1)
    return angle_n, z_n2 + spread * rng.standard_normal((count, 2))


def test_angles_are_predicted_across_zero():
    angle_n, z_n2 = circle(4000, 0.0)
    error_n = angle_error(angle_n, z_n2)
    assert np.median(error_n) < 1
    near_zero = (angle_n < 5) | (angle_n > 355)
    assert error_n[near_zero].max() < 10


def test_unrelated_latents_miss_the_angle_by_a_quarter_turn():
    angle_n, _ = circle(4000, 0.0)
    _, other_n2 = circle(4000, 0.0, seed=1)
    assert angle_error(angle_n, other_n2).mean() == pytest.approx(90, abs=3)


def test_neighbourhoods_of_equal_coordinates_are_equal():
    point_n2 = np.random.default_rng(0).standard_normal((500, 2))
    found = neighbourhood_similarity(point_n2, 3 * point_n2, sizes=[20, 50, 400])
    assert found is not None and list(found.size_k) == [20, 50]
    assert found.percent_k == pytest.approx(100 * np.array([21 / 20, 51 / 50]), rel=0.01)


def test_neighbourhoods_of_unrelated_coordinates_agree_by_chance():
    rng = np.random.default_rng(0)
    found = neighbourhood_similarity(rng.standard_normal((2000, 3)), rng.standard_normal((2000, 3)), sizes=[100])
    assert found is not None
    assert found.percent_k[0] == pytest.approx(500 * 100 / 2000 + 1, abs=1.5)


def test_too_few_images_have_no_neighbourhoods():
    point_n2 = np.zeros((900, 2))
    assert neighbourhood_similarity(point_n2, point_n2) is None


def test_classes_that_split_one_state_agree_in_part():
    true_n = np.repeat([0, 1], 50)
    apart = np.where(true_n == 0, -5.0, 5.0)[:, None]
    assert class_agreement(true_n, clusters(apart, len(np.unique(true_n)))) == (pytest.approx(1), pytest.approx(1))
    half = np.where(np.arange(100) % 2 == 0, -5.0, 5.0)[:, None]
    assert class_agreement(true_n, clusters(half, len(np.unique(true_n)))) == (
        pytest.approx(0, abs=0.02),
        pytest.approx(0, abs=0.02),
    )
