"""Images cropped in Fourier space, and tables that stay right."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from morphem.data.dataset import Dataset, Source
from morphem.data.downsampling import downsample, fourier_crop, read
from morphem.data.particles import Particles
from morphem.data.simulation import Simulation
from morphem.data.synthetic import simulate
from morphem.errors import InputError
from morphem.inference import consensus
from morphem.io import cs, mrc, star

HEAD = "data_\nloop_\n_rlnImageName #1\n"
RELION_30 = """_rlnMagnification #2
_rlnDetectorPixelSize #3
_rlnVoltage #4
_rlnSphericalAberration #5
_rlnAmplitudeContrast #6
_rlnDefocusU #7
_rlnDefocusV #8
_rlnDefocusAngle #9
_rlnAngleRot #10
_rlnAngleTilt #11
_rlnAnglePsi #12
_rlnOriginX #13
_rlnOriginY #14
_rlnOriginXPrior #15
_custom #16
2@b.mrcs 50000 5.0 300 2.7 0.1 15000 14000 30 10 20 30 3 -1 4 'kept as is'
1@a.mrcs 40000 5.0 300 2.7 0.1 15000 14000 30 10 20 30 3 -1 4 x
1@b.mrcs 50000 5.0 300 2.7 0.1 15000 14000 30 10 20 30 3 -1 4 x
"""
CS_FIELDS = [
    ("uid", "<u8"), ("blob/path", "S6"), ("blob/idx", "<u4"), ("blob/shape", "<u4", 2), ("blob/psize_A", "<f4"),
    ("blob/sign", "<f4"), ("ctf/df1_A", "<f4"), ("ctf/df2_A", "<f4"), ("ctf/df_angle_rad", "<f4"),
    ("ctf/accel_kv", "<f4"), ("ctf/cs_mm", "<f4"), ("ctf/amp_contrast", "<f4"), ("ctf/phase_shift_rad", "<f4"),
    ("alignments3D/pose", "<f4", 3), ("alignments3D/shift", "<f4", 2),
]  # fmt: skip


def noise(count, box, seed=0):
    return np.random.default_rng(seed).normal(5, 2, size=(count, box, box)).astype(np.float32)


def a_stack(path, image_nyx, pixel_A=1.5):
    with mrc.create_stack(path, *image_nyx.shape[:2], pixel_A) as out_nyx:
        out_nyx[:] = image_nyx
    return path


def a_relion_30(folder):
    a_stack(folder / "a.mrcs", noise(1, 16, 1)), a_stack(folder / "b.mrcs", noise(2, 16, 2))
    (folder / "in.star").write_text(HEAD + RELION_30)
    return folder / "in.star"


def a_cs(folder, *more):
    a_stack(folder / "a.mrc", noise(3, 16))
    table = np.zeros(3, [*CS_FIELDS, *more])
    table["uid"], table["blob/idx"], table["blob/path"] = np.arange(9, 12), np.arange(3), b">a.mrc"
    table["blob/shape"], table["blob/psize_A"], table["blob/sign"] = 16, 1.5, -1
    table["ctf/accel_kv"], table["ctf/cs_mm"], table["ctf/amp_contrast"] = 300, 2.7, 0.1
    table["ctf/df1_A"], table["ctf/df2_A"] = 15000, 14000
    table["alignments3D/shift"], table["alignments3D/pose"] = (2, -1), (0.1, 0.2, 0.3)
    for name, *_ in more:
        table[name] = 3.0
    cs.write(folder / "in.cs", table)
    return folder / "in.cs"


def cropped(path: Path, box: int, output: Path, **options) -> Path:
    downsample(read(path, **options), box, output)
    return output


def pixels(particles):
    return np.stack(
        [mrc.open_stack(p).images_nyx[i] for p, i in zip(stacks(particles), particles.slice_n, strict=True)]
    )


def stacks(particles):
    return [particles.stacks[i] for i in particles.stack_n]


def gaussian(box, pixel, centre_yx, sigma):
    """Its value at pixels counted from the one at box/2, in the same lengths as `pixel`."""
    x = (np.arange(box) - box // 2) * pixel
    y_d1, x_d = x[:, None] - centre_yx[0], x - centre_yx[1]
    return np.exp(-(y_d1**2 + x_d**2) / (2 * sigma**2))


@pytest.mark.parametrize("box", [32, 48, 62])
def test_a_blob_is_the_same_blob_in_coarser_pixels(box):
    large = gaussian(64, 1.0, (3.3, -7.1), 4.0)[None].astype(np.float32)
    found = fourier_crop(large, box)
    assert (found.dtype, found.shape) == (np.float32, (1, box, box))
    np.testing.assert_allclose(found[0], gaussian(box, 64 / box, (3.3, -7.1), 4.0), atol=2e-6)


def test_cropping_is_the_convention_below_nyquist_and_knows_no_axis():
    large = noise(2, 16)
    small = fourier_crop(large, 8)
    ky, kx = np.mgrid[-3:4, -3:4]
    whole, part = (np.fft.fft2(image)[:, ky, kx] * (-1.0) ** (kx + ky) for image in (large, small))
    np.testing.assert_allclose(part, whole / 4, atol=1e-4)
    np.testing.assert_allclose(fourier_crop(np.swapaxes(large, 1, 2), 8), np.swapaxes(small, 1, 2), atol=1e-5)
    np.testing.assert_array_equal(fourier_crop(large[1:], 8), small[1:])


def test_05_a_downsampled_table_has_the_coarser_pixel_and_the_same_shifts(tiny, tmp_path):
    before = Particles.read(tiny / "particles.star")
    after = Particles.read(cropped(tiny / "particles.star", 24, tmp_path / "new" / "small.star"))
    assert (after.box, set(after.pixel_A_n)) == (24, {8.0})
    np.testing.assert_array_equal(after.shift_A_n2, before.shift_A_n2)
    np.testing.assert_array_equal(after.rotation_n33, before.rotation_n33)
    optics = star.read(tmp_path / "new/small.star")["optics"]
    assert optics[["rlnImagePixelSize", "rlnImageSize"]].to_numpy().tolist() == [["8.0", "24"]]
    old, new = (star.read(path)["particles"] for path in (tiny / "particles.star", tmp_path / "new/small.star"))
    assert list(old) == list(new)
    assert [name for name in old if old[name].tolist() != new[name].tolist()] == ["rlnImageName"]
    np.testing.assert_array_equal(pixels(after), fourier_crop(pixels(before), 24))


def test_05_relion_30_has_magnification_and_origins_in_pixels(tmp_path):
    before = read(a_relion_30(tmp_path))
    after = Particles.read(cropped(tmp_path / "in.star", 8, tmp_path / "out.star"))
    assert (after.box, after.pixel_A_n.tolist()) == (8, [2.0, 2.5, 2.0])
    np.testing.assert_allclose(after.shift_A_n2, before.shift_A_n2)
    table = star.read(tmp_path / "out.star")[""]
    assert table["rlnOriginX"].tolist() == ["1.5"] * 3
    assert table["rlnOriginXPrior"].tolist() == ["2.0"] * 3
    assert table["rlnMagnification"].tolist() == ["25000.0", "20000.0", "25000.0"]
    assert (table["rlnDetectorPixelSize"].tolist(), table["custom"].iloc[0]) == (
        ["5.0"] * 3,
        "'kept as is'",
    )
    np.testing.assert_array_equal(pixels(after), fourier_crop(pixels(before), 8))
    header = mrc.open_stack(tmp_path / "out.mrcs")
    assert (header.pixel_A, header.images_nyx.shape) == (pytest.approx(2.0), (3, 8, 8))


def test_a_magnification_that_does_not_give_the_pixel_stays(tmp_path):
    text = HEAD + RELION_30.replace("_custom", "_rlnImagePixelSize")
    for old, new in (("'kept as is'", "1.0"), ("4 x", "1.0 1.0")):
        text = text.replace(old, new)
    a_relion_30(tmp_path).write_text(text)
    table = star.read(cropped(tmp_path / "in.star", 8, tmp_path / "out.star"))[""]
    assert table["rlnMagnification"].tolist() == ["50000", "40000", "50000"]
    assert table["rlnImagePixelSize"].tolist() == ["2.0"] * 3


def test_05_each_optics_group_keeps_its_own_pixel_even_an_unused_one(tiny, tmp_path):
    blocks = star.read(tiny / "particles.star")
    optics = (
        blocks["optics"].loc[[0, 0, 0]].assign(rlnOpticsGroup=["1", "2", "3"], rlnImagePixelSize=["6.0", "5.0", "4.0"])
    )
    optics.attrs = blocks["optics"].attrs
    blocks["particles"]["rlnOpticsGroup"] = ["1", "2", "1"] * 50
    blocks["optics"] = optics
    star.write(tmp_path / "in.star", blocks)
    after = Particles.read(cropped(tmp_path / "in.star", 16, tmp_path / "out.star", datadir=tiny))
    assert after.pixel_A_n[:3].tolist() == [12.0, 10.0, 12.0]
    assert star.read(tmp_path / "out.star")["optics"]["rlnImagePixelSize"].tolist() == ["12.0", "10.0", "8.0"]
    assert mrc.open_stack(tmp_path / "out.mrcs").pixel_A == pytest.approx(12.0)


@pytest.mark.parametrize("own_pixel", [(), (("alignments3D/psize_A", "<f4"),)])
def test_05_a_cs_keeps_its_fields_and_its_shifts(tmp_path, own_pixel):
    before = Particles.read(a_cs(tmp_path, *own_pixel))
    after = Particles.read(cropped(tmp_path / "in.cs", 8, tmp_path / "a_long_name_of_a_folder" / "out.cs"))
    assert (after.box, after.pixel_A_n.tolist()) == (8, [3.0] * 3)
    np.testing.assert_allclose(after.shift_A_n2, before.shift_A_n2)
    np.testing.assert_array_equal(pixels(after), fourier_crop(pixels(before), 8))
    old, new = cs.read(tmp_path / "in.cs"), cs.read(tmp_path / "a_long_name_of_a_folder/out.cs")
    assert [name for name in old.dtype.names if old.dtype[name] != new.dtype[name]] == ["blob/path"]
    changed = {"blob/path", "blob/shape", "blob/psize_A"} | (set() if own_pixel else {"alignments3D/shift"})
    assert {name for name in old.dtype.names if old[name].tolist() != new[name].tolist()} == changed


def test_05_a_cs_becomes_a_star_with_its_ctf(tmp_path):
    before = Particles.read(a_cs(tmp_path))
    after = Particles.read(cropped(tmp_path / "in.cs", 8, tmp_path / "out.star"))
    np.testing.assert_allclose(after.shift_A_n2, before.shift_A_n2, rtol=1e-6)
    np.testing.assert_allclose(after.rotation_n33, before.rotation_n33, atol=1e-9)
    assert after.ctf is not None and before.ctf is not None
    np.testing.assert_allclose(after.ctf.defocus_u_A_n, before.ctf.defocus_u_A_n)
    np.testing.assert_array_equal(pixels(after), fourier_crop(pixels(before), 8))


def test_05_a_bare_stack_becomes_a_table_with_what_the_pickles_know(tmp_path):
    a_stack(tmp_path / "a.mrcs", noise(2, 16))
    for name, value in (
        ("pose", (np.tile(np.eye(3), (2, 1, 1)), np.full((2, 2), 0.25))),
        ("ctf", np.tile(np.float32([16, 1.5, 15000, 14000, 30, 300, 2.7, 0.1, 0]), (2, 1))),
    ):
        (tmp_path / f"{name}.pkl").write_bytes(pickle.dumps(value))
    pickles = {"poses": tmp_path / "pose.pkl", "ctf": tmp_path / "ctf.pkl"}
    after = Particles.read(cropped(tmp_path / "a.mrcs", 8, tmp_path / "out.star", **pickles))
    assert (after.box, after.pixel_A_n.tolist(), after.shift_A_n2.tolist()) == (8, [3.0] * 2, [[6.0] * 2] * 2)
    without = Particles.read(cropped(tmp_path / "a.mrcs", 8, tmp_path / "bare.star"), no_ctf=True, require_poses=False)
    assert (without.box, without.has_poses, without.pixel_A_n.tolist()) == (8, False, [3.0] * 2)


def test_rows_are_kept_as_asked_for(tmp_path):
    before = read(a_relion_30(tmp_path))
    np.save(tmp_path / "rows.npy", [2, 0])
    after = Particles.read(cropped(tmp_path / "in.star", 8, tmp_path / "out.star", ind=tmp_path / "rows.npy"))
    np.testing.assert_array_equal(pixels(after), fourier_crop(pixels(before)[[2, 0]], 8))


@pytest.mark.parametrize("kind", ["<i2", ">i2", "<u2", ">f4", "<f4", "i1"])
def test_14_any_number_type_becomes_float_with_the_same_mean(tmp_path, kind):
    mode = {"i2": 1, "u2": 6, "f4": 2, "i1": 0}[kind.lstrip("<>")]
    image_nyx = np.random.default_rng(0).normal(60, 20, (5, 32, 32)).clip(0, 120).astype(kind)
    header = np.zeros(256, "<i4" if kind[0] != ">" else ">i4")
    header[:4], header[7:10] = (32, 32, 5, mode), (32, 32, 1)
    header[10:13] = np.array([48, 48, 1.5], "<f4" if kind[0] != ">" else ">f4").view(header.dtype)
    header[52] = np.frombuffer(b"MAP ", header.dtype)[0]
    (tmp_path / "a.mrcs").write_bytes(header.tobytes() + image_nyx.tobytes())
    cropped(tmp_path / "a.mrcs", 16, tmp_path / "out.star")
    stack = mrc.open_stack(tmp_path / "out.mrcs")
    assert (stack.images_nyx.dtype, stack.pixel_A) == ("<f4", pytest.approx(3.0))
    mean_n = image_nyx.mean((1, 2), dtype=np.float64)
    np.testing.assert_allclose(stack.images_nyx.mean((1, 2), dtype=np.float64), mean_n, rtol=1e-6)


def test_names_start_here_where_the_output_lies_below_and_are_whole_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "project").mkdir()
    (tmp_path / "elsewhere").mkdir()
    a_relion_30(tmp_path)
    monkeypatch.chdir(tmp_path / "project")
    for output, shown in (
        (Path("job/out.star"), "job/out.mrcs"),
        (tmp_path / "other/out.star", str(tmp_path / "other/out.mrcs")),
    ):
        cropped(tmp_path / "in.star", 8, output)
        assert star.read(output)[""]["rlnImageName"].tolist() == [f"{i:06d}@{shown}" for i in (1, 2, 3)]
        monkeypatch.chdir(tmp_path / "elsewhere")
        assert (
            Particles.read(tmp_path / "project" / output)
            .stacks[0]
            .samefile(tmp_path / "project" / output.with_suffix(".mrcs"))
        )
        monkeypatch.chdir(tmp_path / "project")


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("box", "output", "message"),
    [
        (7, "out.star", "--box 7: expected an even number from 4 to 15"),
        (16, "out.star", "--box 16: expected"),
        (18, "out.star", "--box 18: expected"),
        (0, "out.star", "--box 0: expected"),
        (8, "out.cs", "has no .cs fields"),
        (8, "out.txt", 'ends in ".txt", expected .star or .cs'),
        (8, "in.star", "in.star: is what is to be downsampled"),
        (8, "a.star", "a.mrcs: is what is to be downsampled"),
        (8, "there.star", "there.star: exists already; give another name, or --overwrite"),
        (8, "stack.star", "stack.mrcs: exists already"),
        (8, "folder.star", "folder.star: is a folder"),
        (8, "in.star/out.star", "in.star: is a file; give a folder"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_written(tmp_path, box, output, message):
    particles = read(a_relion_30(tmp_path))
    (tmp_path / "folder.star").mkdir()
    for name in ("there.star", "stack.mrcs"):
        (tmp_path / name).touch()
    before = contents(tmp_path)
    with pytest.raises(InputError, match=message):
        downsample(particles, box, tmp_path / output)
    assert contents(tmp_path) == before


def test_an_output_is_replaced_when_told_so(tmp_path):
    particles = read(a_relion_30(tmp_path))
    for box in (12, 8):
        downsample(particles, box, tmp_path / "out.star", overwrite=True)
    assert Particles.read(tmp_path / "out.star").box == 8


def test_a_broken_image_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("morphem.data.downsampling.CHUNK_PIXELS", 16**2)
    particles = read(a_relion_30(tmp_path))
    image_nyx = noise(2, 16, 2)
    image_nyx[0] = 3
    a_stack(tmp_path / "b.mrcs", image_nyx)
    before = contents(tmp_path)
    with pytest.raises(InputError, match="constant or not finite in rows 3"):
        downsample(particles, 8, tmp_path / "out.star")
    assert contents(tmp_path) == before


def test_chunks_make_no_difference(tiny, tmp_path, monkeypatch):
    cropped(tiny / "particles.star", 20, tmp_path / "one.star")
    monkeypatch.setattr("morphem.data.downsampling.CHUNK_PIXELS", 7 * 32**2)
    told = []
    downsample(read(tiny / "particles.star"), 20, tmp_path / "other.star", progress=told.append)
    assert (tmp_path / "one.mrcs").read_bytes() == (tmp_path / "other.mrcs").read_bytes()
    assert (sum(told), max(told)) == (150, 7)


def test_25_the_map_of_downsampled_images_is_the_cropped_map_times_the_ratio_of_boxes(tmp_path):
    simulate(tmp_path / "set", Simulation(kind="still", images=500, box=32, pixel_size=6.0, snr=20.0))
    large = reconstructed(tmp_path / "set/particles.star")
    small = reconstructed(cropped(tmp_path / "set/particles.star", 24, tmp_path / "small.star"))
    lo, hi = 4, 28
    spectrum = np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(large)))[lo:hi, lo:hi, lo:hi]
    expected = np.fft.fftshift(np.fft.ifftn(np.fft.ifftshift(spectrum))).real * (24 / 32) ** 3
    assert np.corrcoef(small.ravel(), expected.ravel())[0, 1] > 0.99
    slope = (small * expected).sum() / (expected * expected).sum()
    assert slope == pytest.approx(32 / 24, rel=0.03)


def reconstructed(table):
    torch.manual_seed(0)
    return consensus.reconstruct(Dataset.open(Source(table)), seed=0).map_zyx
