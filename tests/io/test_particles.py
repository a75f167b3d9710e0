"""Tables written by hand, in every dialect, into particles and back."""

import pickle

import numpy as np
import pytest

from morphem.data.particles import Particles
from morphem.errors import InputError
from morphem.io import cs, mrc, star
from morphem.physics import rotations
from morphem.physics.ctf import ctf

WORKED_EXAMPLE = """
data_optics

_rlnOpticsGroup 1
_rlnOpticsGroupName 'blank in name'
_rlnVoltage 300.0
_rlnSphericalAberration 2.7
_rlnAmplitudeContrast 0.1
_rlnImagePixelSize "2.0"
_rlnImageSize 32

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
_rlnPhaseShift
_custom
000001@particles.mrcs 1 30 60 45 4.0 -2.0 15000.0 14500 30 0 "kept as is"
"""

RELION_30 = """data_
loop_
_rlnImageName #1
_rlnMagnification #2
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
_rlnRandomSubset #15
_rlnMicrographName #16
2@b.mrcs 50000 5.0 300 2.7 0.1 15000 14000 30 10 20 30 3 -1 2 m1.mrc
1@a.mrcs 40000 5.0 300 2.7 0.1 15000 14000 30 10 20 30 3 -1 1 m2.mrc
1@b.mrcs 50000 5.0 300 2.7 0.1 15000 14000 30 10 20 30 3 -1 2 m1.mrc
"""

TWO_PIXEL_SIZES = """
data_particles
loop_
_rlnImageName #1
_rlnOpticsGroup #2
_rlnDefocusU #3
_rlnDefocusV #4
_rlnDefocusAngle #5
_rlnPhaseShift #6
_rlnAngleRot #7
_rlnAngleTilt #8
_rlnAnglePsi #9
_rlnOriginXAngst #10
_rlnOriginYAngst #11
1@a.mrcs 7 15000 14000 30 90 10 20 30 3 -1
2@a.mrcs 2 15000 14000 30 0 10 20 30 3 -1
3@a.mrcs 7 15000 14000 30 0 10 20 30 3 -1

data_optics
loop_
_rlnOpticsGroup #1
_rlnOpticsGroupName #2
_rlnVoltage #3
_rlnSphericalAberration #4
_rlnAmplitudeContrast #5
_rlnImagePixelSize #6
_rlnImageSize #7
2 two 300 2.7 0.1 1.25 64
7 seven 200 2.0 0.07 1.5 64
"""
CS_FIELDS = [
    ("uid", "<u8"), ("blob/path", "S20"), ("blob/idx", "<u4"), ("blob/shape", "<u4", 2), ("blob/psize_A", "<f4"),
    ("ctf/df1_A", "<f4"), ("ctf/df2_A", "<f4"), ("ctf/df_angle_rad", "<f4"), ("ctf/accel_kv", "<f4"),
    ("ctf/cs_mm", "<f4"), ("ctf/amp_contrast", "<f4"), ("ctf/phase_shift_rad", "<f4"), ("ctf/exp_group_id", "<u4"),
    ("alignments3D/pose", "<f4", 3), ("alignments3D/shift", "<f4", 2), ("alignments3D/psize_A", "<f4"),
    ("alignments3D/split", "<u4"),
]  # fmt: skip


def a_star(tmp_path, text=WORKED_EXAMPLE, *changes, name="a.star"):
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (tmp_path / name).write_text(text)
    return tmp_path / name


def a_stack(path, count=3, box=32, pixel_A=0.0):
    with mrc.create_stack(path, count, box, pixel_A) as images_nyx:
        images_nyx[:] = np.random.default_rng(0).normal(size=images_nyx.shape)
    return path


