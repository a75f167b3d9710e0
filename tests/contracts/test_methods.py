"""What every method leaves behind: an ensemble that opens, decodes, repeats and resumes. Joined by registering."""

import dataclasses
import json
import math
import re
import shutil
import signal
import subprocess
import sys
from typing import get_args

import numpy as np
import pandas as pd
import pytest
import torch

from morphem.analysis.decoders import better_decoder
from morphem.data.dataset import Dataset, Source
from morphem.data.particles import Particles
from morphem.data.simulation import Simulation
from morphem.data.synthetic import simulate
from morphem.ensemble import FILES, Ensemble
from morphem.errors import InputError, NoResultError, RunError
from morphem.evaluation import Validation
from morphem.evaluation.checks import CHECKS
from morphem.evaluation.validation import Verdict, validate
from morphem.inference import heldout, history
from morphem.inference.clusters import cluster
from morphem.inference.gradient import Gradient
from morphem.inference.settings import LatentSettings, NetworkSettings
from morphem.io.mrc import read_map, write_map
from morphem.methods import METHODS, finds_poses, fit, load, summary
from morphem.physics.cube import crop
from morphem.physics.fsc import fsc, read_fsc_star
from morphem.physics.rotations import distance_rad
from morphem.run import Compute, Output, Run

OWN = {"abinitio": {"latent_dim": None, "classes": 1}}
"""Where a method's settings mean something else."""
OF_PARTS = {
    "reliability": {"seen", "expected"},
    "start": {"radius", "images", "score"},
    "refinement": {"epoch", "radius", "agreed", "left"},
    "outcome": {"gain", "gain_error", "starts_apart_deg", "views_filled", "agreed_A"},
}
"""What is recorded of a search for poses, or after a fit, part by part."""
SMALL = {"epochs": 2, "width": 16, "layers": 1, "latent_dim": 2, "batch_size": 16, "classes": 2, "starts": 2}
NETWORKS = [name for name in METHODS if issubclass(load(name).Config, NetworkSettings)]
WITH_LATENT = [name for name in NETWORKS if issubclass(load(name).Config, LatentSettings)]


def settings(name, **changes):
    """The method's own defaults, made small where it has such settings."""
    config = load(name).Config
    known = {field.name for field in dataclasses.fields(config)}
    small = SMALL | OWN.get(name, {}) | changes
    return config(**{key: value for key, value in small.items() if key in known})


def fitted(name, tiny, folder, resume=False, seed=0, **changes):
    compute = Compute(precision="float32", seed=seed)
    config = settings(name, **changes)
    dataset = Dataset.open(Source(tiny / "particles.star"), config.radius)
    try:
        return fit(name, dataset, config, Run(folder, compute, resume))
    except NoResultError:  # so few images of a molecule that moves: what is found is kept
        return Ensemble.open(folder)


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


def test_every_flag_has_one_meaning():
    for name in METHODS:
        names = [
            field.name for part in (Source, Output, Compute, load(name).Config) for field in dataclasses.fields(part)
        ]
        assert len(names) == len(set(names)), name


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
    name, ensemble = run
    assert len(ensemble) == 150
    assert ensemble.uncertainty_nqq.shape == (150, ensemble.latent_dim, ensemble.latent_dim)
    if ensemble.latent_dim:
        least = -1e-5 if hasattr(settings(name), "classes") else 1e-9  # a class can be certain
        assert (np.linalg.eigvalsh(ensemble.uncertainty_nqq) >= least).all()
        assert ensemble.z_nq.std(0).min() > 0
    np.testing.assert_allclose(ensemble.weight_nc.sum(1), 1, atol=1e-5)


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
    name, ensemble = run
    before, after = Particles.read(tiny / "particles.star"), ensemble.poses
    if not finds_poses(name):
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
    name, ensemble = run
    for path in (ensemble.folder / "maps").rglob("*.mrc"):
        assert read_map(path)[1] == pytest.approx(6.0)
    if finds_poses(name):
        pytest.skip("its maps have a frame of their own")
    truth = np.mean([read_map(path)[0] for path in tiny.glob("vols/*.mrc")], axis=0)
    assert np.corrcoef(truth.ravel(), ensemble.consensus_zyx.ravel())[0, 1] > 0.95
    assert np.corrcoef(truth.ravel(), ensemble.consensus_zyx[::-1].ravel())[0, 1] < 0.9


