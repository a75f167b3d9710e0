"""`decode` by the kernel, of a run and of another program's latents; `analyze` and `evaluate` with it."""

import json

import numpy as np
import pandas as pd
import pytest

from morphem.ensemble import Ensemble
from morphem.evaluation import truth
from morphem.io import pickles
from morphem.io.mrc import read_map

LOCAL = {f"map_001_{name}.mrc" for name in ("half1", "half2", "resolution", "images")}
KERNEL = {"map_001.mrc", "maps.cxc", "z.csv", "states.csv"} | LOCAL


@pytest.fixture
def latents(fitted, tmp_path):
    """A run's latents in a file of each kind, as another program would leave them."""
    z_nq = Ensemble.open(fitted).z_nq
    np.save(tmp_path / "z.npy", z_nq)
    pickles.write(tmp_path / "z.pkl", z_nq, np.zeros_like(z_nq))
    pd.DataFrame({f"z_{i}": z for i, z in enumerate(z_nq.T)}).to_parquet(tmp_path / "z.parquet")
    return tmp_path


def test_a_run_is_decoded_by_the_kernel(morphem, fitted, tmp_path):
    out, ensemble = tmp_path / "out", Ensemble.open(fitted)
    ended = morphem("decode", fitted, "-o", out, "--image", 3, "--decoder", "kernel")
    assert ended.code == 0, ended.err
    assert {path.name for path in out.iterdir()} == KERNEL
    map_zyx, pixel_A = read_map(out / "map_001.mrc")
    (expected,) = ensemble.decode(ensemble.z_nq[3], "kernel")
    np.testing.assert_allclose(map_zyx, expected, atol=1e-5 * np.abs(expected).max())
    assert pixel_A == pytest.approx(6.0)
    (row,) = pd.read_csv(out / "states.csv").to_dict("records")
    images = [value for name, value in row.items() if name.startswith("images_at_")]
    assert row["map"] == 1 and 12 <= row["resolution_A"] < 192 and len(images) == 8
    assert min(images) > 30 and max(images) <= 150.1
    ended = morphem("decode", fitted, "-o", out, "--image", 3, "--map-box", 24, "--overwrite")
    assert ended.code == 0 and {path.name for path in out.iterdir()} == {"map_001.mrc", "maps.cxc", "z.csv"}


@pytest.mark.parametrize("name", ["z.npy", "z.pkl", "z.parquet"])
def test_another_programs_latents_are_decoded(morphem, latents, tiny, name):
    words = ("--latents", latents / name, "--particles", tiny / "particles.star", "--datadir", tiny)
    ended = morphem("decode", *words, "-o", latents / "out", "--image", 3, "--map-box", 24)
    assert ended.code == 0, ended.err
    assert {path.name for path in (latents / "out").iterdir()} == KERNEL
    half, pixel_A = read_map(latents / "out" / "map_001_half1.mrc")
    assert half.shape == (24, 24, 24) and pixel_A == pytest.approx(8.0)


@pytest.mark.parametrize("decoder", ["model", "kernel"])
def test_decode_writes_how_near_the_frames_are(morphem, fitted, tmp_path, decoder):
    out = tmp_path / "out"
    words = ("--path", 3, 7, "--along", "graph", "--frames", 3, "--decoder", decoder)
    ended = morphem("decode", fitted, "-o", out, *words)
    assert ended.code == 0, ended.err
    states = pd.read_csv(out / "states.csv")
    assert list(states["map"]) == [1, 2, 3] and (states["density"] > 0).all() and set(states["off_data"]) <= {0, 1}
    assert ("resolution_A" in states) == (decoder == "kernel")


WRONG = {
    "decode {run} -o {out} --image 3 --along graph": ("--along graph", "with --image"),
    "decode {run} -o {out} --mode simple --map-box 16": ("--map-box 16", "with --mode simple"),
    "decode {run} -o {out} --mode simple --decoder kernel": ("--decoder kernel", "with --mode simple"),
    "decode {run} -o {out} --image 3 --lowpass 20": ("--lowpass 20", "without --mode"),
    "decode {run} --latents {z} --particles {star} -o {out} --image 3": ("--latents", "its own latents"),
    "decode {run} --particles {star} -o {out} --image 3": ("--particles", "its own latents"),
    "decode --latents {z} -o {out} --image 3": ("without --particles", "expected a run's folder"),
    "decode --particles {star} -o {out} --image 3": ("neither a run nor --latents",),
    "decode -o {out} --image 3": ("neither a run nor --latents", "--latents and --particles"),
    "decode --latents {z} --particles {star} -o {out} --image 3 --decoder model": ("--decoder model", "leave it out"),
    "decode --latents {star} --particles {star} -o {out} --image 3": ('ends in ".star"',),
    "decode --latents {short} --particles {star} -o {out} --image 3": ("expected 150 rows",),
    "decode --latents {z} --particles {star} -o {out} --image 150": ("image 150", "0 to 149"),
    "decode --latents {z} --particles {star} -o {out} --z 0,0,0": ("z has 3 numbers", "2"),
    "decode --latents {z} --particles {star} -o {out} --z 0,0 --map-box 33": ("--map-box 33",),
    "decode --latents {z} --particles {out} -o {out} --z 0,0": ("{out}",),
    "decode --latents {z} --particles {star} -o {out}": ("nothing given",),
}