def a_cs(path, rows=2):
    table = np.zeros(rows, CS_FIELDS)
    table["uid"], table["blob/idx"], table["blob/path"] = np.arange(9, 9 + rows), np.arange(rows), b">J1/a.mrc"
    table["blob/shape"], table["blob/psize_A"], table["alignments3D/psize_A"] = 64, 1.5, 3.0
    table["ctf/accel_kv"], table["ctf/cs_mm"], table["ctf/amp_contrast"] = 300, 2.7, 0.1
    table["ctf/df1_A"], table["ctf/df2_A"], table["ctf/df_angle_rad"] = 15000, 14000, 0.5
    table["alignments3D/shift"], table["alignments3D/split"] = (2, -1), np.arange(rows) % 2
    cs.write(path, table)
    return path


def a_pickle(path, value):
    path.write_bytes(pickle.dumps(value))
    return path


def a_ctf_pickle(path, *rows):
    return a_pickle(path, np.array(rows, np.float32))


def cells(path):
    return {name: table.to_numpy().tolist() for name, table in star.read(path).items()}


def refused(message, *args, **options):
    with pytest.raises(InputError, match=message) as caught:
        Particles.read(*args, **options)
    assert "\n" not in str(caught.value)


def test_19_the_worked_example_of_the_conventions(tmp_path):
    particles = Particles.read(a_star(tmp_path))
    np.testing.assert_allclose(
        particles.rotation_n33[0],
        [[-0.047367, 0.789149, -0.612372], [-0.659740, 0.435596, 0.612372], [0.75, 0.433013, 0.5]],
        atol=1e-6,
    )
    np.testing.assert_allclose(particles.shift_A_n2 / particles.pixel_A_n[:, None], [[2, -1]])
    assert (particles.box, particles.optics_names, particles.half_n[0]) == (32, ("blank in name",), 0)
    assert particles.ctf is not None
    k_k2 = np.array([[1, 0], [0, 1], [3, 4], [4, -3]])
    found = ctf(particles.ctf, particles.pixel_A_n, k_k2, particles.box)
    np.testing.assert_allclose(found.numpy()[0], [-0.319078, -0.315498, 0.532714, 0.638310], atol=1e-5)


def test_relion_30_has_shifts_in_pixels_and_no_box(tmp_path):
    path = a_star(tmp_path, RELION_30)
    refused("no image size", path)
    particles = Particles.read(path, box=64)
    np.testing.assert_allclose(particles.pixel_A_n, [1, 1.25, 1])
    np.testing.assert_allclose(particles.shift_A_n2, [[3, -1], [3.75, -1.25], [3, -1]])
    assert particles.optics_n.tolist() == [0, 1, 0]
    assert particles.half_n.tolist() == [2, 1, 2]
    assert particles.micrograph_n is not None and particles.micrograph_n.tolist() == ["m1.mrc", "m2.mrc", "m1.mrc"]
    assert [path.name for path in particles.stacks] == ["b.mrcs", "a.mrcs"]
    assert (particles.stack_n.tolist(), particles.slice_n.tolist()) == ([0, 1, 0], [1, 0, 0])


def test_02_an_absent_phase_shift_is_0_and_said_once(tmp_path):
    particles = Particles.read(a_star(tmp_path, RELION_30), box=64)
    assert particles.notices == ("no rlnPhaseShift: taken as 0",)
    told = Particles.read(a_star(tmp_path, RELION_30, ("_rlnRandomSubset", "_rlnPhaseShift"), ("-1 2 m", "-1 0 m"),
                                 ("-1 1 m", "-1 0 m"), name="b.star"), box=64)  # fmt: skip
    assert told.notices == ()
    k_k2 = np.array([[1, 0], [3, 4], [-20, 7]])
    found, expected = (ctf(p.ctf, p.pixel_A_n, k_k2, 64) for p in (particles, told) if p.ctf is not None)
    assert found.isfinite().all() and found.equal(expected)


def test_the_box_comes_from_the_stack_where_the_table_is_silent(tmp_path):
    a_stack(tmp_path / "b.mrcs", box=32)
    assert Particles.read(a_star(tmp_path, RELION_30)).box == 32
    refused("a box of 32 .* --box says 64", tmp_path / "a.star", box=64)


