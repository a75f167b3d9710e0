"""Subsets of tables: rows are dropped and nothing else; cryoDRGN's files, written and read again."""

import pickle
import re

import numpy as np
import pytest
import yaml

from morphem.data import cryodrgn, latents
from morphem.data.export import Extras, kind_of, of_table, write
from morphem.data.particles import Particles
from morphem.errors import InputError
from morphem.io import cs, pickles, star
from morphem.physics import rotations
from morphem.physics.ctf import CtfParameters

STARS = [
    "FinalRefinement-OriginalParticles-PfCRT.star", "relion31.6opticsgroups.star", "relion5.star", "relion31.star",
    "relion31.v2.star", "empiar_10076_7.star", "toy_projections.star", "sta_testing_bin8.star",
]  # fmt: skip
ODD = """# made by hand
data_optics

_rlnOpticsGroup 1
_rlnOpticsGroupName 'blank in name'
_rlnVoltage 300.0

data_particles

loop_
_rlnImageName #1
_rlnOpticsGroup
_rlnRandomSubset
_custom
000001@particles.mrcs 1 2 "kept as is"
000002@particles.mrcs 1 1 1.50
000003@particles.mrcs 1 2 +1e-03
000004@particles.mrcs 1 1 None
"""


def subset(source, output, row_n, **options):
    """Those rows of a table, written; the file."""
    np.save(output.parent / "rows.npy", np.asarray(row_n))
    kind = kind_of(output, None)
    chosen = of_table(source, kind, output.parent / "rows.npy", None, options.get("passthrough"))
    write(chosen, kind, output, Extras())
    return output


def block_of_particles(blocks):
    return next(name for name in ("particles", "images", *blocks) if "rlnImageName" in blocks.get(name, ()))


def same_but_for_rows(before, after, row_n):
    """Every block, column and cell is the same text, in the same order."""
    assert list(before) == list(after)
    name = block_of_particles(before)
    for key, table in before.items():
        kept = table.iloc[row_n] if key == name else table
        assert list(after[key]) == list(kept)
        assert after[key].to_numpy().tolist() == kept.to_numpy().tolist()
        assert after[key].attrs == table.attrs


@pytest.mark.parametrize("name", STARS)
def test_07_a_subset_of_any_star_only_drops_rows(fixtures, tmp_path, name):
    before = star.read(fixtures / name)
    row_n = np.arange(1, len(before[block_of_particles(before)]), 2)
    after = star.read(subset(fixtures / name, tmp_path / "a.star", row_n))
    same_but_for_rows(before, after, row_n)


def test_text_that_no_number_would_keep_is_kept(tmp_path):
    (tmp_path / "odd.star").write_text(ODD)
    subset(tmp_path / "odd.star", tmp_path / "a.star", [0, 2])
    same_but_for_rows(star.read(tmp_path / "odd.star"), star.read(tmp_path / "a.star"), [0, 2])
    written = (tmp_path / "a.star").read_text().splitlines()
    assert written[-2:] == ['000001@particles.mrcs 1 2 "kept as is"', "000003@particles.mrcs 1 2 +1e-03"]


def test_all_rows_of_a_star_are_the_same_lines(tmp_path):
    (tmp_path / "odd.star").write_text(ODD)
    write(of_table(tmp_path / "odd.star", "star", None, None, None), "star", tmp_path / "a.star", Extras())
    subset(tmp_path / "a.star", tmp_path / "b.star", [0, 1, 2, 3])
    assert (tmp_path / "a.star").read_bytes() == (tmp_path / "b.star").read_bytes()


def test_rows_keep_the_order_of_their_table_and_come_once(tmp_path):
    (tmp_path / "odd.star").write_text(ODD)
    after = star.read(subset(tmp_path / "odd.star", tmp_path / "a.star", [3, 1, 3]))
    assert [name[:6] for name in after["particles"]["rlnImageName"]] == ["000002", "000004"]


@pytest.mark.parametrize("name", ["cryosparc_P12_J24_001_particles.cs", "empiar_10076_7.cs"])
def test_07_a_subset_of_a_cs_only_drops_rows(fixtures, tmp_path, name):
    before = np.load(fixtures / name)
    after = np.load(subset(fixtures / name, tmp_path / "a.cs", np.arange(0, len(before), 3)))
    assert after.dtype == before.dtype
    assert after.tobytes() == before[::3].tobytes()


def test_07_a_passthrough_is_cut_to_the_same_uids(tmp_path):
    particles, passthrough = a_cs_in_two(tmp_path)
    kept = np.load(subset(particles, tmp_path / "out.cs", [3, 1], passthrough=passthrough))
    beside = np.load(tmp_path / "out_passthrough.cs")
    before, before_beside = np.load(particles), np.load(passthrough)
    assert (kept.dtype, beside.dtype) == (before.dtype, before_beside.dtype)
    assert kept.tobytes() == before[[1, 3]].tobytes()
    assert sorted(beside["uid"]) == sorted(kept["uid"])
    joined = cs.read(tmp_path / "out.cs", tmp_path / "out_passthrough.cs")
    np.testing.assert_array_equal(joined, cs.read(particles, passthrough)[[1, 3]])


