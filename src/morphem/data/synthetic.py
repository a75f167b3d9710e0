"""Simulated particles whose truth is known: a folder with what a user would have, and beside it what is true.

Axes: n images, b images of a chunk, s states, y x pixels (d each), h = d/2 + 1 columns of a half spectrum.
A stored image is y = −c · CTF · Σ_z V(R) shifted by −t, plus noise, scaled: particles are white.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import fft

from morphem.config import to_plain, write_yaml
from morphem.data import molecules
from morphem.data.gaussians import Gaussians
from morphem.data.particles import Particles
from morphem.data.simulation import Simulation, Truth, draw, tabulated_ctf, tabulated_poses
from morphem.errors import InputError
from morphem.io import mrc
from morphem.io.files import refuse_file, replacing_folder
from morphem.physics import masks
from morphem.physics.ctf import ctf

SIGMA_PX = 1.2
EXTENT = 0.40  # of the box
PER_MICROGRAPH = 100
CHUNK_PIXELS = 2**20  # of the images held at once; the result does not depend on it
SETTINGS = "simulation.yaml"
WRITTEN = (SETTINGS, "particles.mrcs", "particles.star", "labels.npy", "truth.parquet", "vols", "mask.mrc")


def simulate(
    folder: Path, config: Simulation, progress: Callable[[int], None] | None = None, overwrite: bool = False
) -> None:
    """Write a truth folder: particles.mrcs, particles.star, labels.npy, truth.parquet, vols, mask.mrc, simulation.yaml.

    Maps have the images' grey scale: Σ_z of a map is the particle before contrast, sign, CTF and noise.
    `progress` is told how many images more are done. Nothing is left behind by a failure.
    Errors: InputError where the folder holds something already (with `overwrite`: something else than a simulation),
    or atoms cannot be read or do not fit in the box; RunError when the disk is full.
    """
    states = _states(config)
    atoms = _gaussians(config, [*states, _junk(config, states)])
    truth = draw(config, len(states))
    _refuse_occupied(Path(folder), overwrite)
    with replacing_folder(folder) as aside:
        (aside / "vols").mkdir()
        grey = _write_images(aside / "particles.mrcs", config, truth, atoms, progress or (lambda count: None))
        _write_maps(aside, config, atoms, grey)
        _particles(config, truth, aside / "particles.mrcs").write(aside / "particles.star")
        np.save(aside / "labels.npy", truth.state_n)
        _truth_table(config, truth, states).to_parquet(aside / "truth.parquet")
        write_yaml(aside / SETTINGS, to_plain(config))


def _states(config: Simulation) -> list[molecules.State]:
    if config.atoms:
        states = molecules.from_files(config.atoms, common_frame=config.kind != "molecules")
        _refuse_large(config, states)
        return states
    rng = np.random.default_rng(config.molecule_seed)
    return molecules.grow(config.kind, EXTENT * config.box * config.pixel_size, config.states, config.parts, rng)


def _refuse_large(config: Simulation, states: list[molecules.State]) -> None:
    """Whatever the rotation and the shift, an atom keeps 3σ from the border of the box."""
    room_A = config.pixel_size * ((0.5 - config.shift) * config.box - 3 * SIGMA_PX)
    largest_A = max(np.linalg.norm(state.position_A_n3, axis=1).max() for state in states)
    if largest_A > room_A:
        raise InputError(
            f"--atoms: an atom lies {largest_A:.0f} Å from the centre, but a box of {config.box} pixels of"
            f" {config.pixel_size:g} Å has room for {room_A:.0f} Å; take a larger --box or --pixel-size"
        )


def _junk(config: Simulation, states: list[molecules.State]) -> molecules.State:
    """What an image of state −1 shows: no atoms, or another molecule of the same mass."""
    if config.junk_kind == "noise":
        return molecules.State(np.empty((0, 3)), np.empty(0))
    rng = np.random.default_rng([config.molecule_seed, *b"junk"])
    (other,) = molecules.unrelated(EXTENT * config.box * config.pixel_size, 1, rng)
    mass = np.mean([state.weight_n.sum() for state in states])
    return molecules.State(other.position_A_n3, other.weight_n * mass / other.weight_n.sum())


def _gaussians(config: Simulation, states: list[molecules.State]) -> Gaussians:
    positions = [state.position_A_n3 / config.pixel_size for state in states]
    return Gaussians.of(positions, [state.weight_n for state in states], SIGMA_PX)


def _write_images(
    path: Path, config: Simulation, truth: Truth, atoms: Gaussians, progress: Callable[[int], None]
) -> float:
    """Write the stack and return the grey level of a unit of density.

    The first pass writes noise-free images and sums their moments, the second adds noise and scales:
    σ² = variance of noise-free particles / SNR; all is divided by √(variance of noise-free images + σ²).
    """
    moment_n2 = np.empty((config.images, 2))
    with mrc.create_stack(path, config.images, config.box, config.pixel_size) as image_ndd:
        for n in _chunks(config):
            image_ndd[n] = clean_bdd = noise_free(atoms, truth, n, config.box, config.pixel_size)
            moment_n2[n] = np.stack([np.mean(f, (1, 2), np.float64) for f in (clean_bdd, clean_bdd**2)], axis=1)
            progress(len(n))
        sigma = np.sqrt(_variance(moment_n2[truth.state_n >= 0]) / config.snr)
        grey = 1 / np.sqrt(_variance(moment_n2) + sigma**2)
        gain, noise_gain, offset = np.array([grey, grey * sigma, grey * moment_n2[:, 0].mean()], np.float32)
        for n in _chunks(config):
            image_ndd[n] = gain * image_ndd[n] + noise_gain * _noise(config, n) - offset
    return float(grey)


def _chunks(config: Simulation) -> Iterator[np.ndarray]:
    size = max(CHUNK_PIXELS // config.box**2, 1)
    return (np.arange(start, min(start + size, config.images)) for start in range(0, config.images, size))


def _variance(moment_n2: np.ndarray) -> float:
    """Of all pixels of images of one size whose mean and mean square are given."""
    mean, square = moment_n2.mean(0)
    return square - mean**2


def noise_free(atoms: Gaussians, truth: Truth, n: np.ndarray, box: int, pixel_A: float) -> np.ndarray:
    """−c · CTF · projection of images `n`, white particles; without a CTF the projection as it is; float32 (b, d, d).

    The CTF multiplies the whole transform, DC and Nyquist included.
    """
    image_bdd = atoms.project(truth.state_n[n], truth.rotation_n33[n], truth.shift_n2[n], box)
    image_bdd *= truth.contrast_n[n].astype(np.float32)[:, None, None]
    if truth.ctf is None:
        return image_bdd
    kx_h, ky_d = np.arange(box // 2 + 1), np.fft.fftfreq(box, 1 / box)
    k_k2 = np.stack(np.meshgrid(kx_h, ky_d), axis=-1).reshape(-1, 2)
    ctf_bk = ctf(truth.ctf.take(n), np.full(len(n), pixel_A), k_k2, box).numpy()
    return _filtered(image_bdd, -ctf_bk.reshape(len(n), box, -1))


def _filtered(image_bdd: np.ndarray, gain_dh: np.ndarray) -> np.ndarray:
    """Images with their half spectra multiplied. SciPy's transforms, unlike torch's, round each image on its own."""
    return np.asarray(fft.irfft2(fft.rfft2(image_bdd) * gain_dh, s=image_bdd.shape[1:]))


def _noise(config: Simulation, n: np.ndarray) -> np.ndarray:
    """Normal noise of variance 1, every image from a stream of its own; float32 (b, d, d)."""
    size = (config.box, config.box)
    noise_bdd = np.stack([config.random("noise", i).standard_normal(size, np.float32) for i in n])
    return noise_bdd if config.noise == "white" else _filtered(noise_bdd, _amplitude(config.box))


def _amplitude(box: int) -> np.ndarray:
    """√P of coloured noise, P ∝ 1 + 9 exp(−8|k|/D) with mean 1 over all frequencies; float32 (d, h)."""
    k_d = np.fft.fftfreq(box, 1 / box)
    power_dd = 1 + 9 * np.exp(-8 * np.hypot(k_d[:, None], k_d) / box)
    return np.sqrt(power_dd / power_dd.mean())[:, : box // 2 + 1].astype(np.float32)


def _write_maps(folder: Path, config: Simulation, atoms: Gaussians, grey: float) -> None:
    union_zyx = np.zeros((config.box,) * 3, np.float32)
    for state in range(len(atoms.first_s) - 2):
        map_zyx = grey * atoms.density(state, config.box)
        mrc.write_map(folder / "vols" / f"{state:03d}.mrc", map_zyx, config.pixel_size)
        np.maximum(union_zyx, map_zyx, out=union_zyx)
    mrc.write_map(folder / "mask.mrc", masks.around(union_zyx), config.pixel_size)


def _particles(config: Simulation, truth: Truth, stack: Path) -> Particles:
    """What a user would have, with the errors of pose that were asked for."""
    number_n, none_n = np.arange(config.images), np.zeros(config.images, int)
    rotation_n33, shift_n2 = tabulated_poses(config, truth)
    return Particles(
        path=stack.with_suffix(".star"),
        box=config.box,
        pixel_A_n=np.full(config.images, config.pixel_size),
        rotation_n33=rotation_n33,
        shift_A_n2=shift_n2 * config.pixel_size,
        ctf=tabulated_ctf(config, truth),
        optics_n=none_n,
        optics_names=("opticsGroup1",),
        stacks=(stack,),
        stack_n=none_n,
        slice_n=number_n,
        half_n=config.random("half").permutation(number_n % 2 + 1),
        micrograph_n=np.array([f"micrographs/mic_{n // PER_MICROGRAPH + 1:04d}.mrc" for n in number_n]),
    )


def _truth_table(config: Simulation, truth: Truth, states: list[molecules.State]) -> pd.DataFrame:
    """One row per image: r00 … r22, shift_x_A, shift_y_A, motion (not a number for junk), state, contrast, junk."""
    motion_s = np.array([*(state.motion for state in states), np.nan])
    rotation = {f"r{i}{j}": truth.rotation_n33[:, i, j] for i in range(3) for j in range(3)}
    shift_A_n2 = truth.shift_n2 * config.pixel_size
    return pd.DataFrame(
        {
            **rotation,
            "shift_x_A": shift_A_n2[:, 0],
            "shift_y_A": shift_A_n2[:, 1],
            "motion": motion_s[truth.state_n],
            "state": truth.state_n,
            "contrast": truth.contrast_n,
            "junk": truth.state_n < 0,
        }
    )


def _refuse_occupied(folder: Path, overwrite: bool) -> None:
    """Only a simulation is ever replaced, and only when told so."""
    refuse_file(folder)
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not (folder / SETTINGS).is_file():
        raise InputError(f"{folder}: exists already and is no simulation; choose another folder")
    if not overwrite:
        raise InputError(f"{folder}: holds a simulation already; choose another folder or give --overwrite")
    if foreign := {path.name for path in folder.iterdir()} - set(WRITTEN):
        raise InputError(f"{folder}: holds {min(foreign)}, which no simulation wrote; choose another folder")