def test_04_each_row_has_the_optics_of_its_own_group(tmp_path):
    particles = Particles.read(a_star(tmp_path, TWO_PIXEL_SIZES))
    assert particles.optics_names == ("two", "seven")
    assert particles.optics_n.tolist() == [1, 0, 1]
    assert particles.pixel_A_n.tolist() == [1.5, 1.25, 1.5]
    assert particles.ctf is not None
    assert particles.ctf.voltage_kV_n.tolist() == [200, 300, 200]
    assert particles.ctf.cs_mm_n.tolist() == [2.0, 2.7, 2.0]
    np.testing.assert_allclose(particles.ctf.phase_shift_rad_n, [np.pi / 2, 0, 0])
    np.testing.assert_allclose(particles.shift_A_n2, [[3, -1]] * 3)
    refused("a pixel size of 1.25 in row 2, but --pixel-size says 1.5", tmp_path / "a.star", pixel_A=1.5)


@pytest.mark.parametrize("text", [WORKED_EXAMPLE, RELION_30, TWO_PIXEL_SIZES])
def test_03_a_rewritten_table_keeps_every_cell(tmp_path, text):
    particles = Particles.read(a_star(tmp_path, text), box=64 if text is RELION_30 else None)
    particles.write(tmp_path / "b.star", {"morphemZ0": np.arange(len(particles)) / 4})
    before, after = star.read(tmp_path / "a.star"), star.read(tmp_path / "b.star")
    assert list(before) == list(after)
    for name, table in before.items():
        assert after[name][list(table)].to_numpy().tolist() == table.to_numpy().tolist()
    assert after[particles.table.name]["morphemZ0"].iloc[0] == "0.0"


def test_a_subset_only_drops_rows_and_new_poses_only_change_poses(tmp_path):
    particles = Particles.read(a_star(tmp_path, RELION_30), box=64).take(np.array([2, 0]))
    rotation_n33 = rotations.uniform(2, np.random.default_rng(1))
    particles.with_poses(rotation_n33, np.array([[1.0, 2], [3, 4]])).write(tmp_path / "b.star")
    again = Particles.read(tmp_path / "b.star")
    np.testing.assert_allclose(again.rotation_n33, rotation_n33, atol=1e-12)
    np.testing.assert_allclose(again.shift_A_n2, [[1, 2], [3, 4]])
    before, after = star.read(tmp_path / "a.star")[""].iloc[[2, 0]], star.read(tmp_path / "b.star")[""]
    same = [name for name in before if before[name].tolist() == after[name].tolist()]
    assert set(before) - set(same) == {"rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginX", "rlnOriginY"}
    assert after["rlnImageName"].tolist() == ["1@b.mrcs", "2@b.mrcs"]


def test_masks_and_empty_selections_are_taken(tmp_path):
    particles = Particles.read(a_star(tmp_path, TWO_PIXEL_SIZES))
    assert particles.take(np.array([True, False, True])).image_names == ["000001@a.mrcs", "000003@a.mrcs"]
    assert len(particles.take(np.array([], int))) == 0


