"""Reading, whitening and back-projecting whole sets."""

import numpy as np
import pandas as pd
import pytest
import torch

from morphem.data.dataset import Dataset, Source
from morphem.data.particles import Particles
from morphem.data.simulation import Simulation
from morphem.data.synthetic import simulate
from morphem.errors import InputError
from morphem.inference import consensus
from morphem.io import star
from morphem.io.mrc import read_map
from morphem.methods import fit, load
from morphem.physics.fsc import fsc
from morphem.run import Compute, Run


def test_noise_is_whitened_to_one_in_every_shell(tmp_path):
    simulate(tmp_path / "noise", Simulation(images=3000, box=32, snr=1e-4, noise="coloured"))
    dataset = Dataset.open(Source(tmp_path / "noise" / "particles.star"))
    one, other = (dataset.observed(np.arange(start, 3000, 2)).sample_bk for start in (0, 1))
    power_k = ((one.abs() ** 2).mean(0) + (other.abs() ** 2).mean(0)) / 2
    shell_k = torch.as_tensor(dataset.lattice.shell_k)
    power_s = torch.stack([power_k[shell_k == s].mean() for s in range(1, 16)])
    assert (power_s - 1).abs().max() < 0.02
    assert dataset.noise_gs[0, 2] > 3 * dataset.noise_gs[0, 15]


def test_reading_from_disk_gives_what_memory_gives(tiny, tiny_set):
    lazy = Dataset.open(Source(tiny / "particles.star"), memory_share=0.0)
    assert lazy.packed_nk is None
    order = np.random.default_rng(0).permutation(150)
    for ours, theirs in zip(lazy.batches(40, order), tiny_set.batches(40, order), strict=True):
        torch.testing.assert_close(ours.sample_bk, theirs.sample_bk, atol=1e-5, rtol=1e-5)
        assert np.array_equal(ours.index_b, theirs.index_b)


def test_batches_are_ragged_and_complete(tiny_set):
    sizes = [len(observed) for observed in tiny_set.batches(40)]
    assert sizes == [40, 40, 40, 30]
    rows = np.concatenate([observed.index_b for observed in tiny_set.batches(40)])
    assert np.array_equal(rows, np.arange(150))


def test_a_prefix_is_a_lattice_cut_shorter(tiny, tiny_set):
    cut = tiny_set.observed(np.arange(5)).prefix(6)
    short = Dataset.open(Source(tiny / "particles.star"), radius=6).with_noise(tiny_set.noise_gs[:, :7])
    torch.testing.assert_close(cut.sample_bk, short.observed(np.arange(5)).sample_bk, atol=1e-5, rtol=1e-5)
    assert len(cut.lattice) == len(short.lattice) == cut.ctf_bk.shape[1]


def test_halves_are_disjoint_complete_and_the_tables(tiny, tiny_set):
    one, two = tiny_set.halves(0)
    assert sorted([*one, *two]) == list(range(150))
    half_n = Particles.read(tiny / "particles.star").half_n
    assert (half_n[one] == 1).all()
    assert (half_n[two] == 2).all()


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """Two states with hardly any noise."""
    folder = tmp_path_factory.mktemp("clean") / "still"
    simulate(folder, Simulation(kind="still", images=1500, box=32, pixel_size=6.0, snr=20.0))
    return folder


def test_the_map_has_the_truths_scale_and_hand(clean):
    found = consensus.reconstruct(Dataset.open(Source(clean / "particles.star")), seed=0)
    truth = read_map(clean / "vols/000.mrc")[0]
    low = truth_low_passed(truth, 12)
    slope = (found.map_zyx * low).sum() / (low * low).sum()
    assert slope == pytest.approx(1.0, abs=0.05)
    assert np.corrcoef(found.map_zyx.ravel(), truth.ravel())[0, 1] > 0.98
    assert np.corrcoef(found.map_zyx[::-1].ravel(), truth.ravel())[0, 1] < 0.9


def truth_low_passed(map_zyx, radius):
    k = np.fft.fftfreq(len(map_zyx), 1 / len(map_zyx))
    inside = np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2) <= radius
    inside[0, 0, 0] = False
    return np.fft.ifftn(np.fft.fftn(map_zyx) * inside).real


def write_atoms(path):
    """A PDB file of carbon atoms in a lopsided cloud."""
    rng = np.random.default_rng(5)
    lines = []
    for number, (x, y, z) in enumerate(rng.standard_normal((150, 3)) * (18, 12, 8) + (rng.random((150, 1)) > 0.7) * 15):
        lines.append(
            f"ATOM  {number + 1:5d}  CA  ALA A{number + 1:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00           C"
        )
    path.write_text("\n".join([*lines, "END"]))