def test_51_equal_seeds_give_equal_results_and_others_do_not(run, tiny, tmp_path):
    name, ensemble = run
    again = fitted(name, tiny, tmp_path / "again")
    assert (again.folder / "weights.safetensors").read_bytes() == (ensemble.folder / "weights.safetensors").read_bytes()
    np.testing.assert_array_equal(again.z_nq, ensemble.z_nq)
    if ensemble.latent_dim:
        other = fitted(name, tiny, tmp_path / "other", seed=1)
        assert (other.folder / "weights.safetensors").read_bytes() != (
            ensemble.folder / "weights.safetensors"
        ).read_bytes()


def test_49_one_epoch_and_one_more_are_two_epochs(run, tiny, tmp_path):
    name, ensemble = run
    if not hasattr(settings(name), "epochs"):
        pytest.skip(f"{name} has no epochs")
    fitted(name, tiny, tmp_path / "run", epochs=1)
    same(ensemble, fitted(name, tiny, tmp_path / "run", resume=True))


def test_52_resuming_with_other_settings_is_refused(run, tiny, tmp_path):
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


VARIANTS = {
    "backproject": [{"radius": 8.0}, {"padding": 1}, {"symmetry": "C3"}],
    "field": [{"halves": False}],
    "vae": [
        {"encoder": "image"},
        {"encoder": "conv"},
        {"encoder_radius": 5.0},
        {"posterior": "full"},
        {"beta_schedule": "constant"},
        {"beta_schedule": "cyclic", "beta_epochs": (0.0, 0.7)},
        {"beta_schedule": "capacity", "capacity": 3.0},
        {"beta_epochs": (0.0, 1.0)},
        {"beta_start": 0.5},
    ],
    "autodecoder": [{"latent_rate": 0.05}],
}
OF_NETWORKS = [
    *({"encoding": name} for name in ("geometric_full", "low", "no_high", "linear", "gaussian", "none")),
    {"layers": 2},
    {"radius": 8.0},
    {"learning_rate": 1e-3},
    {"batch_size": 7},
    {"march_epochs": 2},
    {"held_out": 0.1},
    *({"refine_poses": which} for which in ("shift", "rotation", "both")),
]
OF_LATENTS = [{"beta": 0.1}, {"from_consensus": False}, {"conditioning": "film"}, {"latent_dim": 3}]
EVERY = [
    *((name, change) for name, changes in VARIANTS.items() for change in changes),
    *(("vae", change) for change in (*OF_NETWORKS, *OF_LATENTS)),
    *(("autodecoder", change) for change in OF_LATENTS),
]


@pytest.fixture(scope="module")
def plain(tiny, tmp_path_factory):
    """Each method's results with the settings that the variants start from, fitted when first asked for."""
    results = {}

    def result(name):
        if name not in results:
            results[name] = outcome(fitted(name, tiny, tmp_path_factory.mktemp("plain") / "run"))
        return results[name]

    return result


def outcome(ensemble):
    """The losses, the poses, the consensus map."""
    losses = [(line["loss"], line["penalty"]) for line in ensemble.history]
    poses = ensemble.poses.rotation_n33.tobytes(), ensemble.poses.shift_A_n2.tobytes()
    return losses, poses, ensemble.consensus_zyx.tobytes()


@pytest.mark.parametrize(("name", "change"), EVERY, ids=str)
def test_30_every_setting_acts(tiny, tmp_path, plain, name, change):
    ensemble = fitted(name, tiny, tmp_path / "run", **change)
    assert all(np.isfinite(line["loss"]) for line in ensemble.history)
    assert outcome(ensemble) != plain(name)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"capacity": 2.0}, "--beta-schedule linear --capacity 2"),
        ({"beta_schedule": "capacity"}, "--beta-schedule capacity --capacity 0"),
        ({"beta_schedule": "constant", "beta_start": 0.5}, "--beta-start: means nothing"),
        ({"beta_schedule": "constant", "beta_epochs": (0.0, 2.0)}, "--beta-epochs: means nothing"),
        ({"beta_epochs": (5.0, 2.0)}, "--beta-epochs 5 2: expected two epochs in order"),
        ({"held_out": 0.9}, "--held-out 0.9: expected 0 to 0.5"),
        ({"map_box": 15}, "--map-box 15: expected an even number"),
        ({"march_epochs": -1}, "--march-epochs -1: expected 0 or more"),
        ({"checkpoint_minutes": 0.0}, "--checkpoint-minutes 0.0: expected a positive number"),
    ],
    ids=str,
)
def test_30_settings_that_mean_nothing_are_refused(change, sentence):
    with pytest.raises(InputError, match=re.escape(sentence)):
        settings("vae", **change)


