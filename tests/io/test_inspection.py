"""Planted defects are found, each under its name, and a clean set has none."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from morphem.data import contrast, inspection
from morphem.data.dataset import Source
from morphem.data.findings import SEVERITIES, Finding, Findings, listed, merged, rows
from morphem.data.images import Images
from morphem.data.inspection import inspect
from morphem.data.particles import Particles
from morphem.data.simulation import Simulation
from morphem.data.synthetic import simulate
from morphem.errors import InputError
from morphem.io import cs, mrc, star


@pytest.fixture
def table(tiny, tmp_path) -> Path:
    """The table of a set of one's own, to spoil."""
    return shutil.copytree(tiny, tmp_path / "set") / "particles.star"


def pixels(table) -> np.ndarray:
    return np.array(mrc.open_stack(table.with_name("particles.mrcs")).images_nyx)


def with_pixels(table, image_nyx, pixel_A=6.0, name="particles.mrcs"):
    mrc.write_map(table.with_name(name), image_nyx, pixel_A)


def spoilt_pixel(table, place, value):
    image_nyx = pixels(table)
    image_nyx[place] = value
    with_pixels(table, image_nyx)


def edit(table, block="particles", drop=(), **columns):
    """Columns replaced or added, `drop` taken away; a text stands for every row, a dict for single ones."""
    blocks = star.read(table)
    rows = blocks[block]
    for name, value in columns.items():
        cells = list(rows[name]) if isinstance(value, dict) else list(star.tokens(np.broadcast_to(value, len(rows))))
        for row, cell in value.items() if isinstance(value, dict) else ():
            cells[row] = cell
        rows[name] = cells
    blocks[block] = rows.drop(columns=[name for name in rows if name.startswith(tuple(drop))] if drop else [])
    star.write(table, blocks)


def number(table, name, block="particles"):
    return star.read(table)[block][name].astype(float).to_numpy()


def of(table, **options):
    return inspect(Source(table, **options))


def sentences(found, severity=None):
    return [f.sentence for f in found.findings if severity in (None, f.severity)]


def names_of_missing(table):
    blocks = star.read(table)
    names = blocks["particles"]["rlnImageName"].tolist()
    edit(table, rlnImageName={row: f"1@gone_{row}.mrcs" for row in range(7)})
    assert names[7].endswith("@particles.mrcs")


def truncated(table):
    path = table.with_name("particles.mrcs")
    path.write_bytes(path.read_bytes()[:-100])


def several_boxes(table):
    with_pixels(table, pixels(table)[:, 1:-1, 1:-1], name="other.mrcs")
    edit(table, rlnImageName={0: "1@other.mrcs"})


def a_double(table):
    table.with_name("link.mrcs").symlink_to("particles.mrcs")
    edit(table, rlnImageName={9: "000001@link.mrcs"})


def pixels_and_angstroms(table):
    edit(table, rlnOriginX=number(table, "rlnOriginXAngst"))


def other_pixel_in_header(table):
    with_pixels(table, pixels(table), 1.0)


def an_unused_group(table):
    blocks = star.read(table)
    again = blocks["optics"].loc[[0, 0]].assign(rlnOpticsGroup=["1", "2"], rlnOpticsGroupName=["one", "nobody"])
    again.attrs = blocks["optics"].attrs
    star.write(table, {**blocks, "optics": again})


def two_pixels(table):
    blocks = star.read(table)
    again = blocks["optics"].loc[[0, 0]].assign(rlnOpticsGroup=["1", "2"], rlnImagePixelSize=["6.0", "6.03"])
    again.attrs = blocks["optics"].attrs
    blocks["particles"]["rlnOpticsGroup"] = ["1", "2", "2"] * 50
    star.write(table, {**blocks, "optics": again})


def no_box(table):
    edit(table, "optics", drop=["rlnImageSize"])
    table.with_name("particles.mrcs").unlink()


def scaled(name, factor):
    return lambda table: edit(table, **{name: number(table, name) * factor})