def test_two_pixel_sizes_are_each_their_own(tmp_path):
    """Two sets of one molecule at 6.0 and 7.5 Å, joined: each row is read at its own pixel, and the map is sharp."""
    write_atoms(tmp_path / "atoms.pdb")
    tables = {}
    for group, pixel in (("1", 6.0), ("2", 7.5)):
        settings = Simulation(
            atoms=(tmp_path / "atoms.pdb",), images=800, box=32, pixel_size=pixel, snr=5.0, seed=int(group)
        )
        simulate(tmp_path / group, settings)
        tables[group] = star.read(tmp_path / group / "particles.star")
        tables[group]["optics"]["rlnOpticsGroup"] = tables[group]["particles"]["rlnOpticsGroup"] = group
        names = tables[group]["particles"]["rlnImageName"]
        tables[group]["particles"]["rlnImageName"] = names.str.replace("@", f"@{group}/")
    joined = {
        block: pd.concat([t[block] for t in tables.values()], ignore_index=True) for block in ("optics", "particles")
    }
    star.write(tmp_path / "both.star", joined)

    dataset = Dataset.open(Source(tmp_path / "both.star"))
    assert dataset.pixel_A == pytest.approx(6.0)
    assert dataset.observed(np.array([0, 1599])).ratio_b.tolist() == pytest.approx([1.0, 0.8])
    both, one = (
        consensus.reconstruct(data, seed=0) for data in (dataset, Dataset.open(Source(tmp_path / "1/particles.star")))
    )
    truth = read_map(tmp_path / "1/vols/000.mrc")[0]
    together, alone = (fsc(one.map_zyx, truth)[1:11] for one in (both, one))
    assert together[:7].min() > 0.99
    assert (together > alone - 0.02).all()


def test_a_single_image_is_refused(tiny, tmp_path):
    np.save(tmp_path / "one.npy", np.array([3]))
    with pytest.raises(InputError, match="holds 1 image; two half-sets need at least 2"):
        Dataset.open(Source(tiny / "particles.star", ind=tmp_path / "one.npy"))


def test_a_table_of_one_half_is_split(tiny, tiny_set, tmp_path):
    np.save(tmp_path / "half.npy", np.flatnonzero(tiny_set.particles.half_n == 1))
    one, two = Dataset.open(Source(tiny / "particles.star", ind=tmp_path / "half.npy")).halves(0)
    assert min(len(one), len(two)) > 20
    assert sorted([*one, *two]) == list(range(75))


def test_empty_optics_groups_do_no_harm(tiny, tmp_path):
    """Rows of one group out of three, the first and the last being empty, train and back-project."""
    tables = star.read(tiny / "particles.star")
    optics = tables["optics"]
    tables["optics"] = pd.concat([optics.assign(rlnOpticsGroup=str(group)) for group in (1, 2, 3)], ignore_index=True)
    tables["optics"]["rlnOpticsGroupName"] = ["a", "b", "c"]
    tables["particles"]["rlnOpticsGroup"] = "2"
    names = tables["particles"]["rlnImageName"]
    tables["particles"]["rlnImageName"] = names.str.replace("@", f"@{tiny}/")
    star.write(tmp_path / "groups.star", tables)
    dataset = Dataset.open(Source(tmp_path / "groups.star"))
    config = load("vae").Config(epochs=1, width=16, layers=1, latent_dim=2)
    ensemble = fit("vae", dataset, config, Run(tmp_path / "run", Compute(precision="float32")))
    assert ensemble.history[0]["loss"] == pytest.approx(1.0, abs=0.2)


def test_a_radius_without_samples_is_refused(tiny):
    with pytest.raises(InputError, match="no Fourier sample"):
        Dataset.open(Source(tiny / "particles.star"), radius=0.5)


def test_the_noise_of_a_run_is_the_residuals(clean):
    """At SNR 20 the first estimate is dominated by signal; the residual of the map is the noise."""
    from morphem.models.volume import LinearVolume

    dataset = Dataset.open(Source(clean / "particles.star"))
    map_zyx = consensus.reconstruct(dataset, seed=0).map_zyx
    noise_gs = consensus.residual_noise(dataset, LinearVolume.of(torch.from_numpy(map_zyx)[None], 15.0))
    assert (noise_gs[0, 1:4] < 0.2 * dataset.noise_gs[0, 1:4]).all()
