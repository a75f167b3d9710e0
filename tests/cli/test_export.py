"""`morphem export`: back to the table that the user gave, whatever the run made of it."""

import os
import pickle
import pickletools
import shlex
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml

from morphem.data.particles import Particles
from morphem.io import cs, pickles, star
from morphem.io.mrc import read_map
from morphem.physics import rotations

TRAIN = ("--width", 16, "--layers", 1, "--latent-dim", 2, "--precision", "float32", "--threads", 1)


@pytest.fixture(scope="module")
def analysed(fitted, tmp_path_factory):
    """A run with five clusters."""
    from morphem.analysis import Analysis, analyze
    from morphem.ensemble import Ensemble

    folder = shutil.copytree(fitted, tmp_path_factory.mktemp("analysed") / "run")
    analyze(Ensemble.open(folder), Analysis(clusters=5, axes=0, umap=False))
    return folder


@pytest.fixture
def own(analysed, tmp_path):
    """Such a run of one's own."""
    return shutil.copytree(analysed, tmp_path / "run")


def rows(path):
    return star.read(path)["particles"]


def same_rows(path, original, row_n):
    """Every block is the original's, its particles those of these rows, cell by cell."""
    before, after = star.read(original), star.read(path)
    assert list(before) == list(after)
    assert after["optics"].equals(before["optics"])
    assert list(after["particles"]) == list(before["particles"])
    assert after["particles"].to_numpy().tolist() == before["particles"].iloc[row_n].to_numpy().tolist()


def rows_of(run, *labels):
    clusters = pd.read_parquet(run / "analysis" / "clusters.parquet")
    return np.flatnonzero(clusters["label"].isin(labels))


def test_43_selecting_3_returns_the_particles_behind_map_3(morphem, analysed, tiny, tmp_path):
    ended = morphem("export", analysed, "-o", tmp_path / "three.star", "--select", 3)
    assert ended.code == 0, ended.err
    row_n = rows_of(analysed, 3)
    same_rows(tmp_path / "three.star", tiny / "particles.star", row_n)
    assert f"({len(row_n)} of 150 particles)" in ended.out

    from morphem.ensemble import Ensemble

    ensemble = Ensemble.open(analysed)
    centres = [
        pd.read_parquet(analysed / "analysis/clusters.parquet")["centre"][rows_of(analysed, n)[0]] for n in (1, 3)
    ]
    map_zyx = read_map(analysed / "analysis/kmeans/map_003.mrc")[0]
    (of_1, of_3) = ensemble.decode(ensemble.z_nq[centres])
    assert centres[1] in row_n
    np.testing.assert_allclose(map_zyx, of_3, atol=1e-5 * np.abs(of_3).max())
    assert np.abs(map_zyx - of_1).max() > 1e-4 * np.abs(of_1).max()


@pytest.mark.parametrize("select", ["2,5", "5,2", "2, 5", "2,5,5"])
def test_several_clusters_in_any_order(morphem, analysed, tiny, tmp_path, select):
    assert morphem("export", analysed, "-o", tmp_path / "a.star", "--select", select).code == 0
    same_rows(tmp_path / "a.star", tiny / "particles.star", rows_of(analysed, 2, 5))


def test_all_clusters_are_all_particles(morphem, analysed, tiny, tmp_path):
    assert morphem("export", analysed, "-o", tmp_path / "a.star", "--select", "1,2,3,4,5").code == 0
    assert morphem("export", analysed, "-o", tmp_path / "b.star").code == 0
    same_rows(tmp_path / "a.star", tiny / "particles.star", np.arange(150))
    assert (tmp_path / "a.star").read_bytes() == (tmp_path / "b.star").read_bytes()


@pytest.mark.parametrize("write", [np.save, lambda path, row_n: np.savetxt(path, row_n, "%d"), pickles.write])
def test_rows_by_number(morphem, analysed, tiny, tmp_path, write):
    path = tmp_path / {"save": "rows.npy", "write": "rows.pkl"}.get(write.__name__, "rows.txt")
    write(path, np.array([7, 3, 149]))
    assert morphem("export", analysed, "-o", tmp_path / "a.star", "--ind", path).code == 0
    same_rows(tmp_path / "a.star", tiny / "particles.star", [3, 7, 149])