@pytest.mark.parametrize(("threshold", "active"), [(1e-9, 2), (100.0, 0)])
def test_a_latent_that_nothing_uses_is_noticed(tiny, tmp_path, monkeypatch, threshold, active):
    monkeypatch.setattr(history, "ACTIVE", threshold)
    ensemble = fitted("vae", tiny, tmp_path / "run")
    assert [line["active"] for line in ensemble.history] == [active, active]
    noticed = "no dimension of z is used after two epochs" in (ensemble.folder / "run.log").read_text()
    assert noticed == (active == 0)


@pytest.mark.parametrize("name", NETWORKS)
def test_33_the_loss_on_held_out_images_is_recorded(tiny, tmp_path, name):
    """Images that training leaves out, by half of the set: the loss on them is that of the model, and it falls."""
    ensemble = fitted(name, tiny, tmp_path / "run", held_out=0.5, epochs=4, learning_rate=2e-3)
    losses = [line["held_out"] for line in ensemble.history if not line.get("part")]
    assert len(losses) == 4
    assert losses[-1] < losses[0]
    assert "75 images and 75 held out" in (ensemble.folder / "run.log").read_text()


VERDICTS = {
    "Converged: ": [1.0, 0.95, 0.94, 0.94],
    "Not converged: held-out images fit better with every epoch": [1.0, 0.95, 0.94, 0.93],
    "Not converged, but past the best": [1.0, 0.9, 0.92, 0.94],
    "Not converged: nothing has been learnt": [1.0, 0.99, 1.01, 1.02],
}


@pytest.mark.parametrize("verdict", VERDICTS)
def test_33_a_run_says_whether_it_has_converged(tmp_path, verdict):
    run = Run(tmp_path)
    for epoch, loss in enumerate(VERDICTS[verdict], start=1):
        run.log("")
        run.record(epoch=epoch, held_out=loss)
        run.record(part="half1", epoch=epoch, held_out=2 * loss)
    heldout.judge(run, "half1")
    assert f"half1: {verdict}" in (tmp_path / "run.log").read_text()
    assert f"{2 * VERDICTS[verdict][-1]:.4f} after the last" in (tmp_path / "run.log").read_text()


@pytest.mark.parametrize("name", WITH_LATENT)
def test_44_a_saved_run_decodes_the_maps_that_training_wrote(tiny, tmp_path, name):
    """With a mask, and to a smaller box: the same maps, with the pixel size that belongs to them."""
    write_map(tmp_path / "mask.mrc", ball(32, 10), 6.0)
    ensemble = fitted(name, tiny, tmp_path / "run", map_every=1, map_box=24, mask=tmp_path / "mask.mrc")
    folder = ensemble.folder / "maps" / "epoch-002"
    table = np.loadtxt(folder / "kmeans.csv", delimiter=",", skiprows=1)
    assert table[:, 2].sum() == 148
    assert set(table[:, 1].astype(int)) <= set(heldout.split(np.arange(150), 0.01, 0)[0])
    for number, z_q in ((1, table[0, 3:]), (len(table), table[-1, 3:])):
        map_zyx, pixel_A = read_map(folder / f"map_{number:03d}.mrc")
        (decoded,) = ensemble.decode(z_q)
        expected = crop(torch.from_numpy(decoded)[None], 24)[0].numpy()
        np.testing.assert_allclose(map_zyx, expected, atol=1e-5 * np.abs(expected).max())
        assert pixel_A == pytest.approx(6.0 * 32 / 24)
    assert not (ensemble.folder / "maps" / "epoch-003").exists()


