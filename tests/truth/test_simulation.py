"""Simulated sets: exact images, the noise asked for, and a truth that belongs to them."""

from pathlib import Path

import gemmi
import numpy as np
import pandas as pd
import pytest
import torch

from morphem.config import from_plain, read_yaml
from morphem.data import molecules, synthetic
from morphem.data.gaussians import Gaussians
from morphem.data.images import Images
from morphem.data.particles import Particles
from morphem.data.simulation import Simulation, Truth, draw
from morphem.errors import InputError, RunError
from morphem.io import mrc
from morphem.physics import rotations
from morphem.physics.ctf import CtfParameters, ctf
from morphem.physics.lattice import Lattice


def small(**settings) -> Simulation:
    return Simulation(**{"images": 60, "box": 32, "pixel_size": 4.0, "states": 3, **settings})  # type: ignore[arg-type]


def stack(folder: Path) -> np.ndarray:
    return np.array(mrc.open_stack(folder / "particles.mrcs").images_nyx)


def made(folder: Path, config: Simulation) -> Path:
    synthetic.simulate(folder, config)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> Path:
    return made(tmp_path_factory.mktemp("clean") / "set", small(snr=float("inf"), contrast_spread=0.2))


@pytest.fixture
def blob() -> np.ndarray:
    """The conventions' worked example, through the code that makes images."""
    numbers = {"defocus_u_A_n": 15000, "defocus_v_A_n": 14500, "astigmatism_rad_n": np.radians(30), "voltage_kV_n": 300}
    numbers |= {"cs_mm_n": 2.7, "amplitude_contrast_n": 0.1, "phase_shift_rad_n": 0, "scale_n": 1, "b_factor_A2_n": 0}
    parameters = CtfParameters(**{name: np.array([float(value)]) for name, value in numbers.items()})
    rotation_133 = rotations.from_relion(np.array([[30.0, 60.0, 45.0]]))
    truth = Truth(np.array([0]), rotation_133, np.array([[2.0, -1.0]]), np.ones(1), parameters)
    atoms = Gaussians.of([np.array([[5.0, 2.0, -3.0]])], [np.ones(1)], sigma=2.0)
    return synthetic.noise_free(atoms, truth, np.array([0]), box=32, pixel_A=2.0)[0]


def test_19_the_image_of_the_worked_example_is_white(blob):
    assert np.unravel_index(blob.argmax(), blob.shape) == (13, 17)
    assert blob.max() == pytest.approx(0.012643, abs=1e-6)


WORKED_EXAMPLE = {
    (1, 0): ((-0.047367, 0.789149, -0.612372), 0.751263 - 0.541012j, -0.287525 + 0.067751j),
    (0, 1): ((-0.659740, 0.435596, 0.612372), 0.619751 + 0.687749j, -0.234105 - 0.174668j),
    (3, 4): ((-2.781060, 4.109830, 0.612372), 0.013613 + 0.144850j, -0.022829 + 0.074065j),
    (4, -3): ((1.789750, 1.849809, -4.286607), 0.042457 + 0.139156j, -0.088911 - 0.026815j),
}
"""(kx, ky) -> Rᵀk, V, X."""
STAR = """data_
loop_
_rlnImageName
_rlnAngleRot
_rlnAngleTilt
_rlnAnglePsi
_rlnOriginXAngst
_rlnOriginYAngst
_rlnDefocusU
_rlnDefocusV
_rlnDefocusAngle
_rlnVoltage
_rlnSphericalAberration
_rlnAmplitudeContrast
_rlnPhaseShift
_rlnImagePixelSize
1@blob.mrcs 30 60 45 4 -2 15000 14500 30 300 2.7 0.1 0 2
"""