def test_images_of_a_region(morphem, analysed, tiny, tmp_path):
    pc1 = pd.read_parquet(analysed / "analysis/coordinates.parquet")["pc1"]
    z_1 = pd.read_parquet(analysed / "latents.parquet")["z_1"]
    labels = pd.read_parquet(analysed / "analysis/clusters.parquet")["label"]
    middle = float(pc1.median())
    where = f"pc1>{middle:.9g} and z_1 <= 1e1 and label != 2"
    ended = morphem("export", analysed, "-o", tmp_path / "a.star", "--where", where)
    assert ended.code == 0, ended.err
    row_n = np.flatnonzero((pc1 > middle) & (z_1 <= 10) & (labels != 2))
    assert 0 < len(row_n) < 75
    same_rows(tmp_path / "a.star", tiny / "particles.star", row_n)


def test_images_by_what_a_validation_says_of_them(morphem, own, tiny, tmp_path):
    junk = np.linspace(0, 1, 150)
    junk[7] = np.nan
    (own / "validation").mkdir()
    pd.DataFrame({"index": np.arange(150), "junk": junk, "word": "a"}).to_parquet(own / "validation/particles.parquet")
    assert morphem("export", own, "-o", tmp_path / "a.star", "--where", "junk<0.5").code == 0
    same_rows(tmp_path / "a.star", tiny / "particles.star", np.flatnonzero(junk < 0.5))
    assert "no column word" in morphem("export", own, "-o", tmp_path / "b.star", "--where", "word == 1").sentence
    pd.DataFrame({"junk": junk[:9]}).to_parquet(own / "validation/particles.parquet")
    assert "9 rows, expected 150" in morphem("export", own, "-o", tmp_path / "b.star", "--where", "junk<1").sentence


def test_rows_of_a_table_without_a_run(morphem, tiny, tmp_path):
    np.save(tmp_path / "rows.npy", [0, 99])
    ended = morphem("export", tiny / "particles.star", "-o", tmp_path / "a.star", "--ind", tmp_path / "rows.npy")
    assert ended.code == 0, ended.err
    same_rows(tmp_path / "a.star", tiny / "particles.star", [0, 99])


def test_rows_of_a_run_on_some_rows_map_to_the_original(morphem, tiny, tmp_path):
    """The run's image 0 is row 149 of its table."""
    np.save(tmp_path / "some.npy", np.arange(149, 49, -1))
    np.save(tmp_path / "rows.npy", [0, 1, 99])
    run = tmp_path / "run"
    assert morphem("backproject", tiny / "particles.star", "-o", run, "--ind", tmp_path / "some.npy").code == 0
    assert morphem("export", run, "-o", tmp_path / "a.star", "--ind", tmp_path / "rows.npy").code == 0
    same_rows(tmp_path / "a.star", tiny / "particles.star", [50, 148, 149])
    assert morphem("export", run, "-o", tmp_path / "b.star", "--ind", tmp_path / "rows.npy", "--poses").code == 0
    names = rows(tmp_path / "b.star")["rlnImageName"].tolist()
    assert names == rows(tiny / "particles.star")["rlnImageName"].iloc[[50, 148, 149]].tolist()
    posed = Particles.read(tmp_path / "b.star").rotation_n33
    np.testing.assert_allclose(posed, Particles.read(tiny / "particles.star").rotation_n33[[50, 148, 149]], atol=1e-6)


def test_latents_travel_with_their_particles(morphem, analysed, tiny, tmp_path):
    words = ("-o", tmp_path / "a.star", "--select", "4", "--latents")
    assert morphem("export", analysed, *words).code == 0
    before, after = rows(tiny / "particles.star"), rows(tmp_path / "a.star")
    row_n = rows_of(analysed, 4)
    assert list(after) == [*before, "morphemZ0", "morphemZ1"]
    assert after[list(before)].to_numpy().tolist() == before.iloc[row_n].to_numpy().tolist()
    z_nq = pd.read_parquet(analysed / "latents.parquet")[["z_0", "z_1"]].to_numpy()
    np.testing.assert_array_equal(after[["morphemZ0", "morphemZ1"]].to_numpy().astype(np.float32), z_nq[row_n])


