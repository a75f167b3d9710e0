"""What every method leaves behind: an ensemble that opens, decodes, repeats and resumes. Joined by registering."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch

from morphem.data.dataset import Dataset, Source
from morphem.data.particles import Particles
from morphem.ensemble import FILES, Ensemble
from morphem.errors import InputError
from morphem.io.mrc import read_map
from morphem.methods import METHODS, fit, load, summary
from morphem.run import Compute, Run

SMALL = {"epochs": 2, "width": 16, "layers": 1, "latent_dim": 2, "batch_size": 16}


def settings(name, **changes):
    """The method's own defaults, made small where it has such settings."""
    config = load(name).Config
    known = {field.name for field in dataclasses.fields(config)}
    return config(**{key: value for key, value in (SMALL | changes).items() if key in known})


def fitted(name, tiny, folder, resume=False, seed=0, **changes):
    compute = Compute(precision="float32", seed=seed)
    config = settings(name, **changes)
    dataset = Dataset.open(Source(tiny / "particles.star"), config.radius)
    return fit(name, dataset, config, Run(folder, compute, resume))


@pytest.fixture(scope="module", params=sorted(METHODS))
def run(request, tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param) / "run"
    return request.param, fitted(request.param, tiny, folder)


def test_a_method_is_a_page():
    for name in METHODS:
        module = load(name)
        assert dataclasses.is_dataclass(module.Config)
        assert module.Config.__dataclass_params__.frozen
        assert module.REFERENCES
        assert summary(name).endswith(".")
        source = module.__file__
        assert source is not None
        with open(source) as file:
            assert len(file.readlines()) < 150


def test_the_folder_holds_a_finished_run(run, tiny):
    name, ensemble = run
    assert ensemble.method == name
    assert {path.name for path in ensemble.folder.iterdir()} >= set(FILES) | {"citations.bib", "maps"}
    assert not list(ensemble.folder.rglob("*.part"))
    assert not list(ensemble.folder.rglob("*.pkl"))
    for key, entry in load(name).REFERENCES.items():
        assert key in entry
        assert entry in (ensemble.folder / "citations.bib").read_text()


def test_latents_are_in_row_order_with_their_uncertainty(run, tiny):
    _, ensemble = run
    assert len(ensemble) == 150
    assert ensemble.uncertainty_nqq.shape == (150, ensemble.latent_dim, ensemble.latent_dim)
    if ensemble.latent_dim:
        assert (np.linalg.eigvalsh(ensemble.uncertainty_nqq) > 0).all()
        assert ensemble.z_nq.std(0).min() > 0


def test_it_opens_again_and_decodes_the_same(run):
    _, ensemble = run
    again = Ensemble.open(ensemble.folder)
    np.testing.assert_array_equal(again.z_nq, ensemble.z_nq)
    with torch.inference_mode():
        expected = ensemble.volume.maps(torch.from_numpy(ensemble.z_nq[3:4]))[0].numpy()
    (map_zyx,) = again.decode(ensemble.z_nq[3])
    np.testing.assert_allclose(map_zyx, expected, atol=1e-6)
    assert map_zyx.shape == (32, 32, 32)


def test_z_of_another_length_is_refused(run):
    _, ensemble = run
    with pytest.raises(InputError, match="numbers"):
        next(ensemble.decode(np.zeros(ensemble.latent_dim + 1)))


def test_particles_keep_every_column(run, tiny):
    _, ensemble = run
    before, after = Particles.read(tiny / "particles.star"), ensemble.poses
    np.testing.assert_allclose(after.rotation_n33, before.rotation_n33, atol=1e-12)
    text = (ensemble.folder / "particles.star").read_text()
    for line in (tiny / "particles.star").read_text().splitlines():
        if line.startswith("_rln"):
            assert line.split()[0] in text
    assert text.count("_morphemZ") == ensemble.latent_dim


def test_the_images_are_reopened_from_the_folder(run, tiny_set):
    _, ensemble = run
    dataset = ensemble.dataset()
    assert len(dataset) == len(tiny_set)
    torch.testing.assert_close(dataset.packed_nk, tiny_set.packed_nk)