def test_19_files_of_the_worked_example_give_its_numbers(blob, tmp_path):
    """The stored image, read by its table, is CTF · phase · V(Rᵀk) of the blob's map, number by number."""
    with mrc.create_stack(tmp_path / "blob.mrcs", 1, 32, 2.0) as image_ndd:
        image_ndd[0] = blob
    (tmp_path / "blob.star").write_text(STAR)
    particles, lattice = Particles.read(tmp_path / "blob.star"), Lattice.disc(32)
    sample_k = lattice.pack(torch.from_numpy(Images(particles).read(np.array([0]))))[0].numpy()
    ctf_k = ctf(particles.ctf, particles.pixel_A_n, lattice.k_k2, 32)[0].numpy()  # type: ignore[arg-type]
    phase_k = lattice.shift_phase(torch.from_numpy(particles.shift_A_n2 / 2.0))[0].numpy()
    map_zyx = Gaussians.of([np.array([[5.0, 2.0, -3.0]])], [np.ones(1)], sigma=2.0).density(0, box=32)
    assert np.unravel_index(map_zyx.argmax(), map_zyx.shape) == (13, 18, 21)
    x_v3 = np.stack(np.meshgrid(*[np.arange(-16, 16)] * 3, indexing="ij")[::-1], axis=-1).reshape(-1, 3)
    for k, (turned, volume, sample) in WORKED_EXAMPLE.items():
        place = lattice.k_k2.tolist().index(list(k))
        turned_3 = np.array(k) @ particles.rotation_n33[0, :2]
        found = np.exp(-2j * np.pi / 32 * x_v3 @ turned_3) @ map_zyx.ravel()
        assert turned_3 == pytest.approx(turned, abs=1e-5)
        assert found == pytest.approx(volume, abs=1e-5)
        assert sample_k[place] == pytest.approx(sample, abs=1e-5)
        assert ctf_k[place] * phase_k[place] * found == pytest.approx(sample, abs=1e-5)


def test_map_summed_along_z_is_the_image_at_the_identity():
    atoms = Gaussians.of([np.random.default_rng(0).normal(0, 4, (50, 3))], [np.linspace(0.5, 2, 50)], sigma=1.2)
    image_dd = atoms.project(np.array([0]), np.eye(3)[None], np.zeros((1, 2)), box=32)[0]
    np.testing.assert_allclose(atoms.density(0, box=32).sum(0), image_dd, atol=2e-6 * image_dd.max())


def test_images_are_slices_of_the_true_maps(clean):
    """X(k) = c · CTF · exp(2πi k·t/D) · V(Rᵀk) from the files alone: table, maps, contrast; the grey scales are one."""
    particles, truth = Particles.read(clean / "particles.star"), pd.read_parquet(clean / "truth.parquet")
    assert particles.ctf is not None
    lattice = Lattice.disc(32, 5)
    sample_nk = lattice.pack(torch.from_numpy(Images(particles).read(np.arange(4)))).numpy()
    ctf_nk = ctf(particles.ctf, particles.pixel_A_n, lattice.k_k2, 32).numpy()
    x_v3 = np.stack(np.meshgrid(*[np.arange(-16, 16)] * 3, indexing="ij")[::-1], axis=-1).reshape(-1, 3)
    for n, row in truth.iloc[:4].iterrows():
        map_v = mrc.read_map(clean / "vols" / f"{row.state:03.0f}.mrc")[0].ravel()
        turned_k3 = lattice.k_k2 @ particles.rotation_n33[n, :2]
        volume_k = np.exp(-2j * np.pi / 32 * turned_k3 @ x_v3.T) @ map_v
        phase_k = np.exp(2j * np.pi / 32 * lattice.k_k2 @ particles.shift_A_n2[n] / particles.pixel_A_n[n])
        expected_k = row.contrast * ctf_nk[n] * phase_k * volume_k
        np.testing.assert_allclose(sample_nk[n], expected_k, atol=1e-4 * np.abs(expected_k).max())


def test_without_ctf_images_are_projections_and_the_table_says_so(tmp_path):
    folder = made(tmp_path / "set", small(ctf=False, snr=float("inf")))
    particles = Particles.read(folder / "particles.star", no_ctf=True)
    assert particles.ctf is None
    assert "Defocus" not in (folder / "particles.star").read_text()
    assert (stack(folder).max((1, 2)) > -2 * stack(folder).min((1, 2))).all()  # density stands out, white


@pytest.mark.parametrize("junk", [0.0, 0.5])
def test_snr_is_the_one_asked_for(tmp_path, junk):
    settings = {"images": 200, "junk": junk, "contrast_spread": 0.3}
    noisy = stack(made(tmp_path / "noisy", small(snr=0.2, **settings)))
    clean = stack(made(tmp_path / "clean", small(snr=float("inf"), **settings)))
    slope = (noisy * clean).mean() / (clean**2).mean()
    particle = np.load(tmp_path / "noisy" / "labels.npy") >= 0
    measured = slope**2 * clean[particle].var() / (noisy - slope * clean).var()
    assert measured == pytest.approx(0.2, rel=0.04)