def test_the_box_and_contrast_of_options_travel_with_the_table(tmp_path):
    path = a_star(tmp_path, RELION_30, ("_rlnAmplitudeContrast #6", "_rlnOther #6"))
    refused("no rlnAmplitudeContrast, .* --amplitude-contrast", path, box=64)
    Particles.read(path, box=64, amplitude_contrast=0.07).write(tmp_path / "b.star")
    again = Particles.read(tmp_path / "b.star")
    assert (again.box, again.ctf.amplitude_contrast_n.tolist()) == (64, [0.07] * 3)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([("_rlnDefocusV", "_other")], "no rlnDefocusV, expected a CTF"),
        ([("_rlnVoltage", "_other"), ("_rlnSphericalAberration", "_more")], "no rlnVoltage, rlnSphericalAberration"),
        ([("_rlnAngleTilt", "_other")], "no rlnAngleRot, rlnAngleTilt, rlnAnglePsi, expected poses; give --poses"),
        ([("_rlnImageName", "_other")], "no column _rlnImageName in data_optics, data_particles"),
        ([("_rlnImagePixelSize", "_other")], "no pixel size"),
        ([("000001@", "000000@")], 'row 1 is called "000000@particles.mrcs"'),
        ([("000001@", "x@")], 'row 1 is called "x@particles.mrcs"'),
        ([("15000.0", "nan")], '_rlnDefocusU is "nan" in row 1'),
        ([("15000.0", "high")], '_rlnDefocusU is "high" in row 1'),
        ([(".mrcs 1 30", ".mrcs 3 30")], "optics group 3 is not in data_optics"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(tmp_path, changes, message):
    refused(message, a_star(tmp_path, WORKED_EXAMPLE, *changes))


def test_several_image_sizes_are_refused(tmp_path):
    refused("images of 32 and 64 pixels", a_star(tmp_path, TWO_PIXEL_SIZES, ("1.25 64", "1.25 32")))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"box": 64}, "a box of 32 in row 1, but --box says 64"),
        ({"pixel_A": 1.0}, "a pixel size of 2 in row 1, but --pixel-size says 1"),
        ({"amplitude_contrast": 0.07}, "an amplitude contrast of 0.1 in row 1, but --amplitude-contrast says 0.07"),
    ],
)
def test_12_an_option_that_contradicts_the_table_is_refused_with_both_values(tmp_path, options, message):
    refused(message, a_star(tmp_path), **options)
    assert Particles.read(tmp_path / "a.star", box=32, pixel_A=2.001, amplitude_contrast=0.1).pixel_A_n.tolist() == [2]


def test_without_a_ctf_its_columns_may_be_absent(tmp_path):
    assert Particles.read(a_star(tmp_path, WORKED_EXAMPLE, ("_rlnDefocusU", "_other")), no_ctf=True).ctf is None


def test_without_poses_rotations_are_not_numbers(tmp_path):
    path = a_star(tmp_path, WORKED_EXAMPLE, ("_rlnAngleRot", "_other"))
    particles = Particles.read(path, require_poses=False)
    assert not particles.has_poses and np.isnan(particles.rotation_n33).all()
    particles.write(tmp_path / "b.star")
    assert cells(tmp_path / "b.star") == cells(path)


IDLE = {
    "rlnBeamTiltX": "0", "rlnBeamTiltY": "0.0", "rlnOddZernike": "[0,0.0,0]", "rlnEvenZernike": "[0,0,0]",
    "rlnMagMat00": "1.0", "rlnMagMat01": "0", "rlnMagMat10": "0", "rlnMagMat11": "1",
}  # fmt: skip


def with_optics(tmp_path, columns):
    more = "".join(f"\n_{name} {value}" for name, value in columns.items())
    return a_star(tmp_path, WORKED_EXAMPLE, ("_rlnImageSize 32", f"_rlnImageSize 32{more}"))


@pytest.mark.parametrize(
    "changes",
    [
        {"rlnBeamTiltY": "-0.1", "rlnOddZernike": "[0,0.5,0]"},
        {"rlnEvenZernike": "[0,0,1e-3]"},
        {"rlnMagMat00": "1.01", "rlnMagMat01": "0.002"},
        {"rlnBeamTiltX": "1", "rlnMagMat10": "-0.002", "rlnMagMat11": "0.99"},
    ],
)
def test_18_corrections_that_are_not_made_are_one_notice_that_names_them(tmp_path, changes):
    assert Particles.read(with_optics(tmp_path, IDLE)).notices == ()
    assert Particles.read(with_optics(tmp_path, IDLE | changes)).notices == (
        f"not corrected for: {', '.join(changes)}",
    )


def test_18_corrections_of_cryosparc_are_one_notice(tmp_path):
    table = np.load(a_cs(tmp_path / "a.cs"))
    idle = {"ctf/tilt_A": np.zeros((2, 2), np.float32), "ctf/anisomag": np.zeros((2, 4), np.float32)}
    cs.write(tmp_path / "b.cs", cs.with_fields(table, idle))
    assert not any("not corrected" in notice for notice in Particles.read(tmp_path / "b.cs").notices)
    cs.write(tmp_path / "c.cs", cs.with_fields(table, {name: values + 0.1 for name, values in idle.items()}))
    assert "not corrected for: ctf/tilt_A, ctf/anisomag" in Particles.read(tmp_path / "c.cs").notices