def turn(run, seed=0):
    """New poses in the run's own table; (rotation_n33, shift_A_n2)."""
    particles = Particles.read(run / "particles.star")
    rng = np.random.default_rng(seed)
    rotation_n33, shift_A_n2 = rotations.uniform(len(particles), rng), rng.normal(0, 3, (len(particles), 2))
    particles.with_poses(rotation_n33, shift_A_n2).write(run / "particles.star")
    return rotation_n33, shift_A_n2


def test_09_poses_of_the_run_come_as_origins_in_angstrom(morphem, own, tiny, tmp_path):
    rotation_n33, shift_A_n2 = turn(own)
    assert morphem("export", own, "-o", tmp_path / "a.star", "--select", "1,2", "--poses").code == 0
    row_n = rows_of(own, 1, 2)
    table = rows(tmp_path / "a.star")
    np.testing.assert_allclose(table["rlnOriginXAngst"].astype(float), shift_A_n2[row_n, 0], atol=1e-6)
    again = Particles.read(tmp_path / "a.star")
    np.testing.assert_allclose(again.rotation_n33, rotation_n33[row_n], atol=1e-6)
    np.testing.assert_allclose(again.shift_A_n2, shift_A_n2[row_n], atol=1e-6)
    before = rows(tiny / "particles.star").iloc[row_n]
    others = [name for name in before if not name.startswith(("rlnAngle", "rlnOrigin"))]
    assert table[others].to_numpy().tolist() == before[others].to_numpy().tolist()


def test_poses_stay_the_tables_unless_asked_for(morphem, own, tiny, tmp_path):
    turn(own)
    assert morphem("export", own, "-o", tmp_path / "a.star").code == 0
    same_rows(tmp_path / "a.star", tiny / "particles.star", np.arange(150))


# The original table


@pytest.fixture
def own_set(particles, own):
    """A run whose table is one's own too; (run, table)."""
    config = yaml.safe_load((own / "config.yaml").read_text())
    config["source"]["particles"] = str(particles)
    (own / "config.yaml").write_text(yaml.safe_dump(config))
    return own, particles


def test_a_table_that_is_gone_is_replaced_by_the_runs_own(morphem, own_set, tmp_path, tiny):
    run, table = own_set
    table.unlink()
    ended = morphem("export", run, "-o", tmp_path / "a.star", "--select", 2)
    assert ended.code == 0, ended.err
    assert f"Notice: {table} is gone" in ended.err
    same_rows(tmp_path / "a.star", tiny / "particles.star", rows_of(run, 2))


def test_a_table_that_changed_is_refused(refused, own_set, tmp_path):
    run, table = own_set
    table.write_text(table.read_text() + "\n")
    phrases = (f"{table}: has changed since", "was fitted", "put back the file")
    refused(["export", run, "-o", tmp_path / "a.star"], phrases)
    refused(["export", run, "-o", tmp_path / "a", "--format", "cryodrgn"], phrases)


def test_a_run_of_a_former_version_is_checked_by_its_count(morphem, refused, own_set, tmp_path):
    run, table = own_set
    config = yaml.safe_load((run / "config.yaml").read_text())
    del config["sha256"]
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert morphem("export", run, "-o", tmp_path / "a.star").code == 0
    Particles.read(table).take(np.arange(149)).write(table)
    refused(["export", run, "-o", tmp_path / "b.star"], ("149 rows, but", "has 150 images"))


def test_row_numbers_that_changed_are_refused(morphem, refused, tiny, tmp_path):
    np.save(tmp_path / "some.npy", np.arange(100))
    run = tmp_path / "run"
    assert morphem("backproject", tiny / "particles.star", "-o", run, "--ind", tmp_path / "some.npy").code == 0
    np.save(tmp_path / "some.npy", np.arange(1, 101))
    refused(["export", run, "-o", tmp_path / "a.star"], ("some.npy: has changed since",))


