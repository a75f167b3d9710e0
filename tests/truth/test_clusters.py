"""Clusters of latents whose groups are known, by every partition; the nearest of many."""

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from morphem.errors import InputError
from morphem.inference import nearest, partitions
from morphem.inference.clusters import cluster
from morphem.inference.partitions import PARTITIONS


def four_groups(images: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    """Groups of unequal sizes and widths in three dimensions, in random order."""
    rng = np.random.default_rng(0)
    true_n = rng.choice(4, images, p=[0.5, 0.25, 0.15, 0.1])
    centre_43 = np.array([[0, 0, 0], [6, 0, 0], [0, 6, 0], [0, 0, 6]], float)
    width_4 = np.array([1, 0.8, 0.6, 0.5])
    return centre_43[true_n] + width_4[true_n, None] * rng.standard_normal((images, 3)), true_n


@pytest.mark.parametrize("by", PARTITIONS)
def test_known_groups_are_found_numbered_from_1_and_have_a_member_as_centre(by):
    z_nq, true_n = four_groups()
    found = cluster(z_nq, 4, seed=0, by=by)
    assert adjusted_rand_score(true_n, found.label_n) > 0.97
    assert sorted(set(found.label_n)) == [1, 2, 3, 4] and found.images_k.sum() == len(z_nq)
    assert np.array_equal(found.label_n[found.centre_k], [1, 2, 3, 4])
    distance_kn = np.linalg.norm(z_nq - found.mean_kq[:, None], axis=2)
    for label, centre in enumerate(found.centre_k, start=1):
        members = np.flatnonzero(found.label_n == label)
        assert centre == members[distance_kn[label - 1, members].argmin()]


@pytest.mark.parametrize("by", PARTITIONS)
def test_many_images_go_with_landmarks_and_equal_seeds_give_equal_labels(by, monkeypatch):
    monkeypatch.setattr(partitions, "LANDMARKS", 500)
    monkeypatch.setattr(partitions, "PEAK_LANDMARKS", 500)
    z_nq, true_n = four_groups(6000)
    first, second = (cluster(z_nq, 4, seed=3, by=by) for _ in range(2))
    assert np.array_equal(first.label_n, second.label_n)
    assert adjusted_rand_score(true_n, first.label_n) > 0.95


def test_long_groups_side_by_side_are_cut_by_kmeans_and_not_by_the_others():
    true_n = np.repeat([0, 1], 1500)
    z_nq = np.random.default_rng(0).standard_normal((3000, 2)) * [2.5, 0.3] + np.stack([0 * true_n, 2 * true_n], axis=1)
    score = {by: adjusted_rand_score(true_n, cluster(z_nq, 2, 0, by=by).label_n) for by in PARTITIONS}
    assert score["gaussians"] > 0.95 and score["density"] > 0.95 and score["kmeans"] < 0.5


@pytest.mark.parametrize("by", PARTITIONS)
def test_more_clusters_than_distinct_latents_are_refused(by):
    with pytest.raises(InputError, match="--clusters 3: 40 images have 2 distinct latents"):
        cluster(np.repeat(np.eye(2), 20, axis=0), 3, seed=0, by=by)


@pytest.mark.parametrize("dimensions", [2, 12])
def test_the_nearest_are_those_of_all_pairs(dimensions, monkeypatch):
    monkeypatch.setattr(nearest, "CHUNK", 64)
    rng, done = np.random.default_rng(0), []
    known_mq, z_nq = rng.standard_normal((300, dimensions)), rng.standard_normal((150, dimensions))
    distance_nk, row_nk = nearest.nearest(known_mq, z_nq, 3, done.append)
    all_nm = np.linalg.norm(z_nq[:, None] - known_mq, axis=2)
    assert np.array_equal(row_nk, np.argsort(all_nm, axis=1)[:, :3]) and done == [64, 64, 22]
    assert distance_nk == pytest.approx(np.sort(all_nm, axis=1)[:, :3], abs=1e-5)