def test_18_images_multiplied_by_their_ctf_are_refused(tmp_path):
    assert len(Particles.read(with_optics(tmp_path, {"rlnCtfDataAreCtfPremultiplied": "0"}))) == 1
    refused("_rlnCtfDataAreCtfPremultiplied is set", with_optics(tmp_path, {"rlnCtfDataAreCtfPremultiplied": "1"}))


WARP = """data_
loop_
_rlnImageName #1
_rlnImagePixelSize #2
_rlnImageSize #3
_rlnGroupName #4
_rlnCtfBfactor #5
_rlnCtfScalefactor #6
1@a.mrcs 2 32 p1 -4 1.0
2@a.mrcs 2 32 p1 -8 0.9
3@a.mrcs 2 32 p2 -4 1.0
"""


@pytest.mark.parametrize(
    ("text", "changes", "found"),
    [
        (WORKED_EXAMPLE, [("_custom", "_rlnTomoParticleName")], "column _rlnTomoParticleName"),
        (WORKED_EXAMPLE, [("_custom", "_rlnTomoVisibleFrames"), ('"kept as is"', "[1,1,0]")], "_rlnTomoVisibleFrames"),
        (WARP, [], "groups whose images differ in dose and tilt"),
    ],
)
def test_10_a_tilt_series_is_refused(tmp_path, text, changes, found):
    path = a_star(tmp_path, text, *changes)
    refused(f"a tilt series .*{found}.*, expected single particles", path, no_ctf=True, require_poses=False)


def test_10_subtomograms_are_refused(tmp_path):
    """A subtomogram's first section would pass for an image."""
    assert len(Particles.read(with_optics(tmp_path, {"rlnImageDimensionality": "2"}))) == 1
    refused(r"subtomograms \(_rlnImageDimensionality\)", with_optics(tmp_path, {"rlnImageDimensionality": "3"}))


def test_10_groups_of_untilted_images_are_no_tilt_series(tmp_path):
    path = a_star(tmp_path, WARP, ("-8 0.9", "-4 1.0"))
    assert len(Particles.read(path, no_ctf=True, require_poses=False)) == 3


def test_stacks_are_found_in_datadir_beside_the_table_and_above_it(tmp_path, monkeypatch):
    for folder in ("data", "job/sub", "here"):
        (tmp_path / folder).mkdir(parents=True)
    path = a_star(tmp_path / "job/sub", WORKED_EXAMPLE, ("particles.mrcs", "Extract/p.mrcs"))
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here/Extract").mkdir()
    places = [tmp_path / "here/Extract", tmp_path / "job/Extract", tmp_path / "job/sub/Extract"]
    for place in places:
        place.mkdir(exist_ok=True)
        a_stack(place / "p.mrcs")
        assert Particles.read(path).stacks[0].resolve() == place / "p.mrcs"
    assert Particles.read(path, datadir=tmp_path / "data").stacks[0].resolve() == places[-1] / "p.mrcs"
    a_stack(tmp_path / "data/p.mrcs")
    assert Particles.read(path, datadir=tmp_path / "data").stacks[0] == tmp_path / "data/p.mrcs"


def test_07_a_cs_table_and_its_zero_pose(tmp_path):
    particles = Particles.read(a_cs(tmp_path / "a.cs"))
    np.testing.assert_array_equal(particles.rotation_n33, [np.eye(3)] * 2)
    np.testing.assert_allclose(particles.shift_A_n2, [[6, -3]] * 2)
    assert particles.image_names == ["000001@J1/a.mrc", "000002@J1/a.mrc"]
    assert (particles.half_n.tolist(), particles.pixel_A_n.tolist(), particles.box) == ([1, 2], [1.5, 1.5], 64)