def a_cs_in_two(folder, rows=5):
    """A .cs and its passthrough, whose rows have another order and one more."""
    main = np.zeros(rows, [("uid", "<u8"), ("alignments3D/pose", "<f4", 3), ("alignments3D/shift", "<f4", 2)])
    main["uid"], main["alignments3D/pose"] = np.arange(rows) + 90, np.random.default_rng(0).normal(size=(rows, 3))
    fields = [("uid", "<u8"), ("blob/path", "S9"), ("blob/idx", "<u4"), ("blob/psize_A", "<f4"), ("location/x", "<f4")]
    other = np.zeros(rows + 1, fields)
    other["uid"], other["blob/idx"], other["blob/path"] = 90 + np.arange(rows + 1)[::-1], np.arange(rows + 1), b"a.mrc"
    cs.write(folder / "main.cs", main)
    cs.write(folder / "main_passthrough.cs", other)
    return folder / "main.cs", folder / "main_passthrough.cs"


def test_a_result_group_says_which_slot_is_in_which_file(tmp_path):
    particles, passthrough = a_cs_in_two(tmp_path)
    subset(particles, tmp_path / "out.cs", [0, 4], passthrough=passthrough)
    group = yaml.safe_load((tmp_path / "out.csg").read_text())
    assert group["group"]["type"] == "particle"
    beside, main = ">out_passthrough.cs", ">out.cs"
    assert {slot: (one["metafile"], one["num_items"]) for slot, one in group["results"].items()} == {
        "blob": (beside, 2), "location": (beside, 2), "alignments3D": (main, 2),
    }  # fmt: skip
    assert group["results"]["blob"]["type"] == "particle.blob"


def test_slots_of_classes_and_components_have_the_kind_of_one(tmp_path):
    table = np.zeros(2, [("uid", "<u8"), ("blob/path", "S9"), ("blob/idx", "<u4")])
    table["uid"], table["blob/path"] = [1, 2], b"a.mrc"
    several = {"alignments_class_0/pose": np.zeros((2, 3), "<f4"), "components_mode_1/value": np.zeros(2, "<f4")}
    cs.write(tmp_path / "a.cs", cs.with_fields(table, several))
    subset(tmp_path / "a.cs", tmp_path / "b.cs", [0])
    results = yaml.safe_load((tmp_path / "b.csg").read_text())["results"]
    kinds = {slot: one["type"] for slot, one in results.items()}
    assert kinds["alignments_class_0"] == "particle.alignments3D"
    assert kinds["components_mode_1"] == "particle.components"


def test_a_cs_becomes_a_star(fixtures, tmp_path):
    before = Particles.read(fixtures / "cryosparc_P12_J24_001_particles.cs").take(np.arange(0, 2019, 100))
    after = subset(fixtures / "cryosparc_P12_J24_001_particles.cs", tmp_path / "a.star", np.arange(0, 2019, 100))
    same_physics(before, Particles.read(after))


def same_physics(one, other, tolerance=1e-9):
    np.testing.assert_allclose(other.rotation_n33, one.rotation_n33, atol=max(tolerance, 1e-9))
    np.testing.assert_allclose(other.shift_A_n2, one.shift_A_n2, atol=100 * tolerance)
    np.testing.assert_allclose(other.pixel_A_n, one.pixel_A_n, rtol=tolerance)
    for name, values in vars(one.ctf).items():
        np.testing.assert_allclose(getattr(other.ctf, name), values, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("output", "asked", "kind"),
    [
        ("a.star", None, "star"),
        ("a.cs", "cs", "cs"),
        ("a.star", "cs", "expected an end in .cs"),
        ("a.star", "cryodrgn", "expected the name of a folder"),
        ("a", "cryodrgn", "cryodrgn"),
        ("a.v2", "cryodrgn", "cryodrgn"),
        ("a", None, "expected an end in .star or .cs, or --format cryodrgn"),
        ("a.csv", "star", "expected an end in .star"),
    ],
)
def test_the_name_says_what_is_written(tmp_path, output, asked, kind):
    if kind.startswith("expected"):
        with pytest.raises(InputError, match=kind):
            kind_of(tmp_path / output, asked)
    else:
        assert kind_of(tmp_path / output, asked) == kind


# cryoDRGN's files


def some_ctf(count, rng):
    return CtfParameters(
        *rng.uniform(5000, 20000, (2, count)),
        rng.uniform(-np.pi / 2, np.pi / 2, count),
        np.full(count, 300.0),
        np.full(count, 2.7),
        np.full(count, 0.1),
        np.full(count, 0.5),
        np.ones(count),
        np.zeros(count),
    )