def test_stack_has_mean_0_and_deviation_1(tmp_path):
    image_ndd = stack(made(tmp_path / "set", small()))
    assert image_ndd.mean() == pytest.approx(0, abs=0.01)
    assert image_ndd.std() == pytest.approx(1, abs=0.01)


def test_coloured_noise_has_one_falling_spectrum(tmp_path):
    image_ndd = stack(made(tmp_path / "set", small(snr=1e-4, noise="coloured", images=200)))
    lattice = Lattice.disc(32)
    power_k = (lattice.pack(torch.from_numpy(image_ndd)).abs() ** 2).mean(0).numpy()
    power = np.array([power_k[lattice.shell_k == shell].mean() for shell in (1, 15)])
    assert power[0] / power[1] == pytest.approx((1 + 9 * np.exp(-8 / 32)) / (1 + 9 * np.exp(-8 * 15 / 32)), rel=0.15)
    assert image_ndd.std() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"kind": "hinge", "states": 5, "junk": 0.25, "images": 100}, [25, 15, 15, 15, 15, 15]),
        ({"kind": "assembly", "parts": 2, "images": 250}, [0, 120, 60, 40, 30]),
        ({"kind": "assembly", "parts": 3, "equal_populations": True, "images": 80}, [0] + 8 * [10]),
    ],
)
def test_states_have_their_counts(settings, expected):
    states = sum(count > 0 for count in expected[1:])
    state_n = draw(Simulation(**settings), states).state_n
    assert np.bincount(state_n + 1).tolist() == expected
    assert (np.diff(state_n) < 0).any()  # shuffled


def test_equal_seeds_give_equal_files_whatever_the_chunks(tmp_path, monkeypatch):
    config = small(noise="coloured", junk=0.1, rotation_error=2.0, images=20)
    first = files(made(tmp_path / "first", config))
    assert files(made(tmp_path / "again", config)) == first
    for chunk in (1, 7):  # 1 is where batched transforms round otherwise
        monkeypatch.setattr(synthetic, "CHUNK_PIXELS", chunk * 32**2)
        assert files(made(tmp_path / f"chunks{chunk}", config)) == first


def test_seeds_of_images_and_of_the_molecule_are_apart(tmp_path):
    base, other_images, other_molecule = (
        files(made(tmp_path / f"set{i}", small(**settings)))
        for i, settings in enumerate([{}, {"seed": 1}, {"molecule_seed": 1}])
    )
    assert base["labels.npy"] != other_images["labels.npy"] and base["labels.npy"] == other_molecule["labels.npy"]
    assert base["particles.star"] == other_molecule["particles.star"]
    assert base["vols/000.mrc"] != other_molecule["vols/000.mrc"]


def test_truth_belongs_to_the_table(clean):
    particles, truth = Particles.read(clean / "particles.star"), pd.read_parquet(clean / "truth.parquet")
    rotation_n33 = truth[[f"r{i}{j}" for i in range(3) for j in range(3)]].to_numpy().reshape(-1, 3, 3)
    np.testing.assert_allclose(particles.rotation_n33, rotation_n33, atol=1e-9)
    np.testing.assert_allclose(particles.shift_A_n2, truth[["shift_x_A", "shift_y_A"]], atol=1e-9)
    np.testing.assert_array_equal(np.load(clean / "labels.npy"), truth.state)
    np.testing.assert_array_equal(truth.motion, 120.0 * truth.state)
    assert sorted(np.unique(particles.half_n)) == [1, 2]
    assert np.abs(particles.shift_A_n2).max() <= 0.04 * 32 * 4.0
    assert from_plain(Simulation, read_yaml(clean / "simulation.yaml"), "here") == small(
        snr=float("inf"), contrast_spread=0.2
    )


def test_mask_covers_every_state(clean):
    mask_zyx, pixel_A = mrc.read_map(clean / "mask.mrc")
    for path in sorted((clean / "vols").iterdir()):
        map_zyx = mrc.read_map(path)[0]
        assert (mask_zyx * map_zyx).sum() > 0.99 * map_zyx.sum()
    assert pixel_A == 4.0 and mask_zyx.mean() < 0.5 and ((mask_zyx > 0.1) & (mask_zyx < 0.9)).any()