def tilted(table):
    n = len(number(table, "rlnDefocusU"))
    rows = np.arange(n)
    edit(table, rlnGroupName=rows // 10, rlnCtfBfactor=rows % 10 * -4.0, rlnCtfScalefactor=1 - rows % 10 / 50)


PLANTED = {
    "missing stacks": (
        "error",
        names_of_missing,
        "7 of 8 stacks not found",
        "gone_0.mrcs, gone_1.mrcs, gone_2.mrcs and 4 more",
        "--datadir",
    ),
    "truncated stack": ("error", truncated, "particles.mrcs: ", "but its header claims"),
    "no stack at all": ("error", lambda t: t.with_name("particles.mrcs").write_text("x"), "fewer than an MRC header's"),
    "too few slices": ("error", lambda t: with_pixels(t, pixels(t)[:-3]), "147 images, but", "names number 150"),
    "oblong images": ("error", lambda t: with_pixels(t, pixels(t)[:, :-2]), "images of 32 × 30 pixels"),
    "odd images": ("error", lambda t: with_pixels(t, pixels(t)[:, 1:, 1:]), "an odd image box of 31 pixels"),
    "another box": ("error", lambda t: with_pixels(t, pixels(t)[:, 1:-1, 1:-1]), "a box of 30 pixels, but", "says 32"),
    "several boxes": ("error", several_boxes, "other.mrcs: a box of 30 pixels, but"),
    "several boxes in the table": (
        "error",
        lambda t: edit(t, rlnImageSize=[32] * 149 + [64]),
        "images of 32 and 64 pixels",
    ),
    "no box": ("error", no_box, "no image size in it"),
    "no pixel size": (
        "error",
        lambda t: (edit(t, "optics", drop=["rlnImagePixelSize"]), with_pixels(t, pixels(t), 0.0)),
        "no pixel size",
    ),
    "several pixel sizes": ("note", two_pixels, "2 pixel sizes, 6 to 6.03 Å"),
    "another pixel in the header": (
        "warning",
        other_pixel_in_header,
        "header says 1 Å per pixel, the table 6 Å, which is used",
    ),
    "NaN pixel": (
        "error",
        lambda t: spoilt_pixel(t, (6, 3, 4), np.nan),
        "1 of 150 images",
        "constant or not finite",
        "row 7 (000007@particles.mrcs)",
    ),
    "infinite pixels": ("error", lambda t: spoilt_pixel(t, (slice(3, 9), 3, 4), np.inf), "rows 4, 5, 6 and 3 more"),
    "constant image": ("error", lambda t: spoilt_pixel(t, 149, 2.0), "row 150 (000150@particles.mrcs)"),
    "doubles": ("warning", a_double, "row 10: the same image as in an earlier row (1 in all)"),
    "inverted": (
        "warning",
        lambda t: with_pixels(t, -pixels(t)),
        "particles are dark in their stacks",
        "give --contrast dark",
    ),
    "missing group": ("error", lambda t: edit(t, rlnOpticsGroup={4: "7"}), "optics group 7 is not in data_optics"),
    "unused group": ("note", an_unused_group, "nobody: optics group without particles"),
    "no poses": (
        "error",
        lambda t: edit(t, drop=["rlnAngle"]),
        "no rlnAngleRot, rlnAngleTilt, rlnAnglePsi, expected poses",
    ),
    "no CTF": (
        "error",
        lambda t: edit(t, drop=["rlnDefocus"]),
        "no rlnDefocusU, rlnDefocusV, rlnDefocusAngle",
        "--no-ctf",
    ),
    "no voltage": ("error", lambda t: edit(t, "optics", drop=["rlnVoltage"]), "no rlnVoltage, expected a CTF"),
    "defocus in µm": ("warning", scaled("rlnDefocusU", 1e-4), "rlnDefocusU, all rows", "check the unit: expected Å"),
    "overfocus in one row": ("warning", lambda t: edit(t, rlnDefocusV={2: "-9000"}), "rlnDefocusV, row 3: -9000 found"),
    "voltage in V": (
        "warning",
        lambda t: edit(t, "optics", rlnVoltage=3e5),
        "rlnVoltage, all rows: 300000 found, expected 60 to 1000",
        "kV",
    ),
    "Cs in µm": (
        "warning",
        lambda t: edit(t, "optics", rlnSphericalAberration=2700),
        "rlnSphericalAberration, all rows: 2700",
    ),
    "amplitude contrast in %": (
        "warning",
        lambda t: edit(t, "optics", rlnAmplitudeContrast=10),
        "rlnAmplitudeContrast, all rows: 10 found",
    ),
    "angle out of range": (
        "warning",
        lambda t: edit(t, rlnDefocusAngle={0: "400"}),
        "rlnDefocusAngle, row 1: 400 found, expected -360 to 360",
    ),
    "angles in radians": ("warning", scaled("rlnDefocusAngle", np.pi / 180), "none above 2π degrees"),
    "phase shift out of range": (
        "warning",
        lambda t: edit(t, rlnPhaseShift=5000),
        "rlnPhaseShift, all rows: 5000 found",
    ),
    "shifts in a wrong unit": (
        "warning",
        scaled("rlnOriginXAngst", 50),
        "more than half the box of 32",
        "check the unit",
    ),
    "origins that disagree": (
        "warning",
        pixels_and_angstroms,
        "rlnOriginX in pixels disagrees with rlnOriginXAngst in Å",
    ),
    "rotations all zero": (
        "warning",
        lambda t: edit(t, rlnAngleRot=0, rlnAngleTilt=0, rlnAnglePsi=0),
        "all rotations are zero",
    ),
    "rotations all equal": (
        "warning",
        lambda t: edit(t, rlnAngleRot=0, rlnAngleTilt=30, rlnAnglePsi=0),
        "all rotations are equal",
    ),
    "premultiplied": (
        "error",
        lambda t: edit(t, "optics", rlnCtfDataAreCtfPremultiplied=1),
        "_rlnCtfDataAreCtfPremultiplied is set",
    ),
    "phase-flipped": (
        "error",
        lambda t: edit(t, "optics", rlnCtfDataArePhaseFlipped=1),
        "_rlnCtfDataArePhaseFlipped is set",
    ),
    "tomography": ("error", lambda t: edit(t, rlnTomoParticleName="p"), "a tilt series (column _rlnTomoParticleName)"),
    "tilt series": ("error", tilted, "a tilt series (groups whose images differ"),
    "aberrations": (
        "warning",
        lambda t: edit(t, "optics", rlnBeamTiltX=0.5, rlnMagMat01=0.01),
        "not corrected for: rlnBeamTiltX, rlnMagMat01",
    ),
    "no phase shift": ("note", lambda t: edit(t, drop=["rlnPhaseShift"]), "no rlnPhaseShift: taken as 0"),
    "no half-sets": ("note", lambda t: edit(t, drop=["rlnRandomSubset"]), "no half-sets (rlnRandomSubset)"),
    "half a half-set": ("warning", lambda t: edit(t, rlnRandomSubset=1), "150 rows in 1, 0 rows in 2"),
    "classes": ("note", lambda t: edit(t, rlnClassNumber=np.arange(150) % 5), "5 classes (0, 1, 2 and 2 more)"),
    "NaN in a column that is read": (
        "error",
        lambda t: edit(t, rlnDefocusV={4: "nan"}),
        '_rlnDefocusV is "nan" in row 5',
    ),
    "NaN in a scale factor": (
        "error",
        lambda t: edit(t, rlnCtfScalefactor=["1"] * 9 + ["nan"] * 141),
        "_rlnCtfScalefactor is",
    ),
    "text for a number": ("error", lambda t: edit(t, rlnAngleRot={4: "left"}), '_rlnAngleRot is "left" in row 5'),
    "NaN in another column": (
        "note",
        lambda t: edit(t, rlnLogLikeliContribution=np.nan),
        "rlnLogLikeliContribution: cells that are not finite (150 in all)",
    ),
    "image without a number": (
        "error",
        lambda t: edit(t, rlnImageName={4: "0@particles.mrcs"}),
        'row 5 is called "0@particles.mrcs"',
    ),
}


@pytest.mark.parametrize("case", PLANTED)
def test_a_planted_defect_is_found_and_errors_are_what_is_refused(table, case):
    severity, spoil, *phrases = PLANTED[case]
    spoil(table)
    found = of(table)
    said = [sentence for sentence in sentences(found, severity) if phrases[0] in sentence]
    assert len(said) == 1, sentences(found)
    assert all(phrase in said[0] for phrase in phrases), said
    assert "\n" not in said[0]
    assert bool(found.errors) == is_refused(table)


def is_refused(table) -> bool:
    try:
        images = Images(Particles.read(table))
        images.read(np.arange(len(images)))
    except InputError:
        return True
    return False


@pytest.mark.parametrize("kind", ["hinge", "assembly"])
def test_nothing_is_wrong_with_a_clean_set(tmp_path, kind):
    simulate(tmp_path / "set", Simulation(kind=kind, images=400, box=32, pixel_size=6.0, snr=0.1))
    found = of(tmp_path / "set" / "particles.star")
    assert sentences(found) == []
    assert found.holds["images_seen"]["particles"] == "white"


def test_what_a_set_holds(tiny):
    holds = of(tiny / "particles.star").holds
    assert (holds["rows"], holds["box"], holds["pixel_A"], holds["poses"]) == (150, 32, [6.0], True)
    assert (holds["stacks"], holds["number_types"]) == ({"named": 1, "found": 1}, ["float32"])
    assert (holds["half_sets"], holds["micrographs"], holds["classes"]) == ({"1": 75, "2": 75}, 2, None)
    assert 7000 <= holds["defocus_A"]["min"] < holds["defocus_A"]["max"] <= 26000
    np.testing.assert_allclose(holds["shift_A"]["max"], 6 * holds["shift_px"]["max"], rtol=1e-5)
    (group,) = holds["optics_groups"]
    assert group == {
        "name": "opticsGroup1", "particles": 150, "pixel_A": 6.0, "voltage_kV": 300.0, "cs_mm": 2.7,
        "amplitude_contrast": 0.1,
    }  # fmt: skip


def test_all_that_is_wrong_is_found_at_once_and_said_once(table):
    truncated(table)
    edit(table, drop=["rlnAngle", "rlnDefocusV"])
    edit(table, "optics", rlnBeamTiltX=0.5, rlnCtfDataAreCtfPremultiplied=1)
    edit(table, rlnDefocusU={3: "nan", 9: "1.5"}, rlnImageName={0: "1@gone.mrcs"})
    found = of(table)
    said = sentences(found)
    assert len(said) == len(set(said))
    for phrase in (
        "header claims",
        "no rlnAngleRot",
        "no rlnDefocusV,",
        "Premultiplied",
        "gone.mrcs",
        '"nan" in row 4',
    ):
        assert sum(phrase in sentence for sentence in said) == 1, phrase
    assert sum("rlnBeamTiltX" in sentence for sentence in sentences(found, "warning")) == 1
    assert not any("cells that are not finite" in sentence for sentence in said)
    order = [SEVERITIES.index(finding.severity) for finding in found.findings]
    assert order == sorted(order)


def test_what_no_check_sees_but_a_fit_refuses_is_found(table, monkeypatch):
    monkeypatch.setattr("morphem.data.table_checks.CHECKS", ())
    assert of(table).findings == ()
    edit(table, drop=["rlnAngle"])
    assert [finding.severity for finding in of(table).findings] == ["error"]


def test_equal_defects_of_many_stacks_are_one_finding(table):
    for name in "abcde":
        with_pixels(table, pixels(table)[:9, 1:-1, 1:-1], name=f"{name}.mrcs")
    edit(table, rlnImageName={row: f"1@{name}.mrcs" for row, name in enumerate("abcde")})
    (said,) = sentences(of(table), "error")
    assert "c.mrcs and 2 more: a box of 30 pixels, but" in said


def test_an_image_far_from_the_sample_is_found_only_when_all_are_looked_at(table, monkeypatch):
    monkeypatch.setattr(inspection, "SAMPLE", 11)
    spoilt_pixel(table, 5, np.nan)
    few, whole = inspect(Source(table)), inspect(Source(table), all_images=True)
    assert (few.errors, few.holds["images_seen"]["images"]) == (0, 11)
    assert (whole.errors, whole.holds["images_seen"]["images"]) == (1, 150)


def test_options_and_pickles_are_looked_at_too(table):
    poses = table.with_name("pose.pkl")
    poses.write_bytes(pickle.dumps((np.tile(np.eye(3), (150, 1, 1)), np.full((150, 2), 3.0))))
    found = of(table, poses=poses, pixel_size=5.0, box=30)
    errors = sentences(found, "error")
    for phrase in ("a shift of 3, expected fractions", "--pixel-size says 5", "--box says 30"):
        assert sum(phrase in sentence for sentence in errors) == 1
    assert not of(table, no_ctf=True, contrast="white").errors


def test_rows_left_out_are_not_looked_at_and_the_others_keep_their_numbers(table):
    spoilt_pixel(table, (slice(6, 8), 3, 4), np.nan)
    edit(table, rlnDefocusU={6: "2", 9: "2"})
    np.save(table.with_name("rows.npy"), np.r_[7:150])
    found = of(table, ind=table.with_name("rows.npy"))
    assert found.holds["rows"] == 143
    assert "row 8 (000008@particles.mrcs)" in sentences(found, "error")[0]
    assert "rlnDefocusU, row 10: 2 found" in sentences(found, "warning")[0]


def test_one_image_is_too_few(table):
    np.save(table.with_name("rows.npy"), [3])
    assert "two half-sets need at least 2" in sentences(of(table, ind=table.with_name("rows.npy")))[0]


def test_a_cs_table_is_looked_at_in_its_own_fields(tmp_path):
    mrc.write_map(tmp_path / "a.mrc", np.random.default_rng(0).normal(size=(4, 16, 16)), 1.5)
    fields = [
        ("uid", "<u8"), ("blob/path", "S9"), ("blob/idx", "<u4"), ("blob/shape", "<u4", 2), ("blob/psize_A", "<f4"),
        ("ctf/df1_A", "<f4"), ("ctf/df2_A", "<f4"), ("ctf/df_angle_rad", "<f4"), ("ctf/accel_kv", "<f4"),
        ("ctf/cs_mm", "<f4"), ("ctf/amp_contrast", "<f4"), ("ctf/tilt_A", "<f4", 2), ("alignments3D/pose", "<f4", 3),
        ("alignments3D/shift", "<f4", 2), ("alignments3D/class", "<u4"), ("alignments3D/alpha", "<f4"),
    ]  # fmt: skip
    table = np.zeros(4, fields)
    table["uid"], table["blob/path"], table["blob/idx"], table["blob/shape"] = range(4), b">a.mrc", range(4), 16
    table["blob/psize_A"], table["ctf/df1_A"], table["ctf/df2_A"], table["ctf/accel_kv"] = 1.5, 15000, 1.5, 300
    table["ctf/amp_contrast"], table["ctf/tilt_A"], table["ctf/df_angle_rad"] = 0.1, 0.2, 45
    table["alignments3D/shift"], table["alignments3D/class"] = (9, 0), range(4)
    table["alignments3D/alpha"] = np.nan
    cs.write(tmp_path / "a.cs", table)
    found = of(tmp_path / "a.cs")
    assert found.errors == 0
    said = " ".join(sentences(found))
    for phrase in (
        "all rotations are zero", "not corrected for: ctf/tilt_A", "ctf/df2_A, all rows: 1.5 found",
        "shifts of up to 9 pixels, more than half the box of 16", "4 classes (0, 1, 2 and 1 more)",
        "ctf/df_angle_rad, all rows: 45 found", "alignments3D/alpha: cells that are not finite (4 in all)",
        "no ctf/phase_shift_rad: taken as 0",
        "no half-sets (alignments3D/split)",
    ):  # fmt: skip
        assert phrase in said, phrase


@pytest.mark.parametrize("name", ["particles.star", "particles.txt", "gone.star", "gone.mrcs", "gone.cs"])
def test_where_there_is_no_table_there_is_nothing_to_look_at(tmp_path, name):
    if not name.startswith("gone"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=name):
        of(tmp_path / name)


# Contrast


def images(tiny, option=None, no_ctf=False):
    return Images(Particles.read(tiny / "particles.star", no_ctf=no_ctf), option)


def test_16_an_inverted_stack_is_warned_of_with_the_option_to_give(tiny, table):
    assert contrast.contrast_warning(images(tiny)) is None
    with_pixels(table, -pixels(table))
    warning = contrast.contrast_warning(images(table.parent))
    assert warning is not None and "particles.star: particles are dark" in warning
    assert warning.endswith("give --contrast dark") and "\n" not in warning
    assert contrast.contrast_warning(images(table.parent, "dark")) is None


@pytest.mark.parametrize(
    ("option", "no_ctf", "advice"),
    [
        ("white", False, None),
        ("dark", False, "white"),
        (None, True, None),
        ("dark", True, None),
        ("white", True, "dark"),
    ],
)
def test_16_the_sign_expected_follows_contrast_and_ctf(tiny, option, no_ctf, advice):
    """White stacks; without a CTF density is white as it is."""
    warning = contrast.contrast_warning(images(tiny, option, no_ctf))
    assert warning is None if advice is None else warning is not None and warning.endswith(f"--contrast {advice}")


@pytest.mark.parametrize("option", ["white", "dark"])
def test_16_noise_alone_has_no_sign(tmp_path, option):
    simulate(tmp_path / "noise", Simulation(images=1200, box=32, snr=1e-4, noise="coloured"))
    assert contrast.contrast_warning(images(tmp_path / "noise", option)) is None
    (found,) = [of(tmp_path / "noise" / "particles.star").holds["images_seen"]]
    assert (found["images"], found["particles"]) == (1000, "cannot tell")


def test_16_the_sign_shows_at_low_signal_whatever_the_background(tmp_path):
    simulate(tmp_path / "set", Simulation(images=1000, box=32, pixel_size=6.0, snr=0.02))
    table = tmp_path / "set" / "particles.star"
    for sign, seen in ((1, "white"), (-1, "dark")):
        levels = np.random.default_rng(0).normal(1000, 50, (1000, 1, 1)).astype(np.float32)
        with_pixels(table, sign * pixels(table) + levels)
        assert of(table).holds["images_seen"]["particles"] == seen
        with_pixels(table, sign * (pixels(table) - levels))


def test_few_images_tell_nothing():
    assert contrast.certainty(np.ones(4)) == contrast.certainty(np.ones(9)) == contrast.certainty(np.empty(0)) == 0
    assert contrast.certainty(np.array([1.0, 2, 3, 2, 1])) == pytest.approx(1.8 / np.sqrt(0.7 / 5))


# Findings


def test_a_refusal_is_taken_apart_and_put_together():
    sentence = "a.star: no pixel size: none; expected Å; give it"
    finding = Finding.of(sentence)
    assert finding == Finding("error", "no pixel size: none; expected Å", "a.star", "give it")
    assert finding.sentence == sentence
    assert Finding.of("a.star: no text").sentence == "a.star: no text"


def test_findings_go_on_after_a_refusal():
    def check():
        yield Finding("note", "one", "here", "")
        raise InputError("there: two; go")

    findings = Findings()
    findings.add(check())
    findings.add(check())
    assert [(f.severity, f.what) for f in findings] == [("error", "two"), ("note", "one")]
    assert findings.attempt(int, "3") == 3
    assert findings.attempt(Particles.read, "a.csv", otherwise=4) == 4
    assert findings.errors == 2


def test_lists_are_short_and_count_the_rest():
    assert listed(["a"]) == "a"
    assert listed(list("abcde")) == "a, b, c and 2 more"
    assert rows(np.array([True, True]), np.array([4, 7])) == "all rows"
    assert rows(np.array([False, True]), np.array([4, 7])) == "row 8"
    assert rows(np.arange(1500) > 0, np.arange(1500)) == "rows 2, 3, 4 and 1,496 more"
    places = [Finding("note", "same", where, "go") for where in "abcd"]
    assert [f.where for f in merged([*places, Finding("note", "other", "e", "go")])] == ["a, b, c and 1 more", "e"]


# Files of other programs


def test_files_of_other_programs(fixtures):
    expected = {
        "FinalRefinement-OriginalParticles-PfCRT.star": (
            3,
            0,
            ["1 of 1 stacks not found", "no image size", "no rlnAmpl"],
        ),
        "relion31.6opticsgroups.star": (1, 1, ["139 of 139 stacks not found", "rlnMagMat11", "2 pixel sizes"]),
        "relion5.star": (1, 2, ["2 of 2 stacks not found", "rows 12, 15: the same image"]),
        "relion31.star": (
            0,
            2,
            ["header says 1 Å per pixel, the table 2.806", "5 rows in 1, 0 rows in 2", "blank MRC"],
        ),
        "empiar_10076_7.star": (1, 1, ["no rlnAngleRot", "particles are dark", "no rlnPhaseShift"]),
        "empiar_10076_7.cs": (1, 1, ["no alignments3D/pose", "particles are dark"]),
        "cryosparc_P12_J24_001_particles.cs": (1, 0, ["50 of 50 stacks not found"]),
        "sta_testing_bin8.star": (1, 1, ["a tilt series", "header says 1 Å"]),
    }
    for name, (errors, warnings, phrases) in expected.items():
        found = of(fixtures / name)
        said = sentences(found)
        assert (found.errors, len(sentences(found, "warning"))) == (errors, warnings), said
        assert all(any(phrase in sentence for sentence in said) for phrase in phrases), said
    groups = of(fixtures / "relion31.6opticsgroups.star").holds["optics_groups"]
    assert [group["particles"] for group in groups] == [48, 29, 5, 7, 26, 24]
    assert [group["cs_mm"] for group in groups] == [2.7, 2.7, 2.7, 2.6, 2.7, 2.7]


def test_toy_projections_are_white_with_and_without_their_ctf(fixtures):
    poses = fixtures / "toy_rot_zerotrans.pkl"
    for name, options in (("toy_projections.mrcs", {"no_ctf": True}), ("toy_projections.star", {"pixel_size": 1.0})):
        found = of(fixtures / name, poses=poses, **options)
        assert found.errors == 0
        assert found.holds["images_seen"]["particles"] == "white"
        assert "contrast" not in " ".join(sentences(found))