@pytest.mark.parametrize("words", WRONG)
def test_wrong_words_are_refused(refused, latents, fitted, tiny, words):
    np.save(latents / "short.npy", np.zeros((3, 2)))
    places = {"run": fitted, "z": latents / "z.npy", "short": latents / "short.npy"}
    places |= {"star": tiny / "particles.star", "out": latents / "out"}
    refused([word.format(**places) for word in words.split()], [text.format(**places) for text in WRONG[words]])


def test_maps_of_the_kernel_are_not_overwritten_unasked(refused, fitted, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "states.csv").write_text("")
    words = ["decode", fitted, "-o", tmp_path / "out", "--image", 3, "--decoder", "kernel"]
    refused(words, ["states.csv", "--overwrite"])


def test_a_run_without_latents_or_images_has_no_kernel(morphem, refused, tiny, tmp_path, run):
    assert morphem("backproject", tiny / "particles.star", "-o", tmp_path / "still").code == 0
    words = ["evaluate", tmp_path / "still", "--truth", tiny, "--decoder", "kernel"]
    refused(words, ["has no latents", "--decoder model"])
    refused(["analyze", tmp_path / "still", "--decoder", "kernel"], ["has no latents", "--decoder model"])
    config = (run / "config.yaml").read_text().replace(str(tiny), str(tmp_path / "gone"))
    (run / "config.yaml").write_text(config)
    refused(["decode", run, "-o", tmp_path / "out", "--image", 3, "--decoder", "kernel"], ["gone"])


def test_evaluate_scores_the_kernel(morphem, fitted, tiny, monkeypatch):
    monkeypatch.setattr(truth, "SCORED", 5)
    ended = morphem("evaluate", fitted, "--truth", tiny, "--decoder", "kernel", "--json")
    assert ended.code == 0, ended.err
    scores = json.loads(ended.out)
    assert scores["decoder"] == "kernel" and 0.2 < scores["per_image_auc"] < 0.47


@pytest.mark.parametrize("asked", ["auto", "model", "kernel"])
def test_analyze_says_which_decoder_it_took(morphem, run, asked):
    ended = morphem("analyze", run, "--clusters", 2, "--axes", 0, "--no-umap", "--decoder", asked)
    assert ended.code == 0, ended.err
    ensemble = Ensemble.open(run)
    record = ensemble.history[-1]
    assert record["part"] == "analysis" and record["decoder"] in ("model", "kernel")
    assert asked in ("auto", record["decoder"]) and (record["kernel_gain"] is None) == (asked != "auto")
    assert f"Maps are the {record['decoder']}" in (run / "report.html").read_text()
    z_1q = pd.read_parquet(run / "analysis" / "maps.parquet").filter(regex=r"^z_\d+$").to_numpy()[:1]
    (expected,) = ensemble.decode(z_1q, record["decoder"])
    found = read_map(run / "analysis" / "kmeans" / "map_001.mrc")[0]
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("--image 0 --component 2", "--component 2: has no meaning without --mode"),
        ("--image 0 --frames 7", "--frames 7: has no meaning with --image"),
        ("--mode cluster --component 1", "--component 1: has no meaning with --mode cluster"),
        ("--mode simple --frames 0", "--frames 0: expected at least 2"),
        ("--path 0 1 --frames 0", "--frames 0: expected at least 2"),
    ],
)
def test_options_that_would_be_passed_over_are_refused(morphem, used, tmp_path, words, complaint):
    ended = morphem("decode", used / "run", *words.split(), "-o", tmp_path / "maps")
    assert (ended.code, complaint in ended.err) == (2, True), ended.err
    assert not (tmp_path / "maps").exists()
