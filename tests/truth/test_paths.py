"""Paths through a ring: across its empty middle, or along it; every frame knows whether images are near."""

import numpy as np
import pytest

from morphem.analysis import paths
from morphem.analysis.paths import path, surroundings
from morphem.errors import InputError


def ring(images: int = 3000) -> np.ndarray:
    """Images at radius 3, a third of them in the lower half; the first two lie opposite each other."""
    rng = np.random.default_rng(0)
    angle_n = np.where(rng.random(images) < 2 / 3, 1, -1) * rng.uniform(0, np.pi, images)
    angle_n[:2] = 0, np.pi
    return 3 * np.stack([np.cos(angle_n), np.sin(angle_n)], axis=1) + 0.15 * rng.standard_normal((images, 2))


def test_a_straight_path_leaves_a_ring_and_says_where():
    z_nq = ring()
    z_fq = path(z_nq, (0, 1), 9)
    around = surroundings(z_nq, z_fq)
    assert z_fq == pytest.approx(np.linspace(z_nq[0], z_nq[1], 9))
    assert list(around.off_data_f) == [False, *[True] * 7, False]
    assert around.density_f[4] < 0.01 < 0.2 < around.density_f[0]
    assert around.warning == "7 of 9 frames lie where there are no images: 2, 3, 4, 5, 6, 7, 8"
    assert around.facts[4]["off_data"] == 1


@pytest.mark.parametrize("along", ["graph", "density"])
def test_a_path_over_images_stays_on_the_ring_in_equal_steps(along):
    z_nq = ring()
    z_fq = path(z_nq, (0, 1), 12, along)
    around = surroundings(z_nq, z_fq)
    assert not around.off_data_f.any() and not around.warning
    assert z_fq[[0, -1]] == pytest.approx(z_nq[:2])
    step_f = np.linalg.norm(np.diff(z_fq, axis=0), axis=1)
    assert step_f.max() < 1.4 * step_f.min()
    assert np.linalg.norm(z_fq, axis=1) == pytest.approx(3, abs=0.5)


def test_density_takes_the_longer_way_through_more_images():
    """An arc of 0.9π with few images, and the other way round with fifty times as many."""
    rng = np.random.default_rng(0)
    angle_n = np.concatenate([[0, 0.9 * np.pi], rng.uniform(0, 0.9 * np.pi, 150), rng.uniform(-1.1 * np.pi, 0, 6000)])
    z_nq = 3 * np.stack([np.cos(angle_n), np.sin(angle_n)], axis=1) + 0.1 * rng.standard_normal((len(angle_n), 2))
    middle = {along: path(z_nq, (0, 1), 5, along)[2] for along in ("graph", "density")}
    assert middle["graph"] @ [np.cos(0.45 * np.pi), np.sin(0.45 * np.pi)] > 2.5
    assert middle["density"] @ [np.cos(-0.55 * np.pi), np.sin(-0.55 * np.pi)] > 2.5


def test_images_that_nothing_joins_are_refused():
    z_nq = np.concatenate([np.random.default_rng(0).standard_normal((50, 3)) + shift for shift in (0, 100)])
    with pytest.raises(InputError, match="--path 0 99: no chain of near images"):
        path(z_nq, (0, 99), 5, "graph")


def test_of_very_many_images_the_ends_are_on_the_graph(monkeypatch):
    monkeypatch.setattr(paths, "LANDMARKS", 400)
    z_nq = ring()
    z_fq = path(z_nq, (2500, 2501), 4, "graph")
    assert z_fq[[0, -1]] == pytest.approx(z_nq[[2500, 2501]])


def test_images_themselves_are_on_the_data_as_often_as_said():
    z_nq = np.random.default_rng(0).standard_normal((4000, 3))
    around = surroundings(z_nq[:2000], z_nq[2000:])
    assert 0.003 < around.off_data_f.mean() < 0.02
    assert np.median(around.density_f) == pytest.approx(1, abs=0.15)