def test_maps_beyond_the_images_are_refused(run, tiny, tmp_path):
    with pytest.raises(InputError, match="--map-box 48: the images have 32 pixels"):
        fitted("vae", tiny, tmp_path / "run", map_box=48)
    for box in (15, 34):
        with pytest.raises(InputError, match=f"--map-box {box}: expected an even number of pixels, 2 to 32"):
            run[1].decode(np.zeros((1, run[1].latent_dim)), box=box)


def ball(box, radius):
    x = np.arange(box) - box // 2
    return (x[:, None, None] ** 2 + x[:, None] ** 2 + x**2 < radius**2).astype(np.float32)


SYMMETRIC = {
    "C2": lambda m: np.roll(m[:, ::-1, ::-1], (1, 1), (1, 2)),
    "C4": lambda m: np.roll(m[:, :, ::-1], 1, 2).transpose(0, 2, 1),
    "D2": lambda m: np.roll(m[::-1, ::-1, :], (1, 1), (0, 1)),
    "O": lambda m: m.transpose(1, 2, 0),
}
"""What a map of this symmetry is equal to: turned about z by 180°, by 90°, about x by 180°, about (1, 1, 1) by 120°."""


@pytest.mark.parametrize("group", SYMMETRIC)
def test_24_a_map_has_the_symmetry_given_and_the_particles_stay_as_they_are(tiny, tmp_path, group):
    ensemble = fitted("backproject", tiny, tmp_path / "run", symmetry=group)
    turned = SYMMETRIC[group]
    map_zyx = ensemble.consensus_zyx
    assert np.abs(turned(map_zyx) - map_zyx).max() < 1e-4 * np.abs(map_zyx).max()
    plain = fitted("backproject", tiny, tmp_path / "plain").consensus_zyx
    assert np.abs(turned(plain) - plain).max() > 0.1 * np.abs(plain).max()
    assert len(ensemble.poses) == 150


@pytest.mark.parametrize("name", ["C0", "D1", "I", "x"])
def test_24_other_symmetries_are_refused(name):
    with pytest.raises(InputError, match=f"--symmetry {name}: expected C1"):
        settings("backproject", symmetry=name)


@pytest.mark.parametrize("name", METHODS)
def test_34_maps_are_zero_outside_a_mask(tiny, tmp_path, name):
    mask = ball(32, 10)
    write_map(tmp_path / "mask.mrc", mask, 6.0)
    ensemble = fitted(name, tiny, tmp_path / "run", mask=tmp_path / "mask.mrc")
    maps = [ensemble.consensus_zyx, *ensemble.decode(ensemble.z_nq[:2])]
    maps += [read_map(path)[0] for path in (ensemble.folder / "maps").glob("field.mrc")]
    for map_zyx in maps:
        assert (map_zyx[mask == 0] == 0).all()
        assert map_zyx[mask == 1].std() > 0


@pytest.mark.parametrize(
    ("mask", "sentence"),
    [
        (ball(24, 8), "24 × 24 × 24 voxels"),
        (5 * ball(32, 8), "values from 0 to 5"),
        (0 * ball(32, 8), "values from 0 to 0"),
        (0.1 * ball(32, 8), "values from 0 to 0.1"),
    ],
)
def test_34_another_mask_is_refused(tiny, tmp_path, mask, sentence):
    write_map(tmp_path / "mask.mrc", mask, 6.0)
    with pytest.raises(InputError, match=sentence):
        fitted("vae", tiny, tmp_path / "run", mask=tmp_path / "mask.mrc")


RESUMED = [
    ("field", {}),
    ("vae", {"refine_poses": "both", "march_epochs": 2, "encoder": "conv"}),
    ("vae", {"beta_schedule": "capacity", "capacity": 2.0, "posterior": "full", "map_every": 1}),
    ("autodecoder", {"refine_poses": "rotation", "held_out": 0.1, "conditioning": "film"}),
]


