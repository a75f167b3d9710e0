"""From nothing to a scored run, by commands alone."""

import json
from pathlib import Path

import numpy as np
import pytest

from morphem.io.mrc import read_map

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


def test_a_run_is_replaced_only_when_told_so(fit, tiny, run):
    (run / "run.log").write_text("former\n")
    assert fit(tiny / "particles.star", run, "--epochs", 1).code == 2
    assert (run / "run.log").read_text() == "former\n"
    assert fit(tiny / "particles.star", run, "--epochs", 1, "--overwrite").code == 0
    assert "former" not in (run / "run.log").read_text()
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["epoch-0001.safetensors"]


def test_what_a_user_must_know_is_said(morphem, tiny, tmp_path):
    """A stack without the MRC name is read, but not silently."""
    stack = bytearray((tiny / "particles.mrcs").read_bytes())
    stack[208:212] = bytes(4)
    (tmp_path / "particles.mrcs").write_bytes(stack)
    (tmp_path / "own.star").write_bytes((tiny / "particles.star").read_bytes())
    ended = morphem("backproject", tmp_path / "own.star", "-o", tmp_path / "out", "--threads", 1)
    assert ended.code == 0
    assert "blank MRC identifier" in ended.err