def test_maps_have_the_pixel_and_the_consensus_is_the_truths(run, tiny):
    _, ensemble = run
    for path in (ensemble.folder / "maps").glob("*.mrc"):
        assert read_map(path)[1] == pytest.approx(6.0)
    truth = np.mean([read_map(path)[0] for path in tiny.glob("vols/*.mrc")], axis=0)
    assert np.corrcoef(truth.ravel(), ensemble.consensus_zyx.ravel())[0, 1] > 0.95
    assert np.corrcoef(truth.ravel(), ensemble.consensus_zyx[::-1].ravel())[0, 1] < 0.9


def test_equal_seeds_give_equal_results_and_others_do_not(run, tiny, tmp_path):
    name, ensemble = run
    again = fitted(name, tiny, tmp_path / "again")
    assert (again.folder / "weights.safetensors").read_bytes() == (ensemble.folder / "weights.safetensors").read_bytes()
    np.testing.assert_array_equal(again.z_nq, ensemble.z_nq)
    if ensemble.latent_dim:
        assert not np.array_equal(fitted(name, tiny, tmp_path / "other", seed=1).z_nq, ensemble.z_nq)


def test_one_epoch_and_one_more_are_two_epochs(run, tiny, tmp_path):
    name, ensemble = run
    if not hasattr(settings(name), "epochs"):
        pytest.skip(f"{name} has no epochs")
    fitted(name, tiny, tmp_path / "run", epochs=1)
    resumed = fitted(name, tiny, tmp_path / "run", resume=True)
    assert (resumed.folder / "weights.safetensors").read_bytes() == (
        ensemble.folder / "weights.safetensors"
    ).read_bytes()
    np.testing.assert_array_equal(resumed.z_nq, ensemble.z_nq)
    losses = [[(line["epoch"], line["loss"]) for line in e.history] for e in (resumed, ensemble)]
    assert losses[0] == losses[1]


def test_resuming_with_other_settings_is_refused(run, tiny, tmp_path):
    name, ensemble = run
    if not hasattr(settings(name), "epochs"):
        pytest.skip(f"{name} has no epochs")
    shutil.copytree(ensemble.folder, tmp_path / "run")
    before = (tmp_path / "run" / "config.yaml").read_text()
    with pytest.raises(InputError, match=r"settings\.width was 16, is 24"):
        fitted(name, tiny, tmp_path / "run", resume=True, width=24)
    with pytest.raises(InputError, match="--epochs 1: the run has done 2"):
        fitted(name, tiny, tmp_path / "run", resume=True, epochs=1)
    assert (tmp_path / "run" / "config.yaml").read_text() == before


VARIANTS = [
    {"encoder": "image"},
    {"encoder_radius": 5.0},
    {"from_consensus": False},
    {"encoding": "gaussian"},
    {"encoding": "none"},
    {"beta": 0.1},
    {"layers": 2},
    {"radius": 8.0},
    {"learning_rate": 1e-3},
    {"batch_size": 7},
]


@pytest.fixture(scope="module")
def plain(tiny, tmp_path_factory):
    return fitted("vae", tiny, tmp_path_factory.mktemp("plain") / "run").history[-1]


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_every_setting_of_the_autoencoder_acts(tiny, tmp_path, plain, variant):
    last = fitted("vae", tiny, tmp_path / "run", **variant).history[-1]
    assert np.isfinite(last["loss"])
    assert (last["loss"], last["penalty"]) != (plain["loss"], plain["penalty"])


def test_a_latent_that_nothing_uses_is_noticed(tiny, tmp_path):
    ensemble = fitted("vae", tiny, tmp_path / "run", beta=1e4, epochs=8, learning_rate=1e-2)
    assert "no dimension of z is used" in (ensemble.folder / "run.log").read_text()


def test_history_is_json_lines(run):
    _, ensemble = run
    for line in ensemble.history:
        assert json.loads(json.dumps(line)) == line
        assert {"epoch", "loss", "penalty", "images_per_s", "seconds"} <= set(line)
