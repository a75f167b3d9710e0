"""`variability` with the kernel decoder against RECOVAR 1.0.5 on one hinge, in one run: time, motion, maps.

    python bench/recovar.py [--images 5000 --box 64] [--minutes 90] [--states 9] [--keep DIR]

Each takes the cores that it may. RECOVAR runs as on a machine without a GPU, with a spherical mask (it has to be given
one); where its pipeline does not end in time, the table says so. On a CPU version 1.0.5 writes maps of twice the
molecule's size, within a box of the same number of voxels and Å: they are brought to half of it. Maps of both are
decoded at the first image of each of some states, by kernel regression, and scored alike; seconds are those of the fit,
of wall time and of all cores.
"""

import argparse
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import peers
import torch

from morphem.data.simulation import Simulation
from morphem.data.synthetic import simulate
from morphem.ensemble import Ensemble
from morphem.evaluation import truth
from morphem.io.mrc import read_map
from morphem.physics import cube as cubes

MORPHEM = (sys.executable, "-m", "morphem")
DIMENSIONS, THEIRS = 6, 4


def timed(*words: object, seconds: float | None = None) -> dict[str, float | None]:
    """Wall and CPU seconds of a command; no wall seconds where it ran out of them."""
    start, cpu = time.perf_counter(), _cpu_of_children()
    try:
        subprocess.run([*map(str, words)], check=True, capture_output=True, timeout=seconds)
        wall = time.perf_counter() - start
    except subprocess.TimeoutExpired:
        wall = None
    return {"seconds": wall, "cpu_seconds": _cpu_of_children() - cpu}


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def at_its_size(map_zyx: np.ndarray) -> np.ndarray:
    """A map that shows everything at twice its size, at its size: voxels joined by twos, the rest of the box empty."""
    box = len(map_zyx)
    small_zyx = cubes.crop(torch.tensor(map_zyx)[None], box // 2)[0].numpy()
    return np.pad(small_zyx, box // 4)


def scored(maps: list[np.ndarray], known: truth.Truth, rows: np.ndarray, z_nq: np.ndarray) -> dict[str, float]:
    areas = truth._areas(iter(maps), known, known.state_n[rows]).mean(0)
    error, mean = truth._motion(known, z_nq, 0)
    return {"AUC": float(areas[0]), "masked": float(areas[1]), "motion": error, "mean": mean}


def ours(folder: Path, known: truth.Truth, rows: np.ndarray) -> dict[str, float | None]:
    run, particles = folder / "ours", folder / "particles.star"
    fitting = timed(*MORPHEM, "fit", "variability", particles, "-o", run, "--latent-dim", DIMENSIONS)
    images = [word for row in rows for word in ("--image", row)]
    decoding = timed(*MORPHEM, "decode", run, "-o", folder / "states", "--decoder", "kernel", *images)
    maps = [read_map(folder / "states" / f"map_{number:03d}.mrc")[0] for number in range(1, len(rows) + 1)]
    return fitting | {"decoding": decoding["seconds"]} | scored(maps, known, rows, Ensemble.open(run).z_nq)


def theirs(folder: Path, known: truth.Truth, rows: np.ndarray, minutes: float) -> dict[str, float | None]:
    program, out, states = peers.recovar(), folder / "theirs", folder / "their_states"
    where = ["--mask", "sphere", "--no-downsample", "--accept-cpu", "--gpu-budget-gb", 8, "--zdim", THEIRS]
    pipeline = [program, "pipeline", folder / "particles.star", "-o", out, "--datadir", folder, *where]
    fitting = timed(*pipeline, seconds=60 * minutes)
    if fitting["seconds"] is None:
        return fitting
    z_nq = np.load(out / "model" / f"zdim_{THEIRS}" / "latent_coords.npy")
    np.savetxt(folder / "z.txt", z_nq[rows])
    decoding = timed(program, "compute_state", out, "-o", states, "--latent-points", folder / "z.txt")
    paths = sorted(path for path in states.rglob("*.mrc") if re.fullmatch(r"(state|vol)\d+\.mrc", path.name))
    maps = [at_its_size(read_map(path)[0]) for path in paths]
    return fitting | {"decoding": decoding["seconds"]} | scored(maps, known, rows, z_nq)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--box", type=int, default=64)
    parser.add_argument("--minutes", type=float, default=90)
    parser.add_argument("--states", type=int, default=9)
    parser.add_argument("--keep", type=Path, help="folder for images and results; a scratch folder by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = (options.keep or Path(scratch)) / "set"
        simulate(folder, Simulation(images=options.images, box=options.box, pixel_size=192 / options.box, snr=0.1))
        known = truth.Truth.open(folder)
        first = [int(np.flatnonzero(known.state_n == state)[0]) for state in np.unique(known.state_n)]
        rows = np.array(first)[:: max(1, len(first) // options.states)][: options.states]
        print(json.dumps({"morphem": ours(folder, known, rows)}), flush=True)
        row = theirs(folder, known, rows, options.minutes)
        print(json.dumps({"RECOVAR": row} | ({} if row["seconds"] else {"ended": "not in time"})), flush=True)


if __name__ == "__main__":
    main()
