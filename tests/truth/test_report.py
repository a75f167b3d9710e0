"""What the report is made of, without a browser: counts in cells, cubes of bytes, the command that made the run."""

import base64
import gzip
import shlex

import numpy as np
import pytest

from morphem.analysis import write_report
from morphem.analysis.page import fit_command, packed, rgb
from morphem.analysis.pictures import Camera
from morphem.analysis.planes import Plane
from morphem.cli import app
from morphem.config import to_plain, to_words
from morphem.data.dataset import Source
from morphem.ensemble import Ensemble
from morphem.errors import InputError
from morphem.inference.clusters import Clusters
from morphem.methods import METHODS, load
from morphem.physics.masks import sphere


def test_every_image_is_counted_in_its_cell_under_its_commonest_label():
    point_n2 = np.array([[0, 0]] * 5 + [[1, 0]] * 3 + [[0, 2]] * 2, float)
    label_n = np.array([1, 2, 2, 2, 1, 3, 3, 1, 4, 4])
    plane = Plane.of(point_n2, Clusters(label_n, np.array([0, 1, 5, 8]), np.zeros((4, 2))))
    assert plane.count_yx.sum() == 10 and sorted(plane.count_yx[plane.count_yx > 0]) == [2, 3, 5]
    (low, left), (same, right), (high, above) = np.argwhere(plane.count_yx)
    assert low == same < high and left == above < right
    assert [plane.label_yx[low, left], plane.label_yx[low, right], plane.label_yx[high, left]] == [2, 3, 4]
    assert plane.label_yx[plane.count_yx == 0].max() == 0
    assert plane.centre_k2[3] == pytest.approx([0, 2])


def test_a_plane_leaves_out_what_lies_far_away_and_little_else():
    point_n2 = np.random.default_rng(0).standard_normal((20_000, 2))
    point_n2[0] = 1e6
    plane = Plane.of(point_n2, Clusters(np.ones(20_000, int), np.array([1]), np.zeros((1, 2))))
    assert 19_900 < plane.count_yx.sum() < 20_000 and plane.high_2.max() < 6


def test_a_block_holds_the_density_within_one_step_and_closes():
    map_zyx = 3 * sphere(32, 9, edge=4)
    camera = Camera.of(map_zyx)
    byte_zyx, step = camera.block(map_zyx, 2 * camera.reach)
    kept = slice(16 - camera.reach, 16 + camera.reach)
    inner = (slice(1, -1),) * 3
    found, expected = byte_zyx[inner] * step, map_zyx[kept, kept, kept][inner]
    dense = expected > camera.level / 2
    assert np.abs(found - expected)[dense].max() < 0.05 * camera.level
    assert byte_zyx.sum() == byte_zyx[inner].sum()


def test_packed_numbers_come_back():
    count_yx = np.arange(12, dtype="<u4").reshape(3, 4)
    text = packed(count_yx.T)
    assert np.array_equal(np.frombuffer(gzip.decompress(base64.b64decode(text)), "<u4"), count_yx.T.ravel())
    assert rgb([(0, 0.5, 1)]) == [[0, 128, 255]]


@pytest.mark.parametrize("method", METHODS)
def test_the_command_of_a_run_parses_back_to_its_settings(method, tmp_path):
    """Defaults are not said, everything else is, paths with blanks too."""
    source = to_plain(Source(tmp_path / "a b.star", no_ctf=True, pixel_size=2.5))
    config = {"method": method, "seed": 3, "source": source, "settings": to_plain(load(method).Config())}
    config["settings"]["radius"] = 9.0
    words = shlex.split(fit_command(config, "out"))
    assert words[-4:] == ["--seed", "3", "-o", "out"] and len(words) < 16
    _, bound, _ = app.parse_args(words[1:], exit_on_error=False, print_error=False)
    assert to_plain(bound.arguments["source"]) == source
    assert to_plain(bound.arguments["config"]) == config["settings"]
    assert bound.arguments["compute"].seed == 3


def test_words_say_what_is_not_a_default():
    values = {"a_b": 1, "on": True, "off": False, "same": 2, "none": None, "many": [1, 2]}
    words = to_words(values, {"off": True, "same": 2, "on": False})
    assert words == ["--a-b", "1", "--on", "--no-off", "--many", "1", "2"]


def test_a_report_of_a_run_that_was_not_analysed_is_refused(tmp_path):
    ensemble = Ensemble(tmp_path, {}, np.zeros((1, 0)), np.zeros((1, 0, 0)), np.ones((1, 1)), np.ones(1))
    with pytest.raises(InputError, match="morphem analyze"):
        write_report(ensemble)
    assert not list(tmp_path.iterdir())
