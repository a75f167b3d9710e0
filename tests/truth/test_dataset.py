"""Reading, whitening and back-projecting whole sets."""

import numpy as np
import pandas as pd
import pytest
import torch

from morphem.data.dataset import Dataset, Source
from morphem.data.particles import Particles
from morphem.data.relion import ANGLES
from morphem.data.simulation import Simulation
from morphem.data.synthetic import simulate
from morphem.errors import InputError
from morphem.inference import consensus
from morphem.inference.esteps import Known
from morphem.io import mrc, star
from morphem.io.mrc import read_map
from morphem.methods import fit, load
from morphem.models.image_model import ImageModel
from morphem.models.volume import LinearVolume
from morphem.physics.ctf import ctf
from morphem.physics.fsc import fsc
from morphem.physics.lattice import Lattice
from morphem.physics.noise import radii, window
from morphem.run import Compute, Run


def in_shells(value_k, lattice):
    """Means over the shells 1, 2, …"""
    shell_k = torch.as_tensor(lattice.shell_k)
    return torch.stack([value_k[shell_k == s].mean() for s in range(1, int(lattice.radius) + 1)])


def power_of_white_noise(lattice):
    """E|Σ_x w(x) e_k(x) (n(x) − ⟨n⟩)|² for noise of variance 1, ⟨n⟩ its mean beyond r = 0.85."""
    r_dd = radii(lattice.box)
    window_dd, outside_dd = window(r_dd), (r_dd > 0.85) / (r_dd > 0.85).sum()
    of_window_k, of_outside_k = lattice.pack(torch.stack([window_dd, window_dd * outside_dd]))
    mean_k = of_window_k.abs() ** 2 * (outside_dd**2).sum() - 2 * (of_window_k * of_outside_k.conj()).real
    return (window_dd**2).sum() + mean_k


def test_15_noise_has_power_one_in_every_shell_of_images_not_seen_before(tmp_path):
    """White noise of variance 4 and noise that falls with |k|, an optics group each: half of the images measures the
    spectra, the other half is whitened by them."""
    count, box, rng = 12000, 24, np.random.default_rng(0)
    with mrc.create_stack(tmp_path / "noise.mrcs", 2 * count, box, 1.0) as image_ndd:
        image_ndd[:] = 2 * rng.standard_normal((2 * count, box, box), np.float32)
        length_kk = np.hypot(*np.meshgrid(np.fft.fftfreq(box, 1 / box), np.fft.fftfreq(box, 1 / box)))
        image_ndd[count:] = np.fft.ifft2(np.fft.fft2(image_ndd[count:]) * (1 + 3 * np.exp(-length_kk / 4))).real
    optics = "data_optics\nloop_\n_rlnOpticsGroup\n_rlnImagePixelSize\n1 1\n2 1\n"
    names = ("rlnImageName", "rlnOpticsGroup", *ANGLES)
    rows = "".join(f"{i + 1}@noise.mrcs {1 + i // count} 0 0 0\n" for i in range(2 * count))
    table = f"data_particles\nloop_\n{''.join(f'_{name} {chr(10)}' for name in names)}{rows}"
    (tmp_path / "noise.star").write_text(f"{optics}\n{table}")
    parts = []
    for start in (0, 1):
        np.save(tmp_path / f"{start}.npy", np.arange(start, 2 * count, 2))
        parts.append(Dataset.open(Source(tmp_path / "noise.star", ind=tmp_path / f"{start}.npy", no_ctf=True)))
    measured, seen = parts
    white_s = in_shells(power_of_white_noise(seen.lattice), seen.lattice)
    torch.testing.assert_close(measured.noise_gs[0, 1:].float(), 4 * white_s, rtol=0.02, atol=0)
    assert measured.noise_gs[1, 1] > 5 * measured.noise_gs[1, 11]
    for group in np.array_split(np.arange(count), 2):
        sample_bk = seen.with_noise(measured.noise_gs).observed(group).sample_bk
        assert (in_shells((sample_bk.abs() ** 2).mean(0), seen.lattice) - 1).abs().max() < 0.02


def test_13_a_batch_is_flipped_as_each_image_is_alone(tiny_set):
    """Multiplied by the sign of its own CTF, an image is the same in whatever batch it comes."""
    index_b = np.random.default_rng(0).permutation(150)[:23]
    batch, table = tiny_set.observed(index_b), tiny_set.particles
    flipped_bk = batch.sample_bk * batch.ctf_bk.sign()
    for sample_k, row in zip(flipped_bk, index_b, strict=True):
        one = np.array([row])
        alone = tiny_set.observed(one)
        sign_1k = ctf(table.ctf.take(one), table.pixel_A_n[one], tiny_set.lattice.k_k2, 32).sign()
        torch.testing.assert_close(sample_k, (alone.sample_bk * sign_1k)[0], atol=1e-5, rtol=1e-5)
    defocus_b = table.ctf.defocus_u_A_n[index_b]
    assert np.ptp(defocus_b) > 1000 and (flipped_bk != batch.sample_bk).any(1).all()


