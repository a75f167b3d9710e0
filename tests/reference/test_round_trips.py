"""What is exported, read by the programs that it is exported for. Each is skipped where it is not installed."""

import os
import pickle
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.lib.recfunctions import repack_fields

from morphem.analysis.selection import of_run
from morphem.cli.next_commands import next_commands
from morphem.data.export import Extras, of_table, write
from morphem.io import cs, star
from morphem.io.mrc import read_map


def program(name: str, variable: str = "", folder: str = "") -> str:
    """Where a program is: beside what an environment variable names, or on the path."""
    place = Path(os.environ.get(variable, "")) / folder / name
    found = str(place) if variable in os.environ and place.is_file() else shutil.which(name)
    if not found:
        pytest.skip(f"{name} is not installed here")
    return found


def ran(*words, cwd=None) -> str:
    """What a program said; it must end well."""
    allowed = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    ended = subprocess.run(
        [str(word) for word in words], cwd=cwd, capture_output=True, text=True, env=os.environ | allowed
    )
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-2000:]
    return ended.stdout + ended.stderr


def correlation(one_zyx, other_zyx):
    return np.corrcoef(one_zyx.ravel(), other_zyx.ravel())[0, 1]


@pytest.fixture(scope="module")
def simulated(tmp_path_factory) -> Path:
    """A truth folder of 400 images with little noise."""
    from morphem.data.simulation import Simulation
    from morphem.data.synthetic import simulate

    folder = tmp_path_factory.mktemp("simulated") / "hinge"
    simulate(folder, Simulation(images=400, box=32, pixel_size=6.0, snr=2.0, states=4))
    return folder


@pytest.fixture(scope="module")
def mean_zyx(simulated) -> np.ndarray:
    """The mean of the true maps, by the number of their images."""
    label_n = np.load(simulated / "labels.npy")
    maps = [
        read_map(path)[0] * (label_n == state).sum()
        for state, path in enumerate(sorted((simulated / "vols").iterdir()))
    ]
    return np.sum(maps, axis=0) / len(label_n)


@pytest.fixture(scope="module")
def ensemble(simulated):
    """A run with a latent of two and five clusters."""
    from morphem import methods
    from morphem.analysis import Analysis, analyze
    from morphem.data.dataset import Dataset, Source
    from morphem.methods import vae
    from morphem.run import Run

    settings = vae.Config(latent_dim=2, epochs=1, width=16, layers=1)
    dataset = Dataset.open(Source(simulated / "particles.star"))
    fitted = methods.fit("vae", dataset, settings, Run(simulated.parent / "run"))
    analyze(fitted, Analysis(clusters=5, axes=0, umap=False))
    return fitted


@pytest.fixture(scope="module")
def folder(ensemble) -> Path:
    """All particles for cryoDRGN."""
    path = ensemble.folder.parent / "drgn"
    write(of_run(ensemble, "cryodrgn", Extras()), "cryodrgn", path, Extras())
    return path


# RELION


def test_relion_reads_and_keeps_a_subset(ensemble, tmp_path):
    """Its own selection of our file keeps every row and every column, ours too."""
    handler = program("relion_star_handler")
    extras = Extras(poses=True, latents=True)
    write(of_run(ensemble, "star", extras, [2, 4]), "star", tmp_path / "a.star", extras)
    said = ran(
        handler, "--i", tmp_path / "a.star", "--o", tmp_path / "b.star", "--select", "rlnDefocusU", "--minval", 0
    )
    assert "unknown label: morphemZ0" in said
    before, after = (star.read(tmp_path / name)["particles"] for name in ("a.star", "b.star"))
    assert set(after) == set(before)
    assert after["rlnImageName"].tolist() == before["rlnImageName"].tolist()
    for name in set(before) - {"rlnImageName", "rlnMicrographName"}:
        np.testing.assert_allclose(after[name].astype(float), before[name].astype(float), rtol=1e-5, atol=1e-5)