# cryoSPARC

POSED = [
    ("uid", "<u8"), ("alignments3D/pose", "<f4", 3), ("alignments3D/shift", "<f4", 2), ("alignments3D/psize_A", "<f4"),
    ("alignments3D/split", "<u4"), ("alignments3D/alpha", "<f4"),
]  # fmt: skip
IMAGED = [
    ("uid", "<u8"), ("blob/path", "S99"), ("blob/idx", "<u4"), ("blob/shape", "<u4", 2), ("blob/psize_A", "<f4"),
    ("ctf/df1_A", "<f4"), ("ctf/df2_A", "<f4"), ("ctf/df_angle_rad", "<f4"), ("ctf/accel_kv", "<f4"),
    ("ctf/cs_mm", "<f4"), ("ctf/amp_contrast", "<f4"), ("ctf/phase_shift_rad", "<f4"), ("ctf/exp_group_id", "<u4"),
]  # fmt: skip


def a_cs(tiny, folder):
    """The tiny set as cryoSPARC would write it: poses in the .cs, images in its passthrough, which is in disorder."""
    particles = Particles.read(tiny / "particles.star")
    count, ctf = len(particles), particles.ctf
    assert ctf is not None
    main = np.zeros(count, POSED)
    main["uid"] = np.random.default_rng(0).permutation(count) + 10**12
    main["alignments3D/pose"], main["alignments3D/psize_A"] = rotations.to_cryosparc(particles.rotation_n33), 3.0
    main["alignments3D/shift"], main["alignments3D/split"] = particles.shift_A_n2 / 3, particles.half_n - 1
    other = np.zeros(count, IMAGED)
    other["uid"], other["blob/path"] = main["uid"], os.fsencode(tiny / "particles.mrcs")
    other["blob/idx"], other["blob/shape"], other["blob/psize_A"] = particles.slice_n, 32, particles.pixel_A_n
    other["ctf/df1_A"], other["ctf/df2_A"] = ctf.defocus_u_A_n, ctf.defocus_v_A_n
    other["ctf/df_angle_rad"], other["ctf/accel_kv"] = ctf.astigmatism_rad_n, ctf.voltage_kV_n
    other["ctf/cs_mm"], other["ctf/amp_contrast"] = ctf.cs_mm_n, ctf.amplitude_contrast_n
    cs.write(folder / "main.cs", main)
    cs.write(folder / "main_passthrough.cs", other[np.random.default_rng(1).permutation(count)])
    return folder / "main.cs", folder / "main_passthrough.cs"


@pytest.fixture
def cs_run(morphem, tiny, tmp_path):
    """A run on a .cs with a passthrough; (run, .cs, passthrough)."""
    particles, passthrough = a_cs(tiny, tmp_path)
    ended = morphem("backproject", particles, "-o", tmp_path / "run", "--passthrough", passthrough, "--threads", 1)
    assert ended.code == 0, ended.err
    np.save(tmp_path / "rows.npy", np.arange(10, 40))
    return tmp_path / "run", particles, passthrough


def test_07_a_cs_and_its_passthrough_are_cut_alike(morphem, cs_run, tmp_path):
    run, particles, passthrough = cs_run
    ended = morphem("export", run, "-o", tmp_path / "out.cs", "--ind", tmp_path / "rows.npy")
    assert ended.code == 0, ended.err
    assert "Import Result Group" in ended.out
    assert f"Path to the .csg file: {tmp_path / 'out.csg'}" in ended.out
    kept, beside = np.load(tmp_path / "out.cs"), np.load(tmp_path / "out_passthrough.cs")
    assert kept.tobytes() == np.load(particles)[10:40].tobytes()
    before = np.load(passthrough)
    assert beside.dtype == before.dtype
    assert sorted(beside["uid"]) == sorted(kept["uid"])
    assert set(map(bytes, beside)) <= set(map(bytes, before))


