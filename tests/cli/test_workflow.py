"""From nothing to a scored run, by commands alone."""

import itertools
import json
import os
import re
import shutil
import time
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch

from morphem.ensemble import Ensemble
from morphem.inference import training
from morphem.io import mrc
from morphem.io.mrc import read_map
from morphem.run import Compute

KEYS = {
    "per_image_auc",
    "per_image_auc_masked",
    "per_conformation_auc",
    "consensus_auc",
    "neighbourhood_similarity",
    "adjusted_rand_index",
    "adjusted_mutual_information",
    "motion_error_deg",
    "images",
    "seconds",
}


def test_from_simulation_to_scores(morphem, fit, tmp_path):
    truth, run = tmp_path / "set", tmp_path / "run"
    options = ["--images", 40, "--box", 16, "--pixel-size", 6, "--states", 2, "--snr", 2]
    simulated = morphem("simulate", truth, *options)
    assert (simulated.code, simulated.err) == (0, "")
    assert simulated.out.splitlines()[-1] == f"Next: morphem fit vae {truth}/particles.star -o RUN"
    assert fit(truth / "particles.star", run, "--epochs", 1).out.startswith(f"Finished: {run}\n")

    analyzed = morphem("analyze", run, "--clusters", 3, "--frames", 2, "--threads", 1)
    assert analyzed.code == 0, analyzed.err
    assert Path(analyzed.out.removeprefix("Finished: ").strip()).read_text().startswith("<!")

    scored = morphem("evaluate", run, "--truth", truth, "--json")
    assert scored.code == 0, scored.err
    assert scored.out.count("\n") == 1
    scores = json.loads(scored.out, parse_constant=pytest.fail)
    assert set(scores) >= KEYS
    assert scores["images"] == 40
    assert 0 < scores["per_image_auc"] <= 0.4375
    table = dict(line.split(maxsplit=1) for line in morphem("evaluate", run, "--truth", truth).out.splitlines())
    assert table["per_image_auc"] == f"{scores['per_image_auc']:.4f}"


@pytest.fixture
def decode(morphem, run, tmp_path):
    """`decode(…)`: the z that were decoded, and their maps."""

    def decoded(*words):
        ended = morphem("decode", run, "-o", tmp_path / "maps", *words)
        assert ended.code == 0, ended.err
        maps = [read_map(path) for path in sorted((tmp_path / "maps").glob("map_*.mrc"))]
        assert {(map_zyx.shape, round(pixel_A, 3)) for map_zyx, pixel_A in maps} == {((32, 32, 32), 6.0)}
        assert "map_001.mrc" in (tmp_path / "maps" / "maps.cxc").read_text()
        z_mq = np.loadtxt(tmp_path / "maps" / "z.csv", delimiter=",", ndmin=2)
        assert len(maps) == len(z_mq)
        return z_mq, np.stack([map_zyx for map_zyx, _ in maps])

    return decoded


def test_decode_at_coordinates(decode):
    z_mq, _ = decode("--z", "-0.5,1e-1")
    np.testing.assert_allclose(z_mq, [[-0.5, 0.1]])


@pytest.mark.parametrize("text", ["1,2\n-3,4\n", "# z_0 z_1\n1 2\n\n  -3\t4"])
def test_decode_at_coordinates_of_a_text(decode, tmp_path, text):
    (tmp_path / "z.txt").write_text(text)
    np.testing.assert_allclose(decode("--z-file", tmp_path / "z.txt")[0], [[1, 2], [-3, 4]])


def test_decode_at_coordinates_of_an_array(decode, tmp_path):
    np.save(tmp_path / "z.npy", [[1, 2], [-3, 4]])
    np.testing.assert_allclose(decode("--z-file", tmp_path / "z.npy")[0], [[1, 2], [-3, 4]])