def test_08_shuffled_rows_and_split_stacks_give_the_same_map(tiny, tiny_set, tmp_path):
    """Every image is found by the path and the number in its name, wherever its row stands."""
    rng, blocks = np.random.default_rng(0), star.read(tiny / "particles.star")
    order = rng.permutation(150)
    image_nyx = mrc.open_stack(tiny / "particles.mrcs").images_nyx
    places = np.empty(150, dtype=object)
    for name, rows in zip(("one", "two"), np.split(rng.permutation(150), [60]), strict=True):
        with mrc.create_stack(tmp_path / f"{name}.mrcs", len(rows), 32, 6.0) as out_nyx:
            out_nyx[:] = image_nyx[rows]
        places[rows] = [f"{i + 1:06d}@{name}.mrcs" for i in range(len(rows))]
    rows = blocks["particles"].assign(rlnImageName=places)
    rows.attrs = blocks["particles"].attrs
    star.write(tmp_path / "shuffled.star", blocks | {"particles": rows.iloc[order]})
    shuffled = Dataset.open(Source(tmp_path / "shuffled.star"))
    expected, found = (consensus.reconstruct(dataset, seed=0) for dataset in (tiny_set, shuffled))
    largest = np.abs(expected.map_zyx).max()
    np.testing.assert_allclose(found.map_zyx, expected.map_zyx, atol=1e-4 * largest)
    np.testing.assert_allclose(found.half_zyx, expected.half_zyx, atol=1e-4 * np.abs(expected.half_zyx).max())


@pytest.mark.parametrize(("kind", "order", "offset"), [("i1", "<", 0), ("i2", ">", -7), ("u2", "<", 4000)])
def test_06_integer_stacks_give_the_map_of_the_real_one(tiny, tiny_set, tmp_path, kind, order, offset):
    """In a header that gives no pixel size, one byte order or the other; grey values 10 times as high."""
    mode = {"i1": 0, "i2": 1, "u2": 6}[kind]
    whole = np.round(10 * mrc.open_stack(tiny / "particles.mrcs").images_nyx) + offset
    header = np.zeros(256, f"{order}i4")
    header[:4] = 32, 32, 150, mode
    header[52] = int.from_bytes(b"MAP ", "little" if order == "<" else "big")
    assert np.iinfo(kind).min <= whole.min() < whole.max() <= np.iinfo(kind).max
    (tmp_path / "particles.mrcs").write_bytes(header.tobytes() + whole.astype(f"{order}{kind}").tobytes())
    (tmp_path / "particles.star").write_bytes((tiny / "particles.star").read_bytes())
    found = consensus.reconstruct(Dataset.open(Source(tmp_path / "particles.star")), seed=0).map_zyx
    expected = consensus.reconstruct(tiny_set, seed=0).map_zyx
    assert np.linalg.norm(found / 10 - expected) < 0.03 * np.linalg.norm(expected)


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


def slope(map_zyx, true_zyx):
    """Of the line through the origin that fits a map against the truth."""
    return (map_zyx * true_zyx).sum() / (true_zyx * true_zyx).sum()


def test_22_the_slope_of_the_map_against_the_truth_is_one(tmp_path):
    """Over all frequencies, and in every band where half-maps agree by 0.95. Where they agree less the prior takes
    more than 5 %, on purpose."""
    simulate(tmp_path / "still", Simulation(kind="still", images=2000, box=48, pixel_size=4.0, snr=1.0))
    found = consensus.reconstruct(Dataset.open(Source(tmp_path / "still" / "particles.star")), seed=0)
    truth = read_map(tmp_path / "still" / "vols" / "000.mrc")[0]
    assert found.fsc.unmasked_s[:11].min() > 0.95 > found.fsc.unmasked_s[12]
    for low, high in ((0, 23), (0, 5), (5, 10)):
        bands = [truth_low_passed(m, high) - truth_low_passed(m, low) for m in (found.map_zyx, truth)]
        assert slope(*bands) == pytest.approx(1.0, abs=0.05), (low, high)