@pytest.mark.parametrize("which", [1, 2])
def test_a_cs_that_is_gone_is_missed(refused, cs_run, tmp_path, which):
    cs_run[which].unlink()
    refused(["export", cs_run[0], "-o", tmp_path / "out.cs"], (f"{cs_run[which]}: is gone since", "put back the file"))


def test_07_poses_of_a_run_go_to_the_pixel_of_the_alignments(morphem, cs_run, tmp_path):
    run, particles, passthrough = cs_run
    rotation_n33, shift_A_n2 = turn(run)
    words = ("export", run, "-o", tmp_path / "out.cs", "--ind", tmp_path / "rows.npy", "--poses")
    assert morphem(*words).code == 0
    again = Particles.read(tmp_path / "out.cs", passthrough=tmp_path / "out_passthrough.cs")
    np.testing.assert_allclose(again.rotation_n33, rotation_n33[10:40], atol=1e-6)
    np.testing.assert_allclose(again.shift_A_n2, shift_A_n2[10:40], atol=1e-5)
    before, after = np.load(particles)[10:40], np.load(tmp_path / "out.cs")
    assert after.dtype == before.dtype
    changed = [name for name in before.dtype.names if not np.array_equal(before[name], after[name])]
    assert changed == ["alignments3D/pose", "alignments3D/shift"]


def test_poses_that_the_passthrough_holds_change_there(morphem, cs_run, tmp_path):
    """Where cryoSPARC's two files are given the other way round."""
    _, posed, imaged = cs_run
    run = tmp_path / "other_run"
    assert morphem("backproject", imaged, "-o", run, "--passthrough", posed, "--threads", 1).code == 0
    rotation_n33, _ = turn(run)
    assert morphem("export", run, "-o", tmp_path / "out.cs", "--poses").code == 0
    assert np.load(tmp_path / "out.cs").tobytes() == np.load(imaged).tobytes()
    again = Particles.read(tmp_path / "out.cs", passthrough=tmp_path / "out_passthrough.cs")
    np.testing.assert_allclose(again.rotation_n33, rotation_n33, atol=1e-6)


def test_a_star_of_a_cs_run_finds_its_images(morphem, cs_run, tmp_path, tiny):
    run, *_ = cs_run
    assert morphem("export", run, "-o", tmp_path / "a.star", "--ind", tmp_path / "rows.npy").code == 0
    again, before = Particles.read(tmp_path / "a.star"), Particles.read(tiny / "particles.star")
    np.testing.assert_array_equal(again.slice_n, before.slice_n[10:40])
    np.testing.assert_allclose(again.rotation_n33, before.rotation_n33[10:40], atol=1e-6)
    assert again.stacks == (tiny / "particles.mrcs",)


def test_latents_travel_in_a_cs_too(morphem, tiny, tmp_path):
    particles, passthrough = a_cs(tiny, tmp_path)
    words = ("fit", "vae", particles, "-o", tmp_path / "run", "--passthrough", passthrough, "--epochs", 1)
    assert morphem(*words, *TRAIN).code == 0
    assert morphem("export", tmp_path / "run", "-o", tmp_path / "out.cs", "--latents").code == 0
    after = np.load(tmp_path / "out.cs")
    z_nq = pd.read_parquet(tmp_path / "run/latents.parquet")[["z_0", "z_1"]].to_numpy(np.float32)
    np.testing.assert_array_equal(after["morphem/z"], z_nq)
    assert "morphem" not in yaml.safe_load((tmp_path / "out.csg").read_text())["results"]


# cryoDRGN


def is_pickle(path):
    try:
        return bool(list(pickletools.genops(path.read_bytes())))
    except ValueError:
        return path.suffix == ".pkl"


def test_62_pickles_are_written_only_where_they_are_asked_for(morphem, own, tmp_path):
    assert [path for path in own.rglob("*") if path.is_file() and is_pickle(path)] == []
    assert morphem("export", own, "-o", tmp_path / "a.star", "--latents", "--poses").code == 0
    assert not list(tmp_path.rglob("*.pkl"))
    assert morphem("export", own, "-o", tmp_path / "out", "--format", "cryodrgn").code == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"particles.star", "poses.pkl", "ctf.pkl", "ind.pkl", "z.pkl", "labels.pkl"}