def test_decode_at_images_and_between_them(decode, tmp_path):
    image_mq, image_mzyx = decode("--image", 3, 7)
    again_mq, again_mzyx = decode("--z-file", tmp_path / "maps" / "z.csv", "--overwrite")
    np.testing.assert_allclose(again_mq, image_mq, rtol=1e-6)
    np.testing.assert_allclose(again_mzyx, image_mzyx, atol=1e-4 * np.abs(image_mzyx).max())

    path_mq, path_mzyx = decode("--path", 3, 7, "--frames", 3, "--overwrite")
    np.testing.assert_allclose(path_mq, [image_mq[0], image_mq.mean(0), image_mq[1]], rtol=1e-5)
    np.testing.assert_array_equal(path_mzyx[[0, 2]], image_mzyx)


def test_67_a_run_is_replaced_only_when_told_so(fit, tiny, run):
    (run / "run.log").write_text("former\n")
    assert fit(tiny / "particles.star", run, "--epochs", 1).code == 2
    assert (run / "run.log").read_text() == "former\n"
    assert fit(tiny / "particles.star", run, "--epochs", 1, "--overwrite").code == 0
    assert "former" not in (run / "run.log").read_text()
    assert max(path.name for path in (run / "checkpoints").iterdir()) == "epoch-0001.safetensors"


def test_a_runs_own_table_finds_its_images(morphem, tiny, tmp_path):
    """The names in it start from where they did in the table that came in, wherever the run lies."""
    ends = [
        morphem("backproject", table, "-o", tmp_path / out, "--threads", 1)
        for table, out in ((tiny / "particles.star", "one"), (tmp_path / "one/particles.star", "two"))
    ]
    assert [ended.code for ended in ends] == [0, 0]
    first, second = (read_map(tmp_path / out / "maps/consensus.mrc")[0] for out in ("one", "two"))
    np.testing.assert_array_equal(first, second)


def test_what_a_user_must_know_is_said(morphem, tiny, tmp_path):
    """A stack without the MRC name is read, but not silently."""
    stack = bytearray((tiny / "particles.mrcs").read_bytes())
    stack[208:212] = bytes(4)
    (tmp_path / "particles.mrcs").write_bytes(stack)
    (tmp_path / "own.star").write_bytes((tiny / "particles.star").read_bytes())
    ended = morphem("backproject", tmp_path / "own.star", "-o", tmp_path / "out", "--threads", 1)
    assert ended.code == 0
    assert "blank MRC identifier" in ended.err


def test_06_an_integer_stack_trains(fit, tiny, tmp_path):
    """Signed bytes, big-endian 16-bit numbers: the loss is that of the real numbers they came from."""
    losses, image_nyx = [], mrc.open_stack(tiny / "particles.mrcs").images_nyx
    for kind, mode in (("<f4", 2), ("<i1", 0), (">i2", 1)):
        folder = tmp_path / kind[1:]
        folder.mkdir()
        header = np.zeros(256, f"{kind[0]}i4")
        header[:4] = 32, 32, 150, mode
        header[52] = int.from_bytes(b"MAP ", "little" if kind[0] == "<" else "big")
        (folder / "particles.mrcs").write_bytes(header.tobytes() + np.rint(10 * image_nyx).astype(kind).tobytes())
        shutil.copy(tiny / "particles.star", folder)
        assert fit(folder / "particles.star", folder / "run", "--epochs", 1).code == 0
        losses.append(Ensemble.open(folder / "run").history[-1]["loss"])
    assert losses[1] == losses[2] == losses[0]