def test_22_the_map_has_the_truths_scale_and_hand(clean):
    found = consensus.reconstruct(Dataset.open(Source(clean / "particles.star")), seed=0)
    truth = read_map(clean / "vols/000.mrc")[0]
    low = truth_low_passed(truth, 12)
    assert slope(found.map_zyx, low) == pytest.approx(1.0, abs=0.05)
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


TWO_PIXEL_SIZES = """data_optics
loop_
_rlnOpticsGroup
_rlnVoltage
_rlnSphericalAberration
_rlnAmplitudeContrast
_rlnImagePixelSize
_rlnImageSize
1 300 2.7 0.1 1.5 64
2 300 2.7 0.1 1.2 64

data_particles
loop_
_rlnImageName
_rlnOpticsGroup
_rlnAngleRot
_rlnAngleTilt
_rlnAnglePsi
_rlnOriginXAngst
_rlnOriginYAngst
_rlnDefocusU
_rlnDefocusV
_rlnDefocusAngle
1@a.mrcs 1 30 60 45 6 -3 9000 8000 20
2@a.mrcs 2 30 60 45 6 -3 9000 8000 20
3@a.mrcs 1 80 50 10 -4 2 7000 7500 70
4@a.mrcs 2 80 50 10 -4 2 7000 7500 70
5@a.mrcs 1 10 20 30 0 0 7000 7500 70
"""


def test_04_each_row_has_its_own_pixel_in_ctf_shift_and_slice(tmp_path):
    """A Gaussian of known width at a known place in Å, seen at 1.5 and at 1.2 Å, against the formula; with the pixel
    of row 0, none of the three would be right."""
    (tmp_path / "a.star").write_text(TWO_PIXEL_SIZES)
    table = Particles.read(tmp_path / "a.star")
    lattice, k = Lattice.disc(64, 20), Lattice.disc(64, 20).k_k2
    packed_nk = torch.zeros(5, len(lattice), dtype=torch.complex64)
    dataset = Dataset(Source(tmp_path / "a.star"), table, None, lattice, torch.ones(2, 21), packed_nk)  # type: ignore[arg-type]
    assert dataset.pixel_A == 1.5

    sigma_A, centre_A_3, x_A = 4.0, np.array([7.0, -5.0, 9.0]), 1.5 * (np.arange(64) - 32)
    x, y, z = (np.exp(-((x_A - c) ** 2) / (2 * sigma_A**2)) for c in centre_A_3)
    map_zyx = np.einsum("z,y,x->zyx", z, y, x) * 1.5 / (sigma_A * np.sqrt(2 * np.pi))  # its sum along z peaks at 1
    volume = LinearVolume.of(torch.from_numpy(map_zyx).float()[None], 31.0, padding=3)
    observed, model = dataset.observed(np.arange(5)), ImageModel()
    known = Known()(observed, volume, model)
    found_nk = model.predict(volume, observed, known.rotation_bh33, known.shift_bh2, known.z_bhq)[:, 0].numpy()

    def expected(row: int, pixel_A: float) -> np.ndarray:
        """CTF · exp(2πi s·(t − Rc)) · 2πσ²/p² · exp(−2π²σ²s²), s = k/(D·p)."""
        s_k2 = k / (64 * pixel_A)
        place_A_2 = table.shift_A_n2[row] - (table.rotation_n33[row] @ centre_A_3)[:2]
        blob_k = 2 * np.pi * (sigma_A / pixel_A) ** 2 * np.exp(-2 * (np.pi * sigma_A) ** 2 * (s_k2**2).sum(1))
        ctf_k = ctf(table.ctf.take(np.array([row])), np.array([pixel_A]), k, 64).numpy()[0]
        return ctf_k * np.exp(2j * np.pi * s_k2 @ place_A_2) * blob_k

    for row, pixel_A in enumerate((1.5, 1.2, 1.5, 1.2, 1.5)):
        found_k, true_k, wrong_k = found_nk[row], expected(row, pixel_A), expected(row, 2.7 - pixel_A)
        assert np.linalg.norm(found_k - true_k) < 0.01 * np.linalg.norm(true_k)
        assert np.linalg.norm(found_k - wrong_k) > 0.2 * np.linalg.norm(true_k)


def test_04_two_pixel_sizes_give_one_sharp_map(tmp_path):
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
    dataset = Dataset.open(Source(clean / "particles.star"))
    map_zyx = consensus.reconstruct(dataset, seed=0).map_zyx
    noise_gs = consensus.residual_noise(dataset, LinearVolume.of(torch.from_numpy(map_zyx)[None], 15.0))
    assert (noise_gs[0, 1:4] < 0.2 * dataset.noise_gs[0, 1:4]).all()