def loaded(path, count=1):
    with open(path, "rb") as file:
        return [pickle.load(file) for _ in range(count)]


def test_the_files_for_cryodrgn(morphem, own, tiny, tmp_path):
    rotation_n33, shift_A_n2 = turn(own)
    ended = morphem("export", own, "-o", tmp_path / "out", "--select", "1,4", "--format", "cryodrgn")
    assert ended.code == 0, ended.err
    row_n = rows_of(own, 1, 4)
    ((rotation_m33, shift_m2),) = loaded(tmp_path / "out/poses.pkl")
    assert (rotation_m33.dtype, shift_m2.dtype) == (np.float32, np.float32)
    np.testing.assert_allclose(rotation_m33, rotation_n33[row_n], atol=1e-6)
    np.testing.assert_allclose(shift_m2 * 32 * 6.0, shift_A_n2[row_n], atol=1e-4)
    (ctf_m9,) = loaded(tmp_path / "out/ctf.pkl")
    assert (ctf_m9.shape, ctf_m9.dtype) == ((len(row_n), 9), np.float32)
    np.testing.assert_allclose(ctf_m9[:, [0, 1, 5, 6]], [[32, 6, 300, 2.7]] * len(row_n), rtol=1e-6)
    z_mq, log_variance_mq = loaded(tmp_path / "out/z.pkl", 2)
    latents = pd.read_parquet(own / "latents.parquet").iloc[row_n]
    np.testing.assert_array_equal(z_mq, latents[["z_0", "z_1"]].to_numpy(np.float32))
    np.testing.assert_allclose(np.exp(log_variance_mq), latents[["cov_0_0", "cov_1_1"]], rtol=1e-5)
    assert loaded(tmp_path / "out/ind.pkl")[0].tolist() == row_n.tolist()
    labels = pd.read_parquet(own / "analysis/clusters.parquet")["label"].to_numpy()[row_n]
    assert (loaded(tmp_path / "out/labels.pkl")[0] + 1).tolist() == labels.tolist()
    named = Particles.read(tmp_path / "out/particles.star", datadir=tiny)
    assert named.stacks[0].exists()
    np.testing.assert_array_equal(named.slice_n, row_n)


def test_a_run_without_latent_or_clusters_is_exported_without(morphem, tiny, tmp_path):
    assert morphem("backproject", tiny / "particles.star", "-o", tmp_path / "run").code == 0
    assert morphem("export", tmp_path / "run", "-o", tmp_path / "out", "--format", "cryodrgn").code == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"particles.star", "poses.pkl", "ctf.pkl", "ind.pkl"}


def test_images_without_a_table_are_exported_as_one(morphem, fit, tiny, tmp_path):
    """A stack with cryoDRGN's pickles has no table of its own: the run's is used."""
    chosen = morphem("export", tiny / "particles.star", "-o", tmp_path / "files", "--format", "cryodrgn")
    assert chosen.code == 0, chosen.err
    files = ("--poses", tmp_path / "files/poses.pkl", "--ctf", tmp_path / "files/ctf.pkl")
    run = tmp_path / "run"
    assert morphem("backproject", tiny / "particles.mrcs", "-o", run, *files).code == 0
    assert morphem("export", run, "-o", tmp_path / "a.star").code == 0
    again, before = Particles.read(tmp_path / "a.star"), Particles.read(tiny / "particles.star")
    assert again.stacks == (tiny / "particles.mrcs",)
    np.testing.assert_allclose(again.rotation_n33, before.rotation_n33, atol=1e-5)
    np.testing.assert_allclose(again.shift_A_n2, before.shift_A_n2, atol=1e-4)


# What to do next


def continued(text):
    """The lines of a text, continued ones joined, as words."""
    return [shlex.split(line) for line in text.replace("\\\n", " ").splitlines() if line.startswith("  ")]