def test_25_every_written_map_has_the_pixel_size(used, fit, tmp_path):
    """Of a simulation, of a run, of its analysis with traversals, decoded, at a lower radius, and in a smaller box."""
    table = used / "set" / "particles.star"
    assert fit(table, tmp_path / "low", "--radius", 6, "--map-box", 16, "--epochs", 1).code == 0
    paths = [*used.rglob("*.mrc"), *used.rglob("*.mrcs"), *tmp_path.rglob("*.mrc")]
    assert {path.parent.name for path in paths} >= {"set", "vols", "kmeans", "pc1", "pc2", "maps", "epoch-001"}
    sides = set()
    for path in paths:
        with mrcfile.open(path, header_only=True) as peer:
            side, voxel = int(peer.header.nx), peer.voxel_size
            sides.add(side)
            assert voxel.x == voxel.y == pytest.approx(192 / side), path
            assert path.suffix == ".mrcs" or voxel.z == pytest.approx(192 / side), path
    assert sides == {16, 32}


def test_23_half_maps_of_one_refinement_are_said_not_to_be_gold_standard(used, morphem, tmp_path):
    """Where the resolution stands: on the terminal, in the log and twice in the report."""
    out = tmp_path / "out"
    ended = morphem("backproject", used / "set" / "particles.star", "-o", out, "--threads", 1)
    for text in (ended.err, (out / "run.log").read_text()):
        (line,) = [line for line in text.splitlines() if "Resolution" in line]
        assert line.endswith("not gold standard)")
    assert morphem("analyze", out).code == 0
    for run in (out, used / "run"):
        page = (run / "report.html").read_text()
        assert page.count("FSC = 0.143, not gold standard") == page.count("FSC = 0.143") == 1
        assert page.count("of one refinement: not gold standard") == page.count("of two half maps") > 0


def test_51_equal_commands_give_equal_files(fit, morphem, tiny, used, tmp_path):
    """With the seed that nobody gave; back-projection with any number of threads."""
    again = tmp_path / "run"
    assert fit(tiny / "particles.star", again, "--epochs", 2).code == 0
    for name in ("weights.safetensors", "latents.parquet", "particles.star", "maps/consensus.mrc", "citations.bib"):
        assert (again / name).read_bytes() == (used / "run" / name).read_bytes(), name
    for threads in (1, 2, 3):
        morphem("backproject", tiny / "particles.star", "-o", tmp_path / str(threads), "--threads", threads)
    for path in (tmp_path / "1" / "maps").iterdir():
        for threads in ("2", "3"):
            assert (tmp_path / threads / "maps" / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize(("said", "asked", "threads"), [("3", 0, 3), ("3,2", 0, 3), ("3", 2, 2), ("many", 0, None)])
def test_threads_are_those_asked_for_or_what_the_environment_says(monkeypatch, said, asked, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    Compute(threads=asked).apply()
    assert torch.get_num_threads() == (threads or len(os.sched_getaffinity(0)))


def said_of(lines: list[str]) -> set[str]:
    """What a user wants to know of a run that has begun."""
    text = "\n".join(lines)
    kinds = {
        "device": r"\bon (cpu|cuda)\b", "precision": r"\b(float32|bfloat16)\b", "speed": r"\d images/s",
        "memory": r"\d\.\d GB", "time left": r"\d (s|min|h) left",
    }  # fmt: skip
    return {kind for kind, pattern in kinds.items() if re.search(pattern, text)}


@pytest.mark.parametrize("slow", [False, True], ids=["short epochs", "epochs of minutes"])
def test_68_the_first_minute_says_device_precision_speed_memory_and_time_left(fit, tiny, tmp_path, monkeypatch, slow):
    """Whether epochs take seconds, or a batch alone takes most of one: then it is said in the middle of the first."""
    clock, steps = time.monotonic, itertools.count()
    monkeypatch.setattr(training.time, "monotonic", lambda: clock() + 3 * slow * next(steps))
    assert fit(tiny / "particles.star", tmp_path / "out", "--epochs", 2, "--batch-size", 4).code == 0
    lines = (tmp_path / "out" / "run.log").read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if "Epoch 1 of 2" in line)
    assert said_of(lines[:first] if slow else lines[: first + 1]) == {
        "device", "precision", "speed", "memory", "time left",
    }  # fmt: skip