def test_a_cs_subset_with_new_poses_keeps_fields_and_types(tmp_path):
    particles = Particles.read(a_cs(tmp_path / "a.cs", 3)).take(np.array([2, 1]))
    rotation_n33 = rotations.uniform(2, np.random.default_rng(2))
    particles.with_poses(rotation_n33, np.array([[1.5, 0], [0, 3]])).write(
        tmp_path / "b.cs", {"morphem/z": np.ones((2, 4))}
    )
    before, after = cs.read(tmp_path / "a.cs"), cs.read(tmp_path / "b.cs")
    assert after.dtype.descr[:-1] == before.dtype.descr
    assert after["uid"].tolist() == [11, 10]
    again = Particles.read(tmp_path / "b.cs")
    np.testing.assert_allclose(again.rotation_n33, rotation_n33, atol=1e-6)
    np.testing.assert_allclose(again.shift_A_n2, [[1.5, 0], [0, 3]])


def test_a_cs_table_becomes_a_star_table(tmp_path):
    particles = Particles.read(a_cs(tmp_path / "a.cs"))
    particles.write(tmp_path / "b.star", {"morphemZ0": np.array([0.5, 1])})
    again = Particles.read(tmp_path / "b.star")
    same_physics(particles, again)
    assert star.read(tmp_path / "b.star")["particles"]["morphemZ0"].tolist() == ["0.5", "1.0"]


def test_a_cs_file_of_other_particles_is_refused(tmp_path):
    particles = Particles.read(a_star(tmp_path))
    with pytest.raises(InputError, match="has no .cs fields"):
        particles.write(tmp_path / "b.cs")


def same_physics(a, b):
    for name in ("pixel_A_n", "rotation_n33", "shift_A_n2", "half_n", "slice_n"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), atol=1e-9)
    for name, values in vars(a.ctf).items():
        np.testing.assert_allclose(getattr(b.ctf, name), values, rtol=1e-9)
    assert a.box == b.box


def test_11_a_stack_with_cryodrgn_pickles(tmp_path):
    a_stack(tmp_path / "a.mrcs")
    rotation_n33 = rotations.uniform(3, np.random.default_rng(3))
    shift_n2 = np.array([[0.0625, -0.03125], [0, 0], [1, -1]])
    poses = a_pickle(tmp_path / "pose.pkl", (rotation_n33, shift_n2))
    row = (64, 1.0, 15000, 14500, 30, 300, 2.7, 0.1, 90)
    ctf_pkl = a_ctf_pickle(tmp_path / "ctf.pkl", row, (48, *row[1:]), row)
    particles = Particles.read(tmp_path / "a.mrcs", poses=poses, ctf=ctf_pkl)
    np.testing.assert_allclose(particles.pixel_A_n, [2, 1.5, 2])
    np.testing.assert_allclose(particles.shift_A_n2, shift_n2 * 32 * particles.pixel_A_n[:, None])
    np.testing.assert_allclose(particles.rotation_n33, rotation_n33, atol=1e-12)
    assert particles.ctf is not None
    np.testing.assert_allclose(particles.ctf.phase_shift_rad_n, np.pi / 2)
    assert particles.optics_n.tolist() == [0, 1, 0]
    particles.write(tmp_path / "b.star")
    same_physics(particles, Particles.read(tmp_path / "b.star"))
    assert star.read(tmp_path / "b.star")["particles"]["rlnImageName"].iloc[1] == "000002@a.mrcs"
    ind = a_pickle(tmp_path / "ind.pkl", np.array([2, 0]))
    kept = Particles.read(tmp_path / "a.mrcs", poses=poses, ctf=ctf_pkl, ind=ind)
    assert kept.slice_n.tolist() == [2, 0]