def test_pose_errors_are_only_in_the_table(tmp_path):
    settings = {"images": 500, "box": 16, "pixel_size": 8.0, "kind": "still", "states": None}
    wrong = made(tmp_path / "wrong", small(rotation_error=5.0, shift_error=0.5, **settings))
    right = made(tmp_path / "right", small(**settings))
    for name in ("truth.parquet", "particles.mrcs"):
        assert (wrong / name).read_bytes() == (right / name).read_bytes()
    told, true = Particles.read(wrong / "particles.star"), Particles.read(right / "particles.star")
    angle_n = np.degrees(rotations.distance_rad(told.rotation_n33, true.rotation_n33))
    assert np.sqrt((angle_n**2).mean()) == pytest.approx(5, rel=0.05)
    assert (told.shift_A_n2 - true.shift_A_n2).std() / 8 == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize("junk_kind", ["noise", "molecule"])
def test_junk_is_marked_and_shows_no_molecule(tmp_path, junk_kind):
    folder = made(tmp_path / "set", small(junk=0.25, junk_kind=junk_kind, snr=float("inf"), kind="still", states=None))
    truth = pd.read_parquet(folder / "truth.parquet")
    assert truth.junk.sum() == 15
    assert (truth.state[truth.junk] == -1).all() and truth.motion[truth.junk].isna().all()
    spread_n = stack(folder).std((1, 2))
    assert ((spread_n > 1e-3) == ~truth.junk).all() if junk_kind == "noise" else (spread_n > 0.1).all()
    assert len(list((folder / "vols").iterdir())) == 1


def test_preferred_views_have_the_density_asked_for():
    cosine_n = draw(Simulation(images=20000, view_preference=2.0), 1).rotation_n33[:, 2, 2]
    assert cosine_n.mean() == pytest.approx(1 / np.tanh(2) - 1 / 2, abs=0.01)
    assert draw(Simulation(images=20000), 1).rotation_n33.mean(0) == pytest.approx(np.zeros((3, 3)), abs=0.02)


@pytest.mark.parametrize("kind", ["hinge", "linker", "assembly", "molecules", "still"])
def test_every_kind_fits_and_makes_a_whole_folder(tmp_path, kind):
    config = Simulation(kind=kind, images=20, box=32, pixel_size=6.0)
    told = []
    synthetic.simulate(tmp_path / "set", config, progress=told.append)
    states = {"hinge": 50, "linker": 100, "assembly": 16, "molecules": 10, "still": 1}[kind]
    assert len(list((tmp_path / "set" / "vols").iterdir())) == states
    assert sum(told) == 20
    assert [f.name for f in tmp_path.iterdir()] == ["set"]
    atoms = molecules.grow(kind, 0.4 * 192, None, 4, np.random.default_rng(3))
    assert max(np.abs(state.position_A_n3).max() for state in atoms) < 0.4 * 192


def test_a_chain_walks_within_its_sphere():
    walk_n3 = molecules._walk(500, 30.0, np.random.default_rng(0))
    assert np.linalg.norm(walk_n3, axis=1).max() <= 30
    step_n = np.linalg.norm(np.diff(walk_n3, axis=0), axis=1)
    assert np.mean(np.isclose(step_n, 3.8)) > 0.6  # others were mirrored
    free_n3 = np.diff(molecules._walk(5000, 1e6, np.random.default_rng(0)), axis=0) / 3.8
    assert (free_n3[1:] * free_n3[:-1]).sum(1).mean() == pytest.approx(0.37, abs=0.03)
    assert molecules.chain(500, 30.0, np.random.default_rng(0)).mean(0) == pytest.approx(np.zeros(3), abs=1e-9)


def test_the_hinge_turns_a_bent_arm_about_x():
    first, turned = (state.position_A_n3 for state in molecules.hinge(80.0, 4, np.random.default_rng(0))[:2])
    np.testing.assert_array_equal(first[:900], turned[:900])
    x, y, z = first[900:].T
    np.testing.assert_allclose(turned[900:], np.stack([x, -z, y], 1), atol=1e-9)
    arm_3 = first[900:].mean(0) / 80 - [0.12, 0, 0]
    assert np.degrees(np.arctan2(np.hypot(arm_3[1], arm_3[2]), arm_3[0])) == pytest.approx(55)