def test_relion_joins_two_subsets_to_the_whole(ensemble, simulated, tmp_path):
    handler = program("relion_star_handler")
    for name, labels in (("a", [1, 3]), ("b", [2, 4, 5])):
        write(of_run(ensemble, "star", Extras(), labels), "star", tmp_path / f"{name}.star", Extras())
    both = f"{tmp_path / 'a.star'} {tmp_path / 'b.star'}"
    out = tmp_path / "c.star"
    said = ran(handler, "--combine", "--i", both, "--o", out, "--check_duplicates", "rlnImageName")
    names = star.read(out)["particles"]["rlnImageName"].tolist()
    assert sorted(names) == sorted(star.read(simulated / "particles.star")["particles"]["rlnImageName"])
    assert "duplicate" not in said.lower() or "0 duplicate" in said.lower()


@pytest.mark.parametrize("name", ["relion31.star", "relion31.6opticsgroups.star", "relion31.v2.star"])
def test_relion_reads_subsets_of_its_own_tables(fixtures, tmp_path, name):
    handler = program("relion_star_handler")
    np.save(tmp_path / "rows.npy", [0, 2, 4])
    write(of_table(fixtures / name, "star", tmp_path / "rows.npy", None, None), "star", tmp_path / "a.star", Extras())
    ran(handler, "--i", tmp_path / "a.star", "--o", tmp_path / "b.star", "--select", "rlnDefocusU", "--minval", 0)
    kept = star.read(fixtures / name)["particles"]["rlnImageName"].iloc[[0, 2, 4]].tolist()
    assert star.read(tmp_path / "b.star")["particles"]["rlnImageName"].tolist() == kept


def test_relion_reconstructs_the_mean_from_exported_poses(ensemble, simulated, mean_zyx, tmp_path):
    reconstruct = program("relion_reconstruct")
    extras = Extras(poses=True)
    write(of_run(ensemble, "star", extras), "star", tmp_path / "a.star", extras)
    ran(reconstruct, "--i", tmp_path / "a.star", "--o", tmp_path / "map.mrc", "--ctf", cwd=simulated)
    map_zyx = read_map(tmp_path / "map.mrc")[0]
    assert correlation(map_zyx, mean_zyx) > 0.9
    assert correlation(map_zyx[::-1], mean_zyx) < correlation(map_zyx, mean_zyx) - 0.1


@pytest.mark.slow
def test_the_commands_shown_for_relion_run(ensemble, simulated, tmp_path):
    """One iteration of them, with as many processes as there may be."""
    program("mpirun"), program("relion_refine_mpi")
    np.save(tmp_path / "rows.npy", np.arange(0, 400, 4))
    write(of_run(ensemble, "star", Extras(), None, tmp_path / "rows.npy"), "star", tmp_path / "a.star", Extras())
    text = next_commands(tmp_path / "a.star", 6.0, 32, start=simulated).partition("Next in cryoSPARC")[0]
    project = tmp_path / "project"
    project.mkdir()
    (project / "particles.mrcs").symlink_to(simulated / "particles.mrcs")
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.startswith("  ")]
    for words in map(shlex.split, lines):
        ran(
            *(["mpirun", "--oversubscribe", *words[1:], "--auto_iter_max", "1"] if words[0] == "mpirun" else words),
            cwd=project,
        )
    assert (project / "Refine3D/a/run_it001_half2_class001.mrc").is_file()


# cryoDRGN


def cryodrgn(name: str = "cryodrgn") -> str:
    return program(name, "CRYODRGN_BIN")


@pytest.mark.slow
def test_cryodrgn_back_projects_to_the_mean(simulated, mean_zyx, folder, tmp_path):
    files = ("--datadir", simulated, "--poses", folder / "poses.pkl", "--ctf", folder / "ctf.pkl")
    ran(cryodrgn(), "backproject_voxel", folder / "particles.star", *files, "-o", tmp_path / "out")
    map_zyx = read_map(tmp_path / "out" / "backproject.mrc")[0]
    assert correlation(map_zyx, mean_zyx) > 0.9
    assert correlation(map_zyx[::-1], mean_zyx) < correlation(map_zyx, mean_zyx) - 0.1