@pytest.mark.parametrize(("name", "changes"), RESUMED, ids=str)
def test_49_a_run_stopped_in_the_middle_of_an_epoch_goes_on_exactly(tiny, tmp_path, monkeypatch, name, changes):
    """Ctrl-C comes while a step is done; the step ends, is kept, and nothing of the result differs."""
    whole = fitted(name, tiny, tmp_path / "whole", **changes)
    update, steps = Gradient.update, []

    def interrupted(self, observed, hypotheses):
        steps.append(len(steps))
        if len(steps) == 13:
            signal.raise_signal(signal.SIGINT)
        update(self, observed, hypotheses)

    former = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
    with monkeypatch.context() as patch:
        patch.setattr(Gradient, "update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fitted(name, tiny, tmp_path / "run", **changes)
    signal.signal(signal.SIGINT, former)
    assert len(steps) == 13
    assert list((tmp_path / "run" / "checkpoints").rglob("epoch-*-batch-*.safetensors"))
    fitted(name, tiny, tmp_path / "run", resume=True, **changes)
    (tmp_path / "run" / "latents.parquet").unlink()  # as if killed after the last checkpoint, before the end
    same(whole, fitted(name, tiny, tmp_path / "run", resume=True, **changes))


def same(one, other):
    """Weights, latents, maps, poses and history are equal, bit for bit."""
    np.testing.assert_array_equal(other.z_nq, one.z_nq)
    np.testing.assert_array_equal(other.uncertainty_nqq, one.uncertainty_nqq)
    np.testing.assert_array_equal(other.poses.rotation_n33, one.poses.rotation_n33)
    assert losses_of(other) == losses_of(one)
    for path in (one.folder / "weights.safetensors", *(one.folder / "maps").rglob("*.*")):
        assert path.read_bytes() == (other.folder / path.relative_to(one.folder)).read_bytes()


def losses_of(ensemble):
    names = ("part", "epoch", "radius", "loss", "penalty", "held_out", "kl", "skipped")
    lines = sorted(ensemble.history, key=lambda line: (line.get("part", ""), line["epoch"]))
    return [{key: line[key] for key in names if key in line} for line in lines]


def test_26_a_run_that_diverges_goes_back_once_and_then_ends(tiny, tmp_path):
    with pytest.raises(RunError, match=r"epoch 1, batch \d+: .* also with half the step"):
        fitted("vae", tiny, tmp_path / "run", learning_rate=1e30)
    log = (tmp_path / "run" / "run.log").read_text()
    assert log.count("with half the step") == 1
    assert list((tmp_path / "run" / "checkpoints").glob("epoch-0000.safetensors"))


def test_27_reading_from_disk_gives_the_same_result(tiny, tmp_path):
    config, ends = settings("vae"), []
    for share in (0.4, 0.0):
        dataset = Dataset.open(Source(tiny / "particles.star"), config.radius, memory_share=share)
        assert (dataset.packed_nk is None) == (share == 0)
        run = Run(tmp_path / f"{share}", Compute(precision="float32"))
        ends.append(fit("vae", dataset, config, run))
    np.testing.assert_array_equal(ends[0].z_nq, ends[1].z_nq)
    assert losses_of(ends[0]) == losses_of(ends[1])


@pytest.mark.parametrize("box", [64, 96, 128])
@pytest.mark.parametrize("encoder", ["map", "image", "conv"])
def test_29_every_encoder_trains_at_every_box(tmp_path, box, encoder):
    simulate(tmp_path / "set", Simulation(images=20, box=box, pixel_size=200 / box, snr=1.0, states=2))
    ensemble = fitted("vae", tmp_path / "set", tmp_path / "run", encoder=encoder, epochs=1, map_every=0)
    assert 0.9 < ensemble.history[-1]["loss"] < 1.2
    assert ensemble.z_nq.std(0).min() > 0


@pytest.mark.parametrize(("encoder", "batch"), [("map", 8), ("conv", 400)])
def test_31_the_memory_of_training_is_predicted_within_a_fifth(tmp_path, encoder, batch):
    """The process' peak in a few steps against what it held before and the prediction: 400 images of 64 pixels."""
    simulate(tmp_path / "set", Simulation(images=400, box=64, pixel_size=3.0, states=2))
    words = [str(tmp_path / "set" / "particles.star"), encoder, str(batch)]
    ended = subprocess.run([sys.executable, "-c", PEAK, *words], check=True, capture_output=True, text=True)
    predicted, measured = map(float, ended.stdout.split())
    assert 0.8 < predicted / measured < 1.2


PEAK = """
import sys, threading, time
import psutil, torch
from morphem.analysis.decoders import better_decoder
from morphem.data.dataset import Dataset, Source
from morphem.inference.memory import footprint
from morphem.methods import vae
from morphem.inference.consensus import start
from morphem.inference.training import train
from morphem.methods.vae import Config, Encoder, _view
from morphem.run import Compute, Output, Run
import tempfile, pathlib

torch.set_num_threads(1)
config = Config(encoder=sys.argv[2], batch_size=int(sys.argv[3]), epochs=1, map_every=0, held_out=0.0)
dataset = Dataset.open(Source(pathlib.Path(sys.argv[1])))
run = Run(pathlib.Path(tempfile.mkdtemp()), Compute(precision="float32"))
dataset, consensus = start(dataset, run, None)
volume = consensus.network(dataset, config, 8, True)
encoder = Encoder(_view(dataset, config, volume), 8, 256, 3, config.schedule)
process, peak, done = psutil.Process(), [0], []
before = process.memory_info().rss
def watch():
    while not done:
        peak[0] = max(peak[0], process.memory_info().rss)
        time.sleep(0.002)
watcher = threading.Thread(target=watch)
watcher.start()
train(dataset, encoder, volume, config, run)
done.append(True)
watcher.join()
print(before + footprint(64, len(dataset.lattice), config).of(config.batch_size), peak[0])
"""


def test_31_what_does_not_fit_is_refused_with_what_does(tiny, tmp_path):
    with pytest.raises(InputError, match=r"--batch-size 1000000000: .* GB are free; --batch-size \d+ fits") as refusal:
        fitted("vae", tiny, tmp_path / "run", batch_size=10**9)
    assert not (tmp_path / "run").exists()
    fits = int(re.search(r"--batch-size (\d+) fits", str(refusal.value))[1])
    assert 10**3 < fits < 10**8


@pytest.mark.parametrize("name", NETWORKS)
def test_refined_poses_are_written(tiny, tmp_path, name):
    ensemble = fitted(name, tiny, tmp_path / "run", refine_poses="both", epochs=3)
    before, after = Particles.read(tiny / "particles.star"), ensemble.poses
    trace_n = np.einsum("nij,nij->n", before.rotation_n33, after.rotation_n33)
    turned_deg_n = np.degrees(np.arccos(np.clip((trace_n - 1) / 2, -1, 1)))
    moved_px_n = np.linalg.norm(after.shift_A_n2 - before.shift_A_n2, axis=1) / 6.0
    assert 0.01 < np.median(turned_deg_n) < 1
    assert 0.001 < np.median(moved_px_n) < 0.1
    assert "poses refined: turned by" in (ensemble.folder / "run.log").read_text().lower()
    np.testing.assert_allclose(np.linalg.det(after.rotation_n33), 1, atol=1e-9)


def test_half_sets_of_noise_agree_nowhere(tmp_path):
    """The two networks must not start as one function, or their FSC would be 1 where images say nothing."""
    simulate(tmp_path / "set", Simulation(images=60, box=32, pixel_size=6.0, snr=1e-6, states=1))
    ensemble = fitted("field", tmp_path / "set", tmp_path / "run", epochs=1)
    halves = [read_map(ensemble.folder / "maps" / f"field_half{half}_unfil.mrc")[0] for half in (1, 2)]
    assert np.abs(fsc(*halves)[5:15]).mean() < 0.5


def test_poses_get_better_by_refinement(tmp_path):
    """Poses spoilt by 4°: in fourteen steps of at most 0.06° most images come nearer to the truth."""
    settings = Simulation(images=300, box=32, pixel_size=6.0, snr=5.0, states=1, rotation_error=4.0)
    simulate(tmp_path / "set", settings)
    changes = {"refine_poses": "rotation", "epochs": 15, "width": 32, "layers": 2, "halves": False}
    ensemble = fitted("field", tmp_path / "set", tmp_path / "run", **changes)
    table = pd.read_parquet(tmp_path / "set" / "truth.parquet")
    true_n33 = table[[f"r{i}{j}" for i in range(3) for j in range(3)]].to_numpy().reshape(-1, 3, 3)
    given = Particles.read(tmp_path / "set" / "particles.star").rotation_n33
    before_n, after_n = (distance_rad(true_n33, found) for found in (given, ensemble.poses.rotation_n33))
    assert np.median(after_n) < 0.95 * np.median(before_n)
    assert (after_n < before_n).mean() > 0.6


def test_the_field_gives_an_fsc_of_half_sets(tiny, tmp_path):
    ensemble = fitted("field", tiny, tmp_path / "run", epochs=8, learning_rate=2e-3)
    curves = read_fsc_star(ensemble.folder / "maps" / "field_fsc.star")
    assert curves.unmasked_s[1:4].min() > 0.7
    halves = [read_map(ensemble.folder / "maps" / f"field_half{half}_unfil.mrc")[0] for half in (1, 2)]
    np.testing.assert_allclose(curves.unmasked_s, fsc(*halves), atol=1e-4)
    assert {line.get("part") for line in ensemble.history} == {"half1", "half2", None}


def test_the_autodecoder_starts_from_given_coordinates(tiny, tmp_path):
    z_nq = np.random.default_rng(0).standard_normal((150, 2)).astype(np.float32)
    np.save(tmp_path / "z.npy", z_nq)
    ensemble = fitted("autodecoder", tiny, tmp_path / "run", init=tmp_path / "z.npy", latent_rate=1e-4)
    np.testing.assert_allclose(ensemble.z_nq, z_nq, atol=0.01)
    with pytest.raises(InputError, match="2 numbers a row, but --latent-dim 3"):
        fitted("autodecoder", tiny, tmp_path / "other", init=tmp_path / "z.npy", latent_dim=3)


def test_history_is_json_lines(run):
    _, ensemble = run
    for line in ensemble.history:
        assert json.loads(json.dumps(line)) == line
        of_networks, of_linear = {"epoch", "loss", "penalty", "images_per_s"}, {"radius", "evidence", "variances"}
        of_parts = OF_PARTS.get(line.get("part", "").split(" ")[0], {"nothing"})
        assert any(keys <= set(line) for keys in (of_networks | {"seconds"}, of_linear | {"seconds"}, of_parts))


@pytest.mark.slow
def test_32_two_states_are_told_apart(tmp_path):
    """A lobe on either side, 64 pixels, SNR 0.1: two clusters of z are the states for at least 95 % of the images."""
    simulate(tmp_path / "set", Simulation(images=2000, box=64, snr=0.1, states=2))
    ensemble = fitted(
        "vae", tmp_path / "set", tmp_path / "run", width=128, layers=3, latent_dim=4, epochs=8, map_every=0
    )
    state_n = np.load(tmp_path / "set" / "labels.npy")
    label_n = cluster(ensemble.z_nq, 2, seed=0).label_n - 1
    share = (label_n == state_n).mean()
    assert max(share, 1 - share) >= 0.95


def test_every_run_with_latents_decodes_with_the_kernel(run, tiny):
    """In image units, and as near to the truth as the consensus; a run without latents says so."""
    _, ensemble = run
    if not ensemble.latent_dim:
        with pytest.raises(InputError, match="has no latents to regress maps on"):
            ensemble.decode(ensemble.z_nq[:1], "kernel")
        return
    truth = np.mean([read_map(path)[0] for path in tiny.glob("vols/*.mrc")], axis=0)
    for map_zyx in ensemble.decode(ensemble.z_nq[:2], "kernel", box=32):
        assert np.corrcoef(truth.ravel(), map_zyx.ravel())[0, 1] > 0.9
        assert 0.7 < (truth * map_zyx).sum() / (truth**2).sum() < 1.2
    verdict = better_decoder(ensemble)
    assert verdict.name == ("kernel" if verdict.gain > 0 else "model") and verdict.images > 10
    assert better_decoder(ensemble, "kernel").name == "kernel"
    with pytest.raises(InputError, match="--decoder other: is not known; expected model or kernel"):
        ensemble.decode(ensemble.z_nq[:1], "other")


def test_every_run_can_be_validated(run):
    name, ensemble = run
    told = validate(ensemble, Validation(seeds=2), Compute(threads=1))
    verdicts = {check["name"]: check["verdict"] for check in told["checks"]}
    assert list(verdicts) == list(CHECKS) and set(verdicts.values()) <= set(get_args(Verdict))
    assert all(math.isfinite(check["value"]) for check in told["checks"] if check["value"] is not None)
    assert json.loads((ensemble.folder / "validation" / "validation.json").read_text()) == told
    assert verdicts["signal"] == "holds" or name in NETWORKS
    if not ensemble.latent_dim:
        assert verdicts["heterogeneity"] == told["verdict"] == "cannot tell"
