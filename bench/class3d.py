"""Two states told apart by `classify`, and by RELION 3.1's Class3D with the same fixed poses, in one run.

    python bench/class3d.py [--images 1000 --box 64 --snr 0.08] [--seeds 0 1 2 3 4]

Assemblies of one part that half of the molecules have; a molecule, poses and noise for each seed. Both programs start
from one consensus map and see the same table, a thread each. RELION runs with a solvent mask (the truth's, its best
case) and without one; `classify` is given none. Right: images in the class that most of their state are in. RELION is
found on PATH (Debian's `relion`).
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from morphem.data.simulation import Simulation
from morphem.data.synthetic import simulate
from morphem.ensemble import Ensemble
from morphem.io import star

MORPHEM = (sys.executable, "-m", "morphem")
ITERATIONS = 25


def timed(folder: Path, *words: object) -> float:
    """Seconds of a command, run in a folder on one thread."""
    start, environment = time.perf_counter(), os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*map(str, words)], cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{words[0]} ended with {done.returncode}: {done.stderr[-500:]}")
    return time.perf_counter() - start


def right(true_n: np.ndarray, found_n: np.ndarray) -> float:
    """The share of images in the class that suits their state, of both ways to name the classes the better."""
    same = float((true_n == found_n).mean())
    return max(same, 1 - same)


def ours(folder: Path, seed: int) -> tuple[float, np.ndarray]:
    seconds = timed(
        folder, *MORPHEM, "fit", "classify", "particles.star", "-o", "run", "-K", 2, "--threads", 1, "--seed", seed
    )
    return seconds, Ensemble.open(folder / "run").weight_nc.argmax(1)


def relion(folder: Path, seed: int, mask: bool, simulation: Simulation) -> tuple[float, np.ndarray]:
    out = folder / ("masked" if mask else "plain")
    out.mkdir()
    diameter = 0.9 * simulation.box * simulation.pixel_size
    where = ["--i", "particles.star", "--o", out / "run", "--ref", "consensus.mrc", "--random_seed", seed + 1]
    how = ["--K", 2, "--skip_align", "--iter", ITERATIONS, "--tau2_fudge", 4, "--ctf", "--norm", "--scale"]
    more = ["--particle_diameter", diameter, "--flatten_solvent", "--zero_mask", "--pad", 2, "--ini_high", 30, "--j", 1]
    mask_words = ["--solvent_mask", "mask.mrc"] if mask else []
    seconds = timed(folder, "relion_refine", *where, *how, *more, *mask_words)
    table = star.read(out / f"run_it{ITERATIONS:03d}_data.star")["particles"]
    image_n = table["rlnImageName"].str.split("@").str[0].astype(int)
    return seconds, table["rlnClassNumber"].astype(int).to_numpy()[image_n.argsort()] - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--box", type=int, default=64)
    parser.add_argument("--snr", type=float, default=0.08)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    options = parser.parse_args()
    if not shutil.which("relion_refine"):
        raise SystemExit("relion_refine is not on PATH")
    print(f"{'seed':>4}{'classify':>18}{'RELION, masked':>18}{'RELION, no mask':>18}{'time ratio':>12}")
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as scratch:
            print(row(Path(scratch) / "set", seed, options), flush=True)


def row(folder: Path, seed: int, options: argparse.Namespace) -> str:
    shape = {"images": options.images, "box": options.box, "pixel_size": 192 / options.box, "snr": options.snr}
    simulation = Simulation(kind="assembly", parts=1, equal_populations=True, seed=seed, molecule_seed=seed, **shape)
    simulate(folder, simulation)
    true_n = np.load(folder / "labels.npy")
    timed(folder, *MORPHEM, "fit", "backproject", "particles.star", "-o", "mean")
    shutil.copy(folder / "mean/maps/consensus.mrc", folder / "consensus.mrc")
    results = [ours(folder, seed), *(relion(folder, seed, mask, simulation) for mask in (True, False))]
    told = "".join(f"{right(true_n, found_n):>10.1%}{seconds:>6.0f} s" for seconds, found_n in results)
    return f"{seed:>4}{told}{results[1][0] / results[0][0]:>12.1f}"


if __name__ == "__main__":
    main()