@pytest.mark.slow
def test_cryodrgn_analyzes_our_latents(ensemble, simulated, folder, tmp_path):
    """In a folder that it trained for an epoch, whose latents are replaced by ours."""
    files = ("--datadir", simulated, "--poses", folder / "poses.pkl", "--ctf", folder / "ctf.pkl")
    small = ("--zdim", 2, "-n", 1, "--enc-dim", 16, "--enc-layers", 1, "--dec-dim", 16, "--dec-layers", 1)
    work = tmp_path / "work"
    ran(cryodrgn(), "train_vae", folder / "particles.star", *files, *small, "--no-analysis", "-o", work)
    theirs, ours = (pickled(path) for path in (work / "z.1.pkl", folder / "z.pkl"))
    assert [(z_nq.shape, z_nq.dtype) for z_nq in theirs] == [(z_nq.shape, z_nq.dtype) for z_nq in ours]
    shutil.copy(folder / "z.pkl", work / "z.1.pkl")
    ran(cryodrgn(), "analyze", work, 1, "--skip-umap", "--ksample", 3, "--pc", 1, "--n-per-pc", 3)
    centre_kq = np.loadtxt(work / "analyze.1/kmeans3/centers.txt")
    row_k = np.loadtxt(work / "analyze.1/kmeans3/centers_ind.txt").astype(int)
    np.testing.assert_allclose(centre_kq, ensemble.z_nq[row_k], rtol=1e-5)
    np.savetxt(tmp_path / "z.txt", ensemble.z_nq[:2])
    words = ("-c", work / "config.yaml", "--zfile", tmp_path / "z.txt", "-o", tmp_path / "vols")
    ran(cryodrgn(), "eval_vol", work / "weights.1.pkl", *words)
    assert len(list((tmp_path / "vols").glob("*.mrc"))) == 2


def pickled(path):
    with open(path, "rb") as file:
        return [pickle.load(file), pickle.load(file)]


@pytest.mark.slow
def test_43_cryodrgn_selects_the_same_cluster_3(ensemble, folder, tmp_path):
    utils, out = cryodrgn("cryodrgn_utils"), tmp_path / "three.pkl"
    ran(utils, "select_clusters", folder / "labels.pkl", "--sel", 3, "-o", out)
    with open(out, "rb") as file:
        selected = np.asarray(pickle.load(file))
    assert selected.tolist() == of_run(ensemble, "star", Extras(), [3]).row_m.tolist()


# cryoSPARC

READ = """
import sys, numpy
from cryosparc.dataset import Dataset
table, beside = (Dataset.load(path) for path in sys.argv[1:3])
joined = Dataset.innerjoin(table, beside)
print(len(table), len(beside), len(joined), ",".join(joined.fields()))
numpy.save(sys.argv[3], numpy.array(joined["uid"]))
table.save(sys.argv[4], format=1)
"""


def test_07_cryosparc_tools_join_a_subset_and_its_passthrough(fixtures, tmp_path):
    """A table of cryoSPARC's, cut in two by its fields, subset, loaded and joined."""
    if "MORPHEM_CRYOSPARC_PYTHON" not in os.environ:
        pytest.skip("MORPHEM_CRYOSPARC_PYTHON is not set: no Python with cryosparc-tools here")
    whole = np.load(fixtures / "cryosparc_P12_J24_001_particles.cs")
    posed = ["uid", *(name for name in whole.dtype.names if name.startswith("alignments3D"))]
    others = [name for name in whole.dtype.names if name not in posed[1:]]
    cs.write(tmp_path / "p.cs", packed(whole[posed]))
    cs.write(tmp_path / "q.cs", packed(whole[others])[::-1])
    np.save(tmp_path / "rows.npy", np.arange(0, 2019, 7))
    chosen = of_table(tmp_path / "p.cs", "cs", tmp_path / "rows.npy", None, tmp_path / "q.cs")
    write(chosen, "cs", tmp_path / "out.cs", Extras())
    files = (tmp_path / "out.cs", tmp_path / "out_passthrough.cs", tmp_path / "uid.npy", tmp_path / "again.cs")
    said = ran(os.environ["MORPHEM_CRYOSPARC_PYTHON"], "-c", READ, *files)
    *counts, fields = said.split()[-4:]
    assert counts == [str(len(whole[::7]))] * 3
    assert set(fields.split(",")) == set(whole.dtype.names)
    assert sorted(np.load(tmp_path / "uid.npy")) == sorted(whole["uid"][::7])
    again = np.load(tmp_path / "again.cs")
    assert all(np.array_equal(again[name], whole[name][::7]) for name in posed)


def packed(table: np.ndarray) -> np.ndarray:
    """A view of some fields as a table of its own."""
    return repack_fields(table)