def test_11_poses_come_back(tmp_path):
    rng = np.random.default_rng(1)
    rotation_n33, shift_n2 = rotations.uniform(9, rng), rng.uniform(-0.1, 0.1, (9, 2))
    cryodrgn.write_poses(tmp_path / "poses.pkl", rotation_n33, shift_n2)
    for found, known in zip(cryodrgn.read_poses(tmp_path / "poses.pkl", 9), (rotation_n33, shift_n2), strict=True):
        np.testing.assert_allclose(found, known, atol=1e-7)


def test_a_ctf_comes_back(tmp_path):
    ctf = some_ctf(9, np.random.default_rng(2))
    cryodrgn.write_ctf(tmp_path / "ctf.pkl", ctf, np.linspace(1, 2, 9), 64)
    found, pixel_A_n, box = cryodrgn.read_ctf(tmp_path / "ctf.pkl", 9, None)
    assert box == 64
    np.testing.assert_allclose(pixel_A_n, np.linspace(1, 2, 9), rtol=1e-6)
    for name, values in found.items():
        np.testing.assert_allclose(values, getattr(ctf, name), rtol=1e-6)


def test_what_a_ctf_file_cannot_hold_is_said(fixtures, tmp_path, capsys):
    source = fixtures / "relion31.6opticsgroups.star"
    for scale, said in ((1, False), (0.5, True)):
        table = star.read(source)
        table["particles"]["rlnCtfScalefactor"] = star.tokens([scale] * len(table["particles"]))
        star.write(tmp_path / f"{scale}.star", table)
        chosen = of_table(tmp_path / f"{scale}.star", "cryodrgn", None, None, None)
        write(chosen, "cryodrgn", tmp_path / f"{scale}", Extras())
        assert ("no place for the CTF's scale and B factors" in capsys.readouterr().err) is said


def test_11_latents_come_back_with_one_array_or_two(tmp_path):
    z_nq, variance_nq = np.random.default_rng(3).normal(size=(9, 2)), np.full((9, 2), [1e-4, 0.0])
    cryodrgn.write_latents(tmp_path / "z.pkl", z_nq, variance_nq)
    pickles.write(tmp_path / "one.pkl", z_nq.astype(np.float32))
    for name in ("z.pkl", "one.pkl"):
        np.testing.assert_array_equal(latents.read(tmp_path / name, 9), z_nq.astype(np.float32))
    log_variance_nq = pickles.read_all(tmp_path / "z.pkl")[1]
    assert np.isfinite(log_variance_nq).all()
    np.testing.assert_allclose(np.exp(log_variance_nq[:, 0]), 1e-4, rtol=1e-6)


def test_row_numbers_come_back(tmp_path):
    cryodrgn.write_index(tmp_path / "ind.pkl", np.array([5, 2]))
    assert cryodrgn.read_index(tmp_path / "ind.pkl", 9).tolist() == [5, 2]


def test_row_numbers_from_text(tmp_path):
    (tmp_path / "ind.txt").write_text("5\n2, 3 0\n")
    assert cryodrgn.read_index(tmp_path / "ind.txt", 9).tolist() == [5, 2, 3, 0]


@pytest.mark.parametrize(
    ("text", "found"), [("1 two", '"two"'), ("", "shape (0,)"), ("-1", '"-1"'), ("1.5", '"1.5"'), ("9", "rows 9 to 9")]
)
def test_text_that_holds_no_row_numbers_is_refused(tmp_path, text, found):
    (tmp_path / "ind.txt").write_text(text)
    with pytest.raises(InputError, match=re.escape(found)):
        cryodrgn.read_index(tmp_path / "ind.txt", 9)


@pytest.mark.parametrize(
    "value",
    [np.arange(6, dtype="<f4").reshape(2, 3), np.arange(3), (np.eye(3), np.zeros((1, 2), np.float32))],
)
def test_pickles_are_read_by_python_and_by_us(tmp_path, value):
    pickles.write(tmp_path / "a.pkl", value, value)
    with open(tmp_path / "a.pkl", "rb") as file:
        by_python = [pickle.load(file), pickle.load(file)]
        assert not file.read()
    for found in (*by_python, *pickles.read_all(tmp_path / "a.pkl")):
        assert type(found) is type(value)
        parts = zip(found, value, strict=True) if isinstance(value, tuple) else [(found, value)]
        for one, other in parts:
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)


def test_the_files_for_cryodrgn_hold_the_same_physics(fixtures, tmp_path):
    source = fixtures / "relion31.6opticsgroups.star"
    chosen = of_table(source, "cryodrgn", None, None, None)
    write(chosen, "cryodrgn", tmp_path / "out", Extras())
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"particles.star", "poses.pkl", "ctf.pkl", "ind.pkl"}
    pixel_A_n = Particles.read(source).pixel_A_n
    again = Particles.read(source, poses=tmp_path / "out/poses.pkl", ctf=tmp_path / "out/ctf.pkl")
    same_physics(Particles.read(source), again, 1e-5)
    np.testing.assert_allclose(again.pixel_A_n, pixel_A_n)
    assert pickles.read(tmp_path / "out/ctf.pkl").dtype == np.float32
