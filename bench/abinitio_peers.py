"""Poses from nothing beside cryoDRGN 4.3.1's `abinit` and RELION 3.1.3's InitialModel, on one set in one run.

    python bench/abinitio_peers.py [--set blobs-uniform] [--seeds 0] [--minutes 30] [--programs morphem relion cryodrgn]

A thread each, nothing told but the images, their CTFs and a diameter. RELION runs as its interface would have it: 300
iterations of gradient descent; poses are those of its last one. cryoDRGN runs with its own defaults and without a
latent. Errors are medians over all images, in the frame and hand that suit best; of a program that was stopped for
time, those of what it had written last.
"""

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import abinitio
import numpy as np
import peers

from morphem.data.particles import Particles
from morphem.data.simulation import Simulation
from morphem.physics.alignment import align
from morphem.physics.rotations import distance_rad

DIAMETER_A = 190
SGD = ("--sgd", "--denovo_3dref", "--sgd_ini_iter", 50, "--sgd_inbetween_iter", 200, "--sgd_fin_iter", 50)
SGD_MORE = ("--sgd_ini_resol", 35, "--sgd_fin_resol", 15, "--sgd_ini_subset", 100, "--sgd_fin_subset", 500)
SGD_WRITE = ("--sgd_write_iter", 10, "--K", 1, "--sym", "C1", "--ctf", "--flatten_solvent", "--zero_mask", "--pool", 3)
SGD_GRID = ("--dont_combine_weights_via_disc", "--pad", 1, "--skip_gridding", "--oversampling", 1, "--healpix_order", 1)


def within(minutes: float, folder: Path, *words: object) -> tuple[float, str]:
    """Seconds of a command, and how it ended."""
    start, environment = time.perf_counter(), os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    child = subprocess.Popen(
        [*map(str, words)], cwd=folder, env=environment, stderr=subprocess.PIPE, stdout=-3, text=True
    )
    try:
        complaint = child.communicate(timeout=60 * minutes)[1]
        ended = "done" if child.returncode == 0 else f"code {child.returncode}: {complaint[-200:]}"
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()
        ended = f"not in {minutes:g} minutes"
    return round(time.perf_counter() - start, 1), ended


def error_deg(found: Particles | None, true_n33: np.ndarray) -> float | None:
    """The median over images, in the best frame and hand."""
    if found is None or found.rotation_n33 is None:
        return None
    frame = align(found.rotation_n33, true_n33)
    return round(float(np.degrees(np.median(distance_rad(frame.poses(found.rotation_n33), true_n33)))), 2)


def last(folder: Path, pattern: str) -> Path | None:
    """The file that was written last."""
    return max(folder.glob(pattern), key=lambda path: path.stat().st_mtime, default=None)


def ours(folder: Path, minutes: float, seed: int) -> tuple[float, str, Particles | None]:
    words = ["fit", "abinitio", "particles.star", "-o", "ours", "--threads", 1, "--seed", seed]
    told = within(minutes, folder, *abinitio.MORPHEM, *words)
    path = last(folder, "ours/particles.star")
    return *told, path and Particles.read(path, datadir=folder)


def relion(folder: Path, minutes: float, seed: int) -> tuple[float, str, Particles | None]:
    (folder / "relion").mkdir()
    side_A = 64 * 4.0
    where = [
        "--i",
        "particles.star",
        "--o",
        "relion/run",
        "--particle_diameter",
        0.75 * side_A,
        "--random_seed",
        seed + 1,
    ]
    offsets = ["--offset_range", 6, "--offset_step", 2, "--j", 1]
    told = within(minutes, folder, "relion_refine", *where, *SGD, *SGD_MORE, *SGD_WRITE, *SGD_GRID, *offsets)
    path = last(folder, "relion/run_it*_data.star")
    return *told, path and Particles.read(path, datadir=folder)


def cryodrgn(folder: Path, minutes: float, seed: int) -> tuple[float, str, Particles | None]:
    program = peers.cryodrgn() / "cryodrgn"
    subprocess.run([*map(str, [program, "parse_ctf_star", "particles.star", "-o", "ctf.pkl"])], cwd=folder, check=True)
    words = ["particles.star", "--ctf", "ctf.pkl", "--zdim", 0, "-o", "cryodrgn", "--datadir", folder, "--seed", seed]
    told = within(minutes, folder, program, "abinit", *words, "--num-workers", 0, "--no-analysis")
    path = last(folder, "cryodrgn/**/pose*.pkl")
    return *told, path and Particles.read(folder / "particles.mrcs", poses=path, ctf=folder / "ctf.pkl")


PROGRAMS = {"morphem": ours, "relion": relion, "cryodrgn": cryodrgn}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", default="blobs-uniform", choices=list(abinitio.SETS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--programs", nargs="+", default=list(PROGRAMS), choices=list(PROGRAMS))
    options = parser.parse_args()
    if "relion" in options.programs and not shutil.which("relion_refine"):
        raise SystemExit("relion_refine is not on PATH")
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "set"
            settings, _ = abinitio.SETS[options.set]
            abinitio.write(folder, options.set, Simulation(seed=seed, molecule_seed=seed, **settings))
            true_n33 = Particles.read(folder / "particles.star").rotation_n33
            abinitio.hide_poses(folder / "particles.star")
            for name in options.programs:
                seconds, ended, found = PROGRAMS[name](folder, options.minutes, seed)
                told = {"seconds": seconds, "ended": ended, "error_deg": error_deg(found, true_n33)}
                print(json.dumps({"program": name, "set": options.set, "seed": seed} | told), flush=True)


if __name__ == "__main__":
    main()
