"""Images that other programs made, back-projected from their own files."""

import numpy as np
import pytest
import torch

from morphem.data.dataset import Dataset, Source
from morphem.inference import consensus
from morphem.io.mrc import read_map
from morphem.physics.fsc import fsc


def correlation(one_zyx, other_zyx):
    return np.corrcoef(one_zyx.ravel(), other_zyx.ravel())[0, 1]


@pytest.fixture(scope="module")
def toy_map(fixtures):
    return read_map(fixtures / "toymodel_small_nocenter.mrc")[0]


def reconstruct(**source):
    return consensus.reconstruct(Dataset.open(Source(**source)), seed=0)


def toy_sources(fixtures):
    poses = fixtures / "toy_rot_zerotrans.pkl"
    return {
        "without a CTF": {
            "particles": fixtures / "toy_projections.mrcs", "poses": poses, "no_ctf": True, "pixel_size": 1.0,
        },
        "a phase plate's CTF": {"particles": fixtures / "toy_projections.star", "poses": poses, "pixel_size": 1.0},
    }  # fmt: skip


@pytest.mark.parametrize("case", ["without a CTF", "a phase plate's CTF"])
def test_01_toy_projections_give_the_map_and_not_its_mirror(fixtures, toy_map, case):
    map_zyx = reconstruct(**toy_sources(fixtures)[case]).map_zyx
    assert map_zyx.shape == toy_map.shape == (30, 30, 30)
    assert correlation(map_zyx, toy_map) > 0.95
    assert correlation(map_zyx, toy_map[::-1]) < 0.1


def test_01_transposed_rotations_do_not(fixtures, toy_map):
    dataset = Dataset.open(Source(**toy_sources(fixtures)["without a CTF"]))
    table = dataset.particles
    turned = table.with_poses(np.swapaxes(table.rotation_n33, 1, 2), table.shift_A_n2)
    wrong = consensus.reconstruct(
        Dataset(dataset.source, turned, dataset.images, dataset.lattice, dataset.noise_gs, dataset.packed_nk), 0
    )
    assert correlation(wrong.map_zyx, toy_map) < 0.7


def test_the_likelihood_prefers_the_true_map(fixtures, toy_map):
    """Against its mirror, on the other program's own images and poses."""
    from morphem.inference.esteps import Known
    from morphem.models.image_model import ImageModel
    from morphem.models.volume import LinearVolume

    dataset = Dataset.open(Source(**toy_sources(fixtures)["without a CTF"]))
    observed, model, likelihoods = dataset.observed(np.arange(100)), ImageModel(), []
    for map_zyx in (toy_map, toy_map[::-1].copy()):
        volume = LinearVolume.of(torch.tensor(map_zyx)[None], dataset.lattice.radius)
        known = Known()(observed, volume, model)
        score_b = model.log_likelihood(volume, observed, known.rotation_bh33, known.shift_bh2, known.z_bhq)[:, 0]
        likelihoods.append(score_b)
    assert (likelihoods[0] > likelihoods[1]).float().mean() > 0.95


def test_half_maps_of_the_toy_agree(fixtures):
    found = reconstruct(**toy_sources(fixtures)["without a CTF"])
    assert fsc(*found.half_zyx)[1:8].min() > 0.9