def structure(*models: list[tuple[str, float]]) -> gemmi.Structure:
    """Atoms (element, x in Å) and a distant water in every model."""
    whole = gemmi.Structure()
    for number, atoms in enumerate(models, 1):
        model, chain = gemmi.Model(number), gemmi.Chain("A")
        for i, (element, x) in enumerate([*atoms, ("O", 1000.0)], 1):
            residue, atom = gemmi.Residue(), gemmi.Atom()
            residue.name, residue.seqid = ("HOH" if x == 1000 else "GLY"), gemmi.SeqId(i, " ")
            atom.name, atom.element, atom.pos = element, gemmi.Element(element), gemmi.Position(x, 0, 0)
            residue.add_atom(atom)
            chain.add_residue(residue)
        model.add_chain(chain)
        whole.add_model(model)
    whole.setup_entities()
    return whole


@pytest.mark.parametrize("suffix", [".pdb", ".cif"])
def test_atoms_come_from_files(tmp_path, suffix):
    path, molecule = tmp_path / f"two{suffix}", structure([("C", 10), ("S", 30)], [("C", 14), ("S", 34)])
    molecule.write_pdb(str(path)) if suffix == ".pdb" else molecule.make_mmcif_document().write_file(str(path))
    folder = made(tmp_path / "set", Simulation(atoms=(path,), images=6, box=32, pixel_size=2.0, snr=float("inf")))
    maps = [mrc.read_map(f)[0] for f in sorted((folder / "vols").iterdir())]
    centre = (6 * 12 + 16 * 32) / 22  # of both models, electrons weighed
    for map_zyx, sulphur in zip(maps, (30, 34), strict=True):
        x = 16 + (sulphur - centre) / 2
        assert np.unravel_index(map_zyx.argmax(), map_zyx.shape) == (16, 16, round(x))
        mean_x = (map_zyx.sum((0, 1)) * np.arange(32)).sum() / map_zyx.sum()
        assert mean_x == pytest.approx(16 + (6 * (sulphur - 20) + 16 * sulphur) / 44 - centre / 2, abs=1e-3)
    (own,) = {tuple(state.centre_A_3.round(6)) for state in molecules.from_files([path], common_frame=False)}
    assert own == (0, 0, 0)


def test_atoms_that_do_not_fit_are_refused(tmp_path):
    structure([("C", 0), ("C", 200)]).write_pdb(str(tmp_path / "long.pdb"))
    with pytest.raises(InputError, match="100 Å from the centre.*room for"):
        synthetic.simulate(tmp_path / "set", Simulation(atoms=(tmp_path / "long.pdb",)))
    (tmp_path / "none.pdb").write_text("nothing\n")
    for name in ("none.pdb", "missing.cif"):
        with pytest.raises(InputError, match=name):
            synthetic.simulate(tmp_path / "set", Simulation(atoms=(tmp_path / name,)))
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    "settings",
    [
        {"images": 0},
        {"box": 63},
        {"box": 8},
        {"pixel_size": 0.0},
        {"snr": 0.0},
        {"snr": float("nan")},
        {"seed": -1},
        {"states": 0},
        {"kind": "still", "states": 2},
        {"parts": 5},
        {"view_preference": -1.0},
        {"shift": 0.5},
        {"defocus": (2.0, 1.0)},
        {"contrast_spread": -0.1},
        {"rotation_error": -1.0},
        {"shift_error": -1.0},
        {"junk": 1.0},
    ],
)
def test_senseless_settings_are_refused_by_name(settings):
    flag = "--" + list(settings)[-1].replace("_", "-")
    with pytest.raises(InputError, match=f"{flag}.*expected|{flag}.*leave it out"):
        Simulation(**settings)


def test_67_an_occupied_folder_is_refused(tmp_path):
    config = small(images=4)
    made(tmp_path / "set", config)
    with pytest.raises(InputError, match="--overwrite"):
        synthetic.simulate(tmp_path / "set", config)
    synthetic.simulate(tmp_path / "set", small(images=5), overwrite=True)
    assert len(stack(tmp_path / "set")) == 5
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(InputError, match="no simulation"):
        synthetic.simulate(tmp_path / "mine", config, overwrite=True)
    assert (tmp_path / "mine" / "thesis.txt").exists()


@pytest.mark.parametrize(("failure", "said"), [(OSError(28, "No space left"), RunError), (KeyboardInterrupt(), None)])
def test_67_a_failure_leaves_nothing_behind(tmp_path, monkeypatch, failure, said):
    def fail(*_):
        raise failure

    monkeypatch.setattr(synthetic, "_write_maps", fail)
    with pytest.raises(said or type(failure)):
        synthetic.simulate(tmp_path / "set", small(images=4))
    assert list(tmp_path.iterdir()) == []