def test_20_ten_pixels_are_ten_pixels_from_every_file(tmp_path):
    """In a box of 128: ten pixels of 1.5 Å in RELION's tables, 10/128 in a pose.pkl, ten pixels in a .cs."""
    text = WORKED_EXAMPLE.replace("Size 32", "Size 128").replace('"2.0"', "1.5").replace("4.0 -2.0", "15.0 -6.0")
    table = np.load(a_cs(tmp_path / "a.cs", 1))
    table["blob/shape"], table["alignments3D/shift"], table["alignments3D/psize_A"] = 128, (10, -4), 1.5
    cs.write(tmp_path / "a.cs", table)
    bare = a_star(tmp_path, text, ("_rlnAngleRot", "_rlnOther"), name="b.star")
    poses = a_pickle(tmp_path / "pose.pkl", (np.eye(3)[None], np.array([[10 / 128, -4 / 128]])))
    found = [
        Particles.read(a_star(tmp_path, text)),
        Particles.read(tmp_path / "a.cs"),
        Particles.read(bare, poses=poses),
    ]
    for particles in found:
        assert particles.box == 128
        np.testing.assert_allclose(particles.shift_A_n2 / particles.pixel_A_n[:, None], [[10, -4]], rtol=1e-9)


def test_a_list_of_stacks(tmp_path):
    a_stack(tmp_path / "a.mrcs", 2)
    a_stack(tmp_path / "b.mrcs", 1)
    (tmp_path / "all.txt").write_text("a.mrcs\nb.mrcs\n")
    poses = a_pickle(tmp_path / "pose.pkl", np.array([np.eye(3)] * 3))
    particles = Particles.read(tmp_path / "all.txt", poses=poses, no_ctf=True, pixel_A=1.5)
    assert (particles.stack_n.tolist(), particles.slice_n.tolist()) == ([0, 0, 1], [0, 1, 0])
    assert not particles.shift_A_n2.any()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ((np.eye(3)[None], np.array([[0.0, 1.01]])), "a shift of 1.01, expected fractions of the box"),
        ((np.array([np.eye(3)] * 2), np.zeros((2, 2))), r"\(2, 3, 3\) found, expected \(1, 3, 3\) for 1 images"),
        ((np.eye(3)[None], np.zeros((1, 3))), r"\(1, 3\) found, expected \(1, 2\)"),
        ((np.eye(3)[None] * np.nan,), "not finite"),
        (3, "int found"),
    ],
)
def test_11_pose_pickles_that_do_not_fit_are_refused(tmp_path, value, message):
    refused(message, a_star(tmp_path), poses=a_pickle(tmp_path / "pose.pkl", value))


def test_a_ctf_pickle_takes_the_place_of_what_it_knows(tmp_path):
    path = a_star(tmp_path, WORKED_EXAMPLE, ("_custom", "_rlnCtfScalefactor"), ('"kept as is"', "0.5"))
    particles = Particles.read(path, ctf=a_ctf_pickle(tmp_path / "ctf.pkl", (64, 1, 20000, 19000, 10, 200, 2, 0.07, 0)))
    assert particles.ctf is not None
    found = (particles.ctf.defocus_u_A_n[0], particles.ctf.voltage_kV_n[0], particles.ctf.scale_n[0])
    assert found == (20000, 200, 0.5)


def test_ctf_pickles_that_do_not_fit_are_refused(tmp_path):
    row = (64, 1.25, 15000, 14500, 30, 300, 2.7, 0.1, 90)
    refused("expected .1, 9.", a_star(tmp_path), ctf=a_ctf_pickle(tmp_path / "ctf.pkl", row[:8]))
    refused("a pixel size of 2 .* says 2.5", a_star(tmp_path), ctf=a_ctf_pickle(tmp_path / "ctf.pkl", row))


@pytest.mark.parametrize("value", [np.array([0, 3]), np.array([-1]), np.array([0.5]), np.array([[0]])])
def test_row_numbers_that_do_not_fit_are_refused(tmp_path, value):
    refused("ind.pkl: ", a_star(tmp_path, TWO_PIXEL_SIZES), ind=a_pickle(tmp_path / "ind.pkl", value))


def test_other_kinds_of_files_are_refused(tmp_path):
    refused('ends in ".csv"', tmp_path / "a.csv")
    refused("no such file", tmp_path / "a.star")