def test_the_next_commands_name_files_that_are_there(morphem, analysed, tiny, tmp_path):
    ended = morphem("export", analysed, "-o", tmp_path / "it's.star", "--select", 1)
    assert f"in {tiny}:" in ended.out
    made, refine, *_ = continued(ended.out.partition("Next in cryoSPARC")[0])
    assert made == ["mkdir", "-p", "Refine3D/it's"]
    values = dict(zip(refine, refine[1:], strict=False))
    assert refine[:4] == ["mpirun", "-n", "3", "relion_refine_mpi"]
    assert values["--i"] == str(tmp_path / "it's.star")
    assert values["--ref"] == str(analysed / "maps/consensus.mrc")
    assert values["--o"] == "Refine3D/it's/run"
    assert "--ctf" in refine
    assert 0 < float(values["--particle_diameter"]) < 32 * 6
    assert f"Particle meta path: {tmp_path / chr(105)}t's.star" in ended.out
    assert f"Particle data path: {tiny}" in ended.out


def test_relion_makes_a_reference_where_there_is_none(morphem, tiny, tmp_path):
    ended = morphem("export", tiny / "particles.star", "-o", tmp_path / "a.star")
    _, made, refine, *_ = continued(ended.out.partition("Next in cryoSPARC")[0])
    assert made[0] == "relion_reconstruct"
    assert made[made.index("--o") + 1] == refine[refine.index("--ref") + 1]


# Refusals

