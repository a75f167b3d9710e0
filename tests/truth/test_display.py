"""The three ways to show variability: what each frame is made of."""

import numpy as np
import pandas as pd
import pytest

from morphem.analysis.display import display
from morphem.data.dataset import Dataset, Source
from morphem.ensemble import Ensemble
from morphem.errors import InputError
from morphem.inference.windows import reconstruct_windows, triangles
from morphem.io.mrc import read_map
from morphem.methods import fit
from morphem.methods.variability import Config
from morphem.physics.fsc import fsc
from morphem.run import Compute, Run


@pytest.fixture(scope="module")
def ensemble(tiny, tmp_path_factory) -> Ensemble:
    dataset = Dataset.open(Source(tiny / "particles.star"))
    return fit("variability", dataset, Config(latent_dim=3, starts=1), Run(tmp_path_factory.mktemp("shown"), Compute()))


def maps(folder):
    return [read_map(path)[0] for path in sorted(folder.glob("map_???.mrc"))]


def test_simple_goes_along_a_component(ensemble, tmp_path):
    assert display(ensemble, "simple", tmp_path, 2, 5, None, False) == 5
    z_mq, found = np.loadtxt(tmp_path / "z.csv", delimiter=","), maps(tmp_path)
    np.testing.assert_allclose(z_mq[[0, -1], 1], np.percentile(ensemble.z_nq[:, 1], [3, 97]), rtol=1e-4)
    np.testing.assert_allclose(np.diff(z_mq[:, [0, 2]], axis=0), 0, atol=1e-6)
    axis_zyx = read_map(ensemble.folder / "maps/eigenvolume_002.mrc")[0]
    np.testing.assert_allclose(found[4] - found[0], (z_mq[4, 1] - z_mq[0, 1]) * axis_zyx, atol=1e-3)


def test_cluster_back_projects_the_images_of_each(ensemble, tmp_path):
    display(ensemble, "cluster", tmp_path, 1, 3, None, False)
    images = pd.read_csv(tmp_path / "states.csv")["images"]
    assert images.sum() == pytest.approx(len(ensemble))
    assert len(list(tmp_path.glob("map_???_half[12].mrc"))) == 6


def test_intermediates_are_windows_of_the_images(ensemble, tmp_path):
    display(ensemble, "intermediates", tmp_path, 1, 4, None, False)
    z_n = np.loadtxt(tmp_path / "z.csv", delimiter=",")[:, 0]
    assert (np.diff(z_n) > 0).all()


def test_a_low_pass_leaves_nothing_beyond_it(ensemble, tmp_path):
    display(ensemble, "simple", tmp_path, 1, 2, 30.0, False)
    spectrum_zyx = np.abs(np.fft.fftn(maps(tmp_path)[0]))
    k = np.fft.fftfreq(32, 1 / 32)
    radius_zyx = np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2)
    assert spectrum_zyx[radius_zyx > 32 * 6 / 30 + 2].max() < 1e-4 * spectrum_zyx.max()


def test_windows_of_true_states_are_the_true_maps(tiny, tiny_set):
    state_n = np.load(tiny / "labels.npy")
    weight_nw = (state_n[:, None] == np.arange(4)).astype(float)
    truth = [read_map(tiny / f"vols/{state:03d}.mrc")[0] for state in range(4)]
    for state, window in enumerate(reconstruct_windows(tiny_set, tiny_set.halves(0), weight_nw, at_once=3)):
        assert window.images == pytest.approx((state_n == state).sum())
        agreement = [fsc(window.map_zyx, map_zyx)[2:8].mean() for map_zyx in truth]
        assert np.argmax(agreement) == state
        assert max(agreement) > 0.95


def test_triangles_share_every_image_between_neighbours():
    weight_nw = triangles(np.linspace(0, 100, 1001), 5)
    inside = weight_nw[31:970]
    np.testing.assert_allclose(inside.sum(1), 1, atol=1e-9)
    assert ((inside > 0).sum(1) <= 2).all()


@pytest.mark.parametrize(("component", "frames", "sentence"), [(4, 5, "components 1 to 3"), (1, 1, "at least 2")])
def test_what_a_run_does_not_have_is_refused(ensemble, tmp_path, component, frames, sentence):
    with pytest.raises(InputError, match=sentence):
        display(ensemble, "simple", tmp_path / "out", component, frames, None, False)
    assert not (tmp_path / "out").exists()