REFUSED = {
    "no such label": ("export {run} -o {out}.star --select 6", "--select 6: ", "has clusters 1 to 5"),
    "label 0": ("export {run} -o {out}.star --select 1,0", "--select 0: ", "has clusters 1 to 5"),
    "no label": ("export {run} -o {out}.star --select ,", '--select ","', "as in 3,7"),
    "words for labels": ("export {run} -o {out}.star --select one", '--select "one"', "as in 3,7"),
    "clusters and rows": ("export {run} -o {out}.star --select 1 --ind {rows}", "--select --ind:", "give one of them"),
    "a region and clusters": ("export {run} -o {out}.star --select 1 --where pc1<0", "--select --where:", "give one"),
    "an unknown column": ("export {run} -o {out}.star --where pc9<0", "no column pc9; it has label, centre, pc1, pc2"),
    "no comparison": ("export {run} -o {out}.star --where pc1", '"pc1" found', "as in"),
    "code": ("export {run} -o {out}.star --where @pc1.sum()<0", '"@pc1.sum()<0" found', "as in"),
    "no number": ("export {run} -o {out}.star --where pc1<pc2", '"pc1<pc2" found', "as in"),
    "nobody": ("export {run} -o {out}.star --where pc1>1e9", "no image", "give wider limits"),
    "a region of a table": ("export {table} -o {out}.star --where pc1>0", "--where: ", "is no run's folder"),
    "missing rows": ("export {run} -o {out}.star --ind {out}.npy", "out.npy: no such file"),
    "rows beyond": ("export {run} -o {out}.star --ind {rows}", "rows 0 to 150, expected 0 to 149"),
    "rows beyond a table": ("export {table} -o {out}.star --ind {rows}", "rows 0 to 150, expected 0 to 149"),
    "no rows": ("export {run} -o {out}.star --ind {empty}", "empty.npy: ", "give a list of at least one"),
    "no output": ("export {run}", "--output"),
    "onto a table": ("export {run} -o {run}/particles.star --overwrite", "is what is to be exported"),
    "onto its table": ("export {table} -o {table} --overwrite", "particles.star: is what is to be exported"),
    "onto another": ("export {run} -o {table}", "particles.star: exists already", "--overwrite"),
    "into a file": ("export {run} -o {table}/a.star", "particles.star: is a file"),
    "folder onto a file": ("export {run} -o {rows} --format cryodrgn --overwrite", "rows.npy: is a file"),
    "onto a folder": ("export {run} -o {table.parent} --format cryodrgn --overwrite", "labels.npy, which no export"),
    "onto a run": ("export {run} -o {run} --format cryodrgn --overwrite", "run: a folder that holds"),
    "cs of a star": ("export {table} -o {out}.cs", "particles.star: has none of cryoSPARC's fields"),
    "cs of a run on a star": ("export {run} -o {out}.cs", "particles.star: has none of cryoSPARC's fields"),
    "unknown end": ("export {run} -o {out}.csv", "out.csv: expected an end in .star or .cs"),
    "two kinds": ("export {run} -o {out}.star --format cs", "out.star: expected an end in .cs"),
    "unknown kind": ("export {run} -o {out}.star --format str", '"str"', 'Did you mean "star"?'),
    "no run, no table": ("export {rows} -o {out}.star", "rows.npy: is neither the folder of a run nor a .star or .cs"),
    "no run": ("export {table.parent} -o {out}.star", "set: is not a finished run"),
    "nothing": ("export {out} -o {out}.star", "out: is neither the folder of a run"),
    "clusters of a table": ("export {table} -o {out}.star --select 1", "--select: ", "is no run's folder"),
    "poses of a table": ("export {table} -o {out}.star --poses", "--poses: ", "is no run's folder"),
    "latents of a table": ("export {table} -o {out}.star --latents", "--latents: ", "is no run's folder"),
    "poses twice": ("export {run} -o {out} --format cryodrgn --poses", "--format cryodrgn: holds poses", "leave out"),
    "passthrough of a run": ("export {run} -o {out}.star --passthrough {rows}", "--passthrough: ", "knows its own"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_65_wrong_words_are_refused(refused, particles, own, tmp_path, case):
    np.save(tmp_path / "rows.npy", np.arange(151))
    np.save(tmp_path / "empty.npy", np.arange(0))
    words, *phrases = REFUSED[case]
    given = {"run": own, "table": particles, "out": tmp_path / "out"}
    given |= {"rows": tmp_path / "rows.npy", "empty": tmp_path / "empty.npy"}
    refused([word.format(**given) for word in words.split()], phrases)


def test_clusters_before_analyze_are_refused(refused, run, tmp_path):
    words = ["export", run, "-o", tmp_path / "a.star", "--select", 1]
    refused(words, ("run: has no clusters", f"run `morphem analyze {run}` first"))


def test_43_clusters_of_other_latents_are_refused(refused, own, tmp_path):
    """The run went on after it was analysed: its labels are those of maps that are no more."""
    table = pd.read_parquet(own / "latents.parquet")
    table["z_0"] += 0.5
    table.to_parquet(own / "latents.parquet")
    refused(["export", own, "-o", tmp_path / "a.star", "--select", 1], ("analysis: is of other latents", "again"))


def test_latents_that_a_run_has_not_are_refused(morphem, refused, tiny, tmp_path):
    assert morphem("backproject", tiny / "particles.star", "-o", tmp_path / "run").code == 0
    refused(["export", tmp_path / "run", "-o", tmp_path / "a.star", "--latents"], ("--latents: ", "has no latent"))


def test_an_export_is_replaced_when_asked(morphem, own, tmp_path):
    for words in ((tmp_path / "a.star",), (tmp_path / "out", "--format", "cryodrgn")):
        assert morphem("export", own, "-o", *words).code == 0
        assert morphem("export", own, "-o", *words, "--select", 1).code == 2
        assert morphem("export", own, "-o", *words, "--select", 1, "--overwrite").code == 0
    count = len(rows_of(own, 1))
    assert len(rows(tmp_path / "a.star")) == len(rows(tmp_path / "out/particles.star")) == count


@pytest.mark.parametrize("which", ["out.cs", "out_passthrough.cs"])
def test_67_a_full_disk_leaves_nothing(morphem, cs_run, tmp_path, monkeypatch, which):
    """Of several files none is left where one cannot be written."""
    before, save = set(tmp_path.rglob("*")), np.save

    def full(file, *rest, **options):
        if f".{which}." in file.name:
            raise OSError(28, "No space left on device")
        save(file, *rest, **options)

    monkeypatch.setattr(np, "save", full)
    ended = morphem("export", cs_run[0], "-o", tmp_path / "out.cs")
    assert ended.code == 1
    assert "No space left" in ended.sentence
    assert set(tmp_path.rglob("*")) == before
